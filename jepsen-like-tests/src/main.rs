//! `torture`: breaks a cluster of real processes while clients use it, and says whether it kept its promises.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate_torture::checker;
use quorate_torture::cluster::Cluster;
use quorate_torture::cluster::isolation::{self, Isolation};
use quorate_torture::export;
use quorate_torture::history;
use quorate_torture::nemesis::{self, Fault};
use quorate_torture::run::outcome::Conclusion;
use quorate_torture::run::settings::{EVERY_MS, FAULTS_AT_ONCE, SECONDS, Settings};
use quorate_torture::run::{self, Parts};
use quorate_torture::workloads::{self, CLIENTS, Workload};
use tokio::sync::watch;

/// The exit code of a command line that makes no sense; clap has the same.
const USAGE: u8 = 2;
/// Names the binary under test, for this process and for all that it starts.
const BINARY: &str = "QUORATE_BIN";
const ALL: &str = "all";
const NONE: &str = "none";

/// Breaks a cluster of real `quorate` processes while clients use it, and says whether it kept its promises.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 passed, 1 failed, 2 usage, 3 inconclusive (a fault that was asked for \
could not be made, too little happened, or the history cannot be judged).\n\n\
Example: torture run --nodes 5 --nemesis all --seconds 300 --seed 7\n\
Then open report.html in the directory that it names."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, use it, break it, heal it, and check what it did
    Run(RunArgs),
    /// Judge a history that was written down before
    Check(CheckArgs),
    /// Write a history in the form that other checkers read (docs/TESTING.md, "Histories")
    Export(ExportArgs),
    /// Show the workloads, the faults and the checkers that there are
    List(ListArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Nodes of the cluster, 3 or 5
    #[arg(long, default_value = "3", value_parser = nodes)]
    nodes: u64,
    /// Workloads, separated by commas, or `all`; `torture list` shows them
    #[arg(long, value_delimiter = ',', default_value = ALL)]
    workload: Vec<String>,
    /// Kinds of faults, separated by commas, or `all`, or `none`; `torture list` shows them
    #[arg(long, value_delimiter = ',', default_value = ALL)]
    nemesis: Vec<String>,
    /// How long clients work; healing, reading everything back and checking come on top
    #[arg(long, default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Decides which faults are drawn and what clients send; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Clients of each of the workloads append, sends and batches; the others have as many as they need
    #[arg(long, default_value_t = CLIENTS, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// How many faults may overlap; rounds in which each is alone come in between
    #[arg(long, default_value_t = FAULTS_AT_ONCE)]
    faults_at_once: usize,
    /// From one fault to the next, on average
    #[arg(long, value_name = "MILLISECONDS", default_value_t = EVERY_MS, value_parser = clap::value_parser!(u64).range(1..))]
    every_ms: u64,
    /// Where history.jsonl, report.html, result.json and the nodes' logs go; by default a new directory in
    /// torture-runs
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The `quorate` to break; by default the one that was built beside this program, or $QUORATE_BIN
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// With an even number a majority is larger and no more failures are tolerated.
fn nodes(text: &str) -> Result<u64, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("3 or 5 nodes".to_owned()),
    }
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A history.jsonl
    history: PathBuf,
    /// Checkers, separated by commas; by default all of them
    #[arg(long, value_delimiter = ',', default_value = ALL)]
    checker: Vec<String>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// A history.jsonl
    history: PathBuf,
    #[arg(long, value_enum)]
    format: Format,
    /// Only what was done to this room, register or lock
    #[arg(long)]
    key: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Start three nodes for a moment, as a run would, and say which faults cannot be made here
    #[arg(long)]
    here: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// One map a line, for Jepsen's checkers and Knossos
    Edn,
    /// One event a line, for the event API of Porcupine (Go)
    Porcupine,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run_command(args),
        Command::Check(args) => check(&args),
        Command::Export(args) => export(&args),
        Command::List(args) => list(args.here),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever reads the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(
                error
                    .downcast_ref::<Usage>()
                    .map_or(Conclusion::Inconclusive.exit_code(), |_| USAGE),
            )
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    // Through serde_json it is an error of another type.
    let inner = error
        .downcast_ref::<serde_json::Error>()
        .and_then(serde_json::Error::io_error_kind);
    kind.or(inner) == Some(std::io::ErrorKind::BrokenPipe)
}

