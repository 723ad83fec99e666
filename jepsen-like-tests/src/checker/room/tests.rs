//! Hand-made histories: good ones pass, and each kind of violation is found, alone.

use std::fmt::Write;

use super::*;
use crate::history;

/// A history in a short notation, one operation a line, for one room:
/// `send TEXT BEGIN-END -> SEQ`, `send TEXT BEGIN-END failed`, `send TEXT BEGIN- unknown`,
/// `read BEGIN-END -> SEQ:TEXT …` (or `-> empty`) and `drain NODE -> SEQ:TEXT …`.
fn judge(scenario: &str) -> Vec<Violation> {
    verdict(scenario).violations
}

fn verdict(scenario: &str) -> Verdict {
    let events = history::read(&events(scenario)).expect("the notation makes well-formed lines");
    let mut verdicts = check(&events).expect("the history can be judged");
    assert_eq!(verdicts.len(), 1);
    verdicts.remove("r").expect("all is about one room")
}

fn events(scenario: &str) -> String {
    let lines: Vec<&str> = scenario
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let mut out = String::new();
    for (process, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let (f, times) = (words[0], if words[0] == "send" { words[2] } else { words[1] });
        let value = if f == "send" {
            format!(r#","value":"{}""#, words[1])
        } else {
            String::new()
        };
        // A drain comes after everything.
        let (begin, end) = if f == "drain" {
            ("1000", "1001")
        } else {
            times.split_once('-').expect("begin-end")
        };
        let mut event = |half: u64, kind: &str, rest: &str, time: &str| {
            let index = 2 * process as u64 + half;
            writeln!(
                out,
                r#"{{"index":{index},"process":{process},"type":"{kind}","f":"{f}","key":"r","time_ns":{time}{rest}}}"#
            )
            .expect("a string takes everything");
        };
        event(0, "invoke", &value, begin);
        let outcome = words[if f == "send" { 3 } else { 2 }];
        match (f, outcome) {
            ("send", "->") => event(1, "ok", &format!(r#","seq":{}"#, words[4]), end),
            ("send", "failed") => event(1, "fail", "", end),
            ("send", _) => event(1, "info", "", begin),
            _ => {
                let entries: Vec<(u64, &str)> = words[3..]
                    .iter()
                    .filter_map(|entry| entry.split_once(':'))
                    .map(|(seq, text)| (seq.parse().expect("a seq is a number"), text))
                    .collect();
                let last = entries.last().map_or(0, |(seq, _)| *seq);
                let page = serde_json::to_string(&entries).expect("pairs are JSON");
                let node = if f == "drain" { times } else { "1" };
                event(1, "ok", &format!(r#","value":{page},"seq":{last},"node":{node}"#), end);
            }
        }
    }
    out
}

#[test]
fn a_room_that_did_what_it_said_passes() {
    let verdict = verdict(
        "send a 0-10 -> 1
         send b 5-20 -> 2
         read 12-15 -> 1:a
         send x 18- unknown
         send y 18- unknown
         send z 18-19 failed
         read 21-30 -> 1:a 2:b
         read 22-60 -> 1:a 2:b 3:x
         send c 40-50 -> 4
         read 55-60 -> 3:x 4:c
         drain 1 -> 1:a 2:b 3:x 4:c
         drain 2 -> 1:a 2:b 3:x 4:c",
    );
    let expected = Verdict {
        violations: vec![],
        acknowledged: 3,
        refused: 1,
        unknown: 2,
        unknown_applied: 1,
        reads: 4,
    };
    assert_eq!(verdict, expected);
}

#[test]
fn an_empty_room_passes_and_a_read_before_any_send_ends_may_miss_it() {
    let found = judge(
        "read 0-1 -> empty
         send a 0-10 -> 1
         read 9-11 -> empty
         drain 1 -> 1:a",
    );
    assert_eq!(found, []);
}

#[test]
fn an_acknowledged_message_that_is_gone_is_lost() {
    let found = judge(
        "send a 0-10 -> 1
         send b 20-30 -> 2
         drain 1 -> 1:a",
    );
    assert_eq!(
        found,
        [Violation::Lost {
            index: 2,
            text: "b".into(),
            seq: 2
        }]
    );
}

#[test]
fn a_message_that_is_there_twice_is_duplicated() {
    let found = judge(
        "send a 0-10 -> 1
         drain 1 -> 1:a 2:a",
    );
    assert!(
        found.contains(&Violation::Duplicated {
            text: "a".into(),
            seqs: vec![1, 2]
        }),
        "{found:?}"
    );
}

#[test]
fn an_unknown_message_that_is_there_twice_is_duplicated() {
    let found = judge(
        "send a 0- unknown
         drain 1 -> 1:a 2:a",
    );
    assert_eq!(
        found,
        [Violation::Duplicated {
            text: "a".into(),
            seqs: vec![1, 2]
        }]
    );
}

#[test]
fn a_message_that_nobody_sent_or_that_was_refused_is_a_phantom() {
    let found = judge(
        "send a 0-10 failed
         drain 1 -> 1:a 2:b",
    );
    let phantom = |text: &str, seq| Violation::Phantom { text: text.into(), seq };
    assert_eq!(found, [phantom("a", 1), phantom("b", 2)]);
}

#[test]
fn a_message_at_another_place_than_acknowledged_is_reordered() {
    let found = judge(
        "send a 0-10 -> 1
         send b 0-10 -> 2
         drain 1 -> 1:b 2:a",
    );
    let reordered = |index, text: &str, seq, is_at| Violation::Reordered {
        index,
        text: text.into(),
        seq,
        is_at,
    };
    assert_eq!(found, [reordered(0, "a", 1, 2), reordered(2, "b", 2, 1)]);
}

#[test]
fn a_message_read_at_another_place_is_reordered() {
    let found = judge(
        "send a 0- unknown
         send b 0- unknown
         read 5-10 -> 1:b
         drain 1 -> 1:a 2:b",
    );
    assert_eq!(
        found,
        [Violation::Reordered {
            index: 4,
            text: "b".into(),
            seq: 1,
            is_at: 2
        }]
    );
}

#[test]
fn one_seq_given_to_two_messages_is_found() {
    let found = judge(
        "send a 0-10 -> 1
         send b 0-10 -> 1
         drain 1 -> 1:a",
    );
    assert!(
        found.contains(&Violation::SeqGivenTwice {
            seq: 1,
            indexes: vec![0, 2]
        }),
        "{found:?}"
    );
}

#[test]
fn a_message_that_was_read_must_stay() {
    let found = judge(
        "send a 0- unknown
         read 5-10 -> 1:a
         drain 1 -> empty",
    );
    assert_eq!(
        found,
        [Violation::Vanished {
            index: 2,
            text: "a".into(),
            seq: 1
        }]
    );
}

#[test]
fn rooms_and_pages_have_no_gaps() {
    let found = judge(
        "send a 0- unknown
         send b 0- unknown
         drain 1 -> 1:a 3:b",
    );
    assert_eq!(
        found,
        [Violation::Gap {
            index: None,
            after: 1,
            next: 3
        }]
    );
    let found = judge(
        "send a 0- unknown
         send b 0- unknown
         send c 0- unknown
         read 5-10 -> 1:a 3:c
         drain 1 -> 1:a 2:b 3:c",
    );
    assert_eq!(
        found,
        [Violation::Gap {
            index: Some(6),
            after: 1,
            next: 3
        }]
    );
}

#[test]
fn nodes_that_differ_or_lag_have_diverged() {
    let found = judge(
        "send a 0- unknown
         send b 0- unknown
         drain 1 -> 1:a
         drain 2 -> 1:b
         drain 3 -> 1:a 2:b",
    );
    let diverged = |other, seq| Violation::Diverged { nodes: (1, other), seq };
    assert!(found.contains(&diverged(2, 1)), "{found:?}");
    assert!(found.contains(&diverged(3, 2)), "{found:?}");
}

#[test]
fn a_stale_read_is_not_linearizable() {
    let found = judge(
        "send a 0-10 -> 1
         send b 11-20 -> 2
         read 21-30 -> 1:a
         drain 1 -> 1:a 2:b",
    );
    // The read stands before b in the order, but b had ended before the read began.
    assert_eq!(found, [Violation::NotLinearizable { index: 2, before: 4 }]);
}

#[test]
fn a_read_that_goes_back_behind_another_read_is_not_linearizable() {
    let found = judge(
        "send a 0- unknown
         read 5-10 -> 1:a
         read 11-15 -> empty
         drain 1 -> 1:a",
    );
    // The unknown send may take effect at any time, but not both before 10 and after 11.
    assert_eq!(found, [Violation::NotLinearizable { index: 2, before: 4 }]);
}

#[test]
fn a_read_from_the_future_is_not_linearizable() {
    let found = judge(
        "read 0-5 -> 1:a
         send a 6-10 -> 1
         drain 1 -> 1:a",
    );
    assert_eq!(found, [Violation::NotLinearizable { index: 0, before: 2 }]);
}

#[test]
fn an_order_against_real_time_is_not_linearizable() {
    let found = judge(
        "send a 20-30 -> 1
         send b 0-10 -> 2
         drain 1 -> 1:a 2:b",
    );
    assert_eq!(found, [Violation::NotLinearizable { index: 2, before: 0 }]);
}

#[test]
fn operations_at_the_same_place_may_come_in_any_order() {
    let found = judge(
        "send a 0-10 -> 1
         read 30-100 -> 1:a
         read 11-12 -> 1:a
         read 5-60 -> 1:a
         drain 1 -> 1:a",
    );
    assert_eq!(found, []);
}

#[test]
fn a_history_that_cannot_be_judged_is_an_error_and_not_a_pass() {
    let error = |scenario: &str| {
        let events = history::read(&events(scenario)).expect("the notation makes well-formed lines");
        check(&events).expect_err("it cannot be judged").to_string()
    };
    assert_eq!(error("send a 0-10 -> 1"), "room r was never drained");
    let twice = "send a 0-10 -> 1\nsend a 0-10 -> 2\ndrain 1 -> 1:a 2:a";
    assert!(error(twice).contains("was sent twice"));
}
