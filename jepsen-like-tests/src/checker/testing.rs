//! Histories made by hand, for the tests of checkers.

use serde_json::Value;

use crate::history::{Event, Kind, Process};

/// A history in the making. Times are given in whole units; each event ends up in the order in which it is told.
#[derive(Debug, Default, Clone)]
pub(crate) struct Script {
    events: Vec<Event>,
}

impl Script {
    pub(crate) fn begin(&mut self, process: u64, time_ns: u64, f: &str, key: &str) -> &mut Self {
        self.events.push(Event {
            index: self.events.len() as u64,
            process: Process::Client(process),
            kind: Kind::Invoke,
            f: f.to_owned(),
            key: Some(key.to_owned()),
            value: None,
            seq: None,
            rev: None,
            time_ns,
            node: None,
            error: None,
        });
        self
    }

    /// Ends what the process has begun last.
    pub(crate) fn end(&mut self, process: u64, time_ns: u64, kind: Kind) -> &mut Self {
        let of_process = |event: &&Event| event.process == Process::Client(process);
        let begun = self
            .events
            .iter()
            .rev()
            .find(of_process)
            .expect("the process has begun something");
        let end = Event {
            index: self.events.len() as u64,
            kind,
            value: None,
            time_ns,
            ..begun.clone()
        };
        self.events.push(end);
        self
    }

    /// Of the event told last.
    pub(crate) fn value(&mut self, value: impl Into<Value>) -> &mut Self {
        self.last().value = Some(value.into());
        self
    }

    pub(crate) fn rev(&mut self, rev: u64) -> &mut Self {
        self.last().rev = Some(rev);
        self
    }

    pub(crate) fn seq(&mut self, seq: u64) -> &mut Self {
        self.last().seq = Some(seq);
        self
    }

    pub(crate) fn node(&mut self, node: u64) -> &mut Self {
        self.last().node = Some(node);
        self
    }

    /// As they were told.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.clone()
    }

    /// The same, sorted by time: for histories that are told operation by operation.
    pub(crate) fn sorted(&self) -> Vec<Event> {
        let mut events = self.events.clone();
        events.sort_by_key(|event| (event.time_ns, event.index));
        for (index, event) in events.iter_mut().enumerate() {
            event.index = index as u64;
        }
        events
    }

    fn last(&mut self) -> &mut Event {
        self.events.last_mut().expect("an event was told")
    }
}
