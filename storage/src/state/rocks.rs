//! The state on a disk.
//!
//! What is written is in memory until a memtable is full, and in tables from then on: there is no log of RocksDB's beside
//! Raft's, which is synced before anything is applied. A crash takes away what was in memory only. Memtables
//! become tables in the order in which they were filled, a write is in one of them, and a table counts once it is synced,
//! so what is left is what the state was after some write; the Raft log has the rest, because it is purged
//! only after [`StateStore::sync`].
//!
//! RocksDB checks the checksum of every block that it reads (`verify_checksums`); a damaged value is an error and never a
//! wrong answer. How its tables lie on the disk: [`super::rocks_options`].

use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use quorate_state_machine::view::{Visitor, successor};
use quorate_state_machine::{Change, Fatal, View};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, Cache, CompactOptions, DB, DBPinnableSlice, Range, ReadOptions, ReadTier, Snapshot,
    WriteBatch,
};

use super::deleted::{DeletedRanges, WORTHWHILE_BYTES};
use super::hash::{self, StateHash};
use super::pace::Load;
use super::pointer::Pointer;
use super::read_cache::{ReadCache, ReadCacheAt};
use super::rocks_options::{copy_options, db_options, read_options};
use super::{
    Applied, HashLater, StateOptions, StateStats, StateStore, USER_KEYS_FROM, applied, refuse_reserved, stall,
};
use crate::aside::aside;
use crate::error::{FatalHook, OpenError};
use crate::framing;
use crate::log::LogId;
use crate::small_file;
use crate::uneven::uneven;

/// A handle of the state; the last one that is dropped closes it.
#[derive(Clone)]
pub struct RocksState {
    shared: Arc<Shared>,
}

struct Shared {
    state_dir: PathBuf,
    options: StateOptions,
    /// One for all generations.
    block_cache: Cache,
    /// By which compactions are paced.
    load: Arc<Load>,
    /// Read-locked for as short as the `Arc` is cloned; replaced by an installation.
    current: RwLock<Arc<Generation>>,
    /// Held by whatever changes the state, so that no write goes to a generation that is being
    /// replaced. Contended only then: there is one applier.
    changing: Mutex<()>,
    failed: AtomicBool,
    on_fatal: FatalHook,
    writes: AtomicU64,
}

/// One database. Dropped when the last reader has finished.
struct Generation {
    /// Before `removal`: fields are dropped in this order.
    db: DB,
    pointer: Pointer,
    /// Of this database's rows.
    read_cache: ReadCache,
    /// What was applied up to here is in tables. Held for an assignment.
    durable: Mutex<Option<LogId>>,
    /// Held for as short as a few ranges are copied. Those of before a restart are not known.
    deleted: Mutex<DeletedRanges>,
    removal: Removal,
}

/// Removes the directory of a generation that was replaced.
struct Removal {
    dir: PathBuf,
    replaced: AtomicBool,
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.removal.replaced.load(Ordering::Acquire) {
            // What takes long of closing: RocksDB flushes what is in memory and ends its compactions.
            aside(|| self.db.cancel_all_background_work(true));
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if self.replaced.load(Ordering::Acquire)
            && let Err(error) = aside(|| small_file::remove_tree(&self.dir))
        {
            tracing::warn!(dir = %self.dir.display(), %error, "failed to remove a replaced state, the next start will");
        }
    }
}

