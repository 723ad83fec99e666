//! One request, from bytes to values. The body is already there (see `front`); the methods here are
//! called in the order in which the contract lists its checks, and each gives the 400 of its part.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header;
use http::request::Parts;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Caller, Command, Conditions, Envelope, Idempotency, Position, Query, Seq, SpaceId};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::operation::Operation;
use crate::params::{Params, number};
use crate::places::{Class, Place};
use crate::problem::Problem;
use crate::replica::{Level, ReadOptions, WriteOptions};
use crate::{checks, fingerprint, headers, json, percent};

/// What is kept of a request's time for its answer's way: a tenth, at most this.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// A request whose route was found and whose body was read.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    /// The route, and what it promises.
    pub(crate) operation: Arc<Operation>,
    pub(crate) parts: Parts,
    /// Empty for reads.
    pub(crate) body: Bytes,
    pub(crate) request_id: String,
    /// Its place among the requests at work; none for probes. Held to exchange it, never across an await.
    pub(crate) place: Mutex<Option<Place>>,
}

/// What every write says beside its command.
pub(crate) struct WriteIntent {
    caller: Result<Caller, Problem>,
    conditions: Conditions,
    idempotency_key: Option<String>,
    /// Stands for the body in the fingerprint where the body holds a password.
    body_stand_in: Option<Bytes>,
    options: WriteOptions,
}

/// What every read says beside its query.
pub(crate) struct ReadIntent {
    caller: Result<Caller, Problem>,
    pub(crate) options: ReadOptions,
}

/// What a sign-in says beside its body: it reads, and then it writes.
pub(crate) struct SignIn {
    pub(crate) intent: WriteIntent,
    pub(crate) read: ReadIntent,
}

impl Call {
    /// From here on the request waits by agreement, for a lock or for news: it takes a place among
    /// those that do, for the rest of its life, and gives back its place among the requests at work.
    pub(crate) fn waiting(&self) -> Result<(), Problem> {
        let waiting = self.app.places.take(Class::Wait)?;
        *self.place.lock().expect("nothing panics while it holds the lock") = Some(waiting);
        Ok(())
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        json::parse(&self.body)
    }

    /// Where no body means that every field is absent.
    pub(crate) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        self.json()
    }

    /// A segment of the path, as it was sent.
    fn segment(&self, wanted: &str) -> &str {
        let segments = self.operation.path.split('/').zip(self.parts.uri.path().split('/'));
        segments
            .filter_map(|(pattern, segment)| {
                let name = pattern.strip_prefix('{')?.strip_suffix('}')?;
                (name == wanted).then_some(segment)
            })
            .next()
            .expect("a handler asks for parameters of its own route")
    }

    /// A name in the path.
    pub(crate) fn name(&self, wanted: &str) -> Result<String, Problem> {
        let name = percent::decode(self.segment(wanted).as_bytes())
            .ok_or_else(|| Problem::bad_request(format!("the {wanted} in the path is not percent-encoded UTF-8")))?;
        checks::name(wanted, &name)?;
        Ok(name)
    }

    /// A seq in the path: what is no number is 400; a number that is no message is a later 404.
    pub(crate) fn seq(&self, wanted: &str) -> Result<Seq, Problem> {
        number(self.segment(wanted))
            .map(Seq)
            .ok_or_else(|| Problem::bad_request(format!("the {wanted} in the path must be a number")))
    }

    /// A node's id in the path, with the same rule.
    pub(crate) fn node(&self, wanted: &str) -> Result<u64, Problem> {
        number(self.segment(wanted))
            .ok_or_else(|| Problem::bad_request(format!("the node's {wanted} in the path must be a number")))
    }

    /// The query; a parameter that the operation does not declare is a 400.
    pub(crate) fn params(&self) -> Result<Params, Problem> {
        Params::parse(self.parts.uri.query(), &self.operation.query)
    }

    /// Headers and query of a write.
    pub(crate) fn write_intent(&self) -> Result<WriteIntent, Problem> {
        self.write_intent_of(&self.params()?)
    }

    /// The same, where the query says more than `redirect`.
    pub(crate) fn write_intent_of(&self, params: &Params) -> Result<WriteIntent, Problem> {
        headers::check_those_of_reads(&self.parts.headers)?;
        Ok(WriteIntent {
            caller: self.app.accounts.caller(&self.parts.headers)?,
            conditions: headers::conditions(&self.parts.headers)?,
            idempotency_key: headers::idempotency_key(&self.parts.headers)?,
            body_stand_in: None,
            options: WriteOptions {
                deadline: self.deadline()?,
                redirect: params.flag("redirect")?,
            },
        })
    }

    /// Headers of a read, and `level`.
    pub(crate) fn read_intent(&self, params: &Params) -> Result<ReadIntent, Problem> {
        let level = match params.get("level") {
            None | Some("linearizable") => Level::Linearizable,
            Some("local") => Level::Local,
            Some(_) => return Err(Problem::bad_request("level must be linearizable or local")),
        };
        headers::check_those_of_writes(&self.parts.headers)?;
        let min_position = headers::position(&self.parts.headers, &headers::X_MIN_POSITION)?;
        Ok(ReadIntent {
            caller: self.app.accounts.caller(&self.parts.headers)?,
            options: ReadOptions {
                deadline: self.deadline()?,
                level,
                min_position,
            },
        })
    }

    /// Headers and query of a sign-in.
    pub(crate) fn sign_in(&self) -> Result<SignIn, Problem> {
        let intent = self.write_intent()?.without_key();
        let read = ReadIntent {
            caller: intent.caller.clone(),
            options: ReadOptions {
                deadline: intent.options.deadline,
                level: Level::Linearizable,
                min_position: None,
            },
        };
        Ok(SignIn { intent, read })
    }

    /// Nobody has to be somebody to sign in; but a token that comes along is a good one, as everywhere. The
    /// rest is the node's own doing, as root: to look the password's hash up, and to propose the session.
    pub(crate) async fn admit_sign_in(&self, sign_in: SignIn) -> Result<SignIn, Problem> {
        let SignIn { mut intent, mut read } = sign_in;
        if self.parts.headers.contains_key(header::AUTHORIZATION) {
            self.check_known(&intent.caller?, intent.options.deadline).await?;
        }
        (intent.caller, read.caller) = (Ok(Caller::Root), Ok(Caller::Root));
        Ok(SignIn { intent, read })
    }

    pub(crate) fn timeout(&self) -> Result<Duration, Problem> {
        headers::timeout(&self.parts.headers, self.app.limits.request_timeout)
    }

    pub(crate) fn deadline(&self) -> Result<Instant, Problem> {
        Ok(deadline_within(self.timeout()?))
    }

    /// The URL of an entity in this route's collection.
    pub(crate) fn location_of(&self, last: &str) -> String {
        format!(
            "{}/{}",
            self.parts.uri.path().trim_end_matches('/'),
            percent::encode(last)
        )
    }

    pub(crate) fn path_and_query(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |both| both.as_str())
    }
}

