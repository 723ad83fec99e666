//! Measures how long a cluster of three nodes on this machine takes no writes when its leader is killed, ended
//! by SIGTERM or paused, and whether resets of the leader's connections cause elections. What it prints is Markdown,
//! for docs/PERFORMANCE.md.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example failover [-- ROUNDS [ROUNDS [ROUNDS [RESETS]]]]
//! ```
//!
//! The numbers are those of kills, of SIGTERMs, of pauses (20, 20 and 10 if they are not given) and of resets (1,000);
//! 0 leaves one out. QUORATE_BIN names the binary, QUORATE_WRITERS the number of writers (8 if it is not set). Each
//! writer sends one message at a time, to one node as long as it answers; when it does not, it goes on to the next
//! at once, with the same message under the same key. A *gap* is the longest time without any acknowledgement that
//! begins after the fault or is under way then. In the end every room is read from every node, and each
//! acknowledged message must be there once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{messages, whole_room};
use serde_json::json;
use tokio::task::JoinSet;

const ROUNDS: [usize; 4] = [20, 20, 10, 1000];
const WRITERS: usize = 8;
/// A node that has not answered by then is given up: only one that is paused does not.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// After each node has failed once: the cluster has no leader, and asking faster makes none.
const BACK_OFF: Duration = Duration::from_millis(5);
/// Under load before each fault, and after it.
const CALM: Duration = Duration::from_millis(700);
/// Until writes are acknowledged again, or the measurement has failed.
const RECOVER_WITHIN: Duration = Duration::from_secs(20);
/// Between two resets: all that was reset is dialled anew within it.
const RESET_EVERY: Duration = Duration::from_millis(20);
const CAUSES: [&str; 3] = ["failover", "transfer", "timeout"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut rounds = ROUNDS;
    for (place, given) in std::env::args().skip(1).enumerate() {
        let known = rounds.get_mut(place).context("at most four numbers")?;
        *known = given.parse().context("a number of rounds")?;
    }
    println!("| fault | rounds | median ms | p90 ms | max ms | elections won by cause |");
    println!("|---|---:|---:|---:|---:|---|");
    for (fault, rounds) in [Fault::Kill, Fault::Term, Fault::Pause].into_iter().zip(rounds) {
        if rounds > 0 {
            measure(fault, rounds).await?;
        }
    }
    if rounds[3] > 0 {
        reset(rounds[3]).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Term,
    Pause,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Term => "SIGTERM",
            Self::Pause => "SIGSTOP",
        }
    }
}

