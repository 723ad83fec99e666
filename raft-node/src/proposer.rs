//! Where throughput comes from: commands that arrive while earlier entries are on their way go out
//! together as one entry, with one fsync a node and one round trip for all of them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use quorate_state_machine::{EntryMeta, Outcome, PackedEntry};
use quorate_storage::FatalHook;
use quorate_storage::state::StateStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::gathering::Gathering;
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
/// How old the oldest waiting command may be, while entries are committed, for a new one to be taken.
/// Beyond it new ones are refused with 429 at once: they would wait for longer still, and their callers
/// would rather ask again than hear after seconds that they waited in vain. A healthy queue is emptied
/// every few milliseconds; the longest stall of a disk that repairs itself stays below it.
const QUEUE_AGE_MAX: Duration = Duration::from_secs(1);
/// If no entry was committed for this long, nothing moves: that is no overload, and a command waits for
/// a majority until its deadline.
const MOVES_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of commands that wait here or are on their way. Beyond it new ones are refused with 429:
/// without a majority they would pile up until their deadlines.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// Certainly not proposed: this node does not lead, or its lease has run out.
    NotLeader,
    /// Certainly not proposed: the queue is full, late, or too long for the time that was given.
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
    since: Instant,
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
    flow: SharedFlow,
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
        let flow = SharedFlow::default();
        let pump = Pump {
            raft,
            flow: flow.clone(),
            head: None,
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
            flow,
            applied,
            metrics,
        }
    }

    /// Proposes an encoded envelope on this node and waits until it is applied here.
    pub async fn propose(&self, command: Bytes, deadline: Instant) -> Result<Outcome, ProposeError> {
        let (answer, outcome) = oneshot::channel();
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let applied_before = self.applied.borrow().index();
        let now = Instant::now();
        if self.flow.lock().is_late(now) {
            return self.failed(ProposeError::Overloaded);
        }
        let size = u32::try_from(command.len()).unwrap_or(u32::MAX);
        let Ok(room) = self.bytes.clone().try_acquire_many_owned(size) else {
            return self.failed(ProposeError::Overloaded);
        };
        let waiting = Waiting {
            command,
            since: now,
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

/// How the queue moves.
#[derive(Debug, Default)]
struct Flow {
    /// When the oldest waiting command came.
    head: Option<Instant>,
    /// When an entry was last committed.
    moved: Option<Instant>,
}

impl Flow {
    /// A new command would wait too long, though not for a majority.
    fn is_late(&self, now: Instant) -> bool {
        let within = |since: Option<Instant>, time| since.is_some_and(|since| now.duration_since(since) <= time);
        self.head.is_some() && !within(self.head, QUEUE_AGE_MAX) && within(self.moved, MOVES_WITHIN)
    }
}

/// Locked for a few instructions, never across an await.
#[derive(Debug, Clone, Default)]
struct SharedFlow(Arc<Mutex<Flow>>);

impl SharedFlow {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

struct Pump<S: StateStore> {
    raft: Raft<S>,
    flow: SharedFlow,
    /// The oldest waiting command, taken out of the channel so that its age is known.
    head: Option<Waiting>,
    applied: watch::Receiver<AppliedNow>,
    metrics: ProposalMetrics,
    waiting: mpsc::Receiver<Waiting>,
    clock: Clock,
}

impl<S: StateStore> Pump<S> {
    async fn run(mut self) {
        let mut in_flight = FuturesUnordered::new();
        let mut gathering = Gathering::default();
        loop {
            let may_pack = self.head.is_some() && in_flight.len() < ENTRIES_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                Some(committed) = in_flight.next() => {
                    if committed {
                        self.flow.lock().moved = Some(Instant::now());
                    }
                }
                first = self.waiting.recv(), if self.head.is_none() => {
                    let Some(first) = first else { break };
                    self.set_head(Some(first));
                }
                () = tokio::task::yield_now(), if may_pack => {
                    if gathering.goes_on(self.waiting.len(), PACK_COMMANDS_MAX) {
                        continue;
                    }
                    gathering = Gathering::default();
                    if let Some(pack) = self.next_pack() {
                        self.metrics.packed.observe(pack.answers.len() as f64);
                        in_flight.push(propose(self.raft.clone(), pack));
                    }
                }
            }
        }
    }

    /// None if all that waited has been given up.
    fn next_pack(&mut self) -> Option<Pack> {
        let first = self.head.take()?;
        let pack = self.pack(first);
        let next = self.waiting.try_recv().ok();
        self.set_head(next);
        (!pack.answers.is_empty()).then_some(pack)
    }

    fn set_head(&mut self, head: Option<Waiting>) {
        self.flow.lock().head = head.as_ref().map(|waiting| waiting.since);
        self.head = head;
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
            self.metrics.queued.observe(waiting.since.elapsed().as_secs_f64());
            if proposed.is_ok() {
                bytes += waiting.command.len();
                commands.push(waiting.command);
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
            meta: self.stamp(),
            commands: commands.iter().map(|command: &Bytes| command.as_ref()).collect(),
        };
        Pack {
            payload: Payload(entry.encode().into()),
            answers,
        }
    }

    fn stamp(&self) -> EntryMeta {
        let term = self.raft.server_metrics().borrow_watched().vote.leader_id.term;
        self.clock.stamp(term, self.applied.borrow().elapsed_ms)
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

/// True if the entry was committed.
async fn propose<S: StateStore>(raft: Raft<S>, pack: Pack) -> bool {
    let mut committed = false;
    let results = match raft.client_write(pack.payload).await {
        Ok(written) => {
            assert_eq!(
                written.data.len(),
                pack.answers.len(),
                "apply answers every command of an entry"
            );
            committed = true;
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
    committed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_late_only_while_it_moves() {
        let came = Instant::now();
        let flow = |head: Option<Instant>, moved_after_ms: Option<u64>| Flow {
            head,
            moved: moved_after_ms.map(|ms| came + Duration::from_millis(ms)),
        };
        let after = |ms| came + Duration::from_millis(ms);
        let waits = Some(came);
        assert!(!flow(None, Some(1000)).is_late(after(1500)), "nobody waits");
        assert!(!flow(waits, Some(900)).is_late(after(1000)), "not for long");
        assert!(flow(waits, Some(900)).is_late(after(1001)));
        assert!(flow(waits, Some(0)).is_late(after(1500)), "an entry of 1.5 s is a move");
        assert!(!flow(waits, Some(0)).is_late(after(2001)), "nothing moves any more");
        assert!(!flow(waits, None).is_late(after(60_000)), "nothing ever moved");
    }
}
