//! Disks that fill up: writes are refused before anything breaks, reads and deletions go on, and when
//! there is room again writes come back by themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_torture::cluster::{Cluster, SmallDisks};
use quorate_torture::http::{Answer, Call};
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{Chat, fill, messages, page_of};
use reqwest::Method;
use serde_json::{Value, json};

use crate::SOON;

/// The product's own low-water mark, 256 MiB, and room for some 150 MiB of messages above it.
const DISK_BYTES: u64 = 448 << 20;
/// A node that is nearly full makes what room it can every five seconds.
const NO_MORE_ROOM: Duration = Duration::from_secs(11);
const ARGS: [&str; 2] = ["--log-bytes-max", "8388608"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_until_a_deletion_makes_room() {
    let disks = match SmallDisks::mount(3, DISK_BYTES) {
        Ok(disks) => disks,
        Err(why) => {
            return eprintln!("SKIPPED a_full_disk_refuses_writes_until_a_deletion_makes_room: {why:#}");
        }
    };
    let options = Cluster::options().small_disks(disks).serve_args(&ARGS);
    let cluster = Arc::new(options.start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::everywhere(&chat, 1, 1);
    chat.wait_acknowledged(50, SOON).await.unwrap();
    for room in ["hoard", "side"] {
        cluster.create_room(1, room).await.unwrap();
    }

    let refused = fill_until_refused(&cluster).await;
    assert_eq!(refused.code(), "disk_full", "{refused}");
    let problem = refused.json().unwrap();
    assert_eq!(problem["outcome"], "not_applied", "{refused}");

    // Everywhere, for every write that needs room; reads go on, and no node has ended.
    for id in cluster.ids() {
        let write = Call::post(messages("side"), &json!({ "text": "one more" }));
        let refused = cluster.expect(id, write, 507).await.unwrap();
        assert_eq!(refused.code(), "disk_full", "{refused}");
        let page = cluster.expect(id, Call::get(messages("hoard")), 200).await.unwrap();
        assert_eq!(page_of(&page).unwrap().0.len(), 50);
        cluster.expect(id, Call::get("/readyz"), 200).await.unwrap();
    }
    // Either the leader's own disk is low, or those of a majority are.
    eventually("the metric says so", SOON, async || {
        let leader = cluster.leader().await.map_err(|error| error.to_string())?;
        let mut low = Vec::new();
        for id in cluster.ids() {
            let metric = cluster.metric(id, "quorate_disk_low").await;
            if metric.map_err(|error| error.to_string())? == 1.0 {
                low.push(id);
            }
        }
        if low.contains(&leader) || low.len() * 2 > cluster.ids().len() {
            Ok(())
        } else {
            Err(format!("nodes {low:?} say so, node {leader} leads"))
        }
    })
    .await
    .unwrap();
    // A crash does not make it worse.
    let victim = cluster.others(cluster.leader().await.unwrap())[0];
    cluster.kill(victim).await.unwrap();
    cluster.restart(victim).unwrap();
    cluster.wait_all_ready().await.unwrap();

    let deletion = Call::new(Method::DELETE, "/v1/rooms/hoard").timeout(SOON);
    cluster.expect(victim, deletion, 204).await.unwrap();
    cluster.expect(1, Call::get("/v1/rooms/hoard"), 404).await.unwrap();
    eventually("writes come back by themselves", Duration::from_secs(40), async || {
        let write = Call::post(messages("side"), &json!({ "text": "back" }));
        match cluster.send(victim, write).await {
            Ok(answer) if answer.status == 201 => Ok(()),
            Ok(answer) => Err(answer.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .unwrap();
    fill(&cluster, 1, "side", 1 << 20, 8).await.unwrap();
    chat.wait_acknowledged(50, SOON).await.unwrap();
    load.stop().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.refused > 0, "the load was never refused: {verdict}");
}

/// Fills the room until writes stay refused, and answers with the refusal. The nodes make room by themselves
/// first: they take a snapshot and cut their logs.
async fn fill_until_refused(cluster: &Cluster) -> Answer {
    let filler = "x".repeat(60 << 10);
    let batch: Vec<Value> = (0..16).map(|_| json!({ "text": filler })).collect();
    for turn in 0.. {
        if fill(cluster, 1, "hoard", 4 << 20, turn + 1).await.is_ok() {
            assert!(
                turn * (4 << 20) < 4 * DISK_BYTES,
                "more was written than the disks hold"
            );
            continue;
        }
        let refused_for = Instant::now();
        let answer = loop {
            let call = Call::post(format!("{}/batch", messages("hoard")), &json!({ "messages": batch }));
            let answer = cluster.send(1, call).await.unwrap();
            if answer.status != 507 || refused_for.elapsed() > NO_MORE_ROOM {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        if answer.status == 507 {
            return answer;
        }
    }
    unreachable!("it either fails or goes on")
}
