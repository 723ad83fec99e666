use super::*;
use crate::checker::testing::Script;
use crate::history::Kind;

fn read(script: &mut Script, session: u64, time: u64, node: u64, value: &str, rev: u64) {
    script.begin(session, time, READ, "k").end(session, time + 1, Kind::Ok);
    script.value(value).rev(rev).node(node);
}

fn write(script: &mut Script, session: u64, time: u64, value: &str, rev: u64) {
    script
        .begin(session, time, WRITE, "k")
        .value(value)
        .end(session, time + 1, Kind::Ok)
        .rev(rev);
}

fn good() -> Script {
    let mut script = Script::default();
    write(&mut script, 1, 0, "a", 1);
    read(&mut script, 1, 2, 1, "a", 1);
    // Another session may be behind.
    write(&mut script, 2, 4, "b", 5);
    read(&mut script, 1, 6, 2, "a", 1);
    read(&mut script, 1, 8, 3, "b", 5);
    script.begin(1, 10, READ, "k").end(1, 11, Kind::Fail);
    script
}

/// What was found, without the rest of each sentence.
fn violations(script: &Script) -> Vec<String> {
    let judgement = Sessions.check(&script.events()).expect("the history is well-formed");
    let kind = |violation: &String| violation.split(':').next().unwrap_or_default().to_owned();
    judgement.violations.iter().map(kind).collect()
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let judgement = Sessions.check(&good().events()).expect("the history is well-formed");
    assert_eq!(judgement.violations, Vec::<String>::new());
    let expected = [
        ("acknowledged writes", 2),
        ("hops to another node", 2),
        ("reads", 3),
        ("sessions", 2),
    ];
    assert_eq!(judgement.counts.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_read_that_goes_back_is_found() {
    let mut script = good();
    read(&mut script, 1, 12, 1, "a", 1);
    assert_eq!(violations(&script), ["time goes back"]);
}

#[test]
fn an_own_write_that_is_not_read_is_found() {
    let mut script = good();
    read(&mut script, 2, 12, 1, "a", 1);
    assert_eq!(violations(&script), ["own write not read"]);
}

#[test]
fn another_value_at_the_same_rev_is_found() {
    let mut script = good();
    read(&mut script, 3, 12, 1, "z", 5);
    assert_eq!(violations(&script), ["two values"]);
}

#[test]
fn what_is_unknown_promises_nothing() {
    let mut script = good();
    script.begin(4, 12, WRITE, "k").value("c").end(4, 13, Kind::Info);
    read(&mut script, 5, 14, 1, "b", 5);
    assert_eq!(violations(&script), Vec::<String>::new());
}

#[test]
fn a_history_that_cannot_be_judged_is_an_error() {
    let mut script = Script::default();
    script.begin(1, 0, READ, "k").end(1, 1, Kind::Ok).value("a");
    assert!(Sessions.check(&script.events()).is_err(), "no rev");
    let mut script = Script::default();
    script.begin(1, 0, "session.swap", "k").end(1, 1, Kind::Ok);
    assert!(Sessions.check(&script.events()).is_err());
}
