//! Measures event streams, for docs/PERFORMANCE.md: the memory of those who listen to quiet rooms and to busy ones,
//! how long a message takes to reach two thousand readers, what that costs the node, and what a reader notices of
//! others who do not read. Three nodes and all clients share this machine; all streams are on one node, the leader.
//! Every reader checks that he gets each message once and in order. What it prints is Markdown.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example streams
//! ```
//!
//! QUORATE_BIN names the binary. QUORATE_IDLE and QUORATE_ACTIVE are the numbers of readers, 10,000 and 2,000 if they
//! are not set; QUORATE_SECONDS is the length of each measurement, 20.

mod node;
mod reader;
mod slow;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::measure::{commit, machine};
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use serde_json::json;
use tokio::task::JoinSet;

use crate::node::Node;
use crate::reader::{Clock, Frame, Place, Reader, Seen};

/// Streams that are opened at once.
const OPENED_AT_ONCE: usize = 64;
/// As whom they read: what a user may read is asked for him, unlike for root.
const USERS: usize = 100;
/// Quiet rooms, in which the idle readers are.
const QUIET_ROOMS: usize = 1000;
/// Deliveries a second: few enough for two cores with everything on them.
const DELIVERIES_PER_SECOND: usize = 5000;
const TEXT_BYTES: usize = 256;
/// After the last message was acknowledged.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);
/// The allocator gives freed memory back after ten seconds.
const SETTLE: Duration = Duration::from_secs(12);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let (idle, active) = (number("QUORATE_IDLE", 10_000)?, number("QUORATE_ACTIVE", 2000)?);
    let lasts = Duration::from_secs(number("QUORATE_SECONDS", 20)? as u64);
    raise_open_files(idle + active + slow::READERS)?;
    let cluster = Cluster::options().start().await?;
    let id = cluster.leader().await?;
    let node = Node::of(&cluster, id)?;
    println!("Commit {}, {}.\n", commit(), machine()?);
    let run = Run {
        cluster: &cluster,
        node,
        id,
        address: cluster.node(id).address(),
        clock: Clock::start(),
        lasts,
    };

    for n in 0..USERS {
        cluster.create_user(id, &user(n)).await?;
    }
    // What the sends themselves cost, and what the node has in memory when it has worked for a while.
    let alone = run.busy_rooms("warm", 20, 0, 0.0).await?;
    let alone = run.busy_rooms("alone", 20, 0, alone.cpu_per_send_us()).await?;
    tokio::time::sleep(SETTLE).await;
    let at_rest = run.node.memory()?;
    let quiet_cpu = run.quiet_cpu().await?;

    let rooms: Vec<String> = (0..QUIET_ROOMS.min(idle)).map(|n| format!("quiet-{n}")).collect();
    run.create_rooms(&rooms).await?;
    let idle_readers = run.open(idle, &rooms).await?;
    let idlers = idle_readers.len();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut idle_tasks = JoinSet::new();
    for (reader, _) in idle_readers {
        idle_tasks.spawn(reader.follow(Arc::default(), seen.clone(), run.clock));
    }
    tokio::time::sleep(SETTLE).await;
    let with_idle = run.node.memory()?;
    let idle_cpu = run.quiet_cpu().await?;

    println!("| readers of quiet rooms | memory of the node | a reader |\n|---|---|---|");
    println!("| none | {:.1} MB | |", mb(at_rest));
    let each = |now: u64, before: u64, readers: usize| (now as f64 - before as f64) / readers.max(1) as f64 / 1000.0;
    println!(
        "| {idlers} in {} rooms | {:.1} MB | {:.1} kB |",
        rooms.len(),
        mb(with_idle),
        each(with_idle, at_rest, idlers)
    );
    println!(
        "\nCPU of the node while nothing is sent: {:.1} ms a second without them, {:.1} with them.\n",
        quiet_cpu * 1000.0,
        idle_cpu * 1000.0
    );

    println!(
        "| busy rooms | sends/s | deliveries/s | p50 ms | p99 ms | max ms | CPU µs a send | CPU µs a delivery | \
         events written out | a reader's memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    alone.print("20 rooms, nobody listens");
    for (name, rooms) in [("many", 20), ("few", 1)] {
        let base = run.busy_rooms(&format!("{name}-base"), rooms, 0, 0.0).await?;
        let busy = run.busy_rooms(name, rooms, active, base.cpu_per_send_us()).await?;
        base.print(&format!("{rooms} rooms, nobody listens"));
        busy.print(&format!("{rooms} rooms, {active} readers"));
    }
    let wrong = std::mem::take(&mut seen.lock().expect("no holder panics").wrong);
    ensure!(wrong.is_empty(), "idle readers: {wrong:?}");

    run.beside_slow_readers().await?;
    idle_tasks.shutdown().await;
    Ok(())
}

fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().context(name.to_owned()),
        Err(_) => Ok(default),
    }
}

/// As whom the reader reads.
fn user(reader: usize) -> String {
    format!("reader-{}", reader % USERS)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The soft limit of open files is often too low for so many sockets; the nodes raise their own.
fn raise_open_files(sockets: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= sockets as u64 + 512, "too few open files are permitted: {hard}");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

struct Run<'a> {
    cluster: &'a Cluster,
    node: Node,
    id: u64,
    address: SocketAddr,
    clock: Clock,
    lasts: Duration,
}

/// What came of a load.
struct Load {
    sends: usize,
    times: Vec<Duration>,
    lasted: Duration,
    cpu: Duration,
    /// Of a send that nobody listens to; 0: it is what was measured.
    send_us: f64,
    /// None where the build does not count them.
    written_out: Option<f64>,
    reader_bytes: f64,
}

impl Load {
    fn cpu_per_send_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.sends.max(1) as f64
    }

    fn print(&self, name: &str) {
        let seconds = self.lasted.as_secs_f64();
        let deliveries = self.times.len() as f64;
        let sends = self.sends as f64;
        let [p50, p99, max] = percentiles(&self.times);
        print!("| {name} | {:.0} | {:.0} | ", sends / seconds, deliveries / seconds);
        if self.times.is_empty() {
            println!("| | | {:.0} | | | |", self.cpu_per_send_us());
            return;
        }
        let for_readers = self.cpu.as_secs_f64() * 1e6 - self.send_us * sends;
        let written_out = self
            .written_out
            .map_or("?".to_owned(), |events| format!("{events:.0} of {sends}"));
        println!(
            "{p50:.1} | {p99:.1} | {max:.1} | | {:.1} | {written_out} | {:.1} kB |",
            for_readers / deliveries,
            self.reader_bytes / 1000.0
        );
    }
}

/// p50, p99 and the largest, in milliseconds.
fn percentiles(times: &[Duration]) -> [f64; 3] {
    let mut times = times.to_vec();
    times.sort();
    [0.5, 0.99, 1.0].map(|part| match times.len() {
        0 => f64::NAN,
        count => times[((count - 1) as f64 * part) as usize].as_secs_f64() * 1000.0,
    })
}

