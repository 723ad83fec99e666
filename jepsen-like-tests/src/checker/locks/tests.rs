//! Histories of locks that kept their promises, and others, each with exactly one fault. Times are milliseconds.

use serde_json::{Value, json};

use super::*;
use crate::checker::testing::Script;
use crate::checker::updates::{ADD, Addition};
use crate::history::Kind;

const MS: u64 = 1_000_000;
const TTL: u64 = 100;

#[derive(Debug, Default, Clone)]
struct History {
    script: Script,
    processes: u64,
    accepted: u64,
}

impl History {
    fn operation(&mut self, f: &str, times: (u64, u64), asked: Value, end: Kind) -> &mut Script {
        self.processes += 1;
        self.script.begin(self.processes, times.0 * MS, f, "l").value(asked);
        self.script.end(self.processes, times.1 * MS, end)
    }

    fn attempt(&mut self, times: (u64, u64), owner: &str, end: Kind) -> &mut Script {
        let asked = json!(Acquire {
            owner: owner.to_owned(),
            ttl_ms: TTL,
            wait_ms: 50
        });
        self.operation(ACQUIRE, times, asked, end)
    }

    fn grant(&mut self, times: (u64, u64), owner: &str, token: u64) -> &mut Self {
        let expires_in_ms = TTL;
        self.attempt(times, owner, Kind::Ok)
            .value(json!(Granted { token, expires_in_ms }));
        self
    }

    fn renew(&mut self, times: (u64, u64), token: u64) -> &mut Self {
        self.operation(RENEW, times, under(token), Kind::Ok);
        self
    }

    fn renewed_in_vain(&mut self, times: (u64, u64), token: u64) -> &mut Self {
        self.operation(RENEW, times, under(token), Kind::Fail).value(LOST);
        self
    }

    fn release(&mut self, times: (u64, u64), token: u64, end: Kind) -> &mut Self {
        self.operation(RELEASE, times, under(token), end);
        self
    }

    fn write(&mut self, times: (u64, u64), token: u64, rev: u64) -> &mut Self {
        let asked = json!(Addition {
            lock: "l".to_owned(),
            token,
            is_fenced: true
        });
        self.operation(ADD, times, asked, Kind::Ok)
            .value(json!({ "from": 0 }))
            .rev(rev);
        self
    }

    fn fence(&mut self, times: (u64, u64), token: u64, end: Kind) -> &mut Self {
        self.accepted += 1;
        let seq = self.accepted;
        let script = self.operation(FENCE, times, under(token), end);
        if end == Kind::Ok {
            script.seq(seq);
        }
        self
    }

    fn look(&mut self, times: (u64, u64), holder: Option<(&str, u64)>, queue: &[&str], last_token: u64) -> &mut Self {
        let holder = holder.map(|(owner, token)| Holder {
            owner: owner.to_owned(),
            token,
        });
        let queue = queue.iter().map(|owner| (*owner).to_owned()).collect();
        let seen = Seen {
            holder,
            queue,
            last_token,
        };
        self.operation(LOOK, times, Value::Null, Kind::Ok).value(json!(seen));
        self
    }

    fn check(&self) -> Judgement {
        LockChecker
            .check(&self.script.sorted())
            .expect("the history is well-formed")
    }

    /// What was found, without the rest of each sentence.
    fn violations(&self) -> Vec<String> {
        let violations = self.check().violations;
        let kind = |violation: &String| violation.split(':').next().unwrap_or_default().to_owned();
        violations.iter().map(kind).collect()
    }
}

fn under(token: u64) -> Value {
    json!(Under { token, ttl_ms: None })
}

/// Ann holds the lock, renews and gives it back; bob gets it while cid waits, and loses it; cid gets it.
fn good() -> History {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .attempt((15, 300), "bob", Kind::Ok)
        .value(json!(Granted {
            token: 7,
            expires_in_ms: TTL
        }));
    history.attempt((30, 90), "dan", Kind::Fail);
    history
        .look((22, 24), Some(("ann", 3)), &["bob"], 3)
        .renew((60, 70), 3)
        .write((80, 90), 3, 5)
        .fence((91, 92), 3, Kind::Ok)
        .release((120, 310), 3, Kind::Ok)
        .grant((130, 460), "cid", 9)
        .look((311, 312), Some(("bob", 7)), &["cid"], 7)
        // The ttl of bob's grant, which was not before 120, is over at 220.
        .renewed_in_vain((320, 330), 7)
        .look((455, 458), Some(("cid", 9)), &[], 9)
        .fence((462, 463), 9, Kind::Ok)
        .fence((464, 465), 7, Kind::Fail)
        .look((800, 900), None, &[], 9);
    history
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let judgement = good().check();
    assert_eq!(judgement.violations, Vec::<String>::new());
    let counts = &judgement.counts;
    let expected = [
        ("grants", 3),
        ("renewals", 1),
        ("guarded writes", 1),
        ("releases", 1),
        ("looks", 4),
    ];
    for (what, count) in expected {
        assert_eq!(counts[what], count, "{what}: {counts:?}");
    }
    assert_eq!(
        (
            counts["writes that a fence accepted"],
            counts["writes that a fence refused"]
        ),
        (2, 1)
    );
}