impl RocksState {
    /// Opens or makes the state below `dir`, and removes what an interrupted installation has left.
    /// `on_fatal` is called at most once, when a write or a sync has failed.
    pub fn open(dir: &Path, options: StateOptions, on_fatal: FatalHook) -> Result<RocksState, OpenError> {
        let during = |what: &str| {
            let what = format!("{what} {}", dir.display());
            move |error| OpenError::io(what, error)
        };
        std::fs::create_dir_all(dir).map_err(during("create"))?;
        let block_cache = Cache::new_lru_cache(options.block_cache_bytes);
        let found = Pointer::load(dir)?;
        let pointer = found.unwrap_or(Pointer::FIRST);
        if found.is_none() && Pointer::has_been(dir).map_err(during("read"))? {
            return Err(OpenError::corrupt(
                dir.display().to_string(),
                "it has generations but no POINTER",
            ));
        }
        let options = StateOptions {
            write_buffer_bytes: uneven(options.write_buffer_bytes, &mut rand::rng()),
            ..options
        };
        let load = Load::new();
        let mut db_options = db_options(&options, &block_cache, &load, dir);
        // Once the pointer names a generation, it exists; a missing one is damage, not a fresh start.
        db_options.create_if_missing(found.is_none());
        let generation_dir = pointer.dir(dir);
        if found.is_some() {
            framing::check(&generation_dir)?;
        }
        let db = DB::open(&db_options, &generation_dir).map_err(|error| OpenError::rocks(&generation_dir, error))?;
        if found.is_none() {
            begin(&db).map_err(|error| OpenError::rocks(&generation_dir, error))?;
            small_file::sync_tree(dir).map_err(during("sync"))?;
            pointer.save(dir).map_err(during("write the pointer of"))?;
        }
        pointer.clean(dir).map_err(during("clean"))?;
        let applied = read_applied(&db)
            .map_err(|error| OpenError::corrupt(format!("the state in {}", generation_dir.display()), error))?;
        let generation = Arc::new(Generation::new(db, pointer, applied.last, generation_dir));
        Ok(RocksState {
            shared: Arc::new(Shared {
                state_dir: dir.to_owned(),
                options,
                block_cache,
                load,
                current: RwLock::new(generation),
                changing: Mutex::new(()),
                failed: AtomicBool::new(false),
                on_fatal,
                writes: AtomicU64::new(0),
            }),
        })
    }

    pub fn stats(&self) -> StateStats {
        let current = self.current();
        let property = |name: &str| current.db.property_int_value(name).ok().flatten().unwrap_or(0);
        StateStats {
            disk_bytes: small_file::tree_bytes(&self.shared.state_dir),
            keys: property("rocksdb.estimate-num-keys"),
            memtable_bytes: property("rocksdb.cur-size-all-mem-tables"),
            block_cache_bytes: self.shared.block_cache.get_usage() as u64,
            writes: self.shared.writes.load(Ordering::Relaxed),
        }
    }

    fn current(&self) -> Arc<Generation> {
        // Nothing but an assignment happens under the lock, so a poisoned one is whole.
        self.shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A failed write or sync: nothing can be promised any more, so nothing succeeds from now on.
    fn fail(&self, what: &str, error: &rocksdb::Error) -> Fatal {
        let reason = format!("failed to {what} the state: {error}");
        if !self.shared.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(reason, "the state has failed");
            (self.shared.on_fatal)(reason.clone());
        }
        Fatal::Io(reason)
    }

    fn refuse_after_failure(&self) -> Result<(), Fatal> {
        match self.shared.failed.load(Ordering::Acquire) {
            true => Err(Fatal::Io("the state has failed before".to_owned())),
            false => Ok(()),
        }
    }
}

impl StateStore for RocksState {
    fn read<R>(&self, f: impl FnOnce(&dyn View) -> R) -> R {
        let current = self.current();
        self.shared.load.used(|| current.young_tables());
        f(&SnapshotView::new(&current.db, Some(&current.read_cache)))
    }

    fn read_once<R>(&self, f: impl FnOnce(&dyn View) -> R) -> R {
        let current = self.current();
        self.shared.load.used(|| current.young_tables());
        f(&SnapshotView::new(&current.db, None))
    }

    fn applied(&self) -> Result<Applied, Fatal> {
        self.current().applied()
    }

    fn installed(&self) -> Option<LogId> {
        self.current().pointer.installed
    }