impl Run<'_> {
    async fn create_rooms(&self, rooms: &[String]) -> Result<()> {
        for some in rooms.chunks(OPENED_AT_ONCE) {
            try_join_all(some.iter().map(|room| self.cluster.create_room(self.id, room))).await?;
        }
        Ok(())
    }

    /// So many readers, spread over the rooms, all from now on.
    async fn open(&self, readers: usize, rooms: &[String]) -> Result<Vec<(Reader, Frame)>> {
        let mut opened = Vec::with_capacity(readers);
        while opened.len() < readers {
            let some = opened.len()..readers.min(opened.len() + OPENED_AT_ONCE);
            let one = async |n: usize| {
                let room = &rooms[n % rooms.len()];
                Reader::open(self.address, room, &user(n), None, None).await
            };
            opened.extend(try_join_all(some.map(one)).await?);
        }
        Ok(opened)
    }

    /// CPU seconds a second while nothing is sent.
    async fn quiet_cpu(&self) -> Result<f64> {
        let (before, begun) = (self.node.cpu()?, Instant::now());
        tokio::time::sleep(self.lasts).await;
        Ok((self.node.cpu()? - before).as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    async fn written_out(&self) -> Option<f64> {
        let metric = "quorate_http_stream_events_encoded_total";
        self.cluster.metric(self.id, metric).await.ok()
    }

    /// Sends to each of the rooms at a steady pace, with so many readers in all of them together.
    async fn busy_rooms(&self, name: &str, rooms: usize, readers: usize, send_us: f64) -> Result<Load> {
        let rooms: Vec<String> = (0..rooms).map(|n| format!("{name}-{n}")).collect();
        self.create_rooms(&rooms).await?;
        tokio::time::sleep(SETTLE).await;
        let before = self.node.memory()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        let mut places = Vec::new();
        for (n, (reader, _)) in self.open(readers, &rooms).await?.into_iter().enumerate() {
            let place = Arc::new(Place::default());
            places.push((n % rooms.len(), place.clone()));
            tasks.spawn(reader.follow(place, seen.clone(), self.clock));
        }
        tokio::time::sleep(SETTLE).await;
        let listening = self.node.memory()?;

        // As many sends as 2,000 readers take, whether there are readers or not.
        let per_second = DELIVERIES_PER_SECOND as f64 / 2000.0;
        let per_second = if rooms.len() == 1 {
            per_second
        } else {
            per_second * 20.0 / rooms.len() as f64
        };
        let (written_before, cpu, begun) = (self.written_out().await, self.node.cpu()?, Instant::now());
        let sent = try_join_all(
            rooms
                .iter()
                .map(|room| self.send_steadily(room, per_second, TEXT_BYTES)),
        )
        .await?;
        self.all_have_come(&places, &sent).await?;
        let (cpu, lasted) = (self.node.cpu()? - cpu, begun.elapsed());
        let written_out = match (written_before, self.written_out().await) {
            (Some(before), Some(after)) => Some(after - before),
            _ => None,
        };
        tasks.shutdown().await;
        let seen = std::mem::take(&mut *seen.lock().expect("no holder panics"));
        ensure!(seen.wrong.is_empty(), "{name}: {:?}", seen.wrong);
        Ok(Load {
            sends: sent.iter().sum::<u64>() as usize,
            times: seen.times,
            lasted,
            cpu,
            send_us,
            written_out,
            reader_bytes: (listening as f64 - before as f64) / readers.max(1) as f64,
        })
    }

    /// Sends what belongs to a measurement, one message after the other at a steady pace, and returns how many. What is
    /// late is made up for.
    async fn send_steadily(&self, room: &str, per_second: f64, text_bytes: usize) -> Result<u64> {
        let begun = Instant::now();
        let all = (per_second * self.lasts.as_secs_f64()).ceil() as u64;
        for sent in 0..all {
            let due = begun + Duration::from_secs_f64(sent as f64 / per_second);
            tokio::time::sleep_until(due.into()).await;
            let text = self.clock.text(text_bytes);
            let call = Call::post(messages(room), &json!({ "text": text }));
            self.cluster.expect(self.id, call, 201).await?;
        }
        Ok(all)
    }

    /// Waits until every reader has the last message of his room; he checks himself that none is missing.
    async fn all_have_come(&self, places: &[(usize, Arc<Place>)], sent: &[u64]) -> Result<()> {
        eventually("every reader has every message", ARRIVES_WITHIN, async || {
            let behind = places
                .iter()
                .filter(|(room, place)| place.seq.load(Ordering::Relaxed) < sent[*room])
                .count();
            if behind == 0 {
                Ok(())
            } else {
                Err(format!("{behind} readers are behind"))
            }
        })
        .await
    }
}
