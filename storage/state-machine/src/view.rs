//! The keys and values that apply reads and writes, wherever they lie: RocksDB, memory, or a
//! snapshot of either; and [`Overlay`], the writes of one entry on top of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::rejection::Fatal;
use crate::row_cache::RowCache;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What is done with a pair where it lies, without a copy of it. An error ends the visit, and is what the visit
/// ends with.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Fatal> + 'a;

/// A read-only, consistent view of the state.
pub trait View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal>;

    /// Shows the value to `look`, where it lies. False: there is none. `look` must not ask the view for anything: it may be in
    /// the midst of its own.
    fn look(&self, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<(), Fatal>) -> Result<bool, Fatal> {
        match self.get(key)? {
            Some(value) => look(&value).map(|()| true),
            None => Ok(false),
        }
    }

    /// Shows at most `limit` pairs with `from <= key < to` to `visit`, ascending, or descending when `reverse`.
    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal>;

    /// The same pairs, copied.
    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize) -> Result<Vec<Pair>, Fatal> {
        let mut pairs = Vec::new();
        self.visit(from, to, reverse, limit, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(pairs)
    }
}

macro_rules! view_through {
    ($($pointer:ty),*) => {$(
        impl<T: View + ?Sized> View for $pointer {
            fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
                (**self).get(key)
            }

            fn look(&self, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<(), Fatal>) -> Result<bool, Fatal> {
                (**self).look(key, look)
            }

            fn visit(
                &self,
                from: &[u8],
                to: &[u8],
                reverse: bool,
                limit: usize,
                visit: &mut Visitor<'_>,
            ) -> Result<(), Fatal> {
                (**self).visit(from, to, reverse, limit, visit)
            }

            fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize) -> Result<Vec<Pair>, Fatal> {
                (**self).scan(from, to, reverse, limit)
            }
        }
    )*};
}

view_through!(&T, Box<T>, Arc<T>);

/// One change to the stored state, in the order in which it must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Deletes `from <= key < to`.
    DeleteRange {
        from: Vec<u8>,
        to: Vec<u8>,
    },
}

/// A view with writes on top. Apply reads what earlier commands of the same entry wrote, and a
/// refused command is rolled back to its savepoint.
///
/// Invariant: `writes` holds the last write of each key, and no deletion that a range covers; a
/// write older than a range that covers it is dropped. So the ranges can be written first.
#[derive(Debug)]
pub struct Overlay<V> {
    base: V,
    /// None: deleted.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Ranges of the base that are deleted, from (included) to (excluded). They do not overlap.
    ranges: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How to take back what was written since the outermost open savepoint, newest last.
    undo: Vec<Undo>,
    /// How many savepoints are open. Without any, nothing is noted in `undo`.
    open: usize,
    /// What the base answered. Never stale, because the base does not change.
    cache: RefCell<RowCache>,
}

#[derive(Debug)]
enum Undo {
    /// `previous` is what `writes` held for the key.
    Write {
        key: Vec<u8>,
        previous: Option<Option<Vec<u8>>>,
    },
    /// `from` is the range that came, `replaced` those that it swallowed.
    Range {
        from: Vec<u8>,
        replaced: Vec<(Vec<u8>, Vec<u8>)>,
    },
}

/// Where to roll back to. Savepoints end in the reverse order of their making; the end of one ends
/// those inside it.
#[derive(Debug)]
#[must_use = "end it with rollback or release"]
pub struct Savepoint {
    undo: usize,
    outer: usize,
}

impl<V: View> Overlay<V> {
    pub fn new(base: V) -> Self {
        Self::with_cache(base, RowCache::default())
    }

