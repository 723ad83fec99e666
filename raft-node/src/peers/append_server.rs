//! The accepting side of streams of appends: one task reads them, hands them to the core in order, and writes the
//! answers in order.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, SinkExt, StreamExt};
use quorate_storage::state::StateStore;

use super::frame::{Frame, Reply, Request, StreamOutcome, encode_frame};
use super::handshake::Wire;
use super::server::next_request;
use crate::node::NodeCore;
use crate::types::AppendRequest;

/// Appends handed to the core and not yet answered. Beyond it the connection is not read on: the peer waits. More
/// than one stream may have in flight, because a stream that is over leaves some behind.
const APPENDS_MAX: usize = 64;

/// To one append, and of which session it was.
type Answer = (u64, StreamOutcome);

pub(super) struct AppendServer<S: StateStore> {
    wire: Wire,
    core: Arc<NodeCore<S>>,
    answers: FuturesOrdered<BoxFuture<'static, Answer>>,
    /// The session of which an append was refused: the core takes no more of it, the sender will begin a new one.
    over: Option<u64>,
    /// Nothing can be written to the peer any more. What it has sent still goes to the log.
    deaf: bool,
}

impl<S: StateStore> AppendServer<S> {
    pub(super) fn new(wire: Wire, core: Arc<NodeCore<S>>) -> Self {
        Self {
            wire,
            core,
            answers: FuturesOrdered::new(),
            over: None,
            deaf: false,
        }
    }

    /// Returns when the peer sends no more. May be dropped at any time.
    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                biased;
                // First, so that an append is in the core before the next one is read.
                Some(answer) = self.answers.next() => self.reply(answer).await,
                request = next_request(&mut self.wire), if self.answers.len() < APPENDS_MAX => {
                    if !self.take(request) {
                        return;
                    }
                }
            }
        }
    }

    /// Once no more comes: closes the connection, and waits for what the core has been given.
    pub(super) async fn finish(self) {
        let Self { wire, mut answers, .. } = self;
        drop(wire);
        while answers.next().await.is_some() {}
    }

    /// False if it is nothing that a stream of appends may hold, or its end.
    fn take(&mut self, request: Option<Frame<Request>>) -> bool {
        let Some(frame) = request else { return false };
        let Request::StreamAppend { session, append } = frame.body else {
            tracing::warn!("a peer sent something else than appends on their connection; it ends");
            return false;
        };
        match append.into_raft() {
            Ok(_) if self.over == Some(session) => true,
            Ok(append) => {
                self.answers
                    .push_back(answer(self.core.clone(), session, append).boxed());
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a peer sent an append that cannot be read; its connection ends");
                false
            }
        }
    }

    /// Writes an answer, and with it those that are there too.
    async fn reply(&mut self, first: Answer) {
        let mut next = Some(first);
        while let Some((session, outcome)) = next {
            if !matches!(outcome, StreamOutcome::Matching(_)) {
                self.over = Some(session);
            }
            let body = Reply::StreamAppend { session, outcome };
            if !self.deaf {
                let fed = self.wire.feed(encode_frame(&Frame { id: 0, body })).await;
                self.check(fed);
            }
            next = self.answers.next().now_or_never().flatten();
        }
        if !self.deaf {
            let flushed = self.wire.flush().await;
            self.check(flushed);
        }
    }

    fn check(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::debug!(%error, "writing to a peer failed");
            self.deaf = true;
        }
    }
}

/// Asks the core. The first poll puts the append into the core's queue, or in line for it.
async fn answer<S: StateStore>(core: Arc<NodeCore<S>>, session: u64, append: AppendRequest) -> Answer {
    let prev = append.prev_log_id;
    let last = append.entries.last().map(|entry| entry.log_id).or(prev);
    let outcome = match core.raft.append_entries(append).await {
        Ok(response) => StreamOutcome::from_raft(response.into_stream_result(prev, last)),
        Err(error) => StreamOutcome::Stopped(error.to_string()),
    };
    (session, outcome)
}
