//! Where throughput comes from: commands that arrive while earlier entries are on their way go out
//! together as one entry, with one fsync a node and one round trip for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use quorate_state_machine::{Outcome, PackedEntry};
use quorate_storage::FatalHook;
use quorate_storage::state::StateStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::{Clock, LeaderClock};
use crate::metrics::ProposalMetrics;
use crate::node::Raft;
use crate::state_machine::AppliedNow;
use crate::tasks::spawn_vital;
use crate::types::Payload;

/// Entries on their way at once. Two keep the disk busy with one while the other travels; more
/// would only make the packs smaller.
const ENTRIES_IN_FLIGHT_MAX: usize = 2;
/// Commands in one entry: bounds the time that one apply takes.
const PACK_COMMANDS_MAX: usize = 1024;
/// Bytes in one entry, not counting the command that crosses the bound (at most 4 MiB and some).
const PACK_BYTES_MAX: usize = 1 << 20;
/// Commands that wait here. Beyond it new ones are refused with 429: at 10,000 a second this is
/// already 0.4 s of waiting.
const QUEUE_COMMANDS_MAX: usize = 4096;
/// Bytes of commands that wait here or are on their way. Beyond it new ones are refused with 429:
/// without a majority they would pile up until their deadlines.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// Certainly not proposed: this node does not lead, or its lease has run out.
    NotLeader,
    /// Certainly not proposed: the queue is full, or too long for the time that was given.
    Overloaded,
    /// Certainly not proposed: the deadline passed in the queue while nothing was committed: there is no majority.
    Expired,
    /// Certainly not proposed: this node is going down.
    Stopped,
    /// It is in the log of this node, and perhaps of others.
    Unknown(String),
}

/// A command on its way. Whoever moves `stage` from `QUEUED` decides: the proposer, that it was
/// proposed; the caller whose deadline passed, that it never will be.
struct Waiting {
    command: Bytes,
    stage: Arc<AtomicU8>,
    answer: Answer,
    /// Its bytes' share of the bound.
    room: OwnedSemaphorePermit,
}

type Answer = oneshot::Sender<Result<Outcome, ProposeError>>;

const QUEUED: u8 = 0;
const PROPOSED: u8 = 1;
const GIVEN_UP: u8 = 2;

#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    applied: watch::Receiver<AppliedNow>,
    metrics: ProposalMetrics,
}

impl Proposer {
    pub fn start<S: StateStore>(
        raft: Raft<S>,
        applied: watch::Receiver<AppliedNow>,
        clock: Clock,
        metrics: ProposalMetrics,
        on_fatal: FatalHook,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let pump = Pump {
            raft,
            applied: applied.clone(),
            metrics: metrics.clone(),
            waiting,
            clock,
        };
        spawn_vital("the proposer", on_fatal, pump.run());
        let bytes = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        Self {
            queue,
            bytes,
            applied,
            metrics,
        }
    }

