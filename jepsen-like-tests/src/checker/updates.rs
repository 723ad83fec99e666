//! The update checker: does a counter count every acknowledged addition?
//!
//! An addition reads the counter and writes what it read plus one, under a lock. Where the write is guarded by the
//! lock's token, none is lost. Where it is not, and its client was paused beyond the ttl between reading and writing,
//! some must be: a control run in which none is lost proves nothing about the guarded one.
//!
//! | `f` | `key` | beginning | end |
//! |---|---|---|---|
//! | `counter.add` | counter | `value`: [`Addition`] | `ok`: `value`: `{"from": N}`, what was read; the counter was set to N + 1 |
//! | `counter.drain` | counter | | `ok`: `value`: where the counter is in the end |

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::operation::Outcome;
use super::pairs::pairs;
use super::{Checker, Judgement};
use crate::history::Event;

pub const ADD: &str = "counter.add";
pub const DRAIN: &str = "counter.drain";
/// All of these operations.
pub const PREFIX: &str = "counter.";

/// Under which lock a counter is added to, and whether the write says so (`If-Lock`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addition {
    pub lock: String,
    pub token: u64,
    pub is_fenced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    pub from: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Updates;

#[derive(Debug, Default)]
struct Counter {
    /// The events of acknowledged additions, by what each had read.
    by_from: BTreeMap<u64, Vec<u64>>,
    acknowledged: u64,
    unknown: u64,
    end: Option<u64>,
}

impl Checker for Updates {
    fn name(&self) -> &'static str {
        "updates"
    }

    fn about(&self) -> &'static str {
        "counters that are read and written under a lock count every addition (without fencing they must not)"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["acknowledged additions"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let mut counters: BTreeMap<&str, Counter> = BTreeMap::new();
        for pair in pairs(events, &[PREFIX])? {
            let counter = counters.entry(pair.key()?).or_default();
            match (pair.f(), pair.outcome()) {
                (ADD, Outcome::Done) => {
                    let Added { from } = pair.answered()?;
                    counter.by_from.entry(from).or_default().push(pair.index());
                    counter.acknowledged += 1;
                }
                (ADD, Outcome::Unknown) => counter.unknown += 1,
                (DRAIN, Outcome::Done) => counter.end = counter.end.max(Some(pair.answered()?)),
                (ADD | DRAIN, _) => {}
                (other, _) => bail!("event {}: unknown operation {other}", pair.index()),
            }
        }
        let mut judgement = Judgement::default();
        for (name, counter) in &counters {
            check_counter(name, counter, &mut judgement)?;
        }
        let sum = |count: fn(&Counter) -> u64| counters.values().map(count).sum();
        judgement.counts.insert("counters", counters.len() as u64);
        judgement
            .counts
            .insert("acknowledged additions", sum(|counter| counter.acknowledged));
        judgement
            .counts
            .insert("unknown additions", sum(|counter| counter.unknown));
        judgement.counts.insert("lost updates", sum(Counter::lost));
        Ok(judgement)
    }
}

impl Counter {
    /// Additions to what another one had added to already.
    fn lost(&self) -> u64 {
        self.by_from.values().map(|events| events.len() as u64 - 1).sum()
    }
}

fn check_counter(name: &str, counter: &Counter, judgement: &mut Judgement) -> Result<()> {
    let Counter {
        acknowledged, unknown, ..
    } = counter;
    for (from, events) in counter.by_from.iter().filter(|(_, events)| events.len() > 1) {
        judgement.violation(format_args!(
            "lost update: the events {events:?} all set {name} from {from} to {}",
            from + 1
        ));
    }
    ensure!(counter.end.is_some(), "counter {name} was never drained");
    let end = counter.end.unwrap_or_default();
    // What was told above is not told again.
    if end + counter.lost() < *acknowledged {
        judgement.violation(format_args!(
            "counted too little: {name} ends at {end}, and {acknowledged} additions were acknowledged"
        ));
    }
    if end > acknowledged + unknown {
        judgement.violation(format_args!(
            "counted too much: {name} ends at {end}, after {acknowledged} acknowledged and {unknown} unknown additions"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::testing::Script;
    use crate::history::Kind;

    /// Additions that had read these, one of unknown outcome, and the end.
    fn script(froms: &[u64], end: Option<u64>) -> Vec<Event> {
        let mut script = Script::default();
        let addition = json!(Addition {
            lock: "l".to_owned(),
            token: 1,
            is_fenced: true
        });
        for (process, from) in froms.iter().enumerate() {
            let (process, time) = (process as u64, process as u64);
            script
                .begin(process, time, ADD, "c")
                .value(addition.clone())
                .end(process, time, Kind::Ok);
            script.value(json!({ "from": from }));
        }
        script
            .begin(100, 100, ADD, "c")
            .value(addition.clone())
            .end(100, 100, Kind::Info);
        script
            .begin(101, 100, ADD, "c")
            .value(addition)
            .end(101, 100, Kind::Fail);
        if let Some(end) = end {
            script.begin(102, 101, DRAIN, "c").end(102, 101, Kind::Ok).value(end);
        }
        script.events()
    }

    fn violations(froms: &[u64], end: u64) -> Vec<String> {
        let judgement = Updates
            .check(&script(froms, Some(end)))
            .expect("the history is well-formed");
        let kind = |violation: &String| violation.split(':').next().unwrap_or_default().to_owned();
        judgement.violations.iter().map(kind).collect()
    }

    #[test]
    fn a_counter_that_counts_passes_whether_or_not_the_unknown_happened() {
        for end in [3, 4] {
            assert_eq!(violations(&[0, 1, 2], end), Vec::<String>::new());
        }
    }

    #[test]
    fn a_lost_update_is_found_and_counted() {
        assert_eq!(violations(&[0, 1, 1, 2], 3), ["lost update"]);
        let judgement = Updates
            .check(&script(&[0, 1, 1, 1], Some(2)))
            .expect("the history is well-formed");
        assert_eq!((judgement.counts["lost updates"], judgement.violations_total), (2, 1));
    }

    #[test]
    fn an_addition_that_is_gone_or_was_made_twice_is_found() {
        assert_eq!(violations(&[0, 1, 2], 2), ["counted too little"]);
        assert_eq!(violations(&[0, 1, 2], 5), ["counted too much"]);
    }

    #[test]
    fn a_counter_that_was_never_drained_cannot_be_judged() {
        assert!(Updates.check(&script(&[0], None)).is_err());
    }
}
