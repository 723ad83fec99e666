//! What all requests of a node share, and the two ways to the replica.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::query::{Answered, PageSink, QueryBody};
use quorate_state_machine::{Answer, Caller, Command, Envelope, Position, Query, SpaceId};
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::budget::Budget;
use crate::config::{ApiConfig, Limits};
use crate::feed::Tails;
use crate::headers::{IDEMPOTENCY_REPLAYED, X_POSITION};
use crate::kept::KeptMessages;
use crate::metrics::Metrics;
use crate::password::Hasher;
use crate::places::Places;
use crate::problem::Problem;
use crate::rate_key::RateKey;
use crate::rate_limit::{Rate, RateLimiter};
use crate::replica::{Level, ReadOptions, ReplicaError, SharedReplica, WriteOptions};
use crate::request::{Call, ReadIntent, WriteIntent};
use crate::sign_in::SignIns;

pub(crate) struct App {
    pub(crate) replica: SharedReplica,
    pub(crate) limits: Limits,
    pub(crate) accounts: Accounts,
    pub(crate) metrics: Metrics,
    pub(crate) hasher: Hasher,
    pub(crate) places: Places,
    pub(crate) bodies: Budget,
    pub(crate) answers: Budget,
    pub(crate) sign_ins: SignIns,
    pub(crate) tails: Arc<Tails>,
    pub(crate) kept: KeptMessages,
    /// None: users are not limited.
    pub(crate) user_rate: Option<RateLimiter<RateKey>>,
    /// Cancelled when the server begins to shut down: streams end then.
    pub(crate) closing: CancellationToken,
}

/// A committed change and what its answer's headers say.
pub(crate) struct Committed {
    pub(crate) done: Done,
    pub(crate) position: Position,
    pub(crate) replayed: bool,
}

/// An answer and the state it was read from.
pub(crate) struct Read {
    pub(crate) answer: Answer,
    pub(crate) position: Position,
}

/// The replica keeps deadlines itself; should it once not, the caller still gets an answer.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);

impl App {
    pub(crate) fn new(replica: SharedReplica, config: ApiConfig) -> Arc<Self> {
        let ApiConfig {
            limits,
            accounts,
            registry,
        } = config;
        let metrics = Metrics::new(registry);
        Arc::new(Self {
            replica,
            hasher: Hasher::new(),
            places: Places::new(&limits, &metrics),
            bodies: Budget::of_bodies(&limits, &metrics),
            answers: Budget::of_answers(&limits, &metrics),
            sign_ins: SignIns::new(),
            tails: Tails::new(&metrics),
            kept: KeptMessages::new(&metrics),
            user_rate: user_rate(&limits).map(RateLimiter::new),
            metrics,
            closing: CancellationToken::new(),
            limits,
            accounts,
        })
    }
}

fn user_rate(limits: &Limits) -> Option<Rate> {
    let per_s = NonZeroU32::new(limits.user_requests_per_s)?;
    let burst = NonZeroU32::new(limits.user_requests_burst).unwrap_or(per_s);
    Some(Rate { per_s, burst })
}

impl App {
    /// Proposes the envelope and waits for its outcome: the one way of every write to the replica. A redirect leads
    /// to `path_and_query` at the leader.
    pub(crate) async fn propose(
        &self,
        envelope: Envelope,
        options: WriteOptions,
        path_and_query: &str,
    ) -> Result<Committed, Problem> {
        let proposed = self.replica.write(envelope, options);
        let written = tokio::time::timeout_at(latest(options.deadline), proposed)
            .await
            .unwrap_or_else(|_| Err(ReplicaError::CommitUnknown("no answer in time".to_owned())))
            .map_err(|error| Problem::from_replica(error, false, path_and_query))?;
        match written.outcome.response {
            Ok(done) => Ok(Committed {
                done,
                position: written.position,
                replayed: written.outcome.replayed,
            }),
            Err(rejection) => {
                let mut problem = Problem::refused(rejection).with_header(X_POSITION, header(written.position));
                if written.outcome.replayed {
                    problem = problem.with_header(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
                }
                Err(problem)
            }
        }
    }
}

impl Call {
    /// Proposes the command and waits for its outcome.
    pub(crate) async fn write(&self, intent: WriteIntent, command: Command) -> Result<Committed, Problem> {
        let (envelope, options) = intent.into_envelope(self, command)?;
        self.app.propose(envelope, options, self.path_and_query()).await
    }

    pub(crate) async fn read(&self, intent: ReadIntent, body: QueryBody) -> Result<Read, Problem> {
        let (query, options) = intent.into_query(body)?;
        self.answered(self.app.replica.read(query, options), options).await
    }

    /// The same for a page, which `sink` holds afterwards.
    pub(crate) async fn read_page(
        &self,
        intent: ReadIntent,
        body: QueryBody,
        sink: &mut (dyn PageSink + Send),
    ) -> Result<Read, Problem> {
        let (query, options) = intent.into_query(body)?;
        self.answered(self.app.replica.read_page(query, options, sink), options)
            .await
    }

    async fn answered(
        &self,
        asked: impl Future<Output = Result<Answered, ReplicaError>>,
        options: ReadOptions,
    ) -> Result<Read, Problem> {
        let answered = tokio::time::timeout_at(latest(options.deadline), asked)
            .await
            .unwrap_or_else(|_| Err(ReplicaError::NotReady("no answer in time".to_owned())));
        let answered = match answered {
            Ok(answered) => answered,
            Err(ReplicaError::PositionExpired) => return Err(self.expired(options).await),
            Err(error) => return Err(Problem::from_replica(error, true, self.path_and_query())),
        };
        let position = position_of(&answered);
        match answered.answer {
            Ok(answer) => Ok(Read { answer, position }),
            Err(rejection) => {
                let problem = Problem::refused(rejection).with_header(X_POSITION, header(position));
                Err(if problem.is_position_expired() {
                    problem.with_oldest(position.to_string())
                } else {
                    problem
                })
            }
        }
    }
}

impl Call {
    /// 410, with the position that a client can begin anew from.
    async fn expired(&self, options: ReadOptions) -> Problem {
        let problem = Problem::from_replica(ReplicaError::PositionExpired, true, self.path_and_query());
        let query = Query {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            body: QueryBody::Position,
        };
        let options = ReadOptions {
            level: Level::Local,
            min_position: None,
            ..options
        };
        match self.app.replica.read(query, options).await {
            Ok(answered) => problem.with_oldest(position_of(&answered).to_string()),
            Err(_) => problem,
        }
    }
}

pub(crate) fn latest(deadline: Instant) -> tokio::time::Instant {
    (deadline + DEADLINE_SLACK).into()
}

/// The state that an answer reflects.
pub(crate) fn position_of(answered: &Answered) -> Position {
    Position::after(answered.epoch, SpaceId::MAIN, answered.revision)
}

pub(crate) fn header(position: Position) -> HeaderValue {
    HeaderValue::try_from(position.to_string()).expect("a position is digits and dots")
}

/// The replica answered something else than was asked: a defect.
pub(crate) fn unexpected_answer() -> Problem {
    Problem::internal("the node answered another question", false)
}

/// The same after a write, which was applied.
pub(crate) fn unexpected_outcome() -> Problem {
    Problem::internal("the node did something else than was asked", true)
}
