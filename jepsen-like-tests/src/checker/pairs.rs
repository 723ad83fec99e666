//! Beginnings and ends of a history, paired: what the checkers of all other workloads than rooms start from.
//! What is wrong with a history that cannot be paired is an error: such a run is inconclusive, never passed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use super::operation::Outcome;
use crate::history::{Event, Kind, Process};

/// One operation: its beginning, and its end where it has one.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub begun: &'a Event,
    pub end: Option<&'a Event>,
}

impl<'a> Pair<'a> {
    /// Of the beginning: names the operation in a report.
    pub fn index(&self) -> u64 {
        self.begun.index
    }

    pub fn f(&self) -> &'a str {
        &self.begun.f
    }

    pub fn invoke_ns(&self) -> u64 {
        self.begun.time_ns
    }

    /// When its end was known, whatever the end was; never for what has none.
    pub fn complete_ns(&self) -> u64 {
        self.end.map_or(u64::MAX, |end| end.time_ns)
    }

    pub fn outcome(&self) -> Outcome {
        match self.end.map(|end| end.kind) {
            Some(Kind::Ok) => Outcome::Done,
            Some(Kind::Fail) => Outcome::Refused,
            _ => Outcome::Unknown,
        }
    }

    pub fn key(&self) -> Result<&'a str> {
        let key = self.begun.key.as_deref();
        key.with_context(|| format!("event {} names no key", self.begun.index))
    }

    /// What the beginning says.
    pub fn asked<T: DeserializeOwned>(&self) -> Result<T> {
        value(self.begun)
    }

    /// What the end says.
    pub fn answered<T: DeserializeOwned>(&self) -> Result<T> {
        let end = self
            .end
            .with_context(|| format!("event {} has no end", self.begun.index))?;
        value(end)
    }

    /// The rev of the end.
    pub fn rev(&self) -> Result<u64> {
        let rev = self.end.and_then(|end| end.rev);
        rev.with_context(|| format!("the end of event {} has no rev", self.begun.index))
    }
}

fn value<T: DeserializeOwned>(event: &Event) -> Result<T> {
    let value = event.value.clone().unwrap_or_default();
    serde_json::from_value(value).with_context(|| format!("the value of event {}", event.index))
}

/// The operations of the clients whose `f` begins with one of the prefixes, in the order of their beginnings.
pub fn pairs<'a>(events: &'a [Event], prefixes: &[&str]) -> Result<Vec<Pair<'a>>> {
    let mine = |event: &&Event| prefixes.iter().any(|prefix| event.f.starts_with(prefix));
    let mut open: BTreeMap<Process, &Event> = BTreeMap::new();
    let mut retired: BTreeSet<Process> = BTreeSet::new();
    let mut ends: Vec<Pair> = Vec::new();
    let mut before = 0;
    for event in events.iter().filter(mine) {
        ensure!(event.time_ns >= before, "event {}: time steps back", event.index);
        before = event.time_ns;
        let process = event.process;
        match (process, event.kind) {
            (Process::Fault(_), _) => {}
            (_, Kind::Invoke) => {
                ensure!(
                    !retired.contains(&process),
                    "event {}: {process:?} is retired",
                    event.index
                );
                if let Some(other) = open.insert(process, event) {
                    bail!(
                        "event {}: {process:?} begins while {} is open",
                        event.index,
                        other.index
                    );
                }
            }
            (_, kind) => {
                let begun = open.remove(&process);
                let begun = begun.with_context(|| format!("event {} ends nothing", event.index))?;
                let is_same = begun.f == event.f && begun.key == event.key;
                ensure!(
                    is_same,
                    "event {} ends another operation than {}",
                    event.index,
                    begun.index
                );
                if kind == Kind::Info {
                    retired.insert(process);
                }
                ends.push(Pair {
                    begun,
                    end: Some(event),
                });
            }
        }
    }
    // What was never answered may have happened.
    ends.extend(open.into_values().map(|begun| Pair { begun, end: None }));
    ends.sort_by_key(|pair| pair.begun.index);
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::testing::Script;

    #[test]
    fn what_is_not_mine_is_passed_over_and_the_rest_is_paired() {
        let mut script = Script::default();
        script
            .begin(1, 0, "a.read", "k")
            .begin(2, 1, "b.read", "k")
            .end(1, 2, Kind::Ok);
        let events = script.events();
        let found = pairs(&events, &["a."]).expect("it is well-formed");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].index(), found[0].complete_ns()), (0, 2));
        let open = pairs(&events, &["b."]).expect("it is well-formed");
        assert_eq!((open[0].outcome(), open[0].complete_ns()), (Outcome::Unknown, u64::MAX));
    }

    #[test]
    fn a_malformed_history_is_an_error() {
        let mut twice = Script::default();
        twice.begin(1, 0, "a.read", "k").begin(1, 1, "a.read", "k");
        let mut after_unknown = Script::default();
        after_unknown
            .begin(1, 0, "a.write", "k")
            .end(1, 1, Kind::Info)
            .begin(1, 2, "a.read", "k");
        let mut back = Script::default();
        back.begin(1, 5, "a.write", "k").end(1, 1, Kind::Ok);
        for script in [twice, after_unknown, back] {
            assert!(pairs(&script.events(), &["a."]).is_err());
        }
        let mut no_beginning = Script::default();
        no_beginning.begin(1, 0, "a.write", "k").end(1, 1, Kind::Ok);
        assert!(pairs(&no_beginning.events()[1..], &["a."]).is_err());
    }
}
