//! The log on a disk: the queue and its writer above, RocksDB (see [`super::store`]) and the mark
//! (see [`super::mark`]) below.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use quorate_state_machine::planted::{Bug, is_planted};
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::watch;

use super::mark::{Mark, MarkFile};
use super::queue::{Batch, Op, Queue};
use super::record::{self, Meta};
use super::store::Store;
use super::writer::{self, Disk};
use super::{Done, LogId, LogOptions, LogState, LogStats, LogStore, Record, Vote};
use crate::error::{FatalHook, OpenError};
use crate::small_file;
use crate::uneven::uneven;

/// A handle of the log; the last one that is dropped closes it.
#[derive(Clone)]
pub struct RocksLog {
    handle: Arc<Handle>,
}

struct Handle {
    queue: Arc<Queue>,
    store: Arc<Store>,
    writer_id: ThreadId,
    /// Taken by the one who joins it.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl RocksLog {
    /// Opens or makes the log in `dir`; its mark lies beside it. Refuses a log that has lost what
    /// it had confirmed ([`OpenError::LostAcknowledgedData`]). `on_fatal` is called at most once.
    pub fn open(dir: &Path, options: LogOptions, on_fatal: FatalHook) -> Result<RocksLog, OpenError> {
        std::fs::create_dir_all(dir).map_err(|error| OpenError::io(format!("create {}", dir.display()), error))?;
        let (mut mark_file, marked) = MarkFile::open(&MarkFile::path_of(dir))?;
        // RocksDB would make a new database beside the remains of the old one, and clean them away.
        if let Some(marked) = marked.filter(|marked| *marked != Mark::default())
            && !dir.join("CURRENT").exists()
        {
            return Err(OpenError::LostAcknowledgedData {
                log: dir.to_owned(),
                marked: marked.to_string(),
                found: "no CURRENT file".to_owned(),
            });
        }
        let options = LogOptions {
            write_buffer_bytes: uneven(options.write_buffer_bytes, &mut rand::rng()),
            ..options
        };
        let store = Store::open(dir, &options)?;
        let recovered = store.recover(options.cache_bytes_max)?;
        let found = Mark {
            last: recovered.state.last,
            vote: recovered.state.vote,
        };
        check_mark(dir, marked, found)?;
        mark_file
            .write(&found)
            .map_err(|error| OpenError::io(format!("write the mark of {}", dir.display()), error))?;

        let store = Arc::new(store);
        let queue = Arc::new(Queue::new(recovered, &options));
        let disk = RocksDisk {
            store: store.clone(),
            mark_file,
            mark: found,
            scratch: Vec::new(),
        };
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn({
                let queue = queue.clone();
                move || writer::run(&queue, disk, options.on_sync, &on_fatal)
            })
            .map_err(|error| OpenError::io("start the log's writer", error))?;
        let writer_id = writer.thread().id();
        Ok(RocksLog {
            handle: Arc::new(Handle {
                queue,
                store,
                writer_id,
                writer: Mutex::new(Some(writer)),
            }),
        })
    }

    /// Writes what waits, then ends the writer. Later changes fail; reads go on.
    pub fn close(&self) {
        self.handle.close();
    }

    /// [`LogStats::oldest_unsynced`] alone: unlike [`Self::stats`] it never touches the disk, so that
    /// it answers while the disk hangs.
    pub fn oldest_unsynced(&self) -> Option<Duration> {
        self.handle.queue.stats().oldest_unsynced
    }

    pub fn stats(&self) -> LogStats {
        LogStats {
            disk_bytes: small_file::tree_bytes(&self.handle.store.dir),
            ..self.handle.queue.stats()
        }
    }
}

