//! The shared book of what is broken: who breaks something writes it down first, and does not begin where
//! the book says that it would be too much.
//!
//! Two things are kept apart. A *claim* says that somebody is at work on a node's process or disk, so that
//! nobody else starts, kills or damages it meanwhile; it ends with whoever holds it. *Damage* says that a
//! node's disk may have lost what it had confirmed; it ends only when the node is no member any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::cluster::Process;

/// Of one cluster. All who break it share it.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Held to look something up or to write something down, never across an await.
    pages: Arc<Mutex<Pages>>,
    /// Held during a change of the membership: the cluster takes one at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Pages {
    /// Of nodes, and whether they may end by themselves.
    claims: BTreeMap<u64, Ends>,
    /// Kinds of faults of which there can be only one at a time.
    kinds: BTreeSet<&'static str>,
    damaged: BTreeSet<u64>,
    mends: JoinSet<Result<()>>,
    /// Nodes that ended although nobody had broken them, in words.
    unexpected: BTreeMap<u64, String>,
    /// Panics in the nodes' logs, and how far each log has been looked through.
    panics: Vec<String>,
    looked_through: BTreeMap<u64, u64>,
    /// Nodes that showed a state that damage had made wrong, in words.
    served_damage: Vec<String>,
}

/// What the end of a claimed node's process means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Whoever holds the claim has ended it, or does not mind.
    AreMeant,
    /// It is to live through this.
    AreDefects,
}

/// That somebody is at work on these nodes.
#[derive(Debug)]
pub(crate) struct Claim {
    book: Book,
    ids: Vec<u64>,
}

/// That a fault of this kind is on.
#[derive(Debug)]
pub(crate) struct Only {
    book: Book,
    kind: &'static str,
}

pub(crate) type Change = tokio::sync::OwnedMutexGuard<()>;

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("no holder of this lock panics")
    }

    /// All of these nodes, or none.
    pub(crate) fn claim(&self, ids: &[u64], ends: Ends) -> Option<Claim> {
        let mut pages = self.pages();
        if ids.is_empty() || ids.iter().any(|id| pages.claims.contains_key(id)) {
            return None;
        }
        pages.claims.extend(ids.iter().map(|id| (*id, ends)));
        Some(Claim {
            book: self.clone(),
            ids: ids.to_vec(),
        })
    }

    /// Of these, the nodes at which nobody is at work.
    pub(crate) fn unclaimed(&self, ids: Vec<u64>) -> Vec<u64> {
        let pages = self.pages();
        ids.into_iter().filter(|id| !pages.claims.contains_key(id)).collect()
    }

    fn ends_are_meant(&self, id: u64) -> bool {
        self.pages().claims.get(&id) == Some(&Ends::AreMeant)
    }

    /// None: a fault of this kind is on already.
    pub(crate) fn only(&self, kind: &'static str) -> Option<Only> {
        let first = self.pages().kinds.insert(kind);
        first.then(|| Only {
            book: self.clone(),
            kind,
        })
    }

    /// The right to change the membership. None: somebody changes it, or a node waits for its replacement.
    pub(crate) fn try_change(&self) -> Option<Change> {
        let change = self.changing.clone().try_lock_owned().ok()?;
        self.pages().damaged.is_empty().then_some(change)
    }

    /// Waits for the right to change the membership.
    pub(crate) async fn change(&self) -> Change {
        self.changing.clone().lock_owned().await
    }

    /// Writes down that the disk of `id`, one of `voters`, is about to be damaged. False: that would be one too
    /// many, or the voters are about to be others.
    pub(crate) fn damage(&self, id: u64, voters: usize) -> bool {
        let mut pages = self.pages();
        // A change that is under way without damage changes who the voters are; replacements wait for each other.
        let others_change = pages.damaged.is_empty() && self.changing.try_lock().is_err();
        let minority = (voters.saturating_sub(1)) / 2;
        if others_change || pages.damaged.len() >= minority {
            return false;
        }
        pages.damaged.insert(id)
    }

    /// The damaged node is no member any more.
    pub(crate) fn replaced(&self, id: u64) {
        self.pages().damaged.remove(&id);
    }

    pub(crate) fn damaged(&self) -> Vec<u64> {
        self.pages().damaged.iter().copied().collect()
    }

    /// Has this go on by itself; who ends everything waits for it.
    pub(crate) fn mend(&self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.pages().mends.spawn(work);
    }

    /// What was given to [`Book::mend`].
    pub(crate) fn take_mends(&self) -> JoinSet<Result<()>> {
        std::mem::take(&mut self.pages().mends)
    }

    /// Writes down that the node's process is found ended, unless its end was meant. The words come from `told`.
    pub(crate) fn ended(&self, id: u64, told: impl FnOnce() -> Option<String>) {
        if self.ends_are_meant(id) || self.pages().unexpected.contains_key(&id) {
            return;
        }
        if let Some(told) = told() {
            self.pages().unexpected.insert(id, told);
        }
    }

    /// Looks for panics in what the node has logged since the last look.
    pub(crate) fn look_for_panics(&self, id: u64, process: &Process) {
        let before = self.pages().looked_through.get(&id).copied().unwrap_or_default();
        let log = process.log_since(before);
        // What comes after the last line is looked at when the line is whole.
        let whole = log.rfind('\n').map_or(0, |end| end + 1);
        let mut pages = self.pages();
        pages.looked_through.insert(id, before + whole as u64);
        let panics = log[..whole].lines().filter(|line| line.contains("panicked"));
        pages
            .panics
            .extend(panics.map(|line| format!("node {id} had a panic: {line}")));
    }

    /// Writes down that a node has served what damage had made wrong: it must refuse, or end.
    pub(crate) fn serves_damage(&self, told: String) {
        self.pages().served_damage.push(told);
    }

    /// All that must not happen whatever is broken: each fails a run.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        let pages = self.pages();
        let found = pages.unexpected.values().chain(&pages.panics);
        found.chain(&pages.served_damage).cloned().collect()
    }
}