#[test]
fn a_grant_before_the_ttl_is_over_is_found() {
    let mut history = History::default();
    history.grant((10, 20), "ann", 3).grant((30, 105), "bob", 4);
    assert_eq!(history.violations(), ["granted too early"]);
    let mut history = History::default();
    history.grant((10, 20), "ann", 3).grant((30, 108), "bob", 4);
    assert_eq!(
        history.violations(),
        Vec::<String>::new(),
        "the ttl began at 10 at the earliest"
    );
}

/// Of a leader whose disk hung: the grant was proposed, seen by nobody for long, and its ttl was over soon after.
#[test]
fn a_look_before_the_grant_says_nothing_of_when_it_was_proposed() {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .release((30, 40), 3, Kind::Ok)
        .look((290, 295), None, &[], 3)
        .grant((50, 300), "bob", 4)
        .look((310, 320), None, &[], 4);
    assert_eq!(history.violations(), Vec::<String>::new());
}

#[test]
fn a_grant_before_a_renewed_ttl_is_over_is_found() {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .renew((90, 100), 3)
        .grant((30, 185), "bob", 4);
    assert_eq!(history.violations(), ["granted too early"]);
}

#[test]
fn one_grant_too_early_is_told_once() {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .grant((30, 50), "bob", 4)
        .release((60, 70), 4, Kind::Ok)
        .grant((80, 90), "cid", 5);
    assert_eq!(history.violations(), ["granted too early"]);
}

#[test]
fn a_renewal_of_unknown_outcome_may_come_after_one_that_was_done() {
    let mut history = History::default();
    history.grant((10, 20), "ann", 3);
    let shorter = json!(Under {
        token: 3,
        ttl_ms: Some(20)
    });
    history.operation(RENEW, (30, 40), shorter, Kind::Info);
    history.renew((50, 60), 3);
    let mut early = history.clone();
    history.grant((62, 80), "bob", 4);
    assert_eq!(history.violations(), Vec::<String>::new());
    early.grant((55, 65), "bob", 4);
    assert_eq!(early.violations(), ["granted too early"]);
}

#[test]
fn a_hold_begins_not_before_the_one_before_it_ends() {
    // Bob asked at 15 and was granted at 110 at the earliest, so he holds it until 210.
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .grant((15, 300), "bob", 4)
        .renewed_in_vain((195, 200), 4);
    assert_eq!(history.violations(), ["lost too early"]);
}

#[test]
fn a_release_of_unknown_outcome_ends_a_hold() {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .release((30, 40), 3, Kind::Info)
        .grant((30, 50), "bob", 4);
    assert_eq!(history.violations(), Vec::<String>::new());
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .release((60, 70), 3, Kind::Info)
        .grant((30, 50), "bob", 4);
    assert_eq!(
        history.violations(),
        ["granted too early"],
        "not before it was asked for"
    );
}

#[test]
fn a_grant_that_may_be_lost_when_it_is_answered_promises_nothing() {
    let mut history = History::default();
    history.attempt((10, 20), "ann", Kind::Ok).value(json!(Granted {
        token: 3,
        expires_in_ms: 0
    }));
    history.grant((30, 50), "bob", 4);
    assert_eq!(history.violations(), Vec::<String>::new());
}

#[test]
fn tokens_against_time_are_found() {
    let mut history = good();
    history.grant((950, 960), "eve", 8);
    assert!(!history.violations().is_empty());
    // Of another lock.
    let mut script = good();
    script.processes += 1;
    let asked = json!({ "owner": "eve", "ttl_ms": TTL, "wait_ms": 0 });
    script
        .script
        .begin(100, 950 * MS, ACQUIRE, "other")
        .value(asked)
        .end(100, 960 * MS, Kind::Ok);
    script.script.value(json!({ "token": 8, "expires_in_ms": TTL }));
    assert_eq!(script.violations(), ["tokens against time"]);
}

