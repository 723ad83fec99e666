//! Measures one room with a million messages, for docs/PERFORMANCE.md: import, memory, disk, restart and
//! pages, on three nodes on this machine. What it prints is Markdown.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example million
//! ```
//!
//! QUORATE_BIN names the binary, QUORATE_TEST_LOGS a folder of real logs (`*.raw.txt`) of which the room is
//! made, repeated until it has so many lines; without it an invented conversation is. QUORATE_LINES is
//! their number, 1,000,000 if it is not set. No figure is extrapolated.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_torture::cli;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;

const ROOM: &str = "million";
const LINES: usize = 1_000_000;
const IMPORT_TIMEOUT: Duration = Duration::from_secs(3600);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// What a snapshot on demand leaves of the log, at most.
const KEPT_BYTES: f64 = 17e6;
/// Requests of each kind for a page.
const REQUESTS: usize = 200;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let lines = match std::env::var("QUORATE_LINES") {
        Ok(number) => number.parse().context("QUORATE_LINES")?,
        Err(_) => LINES,
    };
    let cluster = Cluster::options().start().await?;
    println!("Commit {}, {}.\n", commit(), machine()?);
    let rest = memory(&cluster).await?;

    let log = cluster.folder().join("2008-12-11_01.raw.txt");
    let (bytes, source) = write_log(&log, lines)?;
    println!("The room: {lines} lines, {bytes} bytes, {source}.\n");

    let begun = Instant::now();
    let path = log.to_str().context("a temporary path is text")?;
    let import = cli::run(cluster.cli(&["import", "irc", path, "--room", ROOM]), IMPORT_TIMEOUT).await?;
    let took = begun.elapsed();
    ensure!(import.code == Some(0), "the import failed: {}", import.stderr);
    let room = cluster
        .expect(1, Call::get(format!("/v1/rooms/{ROOM}")), 200)
        .await?
        .json()?;
    ensure!(room["last_seq"] == lines, "the room is not whole: {room}");
    fs::remove_file(&log)?;
    println!("| import | |\n|---|---|");
    println!("| seconds | {:.1} |", took.as_secs_f64());
    println!("| messages/s | {:.0} |\n", lines as f64 / took.as_secs_f64());

    let each: Vec<String> = rest.iter().map(|bytes| mb(*bytes)).collect();
    println!(
        "Memory of each node before, at rest: {}. After the import:\n",
        each.join(", ")
    );
    settle(&cluster).await?;
    sizes(&cluster).await?;
    if snapshots(&cluster).await? {
        println!("\nAfter a snapshot on every node, and the purge of the log that it covers:\n");
        sizes(&cluster).await?;
    } else {
        println!("\nThis build takes no snapshots on demand.");
    }

    println!("\n| restart of a follower until `/readyz` is 200 | s |\n|---|---|");
    let leader = cluster.leader().await?;
    let follower = cluster.others(leader)[0];
    for (how, gracefully) in [("after SIGTERM", true), ("after kill -9", false)] {
        match gracefully {
            true => drop(cluster.terminate(follower, SETTLE_TIMEOUT).await?),
            false => cluster.kill(follower).await?,
        }
        let begun = Instant::now();
        cluster.restart(follower)?;
        cluster.wait_ready(&[follower]).await?;
        println!("| {how} | {:.2} |", begun.elapsed().as_secs_f64());
    }

    println!("\n| page of 50 | asked | level | median ms | p99 ms |\n|---|---|---|---|---|");
    let leader = cluster.leader().await?;
    let follower = cluster.others(leader)[0];
    let at = |after: usize| format!("{}?limit=50&after={after}", messages(ROOM));
    for (place, path) in [
        ("start", at(0)),
        ("middle", at(lines / 2)),
        ("end", format!("{}?limit=50", messages(ROOM))),
    ] {
        for (asked, node) in [("leader", leader), ("follower", follower)] {
            for level in ["linearizable", "local"] {
                let (median, p99) = pages(&cluster, node, &format!("{path}&level={level}")).await?;
                println!("| {place} | {asked} | {level} | {median:.2} | {p99:.2} |");
            }
        }
    }
    Ok(())
}

