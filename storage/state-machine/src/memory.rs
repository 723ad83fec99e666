//! A state in memory: the twin of RocksDB in fast tests and in the simulation; and the hash by
//! which replicas are compared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::rejection::Fatal;
use crate::view::{Change, Pair, View, Visitor, successor};

type Pairs = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// A state that can be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pairs: Arc<Pairs>,
}

/// A state as it was when the snapshot was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryView {
    pairs: Arc<Pairs>,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the changes in their order. While a snapshot lives, the first write after it copies
    /// the tree of pointers, but no key and no value.
    pub fn write(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let pairs = Arc::make_mut(&mut self.pairs);
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    pairs.insert(key.into(), value.into());
                }
                Change::Delete { key } => {
                    pairs.remove(key.as_slice());
                }
                Change::DeleteRange { from, to } => {
                    let dead: Vec<Arc<[u8]>> = range(pairs, &from, &to).map(|(key, _)| Arc::clone(key)).collect();
                    for key in dead {
                        pairs.remove(&key);
                    }
                }
            }
        }
    }

    /// The state as it is now; costs nothing but a pointer.
    pub fn snapshot(&self) -> MemoryView {
        MemoryView {
            pairs: Arc::clone(&self.pairs),
        }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl MemoryView {
    /// A state that goes on from this one, as a node does after it has installed a snapshot.
    pub fn restore(&self) -> Memory {
        Memory {
            pairs: Arc::clone(&self.pairs),
        }
    }

    /// All pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref()))
    }
}

impl FromIterator<Pair> for MemoryView {
    fn from_iter<I: IntoIterator<Item = Pair>>(pairs: I) -> Self {
        let pairs: Pairs = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        Self { pairs: Arc::new(pairs) }
    }
}

impl View for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        Ok(self.pairs.get(key).map(|value| value.to_vec()))
    }

    fn look(&self, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<(), Fatal>) -> Result<bool, Fatal> {
        let value = self.pairs.get(key);
        value.map_or(Ok(false), |value| look(value).map(|()| true))
    }

    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal> {
        self::visit(&self.pairs, from, to, reverse, limit, visit)
    }
}

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        Ok(self.pairs.get(key).map(|value| value.to_vec()))
    }

    fn look(&self, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<(), Fatal>) -> Result<bool, Fatal> {
        let value = self.pairs.get(key);
        value.map_or(Ok(false), |value| look(value).map(|()| true))
    }

    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal> {
        self::visit(&self.pairs, from, to, reverse, limit, visit)
    }
}

fn visit(
    pairs: &Pairs,
    from: &[u8],
    to: &[u8],
    reverse: bool,
    limit: usize,
    visit: &mut Visitor<'_>,
) -> Result<(), Fatal> {
    let mut visit = |(key, value): (&Arc<[u8]>, &Arc<[u8]>)| visit(key, value);
    if reverse {
        range(pairs, from, to).rev().take(limit).try_for_each(&mut visit)
    } else {
        range(pairs, from, to).take(limit).try_for_each(&mut visit)
    }
}

/// The pairs with `from <= key < to`; none when the bounds are crossed.
fn range<'a>(
    pairs: &'a Pairs,
    from: &[u8],
    to: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Arc<[u8]>, &'a Arc<[u8]>)> + use<'a> {
    let to = to.max(from);
    pairs.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}

/// Pairs that the hash reads at a time: bounds its memory, not its result.
const HASH_PAGE: usize = 1000;

/// XXH3-128 over all pairs of every space in key order, each with its lengths: equal on replicas
/// that applied the same log.
pub fn state_hash<V: View + ?Sized>(view: &V) -> Result<u128, Fatal> {
    // Above every key: keys begin with a space id, and the largest is never given.
    let end = [0xff; 4];
    let mut from = Vec::new();
    let mut hash = Xxh3::new();
    loop {
        let page = view.scan(&from, &end, false, HASH_PAGE)?;
        for (key, value) in &page {
            hash.update(&(key.len() as u64).to_le_bytes());
            hash.update(key);
            hash.update(&(value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        match page.last() {
            Some((last, _)) if page.len() == HASH_PAGE => from = successor(last),
            _ => return Ok(hash.digest128()),
        }
    }
}
