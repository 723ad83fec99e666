//! Connections as they should be, and others, each with exactly one fault.

use serde_json::json;

use super::*;
use crate::checker::testing::Script;
use crate::history::Kind;

/// A room with five messages, seq n sent at rev 10 n; the fourth is of unknown outcome. Seq 2 was edited at rev 35 and at
/// rev 55, seq 3 redacted at rev 45.
fn room() -> Script {
    let mut script = Script::default();
    for seq in 1..=5_u64 {
        script.begin(seq, seq, SEND, "hall").value(format!("m{seq}"));
        if seq != 4 {
            script.end(seq, seq, Kind::Ok).seq(seq).rev(10 * seq);
        }
    }
    for (process, text, rev) in [(11, "m2 one", 35), (12, "m2 two", 55)] {
        script
            .begin(process, 20, EDIT, "hall")
            .value(text)
            .seq(2)
            .end(process, 20, Kind::Ok)
            .rev(rev);
    }
    script.begin(13, 21, REDACT, "hall").seq(3).end(13, 21, Kind::Ok);
    for node in 1..=3 {
        script
            .begin(20 + node, 30, DRAIN, "hall")
            .node(node)
            .end(20 + node, 30, Kind::Ok);
        script.value(json!([[1, "m1"], [2, "m2 two"], [3, null], [4, "m4"], [5, "m5"]]));
    }
    script
}

fn message(seq: u64, text: &str) -> Frame {
    let text = Some(text.to_owned());
    Frame::Message { seq, text }
}

fn edit(seq: u64, rev: u64, text: &str) -> Frame {
    let text = Some(text.to_owned());
    Frame::Edit { seq, rev, text }
}

fn bookmark(rev: u64) -> Frame {
    Frame::Bookmark { rev }
}

fn by_seq(after: u64) -> Begin {
    Begin::Seq { after }
}

fn by_id(after: u64, rev: Option<u64>) -> Begin {
    Begin::Id { after, rev }
}

fn judge(connections: &[(Begin, Vec<Frame>)]) -> Judgement {
    let mut script = room();
    for (begin, frames) in connections {
        script
            .begin(40, 40, READ, "hall")
            .value(json!(begin))
            .end(40, 40, Kind::Ok)
            .value(json!(frames));
    }
    Streams.check(&script.events()).expect("the history is well-formed")
}

/// What was found in this connection, without the rest of each sentence.
fn violations(begin: Begin, frames: &[Frame]) -> Vec<String> {
    let judgement = judge(&[(begin, frames.to_vec())]);
    let kind = |violation: &String| violation.split(':').next().unwrap_or_default().to_owned();
    judgement.violations.iter().map(kind).collect()
}