/// Writes a log of so many lines, and answers with its size and where it is from.
fn write_log(path: &Path, lines: usize) -> Result<(u64, String)> {
    let (source, name) = match std::env::var_os("QUORATE_TEST_LOGS") {
        Some(folder) => (real_lines(Path::new(&folder))?, "real logs, repeated"),
        None => (invented_lines(), "an invented conversation, repeated"),
    };
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for line in source.iter().cycle().take(lines) {
        file.write_all(line)?;
        file.write_all(b"\n")?;
    }
    file.into_inner()?.sync_all()?;
    Ok((fs::metadata(path)?.len(), format!("{name} from {} lines", source.len())))
}

fn real_lines(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder).with_context(|| format!("QUORATE_TEST_LOGS: {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.to_string_lossy().ends_with(".raw.txt"));
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read(file)?;
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        lines.extend(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    ensure!(!lines.is_empty(), "no lines in *.raw.txt of {}", folder.display());
    Ok(lines)
}

fn invented_lines() -> Vec<Vec<u8>> {
    let line = |number: usize| {
        let (hour, minute, nick) = (number / 40 % 12 + 1, number % 60, number % 83);
        format!("[{hour:02}:{minute:02}] <nick{nick}> has anybody seen what became of parcel {number}?").into_bytes()
    };
    (0..20_000).map(line).collect()
}

/// Waits until every node has applied what the leader has.
async fn settle(cluster: &Cluster) -> Result<()> {
    let position = cluster.expect(1, Call::get("/v1/rooms"), 200).await?.position()?;
    for id in cluster.ids() {
        let call = Call::get("/v1/rooms?level=local")
            .min_position(&position)
            .timeout(Duration::from_secs(60));
        cluster.expect(id, call, 200).await?;
    }
    // Memory and sizes are measured by each node once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    Ok(())
}

async fn memory(cluster: &Cluster) -> Result<Vec<f64>> {
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut bytes = Vec::new();
    for id in cluster.ids() {
        bytes.push(cluster.metric(id, "process_resident_memory_bytes").await?);
    }
    Ok(bytes)
}

async fn sizes(cluster: &Cluster) -> Result<()> {
    println!("| node | memory | log on disk | state on disk | snapshot on disk |\n|---|---|---|---|---|");
    for (id, now) in cluster.ids().into_iter().zip(memory(cluster).await?) {
        let node = cluster.node(id);
        let mut seen = HashSet::new();
        // In this order: a snapshot's own files are those that the state does not have.
        let [log, state, snapshot] =
            ["log", "state", "tmp"].map(|name| on_disk(&node.data().join(name), &mut seen) as f64);
        println!(
            "| {id} | {} | {} | {} | {} |",
            mb(now),
            mb(log),
            mb(state),
            mb(snapshot)
        );
    }
    Ok(())
}

fn mb(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// Bytes that the files below take of the disk; one that has several names counts where it is met first.
fn on_disk(folder: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        // A file may go while it is looked at.
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            bytes += on_disk(&entry.path(), seen);
        } else if seen.insert((data.dev(), data.ino())) {
            bytes += data.blocks() * 512;
        }
    }
    bytes
}

/// Has every node take a snapshot and purge its log. False: this build cannot.
async fn snapshots(cluster: &Cluster) -> Result<bool> {
    for id in cluster.ids() {
        let before = cluster.metric(id, "quorate_log_retained_bytes").await;
        let asked = cluster
            .send(id, Call::post("/v1/cluster/snapshot", &serde_json::json!({})))
            .await?;
        if asked.status != 202 {
            return Ok(false);
        }
        let before = before?;
        eventually("the log is purged", SETTLE_TIMEOUT, async || {
            let now = cluster
                .metric(id, "quorate_log_retained_bytes")
                .await
                .map_err(|error| error.to_string())?;
            // So much stays in any case.
            if now < (before / 2.0).max(KEPT_BYTES) {
                Ok(())
            } else {
                Err(format!("{now} of {before} bytes"))
            }
        })
        .await?;
    }
    settle(cluster).await?;
    Ok(true)
}

/// Median and 99th percentile in milliseconds, one request at a time.
async fn pages(cluster: &Cluster, node: u64, path: &str) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let page = cluster.expect(node, Call::get(path), 200).await?;
        times.push(page.took.as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[REQUESTS / 2], times[REQUESTS * 99 / 100]))
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(args)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with changes"),
    }
}

fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{cores} cores ({model}), Linux {}; three nodes and the client share them",
        kernel.trim()
    ))
}
