//! Histories that one register could have made, and others, each with exactly one fault.

use serde_json::json;

use super::*;
use crate::checker::testing::Script;
use crate::history::Kind;

/// Operations on registers, in whole units of time. Each has a process of its own.
#[derive(Debug, Default)]
struct History {
    script: Script,
    processes: u64,
}

impl History {
    fn operation(&mut self, f: &str, key: &str, times: (u64, u64), value: serde_json::Value) -> &mut Script {
        self.processes += 1;
        self.script.begin(self.processes, times.0, f, key);
        if !value.is_null() {
            self.script.value(value);
        }
        &mut self.script
    }

    fn end(&mut self, time: u64, kind: Kind) -> &mut Script {
        self.script.end(self.processes, time, kind)
    }

    fn read(&mut self, key: &str, times: (u64, u64), value: &str, rev: u64) -> &mut Self {
        self.operation(READ, key, times, json!(null));
        self.end(times.1, Kind::Ok).value(value).rev(rev);
        self
    }

    fn write(&mut self, key: &str, times: (u64, u64), value: &str, rev: u64) -> &mut Self {
        self.operation(WRITE, key, times, json!(value));
        self.end(times.1, Kind::Ok).rev(rev);
        self
    }

    fn unknown(&mut self, key: &str, time: u64, value: &str) -> &mut Self {
        self.operation(WRITE, key, (time, time), json!(value));
        self
    }

    fn cas(&mut self, key: &str, times: (u64, u64), if_rev: u64, value: &str, rev: u64) -> &mut Self {
        self.operation(CAS, key, times, json!({ "if_rev": if_rev, "value": value }));
        self.end(times.1, Kind::Ok).rev(rev);
        self
    }

    fn refused(&mut self, key: &str, times: (u64, u64), if_rev: u64, value: &str) -> &mut Self {
        self.operation(CAS, key, times, json!({ "if_rev": if_rev, "value": value }));
        self.end(times.1, Kind::Fail).rev(if_rev);
        self
    }

    fn check(&self) -> Judgement {
        let events = self.script.sorted();
        RegisterChecker.check(&events).expect("the history is well-formed")
    }

    /// What was found, without the rest of each sentence.
    fn violations(&self) -> Vec<String> {
        let violations = self.check().violations;
        let kind = |violation: &String| violation.split(':').next().unwrap_or_default().to_owned();
        violations.iter().map(kind).collect()
    }
}

fn good() -> History {
    let mut history = History::default();
    history
        .write("k", (0, 5), "a", 3)
        // Two at once, in the order of their revs, whoever was answered first.
        .write("k", (10, 20), "c", 6)
        .write("k", (11, 19), "b", 5)
        .read("k", (12, 18), "a", 3)
        .read("k", (12, 25), "b", 5)
        .cas("k", (30, 40), 6, "d", 9)
        .refused("k", (31, 45), 6, "e")
        .unknown("k", 50, "f")
        .unknown("k", 51, "never seen")
        .read("k", (60, 70), "d", 9)
        .read("k", (65, 75), "f", 12)
        .write("other", (0, 100), "x", 7);
    history
}

