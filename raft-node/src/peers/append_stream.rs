//! One stream of appends to a peer, inside the task of openraft that wants the answers: it takes what openraft has,
//! writes it to the socket and reads the answers from it. No task of ours stands between, because each that must be
//! woken for an entry costs more than all that it does for it.
//!
//! As soon as an entry is committed openraft makes an append without entries that tells the peer so. While entries
//! follow each other closely it is held for a moment and goes along with the next, which says the same and more: one
//! message and one answer less for each entry, on both sides. A read at the peer does not wait for it: the round of
//! heartbeats that confirms the read brings the commit along.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::followed::Sent;
use super::frame::{Append, Frame, Reply, Request, StreamOutcome, decode_frame, encode_frame};
use super::handshake::Wire;
use crate::metrics::InFlight;
use crate::types::{AppendRequest, LogId};

/// Appends sent to one peer and not answered. With 2 MiB at most in each, a peer that stops reading
/// makes us hold 64 MiB; at 1 ms a round trip it is far more than the link can use.
pub const IN_FLIGHT_APPENDS_MAX: usize = 32;

/// A peer that has appends in flight and answers none for this long has stopped: the stream ends,
/// and openraft starts it anew. Well above an fsync on a busy disk.
pub const APPEND_STALL: Duration = Duration::from_secs(3);

/// How long an append is held that only tells of a commit; tokio's timer rounds up, to 2 ms at most. A client that
/// waits for each answer before it sends on needs less between two entries. Whoever follows a room at the peer
/// waits so much longer for the last message before a pause.
const HOLD_MAX: Duration = Duration::from_millis(1);

/// A connection to a peer on which nothing but streams of appends travels, one after the other.
pub struct AppendLink {
    wire: Wire,
    sessions: u64,
    hung_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Why a stream has broken.
#[derive(Debug)]
pub enum Broken {
    /// The connection ended, or what came on it makes no sense.
    Connection(String),
    /// It ended while nothing was asked: there is nothing to try again.
    Idle,
    /// See [`APPEND_STALL`].
    Stalled,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

impl AppendLink {
    /// Ends when the token is cancelled.
    pub fn new(wire: Wire, hang_up: CancellationToken) -> Self {
        Self {
            wire,
            sessions: 0,
            hung_up: Box::pin(hang_up.cancelled_owned()),
        }
    }

    /// Whether it has not ended, as far as is known without waiting. Nothing is in flight on it that anybody waits for.
    pub fn is_open(&mut self) -> bool {
        loop {
            match self.wire.next().now_or_never() {
                // An answer to an earlier stream.
                Some(Some(Ok(_))) => {}
                Some(_) => return false,
                None => return self.hung_up.as_mut().now_or_never().is_none(),
            }
        }
    }
}

/// The requests of one stream, and how far they are.
pub struct Exchange<S> {
    /// None when it has ended.
    input: Option<S>,
    /// Answers to earlier streams on the same connection carry another number.
    session: u64,
    /// Not answered yet, in their order; no more than the window holds.
    in_flight: VecDeque<Sent>,
    metrics: InFlight,
    /// The last entry that the peer has when it has taken all that was sent.
    sent_upto: Option<LogId>,
    held: Option<AppendRequest>,
    hold: Pin<Box<Sleep>>,
    pace: Pace,
    unflushed: bool,
    /// When something was last answered, or sent after a while in which nothing was in flight.
    moved: Instant,
    /// Fires at some time after `moved`, and is set anew only then: not for each append.
    stall: Pin<Box<Sleep>>,
}

impl<S: Stream<Item = AppendRequest> + Unpin> Exchange<S> {
    /// Begins with its first request.
    pub fn begin(link: &mut AppendLink, first: AppendRequest, input: S, metrics: InFlight) -> Result<Self, Broken> {
        link.sessions += 1;
        let mut exchange = Self {
            input: Some(input),
            session: link.sessions,
            in_flight: VecDeque::with_capacity(IN_FLIGHT_APPENDS_MAX),
            metrics,
            sent_upto: None,
            held: None,
            hold: Box::pin(sleep(HOLD_MAX)),
            pace: Pace::default(),
            unflushed: false,
            moved: Instant::now(),
            stall: Box::pin(sleep(APPEND_STALL)),
        };
        exchange.send(link, &first)?;
        Ok(exchange)
    }

