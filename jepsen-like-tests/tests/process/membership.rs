//! A cluster grows and shrinks while clients write: no acknowledged write is lost, whoever comes,
//! goes or leads.

use std::sync::Arc;
use std::time::Instant;

use quorate_torture::cluster::Cluster;
use quorate_torture::load::Load;
use quorate_torture::workload::Chat;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_hands_over_and_shrinks_to_three_under_load() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["harbour", "hall"]).await.unwrap();
    let load = Load::everywhere(&chat, 4, 1);
    chat.wait_acknowledged(50, SOON).await.unwrap();

    for id in [4, 5] {
        let begun = Instant::now();
        chat.history.fault("add", Some(id));
        cluster.add(id).await.unwrap();
        chat.wait_acknowledged(50, SOON).await.unwrap();
        tell(&chat, &format!("node {id} added"), begun);
    }
    let members = cluster.membership(5).await.unwrap();
    assert_eq!(members["failures_tolerated"], 2, "{members}");

    for to in cluster.ids() {
        let begun = Instant::now();
        chat.history.fault("transfer", Some(to));
        // Whichever node is asked.
        let via = cluster.others(to)[to as usize % 4];
        assert_eq!(cluster.transfer(via, Some(to)).await.unwrap(), to);
        chat.wait_acknowledged(20, SOON).await.unwrap();
        tell(&chat, &format!("node {to} leads"), begun);
    }

    let leader = cluster.leader().await.unwrap();
    let follower = cluster.others(leader)[0];
    for (what, id) in [("a follower", follower), ("the leader", leader)] {
        let begun = Instant::now();
        chat.history.fault("remove", Some(id));
        cluster.remove(id).await.unwrap();
        chat.wait_acknowledged(50, SOON).await.unwrap();
        tell(&chat, &format!("{what}, node {id}, removed"), begun);
    }
    load.stop().await.unwrap();
    let left = cluster.ids();
    assert_eq!(left.len(), 3);
    cluster.wait_all_ready().await.unwrap();
    let members = cluster.membership(left[0]).await.unwrap();
    let named: Vec<u64> = members["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_u64().unwrap())
        .collect();
    assert_eq!(named, left, "{members}");
    let verdict = chat.judge().await.unwrap();
    assert!(
        verdict.acknowledged >= 350 && verdict.reads >= 20,
        "too little happened: {verdict}"
    );

    // All at once, with the flags of their first day, which name nodes that are no more.
    cluster.kill_together(&left).await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    cluster.wait_writable(left[0], "harbour").await.unwrap();
    cluster.verify().await.unwrap();
}

/// Printed for whoever looks; how long a busy machine takes is no test.
fn tell(chat: &Chat, what: &str, begun: Instant) {
    println!(
        "{what} after {:?}; at most {:?} without an acknowledgement",
        begun.elapsed(),
        chat.longest_gap(begun)
    );
}
