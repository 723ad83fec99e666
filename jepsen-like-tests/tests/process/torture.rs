//! `torture` as a whole: a short run with faults of three kinds, and what its exit codes say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use quorate_torture::checker::{Checker, Judgement};
use quorate_torture::cli;
use quorate_torture::cluster::Cluster;
use quorate_torture::history::{self, Event};
use quorate_torture::nemesis::{Begun, Fault};
use quorate_torture::run::outcome::Conclusion;
use quorate_torture::run::settings::Settings;
use quorate_torture::run::{self, Parts};
use quorate_torture::workloads::{self, Stage, Workload};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;

/// Time for three faults of each of three kinds and the quiet times between, also on a busy machine.
const SMOKE_SECONDS: u64 = 45;

/// The simplest faults, made by what every cluster can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Simple {
    Kill,
    Pause,
    Partition,
    /// Cannot be made anywhere.
    Forbidden,
}

impl Simple {
    async fn kill(cluster: &Cluster, id: u64) -> Result<()> {
        let node = cluster.node(id);
        node.process().signal(Signal::SIGKILL)?;
        while node.process().runs() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Simple {
    fn kind(&self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Forbidden => "forbidden",
        }
    }

    fn about(&self) -> &'static str {
        "for tests"
    }

    fn permitted(&self, _: &Cluster) -> Result<(), String> {
        match self {
            Self::Forbidden => Err("it is forbidden".to_owned()),
            _ => Ok(()),
        }
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let simple = *self;
        let ids = cluster.ids();
        let node = ids[dice.random_range(0..ids.len())];
        match simple {
            Self::Kill => Self::kill(cluster, node).await?,
            Self::Pause => cluster.pause(node)?,
            _ => cluster.network().isolate(node),
        }
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: format!("node {node}"),
            nodes: vec![node],
            lasts: Duration::from_millis(500),
            heal: Box::pin(async move {
                match simple {
                    Self::Kill => cluster.restart(node),
                    Self::Pause => cluster.resume(node),
                    _ => {
                        cluster.network().heal();
                        Ok(())
                    }
                }
            }),
        }))
    }
}

fn settings(out: &Path, faults: &[Simple], seconds: u64) -> Settings {
    Settings {
        nodes: 3,
        workloads: rooms().iter().map(|workload| workload.name().to_owned()).collect(),
        nemeses: faults.iter().map(|fault| fault.kind().to_owned()).collect(),
        seconds,
        seed: 7,
        clients: 2,
        // Of three nodes one may be broken at a time.
        faults_at_once: 1,
        every_ms: 500,
        binary: None,
        out: out.to_owned(),
    }
}

async fn parts(workloads: Vec<Box<dyn Workload>>, faults: &[Simple]) -> Parts {
    let cluster = Cluster::options().breakable_links().start().await.unwrap();
    Parts {
        cluster: Arc::new(cluster),
        workloads,
        faults: faults.iter().map(|fault| Box::new(*fault) as Box<dyn Fault>).collect(),
        heal_all: |_| Box::pin(std::future::ready(Ok(()))),
        unexpected_ends: |_| Vec::new(),
    }
}

/// Three kinds of faults, each three times, under all workloads of rooms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_faults_passes_and_leaves_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let faults = [Simple::Kill, Simple::Pause, Simple::Partition];
    let settings = settings(folder.path(), &faults, SMOKE_SECONDS);
    let rooms = rooms();
    let (_stop, stopped) = watch::channel(false);
    let outcome = run::run(&settings, parts(rooms, &faults).await, stopped).await.unwrap();
    println!("{}", outcome.headline);
    println!("{:#?}", outcome.faults);
    assert_eq!(
        outcome.conclusion,
        Conclusion::Passed,
        "{:?} {:?}",
        outcome.failures,
        outcome.doubts
    );
    assert!(outcome.converged_ms.is_some());
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(html.contains("no violation in") && !html.contains("proved"));
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("result.json")).unwrap()).unwrap();
    assert_eq!(result["conclusion"], "passed");
    assert!(result["faults"]["kill"]["times"].as_u64().unwrap() >= 3, "{result}");
    assert!(folder.path().join("node-3.log").is_file());

    // The history alone says the same.
    let history = folder.path().join("history.jsonl");
    assert_eq!(torture(&["check", path(&history)]).await.code, Some(0));
    // A message that was acknowledged and is in no node's room in the end is found.
    let events = history::read_file(&history).unwrap();
    let broken = folder.path().join("broken.jsonl");
    std::fs::write(&broken, lines(&without_one_message(events))).unwrap();
    let checked = torture(&["check", path(&broken)]).await;
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stdout.contains("lost: "), "{}", checked.stdout);
}

