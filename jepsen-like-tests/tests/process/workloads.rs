//! Each workload against real nodes while leaders are killed and paused: its checkers have something to judge and find nothing;
//! and the control run loses updates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate_torture::checker::locks::{ACQUIRE, LOOK, LockChecker, RENEW};
use quorate_torture::checker::register::{self, RegisterChecker};
use quorate_torture::checker::sessions::{self, Sessions as SessionChecker};
use quorate_torture::checker::streams::{self, Streams as StreamChecker};
use quorate_torture::checker::updates::{ADD, Updates};
use quorate_torture::checker::windows::Windows;
use quorate_torture::checker::{Checker, Judgement};
use quorate_torture::cluster::Cluster;
use quorate_torture::history::{Event, History, Kind};
use quorate_torture::wait::eventually;
use quorate_torture::workloads::locks::{Locks, UnfencedLocks};
use quorate_torture::workloads::register::Registers;
use quorate_torture::workloads::sessions::Sessions;
use quorate_torture::workloads::streams::Streams;
use quorate_torture::workloads::{Stage, Workload};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::SOON;

/// Leaders that are killed or paused in turn, unless `QUORATE_TEST_FAULTS` says otherwise.
const FAULTS: u64 = 2;
/// When this variable names a folder, the history of each run is left there.
const HISTORIES: &str = "QUORATE_TEST_HISTORIES";

/// What came of a run.
struct Run {
    events: Vec<Event>,
    judgements: Vec<(&'static str, Judgement)>,
}

impl Run {
    fn judgement(&self, checker: &str) -> &Judgement {
        let found = self.judgements.iter().find(|(name, _)| *name == checker);
        &found.unwrap_or_else(|| panic!("{checker} is none of its checkers")).1
    }

    fn assert_no_violations(&self) {
        for (name, judgement) in &self.judgements {
            assert_eq!(judgement.violations, Vec::<String>::new(), "{name}");
        }
    }

