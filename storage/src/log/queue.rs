//! What is readable, and what waits for the disk: one lock over both, so that the order in which
//! changes become readable is the order in which they are written.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::cache::{Budget, Cache};
use super::retained::{self, Retained};
use super::{Done, LogId, LogOptions, LogState, LogStats, Record, Vote};
use crate::aside::aside;

/// One change on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Append(Vec<Record>),
    Vote(Vote),
    /// Deletes the entries with this index and above.
    Truncate {
        from: u64,
    },
    Purge(LogId),
    /// Changes nothing, but is answered in its turn.
    Nothing,
}

struct Queued {
    op: Op,
    /// The log's last id after this change.
    end: Option<LogId>,
    cost_bytes: usize,
    since: Instant,
    done: Done,
}

/// What one synced write makes durable.
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    pub(super) dones: Vec<Done>,
    /// The log's last id after the batch.
    pub(super) end: Option<LogId>,
    cost_bytes: usize,
    /// A new value for `committed`, which no entry of a later batch is behind.
    pub(super) committed: Option<Option<LogId>>,
}

impl Batch {
    /// For tests of what becomes of a batch.
    #[cfg(test)]
    pub(super) fn of(ops: Vec<Op>, end: Option<LogId>) -> Self {
        Batch {
            ops,
            dones: Vec::new(),
            end,
            cost_bytes: 0,
            committed: None,
        }
    }

    /// Nothing of it needs the disk.
    pub(super) fn is_noop(&self) -> bool {
        self.committed.is_none() && self.ops.iter().all(|op| *op == Op::Nothing)
    }

    pub(super) fn entries(&self) -> usize {
        let entries = |op: &Op| if let Op::Append(records) = op { records.len() } else { 0 };
        self.ops.iter().map(entries).sum()
    }
}

/// What the log holds when it is opened.
pub(super) struct Recovered {
    pub(super) state: LogState,
    /// The entries are `first <= index < next`.
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) cache: Cache,
    /// What the entries before the cache's may weigh: consecutive runs of them by the index after
    /// each, with their bytes.
    pub(super) uncached: Vec<(u64, u64)>,
}

struct Inner {
    state: LogState,
    first: u64,
    next: u64,
    cache: Cache,
    retained: Retained,
    /// Counts truncations and purges: a read from disk that spans one starts again.
    cuts: u64,
    queue: VecDeque<Queued>,
    /// Of the queue and of the batch that is being written.
    waiting_bytes: usize,
    batch_since: Option<Instant>,
    committed_unsaved: bool,
    durable: Option<LogId>,
    /// Why nothing can be written any more.
    ended: Option<String>,
    stats: LogStats,
}

/// Shared by the handles of a log and its writer.
pub(super) struct Queue {
    /// Held for as short as vectors are moved, with two rare exceptions: the lookup of one id on
    /// disk in a truncation below the cache, and the wait (which releases it) of a full queue. Never
    /// across an await.
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
    flushed: watch::Sender<Option<LogId>>,
    queue_bytes_max: usize,
    batch_bytes_max: usize,
}

