//! The log in memory: the twin of [`super::RocksLog`] in fast tests and in the simulation. It is
//! written apart from the queue and the writer, so that comparing the two means something.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_state_machine::planted::{Bug, is_planted};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Done, LogId, LogState, LogStore, Record, Vote};

/// What a log consists of.
#[derive(Debug, Clone, Default)]
struct Image {
    records: BTreeMap<u64, Record>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Vote>,
}

#[derive(Debug, Clone)]
enum Change {
    Append(Vec<Record>),
    Vote(Vote),
    Committed(Option<LogId>),
    Truncate(Option<u64>),
    Purge(LogId),
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(records) => {
                self.records
                    .extend(records.iter().map(|record| (record.id.index, record.clone())));
            }
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Committed(committed) => self.committed = *committed,
            Change::Truncate(None) => self.records.clear(),
            Change::Truncate(Some(last)) => drop(self.records.split_off(&last.saturating_add(1))),
            Change::Purge(upto) => {
                if self.purged.is_none_or(|purged| purged.index < upto.index) {
                    self.purged = Some(*upto);
                    self.records = self.records.split_off(&(upto.index + 1));
                }
            }
        }
    }

    fn last(&self) -> Option<LogId> {
        self.last_within(Some(u64::MAX))
    }

    /// The last id if everything above index `end` (none: everything) is left out.
    fn last_within(&self, end: Option<u64>) -> Option<LogId> {
        let kept = end.and_then(|end| self.records.range(..=end).next_back());
        kept.map(|(_, record)| record.id).or(self.purged)
    }

    fn state(&self) -> LogState {
        LogState {
            purged: self.purged,
            last: self.last(),
            committed: self.committed,
            vote: self.vote,
        }
    }
}

struct Inner {
    readable: Image,
    durable: Image,
    /// When each readable record was appended, in real or simulated time.
    appended: BTreeMap<u64, Instant>,
    /// What separates the two, oldest first. Bounded by whoever tests: nothing else empties it.
    waiting: Vec<(Change, Option<Done>)>,
    manual: bool,
    crashed: bool,
}

/// A handle of the log.
#[derive(Clone)]
pub struct MemoryLog {
    /// Held for as short as maps are changed, never across an await and never while a `done` runs.
    inner: Arc<Mutex<Inner>>,
    flushed: watch::Sender<Option<LogId>>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// Each change is durable, and answered, when its call returns.
    pub fn new() -> Self {
        Self::with(Image::default(), false)
    }

    /// Changes become durable, and are answered, in [`Self::flush`].
    pub fn new_manual() -> Self {
        Self::with(Image::default(), true)
    }

    fn with(image: Image, manual: bool) -> Self {
        let flushed = watch::Sender::new(image.last());
        let now = Instant::now();
        let inner = Inner {
            appended: image.records.keys().map(|index| (*index, now)).collect(),
            readable: image.clone(),
            durable: image,
            waiting: Vec::new(),
            manual,
            crashed: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            flushed,
        }
    }

    /// Makes all that waits durable, then answers it in order.
    pub fn flush(&self) {
        let dones: Vec<Done> = {
            let mut inner = self.lock();
            let waiting = std::mem::take(&mut inner.waiting);
            waiting
                .into_iter()
                .filter_map(|(change, done)| {
                    inner.durable.apply(&change);
                    done
                })
                .collect()
        };
        self.announce();
        dones.into_iter().for_each(|done| done(Ok(())));
    }

    /// The log as a restarted process finds it: without what was not flushed, whose `done`s are never
    /// called. Changes of this log fail from now on.
    pub fn crash(&self) -> MemoryLog {
        self.crash_keeping(0)
    }

    /// The same, but the first changes that waited had reached the disk, though nobody was told.
    pub fn crash_keeping(&self, changes: usize) -> MemoryLog {
        let mut inner = self.lock();
        inner.crashed = true;
        let forgotten = std::mem::take(&mut inner.waiting);
        let mut durable = inner.durable.clone();
        forgotten
            .iter()
            .take(changes)
            .for_each(|(change, _)| durable.apply(change));
        let after = Self::with(durable, inner.manual);
        drop(inner);
        drop(forgotten);
        after
    }

    /// Changes that wait to be flushed.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// What a crash at this moment would leave at least.
    pub fn durable_state(&self) -> LogState {
        self.lock().durable.state()
    }

    /// The id of the entry at this index, if a crash at this moment would leave it.
    pub fn durable_id(&self, index: u64) -> Option<LogId> {
        self.lock().durable.records.get(&index).map(|record| record.id)
    }