impl Claim {
    pub(crate) fn ids(&self) -> &[u64] {
        &self.ids
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut pages = self.book.pages();
        for id in &self.ids {
            pages.claims.remove(id);
        }
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        self.book.pages().kinds.remove(self.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_claimed_by_one_at_a_time() {
        let book = Book::default();
        let claim = book.claim(&[1, 2], Ends::AreMeant).expect("nobody has them");
        assert!(book.claim(&[2, 3], Ends::AreMeant).is_none());
        assert_eq!(book.unclaimed(vec![1, 2, 3]), [3]);
        drop(claim);
        assert!(book.claim(&[2, 3], Ends::AreMeant).is_some());
    }

    #[test]
    fn only_a_minority_is_damaged_and_until_it_is_replaced_nobody_else_leaves() {
        let book = Book::default();
        assert!(book.damage(1, 5) && book.damage(2, 5));
        assert!(!book.damage(3, 5), "three of five");
        assert!(book.try_change().is_none());
        book.replaced(1);
        assert!(book.damage(3, 5));
        book.replaced(2);
        book.replaced(3);
        let change = book.try_change().expect("all disks are whole");
        assert!(!book.damage(4, 5), "the voters are about to be others");
        drop(change);
        assert!(!book.damage(4, 2), "half of two");
        assert!(book.damage(4, 3));
    }

    #[test]
    fn an_end_counts_unless_it_was_meant() {
        let book = Book::default();
        let claim = book.claim(&[1], Ends::AreMeant).expect("nobody has it");
        book.ended(1, || Some("one".into()));
        assert!(book.unexpected().is_empty());
        drop(claim);
        book.ended(1, || Some("one".into()));
        book.ended(2, || None);
        assert_eq!(book.unexpected(), ["one"]);
        book.serves_damage("node 3 serves damaged data".into());
        assert_eq!(book.unexpected(), ["one", "node 3 serves damaged data"]);
    }
}