    /// Each of these checkers finds something once the history is changed.
    fn assert_found(&self, checkers: &[&dyn Checker], change: impl FnOnce(&mut [Event])) {
        let mut events = self.events.clone();
        change(&mut events);
        assert_ne!(events, self.events, "nothing was changed");
        for checker in checkers {
            let judgement = checker.check(&events).unwrap();
            assert!(judgement.violations_total > 0, "{} finds nothing", checker.name());
        }
    }
}

/// Lets the clients work while leaders die. Goes on until `enough` of the history.
async fn run(workload: &dyn Workload, enough: impl Fn(&[Event]) -> bool) -> Result<Run> {
    let cluster = Arc::new(Cluster::options().start().await?);
    let history = Arc::new(History::to_file(&cluster.folder().join("history.jsonl"))?);
    let stage = Stage::new(cluster.clone(), history.clone(), 1);
    workload.prepare(&stage).await?;
    let mut clients: JoinSet<Result<()>> = workload.clients(&stage).into_iter().collect();
    let faults: u64 = std::env::var("QUORATE_TEST_FAULTS").map_or(FAULTS, |text| text.parse().unwrap());
    let faults = Box::pin(async {
        for fault in 0..faults {
            wait_ends(&history, 50).await?;
            let leader = cluster.leader().await?;
            let is_kill = fault % 2 == 0;
            if is_kill {
                cluster.kill(leader).await?;
                history.fault("kill", Some(leader));
            } else {
                cluster.pause(leader)?;
                history.fault("pause", Some(leader));
            }
            cluster.leader_after(leader).await?;
            wait_ends(&history, 50).await?;
            if is_kill {
                cluster.restart(leader)?;
            } else {
                cluster.resume(leader)?;
            }
            cluster.wait_all_ready().await?;
        }
        eventually("there is enough to judge", Duration::from_secs(60), async || {
            if enough(&history.events()) {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await
    });
    tokio::select! {
        done = faults => done?,
        // None of them ends before it is told to.
        ended = clients.join_next() => ended.context("a workload has clients")?.context("a client panicked")?.context("a client gave up")?,
    }
    stage.stop();
    while let Some(ended) = clients.join_next().await {
        ended.context("a client panicked")??;
    }
    workload.drain(&stage).await?;
    cluster.verify().await?;
    let events = history.events();
    if let Some(folder) = std::env::var_os(HISTORIES) {
        let to = Path::new(&folder).join(format!("{}.jsonl", workload.name()));
        std::fs::copy(cluster.folder().join("history.jsonl"), to)?;
    }
    let mut judgements = Vec::new();
    for checker in workload.checkers() {
        let judgement = checker.check(&events)?;
        println!(
            "{}: {} violations, {:?}",
            checker.name(),
            judgement.violations_total,
            judgement.counts
        );
        judgements.push((checker.name(), judgement));
    }
    Ok(Run { events, judgements })
}

/// Waits until so many more operations have ended.
async fn wait_ends(history: &History, more: usize) -> Result<()> {
    let goal = history.events().len() + 2 * more;
    eventually("operations end", SOON, async || match history.events().len() {
        now if now >= goal => Ok(()),
        now => Err(format!("{now} of {goal} events")),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registers_are_linearizable_while_leaders_die() {
    let run = run(&Registers, |_| true).await.unwrap();
    run.assert_no_violations();
    let judgement = run.judgement("registers");
    for what in ["reads", "acknowledged writes", "refused compare-and-sets"] {
        assert!(judgement.counts[what] >= 20, "{what}: {judgement:?}");
    }
    assert!(run.judgement("windows").counts["windows"] > 0);
    run.assert_found(&[&RegisterChecker, &Windows], |events| {
        go_back(events, register::READ, false)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_go_forward_on_every_node_while_leaders_die() {
    let run = run(&Sessions, |_| true).await.unwrap();
    run.assert_no_violations();
    let judgement = run.judgement("sessions");
    for what in ["reads", "acknowledged writes", "hops to another node"] {
        assert!(judgement.counts[what] >= 50, "{what}: {judgement:?}");
    }
    run.assert_found(&[&SessionChecker], |events| go_back(events, sessions::READ, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_where_they_were_cut_while_leaders_die() {
    let run = run(&Streams, |events| count(events, streams::READ) >= 60)
        .await
        .unwrap();
    run.assert_no_violations();
    let judgement = run.judgement("streams");
    for (what, least) in [
        ("resumptions by id", 20),
        ("messages", 200),
        ("edits", 20),
        ("bookmarks", 20),
    ] {
        assert!(judgement.counts[what] >= least, "{what}: {judgement:?}");
    }
    // One message of a connection is left out.
    run.assert_found(&[&StreamChecker], |events| {
        let is_message = |frame: &Value| frame.get("message").is_some();
        let mut frames = done(events, streams::READ).filter_map(|read| read.value.as_mut()?.as_array_mut());
        let long = frames.find(|frames| frames.iter().filter(|frame| is_message(frame)).count() >= 3);
        let long = long.expect("some connection delivered three messages");
        let first = long.iter().position(is_message).expect("it has three");
        long.remove(first);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_have_one_holder_and_fenced_counters_lose_nothing_while_leaders_die() {
    let enough = |events: &[Event]| [ACQUIRE, RENEW, ADD, LOOK].iter().all(|f| count(events, f) >= 20);
    let run = run(&Locks, enough).await.unwrap();
    run.assert_no_violations();
    let locks = run.judgement("locks");
    for (what, least) in [("grants", 20), ("renewals", 10), ("guarded writes", 20), ("looks", 20)] {
        assert!(locks.counts[what] >= least, "{what}: {locks:?}");
    }
    // The first grant of a lock was answered with a later one's token.
    run.assert_found(&[&LockChecker], |events| {
        let (first, last) = first_and_last(events, ACQUIRE);
        let earlier = events[first].value.take();
        events[first].value = std::mem::replace(&mut events[last].value, earlier);
    });
    // Two additions to a counter came to the same.
    run.assert_found(&[&Updates], |events| {
        let (first, last) = first_and_last(events, ADD);
        events[last].value = events[first].value.clone();
    });
}

/// If it loses nothing, neither does the fenced run prove anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_without_fencing_loses_updates() {
    let run = run(&UnfencedLocks, |events| count(events, ADD) >= 60).await.unwrap();
    let updates = run.judgement("updates");
    assert!(updates.counts["lost updates"] > 0, "{updates:?}");
    assert_eq!(
        run.judgement("locks").violations,
        Vec::<String>::new(),
        "the locks themselves do as they should"
    );
}

/// The ends of operations of this kind that were done.
fn done<'a>(events: &'a mut [Event], f: &'a str) -> impl Iterator<Item = &'a mut Event> {
    events.iter_mut().filter(move |event| is_done(event, f))
}

fn is_done(event: &Event, f: &str) -> bool {
    event.f == f && event.kind == Kind::Ok
}

/// Where the first and the last end of an operation of this kind on one key are, whichever key has two: which lock a client
/// takes is a matter of chance.
fn first_and_last(events: &[Event], f: &str) -> (usize, usize) {
    let done: Vec<(usize, &Event)> = (0..).zip(events).filter(|(_, event)| is_done(event, f)).collect();
    let pairs = done
        .iter()
        .flat_map(|first| done.iter().rev().map(move |last| (first, last)));
    let mut same = pairs.filter(|((at, first), (to, last))| at < to && first.key == last.key);
    let (first, last) = same.next().expect("there are more of them than keys");
    (first.0, last.0)
}

/// Has the last read show what the first read of the same, by the same client if `same_client`, has shown.
fn go_back(events: &mut [Event], f: &str, same_client: bool) {
    let reads: Vec<Event> = done(events, f).map(|event| event.clone()).collect();
    let is_like = |a: &Event, b: &Event| a.key == b.key && (!same_client || a.process == b.process);
    let pairs = reads
        .iter()
        .rev()
        .flat_map(|last| reads.iter().map(move |first| (first, last)));
    let mut older = pairs.filter(|(first, last)| is_like(first, last) && first.rev < last.rev);
    // A session that has seen the later state goes back behind it.
    let (first, last) = older.next().expect("something changed while it was read");
    let (shown, index) = (first.clone(), last.index);
    if same_client {
        let (from, to) = (last.clone(), first.index);
        (events[to as usize].value, events[to as usize].rev) = (from.value, from.rev);
    }
    (events[index as usize].value, events[index as usize].rev) = (shown.value, shown.rev);
}

/// Operations of this kind that were done.
fn count(events: &[Event], f: &str) -> usize {
    events.iter().filter(|event| is_done(event, f)).count()
}
