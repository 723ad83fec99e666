//! What is going on, for whoever looks on: written by the run, read by the progress.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Board {
    /// Held for a look or a note, never across an await.
    shown: Mutex<Shown>,
}

#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// In words: "clients at work", "draining", …
    pub phase: String,
    /// When the clients stop, if they are at work.
    pub until: Option<Instant>,
    pub faults: u64,
    /// What is broken now, by the number of the fault.
    pub broken: BTreeMap<u64, String>,
}

impl Shown {
    /// Until the clients stop, if they are at work.
    pub fn left(&self) -> Option<Duration> {
        Some(self.until?.saturating_duration_since(Instant::now()))
    }
}

impl Board {
    pub fn shown(&self) -> Shown {
        self.shown.lock().expect("no holder of this lock panics").clone()
    }

    fn note(&self, note: impl FnOnce(&mut Shown)) {
        note(&mut self.shown.lock().expect("no holder of this lock panics"));
    }

    /// What is done from now on.
    pub fn phase(&self, phase: &str) {
        self.note(|shown| phase.clone_into(&mut shown.phase));
    }

    pub fn until(&self, until: Option<Instant>) {
        self.note(|shown| shown.until = until);
    }

    pub fn begun(&self, id: u64, what: String) {
        self.note(|shown| {
            shown.faults += 1;
            shown.broken.insert(id, what);
        });
    }

    pub fn healed(&self, id: u64) {
        self.note(|shown| _ = shown.broken.remove(&id));
    }
}
