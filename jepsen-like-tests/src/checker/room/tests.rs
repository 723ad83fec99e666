//! Hand-made histories: good ones pass, and each kind of violation is found, alone.

use std::fmt::Write;

use super::*;
use crate::history;

/// A history in a short notation, one operation a line, for one room:
/// `send TEXT BEGIN-END -> SEQ`, `send TEXT BEGIN-END failed`, `send TEXT BEGIN- unknown`,
/// `batch TEXT,TEXT BEGIN-END -> SEQ,SEQ` and as for sends, `read BEGIN-END -> SEQ:TEXT …` (or `-> empty`),
/// `drain NODE -> SEQ:TEXT …`, and `drain NODE same NODE HASH` for a room that is that of another node.
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
        let f = words[0];
        let is_sent = matches!(f, "send" | "batch");
        let (times, rest) = if is_sent {
            (words[2], &words[3..])
        } else {
            (words[1], &words[2..])
        };
        let value = match f {
            "send" => format!(r#","value":"{}""#, words[1]),
            "batch" => format!(r#","value":{:?}"#, words[1].split(',').collect::<Vec<_>>()),
            _ => String::new(),
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
        match (f, rest) {
            ("send", ["->", seq]) => event(1, "ok", &format!(r#","seq":{seq}"#), end),
            ("batch", ["->", seqs]) => event(1, "ok", &format!(r#","value":[{seqs}]"#), end),
            ("send" | "batch", ["failed"]) => event(1, "fail", "", end),
            ("send" | "batch", _) => event(1, "info", "", begin),
            ("drain", ["same", node, hash]) => {
                let same = format!(r#","value":{{"same_as":{node},"hash":"{hash}"}},"node":{times}"#);
                event(1, "ok", &same, end);
            }
            _ => {
                let entries: Vec<(u64, &str)> = rest[1..]
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
        batches: 0,
        compared: 2,
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

#[test]
fn batches_that_are_whole_or_absent_pass() {
    let found = judge(
        "batch a,b 0-10 -> 1,2
         batch c,d 11- unknown
         batch e,f 12- unknown
         read 20-30 -> 1:a 2:b
         read 20-30 -> 1:a 2:b 3:e 4:f
         drain 1 -> 1:a 2:b 3:e 4:f",
    );
    assert_eq!(found, []);
}

#[test]
fn a_batch_of_which_a_part_is_there_or_which_is_not_in_one_piece_is_torn() {
    let found = judge(
        "batch a,b 0- unknown
         batch c,d 0- unknown
         send x 0- unknown
         drain 1 -> 1:a 2:c 3:x 4:d",
    );
    let torn = |index, seqs: [Option<u64>; 2]| Violation::Torn {
        index,
        seqs: seqs.to_vec(),
    };
    assert_eq!(found, [torn(0, [Some(1), None]), torn(2, [Some(2), Some(4)])]);
}

#[test]
fn a_read_within_a_batch_is_torn() {
    let found = judge(
        "batch a,b,c 0-10 -> 1,2,3
         read 5-8 -> 1:a 2:b
         drain 1 -> 1:a 2:b 3:c",
    );
    let saw = Violation::SawPart {
        index: 2,
        batch: 0,
        last_seq: 2,
    };
    assert_eq!(found, [saw]);
}

#[test]
fn a_node_that_names_another_is_the_same_and_must_name_one_that_was_drained() {
    let hash = operation::hash_of([(1, "a"), (2, "b")]);
    let agreed = format!(
        "send a 0-10 -> 1
         send b 11-20 -> 2
         drain 1 -> 1:a 2:b
         drain 2 same 1 {hash}
         drain 3 same 1 {hash}"
    );
    assert_eq!(judge(&agreed), []);
    assert_eq!(verdict(&agreed).compared, 3);
    let error = |scenario: &str| {
        let events = history::read(&events(scenario)).expect("the notation makes well-formed lines");
        format!("{:#}", check(&events).expect_err("it cannot be judged"))
    };
    let nobody = format!("send a 0-10 -> 1\ndrain 2 same 1 {hash}");
    assert_eq!(error(&nobody), "room r: node 1 was not drained before 2");
    let other = format!("send a 0-10 -> 1\ndrain 1 -> 1:a\ndrain 2 same 1 {hash}");
    assert!(error(&other).contains(&format!("and not {hash}")), "{}", error(&other));
}

#[test]
fn other_operations_are_passed_over_and_count_for_nothing() {
    let lines = [
        r#"{"index":0,"process":0,"type":"invoke","f":"read","key":"register-1","time_ns":1}"#,
        r#"{"index":1,"process":1,"type":"invoke","f":"lock.acquire","key":"l","time_ns":1}"#,
        r#"{"index":2,"process":0,"type":"ok","f":"read","key":"register-1","value":7,"time_ns":2}"#,
        r#"{"index":3,"process":"nemesis","type":"info","f":"kill","value":{"what":"x"},"time_ns":3}"#,
    ];
    let events = history::read(&lines.join("\n")).expect("well-formed");
    let judgement = Rooms.check(&events).expect("it can be judged");
    assert_eq!(judgement.violations_total, 0);
    assert!(judgement.counts.values().all(|count| *count == 0), "{judgement:?}");
}

/// A history of a million operations: reads and sends in turn, eight at a time, over some rooms; one send is lost.
#[test]
fn a_million_operations_are_judged() {
    use serde_json::json;

    use crate::history::{Entry, History, Kind};

    const OPERATIONS: u64 = 1_000_000;
    const ROOMS: u64 = 10;
    let history = History::in_memory();
    let clients: Vec<_> = (0..ROOMS).map(|_| history.new_client()).collect();
    let room_of = |room: u64| Some(format!("room-{room}"));
    let mut rooms: Vec<Vec<(u64, String)>> = vec![Vec::new(); ROOMS as usize];
    for number in 0..OPERATIONS / ROOMS {
        for (room, client) in clients.iter().enumerate() {
            let text = format!("m{number}");
            let (key, page) = (room_of(room as u64), &mut rooms[room]);
            let is_read = number % 2 == 1;
            let (f, value) = match is_read {
                true => (history::READ, None),
                false => (history::SEND, Some(json!(text))),
            };
            let begun = Entry {
                key: key.clone(),
                value,
                ..Entry::default()
            };
            history.record(*client, Kind::Invoke, f, begun);
            let shown = match is_read {
                true => Some(json!(page[page.len().saturating_sub(5)..])),
                false => {
                    page.push((page.len() as u64 + 1, text));
                    None
                }
            };
            let end = Entry {
                key,
                value: shown,
                seq: Some(page.len() as u64),
                ..Entry::default()
            };
            history.record(*client, Kind::Ok, f, end);
        }
    }
    let lost = rooms[3].pop();
    for (room, page) in rooms.iter().enumerate() {
        let client = history.new_client();
        let at = Entry {
            key: room_of(room as u64),
            node: Some(1),
            ..Entry::default()
        };
        history.record(client, Kind::Invoke, history::DRAIN, at.clone());
        let value = Some(json!(page));
        history.record(client, Kind::Ok, history::DRAIN, Entry { value, ..at });
    }
    let events = history.events();
    let begun = std::time::Instant::now();
    let judgement = Rooms.check(&events).expect("it can be judged");
    println!("{OPERATIONS} operations were judged in {:?}", begun.elapsed());
    let (seq, text) = lost.expect("there was one");
    assert!(
        judgement.violations[0].contains(&format!("lost: {text:?}, acknowledged at seq {seq}")),
        "{:?}",
        judgement.violations
    );
    // The read after it showed it as well.
    assert_eq!(judgement.violations_total, 2, "{:?}", judgement.violations);
    assert_eq!(judgement.counts["reads"], OPERATIONS / 2);
}