    /// With what is known of the base already.
    pub fn with_cache(base: V, cache: RowCache) -> Self {
        Self {
            base,
            writes: BTreeMap::new(),
            ranges: BTreeMap::new(),
            undo: Vec::new(),
            open: 0,
            cache: RefCell::new(cache),
        }
    }

    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.write(key, Some(Some(value)));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        let covered = self.covering_range(&key).is_some();
        self.write(key, if covered { None } else { Some(None) });
    }

    /// Deletes `from <= key < to`, at a cost that does not depend on what the base holds there.
    pub fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        if from >= to {
            return;
        }
        let covered: Vec<Vec<u8>> = self
            .writes
            .range::<[u8], _>(span(&from, &to))
            .map(|(key, _)| key.clone())
            .collect();
        for key in covered {
            self.write(key, None);
        }
        let replaced: Vec<(Vec<u8>, Vec<u8>)> = self
            .ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(to.as_slice())))
            .rev()
            .take_while(|(_, other_to)| **other_to > from)
            .map(|(other_from, other_to)| (other_from.clone(), other_to.clone()))
            .collect();
        let (mut from, mut to) = (from, to);
        for (other_from, other_to) in &replaced {
            self.ranges.remove(other_from);
            from = from.min(other_from.clone());
            to = to.max(other_to.clone());
        }
        self.ranges.insert(from.clone(), to);
        if self.open > 0 {
            self.undo.push(Undo::Range { from, replaced });
        }
    }

    /// Like `get`, without remembering the base's answer: for rows that are read once.
    pub fn get_once(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        match self.written(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    pub fn savepoint(&mut self) -> Savepoint {
        let savepoint = Savepoint {
            undo: self.undo.len(),
            outer: self.open,
        };
        self.open += 1;
        savepoint
    }

    /// Takes back all that was written since the savepoint.
    pub fn rollback(&mut self, savepoint: Savepoint) {
        assert!(savepoint.outer < self.open, "the savepoint has ended");
        for undo in self.undo.drain(savepoint.undo..).rev() {
            match undo {
                Undo::Write {
                    key,
                    previous: Some(value),
                } => {
                    self.writes.insert(key, value);
                }
                Undo::Write { key, previous: None } => {
                    self.writes.remove(&key);
                }
                Undo::Range { from, replaced } => {
                    self.ranges.remove(&from);
                    self.ranges.extend(replaced);
                }
            }
        }
        self.open = savepoint.outer;
    }

    /// Keeps what was written since the savepoint. Inside an outer savepoint it can still be
    /// taken back by that one.
    pub fn release(&mut self, savepoint: Savepoint) {
        assert!(savepoint.outer < self.open, "the savepoint has ended");
        self.open = savepoint.outer;
        if self.open == 0 {
            self.undo.clear();
        }
    }

    /// Nothing was written.
    pub fn is_clean(&self) -> bool {
        self.writes.is_empty() && self.ranges.is_empty()
    }

    /// The changes to write, in order, as one atomic batch: the ranges first, then one change for
    /// each key that was written, in key order.
    pub fn into_changes(self) -> Vec<Change> {
        self.into_changes_and_cache().0
    }

    /// The same, and what is known of the base after they are written.
    pub fn into_changes_and_cache(self) -> (Vec<Change>, RowCache) {
        let ranges = self
            .ranges
            .into_iter()
            .map(|(from, to)| Change::DeleteRange { from, to });
        let writes = self.writes.into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        });
        let changes: Vec<Change> = ranges.chain(writes).collect();
        let mut cache = self.cache.into_inner();
        cache.follow(&changes);
        (changes, cache)
    }

    /// Sets what `writes` holds for the key (None: nothing) and notes how to take it back.
    fn write(&mut self, key: Vec<u8>, value: Option<Option<Vec<u8>>>) {
        let noted = (self.open > 0).then(|| key.clone());
        let previous = match value {
            Some(value) => self.writes.insert(key, value),
            None => self.writes.remove(&key),
        };
        self.undo.extend(noted.map(|key| Undo::Write { key, previous }));
    }

    /// What was written for the key: a value, or its deletion. None: ask the base.
    fn written(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        match self.writes.get(key) {
            Some(value) => Some(value),
            None if self.covering_range(key).is_some() => Some(&None),
            None => None,
        }
    }

    fn covering_range(&self, key: &[u8]) -> Option<(&Vec<u8>, &Vec<u8>)> {
        let (from, to) = self
            .ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        (key < to.as_slice()).then_some((from, to))
    }
}