/// What was asked for makes no sense.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn run_command(args: RunArgs) -> Result<u8> {
    if let Some(binary) = &args.binary {
        name_binary(binary)?;
    }
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let workloads = chosen_workloads(&args.workload)?;
    let faults = chosen(&args.nemesis, nemesis::all(), |fault| fault.kind(), "nemesis")?;
    if workloads.is_empty() {
        bail!(Usage("a run without a workload has nothing to check".to_owned()));
    }
    // Before there are threads, and before anything is made: the process starts again inside.
    let isolation = if faults.is_empty() { None } else { isolate() };
    let out = folder(args.out, seed)?;
    let settings = Settings {
        nodes: args.nodes,
        workloads: workloads.iter().map(|workload| workload.name().to_owned()).collect(),
        nemeses: faults.iter().map(|fault| fault.kind().to_owned()).collect(),
        seconds: args.seconds,
        seed,
        clients: args.clients,
        faults_at_once: args.faults_at_once,
        every_ms: args.every_ms,
        binary: args.binary,
        out,
    };
    runtime()?.block_on(run_settings(settings, workloads, faults, isolation))
}

async fn run_settings(
    settings: Settings,
    workloads: Vec<Box<dyn Workload>>,
    faults: Vec<Box<dyn Fault>>,
    isolation: Option<Isolation>,
) -> Result<u8> {
    eprintln!("{}", settings.replay());
    let cluster = Cluster::options()
        .nodes(settings.nodes)
        .for_faults(isolation)
        .start()
        .await?;
    let parts = Parts {
        cluster: Arc::new(cluster),
        workloads,
        faults,
        heal_all: |cluster| Box::pin(nemesis::heal_all(cluster)),
        unexpected_ends: nemesis::unexpected_ends,
    };
    let (stop, stopped) = watch::channel(false);
    let outcome = tokio::select! {
        outcome = run::run(&settings, parts, stopped) => outcome?,
        () = interrupts(stop) => bail!("interrupted twice: nothing was checked"),
    };
    for verdict in &outcome.verdicts {
        println!("{verdict}");
    }
    for failure in &outcome.failures {
        println!("FAILED: {failure}");
    }
    for doubt in &outcome.doubts {
        println!("IN DOUBT: {doubt}");
    }
    println!("{}", outcome.headline);
    println!("report: {}", settings.out.join("report.html").display());
    println!("again: {}", outcome.replay);
    Ok(outcome.conclusion.exit_code())
}

/// The first Ctrl-C ends the run early, the second one at once: then this returns.
async fn interrupts(stop: watch::Sender<bool>) {
    for _ in 0..2 {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the signal ends the process, as everywhere.
            std::future::pending::<()>().await;
        }
        if !stop.send_replace(true) {
            eprintln!("interrupted: healing, reading back and checking; once more gives up");
        }
    }
}

/// Namespaces and disks of this run's own, where that is permitted.
fn isolate() -> Option<Isolation> {
    let isolation = isolation::enter();
    isolation
        .inspect_err(|error| eprintln!("without namespaces and disks of its own: {error:#}"))
        .ok()
}

/// Starts this program again with the binary in its environment, where everything looks for it.
fn name_binary(binary: &Path) -> Result<()> {
    let binary = match binary.canonicalize() {
        Ok(binary) if binary.is_file() => binary,
        _ => bail!(Usage(format!("{} is no file", binary.display()))),
    };
    if std::env::var_os(BINARY).is_some_and(|named| named == binary.as_os_str()) {
        return Ok(());
    }
    let mut again = std::process::Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).env(BINARY, binary);
    // It returns only when it could not be done.
    Err(again.exec()).context("failed to start again")
}