/// The workloads of this kind, whatever others there are.
fn rooms() -> Vec<Box<dyn Workload>> {
    let mut all = workloads::all();
    all.retain(|workload| ["append", "sends", "batches"].contains(&workload.name()));
    all
}

/// Takes the first acknowledged message of a room out of what the nodes have in the end.
fn without_one_message(mut events: Vec<Event>) -> Vec<Event> {
    let acknowledged = |event: &Event| event.f == history::SEND && event.seq == Some(1);
    let room = events.iter().find(|event| acknowledged(event)).unwrap().key.clone();
    let drained = |event: &Event| event.f == history::DRAIN && event.key == room;
    events.retain(|event| !drained(event) || event.value.as_ref().is_none_or(serde_json::Value::is_array));
    for event in &mut events {
        if let (true, Some(page)) = (
            drained(event),
            event.value.as_mut().and_then(|page| page.as_array_mut()),
        ) {
            page.remove(0);
        }
    }
    events
}

fn lines(events: &[Event]) -> String {
    let lines: Vec<String> = events
        .iter()
        .map(|event| serde_json::to_string(event).unwrap())
        .collect();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_cannot_be_made_makes_a_run_inconclusive() {
    let folder = tempfile::tempdir().unwrap();
    let faults = [Simple::Forbidden];
    let settings = settings(folder.path(), &faults, 2);
    let (_stop, stopped) = watch::channel(false);
    let outcome = run::run(&settings, parts(rooms(), &faults).await, stopped)
        .await
        .unwrap();
    assert_eq!(outcome.conclusion, Conclusion::Inconclusive);
    assert_eq!(outcome.skipped["forbidden"], "it is forbidden");
    assert!(
        outcome.headline.contains("cannot be made here: it is forbidden"),
        "{}",
        outcome.headline
    );
}

/// A workload whose checker always finds something.
struct Doomed;

#[async_trait]
impl Workload for Doomed {
    fn name(&self) -> &'static str {
        "doomed"
    }

    fn about(&self) -> &'static str {
        "does nothing"
    }

    async fn prepare(&self, _: &Arc<Stage>) -> Result<()> {
        Ok(())
    }

    fn clients(&self, _: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        vec![Box::pin(async { anyhow::bail!("an answer that breaks the contract") })]
    }

    async fn drain(&self, _: &Arc<Stage>) -> Result<()> {
        Ok(())
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(Finds)]
    }
}

struct Finds;

impl Checker for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn about(&self) -> &'static str {
        "always finds something"
    }

    fn check(&self, _: &[Event]) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        judgement.counts.insert("events", 1);
        judgement.violation("something <b> is wrong (event 1)");
        Ok(judgement)
    }
}

/// Also: a run that is told to stop ends early, and still heals, drains and reports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_violation_or_a_broken_contract_fails_a_run_that_was_stopped_early() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &[], 600);
    let mut workloads = rooms();
    workloads.push(Box::new(Doomed));
    let (stop, stopped) = watch::channel(false);
    let history = folder.path().join("history.jsonl");
    let running = async { run::run(&settings, parts(workloads, &[]).await, stopped).await };
    let stopping = async {
        at_work(&history).await;
        stop.send_replace(true);
    };
    let (outcome, ()) = tokio::join!(running, stopping);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.conclusion, Conclusion::Failed);
    let told = outcome.failures.join("\n");
    assert!(
        told.contains("a client of doomed: an answer that breaks the contract"),
        "{told}"
    );
    assert!(told.contains("finds found 1 violations"), "{told}");
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        html.contains("something &lt;b&gt; is wrong (event <a href=\"#event-1\">1</a>)"),
        "{html}"
    );
    assert!(html.contains("<pre id=\"event-1\">"));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn torture(args: &[&str]) -> cli::Output {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_torture"));
    cli::run(cli::command(&binary, args), crate::SOON).await.unwrap()
}