impl Handle {
    fn close(&self) {
        self.queue.close();
        let writer = self
            .writer
            .lock()
            .expect("no one panics while holding the writer's handle")
            .take();
        // A `done` may own the last handle: the writer then ends by itself after it.
        if let Some(writer) = writer
            && std::thread::current().id() != self.writer_id
            && writer.join().is_err()
        {
            tracing::error!("the log's writer ended in a panic");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl LogStore for RocksLog {
    fn state(&self) -> LogState {
        self.handle.queue.state()
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        self.handle.queue.append(records, done, Some(self.handle.writer_id));
    }

    fn save_vote(&self, vote: Vote, done: Done) {
        self.handle.queue.save_vote(vote, done);
    }

    fn save_committed(&self, committed: Option<LogId>) {
        self.handle.queue.save_committed(committed);
    }

    fn truncate_after(&self, last: Option<u64>, done: Done) {
        self.handle
            .queue
            .truncate_after(last, done, |index| self.handle.store.id_at(index));
    }

    fn purge(&self, upto: LogId, done: Done) {
        self.handle.queue.purge(upto, done);
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Record>> {
        self.handle.queue.read(from, to, bytes_max, |from, to, budget| {
            self.handle.store.read(from, to, budget)
        })
    }

    fn index_to_keep_bytes(&self, bytes: u64) -> Option<u64> {
        self.handle.queue.index_to_keep_bytes(bytes)
    }

    fn index_older_than(&self, age: Duration) -> Option<u64> {
        self.handle.queue.index_older_than(age)
    }

    fn flushed(&self) -> watch::Receiver<Option<LogId>> {
        self.handle.queue.flushed()
    }
}

/// Decides whether the log may be used.
fn check_mark(dir: &Path, marked: Option<Mark>, found: Mark) -> Result<(), OpenError> {
    match marked {
        None if found == Mark::default() => Ok(()),
        None => {
            tracing::warn!(log = %dir.display(), %found, "the log has no mark, so a loss could not be noticed; writing one");
            Ok(())
        }
        Some(marked) if found.covers(&marked) => Ok(()),
        Some(marked) => Err(OpenError::LostAcknowledgedData {
            log: dir.to_owned(),
            marked: marked.to_string(),
            found: found.to_string(),
        }),
    }
}

/// The writer's side.
struct RocksDisk {
    store: Arc<Store>,
    mark_file: MarkFile,
    /// What the mark says.
    mark: Mark,
    scratch: Vec<u8>,
}

impl Disk for RocksDisk {
    fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        let after = self.mark_after(batch);
        if !after.covers(&self.mark) {
            self.mark_file.write(&after)?;
            self.mark_file.sync()?;
        }
        let writes = self.encode(batch);
        let mut synced = WriteOptions::default();
        synced.set_sync(!is_left_unsynced(batch));
        self.store.db.write_opt(writes, &synced).map_err(io::Error::other)?;
        self.mark_file.write(&after)?;
        self.mark = after;
        self.drop_purged_files(batch);
        Ok(())
    }
}

/// Only where a bug is planted.
fn is_left_unsynced(batch: &Batch) -> bool {
    let vote_only = || batch.ops.iter().all(|op| matches!(op, Op::Vote(_) | Op::Nothing));
    is_planted(Bug::AckBeforeFsync) || (is_planted(Bug::VoteNotSynced) && vote_only())
}

impl RocksDisk {
    fn mark_after(&self, batch: &Batch) -> Mark {
        let vote = batch
            .ops
            .iter()
            .rev()
            .find_map(|op| if let Op::Vote(vote) = op { Some(*vote) } else { None });
        Mark {
            last: batch.end,
            vote: vote.or(self.mark.vote),
        }
    }

    fn encode(&mut self, batch: &Batch) -> WriteBatch {
        let group = self.store.group;
        let meta = self.store.meta();
        let mut writes = WriteBatch::default();
        for op in &batch.ops {
            match op {
                Op::Append(records) => {
                    for record in records {
                        let key = record::record_key(group, record.id.index);
                        record::encode_record(&key, record, &mut self.scratch);
                        writes.put(key, &self.scratch);
                    }
                }
                Op::Vote(vote) => {
                    let key = record::meta_key(group, Meta::Vote);
                    writes.put_cf(meta, key, record::encode_vote(&key, vote));
                }
                Op::Truncate { from } => {
                    writes.delete_range(record::record_key(group, *from).to_vec(), record::records_end(group));
                }
                Op::Purge(upto) => {
                    let key = record::meta_key(group, Meta::Purged);
                    writes.put_cf(meta, key, record::encode_log_id(&key, upto));
                    writes.delete_range(record::record_key(group, 0), record::record_key(group, upto.index + 1));
                }
                Op::Nothing => {}
            }
        }
        if let Some(committed) = batch.committed {
            let key = record::meta_key(group, Meta::Committed);
            match committed {
                Some(id) => writes.put_cf(meta, key, record::encode_log_id(&key, &id)),
                None => writes.delete_cf(meta, key),
            }
        }
        // A large entry must not keep its buffer for ever.
        self.scratch.shrink_to(1 << 20);
        writes
    }

    /// Gives the space of whole files back at once instead of after a compaction. That can bring
    /// older versions of purged entries back to sight, which nobody sees: all reads begin after the
    /// purge marker.
    fn drop_purged_files(&self, batch: &Batch) {
        for op in &batch.ops {
            if let Op::Purge(upto) = op {
                let (from, to) = (
                    record::record_key(self.store.group, 0),
                    record::record_key(self.store.group, upto.index),
                );
                if let Err(error) = self.store.db.delete_file_in_range(from, to) {
                    tracing::warn!(%error, "failed to drop purged files of the log, compaction will");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{id, no_failure, record, records};
    use super::*;

    /// A disk on which the database refuses every write, with the mark at entry 9 of term 1.
    fn broken_disk(dir: &Path) -> RocksDisk {
        let log = RocksLog::open(dir, LogOptions::default(), no_failure()).unwrap();
        log.append(records(1, 0..10), Box::new(|result| result.unwrap()));
        drop(log);
        let db =
            rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), dir, ["default", "meta"], false).unwrap();
        let (mark_file, mark) = MarkFile::open(&MarkFile::path_of(dir)).unwrap();
        let store = Arc::new(Store {
            db,
            dir: dir.to_owned(),
            group: 0,
        });
        RocksDisk {
            store,
            mark_file,
            mark: mark.unwrap(),
            scratch: Vec::new(),
        }
    }

    fn mark(dir: &Path) -> Mark {
        MarkFile::open(&MarkFile::path_of(dir)).unwrap().1.unwrap()
    }

    #[test]
    fn the_mark_is_never_ahead_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("log");
        let mut disk = broken_disk(&dir);
        disk.commit(&Batch::of(vec![Op::Append(vec![record(1, 10)])], Some(id(1, 10))))
            .unwrap_err();
        assert_eq!(mark(&dir).last, Some(id(1, 9)));
    }

    #[test]
    fn the_mark_is_lowered_before_the_log_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("log");
        let mut disk = broken_disk(&dir);
        disk.commit(&Batch::of(vec![Op::Truncate { from: 5 }], Some(id(1, 4))))
            .unwrap_err();
        assert_eq!(mark(&dir).last, Some(id(1, 4)));
    }
}