    fn write(&self, changes: Vec<Change>, applied: &Applied) -> Result<(), Fatal> {
        self.refuse_after_failure()?;
        refuse_reserved(&changes)?;
        let changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        // Snapshots are numbered by what was written before them.
        let next = current.db.latest_sequence_number() + 1;
        current.read_cache.will_change(&changes, next);
        stall::write(&current.db, || batch_of(&changes, applied)).map_err(|error| self.fail("write", &error))?;
        current.remember_deleted(changes);
        drop(changing);
        self.shared.load.used(|| current.young_tables());
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> Result<(), Fatal> {
        self.refuse_after_failure()?;
        let current = self.current();
        let applied = current.applied()?.last;
        current.db.flush().map_err(|error| self.fail("sync", &error))?;
        current.raise_durable(applied);
        Ok(())
    }

    fn durable(&self) -> Option<LogId> {
        *self.current().durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoint(&self, dir: &Path) -> Result<Applied, Fatal> {
        let failed = |error: &dyn std::fmt::Display| Fatal::Io(format!("checkpoint to {}: {error}", dir.display()));
        if dir.exists() {
            return Err(failed(&"it exists already"));
        }
        let partial = small_file::with_suffix(dir, ".partial");
        small_file::remove_tree(&partial).map_err(|error| failed(&error))?;
        // A checkpoint that fails half-way (a full disk) must not hold on to the files that it links.
        let _cleanup = RemoveOnDrop(&partial);
        let current = self.current();
        let checkpoint = Checkpoint::new(&current.db).map_err(|error| failed(&error))?;
        // Flushes first (any other log size than 0 never does), so that it has at least what was written until now.
        checkpoint.create_checkpoint(&partial).map_err(|error| failed(&error))?;
        // What was written since it was asked for may be in it as well: it knows itself.
        let applied = read_copy(&partial).map_err(|error| failed(&error))?;
        small_file::sync_tree_except(&partial, is_table_in_use).map_err(|error| failed(&error))?;
        std::fs::rename(&partial, dir).map_err(|error| failed(&error))?;
        small_file::sync_dir(dir.parent().unwrap_or(Path::new("."))).map_err(|error| failed(&error))?;
        // The tables that it has are those of the state.
        current.raise_durable(applied.last);
        Ok(applied)
    }

    fn install(&self, dir: &Path) -> Result<Applied, Fatal> {
        self.refuse_after_failure()?;
        let failed = |error: &dyn std::fmt::Display| Fatal::Io(format!("install {}: {error}", dir.display()));
        let state_dir = &self.shared.state_dir;
        // Checked before anything is touched: a directory that is no checkpoint stays where it is.
        let applied = read_copy(dir).map_err(|error| failed(&error))?;
        small_file::sync_tree(dir).map_err(|error| failed(&error))?;

        let _changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        let pointer = Pointer {
            generation: old.pointer.generation + 1,
            installed: applied.last,
        };
        let generation_dir = pointer.dir(state_dir);
        small_file::remove_tree(&generation_dir).map_err(|error| failed(&error))?;
        std::fs::rename(dir, &generation_dir).map_err(|error| failed(&error))?;
        small_file::sync_dir(state_dir).map_err(|error| failed(&error))?;
        let mut db_options = db_options(
            &self.shared.options,
            &self.shared.block_cache,
            &self.shared.load,
            state_dir,
        );
        db_options.create_if_missing(false);
        let db = DB::open(&db_options, &generation_dir).map_err(|error| failed(&error))?;
        pointer.save(state_dir).map_err(|error| failed(&error))?;

        let new = Arc::new(Generation::new(db, pointer, applied.last, generation_dir));
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        old.removal.replaced.store(true, Ordering::Release);
        Ok(applied)
    }

    fn hash_later(&self) -> HashLater {
        let current = self.current();
        hash::on_thread(move |moment| {
            let snapshot = current.db.snapshot();
            moment.wait().then(|| hash_of(&snapshot))
        })
    }

    fn reclaim(&self) -> Result<(), Fatal> {
        self.refuse_after_failure()?;
        let _hurry = self.shared.load.hurry();
        self.current().reclaim();
        self.refuse_after_failure()
    }
}

fn hash_of(snapshot: &Snapshot<'_>) -> Result<u128, Fatal> {
    let mut options = read_options();
    options.set_iterate_lower_bound(USER_KEYS_FROM);
    // One pass over everything should not push out what is in use.
    options.fill_cache(false);
    let mut rows = snapshot.raw_iterator_opt(options);
    let mut hash = StateHash::new();
    rows.seek_to_first();
    while let Some((key, value)) = rows.item() {
        hash.add(key, value);
        rows.next();
    }
    rows.status().map_err(|error| fatal(&error))?;
    Ok(hash.finish())
}

/// A link to a table of the state, which RocksDB has synced before it took it into use. A large state has many of
/// them, and syncing all of them again would make the log's fsyncs wait.
fn is_table_in_use(file: &DirEntry) -> io::Result<bool> {
    let is_table = Path::new(&file.file_name())
        .extension()
        .is_some_and(|extension| extension == "sst");
    Ok(is_table && file.metadata()?.nlink() > 1)
}

/// Removes a directory that has not been renamed meanwhile.
struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if let Err(error) = small_file::remove_tree(self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "failed to remove an unfinished checkpoint");
        }
    }
}