/// A directory for what the run leaves behind.
fn folder(named: Option<PathBuf>, seed: u64) -> Result<PathBuf> {
    let out = match named {
        Some(out) if out.join("history.jsonl").exists() => {
            bail!(Usage(format!("{} holds a run already", out.display())))
        }
        Some(out) => out,
        None => {
            let names = (1..).map(|number| match number {
                1 => format!("torture-runs/seed-{seed}"),
                _ => format!("torture-runs/seed-{seed}-{number}"),
            });
            let mut free = names.map(PathBuf::from).filter(|out| !out.exists());
            free.next().expect("there is no end of numbers")
        }
    };
    std::fs::create_dir_all(&out).with_context(|| format!("failed to make {}", out.display()))?;
    Ok(out)
}

/// Those with these names, in the order of the list.
fn chosen<T>(names: &[String], all: Vec<T>, name_of: impl Fn(&T) -> &'static str, what: &str) -> Result<Vec<T>> {
    match names {
        [all_of_them] if all_of_them == ALL => return Ok(all),
        [none] if none == NONE => return Ok(Vec::new()),
        _ => {}
    }
    let known: Vec<&str> = all.iter().map(&name_of).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(Usage(format!(
            "there is no {what} {unknown:?}; there are: {}",
            known.join(", ")
        )));
    }
    Ok(all
        .into_iter()
        .filter(|one| names.iter().any(|name| name == name_of(one)))
        .collect())
}

/// Controls only by their names.
fn chosen_workloads(names: &[String]) -> Result<Vec<Box<dyn Workload>>> {
    let mut known = workloads::all();
    if names != [ALL] {
        known.extend(workloads::controls());
    }
    chosen(names, known, |workload| workload.name(), "workload")
}

fn check(args: &CheckArgs) -> Result<u8> {
    let checkers = chosen(&args.checker, checker::all(), |checker| checker.name(), "checker")?;
    let named = args.checker != [ALL];
    let events = history::read_file(&args.history)?;
    let verdicts = checker::verdicts(&checkers, &events);
    for verdict in &verdicts {
        println!("{verdict}");
    }
    let violations = verdicts
        .iter()
        .filter(|verdict| verdict.judgement.violations_total > 0)
        .count();
    let unjudged = verdicts.iter().filter(|verdict| verdict.error.is_some()).count();
    // A history of some workloads has nothing for the checkers of the others.
    let idle = verdicts.iter().filter(|verdict| verdict.judged() == 0).count();
    let vacuous = if named { idle > 0 } else { idle == verdicts.len() };
    let conclusion = Conclusion::of(violations, unjudged + usize::from(vacuous));
    println!("{} events: {}", events.len(), in_words(conclusion));
    Ok(conclusion.exit_code())
}

fn in_words(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Passed => "no violation",
        Conclusion::Failed => "failed",
        Conclusion::Inconclusive => "inconclusive",
    }
}

fn export(args: &ExportArgs) -> Result<u8> {
    let events = history::read_file(&args.history)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match args.format {
        Format::Edn => export::edn::write(&events, args.key.as_deref(), &mut out)?,
        Format::Porcupine => export::porcupine::write(&events, args.key.as_deref(), &mut out)?,
    }
    Ok(0)
}

fn list(here: bool) -> Result<u8> {
    let mut refused = BTreeMap::new();
    if here {
        let isolation = isolate();
        refused = runtime()?.block_on(refused_here(isolation))?;
    }
    println!("workloads");
    for workload in workloads::all().into_iter().chain(workloads::controls()) {
        println!("  {:20} {}", workload.name(), workload.about());
    }
    println!("nemeses");
    for fault in nemesis::all() {
        println!("  {:20} {}", fault.kind(), fault.about());
        if let Some(why) = refused.get(fault.kind()) {
            println!("  {:20} not here: {why}", "");
        }
    }
    println!("checkers");
    for checker in checker::all() {
        println!("  {:20} {}", checker.name(), checker.about());
    }
    Ok(0)
}

/// The kinds of faults that cannot be made on this machine, and why: that depends on what a cluster can have here.
async fn refused_here(isolation: Option<Isolation>) -> Result<BTreeMap<&'static str, String>> {
    let cluster = Cluster::options().for_faults(isolation).start().await?;
    let refused = nemesis::all()
        .into_iter()
        .filter_map(|fault| Some((fault.kind(), fault.permitted(&cluster).err()?)));
    Ok(refused.collect())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
