//! Linearizable reads: up to which entry must this node have applied before it may answer?
//!
//! The leader confirms that it still leads by a round of heartbeats that begins after the read came
//! in (Raft dissertation, section 6.4). One round serves all reads that arrived before it was sent;
//! a read that comes later waits for the next one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_storage::FatalHook;
use quorate_storage::log::LogId;
use tokio::sync::{mpsc, oneshot};

use crate::gathering::Gathering;
use crate::tasks::spawn_vital;

/// Reads that wait for the round after the one in flight. Beyond it they are refused with 429.
const QUEUE_READS_MAX: usize = 8192;

/// A round that is not answered by then has failed; its readers try again until their own deadline.
pub const ROUND_TIMEOUT: Duration = Duration::from_millis(1000);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadIndexError {
    /// The queue is full.
    Overloaded,
    /// No leader, or it could not confirm that it leads: worth another try.
    NotConfirmed(String),
}

type Answer = Result<LogId, ReadIndexError>;

/// Runs one round: asks the local core if this node leads, else the leader.
pub type Round = Arc<dyn Fn() -> BoxFuture<'static, Result<LogId, String>> + Send + Sync>;

#[derive(Clone)]
pub struct ReadIndex {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl ReadIndex {
    pub fn start(round: Round, on_fatal: FatalHook) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_READS_MAX);
        spawn_vital("the reads", on_fatal, run_rounds(waiting, round));
        Self { queue }
    }

    /// The entry that must be applied before a read that began now may be answered.
    pub async fn get(&self) -> Answer {
        let (tx, rx) = oneshot::channel();
        self.queue.try_send(tx).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadIndexError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ReadIndexError::NotConfirmed("the reads have stopped".to_owned()),
        })?;
        rx.await
            .unwrap_or_else(|_| Err(ReadIndexError::NotConfirmed("this node is shutting down".to_owned())))
    }
}

async fn run_rounds(mut waiting: mpsc::Receiver<oneshot::Sender<Answer>>, round: Round) {
    let mut readers = Vec::new();
    while let Some(first) = waiting.recv().await {
        readers.push(first);
        let mut gathering = Gathering::default();
        loop {
            tokio::task::yield_now().await;
            if !gathering.goes_on(waiting.len(), QUEUE_READS_MAX) {
                break;
            }
        }
        // Taking all that wait before the round begins is what makes sharing it safe.
        readers.extend(std::iter::from_fn(|| waiting.try_recv().ok()).take(QUEUE_READS_MAX));
        let answer = match tokio::time::timeout(ROUND_TIMEOUT, round()).await {
            Ok(Ok(log_id)) => Ok(log_id),
            Ok(Err(reason)) => Err(ReadIndexError::NotConfirmed(reason)),
            Err(_) => Err(ReadIndexError::NotConfirmed(
                "no majority confirmed the leader in time".to_owned(),
            )),
        };
        for reader in readers.drain(..) {
            // A reader whose deadline has passed is gone.
            let _ = reader.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    fn log_id(index: u64) -> LogId {
        LogId {
            term: 1,
            leader: 1,
            index,
        }
    }

    /// A read that arrives while a round is in flight must not be answered by that round.
    #[tokio::test]
    async fn a_read_joins_only_a_round_that_was_not_sent() {
        let rounds = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let (started_tx, mut started) = mpsc::unbounded_channel();
        let round: Round = {
            let (rounds, gate) = (rounds.clone(), gate.clone());
            Arc::new(move || {
                let (rounds, gate, started_tx) = (rounds.clone(), gate.clone(), started_tx.clone());
                Box::pin(async move {
                    let n = rounds.fetch_add(1, Ordering::SeqCst) + 1;
                    started_tx.send(n).unwrap();
                    gate.acquire().await.unwrap().forget();
                    Ok(log_id(n))
                })
            })
        };
        let reads = ReadIndex::start(round, Arc::new(|reason| panic!("{reason}")));
        let first = tokio::spawn({
            let reads = reads.clone();
            async move { reads.get().await }
        });
        assert_eq!(started.recv().await, Some(1));
        // Round 1 is in flight: these must share round 2.
        let answers = Arc::new(Mutex::new(Vec::new()));
        let late: Vec<_> = (0..3)
            .map(|_| {
                let (reads, answers) = (reads.clone(), answers.clone());
                tokio::spawn(async move {
                    let answer = reads.get().await.unwrap();
                    answers.lock().unwrap().push(answer.index);
                })
            })
            .collect();
        while reads.queue.capacity() > QUEUE_READS_MAX - 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(log_id(1)));
        for read in late {
            read.await.unwrap();
        }
        assert_eq!(*answers.lock().unwrap(), [2, 2, 2]);
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }
}