#[test]
fn a_concurrent_history_passes_and_is_counted() {
    let judgement = good().check();
    assert_eq!(judgement.violations, Vec::<String>::new());
    let expected = [
        ("acknowledged writes", 5),
        ("reads", 4),
        ("refusals that an unknown write may explain", 0),
        ("refused compare-and-sets", 1),
        ("registers", 2),
        ("unknown writes that nobody saw", 1),
        ("unknown writes that were seen", 1),
    ];
    assert_eq!(judgement.counts.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_stale_read_is_found() {
    let mut history = good();
    history.read("k", (80, 90), "d", 9);
    assert_eq!(history.violations(), ["not linearizable"]);
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    let mut history = good();
    history.write("k", (80, 90), "g", 20).read("k", (91, 95), "f", 12);
    assert_eq!(history.violations(), ["not linearizable"]);
}

#[test]
fn a_read_before_its_write_began_is_found() {
    let mut history = History::default();
    history
        .write("k", (0, 1), "a", 1)
        .read("k", (2, 3), "b", 2)
        .write("k", (4, 5), "b", 2);
    assert_eq!(history.violations(), ["not linearizable"]);
}

#[test]
fn what_nobody_wrote_is_found() {
    let mut history = good();
    history.read("k", (80, 90), "z", 30);
    assert_eq!(history.violations(), ["phantom"]);
    let mut history = good();
    history.read("k", (80, 90), "e", 30);
    assert_eq!(history.violations(), ["phantom"], "its write was refused");
}

#[test]
fn another_value_at_a_rev_is_found() {
    let mut history = good();
    history.read("k", (14, 18), "c", 5);
    assert_eq!(history.violations(), ["wrong value"]);
}

#[test]
fn a_value_at_two_revs_is_found() {
    let mut history = good();
    history.read("k", (80, 90), "f", 13);
    assert_eq!(history.violations(), ["wrong rev"]);
}

#[test]
fn two_that_succeeded_on_one_rev_are_found() {
    let mut history = good();
    history.cas("k", (30, 45), 6, "second", 10);
    assert!(history.violations().contains(&"lost update".to_owned()));
    let mut history = History::default();
    history
        .write("k", (0, 1), "a", 1)
        .cas("k", (2, 9), 1, "b", 2)
        .cas("k", (2, 9), 1, "c", 3);
    assert_eq!(history.violations(), ["lost update"]);
}

#[test]
fn a_rev_that_was_given_twice_is_found() {
    let mut history = good();
    history
        .write("other", (80, 90), "y", 20)
        .write("third", (80, 90), "z", 20);
    assert_eq!(history.violations(), ["rev 20 was given to the events 21 and 22"]);
}

#[test]
fn revs_of_two_registers_against_time_are_found() {
    let mut history = good();
    history
        .write("other", (80, 90), "y", 21)
        .write("third", (100, 110), "z", 20);
    assert_eq!(history.violations(), ["revs against time"]);
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    let mut history = History::default();
    history
        .write("k", (0, 1), "a", 1)
        .refused("k", (2, 3), 1, "b")
        .write("k", (4, 5), "c", 2);
    assert_eq!(history.violations(), ["refused wrongly"]);
    // A read that still saw it, after the refusal, puts the next write behind it.
    let mut history = History::default();
    history
        .write("k", (0, 1), "a", 1)
        .write("k", (2, 9), "c", 2)
        .refused("k", (3, 4), 1, "b")
        .read("k", (5, 6), "a", 1);
    assert_eq!(history.violations(), ["refused wrongly"]);
}

#[test]
fn a_refusal_that_an_unknown_write_may_explain_is_counted() {
    let mut history = History::default();
    history
        .write("k", (0, 1), "a", 1)
        .unknown("k", 2, "lost")
        .refused("k", (3, 4), 1, "b");
    assert_eq!(history.violations(), Vec::<String>::new());
    assert_eq!(history.check().counts["refusals that an unknown write may explain"], 1);
}

#[test]
fn a_history_that_cannot_be_judged_is_an_error() {
    let mut twice = History::default();
    twice.write("k", (0, 1), "a", 1).write("k", (2, 3), "a", 2);
    let mut no_rev = Script::default();
    no_rev.begin(1, 0, READ, "k").end(1, 1, Kind::Ok).value("a");
    let mut unheard = Script::default();
    unheard.begin(1, 0, "register.swap", "k").end(1, 1, Kind::Ok);
    for script in [twice.script, no_rev, unheard] {
        assert!(RegisterChecker.check(&script.sorted()).is_err());
    }
}

#[test]
fn a_million_operations_are_decided_within_seconds() {
    let mut history = History::default();
    for n in 0..500_000 {
        let (at, key) = (10 * n, if n % 2 == 0 { "k" } else { "l" });
        history.write(key, (at, at + 5), &n.to_string(), n + 1);
        history.read(key, (at + 6, at + 8), &n.to_string(), n + 1);
    }
    let events = history.script.sorted();
    let begun = std::time::Instant::now();
    let judgement = RegisterChecker.check(&events).expect("the history is well-formed");
    println!("{} operations in {:?}", events.len() / 2, begun.elapsed());
    assert_eq!(judgement.violations_total, 0);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}