async fn measure(fault: Fault, rounds: usize) -> Result<()> {
    let cluster = Arc::new(Cluster::options().start().await?);
    let writers = Writers::start(&cluster).await?;
    let mut gaps = Vec::new();
    let mut won = Won::default();
    for round in 1..=rounds {
        tokio::time::sleep(CALM).await;
        let leader = cluster.leader().await?;
        let before = Won::count(&cluster, &cluster.others(leader)).await?;
        let at = Instant::now();
        let process = &cluster.node(leader);
        match fault {
            Fault::Kill => process.process().signal(Signal::SIGKILL)?,
            Fault::Term => process.process().signal(Signal::SIGTERM)?,
            Fault::Pause => cluster.pause(leader)?,
        }
        let gap = writers.gap_around(at).await?;
        let after = Won::count(&cluster, &cluster.others(leader)).await?;
        let round_won = after.since(&before);
        println!(
            "<!-- {} {round}: node {leader}, {:.1} ms, {round_won} -->",
            fault.name(),
            ms(gap)
        );
        won.add(&round_won);
        gaps.push(gap);
        match fault {
            Fault::Pause => cluster.resume(leader)?,
            Fault::Kill | Fault::Term => {
                process.process().wait_end(RECOVER_WITHIN).await?;
                cluster.restart(leader)?;
            }
        }
        cluster.wait_all_ready().await?;
        wait_level(&cluster).await?;
    }
    let acknowledged = writers.stop_and_check(&cluster).await?;
    gaps.sort();
    let at = |share: f64| ms(gaps[((gaps.len() - 1) as f64 * share).round() as usize]);
    println!(
        "| {} | {rounds} | {:.0} | {:.0} | {:.0} | {won} |",
        fault.name(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    println!("<!-- {acknowledged} messages acknowledged, each on every node once -->");
    Ok(())
}

/// Resets all connections of the leader again and again, in both directions, and counts elections.
async fn reset(times: usize) -> Result<()> {
    let cluster = Arc::new(Cluster::options().breakable_links().start().await?);
    let writers = Writers::start(&cluster).await?;
    tokio::time::sleep(CALM).await;
    let leader = cluster.leader().await?;
    let term = term(&cluster, leader).await?;
    let before = Won::count(&cluster, &cluster.ids()).await?;
    let begun = Instant::now();
    for _ in 0..times {
        for other in cluster.others(leader) {
            cluster.network().reset(leader, other);
            cluster.network().reset(other, leader);
        }
        tokio::time::sleep(RESET_EVERY).await;
    }
    let gap = writers.longest_gap(begun);
    tokio::time::sleep(CALM).await;
    let elections = Won::count(&cluster, &cluster.ids()).await?.since(&before);
    let term_after = self::term(&cluster, leader).await?;
    let acknowledged = writers.stop_and_check(&cluster).await?;
    println!(
        "\n{times} resets of all connections of the leader in {:.1} s: {elections}; term {term} before and {term_after} \
         after; longest time without an acknowledgement {:.0} ms; {acknowledged} messages acknowledged.",
        begun.elapsed().as_secs_f64(),
        ms(gap)
    );
    Ok(())
}

async fn term(cluster: &Cluster, node: u64) -> Result<String> {
    let answer = cluster.expect(node, Call::get("/livez"), 200).await?;
    Ok(answer.header("X-Quorate-Term").context("no term")?.to_owned())
}

/// Elections that nodes have won, by cause.
#[derive(Debug, Default)]
struct Won(BTreeMap<&'static str, f64>);

impl Won {
    async fn count(cluster: &Cluster, nodes: &[u64]) -> Result<Self> {
        let mut won = Self::default();
        for node in nodes {
            for cause in CAUSES {
                let sample = format!("quorate_elections_won_total{{cause=\"{cause}\"}}");
                *won.0.entry(cause).or_default() += cluster.metric(*node, &sample).await?;
            }
        }
        Ok(won)
    }

    fn since(&self, before: &Self) -> Self {
        let since = |cause| self.0.get(cause).unwrap_or(&0.0) - before.0.get(cause).unwrap_or(&0.0);
        Self(CAUSES.into_iter().map(|cause| (cause, since(cause))).collect())
    }

    fn add(&mut self, other: &Self) {
        for (cause, count) in &other.0 {
            *self.0.entry(cause).or_default() += count;
        }
    }
}

impl std::fmt::Display for Won {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each: Vec<String> = self.0.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        f.write_str(&each.join(", "))
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Waits until all nodes have applied what the leader had written.
async fn wait_level(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let goal = cluster.metric(leader, "quorate_raft_last_log_index").await?;
    for node in cluster.ids() {
        eventually("the node has caught up", RECOVER_WITHIN, async || {
            let applied = cluster.metric(node, "quorate_raft_applied_index").await;
            let applied = applied.map_err(|error| error.to_string())?;
            match applied >= goal {
                true => Ok(()),
                false => Err(format!("node {node} is at {applied} of {goal}")),
            }
        })
        .await?;
    }
    Ok(())
}

/// Clients that write without pause.
struct Writers {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// When each acknowledgement came, and in which room which text. Held for one push.
    acknowledged: Mutex<Vec<(Instant, usize, String)>>,
}

impl Writers {
    async fn start(cluster: &Arc<Cluster>) -> Result<Self> {
        let count = match std::env::var("QUORATE_WRITERS") {
            Ok(number) => number.parse().context("QUORATE_WRITERS")?,
            Err(_) => WRITERS,
        };
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for number in 0..count {
            cluster.create_room(1, &room(number)).await?;
            tasks.spawn(write(cluster.clone(), shared.clone(), number));
        }
        Ok(Self { shared, tasks })
    }

    /// Waits until writes go on after `at`, and answers the longest gap since.
    async fn gap_around(&self, at: Instant) -> Result<Duration> {
        // What was under way may still be acknowledged; then the gap comes. It has ended for sure when writes have
        // gone on for a while.
        tokio::time::sleep(3 * CALM).await;
        eventually("writes are acknowledged again", RECOVER_WITHIN, async || {
            let lately = Instant::now() - CALM;
            let calm = self.times_since(lately).len();
            match calm > 50 {
                true => Ok(()),
                false => Err(format!("{calm} in {CALM:?}")),
            }
        })
        .await?;
        Ok(self.longest_gap(at))
    }

    /// The longest time without an acknowledgement that ends after `at`.
    fn longest_gap(&self, at: Instant) -> Duration {
        let times = [vec![at], self.times_since(at)].concat();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// In order: they are taken under the lock.
    fn times_since(&self, from: Instant) -> Vec<Instant> {
        let acknowledged = self.shared.acknowledged.lock().expect("no holder of this lock panics");
        let first = acknowledged.partition_point(|(at, ..)| *at <= from);
        acknowledged[first..].iter().map(|(at, ..)| *at).collect()
    }

    /// Stops them, and looks for all that was acknowledged on every node.
    async fn stop_and_check(mut self, cluster: &Cluster) -> Result<usize> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer panicked")??;
        }
        let acknowledged = std::mem::take(&mut *self.shared.acknowledged.lock().expect("no writer is left"));
        let mut by_room: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (_, number, text) in &acknowledged {
            by_room.entry(*number).or_default().push(text.clone());
        }
        let position = cluster.wait_writable(1, &room(0)).await?;
        for (number, mut sent) in by_room {
            sent.sort();
            for node in cluster.ids() {
                let entries = whole_room(cluster, node, &room(number), &position).await?;
                let mut found: Vec<String> = entries.into_iter().map(|(_, text)| text).collect();
                found.retain(|text| text.starts_with('m'));
                found.sort();
                ensure!(
                    found == sent,
                    "room {number} on node {node}: {} acknowledged, {} found",
                    sent.len(),
                    found.len()
                );
            }
        }
        Ok(acknowledged.len())
    }
}

fn room(number: usize) -> String {
    format!("failover-{number}")
}

async fn write(cluster: Arc<Cluster>, shared: Arc<Shared>, number: usize) -> Result<()> {
    let nodes = cluster.ids();
    let path = messages(&room(number));
    let mut at = number % nodes.len();
    let mut text = 0_u64;
    // The last message is tried until its outcome is known: what was acknowledged is then all that there is.
    while !shared.stop.load(Ordering::Relaxed) {
        text += 1;
        let text = format!("m{text}");
        let call = Call::post(&path, &json!({ "text": text, "client_id": text })).timeout(ANSWER_WITHIN);
        let mut failures = 0;
        loop {
            let answer = tokio::time::timeout(ANSWER_WITHIN, cluster.send(nodes[at], call.clone())).await;
            if matches!(&answer, Ok(Ok(answer)) if answer.status == 200 || answer.status == 201) {
                break;
            }
            at = (at + 1) % nodes.len();
            failures += 1;
            if failures % nodes.len() == 0 {
                tokio::time::sleep(BACK_OFF).await;
            }
        }
        let mut acknowledged = shared.acknowledged.lock().expect("no holder of this lock panics");
        acknowledged.push((Instant::now(), number, text));
    }
    Ok(())
}
