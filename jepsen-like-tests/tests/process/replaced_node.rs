//! A node whose directory was emptied is refused under its old id by both ends, which say so; a new
//! node takes its place, also at the same addresses.

use std::sync::Arc;

use quorate_torture::cluster::{Cluster, Newcomer};
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::Chat;

use crate::{CLUSTER_VERSION, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_nodes_are_refused_and_new_ones_take_their_places() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    // To replace a node in one change is something that the first version does not have.
    cluster.wait_version(CLUSTER_VERSION).await.unwrap();
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::everywhere(&chat, 3, 1);
    chat.wait_acknowledged(50, SOON).await.unwrap();

    // A follower, replaced at its own addresses; then the leader, by a node elsewhere.
    let leader = cluster.leader().await.unwrap();
    let follower = cluster.others(leader)[0];
    for (old, newcomer) in [
        (follower, Newcomer::new(4).at_addresses_of(follower)),
        (leader, Newcomer::new(5)),
    ] {
        chat.history.fault("wipe", Some(old));
        cluster.kill(old).await.unwrap();
        cluster.wipe(old).unwrap();
        cluster.restart(old).unwrap();
        both_ends_refuse(&cluster, old).await;
        chat.wait_acknowledged(50, SOON).await.unwrap();
        chat.history.fault("replace", Some(old));
        cluster.replace(old, &newcomer).await.unwrap();
        chat.wait_acknowledged(50, SOON).await.unwrap();
    }
    load.stop().await.unwrap();

    // Everybody with the flags of the first day.
    let left = cluster.ids();
    assert!(left.contains(&4) && left.contains(&5) && left.len() == 3, "{left:?}");
    cluster.kill_together(&left).await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 250, "too little happened: {verdict}");
}

/// The one that was wiped says what both ends know of its store, and that is why it ends.
async fn both_ends_refuse(cluster: &Cluster, wiped: u64) {
    let log = || cluster.node(wiped).process().log_tail(256 << 10);
    eventually("the wiped node says that it is refused", SOON, async || {
        let told = log();
        let own = format!("node {wiped} has store");
        let others = format!("knows node {wiped} with store");
        // It is told when it dials, or finds out when it is dialled.
        if told.contains(&others) || (told.contains(&own) && told.contains("wiped or swapped")) {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await
    .unwrap();
    let ended = cluster.node(wiped).process().wait_end(SOON).await.unwrap();
    assert!(!ended.success(), "{ended}");
    assert!(log().contains("emptied or swapped"), "{}", log());
}
