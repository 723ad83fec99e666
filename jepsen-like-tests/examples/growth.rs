//! Measures what sending and paging cost as rooms grow and become many, for docs/PERFORMANCE.md: the same requests in
//! a store with one room of ten million messages, then in one of ten thousand rooms of a thousand each, in turn with one of a
//! single room of a thousand; and by members and by size. Also disk, memory, restart and catching up. What it prints is Markdown.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example growth
//! ```
//!
//! QUORATE_BIN names the binary, QUORATE_TEST_LOGS a folder of real logs (`*.raw.txt`) of whose lines the messages are
//! made; without it an invented conversation is. QUORATE_MESSAGES is the number of messages of the large stores,
//! 10,000,000 if it is not set; QUORATE_NODES that of the nodes, 3 or 5. No figure is extrapolated.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::measure::{commit, compacted, lines, machine, on_disk, settle, sizes, snapshots};
use quorate_torture::workload::messages;
use serde_json::{Value, json};

const MESSAGES: usize = 10_000_000;
const ROOMS: usize = 10_000;
/// Of the room that all others are compared with.
const SMALL: usize = 1000;
const BATCH: usize = 1000;
/// Batches under way while a store is filled.
const FILLERS: usize = 8;
/// Requests of each kind, one at a time, and in how many rounds two stores are asked in turn.
const REQUESTS: usize = 400;
const ROUNDS: usize = 10;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
const MEMBERS: [usize; 3] = [1, 100, 10_000];
const TEXT_BYTES: [usize; 4] = [16, 256, 4096, 65_536];
/// What a follower misses while it is down.
const MISSED: usize = 200_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let total = number("QUORATE_MESSAGES", MESSAGES)?;
    ensure!(total >= ROOMS, "QUORATE_MESSAGES: at least {ROOMS}, one a room");
    let nodes = number("QUORATE_NODES", 3)?;
    let (source, name) = lines()?;
    let texts: Vec<String> = source
        .iter()
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|text| !text.is_empty())
        .collect();
    println!(
        "Commit {}, {}; {nodes} nodes and the client share them.",
        commit(),
        machine()?
    );
    println!("Messages: {name}, from {} lines.\n", texts.len());

    let small = Store::start(nodes, vec!["small".to_owned()]).await?;
    fill(&small, &texts, SMALL).await?;
    members(&small.cluster).await?;
    text_sizes(&small.cluster).await?;

    let mut rows = Vec::new();
    for rooms in [1, ROOMS] {
        let large = Store::start(nodes, (0..rooms).map(|room| format!("room-{room}")).collect()).await?;
        let begun = Instant::now();
        let bytes = fill(&large, &texts, total / rooms).await?;
        let name = format!("{rooms} rooms, {} messages", total / rooms * rooms);
        println!(
            "\n### {name}\n\nFilled with {bytes} bytes of texts in {:.1} s.\n",
            begun.elapsed().as_secs_f64()
        );
        for (what, call, first) in KINDS {
            let [of_small, of_large] = in_turn([&small, &large], call, first).await?;
            rows.push(format!(
                "| {name} | {what} | {of_small:.2} | {of_large:.2} | {:.2} |",
                of_large / of_small
            ));
        }
        standing(&large, &texts, bytes).await?;
    }

    println!(
        "\n### One request at a time\n\nIn turn with a store of one room with {SMALL} messages, which has its own nodes.\n"
    );
    println!("| store | request | the small store, ms | this store, ms | ratio |\n|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// A cluster and its rooms.
struct Store {
    cluster: Cluster,
    rooms: Vec<String>,
    /// The seq in the middle of each room, once they are filled.
    middle: AtomicUsize,
}

impl Store {
    async fn start(nodes: usize, rooms: Vec<String>) -> Result<Self> {
        Ok(Self {
            cluster: Cluster::options().nodes(nodes as u64).start().await?,
            rooms,
            middle: AtomicUsize::new(0),
        })
    }

    /// Another one for each number, as long as there are others.
    fn room(&self, number: usize) -> &str {
        &self.rooms[number * 7919 % self.rooms.len()]
    }
}

type Request = fn(&Store, usize) -> Call;

/// What is measured of a store, and the number of the first request, which chooses the rooms: kinds that begin elsewhere have rooms of their own, if there are enough, and ask them for
/// the first time since they were filled.
const KINDS: [(&str, Request, usize); 5] = [
    ("send", send_to_room, 0),
    ("last page", last_page, REQUESTS),
    ("last page, asked again", last_page, REQUESTS),
    ("page in the middle", page_in_the_middle, 2 * REQUESTS),
    ("page in the middle, asked again", page_in_the_middle, 2 * REQUESTS),
];

fn send_to_room(store: &Store, number: usize) -> Call {
    send(store.room(number), &"x".repeat(256))
}

fn last_page(store: &Store, number: usize) -> Call {
    Call::get(format!("{}?limit=50", messages(store.room(number))))
}

fn page_in_the_middle(store: &Store, number: usize) -> Call {
    let after = store.middle.load(Ordering::Relaxed);
    Call::get(format!("{}?limit=50&after={after}", messages(store.room(number))))
}

/// Medians in milliseconds of the stores, which are asked in turn: what a request takes may change by half from one minute to
/// the next, as the disk does.
async fn in_turn(stores: [&Store; 2], call: Request, first: usize) -> Result<[f64; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (store, times) in stores.into_iter().zip(&mut times) {
            let first = first + round * REQUESTS / ROUNDS;
            let numbers = first..first + REQUESTS / ROUNDS;
            times.extend(sample(&store.cluster, numbers, |number| call(store, number)).await?);
        }
    }
    Ok(times.map(median))
}

