//! The log is bounded: a node that needs more of it than there still is catches up by a snapshot,
//! whatever happens to it meanwhile.

use std::sync::Arc;

use quorate_torture::cluster::{Cluster, JOIN_TIMEOUT, Newcomer};
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{Chat, fill};
use reqwest::Method;

use crate::SOON;

/// The least that a node accepts.
const LOG_BYTES_MAX: u64 = 1 << 20;
const LOG_ARGS: [&str; 2] = ["--log-bytes-max", "1048576"];
/// Many times the log that is kept, so that a snapshot travels in many pieces.
const ARCHIVE_BYTES: u64 = 12 << 20;
/// The newest entries of the log are kept, however large; so many small ones come after the large ones.
const ENOUGH_ENTRIES: u64 = 500;

/// Takes a snapshot on each of the nodes and waits until their logs are short.
async fn purge(cluster: &Cluster, ids: &[u64]) {
    for id in ids {
        cluster.take_snapshot(*id).await.unwrap();
    }
    for id in ids {
        eventually("the log is purged", SOON, async || {
            let kept = cluster.metric(*id, "quorate_log_retained_bytes").await;
            match kept.map_err(|error| error.to_string())? {
                bytes if bytes <= LOG_BYTES_MAX as f64 => Ok(()),
                bytes => Err(format!("node {id} keeps {bytes} bytes")),
            }
        })
        .await
        .unwrap();
    }
}

/// Waits until the node has received something of a snapshot since its last start.
async fn wait_received(cluster: &Cluster, id: u64) {
    eventually("it comes by snapshot", SOON, async || {
        let received = cluster.metric(id, "quorate_snapshot_received_bytes_total").await;
        match received.map_err(|error| error.to_string())? {
            0.0 => Err(format!("node {id} has received none")),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_catches_up_by_snapshot_though_it_is_killed_on_the_way() {
    let options = Cluster::options().breakable_links().serve_args(&LOG_ARGS);
    let cluster = Arc::new(options.start().await.unwrap());
    cluster.create_room(1, "archive").await.unwrap();
    fill(&cluster, 1, "archive", ARCHIVE_BYTES, 1).await.unwrap();
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::start(&chat, &[1, 2, 3], 4, 1);
    chat.wait_acknowledged(ENOUGH_ENTRIES, SOON).await.unwrap();
    purge(&cluster, &[1, 2, 3]).await;

    // The transfer stops in the middle and the receiver dies there; and again when a new one came further.
    chat.history.fault("add", Some(4));
    cluster.prepare_new(&Newcomer::new(4)).await.unwrap();
    for bytes in [ARCHIVE_BYTES / 8, ARCHIVE_BYTES / 4] {
        cluster.network().cut_after(4, bytes);
        cluster.restart(4).unwrap();
        cluster.network().wait_cut(4, JOIN_TIMEOUT).await.unwrap();
        nothing_else_can_be_changed(&cluster).await;
        chat.history.fault("kill", Some(4));
        cluster.kill(4).await.unwrap();
        chat.wait_acknowledged(50, SOON).await.unwrap();
        cluster.network().heal();
    }
    cluster.restart(4).unwrap();
    cluster.wait_voter(4).await.unwrap();
    cluster.wait_ready(&[4]).await.unwrap();
    wait_received(&cluster, 4).await;
    chat.wait_acknowledged(50, SOON).await.unwrap();
    load.stop().await.unwrap();

    // Killed again, it has what it had.
    cluster.kill(4).await.unwrap();
    cluster.restart(4).unwrap();
    cluster.wait_all_ready().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 150, "too little happened: {verdict}");
}

/// While a learner is on its way, nobody else comes or goes.
async fn nothing_else_can_be_changed(cluster: &Cluster) {
    let second = Call::post("/v1/cluster/nodes", &cluster.registration(&Newcomer::new(5), None));
    let refused = cluster.expect(2, second, 409).await.unwrap();
    assert_eq!(refused.code(), "conflict", "{refused}");
    let removal = Call::new(Method::DELETE, "/v1/cluster/nodes/3");
    let refused = cluster.expect(1, removal, 409).await.unwrap();
    assert_eq!(refused.code(), "conflict", "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_missed_what_was_purged_catches_up_by_snapshot() {
    let cluster = Arc::new(Cluster::options().serve_args(&LOG_ARGS).start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall", "archive"]).await.unwrap();
    let load = Load::everywhere(&chat, 3, 1);
    chat.wait_acknowledged(50, SOON).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let late = cluster.others(leader)[0];

    chat.history.fault("kill", Some(late));
    cluster.kill(late).await.unwrap();
    cluster.create_room(leader, "meanwhile").await.unwrap();
    fill(&cluster, leader, "meanwhile", 4 * LOG_BYTES_MAX, 2).await.unwrap();
    chat.wait_acknowledged(ENOUGH_ENTRIES, SOON).await.unwrap();
    purge(&cluster, &cluster.others(late)).await;
    cluster.restart(late).unwrap();
    cluster.wait_ready(&[late]).await.unwrap();
    wait_received(&cluster, late).await;
    chat.wait_acknowledged(50, SOON).await.unwrap();
    load.stop().await.unwrap();

    // What it received is as durable as what it wrote.
    cluster.kill_together(&cluster.ids()).await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 100, "too little happened: {verdict}");
}