#[test]
fn good_connections_pass_and_are_counted() {
    let redacted = Frame::Message { seq: 3, text: None };
    let redact = Frame::Redact { seq: 3, rev: 45 };
    let judgement = judge(&[
        // Read as it happened.
        (
            by_seq(0),
            vec![
                message(1, "m1"),
                message(2, "m2"),
                bookmark(25),
                message(3, "m3"),
                edit(2, 35, "m2 one"),
            ],
        ),
        // On behind the edit; the edit shows a later text.
        (
            by_id(3, Some(35)),
            vec![
                bookmark(35),
                message(4, "m4"),
                redact.clone(),
                message(5, "m5"),
                edit(2, 55, "m2 two"),
            ],
        ),
        // On behind a message.
        (
            by_id(1, None),
            vec![
                message(2, "m2 two"),
                redacted.clone(),
                edit(2, 35, "m2 two"),
                message(4, "m4"),
            ],
        ),
        // A replay of what is long over, without the edits.
        (
            by_seq(1),
            vec![
                message(2, "m2 two"),
                redacted,
                message(4, "m4"),
                message(5, "m5"),
                bookmark(60),
            ],
        ),
        (by_id(5, Some(60)), vec![]),
    ]);
    assert_eq!(judgement.violations, Vec::<String>::new());
    let expected = [
        ("bookmarks", 3),
        ("connections", 5),
        ("edits", 3),
        ("messages", 12),
        ("redactions", 1),
        ("resumptions by id", 3),
    ];
    assert_eq!(judgement.counts.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_gap_is_found() {
    assert_eq!(violations(by_seq(0), &[message(1, "m1"), message(3, "m3")]), ["gap"]);
    assert_eq!(
        violations(by_id(1, Some(15)), &[message(3, "m3")]),
        ["gap"],
        "at the resumption"
    );
}

#[test]
fn a_duplicate_is_found() {
    // Of the one whose rev nobody was told.
    assert_eq!(
        violations(by_id(4, None), &[message(4, "m4"), message(5, "m5")]),
        ["duplicate"]
    );
    let repeated = violations(by_seq(0), &[message(1, "m1"), message(1, "m1")]);
    assert!(repeated.contains(&"duplicate".to_owned()), "{repeated:?}");
}

#[test]
fn another_text_is_found() {
    assert_eq!(violations(by_seq(0), &[message(1, "m2")]), ["wrong text"]);
    assert_eq!(
        violations(by_seq(0), &[Frame::Message { seq: 1, text: None }]),
        ["wrong text"],
        "not redacted"
    );
}

#[test]
fn a_message_that_is_not_in_the_room_is_found() {
    assert_eq!(violations(by_seq(5), &[message(6, "m6")]), ["vanished"]);
}

#[test]
fn a_bookmark_before_its_time_is_found() {
    assert_eq!(
        violations(by_seq(0), &[message(1, "m1"), bookmark(20)]),
        ["bookmark too far"]
    );
}

#[test]
fn what_comes_behind_a_bookmark_is_found() {
    let frames = [message(5, "m5"), bookmark(57), edit(2, 55, "m2 two")];
    assert_eq!(violations(by_seq(4), &frames), ["behind a bookmark"]);
}

#[test]
fn an_order_that_is_not_that_of_revs_is_found() {
    let frames = [edit(2, 55, "m2 two"), message(5, "m5")];
    assert_eq!(violations(by_id(4, Some(46)), &frames), ["out of order"]);
    let repeated = [edit(2, 35, "m2 one")];
    assert_eq!(
        violations(by_id(3, Some(35)), &repeated),
        ["out of order"],
        "what was delivered before"
    );
}

#[test]
fn an_edit_that_is_left_out_is_found() {
    let frames = [message(4, "m4"), message(5, "m5")];
    assert_eq!(violations(by_id(3, None), &frames), ["edit left out"]);
    // A bookmark is a promise of edits too, after a replay as well.
    let frames = [message(3, "m3"), bookmark(34), bookmark(36)];
    assert_eq!(violations(by_seq(2), &frames), ["edit left out"]);
}

#[test]
fn changes_that_nobody_asked_for_are_found() {
    assert_eq!(violations(by_seq(5), &[edit(1, 70, "m1")]), ["phantom"]);
    assert_eq!(violations(by_seq(5), &[edit(2, 70, "m7")]), ["phantom"]);
    assert_eq!(violations(by_seq(5), &[Frame::Redact { seq: 1, rev: 70 }]), ["phantom"]);
}

#[test]
fn rooms_that_differ_have_holes_or_lost_something_are_found() {
    let with = |node: u64, page: serde_json::Value| {
        let mut script = room();
        script
            .begin(20 + node, 30, DRAIN, "hall")
            .node(node)
            .end(20 + node, 30, Kind::Ok)
            .value(page);
        let judgement = Streams.check(&script.events()).expect("the history is well-formed");
        judgement.violations.join("\n")
    };
    assert!(with(2, json!([[1, "m1"]])).starts_with("diverged"));
    let hole = with(2, json!([[1, "m1"], [3, "m3"]]));
    assert!(
        hole.contains("hole: room hall on node 2 has seq 3 where 2 belongs"),
        "{hole}"
    );
    let mut script = room();
    script
        .begin(60, 60, SEND, "hall")
        .value("m6")
        .end(60, 61, Kind::Ok)
        .seq(6)
        .rev(60);
    let judgement = Streams.check(&script.events()).expect("the history is well-formed");
    assert_eq!(judgement.violations.len(), 1);
    assert!(judgement.violations[0].starts_with("lost"));
}

#[test]
fn a_room_that_was_never_drained_cannot_be_judged() {
    let mut script = Script::default();
    script
        .begin(1, 0, SEND, "hall")
        .value("m")
        .end(1, 1, Kind::Ok)
        .seq(1)
        .rev(1);
    assert!(Streams.check(&script.events()).is_err());
}
