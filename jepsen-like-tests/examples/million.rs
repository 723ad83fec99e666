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

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_torture::cli;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::measure::{commit, lines as lines_of_chat, machine, mb, memory, settle, sizes, snapshots};
use quorate_torture::workload::messages;

const ROOM: &str = "million";
const LINES: usize = 1_000_000;
const IMPORT_TIMEOUT: Duration = Duration::from_secs(3600);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests of each kind for a page.
const REQUESTS: usize = 200;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let lines = match std::env::var("QUORATE_LINES") {
        Ok(number) => number.parse().context("QUORATE_LINES")?,
        Err(_) => LINES,
    };
    let cluster = Cluster::options().start().await?;
    println!(
        "Commit {}, {}; three nodes and the client share them.\n",
        commit(),
        machine()?
    );
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
    let (source, name) = lines_of_chat()?;
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for line in source.iter().cycle().take(lines) {
        file.write_all(line)?;
        file.write_all(b"\n")?;
    }
    file.into_inner()?.sync_all()?;
    Ok((fs::metadata(path)?.len(), format!("{name} from {} lines", source.len())))
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