    /// The answer to the next append that was sent, and when that was; none when there are no more appends. After an error it is
    /// not to be polled again. An append that was held and went along has no answer of its own: openraft takes an answer for
    /// all up to the entry that it names.
    pub fn poll_next(
        &mut self,
        link: &mut AppendLink,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(StreamOutcome, Sent), Broken>>> {
        let polled = self.poll_answer(link, cx);
        if let Poll::Ready(answer) = polled {
            return Poll::Ready(Some(answer));
        }
        if let Err(broken) = self.poll_send(link, cx) {
            return Poll::Ready(Some(Err(broken)));
        }
        let all_sent = self.input.is_none() && self.held.is_none() && !self.unflushed;
        if self.in_flight.is_empty() {
            return if all_sent { Poll::Ready(None) } else { Poll::Pending };
        }
        while self.stall.as_mut().poll(cx).is_ready() {
            let until = self.moved + APPEND_STALL;
            if until <= Instant::now() {
                return Poll::Ready(Some(Err(Broken::Stalled)));
            }
            self.stall.as_mut().reset(until);
        }
        Poll::Pending
    }

    fn poll_answer(
        &mut self,
        link: &mut AppendLink,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(StreamOutcome, Sent), Broken>> {
        let broken = |reason: &str| Poll::Ready(Err(Broken::Connection(reason.to_owned())));
        if link.hung_up.as_mut().poll(cx).is_ready() {
            return broken("the peer was silent and is dialled anew");
        }
        while let Poll::Ready(bytes) = link.wire.poll_next_unpin(cx) {
            let Some(bytes) = bytes else {
                return match self.in_flight.is_empty() && self.held.is_none() {
                    true => Poll::Ready(Err(Broken::Idle)),
                    false => broken("the connection ended"),
                };
            };
            let frame: Frame<Reply> = match bytes.and_then(|bytes| decode_frame(&bytes)) {
                Ok(frame) => frame,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            let Reply::StreamAppend { session, outcome } = frame.body else {
                return broken("the peer sent something else than answers to appends");
            };
            if session != self.session {
                continue;
            }
            let Some(sent) = self.in_flight.pop_front() else {
                return broken("the peer answered what it was not asked");
            };
            self.moved = Instant::now();
            return Poll::Ready(Ok((outcome, sent)));
        }
        Poll::Pending
    }

    /// Takes what there is and fits, and gives it to the socket.
    fn poll_send(&mut self, link: &mut AppendLink, cx: &mut Context<'_>) -> Result<(), Broken> {
        // What is held has a place in the window.
        while self.in_flight.len() + usize::from(self.held.is_some()) < IN_FLIGHT_APPENDS_MAX {
            // A peer that does not read: what waits here stays bounded.
            if link.wire.poll_ready_unpin(cx)?.is_pending() {
                break;
            }
            let Some(input) = &mut self.input else { break };
            match input.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) => self.take(link, request)?,
                Poll::Ready(None) => {
                    self.input = None;
                    self.send_held(link)?;
                }
                Poll::Pending => break,
            }
        }
        if self.held.is_some() && self.hold.as_mut().poll(cx).is_ready() {
            self.pace.nothing_followed();
            self.send_held(link)?;
        }
        if self.unflushed && link.wire.poll_flush_unpin(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    fn take(&mut self, link: &mut AppendLink, request: AppendRequest) -> Result<(), Broken> {
        let was_held = self.held.take();
        let is_holding = was_held.is_some();
        if let Some(held) = was_held.filter(|held| !goes_along(held, &request)) {
            self.send(link, &held)?;
        }
        let now = Instant::now();
        // The first of a stream is sent in any case: openraft may be looking for where the logs part.
        if request.entries.is_empty() && request.prev_log_id == self.sent_upto {
            if self.pace.told_of_commit(now) {
                // If it takes the place of one that was held, the time of that one goes on.
                if !is_holding {
                    self.hold.as_mut().reset(now + HOLD_MAX);
                }
                self.held = Some(request);
                return Ok(());
            }
        } else {
            self.pace.entries_came(now);
        }
        self.send(link, &request)
    }

    fn send_held(&mut self, link: &mut AppendLink) -> Result<(), Broken> {
        match self.held.take() {
            Some(held) => self.send(link, &held),
            None => Ok(()),
        }
    }

    fn send(&mut self, link: &mut AppendLink, request: &AppendRequest) -> Result<(), Broken> {
        let frame = encode_frame(&Frame {
            id: 0,
            body: Request::StreamAppend {
                session: self.session,
                append: Append::from_raft(request),
            },
        });
        link.wire.start_send_unpin(frame)?;
        self.unflushed = true;
        self.sent_upto = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let now = Instant::now();
        if self.in_flight.is_empty() {
            self.moved = now;
        }
        self.in_flight.push_back(Sent {
            term: request.vote.leader_id.term,
            at: now,
        });
        self.metrics.set(self.in_flight.len());
        Ok(())
    }
}

/// Whether the later append tells the peer all that the held one does, which has no entries.
fn goes_along(held: &AppendRequest, later: &AppendRequest) -> bool {
    later.vote == held.vote && later.prev_log_id == held.prev_log_id && later.leader_commit >= held.leader_commit
}

/// Whether entries come so closely that it is worth while to hold what only tells of a commit: what followed the last
/// one decides. Where they come one by one, no peer learns later of any.
#[derive(Debug, Default)]
struct Pace {
    told: Option<Instant>,
    is_close: bool,
}

impl Pace {
    /// Whether to hold it.
    fn told_of_commit(&mut self, now: Instant) -> bool {
        self.told = Some(now);
        self.is_close
    }

    fn entries_came(&mut self, now: Instant) {
        if let Some(told) = self.told.take() {
            self.is_close = now.duration_since(told) <= HOLD_MAX;
        }
    }

    fn nothing_followed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
