//! A client's WebSocket: many requests in flight on one connection, each answered under the id that the client gave
//! it, in whatever order they are done.
//!
//! A socket is one task. What arrives together is proposed together, without a task of its own for each; answers
//! that are ready together are written together. Beyond its bound of requests at work, by number or by bytes, a
//! socket is not read: TCP holds the client back, and a client that keeps to the order of its frames never sees an
//! error for being fast. What a request may be refused for, and what it does, is the same as over HTTP
//! ([`session`], [`crate::sending`]).
//!
//! `handshake`: how it begins. `frame`: what is asked. `line`: the frames and the bounds of time. `end`: why it ends.

mod end;
mod frame;
mod handshake;
mod line;
mod session;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::feed;
use crate::places::Place;
use crate::revocation::revoked;
use end::End;
pub(crate) use handshake::{Handshake, check_origin, reveal_token};
use line::{Event, Line};
use session::Admitted;
pub(crate) use session::Session;

pub(crate) const ROUTE: &str = "/v1/ws";

/// Bytes of frames at work on one socket, in largest bodies: else one socket could have as many of them as it may
/// have requests. The one that crosses the bound is still read.
const AT_WORK_BODIES_MAX: usize = 2;

impl Session {
    /// Serves the socket until it ends. `place` is its own among the sockets of the node.
    pub(crate) async fn serve(self, upgrade: OnUpgrade, place: Place) {
        let _place = place;
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, request_id = self.request_id, "a connection did not become a socket");
                return;
            }
        };
        let (app, request_id) = (Arc::clone(&self.app), self.request_id.clone());
        let mut line = Line::new(Arc::clone(&app), upgraded).await;
        let end = Arc::new(self).follow(&mut line).await;
        tracing::debug!(request_id, ?end, "a socket ends");
        if let Some(label) = end.label() {
            app.metrics.connections_cut.with_label_values(&[label]).inc();
        }
        if end == End::Slow {
            app.metrics.slow_consumers.inc();
        }
        line.close(&end).await;
    }

    async fn follow(self: Arc<Self>, line: &mut Line) -> End {
        let limits = &self.app.limits;
        let bytes_max = AT_WORK_BODIES_MAX * limits.body_bytes_max;
        let mut bytes = 0;
        let mut at_work = FuturesUnordered::new();
        let mut shutdown = feed::shutdown(&self.app);
        let mut revoked = revoked(&self.app, &self.caller);
        line.say(&self.hello());
        let end = loop {
            let may_read = at_work.len() < limits.socket_in_flight_max && bytes < bytes_max;
            tokio::select! {
                biased;
                () = &mut shutdown => break End::ShuttingDown,
                () = &mut revoked => break End::Revoked,
                // First the answers that are ready, then the frames that are there, and when there is neither, the
                // answers are written in one go.
                Some(answered) = at_work.next(), if line.has_room() => {
                    let session::Answered { answer, bytes: done } = answered;
                    bytes -= done;
                    line.say(&answer);
                }
                event = line.event(may_read) => match event {
                    Event::Text(text) => match self.admit(&text) {
                        Admitted::Work(work) => {
                            bytes += work.bytes;
                            at_work.push(Arc::clone(&self).perform(work));
                        }
                        Admitted::Answer(answer) => line.say(&answer),
                    },
                    Event::Binary => line.say(&self.refuse_binary()),
                    Event::Nothing => {}
                    Event::End(end) => break end,
                },
            }
        };
        if !end.waits_for_answers() {
            return end;
        }
        // Nothing more is read, and what is at work is answered. A part of the grace is left for the last words.
        let until = Instant::now() + answer_within(limits.shutdown_grace);
        while !(at_work.is_empty() && line.is_taken()) {
            tokio::select! {
                biased;
                Some(answered) = at_work.next(), if line.has_room() => line.say(&answered.answer),
                event = line.event(false) => if let Event::End(worse) = event { return worse },
                () = tokio::time::sleep_until(until) => break,
            }
        }
        end
    }
}

fn answer_within(grace: Duration) -> Duration {
    grace / 2
}
