//! The general checker finds what the sweep finds, and nothing else.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::checker::register::{CAS, READ as READ_REGISTER, RegisterChecker, WRITE};
use crate::checker::testing::Script;
use crate::history::{DRAIN, Kind, READ, SEND};

fn windows(events: &[Event]) -> Judgement {
    Windows.check(events).expect("the history can be judged")
}

#[test]
fn a_history_of_which_more_than_half_is_undecided_is_not_decided() {
    assert!(is_decided(0, 0) && is_decided(0, 1) && is_decided(2, 4));
    assert!(!is_decided(1, 1) && !is_decided(3, 5));
}

#[test]
fn a_concurrent_history_passes_and_a_stale_read_does_not() {
    let mut script = Script::default();
    script.begin(1, 0, WRITE, "k").value("a").end(1, 5, Kind::Ok).rev(1);
    script
        .begin(2, 6, WRITE, "k")
        .value("b")
        .begin(3, 7, READ_REGISTER, "k");
    script
        .end(3, 8, Kind::Ok)
        .value("a")
        .rev(1)
        .begin(3, 9, READ_REGISTER, "k");
    script
        .end(3, 10, Kind::Ok)
        .value("b")
        .rev(2)
        .end(2, 11, Kind::Ok)
        .rev(2);
    let judgement = windows(&script.events());
    assert_eq!((judgement.violations_total, judgement.counts["operations"]), (0, 4));
    script
        .begin(3, 12, READ_REGISTER, "k")
        .end(3, 13, Kind::Ok)
        .value("a")
        .rev(1);
    assert_eq!(windows(&script.events()).violations_total, 1);
}

#[test]
fn a_stale_read_of_a_room_is_found_also_windows_later() {
    let mut script = Script::default();
    let length = 3 * WINDOW_OPERATIONS as u64;
    let mut page = Vec::new();
    for n in 1..=length {
        let text = format!("m{n}");
        script.begin(n, 10 * n, SEND, "hall").value(text.as_str());
        // Some are never answered, and are in the room all the same.
        if n % 10 != 0 {
            script.end(n, 10 * n + 5, Kind::Ok).seq(n);
        }
        page.push((n, text));
    }
    let end = 10 * length + 10;
    script
        .begin(length + 1, end, READ, "hall")
        .end(length + 1, end + 1, Kind::Ok);
    script.value(json!(page[page.len() - 1..])).seq(length);
    let mut stale = script.clone();
    stale
        .begin(length + 2, end + 2, READ, "hall")
        .end(length + 2, end + 3, Kind::Ok);
    stale.value(json!(page[8..9])).seq(9);
    for script in [&mut script, &mut stale] {
        script
            .begin(length + 3, end + 4, DRAIN, "hall")
            .end(length + 3, end + 5, Kind::Ok);
        script.node(1).value(json!(page));
    }
    let judgement = windows(&script.events());
    assert_eq!(judgement.violations, Vec::<String>::new());
    assert!(judgement.counts["windows"] >= 3, "{judgement:?}");
    let found = windows(&stale.events());
    assert_eq!(found.violations_total, 1, "{found:?}");
}

/// Clients that overtake one that hangs for long: the search must not try all the orders of what it spans.
#[test]
fn a_write_that_is_answered_late_does_not_stop_the_search() {
    let mut script = Script::default();
    let length = 10 * WINDOW_OPERATIONS as u64;
    script.begin(1, 0, WRITE, "k").value("late");
    for n in 1..length {
        let (at, client) = (10 * n, 2 + n % 4);
        let rev = if n < length / 2 { n } else { n + 1 };
        script.begin(client, at, WRITE, "k").value(n.to_string());
        script.begin(10, at + 1, READ_REGISTER, "k");
        script.end(client, at + 35, Kind::Ok).rev(rev);
        script.end(10, at + 9, Kind::Ok).value(n.to_string()).rev(rev);
    }
    script.end(1, 10 * length + 100, Kind::Ok).rev(length / 2);
    let events = script.sorted();
    let judgement = windows(&events);
    assert_eq!(judgement.violations, Vec::<String>::new());
    let told = (
        judgement.counts["operations"],
        judgement.counts["undecided windows"],
        judgement.counts["windows too long to search"],
    );
    assert_eq!(told, (2 * length - 1, 0, 0));
    assert!(judgement.counts["windows"] >= 10, "{judgement:?}");
}

