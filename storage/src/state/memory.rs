//! The state in memory: the twin of [`super::RocksState`] in fast tests and in the simulation.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use quorate_state_machine::view::Visitor;
use quorate_state_machine::{Change, Fatal, View};

use super::hash::StateHash;
use super::{Applied, HashLater, StateStore, USER_KEYS_FROM, applied, refuse_reserved};
use crate::log::LogId;
use crate::small_file;

/// Writes after which the twin syncs by itself, as RocksDB does when a memtable is full, so that the
/// journal has a bound.
const JOURNAL_WRITES_MAX: usize = 4096;

/// The one file of a checkpoint.
const FILE: &str = "state";

#[derive(Debug, Clone, Default)]
struct Image {
    /// Shared with copies of it, up to the next change.
    rows: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    applied: Applied,
    installed: Option<LogId>,
}

impl Image {
    fn apply(&mut self, changes: Vec<Change>, applied: Applied) {
        let rows = Arc::make_mut(&mut self.rows);
        for change in changes {
            match change {
                Change::Put { key, value } => drop(rows.insert(key, value)),
                Change::Delete { key } => drop(rows.remove(&key)),
                Change::DeleteRange { from, to } if from < to => {
                    let doomed: Vec<_> = rows.range(from..to).map(|(key, _)| key.clone()).collect();
                    doomed.iter().for_each(|key| drop(rows.remove(key)));
                }
                Change::DeleteRange { .. } => {}
            }
        }
        self.applied = applied;
    }
}

#[derive(Default)]
struct Inner {
    readable: Image,
    durable: Image,
    /// What separates the two.
    journal: Vec<(Vec<Change>, Applied)>,
}

impl Inner {
    fn sync(&mut self) {
        for (changes, applied) in self.journal.drain(..) {
            self.durable.apply(changes, applied);
        }
    }
}

/// A handle of the state.
#[derive(Clone, Default)]
pub struct MemoryState {
    /// Readers share it for as long as they read. A panic under it cannot leave it half written:
    /// only allocation could fail in [`Image::apply`]. Never held across an await.
    inner: Arc<RwLock<Inner>>,
}

impl MemoryState {
    pub fn new() -> Self {
        Self::default()
    }

    /// The state as a restarted process may find it at worst: without what was not synced.
    pub fn crash(&self) -> MemoryState {
        self.crash_keeping(0)
    }

    /// Writes that were not synced, so that a crash may lose them.
    pub fn unsynced(&self) -> usize {
        self.shared().journal.len()
    }

    /// The same, but the first of the writes that were not synced had reached the disk.
    pub fn crash_keeping(&self, writes: usize) -> MemoryState {
        let mut durable = self.shared().durable.clone();
        for (changes, applied) in self.shared().journal.iter().take(writes) {
            durable.apply(changes.clone(), applied.clone());
        }
        let inner = Inner {
            readable: durable.clone(),
            durable,
            journal: Vec::new(),
        };
        MemoryState {
            inner: Arc::new(RwLock::new(inner)),
        }
    }

    fn shared(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryState {
    fn read<R>(&self, f: impl FnOnce(&dyn View) -> R) -> R {
        f(&self.shared().readable)
    }

    fn applied(&self) -> Result<Applied, Fatal> {
        Ok(self.shared().readable.applied.clone())
    }

    fn installed(&self) -> Option<LogId> {
        self.shared().readable.installed
    }

    fn write(&self, changes: Vec<Change>, applied: &Applied) -> Result<(), Fatal> {
        refuse_reserved(&changes)?;
        let mut inner = self.alone();
        inner.readable.apply(changes.clone(), applied.clone());
        inner.journal.push((changes, applied.clone()));
        if inner.journal.len() > JOURNAL_WRITES_MAX {
            inner.sync();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Fatal> {
        self.alone().sync();
        Ok(())
    }

    fn durable(&self) -> Option<LogId> {
        self.shared().durable.applied.last
    }

    fn checkpoint(&self, dir: &Path) -> Result<Applied, Fatal> {
        self.alone().sync();
        let image = self.shared().readable.clone();
        save(dir, &image).map_err(|error| Fatal::Io(format!("checkpoint to {}: {error}", dir.display())))?;
        Ok(image.applied)
    }

    fn install(&self, dir: &Path) -> Result<Applied, Fatal> {
        let mut image = load(dir).map_err(|error| Fatal::Io(format!("install {}: {error}", dir.display())))?;
        image.installed = image.applied.last;
        small_file::remove_tree(dir).map_err(|error| Fatal::Io(error.to_string()))?;
        let applied = image.applied.clone();
        *self.alone() = Inner {
            readable: image.clone(),
            durable: image,
            journal: Vec::new(),
        };
        Ok(applied)
    }

    fn hash_later(&self) -> HashLater {
        let rows = self.shared().readable.rows.clone();
        Box::new(move || {
            let mut hash = StateHash::new();
            rows.iter().for_each(|(key, value)| hash.add(key, value));
            Ok(hash.finish())
        })
    }

    /// Nothing stays of what was deleted.
    fn reclaim(&self) -> Result<(), Fatal> {
        Ok(())
    }
}

impl View for Image {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        Ok(self.rows.get(key).cloned())
    }

    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal> {
        let from = from.max(USER_KEYS_FROM);
        if from >= to {
            return Ok(());
        }
        let range = self
            .rows
            .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
        let mut visit = |(key, value): (&Vec<u8>, &Vec<u8>)| visit(key, value);
        match reverse {
            false => range.take(limit).try_for_each(&mut visit),
            true => range.rev().take(limit).try_for_each(&mut visit),
        }
    }
}

/// Length-prefixed strings: `Applied`, then keys and values in turn; a checksum at the end.
fn save(dir: &Path, image: &Image) -> std::io::Result<()> {
    std::fs::create_dir(dir)?;
    let mut bytes = Vec::new();
    let mut push = |part: &[u8]| {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    };
    push(&applied::encode(&image.applied));
    for (key, value) in image.rows.iter() {
        push(key);
        push(value);
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    let mut file = std::fs::File::create_new(dir.join(FILE))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

fn load(dir: &Path) -> std::io::Result<Image> {
    let damaged = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
    let mut bytes = Vec::new();
    std::fs::File::open(dir.join(FILE))?.read_to_end(&mut bytes)?;
    let whole = bytes
        .split_last_chunk::<4>()
        .filter(|(body, sum)| crc32fast::hash(body).to_be_bytes() == **sum);
    let Some((mut rest, _)) = whole else {
        return Err(damaged("its checksum is wrong".to_owned()));
    };
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let length = u64::from_be_bytes(*length) as usize;
        let Some((part, after)) = after.split_at_checked(length) else {
            return Err(damaged("it is cut".to_owned()));
        };
        parts.push(part.to_vec());
        rest = after;
    }
    let mut parts = parts.into_iter();
    let first = parts.next().ok_or_else(|| damaged("it is empty".to_owned()))?;
    let applied = applied::decode(&first).map_err(|error| damaged(error.to_string()))?;
    let mut rows = BTreeMap::new();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        rows.insert(key, value);
    }
    Ok(Image {
        rows: Arc::new(rows),
        applied,
        installed: None,
    })
}
