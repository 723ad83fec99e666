//! A node keeps messages as it wrote them out for earlier pages. While they are edited, and while the leader dies, a
//! page shows on every node what was acknowledged before it was asked for; and what may no longer be shown is not.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use reqwest::Method;
use serde_json::json;

use crate::{CLUSTER_VERSION, SOON};

const MESSAGES: usize = 20;
/// Edits before the leader dies, and after.
const EDITS: u64 = 200;

/// What was acknowledged of each message: its text is a number that grows.
type Acknowledged = [AtomicU64; MESSAGES];

fn path(seq: usize) -> String {
    format!("{}/{seq}", messages("club"))
}

fn page() -> Call {
    Call::get(messages("club")).as_user("ann")
}

/// Edits one message after the other, through one node after the other.
async fn write(cluster: &Cluster, acknowledged: &Acknowledged, edits: std::ops::Range<u64>) {
    let (nodes, turn) = (cluster.ids(), AtomicUsize::new(0));
    for n in edits {
        let seq = n as usize % MESSAGES;
        let edit = Call::new(Method::PATCH, path(seq + 1))
            .json(&json!({ "text": n.to_string() }))
            .key(&format!("edit-{n}"));
        eventually("the edit is acknowledged", SOON, async || {
            let node = nodes[turn.fetch_add(1, Ordering::Relaxed) % nodes.len()];
            match cluster.send(node, edit.clone()).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .unwrap();
        acknowledged[seq].store(n, Ordering::SeqCst);
    }
}

/// Reads pages at a node until it is told to stop, and counts them.
async fn read(cluster: &Cluster, node: u64, acknowledged: &Acknowledged, stop: &AtomicBool) -> usize {
    let mut pages = 0;
    while !stop.load(Ordering::SeqCst) {
        let least: Vec<u64> = acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        // A node that is down or has no leader says nothing about the room.
        let Ok(answer) = cluster.send(node, page()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if answer.status != 200 {
            continue;
        }
        let shown = answer.json().unwrap();
        let shown = shown["messages"].as_array().unwrap().clone();
        assert_eq!(shown.len(), MESSAGES);
        for (message, least) in shown.iter().zip(least) {
            let text: u64 = message["text"].as_str().unwrap().parse().unwrap();
            assert!(text >= least, "node {node} shows {text} after {least}: {message}");
        }
        pages += 1;
    }
    pages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_every_edit_that_was_acknowledged_before_it() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.wait_version(CLUSTER_VERSION).await.unwrap();
    let users = Call::post("/v1/users", &json!({"user": "ann"}));
    cluster.expect(1, users, 201).await.unwrap();
    let room = json!({"room": "club", "kind": "group", "members": ["ann"]});
    cluster.expect(1, Call::post("/v1/rooms", &room), 201).await.unwrap();
    let sent = json!({"messages": vec![json!({"text": "0"}); MESSAGES]});
    let batch = Call::post(format!("{}/batch", messages("club")), &sent);
    cluster.expect(1, batch, 201).await.unwrap();

    let acknowledged = Acknowledged::default();
    let stop = AtomicBool::new(false);
    let leader = cluster.leader().await.unwrap();
    let writing = async {
        write(&cluster, &acknowledged, 1..EDITS).await;
        cluster.kill(leader).await.unwrap();
        write(&cluster, &acknowledged, EDITS..2 * EDITS).await;
        cluster.restart(leader).unwrap();
        cluster.wait_all_ready().await.unwrap();
        write(&cluster, &acknowledged, 2 * EDITS..3 * EDITS).await;
        stop.store(true, Ordering::SeqCst);
    };
    let reading = |node| read(&cluster, node, &acknowledged, &stop);
    let (pages, ()) = tokio::join!(async { tokio::join!(reading(1), reading(2), reading(3)) }, writing);
    for pages in [pages.0, pages.1, pages.2] {
        assert!(pages > 20, "a node was hardly read: {pages}");
    }

    // All have it in memory now, and none shows what is gone, nor to whom it is not for.
    for node in cluster.ids() {
        cluster.expect(node, page(), 200).await.unwrap();
        cluster.expect(node, page(), 200).await.unwrap();
        let metrics = cluster.expect(node, Call::get("/metrics"), 200).await.unwrap();
        let reused = String::from_utf8_lossy(&metrics.body).lines().find_map(|line| {
            line.strip_prefix("quorate_http_page_messages_reused_total ")?
                .parse::<u64>()
                .ok()
        });
        assert!(
            reused.is_some_and(|reused| reused >= MESSAGES as u64),
            "node {node}: {reused:?}"
        );
    }
    cluster
        .expect(1, Call::new(Method::DELETE, path(1)), 204)
        .await
        .unwrap();
    for node in cluster.ids() {
        let shown = cluster.expect(node, page(), 200).await.unwrap().json().unwrap();
        assert!(
            shown["messages"][0]["text"].is_null(),
            "node {node}: {}",
            shown["messages"][0]
        );
    }
    let leave = Call::new(Method::DELETE, "/v1/rooms/club/members/ann");
    cluster.expect(2, leave, 204).await.unwrap();
    for node in cluster.ids() {
        cluster.expect(node, page(), 403).await.unwrap();
    }
    cluster
        .expect(3, Call::new(Method::DELETE, "/v1/rooms/club"), 204)
        .await
        .unwrap();
    for node in cluster.ids() {
        cluster.expect(node, page(), 404).await.unwrap();
    }
}