    /// Proposes an encoded envelope on this node and waits until it is applied here.
    pub async fn propose(&self, command: Bytes, deadline: Instant) -> Result<Outcome, ProposeError> {
        let (answer, outcome) = oneshot::channel();
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let applied_before = self.applied.borrow().index();
        let size = u32::try_from(command.len()).unwrap_or(u32::MAX);
        let Ok(room) = self.bytes.clone().try_acquire_many_owned(size) else {
            return self.failed(ProposeError::Overloaded);
        };
        let waiting = Waiting {
            command,
            stage: stage.clone(),
            answer,
            room,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return self.failed(ProposeError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => return self.failed(ProposeError::Stopped),
        }
        self.metrics.pending.inc();
        let result = tokio::time::timeout_at(deadline, outcome).await;
        self.metrics.pending.dec();
        match result {
            Ok(Ok(Ok(outcome))) => {
                self.metrics.committed.inc();
                Ok(outcome)
            }
            Ok(Ok(Err(error))) => self.failed(error),
            Ok(Err(_)) => self.failed(unless_proposed(&stage, ProposeError::Stopped, "the node stopped")),
            Err(_) => {
                // Either the queue is long, or nothing moves because there is no majority.
                let moved = self.applied.borrow().index() > applied_before;
                let given_up = if moved {
                    ProposeError::Overloaded
                } else {
                    ProposeError::Expired
                };
                self.failed(unless_proposed(&stage, given_up, "no majority confirmed it in time"))
            }
        }
    }

    fn failed(&self, error: ProposeError) -> Result<Outcome, ProposeError> {
        let reason = match &error {
            ProposeError::NotLeader => "not_leader",
            ProposeError::Overloaded => "overloaded",
            ProposeError::Expired => "expired",
            ProposeError::Stopped => "stopped",
            ProposeError::Unknown(_) => "unknown",
        };
        self.metrics.failed.with_label_values(&[reason]).inc();
        Err(error)
    }
}

/// Gives the command up if it is still in the queue; else its outcome is unknown.
fn unless_proposed(stage: &AtomicU8, given_up: ProposeError, unknown: &str) -> ProposeError {
    match stage.compare_exchange(QUEUED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => given_up,
        Err(_) => ProposeError::Unknown(unknown.to_owned()),
    }
}

struct Pump<S: StateStore> {
    raft: Raft<S>,
    applied: watch::Receiver<AppliedNow>,
    metrics: ProposalMetrics,
    waiting: mpsc::Receiver<Waiting>,
    clock: Clock,
}

impl<S: StateStore> Pump<S> {
    async fn run(mut self) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = in_flight.next() => {}
                first = self.waiting.recv(), if in_flight.len() < ENTRIES_IN_FLIGHT_MAX => {
                    let Some(first) = first else { break };
                    let pack = self.pack(first);
                    if !pack.answers.is_empty() {
                        self.metrics.packed.observe(pack.answers.len() as f64);
                        in_flight.push(propose(self.raft.clone(), pack));
                    }
                }
            }
        }
    }

    /// One entry of what waits now, without waiting for more.
    fn pack(&mut self, first: Waiting) -> Pack {
        let mut commands = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(waiting) = next {
            let proposed = waiting
                .stage
                .compare_exchange(QUEUED, PROPOSED, Ordering::AcqRel, Ordering::Acquire);
            if proposed.is_ok() {
                bytes += waiting.command.len();
                commands.push(waiting.command.into());
                answers.push(Proposed {
                    stage: waiting.stage,
                    answer: waiting.answer,
                    _room: waiting.room,
                });
            }
            if commands.len() >= PACK_COMMANDS_MAX || bytes >= PACK_BYTES_MAX {
                break;
            }
            next = self.waiting.try_recv().ok();
        }
        let entry = PackedEntry {
            meta: self.clock().stamp(),
            commands,
        };
        Pack {
            payload: Payload(entry.encode().into()),
            answers,
        }
    }

    fn clock(&self) -> LeaderClock {
        let term = self.raft.server_metrics().borrow_watched().vote.leader_id.term;
        self.clock.of_term(term, self.applied.borrow().elapsed_ms)
    }
}

/// One entry, and who waits for which of its commands.
struct Pack {
    payload: Payload,
    answers: Vec<Proposed>,
}

struct Proposed {
    stage: Arc<AtomicU8>,
    answer: Answer,
    /// Given back when the entry is decided.
    _room: OwnedSemaphorePermit,
}

async fn propose<S: StateStore>(raft: Raft<S>, pack: Pack) {
    let results = match raft.client_write(pack.payload).await {
        Ok(written) => {
            assert_eq!(
                written.data.len(),
                pack.answers.len(),
                "apply answers every command of an entry"
            );
            written.data.into_iter().map(Ok).collect()
        }
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
            vec![Err(ProposeError::NotLeader); pack.answers.len()]
        }
        Err(error) => vec![Err(ProposeError::Unknown(error.to_string())); pack.answers.len()],
    };
    for (proposed, result) in pack.answers.into_iter().zip(results) {
        if result == Err(ProposeError::NotLeader) {
            // The caller may time out at this very moment: it must not call it unknown.
            proposed.stage.store(QUEUED, Ordering::Release);
        }
        // A caller whose deadline has passed is gone.
        let _ = proposed.answer.send(result);
    }
}
