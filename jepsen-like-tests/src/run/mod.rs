//! One torture run from its beginning to its report. Start reading at [`run`].
//!
//! Clients work while [`breaker`] breaks things by a [`plan`]; then all is healed, the cluster must come together
//! again ([`converge`]), every room is read from every node, the checkers judge the history, and [`gates`] say
//! whether enough happened for the verdict to mean anything.

pub mod board;
pub mod breaker;
pub mod converge;
pub mod gates;
pub mod measure;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod report;
pub mod settings;
pub mod spells;
mod svg;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::board::Board;
use self::breaker::{Broken, Order};
use self::gates::Meant;
use self::outcome::{Conclusion, Outcome};
use self::plan::Plan;
use self::progress::Progress;
use self::settings::Settings;
use crate::checker::{self, Checker};
use crate::cluster::Cluster;
use crate::history::{Entry, Event, History};
use crate::nemesis::Fault;
use crate::workloads::{Stage, Workload};

/// A client that is told to stop ends what it has begun. Longer than any request may take.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(60);
/// After the last client has ended: a request that it gave up is over on the nodes as well, and what may still
/// be applied has been.
const SETTLE: Duration = Duration::from_secs(3);
/// Writing out all rooms of all nodes.
const DRAIN_WITHIN: Duration = Duration::from_secs(600);
/// How often nodes are looked at: one that ends by itself may be started again by the next fault.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a run is made of. A test may put in its own.
pub struct Parts {
    pub cluster: Arc<Cluster>,
    pub workloads: Vec<Box<dyn Workload>>,
    /// Those that were asked for, permitted here or not.
    pub faults: Vec<Box<dyn Fault>>,
    /// Undoes whatever may still be broken.
    pub heal_all: HealAll,
    /// Nodes that have ended without having been ended, so far, had a panic, or served damaged data; looks at once,
    /// and remembers.
    pub unexpected_ends: fn(&Cluster) -> Vec<String>,
}

pub type HealAll = for<'a> fn(&'a Arc<Cluster>) -> BoxFuture<'a, Result<()>>;

/// Runs, judges and writes the report. An error means that the run could not be made at all.
///
/// `stop` ends it early: what is broken is healed, and what was done is judged.
pub async fn run(settings: &Settings, mut parts: Parts, stop: watch::Receiver<bool>) -> Result<Outcome> {
    let path = settings.out.join("history.jsonl");
    let history = Arc::new(History::to_file(&path)?);
    let stage = Stage::with_clients(parts.cluster.clone(), history.clone(), settings.seed, settings.clients);
    let board = Arc::new(Board::default());
    let progress = Progress::start(board.clone(), history.clone());
    let entry = Entry {
        value: Some(json!(settings)),
        ..Entry::default()
    };
    history.nemesis(spells::SETTINGS, entry);

    let (faults, skipped) = permitted(std::mem::take(&mut parts.faults), &parts.cluster);
    let mut found = Found::default();
    board.phase("preparing");
    for workload in &parts.workloads {
        let prepared = workload.prepare(&stage).await;
        prepared.with_context(|| format!("preparing {}", workload.name()))?;
    }
    let kinds: Vec<String> = faults.iter().map(|fault| fault.kind().to_owned()).collect();
    let broken = work(settings, &stage, &parts, faults, &board, stop.clone(), &mut found).await;
    if *stop.borrow() {
        found
            .doubts
            .push(format!("stopped before its {} s were over", settings.seconds));
    }

    board.phase("healing");
    if let Err(error) = (parts.heal_all)(&parts.cluster).await {
        found.doubts.push(format!("not all could be healed: {error:#}"));
    }
    tokio::time::sleep(SETTLE).await;
    board.phase("converging");
    match converge::converge(&parts.cluster).await {
        Ok(took) => found.converged_ms = Some(took.as_millis() as u64),
        Err(error) => found.failures.push(format!("the cluster did not converge: {error:#}")),
    }
    board.phase("draining");
    for workload in &parts.workloads {
        let drained = tokio::time::timeout(DRAIN_WITHIN, workload.drain(&stage)).await;
        let drained = drained.unwrap_or_else(|_| Err(anyhow::anyhow!("not within {DRAIN_WITHIN:?}")));
        if let Err(error) = drained {
            found
                .failures
                .push(format!("{} could not be drained: {error:#}", workload.name()));
        }
    }
    let ends = (parts.unexpected_ends)(&parts.cluster);
    found.failures.extend(ends);
    parts.cluster.keep_logs(&settings.out)?;
    drop(progress);
    eprintln!("judging {} events", history.now_events());
    found.doubts.extend(
        skipped
            .iter()
            .map(|(kind, why)| format!("{kind} was asked for and cannot be made here: {why}")),
    );
    let events = history.events();
    let versions = versions(&parts.cluster).await;
    let checkers = checkers(&parts.workloads);
    let mut outcome = conclude(settings, &events, &checkers, &kinds, broken, found)?;
    outcome.skipped = skipped;
    outcome.versions = versions;
    write_down(&outcome, &events, &settings.out)?;
    Ok(outcome)
}

/// What was found out on the way.
#[derive(Debug, Default)]
struct Found {
    failures: Vec<String>,
    doubts: Vec<String>,
    converged_ms: Option<u64>,
}

/// The faults that can be made here, and why the others cannot.
fn permitted(faults: Vec<Box<dyn Fault>>, cluster: &Cluster) -> (Vec<Arc<dyn Fault>>, BTreeMap<String, String>) {
    let mut usable: Vec<Arc<dyn Fault>> = Vec::new();
    let mut skipped = BTreeMap::new();
    for fault in faults {
        match fault.permitted(cluster) {
            Ok(()) => usable.push(Arc::from(fault)),
            Err(why) => {
                eprintln!("SKIPPED: {} cannot be made here: {why}", fault.kind());
                skipped.insert(fault.kind().to_owned(), why);
            }
        }
    }
    (usable, skipped)
}

