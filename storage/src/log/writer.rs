//! The one thread that writes the log: it takes all that waits, makes it durable with one synced
//! write (group commit), and answers in order.
//!
//! While a sync runs the next changes gather, so that the number of syncs follows the disk's speed
//! and not the load.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::OnSync;
use super::queue::{Batch, Queue};
use crate::error::FatalHook;

/// Where batches become durable.
pub(super) trait Disk: Send + 'static {
    /// Writes the whole batch or nothing of it, and syncs it. After an error it is not called again.
    fn commit(&mut self, batch: &Batch) -> io::Result<()>;
}

/// Runs until the log is closed or the disk has failed.
pub(super) fn run(queue: &Arc<Queue>, mut disk: impl Disk, on_sync: Option<OnSync>, on_fatal: &FatalHook) {
    let body = || {
        while let Some(mut batch) = queue.next_batch() {
            let written = commit(&mut disk, &batch, on_sync.as_ref());
            let dones = std::mem::take(&mut batch.dones);
            match written {
                Ok(nanos) => {
                    queue.complete(&batch, nanos);
                    dones.into_iter().for_each(|done| done(Ok(())));
                }
                Err(error) => {
                    let reason = format!("failed to write the log: {error}");
                    dones
                        .into_iter()
                        .for_each(|done| done(Err(io::Error::new(error.kind(), reason.clone()))));
                    return Some(reason);
                }
            }
        }
        None
    };
    // A panic here would leave every waiting write without an answer, in a process that looks alive.
    let reason = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Some("the log's writer panicked".to_owned()));
    if let Some(reason) = reason {
        tracing::error!(reason, "the log has failed");
        // The process ends even if answering the waiting changes panics as well.
        let _ = catch_unwind(AssertUnwindSafe(|| queue.fail(&reason)));
        on_fatal(reason);
    }
}