    /// The id of the entry at this index, flushed or not.
    pub fn id(&self, index: u64) -> Option<LogId> {
        self.lock().readable.records.get(&index).map(|record| record.id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics while holding the log's lock")
    }

    fn change(&self, change: Change, done: Option<Done>) {
        let mut inner = self.lock();
        let refused = match &change {
            _ if inner.crashed => Some(io::Error::other("the log has crashed")),
            Change::Append(records) => refuse_holes(&inner.readable, records),
            _ => None,
        };
        if let Some(error) = refused {
            drop(inner);
            done.into_iter().for_each(|done| done(Err(error_like(&error))));
            return;
        }
        inner.readable.apply(&change);
        if let Change::Append(records) = &change {
            let now = Instant::now();
            inner
                .appended
                .extend(records.iter().map(|record| (record.id.index, now)));
        }
        // A committed index alone is no reason to write.
        let flush = !inner.manual && done.is_some();
        let cut = matches!(change, Change::Truncate(_));
        let (early, done) = match is_answered_early(&change) {
            true => (done, None),
            false => (None, done),
        };
        inner.waiting.push((change, done));
        drop(inner);
        if cut || early.is_some() {
            self.announce();
        }
        early.into_iter().for_each(|done| done(Ok(())));
        if flush {
            self.flush();
        }
    }

    /// Publishes how much of the readable log is durable.
    fn announce(&self) {
        let inner = self.lock();
        // What a waiting truncation deletes is no longer part of the readable log.
        let cut = inner.waiting.iter().filter_map(|(change, _)| match change {
            Change::Truncate(last) => Some(*last),
            _ => None,
        });
        let durable = match is_planted(Bug::AckBeforeFsync) {
            true => &inner.readable,
            false => &inner.durable,
        };
        let last = durable.last_within(cut.min().unwrap_or(Some(u64::MAX)));
        self.flushed
            .send_if_modified(|value| std::mem::replace(value, last) != last);
    }
}

/// Only where a bug is planted.
fn is_answered_early(change: &Change) -> bool {
    match change {
        Change::Append(_) => is_planted(Bug::AckBeforeFsync),
        Change::Vote(_) => is_planted(Bug::VoteNotSynced),
        _ => false,
    }
}

fn refuse_holes(readable: &Image, records: &[Record]) -> Option<io::Error> {
    let mut previous = readable.last().map(|last| last.index);
    for record in records {
        if previous.is_some_and(|previous| previous + 1 != record.id.index) {
            let error = format!("entry {} does not follow index {previous:?}", record.id);
            return Some(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        previous = Some(record.id.index);
    }
    None
}

fn error_like(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl LogStore for MemoryLog {
    fn state(&self) -> LogState {
        self.lock().readable.state()
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        self.change(Change::Append(records), Some(done));
    }

    fn save_vote(&self, vote: Vote, done: Done) {
        self.change(Change::Vote(vote), Some(done));
    }

    fn save_committed(&self, committed: Option<LogId>) {
        self.change(Change::Committed(committed), None);
    }

    fn truncate_after(&self, last: Option<u64>, done: Done) {
        self.change(Change::Truncate(last), Some(done));
    }

    fn purge(&self, upto: LogId, done: Done) {
        self.change(Change::Purge(upto), Some(done));
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Record>> {
        let inner = self.lock();
        let mut out = Vec::new();
        let mut bytes = 0;
        if from >= to {
            return Ok(out);
        }
        for (index, record) in inner.readable.records.range(from..to) {
            if let Some(last) = out.last().map(|last: &Record| last.id.index)
                && last + 1 != *index
            {
                let error = format!("entries between {last} and {index} are missing");
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            bytes += record.cost_bytes();
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(record.clone());
        }
        Ok(out)
    }

    fn index_to_keep_bytes(&self, bytes: u64) -> Option<u64> {
        let inner = self.lock();
        let mut kept_bytes = 0;
        let mut newest_first = inner.readable.records.values().rev();
        newest_first
            .find(|record| {
                kept_bytes += record.cost_bytes() as u64;
                kept_bytes > bytes
            })
            .map(|record| record.id.index)
    }

    fn index_older_than(&self, age: Duration) -> Option<u64> {
        let inner = self.lock();
        let now = Instant::now();
        let mut newest_first = inner.readable.records.keys().rev();
        newest_first
            .find(|index| now.saturating_duration_since(inner.appended[index]) > age)
            .copied()
    }

    fn flushed(&self) -> watch::Receiver<Option<LogId>> {
        self.flushed.subscribe()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::mpsc::channel;

    use bytes::Bytes;
    use quorate_state_machine::planted::{clear, plant};

    use super::*;

    const ID: LogId = LogId {
        term: 1,
        leader: 1,
        index: 0,
    };

    /// Whether a crash forgets an entry and a vote that were promised.
    fn forgets() -> (bool, bool) {
        let log = MemoryLog::new_manual();
        let told = |change: &dyn Fn(Done)| {
            let (tell, told) = channel();
            change(Box::new(move |result| {
                tell.send(result.is_ok()).expect("the test listens")
            }));
            told.try_recv().is_ok_and(|ok| ok)
        };
        let record = Record {
            id: ID,
            payload: Bytes::new(),
        };
        let vote = Vote {
            term: 1,
            leader: 1,
            committed: false,
        };
        let append = told(&|done| log.append(vec![record.clone()], done));
        let vote = told(&|done| log.save_vote(vote, done));
        assert_eq!(*log.flushed().borrow(), append.then_some(ID));
        let after = log.crash().state();
        (append && after.last.is_none(), vote && after.vote.is_none())
    }

    /// One test, because a bug is one of the process.
    #[test]
    fn planted_bugs_of_the_log_forget_what_was_promised() {
        assert_eq!(forgets(), (false, false));
        plant(Bug::AckBeforeFsync);
        assert_eq!(forgets(), (true, false));
        plant(Bug::VoteNotSynced);
        assert_eq!(forgets(), (false, true));
        clear();
    }
}