/// Clients at work while things are broken, until the time is over.
async fn work(
    settings: &Settings,
    stage: &Arc<Stage>,
    parts: &Parts,
    faults: Vec<Arc<dyn Fault>>,
    board: &Arc<Board>,
    stop: watch::Receiver<bool>,
    found: &mut Found,
) -> Broken {
    let mut clients = JoinSet::new();
    for workload in &parts.workloads {
        let name = workload.name();
        for client in workload.clients(stage) {
            clients.spawn(async move { client.await.with_context(|| format!("a client of {name}")) });
        }
    }
    let until = Instant::now() + settings.lasts();
    let every = Duration::from_millis(settings.every_ms);
    let order = Order {
        stage: stage.clone(),
        plan: Plan::new(faults.len(), settings.seed, settings.faults_at_once, every),
        faults,
        until,
        stop,
        board: board.clone(),
    };
    board.phase("clients at work");
    board.until(Some(until));
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut breaking = Box::pin(breaker::break_things(order));
    let broken = loop {
        tokio::select! {
            broken = &mut breaking => break broken,
            Some(ended) = clients.join_next() => found.ended(ended),
            _ = look.tick() => drop((parts.unexpected_ends)(&parts.cluster)),
        }
    };
    board.until(None);
    board.phase("clients end");
    stage.stop();
    let all_end = async {
        while let Some(ended) = clients.join_next().await {
            found.ended(ended);
        }
    };
    if tokio::time::timeout(CLIENTS_END_WITHIN, all_end).await.is_err() {
        let left = clients.len();
        found
            .failures
            .push(format!("{left} clients did not end within {CLIENTS_END_WITHIN:?}"));
        clients.shutdown().await;
    }
    broken
}

impl Found {
    fn ended(&mut self, ended: Result<Result<()>, tokio::task::JoinError>) {
        let failure = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => format!("a client: {error}"),
        };
        eprintln!("FAILED: {failure}");
        self.failures.push(failure);
    }
}

/// Each once, though several workloads may name it.
fn checkers(workloads: &[Box<dyn Workload>]) -> Vec<Box<dyn Checker>> {
    let mut checkers: Vec<Box<dyn Checker>> = Vec::new();
    for checker in workloads.iter().flat_map(|workload| workload.checkers()) {
        if checkers.iter().all(|other| other.name() != checker.name()) {
            checkers.push(checker);
        }
    }
    checkers
}

/// Everything that follows from the history and from what was found on the way.
fn conclude(
    settings: &Settings,
    events: &[Event],
    checkers: &[Box<dyn Checker>],
    kinds: &[String],
    broken: Broken,
    found: Found,
) -> Result<Outcome> {
    let Found {
        mut failures,
        mut doubts,
        converged_ms,
    } = found;
    failures.extend(broken.standstills);
    doubts.extend(broken.troubles);
    let verdicts = checker::verdicts(checkers, events);
    for verdict in &verdicts {
        if let Some(error) = &verdict.error {
            doubts.push(format!("{}: the history cannot be judged: {error}", verdict.checker));
        }
        if verdict.judgement.violations_total > 0 {
            let first = verdict.judgement.violations.first().map_or("", String::as_str);
            let count = verdict.judgement.violations_total;
            failures.push(format!(
                "{} found {count} violations, the first: {first}",
                verdict.checker
            ));
        }
    }
    let spells = spells::spells(events);
    let faults = spells::faults(events);
    let measures = measure::measure(events)?;
    let meant = Meant {
        nodes: settings.nodes,
        kinds,
        seconds: settings.seconds,
        every_ms: settings.every_ms,
    };
    let judged = verdicts
        .iter()
        .map(|verdict| (verdict.checker, verdict.needed()))
        .collect();
    let gates = gates::gates(&meant, &measures, &spells, &judged);
    let missed = gates.iter().filter(|gate| !gate.met);
    doubts.extend(missed.map(|gate| format!("not met: {}: {}", gate.name, gate.why)));
    let conclusion = Conclusion::of(failures.len(), doubts.len());
    Ok(Outcome {
        conclusion,
        headline: outcome::headline(conclusion, &failures, &doubts, measures.total.all(), &faults),
        failures,
        doubts,
        skipped: BTreeMap::new(),
        faults: outcome::by_kind(&faults, &measures),
        declined: broken.declined,
        converged_ms,
        verdicts,
        gates,
        measures,
        settings: settings.clone(),
        replay: settings.replay(),
        versions: BTreeMap::new(),
    })
}

fn write_down(outcome: &Outcome, events: &[Event], out: &Path) -> Result<()> {
    let write = |name: &str, text: String| {
        std::fs::write(out.join(name), text).with_context(|| format!("failed to write {name}"))
    };
    write("result.json", serde_json::to_string_pretty(outcome)?)?;
    write("report.html", report::report(outcome, events))?;
    write("replay.txt", format!("{}\n", outcome.replay))
}

async fn versions(cluster: &Cluster) -> BTreeMap<&'static str, String> {
    let product = crate::cli::run(cluster.bare_cli(&["--version"]), Duration::from_secs(10)).await;
    let product = product.map_or_else(|error| format!("{error:#}"), |output| output.stdout.trim().to_owned());
    BTreeMap::from([("torture", env!("CARGO_PKG_VERSION").to_owned()), ("quorate", product)])
}