impl Generation {
    /// One that was just opened: all that it has is in tables.
    fn new(db: DB, pointer: Pointer, durable: Option<LogId>, dir: PathBuf) -> Self {
        Self {
            db,
            pointer,
            read_cache: ReadCache::new(),
            durable: Mutex::new(durable),
            deleted: Mutex::default(),
            removal: Removal {
                dir,
                replaced: AtomicBool::new(false),
            },
        }
    }

    fn applied(&self) -> Result<Applied, Fatal> {
        read_applied(&self.db)
    }

    fn raise_durable(&self, upto: Option<LogId>) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        *durable = upto.max(*durable);
    }

    fn young_tables(&self) -> u64 {
        let found = self.db.property_value("rocksdb.num-files-at-level0").ok().flatten();
        found.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    fn remember_deleted(&self, changes: Vec<Change>) {
        let mut ranges = changes
            .into_iter()
            .filter_map(|change| match change {
                Change::DeleteRange { from, to } if from < to => Some((from, to)),
                _ => None,
            })
            .peekable();
        if ranges.peek().is_some() {
            self.deleted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(ranges);
        }
    }

    /// Compacts the deleted ranges that take space. Files that lie wholly inside a range could be
    /// unlinked instead (`delete_file_in_range`), but that would take the rows from snapshots that
    /// still read them: a hash, or a page of history, would silently lack them.
    fn reclaim(&self) {
        let ranges = self.deleted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut options = CompactOptions::default();
        // Otherwise no flush could be followed by a compaction meanwhile, and writes would be stalled.
        options.set_exclusive_manual_compaction(false);
        // What lies there has met what was deleted. With a filter RocksDB would write it anew all the same.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Skip);
        for (from, to) in ranges {
            // All that lies there is deleted, so this is what can be won.
            let bytes = self.db.get_approximate_sizes(&[Range::new(&from, &to)])[0];
            if bytes >= WORTHWHILE_BYTES {
                // It flushes what is in memory of the range, waits with that while writes would have to
                // wait for it, and works down level by level until deletion and rows have met.
                self.db.compact_range_opt(Some(&from), Some(&to), &options);
                tracing::debug!(bytes, "compacted a deleted range of the state");
            }
        }
    }
}

/// A new state says that nothing was applied, so that one which says nothing is damaged.
fn begin(db: &DB) -> Result<(), rocksdb::Error> {
    if db.get(applied::KEY)?.is_none() {
        stall::write(db, || batch_of(&[], &Applied::default()))?;
    }
    db.flush()
}

/// One write.
fn batch_of(changes: &[Change], applied: &Applied) -> WriteBatch {
    // Of one change, beside its key and value: a tag and two lengths. A batch that grows is copied several times.
    const OVERHEAD_BYTES: usize = 16;
    let bytes_of = |change: &Change| match change {
        Change::Put { key, value } => key.len() + value.len() + OVERHEAD_BYTES,
        Change::Delete { key } => key.len() + OVERHEAD_BYTES,
        Change::DeleteRange { from, to } => from.len() + to.len() + OVERHEAD_BYTES,
    };
    let bytes = changes.iter().map(bytes_of).sum::<usize>() + applied.membership.len() + 4 * OVERHEAD_BYTES;
    let mut batch = WriteBatch::with_capacity_bytes(bytes);
    for change in changes {
        match change {
            Change::Put { key, value } => batch.put(key, value),
            Change::Delete { key } => batch.delete(key),
            // RocksDB refuses a range that ends before it begins; for us it is empty.
            Change::DeleteRange { from, to } if from < to => batch.delete_range(from, to),
            Change::DeleteRange { .. } => {}
        }
    }
    batch.put(applied::KEY, applied::encode(applied));
    batch
}

/// What a checkpoint says that it contains. It has tables only, and stays as it is.
fn read_copy(dir: &Path) -> Result<Applied, Fatal> {
    let db = DB::open_for_read_only(&copy_options(), dir, false).map_err(|error| fatal(&error))?;
    read_applied(&db)
}

fn read_applied(db: &DB) -> Result<Applied, Fatal> {
    match db.get(applied::KEY).map_err(|error| fatal(&error))? {
        Some(value) => applied::decode(&value),
        None => Err(Fatal::Corrupt(
            "the state does not say what was applied to it".to_owned(),
        )),
    }
}

pub(super) fn fatal(error: &rocksdb::Error) -> Fatal {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => Fatal::Corrupt(error.to_string()),
        _ => Fatal::Io(error.to_string()),
    }
}

