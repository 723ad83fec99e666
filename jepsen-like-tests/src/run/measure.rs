//! What a history says about speed: how many operations ended in each second, and how long they took.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::spells::Spell;
use crate::checker::operation::{Outcome, operations};
use crate::history::{Event, is_drain, is_write};

const NS: u64 = 1_000_000_000;
/// How long after its end a fault's effect on writes is looked for.
const AFTER_NS: u64 = 10 * NS;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub ok: u64,
    pub failed: u64,
    pub unknown: u64,
}

impl Counts {
    pub fn all(&self) -> u64 {
        self.ok + self.failed + self.unknown
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.ok += 1,
            Outcome::Refused => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}

/// Of operations that succeeded, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub p50_us: u32,
    pub p99_us: u32,
    pub max_us: u32,
}

/// One kind of operation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    pub counts: Counts,
    pub latency: Latency,
    /// By the second in which they ended; none where none succeeded.
    #[serde(skip)]
    pub by_second: Vec<Option<Latency>>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Measures {
    pub total: Counts,
    pub by_second: Vec<Counts>,
    /// By the name of the operation.
    pub operations: BTreeMap<String, Measured>,
    /// When writes were acknowledged, in order.
    #[serde(skip)]
    written_ns: Vec<u64>,
}

/// Drains, which come after everything, are not counted.
pub fn measure(events: &[Event]) -> Result<Measures> {
    let mut measures = Measures::default();
    let mut took: BTreeMap<&str, Vec<(usize, u32)>> = BTreeMap::new();
    for operation in operations(events)? {
        let name = operation.begun.f.as_str();
        if is_drain(name) {
            continue;
        }
        let outcome = operation.outcome();
        let measured = entry(&mut measures.operations, name);
        measured.counts.add(outcome);
        measures.total.add(outcome);
        // One that never ended is counted where it began.
        let end_ns = operation.end.unwrap_or(operation.begun).time_ns;
        let second = usize::try_from(end_ns / NS).expect("a run has few seconds");
        if measures.by_second.len() <= second {
            measures.by_second.resize(second + 1, Counts::default());
        }
        measures.by_second[second].add(outcome);
        if outcome == Outcome::Done {
            let us = (end_ns - operation.begun.time_ns) / 1000;
            let of_name = took.entry(name).or_default();
            of_name.push((second, u32::try_from(us).unwrap_or(u32::MAX)));
            if is_write(name) {
                measures.written_ns.push(end_ns);
            }
        }
    }
    measures.written_ns.sort_unstable();
    let seconds = measures.by_second.len();
    for (name, mut took) in took {
        took.sort_unstable();
        let measured = entry(&mut measures.operations, name);
        measured.by_second = vec![None; seconds];
        for same in took.chunk_by(|one, other| one.0 == other.0) {
            // Within a second they are sorted by what they took.
            measured.by_second[same[0].0] = latency(same.iter().map(|(_, us)| *us).collect());
        }
        measured.latency = latency(took.into_iter().map(|(_, us)| us).collect()).unwrap_or_default();
    }
    Ok(measures)
}

fn entry<'a>(of: &'a mut BTreeMap<String, Measured>, name: &str) -> &'a mut Measured {
    if !of.contains_key(name) {
        of.insert(name.to_owned(), Measured::default());
    }
    of.get_mut(name).expect("it was just put in")
}

fn latency(mut us: Vec<u32>) -> Option<Latency> {
    us.sort_unstable();
    let at = |share: f64| us[((us.len() - 1) as f64 * share).round() as usize];
    let max_us = *us.last()?;
    Some(Latency {
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us,
    })
}

impl Measures {
    /// The longest time without an acknowledged write from the beginning of the fault until some time after it.
    pub fn gap_ns(&self, spell: &Spell) -> u64 {
        let until = spell.healed_ns.unwrap_or(spell.begun_ns).saturating_add(AFTER_NS);
        let from = self.written_ns.partition_point(|time| *time < spell.begun_ns);
        let upto = self.written_ns.partition_point(|time| *time <= until);
        let mut before = spell.begun_ns;
        let mut longest = 0;
        for time in &self.written_ns[from..upto] {
            longest = longest.max(time - before);
            before = *time;
        }
        longest
    }

    /// How many writes were acknowledged in this time.
    pub fn written_between(&self, from_ns: u64, to_ns: u64) -> u64 {
        let from = self.written_ns.partition_point(|time| *time < from_ns);
        let upto = self.written_ns.partition_point(|time| *time < to_ns);
        (upto.saturating_sub(from)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history;

    #[test]
    fn operations_are_counted_by_the_second_in_which_they_ended() {
        let lines = [
            r#"{"index":0,"process":0,"type":"invoke","f":"send","time_ns":0}"#,
            r#"{"index":1,"process":1,"type":"invoke","f":"send","time_ns":0}"#,
            r#"{"index":2,"process":2,"type":"invoke","f":"read","time_ns":0}"#,
            r#"{"index":3,"process":3,"type":"invoke","f":"send","time_ns":0}"#,
            r#"{"index":4,"process":0,"type":"ok","f":"send","time_ns":500000000}"#,
            r#"{"index":5,"process":1,"type":"fail","f":"send","time_ns":1500000000}"#,
            r#"{"index":6,"process":2,"type":"ok","f":"read","time_ns":1600000000}"#,
            r#"{"index":7,"process":0,"type":"invoke","f":"send","time_ns":1700000000}"#,
            r#"{"index":8,"process":0,"type":"ok","f":"send","time_ns":1900000000}"#,
            r#"{"index":9,"process":0,"type":"invoke","f":"send","time_ns":1900000000}"#,
            r#"{"index":10,"process":0,"type":"ok","f":"send","time_ns":2000000000}"#,
            r#"{"index":11,"process":4,"type":"invoke","f":"drain","time_ns":2000000000}"#,
        ];
        let events = history::read(&lines.join("\n")).expect("well-formed");
        let measures = measure(&events).expect("it can be paired");
        let counts = |ok, failed, unknown| Counts { ok, failed, unknown };
        assert_eq!(measures.total, counts(4, 1, 1));
        assert_eq!(measures.by_second, [counts(1, 0, 1), counts(2, 1, 0), counts(1, 0, 0)]);
        let sends = &measures.operations["send"];
        assert_eq!(sends.by_second[0].expect("one ended").max_us, 500_000);
        assert_eq!(sends.by_second[1].expect("one ended").p50_us, 200_000);
        assert_eq!(measures.operations["read"].by_second[0], None);
        let spell = Spell {
            id: 0,
            kind: "kill".to_owned(),
            what: String::new(),
            nodes: vec![1],
            begun_ns: 600_000_000,
            healed_ns: Some(700_000_000),
            index: 0,
        };
        // Until the write at 1.9 s; the read between does not count, and the next write came soon.
        assert_eq!(measures.gap_ns(&spell), 1_300_000_000);
        assert_eq!(measures.written_between(0, NS), 1);
    }
}