/// Counted from here, not from the first byte: a body on a slow line takes nothing from it. A little of it is kept,
/// so that the answer comes within the time and not just after it.
pub(crate) fn deadline_within(timeout: Duration) -> Instant {
    Instant::now() + timeout - (timeout / 10).min(ANSWER_MARGIN)
}

impl WriteIntent {
    pub(crate) fn caller(&self) -> Result<Caller, Problem> {
        self.caller.clone()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.options.deadline
    }

    pub(crate) fn has_key(&self) -> bool {
        self.idempotency_key.is_some()
    }

    pub(crate) fn set_body_stand_in(&mut self, body: Bytes) {
        self.body_stand_in = Some(body);
    }

    /// For a command that takes no key.
    pub(crate) fn without_key(self) -> Self {
        Self {
            idempotency_key: None,
            ..self
        }
    }

    /// The 401 comes after every 400. For a write that costs something before the log is asked who the caller is.
    pub(crate) async fn authenticated(self, call: &Call) -> Result<Self, Problem> {
        let caller = self.caller?;
        call.check_known(&caller, self.options.deadline).await?;
        Ok(Self {
            caller: Ok(caller),
            ..self
        })
    }

    pub(crate) fn into_envelope(self, call: &Call, command: Command) -> Result<(Envelope, WriteOptions), Problem> {
        let idempotency = self.idempotency_key.map(|key| {
            let request = fingerprint::Request {
                method: &call.parts.method,
                path: call.parts.uri.path(),
                query: call.parts.uri.query(),
                conditions: &self.conditions,
                body: self.body_stand_in.as_ref().unwrap_or(&call.body),
            };
            Idempotency {
                key,
                fingerprint: fingerprint::of(&request),
            }
        });
        let envelope = Envelope {
            space: SpaceId::MAIN,
            caller: self.caller?,
            request_id: call.request_id.clone(),
            idempotency,
            conditions: self.conditions,
            command,
        };
        Ok((envelope, self.options))
    }
}

impl ReadIntent {
    /// The 401 comes after every 400. For a read that asks no state who the caller is.
    pub(crate) async fn authenticated(self, call: &Call) -> Result<Self, Problem> {
        let caller = self.caller?;
        call.check_known(&caller, self.options.deadline).await?;
        Ok(Self {
            caller: Ok(caller),
            ..self
        })
    }

    pub(crate) fn caller(&self) -> Result<Caller, Problem> {
        self.caller.clone()
    }

    pub(crate) fn into_query(self, body: QueryBody) -> Result<(Query, ReadOptions), Problem> {
        Ok((
            Query {
                space: SpaceId::MAIN,
                caller: self.caller?,
                body,
            },
            self.options,
        ))
    }

    /// Also wait for this position (a stream's); the later of two counts.
    pub(crate) fn wait_for(&mut self, position: Position) {
        let later = match self.options.min_position {
            Some(other) if (other.epoch, other.revision) > (position.epoch, position.revision) => other,
            _ => position,
        };
        self.options.min_position = Some(later);
    }
}