fn number(variable: &str, default: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(number) => number.parse().with_context(|| variable.to_owned()),
        Err(_) => Ok(default),
    }
}

/// Makes the rooms and sends so many messages to each, in batches; the bytes of their texts.
async fn fill(store: &Store, texts: &[String], each: usize) -> Result<usize> {
    let Store { cluster, rooms, middle } = store;
    middle.store(each / 2, Ordering::Relaxed);
    let leader = cluster.leader().await?;
    let batches = each.div_ceil(BATCH);
    let (next, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let make = async || {
        while let Some(room) = rooms.get(next.fetch_add(1, Ordering::Relaxed)) {
            cluster.create_room(leader, room).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..FILLERS).map(|_| make())).await?;
    next.store(0, Ordering::Relaxed);
    let send = async || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(room) = rooms.get(number / batches) else { break };
            let first = number % batches * BATCH;
            let line = |at: usize| &texts[(number / batches + at) % texts.len()];
            let batch: Vec<&String> = (first..each.min(first + BATCH)).map(line).collect();
            bytes.fetch_add(batch.iter().map(|text| text.len()).sum(), Ordering::Relaxed);
            let batch: Vec<Value> = batch.iter().map(|text| json!({ "text": text })).collect();
            let call = Call::post(format!("{}/batch", messages(room)), &json!({ "messages": batch }));
            cluster.expect(leader, call, 201).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..FILLERS).map(|_| send())).await?;
    settle(cluster).await?;
    compacted(cluster).await?;
    Ok(bytes.into_inner())
}

fn send(room: &str, text: &str) -> Call {
    Call::post(messages(room), &json!({ "text": text }))
}

