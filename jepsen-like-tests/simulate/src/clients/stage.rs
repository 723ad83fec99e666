//! What all clients of a simulation share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quorate_torture::history::{Entry, History, Kind, Process};

use super::rooms::{Acknowledged, Unfinished};
use crate::node::lock;

pub(crate) struct Stage {
    pub(crate) history: History,
    stopping: AtomicBool,
    /// Makes every text and every owner of a lock unique.
    names: AtomicU64,
    writes: AtomicU64,
    reads: AtomicU64,
    /// All of them held for a look or a change, never across an await.
    pub(super) unfinished: Mutex<VecDeque<Unfinished>>,
    pub(super) acknowledged: Mutex<VecDeque<Acknowledged>>,
    /// Messages that are followed and whose send was acknowledged, by seq.
    pub(super) told: Mutex<Vec<u64>>,
    /// The greatest token that the resource guarded by each lock has seen, and how many writes it took.
    pub(super) fences: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    violations: Mutex<Vec<String>>,
}

impl Stage {
    pub(crate) fn new(history: History) -> Arc<Self> {
        Arc::new(Self {
            history,
            stopping: AtomicBool::new(false),
            names: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            unfinished: Mutex::default(),
            acknowledged: Mutex::default(),
            told: Mutex::default(),
            fences: Mutex::default(),
            violations: Mutex::default(),
        })
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Writes that the cluster has answered: they are committed, though some are refusals.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Writes and reads that the cluster has answered.
    pub(crate) fn answered(&self) -> u64 {
        self.writes() + self.reads.load(Ordering::Relaxed)
    }

    pub(super) fn count_write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn new_name(&self) -> String {
        format!("m{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Answers that no checker of histories would see to be wrong.
    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    pub(super) fn violation(&self, what: String) {
        lock(&self.violations).push(what);
    }

    /// Notes the beginning of an operation by a client of its own.
    pub(crate) fn begin(&self, f: &'static str, entry: Entry) -> Operation<'_> {
        let process = self.history.new_client();
        let (key, node) = (entry.key.clone(), entry.node);
        self.history.record(process, Kind::Invoke, f, entry);
        Operation {
            stage: self,
            process,
            f,
            key,
            node,
        }
    }
}

/// An operation that has begun. One that is dropped without an end has none: its outcome is unknown.
pub(crate) struct Operation<'a> {
    stage: &'a Stage,
    pub(super) process: Process,
    f: &'static str,
    key: Option<String>,
    node: Option<u64>,
}

impl Operation<'_> {
    pub(crate) fn ok(self, entry: Entry) {
        self.end(Kind::Ok, entry);
    }

    /// It certainly did not happen.
    pub(super) fn fail(self, entry: Entry) {
        self.end(Kind::Fail, entry);
    }

    fn end(self, kind: Kind, entry: Entry) {
        let Self { key, node, .. } = &self;
        let entry = Entry {
            key: key.clone(),
            node: *node,
            ..entry
        };
        self.stage.history.record(self.process, kind, self.f, entry);
    }
}