impl<V: View> View for Overlay<V> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        let mut found = None;
        self.look(key, &mut |value| {
            found = Some(value.to_vec());
            Ok(())
        })?;
        Ok(found)
    }

    fn look(&self, key: &[u8], look: &mut dyn FnMut(&[u8]) -> Result<(), Fatal>) -> Result<bool, Fatal> {
        let mut show = |value: &Option<Vec<u8>>| match value {
            Some(value) => look(value).map(|()| true),
            None => Ok(false),
        };
        if let Some(value) = self.written(key) {
            return show(value);
        }
        if let Some(value) = self.cache.borrow().get(key) {
            return show(value);
        }
        let value = self.base.get(key)?;
        self.cache.borrow_mut().remember(key, &value);
        show(&value)
    }

    /// Apply reads few pairs, and keeps them: they are merged as copies.
    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal> {
        let pairs = self.scan(from, to, reverse, limit)?;
        pairs.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize) -> Result<Vec<Pair>, Fatal> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let written = self.writes.range::<[u8], _>(span(from, to));
        let written: Box<dyn Iterator<Item = Written<'_>>> = if reverse {
            Box::new(written.rev())
        } else {
            Box::new(written)
        };
        let mut merge = Merge {
            written: written.peekable(),
            pairs: Vec::new(),
            reverse,
            limit,
        };

        // The part of the base that is still to be read.
        let (mut from, mut to) = (from.to_vec(), to.to_vec());
        while !merge.full() && from < to {
            let wanted = limit - merge.pairs.len();
            let chunk = self.base.scan(&from, &to, reverse, wanted)?;
            let Some((last, _)) = chunk.last() else { break };
            let exhausted = chunk.len() < wanted;
            // Continue behind the last key, and behind the deleted range that it lies in, so that
            // the scan does not wade through the dead.
            let range = self.covering_range(last);
            match (reverse, range) {
                (false, None) => from = successor(last),
                (false, Some((_, range_to))) => from.clone_from(range_to),
                (true, None) => to.clone_from(last),
                (true, Some((range_from, _))) => to.clone_from(range_from),
            }
            for (key, value) in chunk {
                let hidden = self.covering_range(&key).is_some();
                merge.base(key, value, hidden);
            }
            if exhausted {
                break;
            }
        }
        merge.rest();
        Ok(merge.pairs)
    }
}

/// A key and what was written for it; none is its deletion.
type Written<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

/// Merges the base's pairs with the written ones, in the order of the scan.
struct Merge<'a, I: Iterator<Item = Written<'a>>> {
    written: std::iter::Peekable<I>,
    pairs: Vec<Pair>,
    reverse: bool,
    limit: usize,
}

impl<'a, I: Iterator<Item = Written<'a>>> Merge<'a, I> {
    fn full(&self) -> bool {
        self.pairs.len() >= self.limit
    }

    /// Adds one pair of the base, after the written ones that come before it.
    fn base(&mut self, key: Vec<u8>, value: Vec<u8>, hidden: bool) {
        while let Some((written, _)) = self.written.peek() {
            let earlier = if self.reverse { **written > key } else { **written < key };
            if !earlier {
                break;
            }
            self.take_written();
        }
        if self.written.peek().is_some_and(|(written, _)| **written == key) {
            self.take_written();
        } else if !hidden && !self.full() {
            self.pairs.push((key, value));
        }
    }

    /// Adds the written pairs that are left.
    fn rest(&mut self) {
        while !self.full() && self.written.peek().is_some() {
            self.take_written();
        }
    }

    fn take_written(&mut self) {
        if let Some((key, Some(value))) = self.written.next()
            && self.pairs.len() < self.limit
        {
            self.pairs.push((key.clone(), value.clone()));
        }
    }
}

fn span<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}

/// The smallest key above this one.
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}