impl Queue {
    pub(super) fn new(recovered: Recovered, options: &LogOptions) -> Self {
        let Recovered {
            state,
            first,
            next,
            cache,
            uncached,
        } = recovered;
        let now = retained::Instant::now();
        let mut retained = Retained::new(first, now);
        let mut from = first;
        for (next, bytes) in uncached {
            retained.push(from, next, bytes, now);
            from = next;
        }
        for (index, bytes) in cache.costs() {
            retained.push(index, index + 1, bytes as u64, now);
        }
        Self {
            inner: Mutex::new(Inner {
                state,
                first,
                next,
                cache,
                retained,
                cuts: 0,
                queue: VecDeque::new(),
                waiting_bytes: 0,
                batch_since: None,
                committed_unsaved: false,
                durable: state.last,
                ended: None,
                stats: LogStats::default(),
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            flushed: watch::Sender::new(state.last),
            queue_bytes_max: options.queue_bytes_max,
            batch_bytes_max: options.batch_bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics while holding the log's lock")
    }

    pub(super) fn state(&self) -> LogState {
        self.lock().state
    }

    pub(super) fn flushed(&self) -> watch::Receiver<Option<LogId>> {
        self.flushed.subscribe()
    }

    /// All but `disk_bytes`.
    pub(super) fn stats(&self) -> LogStats {
        let inner = self.lock();
        let oldest = inner
            .batch_since
            .or_else(|| inner.queue.front().map(|queued| queued.since));
        LogStats {
            queued_bytes: inner.waiting_bytes as u64,
            cache_bytes: inner.cache.bytes() as u64,
            oldest_unsynced: oldest.map(|since| since.elapsed()),
            first_index: (inner.first < inner.next).then_some(inner.first),
            retained_entries: inner.next - inner.first,
            retained_bytes: inner.retained.bytes(),
            ..inner.stats
        }
    }

    pub(super) fn index_to_keep_bytes(&self, bytes: u64) -> Option<u64> {
        self.lock().retained.index_to_keep_bytes(bytes)
    }

    pub(super) fn index_older_than(&self, age: Duration) -> Option<u64> {
        self.lock().retained.index_older_than(age, retained::Instant::now())
    }

    /// See [`super::LogStore::append`]. Waits while the queue is full, except on the `writer`'s
    /// thread, which alone can empty it.
    pub(super) fn append(&self, records: Vec<Record>, done: Done, writer: Option<ThreadId>) {
        let cost_bytes: usize = records.iter().map(Record::cost_bytes).sum();
        let mut inner = self.lock();
        if inner.waiting_bytes + cost_bytes > self.queue_bytes_max && writer != Some(std::thread::current().id()) {
            inner.stats.queue_full += 1;
            tracing::warn!(
                waiting_bytes = inner.waiting_bytes,
                "the log's disk is behind, an append waits for it"
            );
            // One change larger than the whole bound must pass when nothing else waits.
            let is_full = |inner: &mut Inner| {
                inner.waiting_bytes > 0
                    && inner.waiting_bytes + cost_bytes > self.queue_bytes_max
                    && inner.ended.is_none()
            };
            drop(inner);
            inner = aside(|| self.room.wait_while(self.lock(), is_full))
                .expect("no one panics while holding the log's lock");
        }
        if inner.ended.is_none() && !inner.follows(&records) {
            let last = inner.state.last;
            drop(inner);
            let first = records.first().map(|record| record.id);
            let error = format!("entries from {first:?} do not follow the log's end {last:?}");
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, error)));
        }
        let op = |inner: &mut Inner| {
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                return Op::Nothing;
            };
            if inner.first == inner.next {
                inner.first = first.id.index;
            }
            inner.next = last.id.index + 1;
            inner.state.last = Some(last.id);
            let now = retained::Instant::now();
            for record in &records {
                let index = record.id.index;
                inner.retained.push(index, index + 1, record.cost_bytes() as u64, now);
                inner.cache.push(record.clone());
            }
            Op::Append(records)
        };
        self.change(inner, cost_bytes, done, op);
    }

    pub(super) fn save_vote(&self, vote: Vote, done: Done) {
        self.change(self.lock(), 0, done, |inner| {
            inner.state.vote = Some(vote);
            Op::Vote(vote)
        });
    }

    pub(super) fn save_committed(&self, committed: Option<LogId>) {
        let mut inner = self.lock();
        inner.state.committed = committed;
        inner.committed_unsaved = true;
    }

    /// `id_on_disk` gives the id of a durable entry that is not in the cache.
    pub(super) fn truncate_after(
        &self,
        last: Option<u64>,
        done: Done,
        id_on_disk: impl FnOnce(u64) -> io::Result<LogId>,
    ) {
        let inner = self.lock();
        let from = last.map_or(0, |last| last.saturating_add(1)).max(inner.first);
        if from >= inner.next {
            return self.change(inner, 0, done, |_| Op::Nothing);
        }
        let end = if from == inner.first {
            Ok(inner.state.purged)
        } else {
            inner
                .cache
                .id_at(from - 1)
                .map_or_else(|| id_on_disk(from - 1), Ok)
                .map(Some)
        };
        let end = match end {
            Ok(end) => end,
            Err(error) => {
                drop(inner);
                return done(Err(error));
            }
        };
        self.change(inner, 0, done, |inner| {
            inner.next = from;
            inner.state.last = end;
            inner.cache.truncate(from);
            inner.retained.truncate(from);
            inner.cuts += 1;
            if inner.durable > end {
                inner.durable = end;
                self.flushed.send_replace(end);
            }
            Op::Truncate { from }
        });
    }

    pub(super) fn purge(&self, upto: LogId, done: Done) {
        self.change(self.lock(), 0, done, |inner| {
            if inner.state.purged.is_some_and(|purged| purged.index >= upto.index) {
                return Op::Nothing;
            }
            inner.state.purged = Some(upto);
            let first = upto.index + 1;
            if first >= inner.next {
                inner.next = first;
                inner.state.last = Some(upto);
            }
            inner.first = inner.first.max(first);
            inner.cache.purge(first);
            inner.retained.purge(first);
            inner.cuts += 1;
            Op::Purge(upto)
        });
    }

    /// Makes a change readable and queues it, in one step; answers at once if nothing can be written.
    fn change(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        cost_bytes: usize,
        done: Done,
        op: impl FnOnce(&mut Inner) -> Op,
    ) {
        if let Some(reason) = &inner.ended {
            let error = io::Error::other(reason.clone());
            drop(inner);
            return done(Err(error));
        }
        let op = op(&mut inner);
        let end = inner.state.last;
        inner.waiting_bytes += cost_bytes;
        inner.queue.push_back(Queued {
            op,
            end,
            cost_bytes,
            since: Instant::now(),
            done,
        });
        drop(inner);
        self.work.notify_one();
    }

    /// The records of [`super::LogStore::read`]. `disk` reads `from <= index < to`, all durable.
    pub(super) fn read(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
        disk: impl Fn(u64, u64, &mut Budget) -> io::Result<Vec<Record>>,
    ) -> io::Result<Vec<Record>> {
        'again: loop {
            let mut budget = Budget::new(bytes_max);
            let mut out: Vec<Record> = Vec::new();
            let mut cuts = None;
            loop {
                let (next, disk_to) = {
                    let inner = self.lock();
                    if *cuts.get_or_insert(inner.cuts) != inner.cuts {
                        continue 'again;
                    }
                    let next = out.last().map_or(from, |last| last.id.index + 1).max(inner.first);
                    let to = to.min(inner.next);
                    if next >= to {
                        return Ok(out);
                    }
                    match inner.cache.first() {
                        Some(first) if first <= next => {
                            inner.cache.read(next, to, &mut budget, &mut out);
                            return Ok(out);
                        }
                        first => (next, first.unwrap_or(to).min(to)),
                    }
                };
                let before = out.len();
                match aside(|| disk(next, disk_to, &mut budget)) {
                    Ok(records) => out.extend(records),
                    // Cut away while it was being read: not a hole.
                    Err(_) if cuts != Some(self.lock().cuts) => continue 'again,
                    Err(error) => return Err(error),
                }
                let full = out.len() == before || out.last().is_some_and(|last| last.id.index + 1 < disk_to);
                if full {
                    if cuts != Some(self.lock().cuts) {
                        continue 'again;
                    }
                    return Ok(out);
                }
            }
        }
    }

    /// Waits for changes and takes what one write may hold. None once the log has ended and all is
    /// written. The taken batch must be given back through [`Self::complete`] or [`Self::fail`].
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let mut inner = self.lock();
        while inner.queue.is_empty() && inner.ended.is_none() {
            inner = self
                .work
                .wait(inner)
                .expect("no one panics while holding the log's lock");
        }
        let end = inner.state.last;
        let mut batch = Batch {
            ops: Vec::new(),
            dones: Vec::new(),
            end,
            cost_bytes: 0,
            committed: None,
        };
        inner.batch_since = inner.queue.front().map(|queued| queued.since);
        let room = |bytes: usize, next: usize| bytes == 0 || bytes + next <= self.batch_bytes_max;
        while let Some(queued) = inner.queue.pop_front_if(|next| room(batch.cost_bytes, next.cost_bytes)) {
            batch.cost_bytes += queued.cost_bytes;
            batch.end = queued.end;
            batch.ops.push(queued.op);
            batch.dones.push(queued.done);
        }
        if inner.committed_unsaved && inner.state.committed.map(|id| id.index) <= batch.end.map(|id| id.index) {
            inner.committed_unsaved = false;
            batch.committed = Some(inner.state.committed);
        }
        let nothing_left = batch.ops.is_empty() && batch.committed.is_none();
        (!nothing_left).then_some(batch)
    }

    /// The batch that was taken last is on disk: `nanos` is how long its sync took, none if it
    /// needed none.
    pub(super) fn complete(&self, batch: &Batch, nanos: Option<u64>) {
        let mut inner = self.lock();
        inner.batch_since = None;
        inner.waiting_bytes -= batch.cost_bytes;
        // What a waiting truncation deletes is no longer part of the readable log.
        let waiting = inner
            .queue
            .iter()
            .filter(|queued| matches!(queued.op, Op::Truncate { .. }));
        inner.durable = waiting.map(|queued| queued.end).fold(batch.end, Option::min);
        let durable = inner.durable.map(|id| id.index);
        inner.cache.evict(durable);
        if let Some(nanos) = nanos {
            inner.stats.syncs += 1;
            inner.stats.sync_nanos += nanos;
        }
        inner.stats.changes += batch.ops.len() as u64;
        inner.stats.entries += batch.entries() as u64;
        self.flushed
            .send_if_modified(|value| std::mem::replace(value, inner.durable) != inner.durable);
        drop(inner);
        self.room.notify_all();
    }

    /// Ends the log with an error: what waits, and all that comes, fails with it.
    pub(super) fn fail(&self, reason: &str) {
        let mut inner = self.lock();
        inner.ended = Some(reason.to_owned());
        inner.committed_unsaved = false;
        let queue = std::mem::take(&mut inner.queue);
        drop(inner);
        self.room.notify_all();
        self.work.notify_all();
        for queued in queue {
            (queued.done)(Err(io::Error::other(reason.to_owned())));
        }
    }

    /// Ends the log; what waits is still written.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.ended.get_or_insert_with(|| "the log is closed".to_owned());
        drop(inner);
        self.room.notify_all();
        self.work.notify_all();
    }
}

