//! Measures what sending and paging cost as rooms grow and become many, for docs/PERFORMANCE.md: the same requests in
//! a store with one room of a thousand messages, with one room of ten million, and with ten thousand rooms of a
//! thousand each; then by members and by size. Also disk, memory, restart and catching up. What it prints is Markdown.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example growth
//! ```
//!
//! QUORATE_BIN names the binary, QUORATE_TEST_LOGS a folder of real logs (`*.raw.txt`) of whose lines the messages are
//! made; without it an invented conversation is. QUORATE_MESSAGES is the number of messages of the large stores,
//! 10,000,000 if it is not set; QUORATE_NODES that of the nodes, 3 or 5. No figure is extrapolated.

use std::collections::HashSet;
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
/// Requests of each kind, one at a time.
const REQUESTS: usize = 400;
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

    let small = ["small".to_owned()];
    let cluster = start(nodes).await?;
    fill(&cluster, &texts, &small, SMALL).await?;
    let before = Times::of(&cluster, &small).await?;
    members(&cluster).await?;
    text_sizes(&cluster).await?;
    drop(cluster);

    let mut stores = vec![(format!("1 room with {SMALL} messages"), before)];
    for rooms in [1, ROOMS] {
        let cluster = start(nodes).await?;
        let names: Vec<String> = (0..rooms).map(|room| format!("room-{room}")).collect();
        let begun = Instant::now();
        let bytes = fill(&cluster, &texts, &names, total / rooms).await?;
        let store = format!("{rooms} rooms, {} messages", total / rooms * rooms);
        println!(
            "\n### {store}\n\nFilled with {bytes} bytes of texts in {:.1} s.\n",
            begun.elapsed().as_secs_f64()
        );
        stores.push((store, Times::of(&cluster, &names).await?));
        standing(&cluster, &texts, &names[0], bytes).await?;
    }

    println!(
        "\n### One request at a time\n\n| store | send ms | to the first | last page ms | to the first | page in the middle ms | to the first |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (store, times) in &stores {
        let first = &stores[0].1;
        let cells = [
            (times.send, first.send),
            (times.last_page, first.last_page),
            (times.middle_page, first.middle_page),
        ];
        let cells = cells.map(|(now, first)| format!("{now:.2} | {:.2}", now / first));
        println!("| {store} | {} |", cells.join(" | "));
    }
    Ok(())
}

async fn start(nodes: usize) -> Result<Cluster> {
    Cluster::options().nodes(nodes as u64).start().await
}

fn number(variable: &str, default: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(number) => number.parse().with_context(|| variable.to_owned()),
        Err(_) => Ok(default),
    }
}

/// Makes the rooms and sends so many messages to each, in batches; the bytes of their texts.
async fn fill(cluster: &Cluster, texts: &[String], rooms: &[String], each: usize) -> Result<usize> {
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

/// Medians in milliseconds, of one request at a time at the leader.
struct Times {
    send: f64,
    last_page: f64,
    middle_page: f64,
}

impl Times {
    async fn of(cluster: &Cluster, rooms: &[String]) -> Result<Self> {
        let room = |number: usize| &rooms[number * 7919 % rooms.len()];
        let first = cluster
            .expect(
                cluster.leader().await?,
                Call::get(format!("{}?limit=1", messages(&rooms[0]))),
                200,
            )
            .await?;
        let middle = first.json()?["last_seq"].as_u64().context("a page has last_seq")? / 2;
        Ok(Self {
            send: median(cluster, |number| send(room(number), &"x".repeat(256))).await?,
            last_page: median(cluster, |number| {
                Call::get(format!("{}?limit=50", messages(room(number))))
            })
            .await?,
            middle_page: median(cluster, |number| {
                Call::get(format!("{}?limit=50&after={middle}", messages(room(number))))
            })
            .await?,
        })
    }
}

fn send(room: &str, text: &str) -> Call {
    Call::post(messages(room), &json!({ "text": text }))
}

/// Of the times that the calls take at the leader, the first quarter of them left out.
async fn median(cluster: &Cluster, call: impl Fn(usize) -> Call) -> Result<f64> {
    let leader = cluster.leader().await?;
    let mut times = Vec::new();
    for number in 0..REQUESTS {
        let answer = cluster.send(leader, call(number)).await?;
        ensure!(
            matches!(answer.status, 200 | 201),
            "{} {}",
            answer.status,
            answer.code()
        );
        if number >= REQUESTS / 4 {
            times.push(answer.took.as_secs_f64() * 1000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
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
        let took = median(cluster, |_| send(&room, &"x".repeat(256)).as_user("user-0")).await?;
        println!("| {members} | {took:.2} |");
    }
    Ok(())
}

async fn text_sizes(cluster: &Cluster) -> Result<()> {
    println!("\n### By size: sends, one at a time\n\n| bytes of text | send ms |\n|---|---|");
    for bytes in TEXT_BYTES {
        let took = median(cluster, |_| send("small", &"x".repeat(bytes))).await?;
        println!("| {bytes} | {took:.2} |");
    }
    Ok(())
}

/// Memory, disk, restart and catching up of a store that is full.
async fn standing(cluster: &Cluster, texts: &[String], room: &str, bytes: usize) -> Result<()> {
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
    fill_more(cluster, texts, room).await?;
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
