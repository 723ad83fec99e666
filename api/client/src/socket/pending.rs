//! A send that is not answered yet, and what becomes of it. Plain functions: no IO, and time comes in as an argument.

use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::error::Error;
use crate::route::backoff;
use crate::wire::socket::SocketProblem;
use crate::wire::{Problem, Sent};

/// A send, as it is handed to the socket's task.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) client_id: String,
    /// The same on every connection.
    pub(super) frame: Utf8Bytes,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Sent, Error>>,
    /// Among the sends in flight.
    pub(super) _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Pending {
    order: Order,
    /// When it was written to the connection that there is now.
    sent_at: Option<Instant>,
    /// Not to be written before.
    not_before: Option<Instant>,
    /// An earlier attempt may have been applied.
    uncertain: bool,
    failures: u32,
    last_problem: Option<Box<Problem>>,
    last_words: String,
}

/// What a problem means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answered.
    Settled,
    /// To be sent again on this connection.
    Again,
    /// To be sent again to another node: this one cannot serve.
    Elsewhere,
}

impl Pending {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            sent_at: None,
            not_before: None,
            uncertain: false,
            failures: 0,
            last_problem: None,
            last_words: String::new(),
        }
    }

    /// The frame, if it is to be written now.
    pub(super) fn frame_due(&mut self, now: Instant) -> Option<Utf8Bytes> {
        if self.sent_at.is_some() || self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        (self.sent_at, self.not_before) = (Some(now), None);
        Some(self.order.frame.clone())
    }

    /// When there is something to be done about it, whatever is heard until then: its end, its next attempt, or
    /// the time by which a living node would have answered.
    pub(super) fn due(&self, patience: Duration) -> Instant {
        let next = self.not_before.or(self.sent_at.map(|at| at + patience));
        next.map_or(self.order.deadline, |next| next.min(self.order.deadline))
    }

    pub(super) fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        self.sent_at.is_some_and(|at| now >= at + patience)
    }

    pub(super) fn has_expired(&self, now: Instant) -> bool {
        now >= self.order.deadline
    }

    /// The connection is gone, and with it an answer that may have been on its way.
    pub(super) fn lost(&mut self, words: &str) {
        if self.sent_at.take().is_some() {
            self.uncertain = true;
        }
        words.clone_into(&mut self.last_words);
    }

    pub(super) fn answer(self, answer: Result<Sent, Error>) {
        // Whoever has asked may be gone.
        let _ = self.order.answer.send(answer);
    }

    /// Its time is up.
    pub(super) fn give_up(self) {
        let detail = match self.last_words.as_str() {
            "" => "no answer in time".to_owned(),
            words => format!("not in time: {words}"),
        };
        let error = if self.uncertain || self.sent_at.is_some() {
            self.unknown(detail)
        } else {
            Error::Unavailable {
                detail,
                problem: self.last_problem.clone(),
            }
        };
        self.answer(Err(error));
    }

    /// The node has refused for good. Of an earlier attempt that tells only what is found out after it was looked
    /// for: the id stands for another text, or a message to reply to is not there.
    pub(super) fn refuse(self, problem: Problem) {
        let error = if self.uncertain && problem.status != 422 {
            self.unknown(format!("a repetition was refused: {}", problem.detail))
        } else {
            Error::Refused(Box::new(problem))
        };
        self.answer(Err(error));
    }

    fn unknown(&self, detail: String) -> Error {
        let client_id = &self.order.client_id;
        Error::OutcomeUnknown {
            key: None,
            detail: format!("{detail} (client_id {client_id})"),
        }
    }

    /// Notes a problem that is no end, or says that it is one.
    pub(super) fn hear(&mut self, said: &SocketProblem, now: Instant, jitter: f64) -> Verdict {
        let SocketProblem {
            problem,
            retry_after_ms,
        } = said;
        if is_final(problem) {
            return Verdict::Settled;
        }
        self.sent_at = None;
        self.uncertain |= problem.outcome != "not_applied";
        self.last_words = format!("{} ({} {})", problem.detail, problem.status, problem.code);
        self.last_problem = Some(Box::new(problem.clone()));
        if problem.status == 503 {
            return Verdict::Elsewhere;
        }
        let asked = Duration::from_millis(retry_after_ms.unwrap_or_default());
        self.not_before = Some(now + asked.max(backoff(self.failures, jitter)));
        self.failures = self.failures.saturating_add(1);
        Verdict::Again
    }
}

/// Whether no further attempt would change it.
fn is_final(problem: &Problem) -> bool {
    match problem.status {
        408 | 429 => false,
        507 => !problem.retryable,
        status => status < 500,
    }
}
