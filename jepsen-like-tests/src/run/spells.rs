//! The faults of a run, as they stand in its history: each has an event for its beginning and one for its end,
//! of the process `nemesis`, with the kind as `f` and a value that says which fault it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::history::{Entry, Event, History, Process};

/// `f` of a time in which nothing is broken on purpose; its value is as that of a fault.
pub const QUIET: &str = "quiet";
/// `f` of the event that says with which settings the run began.
pub const SETTINGS: &str = "settings";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Begin,
    Heal,
}

/// The value of such an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    fault: u64,
    step: Step,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    what: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<u64>,
    /// When it began to be made, where that was before the event: what is broken is known only afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_ns: Option<u64>,
}

/// One fault, from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spell {
    /// Counts from 0, over faults and quiet times.
    pub id: u64,
    pub kind: String,
    pub what: String,
    pub nodes: Vec<u64>,
    pub begun_ns: u64,
    /// None: the run ended before.
    pub healed_ns: Option<u64>,
    /// The event of its beginning.
    pub index: u64,
}

/// Writes down that something began at `since_ns`, by the clock of the history.
pub fn begin(history: &History, kind: &str, id: u64, what: &str, nodes: &[u64], since_ns: u64) {
    let note = Note {
        fault: id,
        step: Step::Begin,
        what: what.to_owned(),
        nodes: nodes.to_vec(),
        since_ns: Some(since_ns),
    };
    write(history, kind, &note, None);
}

/// Writes down that it is over, or that it could not be ended.
pub fn heal(history: &History, kind: &str, id: u64, error: Option<String>) {
    let note = Note {
        fault: id,
        step: Step::Heal,
        what: String::new(),
        nodes: Vec::new(),
        since_ns: None,
    };
    write(history, kind, &note, error);
}

fn write(history: &History, kind: &str, note: &Note, error: Option<String>) {
    let node = match note.nodes.as_slice() {
        [node] => Some(*node),
        _ => None,
    };
    let entry = Entry {
        value: Some(json!(note)),
        node,
        error,
        ..Entry::default()
    };
    history.nemesis(kind, entry);
}

/// All faults and quiet times of a history, in the order of their beginnings. Other notes are passed over.
pub fn spells(events: &[Event]) -> Vec<Spell> {
    let mut spells: BTreeMap<u64, Spell> = BTreeMap::new();
    for event in events {
        let (Process::Fault(_), Some(value)) = (event.process, &event.value) else {
            continue;
        };
        let Ok(note) = serde_json::from_value::<Note>(value.clone()) else {
            continue;
        };
        match note.step {
            Step::Begin => {
                let spell = Spell {
                    id: note.fault,
                    kind: event.f.clone(),
                    what: note.what,
                    nodes: note.nodes,
                    begun_ns: note.since_ns.unwrap_or(event.time_ns),
                    healed_ns: None,
                    index: event.index,
                };
                spells.insert(note.fault, spell);
            }
            Step::Heal => {
                if let Some(spell) = spells.get_mut(&note.fault) {
                    spell.healed_ns = Some(event.time_ns);
                }
            }
        }
    }
    spells.into_values().collect()
}

/// The faults alone.
pub fn faults(events: &[Event]) -> Vec<Spell> {
    let mut spells = spells(events);
    spells.retain(|spell| spell.kind != QUIET);
    spells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_back() {
        let history = History::in_memory();
        begin(&history, "kill", 0, "node 2, which leads", &[2], 5);
        begin(&history, "partition", 1, "1 2 | 3", &[1, 2, 3], 6);
        history.fault("kill", Some(3));
        heal(&history, "kill", 0, None);
        let events = history.events();
        let spells = spells(&events);
        assert_eq!(spells.len(), 2);
        assert_eq!(
            (spells[0].kind.as_str(), spells[0].nodes.as_slice()),
            ("kill", &[2][..])
        );
        assert_eq!((spells[0].begun_ns, spells[1].begun_ns), (5, 6));
        assert_eq!(spells[0].what, "node 2, which leads");
        assert_eq!(spells[0].healed_ns, Some(events[3].time_ns));
        assert_eq!(spells[1].healed_ns, None);
    }
}
