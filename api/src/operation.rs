//! What a route promises. A route exists only together with one of these (see `routes`): the front
//! reads its rule from it, the handler its query parameters, and `openapi` writes the rest down for
//! callers. What is the same for all reads, all writes or all probes is added here by rule, so that a
//! declaration says only what is its own.

use http::Method;
use http::header::{self, HeaderName};
use quorate_state_machine::Code;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::front::{BodyRule, Rule};
use crate::headers::{
    IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, IF_LOCK, REQUEST_TIMEOUT_MS, X_LEADER, X_LEVEL, X_MIN_POSITION, X_NODE,
    X_POSITION, X_REQUEST_ID, X_TERM, X_USER,
};
use crate::problem::Kind;
use crate::rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY};

#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// The pattern, for example `/v1/rooms/{room}`.
    pub(crate) path: &'static str,
    pub(crate) rule: Rule,
    /// What programs that are made from the document call it.
    pub(crate) id: String,
    /// The section of the document; the table sets it.
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) about: &'static str,
    /// Names of query parameters. Any other is a 400.
    pub(crate) query: Vec<&'static str>,
    pub(crate) headers: Vec<HeaderName>,
    pub(crate) body: Option<SchemaOf>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) errors: Vec<Kind>,
}

/// Gives a type's schema, and leaves the types that it refers to with the generator.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An answer that is no error.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content: Content,
    pub(crate) headers: Vec<HeaderName>,
}

