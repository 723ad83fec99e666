//! What examples measure beside their answers: memory, disk, the lines that rooms are made of, and where all this was.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::http::Call;
use crate::wait::eventually;

const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// What a snapshot on demand leaves of the log, at most.
const KEPT_BYTES: f64 = 17e6;

/// Waits until every node has applied what the leader has.
pub async fn settle(cluster: &Cluster) -> Result<()> {
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

/// Waits until no node compacts its state any more: its files have not changed for some seconds. What is measured before is
/// in part the price of what was sent before.
pub async fn compacted(cluster: &Cluster) -> Result<()> {
    const UNCHANGED: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(300);
    let sizes = || {
        let state = |id| on_disk(&cluster.node(id).data().join("state"), &mut HashSet::new());
        cluster.ids().into_iter().map(state).collect::<Vec<u64>>()
    };
    let begun = Instant::now();
    let (mut last, mut since) = (sizes(), begun);
    while since.elapsed() < UNCHANGED {
        ensure!(
            begun.elapsed() < TIMEOUT,
            "compactions go on after {} s",
            TIMEOUT.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sizes();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Bytes of memory of each node.
pub async fn memory(cluster: &Cluster) -> Result<Vec<f64>> {
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut bytes = Vec::new();
    for id in cluster.ids() {
        bytes.push(cluster.metric(id, "process_resident_memory_bytes").await?);
    }
    Ok(bytes)
}

/// Millions of bytes.
pub fn mb(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// Prints a line for each node.
pub async fn sizes(cluster: &Cluster) -> Result<()> {
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

/// Bytes that the files below take of the disk; one that has several names counts where it is met first.
pub fn on_disk(folder: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
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
pub async fn snapshots(cluster: &Cluster) -> Result<bool> {
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

/// Lines of chat, and where they are from: all `*.raw.txt` of the folder that QUORATE_TEST_LOGS names, else an invented
/// conversation.
pub fn lines() -> Result<(Vec<Vec<u8>>, &'static str)> {
    Ok(match std::env::var_os("QUORATE_TEST_LOGS") {
        Some(folder) => (real_lines(Path::new(&folder))?, "real logs, repeated"),
        None => (invented_lines(), "an invented conversation, repeated"),
    })
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

/// The commit that is checked out.
pub fn commit() -> String {
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

/// Cores, processor, kernel, and how busy it is.
pub fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!(
        "{cores} cores ({model}), Linux {}; load average {load} at the start",
        kernel.trim()
    ))
}