/// What apply and query see. What lies in memory is read at once, and what must be read from a file is read aside: a
/// node has a thread or two for all that it does, and a disk may take its time.
struct SnapshotView<'a> {
    db: &'a DB,
    /// Of `snapshot`, for all lookups in memory. Before it: fields are dropped in this order.
    options: ReadOptions,
    snapshot: Snapshot<'a>,
    cache: Option<ReadCacheAt<'a>>,
}

/// Pairs that are visited one after the other.
struct Visit<'a, 'v> {
    from: Vec<u8>,
    to: Vec<u8>,
    reverse: bool,
    /// How many are still wanted.
    limit: usize,
    visit: &'a mut Visitor<'v>,
}

enum Walked {
    ToTheEnd,
    /// What comes next is on the disk only.
    ToTheDisk,
}

impl<'a> SnapshotView<'a> {
    fn new(db: &'a DB, cache: Option<&'a ReadCache>) -> Self {
        let snapshot = db.snapshot();
        let options = options_at(&snapshot, ReadTier::BlockCache);
        let cache = cache.map(|cache| cache.at(snapshot.sequence_number()));
        Self {
            db,
            options,
            snapshot,
            cache,
        }
    }

    fn find(&self, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        match self.db.get_pinned_opt(key, &self.options) {
            Err(error) if is_on_disk_only(&error) => aside(|| {
                let options = options_at(&self.snapshot, ReadTier::All);
                self.db.get_pinned_opt(key, &options)
            }),
            found => found,
        }
    }

    /// Visits what is left, as far as it lies in this tier; what is left then begins behind what was visited.
    fn walk(&self, left: &mut Visit<'_, '_>, tier: ReadTier) -> Result<Walked, Fatal> {
        let mut options = options_at(&self.snapshot, tier);
        options.set_iterate_lower_bound(left.from.as_slice());
        options.set_iterate_upper_bound(left.to.as_slice());
        let mut rows = self.db.raw_iterator_opt(options);
        match left.reverse {
            false => rows.seek_to_first(),
            true => rows.seek_to_last(),
        }
        let mut last = None;
        while let Some((key, value)) = rows.item() {
            (left.visit)(key, value)?;
            left.limit -= 1;
            // The row behind the last one may lie in another block.
            if left.limit == 0 {
                return Ok(Walked::ToTheEnd);
            }
            let last = last.get_or_insert_with(Vec::new);
            last.clear();
            last.extend_from_slice(key);
            match left.reverse {
                false => rows.next(),
                true => rows.prev(),
            }
        }
        match (last, left.reverse) {
            (None, _) => {}
            (Some(last), false) => left.from = successor(&last),
            (Some(last), true) => left.to = last,
        }
        match rows.status() {
            Ok(()) => Ok(Walked::ToTheEnd),
            Err(error) if is_on_disk_only(&error) => Ok(Walked::ToTheDisk),
            Err(error) => Err(fatal(&error)),
        }
    }
}

fn options_at(snapshot: &Snapshot<'_>, tier: ReadTier) -> ReadOptions {
    let mut options = read_options();
    options.set_snapshot(snapshot);
    options.set_read_tier(tier);
    options
}

/// Whether it was asked for what lies in memory, and there is more on the disk.
fn is_on_disk_only(error: &rocksdb::Error) -> bool {
    error.kind() == rocksdb::ErrorKind::Incomplete
}

impl View for SnapshotView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        let mut found = None;
        self.look(key, &mut |value| {
            found = Some(value.to_vec());
            Ok(())
        })?;
        Ok(found)
    }

    fn look(&self, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<(), Fatal>) -> Result<bool, Fatal> {
        if key < USER_KEYS_FROM {
            return Ok(false);
        }
        let mut show = |value: Option<&[u8]>| value.map_or(Ok(false), |value| look(value).map(|()| true));
        if let Some(known) = self.cache.as_ref().and_then(|cache| cache.get(key)) {
            return show(known.as_deref());
        }
        let found = self.find(key).map_err(|error| fatal(&error))?;
        if let Some(cache) = &self.cache {
            cache.keep(key, found.as_deref());
        }
        show(found.as_deref())
    }

    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal> {
        let from = from.max(USER_KEYS_FROM);
        if from >= to || limit == 0 {
            return Ok(());
        }
        let mut left = Visit {
            from: from.to_vec(),
            to: to.to_vec(),
            reverse,
            limit,
            visit,
        };
        if let Walked::ToTheDisk = self.walk(&mut left, ReadTier::BlockCache)? {
            aside(|| self.walk(&mut left, ReadTier::All))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