/// As at a terminal: the signal goes to the whole group of processes.
#[tokio::test]
async fn ctrl_c_ends_a_run_early_and_it_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_torture"));
    let args = [
        "run",
        "--nemesis",
        "none",
        "--seconds",
        "600",
        "--workload",
        "append",
        "--out",
    ];
    let mut command = cli::command(&binary, &[&args[..], &[path(folder.path())]].concat());
    // Settings of the environment do not get through, but this one is meant.
    if let Some(product) = std::env::var_os("QUORATE_BIN") {
        command.env("QUORATE_BIN", product);
    }
    let running = command.process_group(0).spawn().unwrap();
    let group = Pid::from_raw(i32::try_from(running.id().unwrap()).unwrap());
    let history = folder.path().join("history.jsonl");
    at_work(&history).await;
    killpg(group, Signal::SIGINT).unwrap();
    let output = cli::finish(running, crate::SOON * 3).await.unwrap();
    assert_eq!(output.code, Some(3), "{}{}", output.stdout, output.stderr);
    assert!(
        output.stdout.contains("stopped before its 600 s were over"),
        "{}",
        output.stdout
    );
    assert!(!output.stdout.contains("FAILED"), "{}", output.stdout);
    assert!(folder.path().join("report.html").is_file());
}

/// Waits until clients have written something.
async fn at_work(history: &Path) {
    quorate_torture::wait::eventually("clients are at work", crate::SOON, async || {
        match std::fs::metadata(history).map_or(0, |file| file.len()) {
            0..100_000 => Err("the history is short"),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_makes_no_sense_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(folder.path());
    for args in [
        &["run", "--nodes", "4"][..],
        &["run", "--workload", "juggling", "--out", out],
        &["run", "--workload", "none", "--out", out],
        &["run", "--nemesis", "rain", "--out", out],
        &["run", "--seconds", "0"],
        &["run", "--binary", "no-such-file", "--out", out],
        &["check", "x.jsonl", "--checker", "gut-feeling"],
        &["export", "x.jsonl"],
        &[],
    ] {
        let output = torture(args).await;
        assert_eq!(output.code, Some(2), "{args:?}: {}{}", output.stdout, output.stderr);
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn a_history_that_says_nothing_or_cannot_be_read_is_inconclusive() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        path(&file).to_owned()
    };
    let empty = file("empty", "");
    let garbage = file("garbage", "no history\n");
    let undrained = file(
        "undrained",
        r#"{"index":0,"process":0,"type":"invoke","f":"send","key":"r","value":"a","time_ns":1}"#,
    );
    for history in [&empty, &garbage, &undrained, "no-such-file"] {
        let output = torture(&["check", history]).await;
        assert_eq!(output.code, Some(3), "{history}: {}{}", output.stdout, output.stderr);
    }
}

#[tokio::test]
async fn help_and_lists_name_what_there_is() {
    let help = torture(&["run", "--help"]).await;
    assert_eq!(help.code, Some(0));
    for flag in [
        "--nodes",
        "--workload",
        "--nemesis",
        "--seconds",
        "--seed",
        "--clients",
        "--out",
        "--binary",
    ] {
        assert!(help.stdout.contains(flag), "{flag}");
    }
    let list = torture(&["list"]).await;
    assert_eq!(list.code, Some(0));
    for name in ["append", "sends", "batches", "rooms"] {
        assert!(list.stdout.contains(name), "{name}");
    }
}