#[test]
fn a_million_operations_are_decided_within_seconds() {
    let mut script = Script::default();
    for n in 0..500_000_u64 {
        let (at, key) = (10 * n, if n % 2 == 0 { "k" } else { "l" });
        script
            .begin(1, at, WRITE, key)
            .value(n.to_string())
            .begin(2, at + 1, READ_REGISTER, key);
        script.end(1, at + 5, Kind::Ok).rev(n + 1);
        script.end(2, at + 6, Kind::Ok).value(n.to_string()).rev(n + 1);
    }
    let events = script.events();
    let begun = std::time::Instant::now();
    let judgement = windows(&events);
    println!("{:?} in {:?}", judgement.counts, begun.elapsed());
    assert_eq!(
        (judgement.violations_total, judgement.counts["operations"]),
        (0, 1_000_000)
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// What a client asks of the register, and how long it takes to be heard and to be answered.
#[derive(Debug, Clone)]
struct Asked {
    begin: u64,
    heard_after: u64,
    answered_after: u64,
    what: u8,
}

/// A lie about one operation: its rev or its times are others than they were.
#[derive(Debug, Clone)]
enum Lie {
    None,
    Rev { which: usize, by: u64 },
    Later { which: usize, by: u64 },
    Swapped { which: usize, with: usize },
    NotRefused { which: usize },
}

#[derive(Debug, Clone)]
struct Happened {
    invoke: u64,
    complete: Option<u64>,
    f: &'static str,
    asked: serde_json::Value,
    kind: Kind,
    answer: serde_json::Value,
    rev: u64,
}

/// What one register would have answered.
fn happen(mut asked: Vec<Asked>) -> Vec<Happened> {
    asked.sort_by_key(|asked| asked.begin + asked.heard_after);
    let (mut rev, mut value) = (1, "begin".to_owned());
    let mut happened = vec![Happened {
        invoke: 0,
        complete: Some(1),
        f: WRITE,
        asked: json!(value),
        kind: Kind::Ok,
        answer: json!(null),
        rev,
    }];
    let mut revs = vec![1];
    for (
        n,
        Asked {
            begin,
            heard_after,
            answered_after,
            what,
        },
    ) in asked.into_iter().enumerate()
    {
        let invoke = begin + 2;
        let complete = Some(invoke + heard_after + answered_after);
        let new = format!("v{n}");
        let mut this = Happened {
            invoke,
            complete,
            f: READ_REGISTER,
            asked: json!(null),
            kind: Kind::Ok,
            answer: json!(value),
            rev,
        };
        if what >= 4 {
            let old = revs[usize::from(what) % revs.len()];
            let if_rev = if what % 2 == 0 { rev } else { old };
            let is_cas = what >= 7;
            this.f = if is_cas { CAS } else { WRITE };
            this.asked = if is_cas {
                json!({ "if_rev": if_rev, "value": new })
            } else {
                json!(new)
            };
            this.answer = json!(null);
            if is_cas && if_rev != rev {
                this.kind = Kind::Fail;
                this.rev = if_rev;
            } else {
                // Revs are those of a whole store: they may leap.
                rev += 1 + u64::from(what % 3);
                value = new;
                revs.push(rev);
                this.rev = rev;
                if what == 6 {
                    this.complete = None;
                }
            }
        }
        let is_unknown = this.complete.is_none();
        happened.push(this);
        if is_unknown {
            // Somebody sees it at once: nobody can name a rev that nobody was told.
            happened.push(Happened {
                invoke,
                complete,
                f: READ_REGISTER,
                asked: json!(null),
                kind: Kind::Ok,
                answer: json!(value),
                rev,
            });
        }
    }
    happened
}

fn lie(happened: &mut [Happened], lie: &Lie) {
    let count = happened.len();
    match lie {
        Lie::None => {}
        Lie::Rev { which, by } => happened[which % count].rev += by,
        Lie::Later { which, by } => {
            let this = &mut happened[which % count];
            this.invoke += by;
            this.complete = this.complete.map(|complete| complete + by);
        }
        Lie::Swapped { which, with } => {
            let (a, b) = (happened[which % count].clone(), happened[with % count].clone());
            if a.f == READ_REGISTER && b.f == READ_REGISTER {
                (happened[which % count].answer, happened[which % count].rev) = (b.answer, b.rev);
                (happened[with % count].answer, happened[with % count].rev) = (a.answer, a.rev);
            }
        }
        Lie::NotRefused { which } => {
            let current = happened.iter().map(|this| this.rev).max().unwrap_or_default();
            let this = &mut happened[which % count];
            if this.kind == Kind::Fail {
                (this.asked["if_rev"], this.rev) = (json!(current), current);
            }
        }
    }
}

fn script(happened: &[Happened]) -> Vec<Event> {
    let mut script = Script::default();
    for (process, this) in happened.iter().enumerate() {
        let process = process as u64;
        // Nobody begins in the very moment in which another one is answered: the sweep takes them for concurrent, as nobody
        // can tell, and the search goes by the order of events.
        script.begin(process, 2 * this.invoke, this.f, "k");
        if !this.asked.is_null() {
            script.value(this.asked.clone());
        }
        if let Some(complete) = this.complete {
            script.end(process, 2 * complete + 1, this.kind).rev(this.rev);
            if !this.answer.is_null() {
                script.value(this.answer.clone());
            }
        }
    }
    script.sorted()
}

fn asked() -> impl Strategy<Value = Asked> {
    (0_u64..60, 0_u64..12, 1_u64..12, 0_u8..12).prop_map(|(begin, heard_after, answered_after, what)| Asked {
        begin,
        heard_after,
        answered_after,
        what,
    })
}

fn lies() -> impl Strategy<Value = Lie> {
    prop_oneof![
        Just(Lie::None),
        (any::<usize>(), 1_u64..4).prop_map(|(which, by)| Lie::Rev { which, by }),
        (any::<usize>(), 1_u64..40).prop_map(|(which, by)| Lie::Later { which, by }),
        (any::<usize>(), any::<usize>()).prop_map(|(which, with)| Lie::Swapped { which, with }),
        any::<usize>().prop_map(|which| Lie::NotRefused { which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_the_sweep(asked in vec(asked(), 1..14), told in lies()) {
        let mut happened = happen(asked);
        lie(&mut happened, &told);
        let events = script(&happened);
        let swept = RegisterChecker.check(&events).expect("the history can be judged");
        let searched = windows(&events);
        prop_assert_eq!(
            swept.violations_total == 0,
            searched.violations_total == 0,
            "{:?}\n{:?}\n{:#?}", swept, searched, events
        );
        if matches!(told, Lie::None) {
            prop_assert_eq!(swept.violations_total, 0, "{:?}\n{:#?}", swept, events);
        }
    }
}