/// The nanoseconds of the synced write; none if nothing had to be written.
fn commit(disk: &mut impl Disk, batch: &Batch, on_sync: Option<&OnSync>) -> io::Result<Option<u64>> {
    if batch.is_noop() {
        return Ok(None);
    }
    let begin = Instant::now();
    disk.commit(batch)?;
    let took = begin.elapsed();
    if let Some(on_sync) = on_sync {
        on_sync(took, batch.entries());
    }
    Ok(Some(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::JoinHandle;

    use bytes::Bytes;

    use super::*;
    use crate::log::cache::Cache;
    use crate::log::queue::{Op, Recovered};
    use crate::log::{Done, LogId, LogOptions, LogState, Record};

    /// A disk that tells of each batch and then waits to hear how the write ends.
    struct Gate {
        began: Sender<Seen>,
        end: Receiver<io::Result<()>>,
    }

    impl Disk for Gate {
        fn commit(&mut self, batch: &Batch) -> io::Result<()> {
            self.began
                .send(Seen {
                    ops: batch.ops.clone(),
                    committed: batch.committed,
                })
                .expect("the test listens");
            self.end.recv().expect("the test answers")
        }
    }

    struct Seen {
        ops: Vec<Op>,
        committed: Option<Option<LogId>>,
    }

    struct Bench {
        queue: Arc<Queue>,
        began: Receiver<Seen>,
        end: Sender<io::Result<()>>,
        /// What the `done`s were told, in order.
        told: Arc<Mutex<Vec<(u64, bool)>>>,
        fatal: Receiver<String>,
        writer: Option<JoinHandle<()>>,
    }

    impl Bench {
        fn new(options: LogOptions) -> Self {
            let state = LogState::default();
            let cache = Cache::new(options.cache_bytes_max);
            let queue = Arc::new(Queue::new(
                Recovered {
                    state,
                    first: 0,
                    next: 0,
                    cache,
                    uncached: Vec::new(),
                },
                &options,
            ));
            let (began_to, began) = channel();
            let (end, end_from) = channel();
            let (fatal_to, fatal) = channel();
            let writer = std::thread::spawn({
                let queue = queue.clone();
                let on_fatal: FatalHook = Arc::new(move |reason| fatal_to.send(reason).expect("the test listens"));
                move || {
                    run(
                        &queue,
                        Gate {
                            began: began_to,
                            end: end_from,
                        },
                        None,
                        &on_fatal,
                    )
                }
            });
            Bench {
                queue,
                began,
                end,
                told: Arc::default(),
                fatal,
                writer: Some(writer),
            }
        }

        fn done(&self, name: u64) -> Done {
            let told = self.told.clone();
            Box::new(move |result| told.lock().unwrap().push((name, result.is_ok())))
        }

        fn append(&self, index: u64) {
            self.queue.append(vec![record(index)], self.done(index), None);
        }

        fn told(&self) -> Vec<(u64, bool)> {
            self.told.lock().unwrap().clone()
        }

        fn finish(&mut self) {
            self.queue.close();
            self.writer.take().unwrap().join().unwrap();
        }
    }

    fn record(index: u64) -> Record {
        Record {
            id: LogId {
                term: 1,
                leader: 1,
                index,
            },
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn what_gathers_during_a_sync_goes_out_with_the_next_one() {
        let mut bench = Bench::new(LogOptions::default());
        bench.append(0);
        assert_eq!(bench.began.recv().unwrap().ops.len(), 1);
        (1..100).for_each(|index| bench.append(index));
        assert_eq!(
            bench.queue.state().last,
            Some(record(99).id),
            "readable before it is durable"
        );
        assert_eq!(bench.told(), [], "nothing is promised before the sync");
        assert_eq!(*bench.queue.flushed().borrow(), None);
        bench.end.send(Ok(())).unwrap();
        assert_eq!(bench.began.recv().unwrap().ops.len(), 99);
        assert_eq!(bench.told(), [(0, true)]);
        assert_eq!(*bench.queue.flushed().borrow(), Some(record(0).id));
        bench.end.send(Ok(())).unwrap();
        bench.finish();
        assert_eq!(bench.told(), (0..100).map(|index| (index, true)).collect::<Vec<_>>());
        let stats = bench.queue.stats();
        assert_eq!((stats.syncs, stats.entries, stats.queued_bytes), (2, 100, 0));
    }

    #[test]
    fn a_failed_sync_is_never_tried_again() {
        let mut bench = Bench::new(LogOptions::default());
        bench.append(0);
        bench.began.recv().unwrap();
        bench.append(1);
        bench.end.send(Ok(())).unwrap();
        bench.began.recv().unwrap();
        bench.append(2);
        bench.end.send(Err(io::Error::other("EIO"))).unwrap();
        let reason = bench.fatal.recv().unwrap();
        assert!(reason.contains("EIO"), "{reason}");
        bench.append(3);
        bench.finish();
        assert_eq!(bench.told(), [(0, true), (1, false), (2, false), (3, false)]);
        assert_eq!(bench.began.iter().count(), 0, "the disk is not written again");
        assert_eq!(bench.fatal.iter().count(), 0, "the hook is called once");
        assert_eq!(*bench.queue.flushed().borrow(), Some(record(0).id));
    }

    #[test]
    fn a_truncation_takes_back_what_a_running_sync_will_make_durable() {
        let mut bench = Bench::new(LogOptions::default());
        bench.queue.append((0..10).map(record).collect(), bench.done(0), None);
        bench.began.recv().unwrap();
        bench
            .queue
            .truncate_after(Some(4), bench.done(1), |index| panic!("entry {index} is in the cache"));
        assert_eq!(bench.queue.state().last, Some(record(4).id));
        bench.end.send(Ok(())).unwrap();
        bench.began.recv().unwrap();
        assert_eq!(
            *bench.queue.flushed().borrow(),
            Some(record(4).id),
            "entries 5 to 9 are not in the log"
        );
        bench.end.send(Ok(())).unwrap();
        bench.finish();
        assert_eq!(*bench.queue.flushed().borrow(), Some(record(4).id));
    }

    #[test]
    fn a_full_queue_makes_appends_wait() {
        let options = LogOptions {
            queue_bytes_max: 3 * record(0).cost_bytes(),
            ..LogOptions::default()
        };
        let mut bench = Bench::new(options);
        bench.append(0);
        bench.began.recv().unwrap();
        bench.append(1);
        bench.append(2);
        let (queue, done) = (bench.queue.clone(), bench.done(3));
        let waiting = std::thread::spawn(move || queue.append(vec![record(3)], done, None));
        while bench.queue.stats().queue_full == 0 {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        assert_eq!(bench.queue.state().last, Some(record(2).id));
        // Three writes at most are left.
        (0..3).for_each(|_| bench.end.send(Ok(())).unwrap());
        waiting.join().unwrap();
        assert_eq!(bench.queue.state().last, Some(record(3).id));
        bench.finish();
        assert_eq!(bench.told(), [(0, true), (1, true), (2, true), (3, true)]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let options = LogOptions {
            batch_bytes_max: 3 * record(0).cost_bytes(),
            ..LogOptions::default()
        };
        let mut bench = Bench::new(options);
        bench.append(0);
        bench.began.recv().unwrap();
        (1..8).for_each(|index| bench.append(index));
        let mut sizes = Vec::new();
        for _ in 0..3 {
            bench.end.send(Ok(())).unwrap();
            sizes.push(bench.began.recv().unwrap().ops.len());
        }
        bench.end.send(Ok(())).unwrap();
        bench.finish();
        assert_eq!(sizes, [3, 3, 1]);
    }

    #[test]
    fn committed_travels_with_the_next_write_but_not_before_its_entry() {
        let mut bench = Bench::new(LogOptions {
            batch_bytes_max: 1,
            ..LogOptions::default()
        });
        bench.queue.append(vec![record(0)], bench.done(0), None);
        bench.began.recv().unwrap();
        bench.queue.append(vec![record(1)], bench.done(1), None);
        bench.queue.append(vec![record(2)], bench.done(2), None);
        bench.queue.save_committed(Some(record(2).id));
        for _ in 0..3 {
            bench.end.send(Ok(())).unwrap();
        }
        bench.finish();
        assert_eq!(bench.queue.state().committed, Some(record(2).id));
        let committed: Vec<_> = bench.began.iter().map(|seen| seen.committed).collect();
        assert_eq!(committed, [None, Some(Some(record(2).id))]);
    }

    #[test]
    fn a_panic_on_the_writer_ends_the_log_aloud() {
        let mut bench = Bench::new(LogOptions::default());
        bench
            .queue
            .append(vec![record(0)], Box::new(|_| panic!("a done that panics")), None);
        bench.began.recv().unwrap();
        bench.end.send(Ok(())).unwrap();
        assert!(bench.fatal.recv().unwrap().contains("panicked"));
        bench.append(1);
        bench.finish();
        assert_eq!(bench.told(), [(1, false)]);
    }

    #[test]
    fn the_oldest_waiting_change_has_an_age() {
        let mut bench = Bench::new(LogOptions::default());
        assert_eq!(bench.queue.stats().oldest_unsynced, None);
        bench.append(0);
        bench.began.recv().unwrap();
        bench.append(1);
        assert!(bench.queue.stats().oldest_unsynced.is_some());
        bench.end.send(Ok(())).unwrap();
        bench.end.send(Ok(())).unwrap();
        bench.finish();
        assert_eq!(bench.queue.stats().oldest_unsynced, None);
    }
}