/// The milliseconds that the calls take at the leader, one at a time; the first quarter of them left out.
async fn sample(cluster: &Cluster, numbers: Range<usize>, call: impl Fn(usize) -> Call) -> Result<Vec<f64>> {
    let leader = cluster.leader().await?;
    let warm_up = numbers.len() / 4;
    let mut times = Vec::new();
    for number in numbers {
        let answer = cluster.send(leader, call(number)).await?;
        ensure!(
            matches!(answer.status, 200 | 201),
            "{} {}",
            answer.status,
            answer.code()
        );
        times.push(answer.took.as_secs_f64() * 1000.0);
    }
    Ok(times.split_off(warm_up))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Sends of a member to rooms with few and with many members.
async fn members(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let (most, next) = (MEMBERS[MEMBERS.len() - 1], AtomicUsize::new(0));
    for members in MEMBERS {
        cluster.create_room(leader, &format!("members-{members}")).await?;
    }
    let join = async || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= most {
                break anyhow::Ok(());
            }
            let user = format!("user-{number}");
            cluster.create_user(leader, &user).await?;
            for members in MEMBERS.into_iter().filter(|members| number < *members) {
                let path = format!("/v1/rooms/members-{members}/members/{user}");
                cluster
                    .send(leader, Call::put(path, &json!({})))
                    .await?
                    .expect_status(201)?;
            }
        }
    };
    try_join_all((0..4 * FILLERS).map(|_| join())).await?;
    println!("### By members: sends of a member, one at a time\n\n| members | send ms |\n|---|---|");
    for members in MEMBERS {
        let room = format!("members-{members}");
        let call = |_| send(&room, &"x".repeat(256)).as_user("user-0");
        let took = median(sample(cluster, 0..REQUESTS, call).await?);
        println!("| {members} | {took:.2} |");
    }
    Ok(())
}

async fn text_sizes(cluster: &Cluster) -> Result<()> {
    println!("\n### By size: sends, one at a time\n\n| bytes of text | send ms |\n|---|---|");
    for bytes in TEXT_BYTES {
        let took = median(sample(cluster, 0..REQUESTS, |_| send("small", &"x".repeat(bytes))).await?);
        println!("| {bytes} | {took:.2} |");
    }
    Ok(())
}

/// Memory, disk, restart and catching up of a store that is full.
async fn standing(store: &Store, texts: &[String], bytes: usize) -> Result<()> {
    let cluster = &store.cluster;
    ensure!(snapshots(cluster).await?, "this build takes no snapshots on demand");
    println!("After a snapshot on every node, and the purge of the log that it covers:\n");
    sizes(cluster).await?;
    let state = cluster.ids().into_iter().map(|id| {
        let state = on_disk(&cluster.node(id).data().join("state"), &mut HashSet::new());
        format!("{:.2}", state as f64 / bytes as f64)
    });
    println!(
        "\nState on disk to bytes sent, by node: {}.\n",
        state.collect::<Vec<_>>().join(", ")
    );

    println!("| a follower | s |\n|---|---|");
    let leader = cluster.leader().await?;
    let follower = cluster.others(leader)[0];
    for (how, gracefully) in [
        ("restart after SIGTERM, until `/readyz` is 200", true),
        ("after kill -9", false),
    ] {
        match gracefully {
            true => drop(cluster.terminate(follower, SETTLE_TIMEOUT).await?),
            false => cluster.kill(follower).await?,
        }
        println!("| {how} | {:.2} |", back(cluster, follower).await?.as_secs_f64());
    }
    cluster.kill(follower).await?;
    fill_more(cluster, texts, store.room(0)).await?;
    let took = back(cluster, follower).await?;
    println!(
        "| after kill -9, with {MISSED} messages missed, until it has them | {:.2} |",
        took.as_secs_f64()
    );
    Ok(())
}

/// How long a node needs from its start until it has all that the leader has.
async fn back(cluster: &Cluster, node: u64) -> Result<Duration> {
    let position = cluster
        .expect(cluster.leader().await?, Call::get("/v1/rooms?limit=1"), 200)
        .await?
        .position()?;
    let begun = Instant::now();
    cluster.restart(node)?;
    cluster.wait_ready(&[node]).await?;
    let call = Call::get("/v1/rooms?limit=1&level=local")
        .min_position(&position)
        .timeout(Duration::from_secs(60));
    cluster.expect(node, call, 200).await?;
    Ok(begun.elapsed())
}

async fn fill_more(cluster: &Cluster, texts: &[String], room: &str) -> Result<()> {
    let leader = cluster.leader().await?;
    for number in 0..MISSED / BATCH {
        let batch: Vec<Value> = (0..BATCH)
            .map(|line| json!({ "text": texts[(number + line) % texts.len()] }))
            .collect();
        let call = Call::post(format!("{}/batch", messages(room)), &json!({ "messages": batch }));
        cluster.expect(leader, call, 201).await?;
    }
    Ok(())
}