#[test]
fn a_token_that_was_given_twice_is_found() {
    let mut history = History::default();
    history.grant((10, 20), "ann", 3).grant((11, 500), "bob", 3);
    assert_eq!(history.violations(), ["given twice"]);
}

#[test]
fn a_stale_token_that_is_good_is_found() {
    // By one who knows that he does not hold it any more, so that nothing is said of how long he does.
    let mut history = History::default();
    history.attempt((10, 20), "ann", Kind::Ok).value(json!(Granted {
        token: 3,
        expires_in_ms: 0
    }));
    history.grant((30, 50), "bob", 4).write((60, 70), 3, 9);
    // The grant of 4 stands behind what was done under 3.
    assert_eq!(history.violations(), ["granted too early"]);
}

#[test]
fn what_is_done_under_a_token_before_it_can_be_held_is_found() {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .grant((30, 300), "bob", 4)
        .write((60, 70), 4, 9);
    assert_eq!(history.violations(), ["used too early"]);
}

#[test]
fn a_write_behind_a_greater_token_is_found() {
    let mut history = good();
    // Both may have been at once, by the clocks; the store says in which order they were.
    history.write((440, 500), 9, 20).write((125, 500), 7, 21);
    assert_eq!(history.violations(), ["written behind a greater token"]);
}

#[test]
fn a_lock_that_is_seen_free_while_it_is_held_is_found() {
    let mut history = History::default();
    history.grant((10, 20), "ann", 3).look((30, 40), None, &[], 3);
    assert_eq!(history.violations(), ["seen free too early"]);
}

#[test]
fn a_fence_that_is_broken_or_fences_off_a_holder_is_found() {
    let mut history = good();
    history.fence((470, 471), 7, Kind::Ok);
    assert_eq!(history.violations(), ["fence broken"]);
    let mut history = History::default();
    history.grant((10, 20), "ann", 3).fence((30, 31), 3, Kind::Fail);
    assert_eq!(history.violations(), ["fenced off"]);
}

#[test]
fn who_was_refused_is_not_served_later() {
    let mut history = good();
    history.look((461, 463), Some(("cid", 9)), &["dan"], 9);
    assert_eq!(history.violations(), ["back again"]);
    let mut history = good();
    history.look((950, 960), Some(("dan", 11)), &[], 11);
    assert_eq!(history.violations(), ["back again"]);
}

#[test]
fn who_was_seen_to_be_gone_is_not_served_later() {
    let mut history = History::default();
    history.attempt((0, 5), "eve", Kind::Info);
    history.grant((10, 20), "ann", 3);
    history
        .look((21, 22), Some(("ann", 3)), &["eve"], 3)
        .look((23, 24), Some(("ann", 3)), &[], 3);
    assert_eq!(history.violations(), Vec::<String>::new());
    history.look((300, 310), Some(("eve", 4)), &[], 4);
    assert_eq!(history.violations(), ["back again"]);
}

#[test]
fn who_waited_longer_is_served_first() {
    let mut history = History::default();
    history.grant((10, 20), "ann", 3);
    history
        .look((21, 22), Some(("ann", 3)), &["eve", "fay"], 3)
        .look((300, 310), Some(("fay", 4)), &["eve"], 4);
    assert_eq!(history.violations(), ["out of turn"]);
}

#[test]
fn a_holder_with_two_tokens_is_found() {
    let mut history = History::default();
    history
        .grant((10, 20), "ann", 3)
        .look((310, 320), Some(("ann", 4)), &[], 4);
    assert_eq!(history.violations(), ["two tokens"]);
}

#[test]
fn a_lock_that_nobody_can_take_is_found() {
    let mut history = good();
    history.operation(DRAIN, (1000, 2000), Value::Null, Kind::Fail);
    assert_eq!(history.violations(), ["stuck"]);
}

#[test]
fn a_history_that_cannot_be_judged_is_an_error() {
    let mut no_token = History::default();
    no_token.attempt((10, 20), "ann", Kind::Ok);
    let mut unheard = History::default();
    unheard.operation("lock.steal", (10, 20), Value::Null, Kind::Ok);
    for history in [no_token, unheard] {
        assert!(LockChecker.check(&history.script.sorted()).is_err());
    }
}
