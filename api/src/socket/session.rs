//! One client's requests: each is let in like a request of HTTP, by the same bounds in the same order, goes through
//! the same functions, and is answered under its id.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use quorate_client::wire::socket::{Hello, SocketAnswer};
use quorate_state_machine::{Caller, Command, Envelope, SpaceId};

use super::ROUTE;
use super::frame::{self, Ask, Frame, Send, Unread};
use crate::app::App;
use crate::budget::Share;
use crate::front::{self, Noted};
use crate::places::{Class, Place};
use crate::problem::Problem;
use crate::rate_key::RateKey;
use crate::replica::WriteOptions;
use crate::request::deadline_within;
use crate::sending;

/// Who is at the other end, and under which name the log knows him.
pub(crate) struct Session {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Caller,
    /// None where no limit applies.
    pub(crate) rate_key: Option<RateKey>,
    /// Of the request that became this socket; those of its frames begin with it.
    pub(crate) request_id: String,
}

/// What becomes of a frame at once.
pub(super) enum Admitted {
    Work(Box<Work>),
    Answer(Box<SocketAnswer>),
}

/// A request at work, with what it holds.
pub(super) struct Work {
    id: String,
    method: &'static str,
    envelope: Envelope,
    options: WriteOptions,
    begun: Instant,
    /// Of its frame.
    pub(super) bytes: usize,
    _share: Share,
    _place: Place,
}

/// An answer, and how many bytes of frames are no more at work with it.
pub(super) struct Answered {
    pub(super) answer: SocketAnswer,
    pub(super) bytes: usize,
}

/// For frames whose type is not known.
const NO_METHOD: &str = "other";

impl Session {
    /// What the client has to know before it asks anything.
    pub(super) fn hello(&self) -> SocketAnswer {
        let (status, limits) = (self.app.replica.status(), &self.app.limits);
        SocketAnswer::Hello(Hello {
            node: status.node,
            leader: status.leader,
            term: status.term,
            in_flight_max: limits.socket_in_flight_max as u64,
            frame_bytes_max: limits.body_bytes_max as u64,
            ping_interval_ms: limits.socket_ping_interval.as_millis() as u64,
        })
    }

    /// Lets a frame in: rate, room, form.
    pub(super) fn admit(&self, text: &str) -> Admitted {
        let begun = Instant::now();
        self.try_admit(text, begun).unwrap_or_else(|Unread { id, problem }| {
            let answer = self.refusal(id, problem, NO_METHOD, begun);
            Admitted::Answer(Box::new(answer))
        })
    }

    fn try_admit(&self, text: &str, begun: Instant) -> Result<Admitted, Unread> {
        let refuse = |problem| Unread {
            id: frame::id_of(text),
            problem,
        };
        front::check_rate(&self.app, self.rate_key.as_ref()).map_err(refuse)?;
        self.app.places.look(Class::Write).map_err(refuse)?;
        let Frame { id, ask } = Frame::read(text)?;
        let send = match ask {
            Ask::Ping => return Ok(Admitted::Answer(Box::new(SocketAnswer::Pong { id }))),
            Ask::Send(send) => send,
        };
        let mut share = Share::default();
        let room = (self.app.bodies.take(&mut share, text.len())).and_then(|()| self.app.places.take(Class::Write));
        let place = match room {
            Ok(place) => place,
            Err(problem) => return Err(Unread { id: Some(id), problem }),
        };
        let Send {
            command,
            conditions,
            idempotency,
            timeout,
        } = *send;
        let method = match &command {
            Command::Send { batch: true, .. } => "send_batch",
            _ => "send",
        };
        Ok(Admitted::Work(Box::new(Work {
            method,
            envelope: Envelope {
                space: SpaceId::MAIN,
                caller: self.caller.clone(),
                request_id: self.request_id_of(Some(&id)),
                idempotency,
                conditions,
                command,
            },
            id,
            options: WriteOptions {
                deadline: deadline_within(timeout.unwrap_or(self.app.limits.request_timeout)),
                redirect: false,
            },
            begun,
            bytes: text.len(),
            _share: share,
            _place: place,
        })))
    }

    /// A frame that is no text.
    pub(super) fn refuse_binary(&self) -> SocketAnswer {
        let problem = Problem::bad_request("a frame is JSON in a text frame; this one is binary");
        self.refusal(None, problem, NO_METHOD, Instant::now())
    }

    /// Proposes the command, and says what became of it. A defect that a command meets costs nobody else anything.
    pub(super) async fn perform(self: Arc<Self>, work: Box<Work>) -> Answered {
        let Work {
            id,
            method,
            envelope,
            options,
            begun,
            bytes,
            _share,
            _place,
        } = *work;
        let performed = AssertUnwindSafe(self.propose(&id, envelope, options))
            .catch_unwind()
            .await;
        let answer =
            performed.unwrap_or_else(|_panic| Err(Problem::internal("the request met a defect of this node", true)));
        let answer = match answer {
            Ok(answer) => {
                self.note(Some(&id), method, 201, begun);
                answer
            }
            Err(problem) => self.refusal(Some(id), problem, method, begun),
        };
        Answered { answer, bytes }
    }

    async fn propose(&self, id: &str, envelope: Envelope, options: WriteOptions) -> Result<SocketAnswer, Problem> {
        let is_batch = matches!(envelope.command, Command::Send { batch: true, .. });
        let committed = self.app.propose(envelope, options, ROUTE).await?;
        let (id, position) = (id.to_owned(), committed.position.to_string());
        let replayed = committed.replayed;
        Ok(match is_batch {
            false => SocketAnswer::Sent {
                id,
                sent: sending::sent(&committed.done)?,
                position,
                replayed,
            },
            true => SocketAnswer::SentBatch {
                id,
                sent: sending::sent_batch(&committed.done)?,
                position,
                replayed,
            },
        })
    }

    fn refusal(&self, id: Option<String>, problem: Problem, method: &'static str, begun: Instant) -> SocketAnswer {
        let said = problem.into_answer(&self.request_id_of(id.as_deref()));
        self.note(id.as_deref(), method, said.problem.problem.status, begun);
        SocketAnswer::Error {
            id,
            problem: said.problem,
            position: said.position,
            replayed: said.replayed,
        }
    }

    fn request_id_of(&self, id: Option<&str>) -> String {
        match id {
            Some(id) => format!("{}/{id}", self.request_id),
            None => self.request_id.clone(),
        }
    }

    fn note(&self, id: Option<&str>, method: &'static str, status: u16, begun: Instant) {
        let noted = Noted {
            route: ROUTE,
            method,
            status,
            took: begun.elapsed(),
        };
        let caller = match &self.caller {
            Caller::Root => "root",
            Caller::User(user) => user,
            Caller::Session(_) => "(token)",
        };
        noted.note(
            &self.app,
            format_args!("{}/{}", self.request_id, id.unwrap_or("-")),
            caller,
        );
    }
}