impl Inner {
    /// Whether the records follow each other and the log's end.
    fn follows(&self, records: &[Record]) -> bool {
        let mut expected = self.state.last.map(|last| last.index + 1);
        records.iter().all(|record| {
            let follows = expected.is_none_or(|expected| expected == record.id.index);
            expected = Some(record.id.index + 1);
            follows
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(term: u64, index: u64) -> Record {
        Record {
            id: LogId { term, leader: 1, index },
            payload: Bytes::new(),
        }
    }

    /// A log of entries 0..10 of which only 8 and 9 are in the cache.
    fn queue() -> Queue {
        let mut cache = Cache::new(usize::MAX);
        (8..10).for_each(|index| cache.push(record(1, index)));
        let state = LogState {
            last: Some(record(1, 9).id),
            ..LogState::default()
        };
        Queue::new(
            Recovered {
                state,
                first: 0,
                next: 10,
                cache,
                uncached: vec![(8, 8 * 64)],
            },
            &LogOptions::default(),
        )
    }

    fn ids(records: io::Result<Vec<Record>>) -> Vec<(u64, u64)> {
        records
            .unwrap()
            .iter()
            .map(|record| (record.id.term, record.id.index))
            .collect()
    }

    fn old(from: u64, to: u64, budget: &mut Budget) -> io::Result<Vec<Record>> {
        Ok((from..to)
            .map(|index| record(1, index))
            .take_while(|r| budget.take(r.cost_bytes()))
            .collect())
    }

    #[test]
    fn a_read_goes_on_from_disk_to_memory() {
        let queue = queue();
        assert_eq!(
            ids(queue.read(6, 99, usize::MAX, old)),
            [(1, 6), (1, 7), (1, 8), (1, 9)]
        );
        assert_eq!(ids(queue.read(6, 9, 3 * 64, old)), [(1, 6), (1, 7), (1, 8)]);
        assert_eq!(ids(queue.read(5, 99, 2 * 64, old)), [(1, 5), (1, 6)]);
        assert_eq!(ids(queue.read(5, 99, 0, old)), [(1, 5)]);
        assert_eq!(ids(queue.read(10, 99, usize::MAX, old)), []);
        assert_eq!(ids(queue.read(5, 5, usize::MAX, old)), []);
        assert_eq!(ids(queue.read(9, 3, usize::MAX, old)), []);
    }

    /// Otherwise a reader could be given the beginning of one history and the end of another.
    #[test]
    fn a_read_that_a_truncation_crosses_starts_again() {
        let queue = queue();
        let crossed = std::cell::Cell::new(false);
        let disk = |from, to, budget: &mut Budget| {
            if !crossed.replace(true) {
                queue.truncate_after(Some(4), Box::new(|_| {}), |index| Ok(record(1, index).id));
                queue.append((5..8).map(|index| record(2, index)).collect(), Box::new(|_| {}), None);
            }
            old(from, to, budget)
        };
        assert_eq!(
            ids(queue.read(3, 99, usize::MAX, disk)),
            [(1, 3), (1, 4), (2, 5), (2, 6), (2, 7)]
        );
    }

    #[test]
    fn a_hole_is_an_error_unless_it_was_purged_meanwhile() {
        let queue = queue();
        let hole = |_, _, _: &mut Budget| Err(io::Error::new(io::ErrorKind::InvalidData, "missing"));
        assert_eq!(
            queue.read(3, 99, usize::MAX, hole).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let purged = |_, _, _: &mut Budget| {
            queue.purge(record(1, 8).id, Box::new(|_| {}));
            Err(io::Error::new(io::ErrorKind::InvalidData, "missing"))
        };
        assert_eq!(ids(queue.read(3, 99, usize::MAX, purged)), [(1, 9)]);
    }
}