#[derive(Clone, Copy)]
pub(crate) enum Content {
    Nothing,
    Json(SchemaOf),
    /// Of this media type.
    Text(&'static str),
    /// Server-Sent Events.
    Events,
    /// Frames of JSON in both directions.
    Socket {
        requests: SchemaOf,
        answers: SchemaOf,
    },
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Errors that every route may give.
const ALWAYS: [Kind; 2] = [Kind::BadRequest, Kind::Internal];

/// Errors of everything that needs a place among the requests at work, and a state to look at.
const WORK: [Kind; 6] = [
    Kind::Refused(Code::Unauthenticated),
    Kind::Refused(Code::RateLimited),
    Kind::Overloaded,
    Kind::NoLeader,
    Kind::NotReady,
    Kind::ShuttingDown,
];

/// Errors of whatever goes into the log.
const LOG: [Kind; 7] = [
    Kind::BodyTimeout,
    Kind::TooLarge,
    Kind::Refused(Code::IdempotencyMismatch),
    Kind::Refused(Code::PreconditionFailed),
    Kind::Refused(Code::LockLost),
    Kind::CommitUnknown,
    Kind::DiskFull,
];

impl Operation {
    /// `GET`, at the level that the caller asks for.
    pub(crate) fn read(path: &'static str, id: &str, summary: &'static str) -> Self {
        let mut this = Self::new(Method::GET, path, Rule::Read, id, summary);
        this.query.push("level");
        this.headers.extend([X_USER, REQUEST_TIMEOUT_MS, X_MIN_POSITION]);
        this.errors(&WORK).errors(&[Code::PositionExpired]).of_path()
    }

    /// A write without a body, until [`Self::json`] or one of its kin gives it one.
    pub(crate) fn write(method: Method, path: &'static str, id: &str, summary: &'static str) -> Self {
        let mut this = Self::new(method, path, Rule::Write(BodyRule::Unused), id, summary);
        this.query.push("redirect");
        this.headers.extend([
            X_USER,
            REQUEST_TIMEOUT_MS,
            IDEMPOTENCY_KEY,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            IF_LOCK,
        ]);
        this.errors(&WORK).errors(&LOG).of_path()
    }

    /// `GET`, answered even when the node is overloaded.
    pub(crate) fn probe(path: &'static str, id: &str, summary: &'static str) -> Self {
        Self::new(Method::GET, path, Rule::Probe, id, summary)
    }

    pub(crate) fn post(path: &'static str, id: &str, summary: &'static str) -> Self {
        Self::write(Method::POST, path, id, summary)
    }

    pub(crate) fn put(path: &'static str, id: &str, summary: &'static str) -> Self {
        Self::write(Method::PUT, path, id, summary)
    }

    pub(crate) fn patch(path: &'static str, id: &str, summary: &'static str) -> Self {
        Self::write(Method::PATCH, path, id, summary)
    }

    pub(crate) fn delete(path: &'static str, id: &str, summary: &'static str) -> Self {
        Self::write(Method::DELETE, path, id, summary)
    }

    /// What is no route: no path of the document, but treated by the same front.
    pub(crate) fn none(label: &'static str) -> Self {
        Self::new(Method::GET, label, Rule::Probe, "", "")
    }

    fn new(method: Method, path: &'static str, rule: Rule, id: &str, summary: &'static str) -> Self {
        // The routes that are there under a second prefix need a name of their own.
        let suffix = if path.starts_with("/api/") { "UnderApi" } else { "" };
        Self {
            method,
            path,
            rule,
            id: format!("{id}{suffix}"),
            tag: "",
            summary,
            about: "",
            query: Vec::new(),
            headers: vec![X_REQUEST_ID],
            body: None,
            answers: Vec::new(),
            errors: ALWAYS.to_vec(),
        }
    }

    /// What the path names may not be there, or not be for the caller.
    fn of_path(self) -> Self {
        let this = if self.path.contains('{') {
            self.errors(&[Code::NotFound])
        } else {
            self
        };
        if this.path.contains("{room}") {
            this.errors(&[Code::Forbidden, Code::NotAMember, Code::Banned])
        } else {
            this
        }
    }

    /// More than the summary, in whole sentences.
    pub(crate) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Query parameters beside those of its rule; `openapi::parameters` says what each may hold.
    pub(crate) fn query(mut self, names: &[&'static str]) -> Self {
        self.query.extend(names);
        self
    }

    /// Request headers beside those of its rule.
    pub(crate) fn header(mut self, name: HeaderName) -> Self {
        self.headers.push(name);
        self
    }

    /// Errors beside those of its rule and path.
    pub(crate) fn errors<K: Into<Kind> + Copy>(mut self, kinds: &[K]) -> Self {
        for kind in kinds {
            let kind = (*kind).into();
            if !self.errors.contains(&kind) {
                self.errors.push(kind);
            }
        }
        self
    }

    pub(crate) fn json<T: JsonSchema>(self) -> Self {
        self.with_body(BodyRule::Json, schema_of::<T>)
    }

    /// No body stands for an empty object.
    pub(crate) fn optional_json<T: JsonSchema>(self) -> Self {
        self.with_body(BodyRule::OptionalJson, schema_of::<T>)
    }

    pub(crate) fn merge_patch<T: JsonSchema>(self) -> Self {
        self.with_body(BodyRule::MergePatch, schema_of::<T>)
    }

    fn with_body(mut self, rule: BodyRule, schema: SchemaOf) -> Self {
        self.rule = Rule::Write(rule);
        self.body = Some(schema);
        self.errors(&[Kind::UnsupportedMediaType])
    }

    /// For what is no command of the log, so that nothing could hold a condition or a key against it;
    /// and which is the administrator's.
    pub(crate) fn admin(mut self) -> Self {
        let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, IF_LOCK];
        self.headers.retain(|name| !conditions.contains(name));
        let of_the_log = [Code::IdempotencyMismatch, Code::PreconditionFailed, Code::LockLost];
        self.errors
            .retain(|kind| !of_the_log.iter().any(|code| *kind == Kind::Refused(*code)));
        // The replica refuses with these (`replica::AdminError`).
        self.errors(&[
            Code::Forbidden,
            Code::NotFound,
            Code::AlreadyExists,
            Code::Conflict,
            Code::Invalid,
        ])
        .errors(&[Kind::DiskFull])
    }

    /// For a command that takes no key: what was decided is not answered again.
    pub(crate) fn without_key(mut self) -> Self {
        self.headers.retain(|name| *name != IDEMPOTENCY_KEY);
        self.errors
            .retain(|kind| *kind != Kind::Refused(Code::IdempotencyMismatch));
        self
    }

    /// For a read of something else than one node's state: there is no position that it could wait for.
    pub(crate) fn without_min_position(mut self) -> Self {
        self.headers.retain(|name| *name != X_MIN_POSITION);
        self.errors.retain(|kind| *kind != Kind::Refused(Code::PositionExpired));
        self
    }

    /// For a write that the asked node does itself.
    pub(crate) fn without_redirect(mut self) -> Self {
        self.query.retain(|name| *name != "redirect");
        self
    }

    /// JSON that is no entity.
    pub(crate) fn answers<T: JsonSchema>(self, status: u16) -> Self {
        self.answer(status, Content::Json(schema_of::<T>), &[])
    }

    /// An entity, with its tag; of a read also that it is unchanged.
    pub(crate) fn entity<T: JsonSchema>(self) -> Self {
        let this = self.answer(200, Content::Json(schema_of::<T>), &[header::ETAG]);
        if this.rule == Rule::Read {
            this.header(header::IF_NONE_MATCH)
                .answer(304, Content::Nothing, &[header::ETAG])
        } else {
            this
        }
    }

    /// An entity whose form changes with time, so that its tag says nothing of what is shown.
    pub(crate) fn moving_entity<T: JsonSchema>(self) -> Self {
        self.answer(200, Content::Json(schema_of::<T>), &[header::ETAG])
    }

    /// A new entity, with its tag and its place.
    pub(crate) fn created<T: JsonSchema>(self) -> Self {
        self.answer(201, Content::Json(schema_of::<T>), &[header::ETAG, header::LOCATION])
    }

    pub(crate) fn no_content(self) -> Self {
        self.answer(204, Content::Nothing, &[])
    }

    /// One page of a list.
    pub(crate) fn list<T: JsonSchema>(self) -> Self {
        self.query(&["limit", "cursor"])
            .answer(200, Content::Json(schema_of::<T>), &[header::LINK])
    }

    pub(crate) fn text(self, media_type: &'static str) -> Self {
        self.answer(200, Content::Text(media_type), &[])
    }

    /// JSON whose form is another document's to say.
    pub(crate) fn any_json(self) -> Self {
        self.answer(200, Content::Json(|_| json_schema!({"type": "object"})), &[])
    }

    pub(crate) fn events(self) -> Self {
        self.answer(200, Content::Events, &[])
    }

    /// A connection that goes on as a WebSocket; which frames it then carries, these types say.
    pub(crate) fn socket<Requests: JsonSchema, Answers: JsonSchema>(self) -> Self {
        let frames = Content::Socket {
            requests: schema_of::<Requests>,
            answers: schema_of::<Answers>,
        };
        self.answer(101, frames, &[])
    }

    /// Adds to the headers those that every answer of its rule has.
    fn answer(mut self, status: u16, content: Content, headers: &[HeaderName]) -> Self {
        let of_the_log = [header::IF_MATCH, IDEMPOTENCY_KEY];
        let replayed = matches!(self.rule, Rule::Write(_)) && of_the_log.iter().all(|name| self.headers.contains(name));
        let mut headers = headers.to_vec();
        headers.extend(self.standard_headers());
        headers.extend(replayed.then_some(IDEMPOTENCY_REPLAYED));
        self.answers.push(Answer {
            status,
            content,
            headers,
        });
        self
    }

    /// What the front puts on every answer, errors included.
    pub(crate) fn standard_headers(&self) -> Vec<HeaderName> {
        let mut headers = vec![X_REQUEST_ID, X_NODE, X_LEADER, X_TERM, X_POSITION];
        if self.rule == Rule::Read {
            headers.push(X_LEVEL);
        }
        if self.rule != Rule::Probe {
            headers.extend([RATE_LIMIT_POLICY, RATE_LIMIT]);
        }
        headers
    }
}
