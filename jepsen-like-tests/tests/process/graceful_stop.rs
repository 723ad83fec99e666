//! SIGTERM: the leader hands over, finishes what it has begun, and ends well.

use std::sync::Arc;
use std::time::Instant;

use quorate_torture::cluster::Cluster;
use quorate_torture::load::Load;
use quorate_torture::workload::Chat;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_leader_hands_over_and_exits_with_0() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::start(&chat, &cluster.ids(), 6, 1);
    chat.wait_acknowledged(100, SOON).await.unwrap();

    for _ in 0..2 {
        let old = cluster.leader().await.unwrap();
        let begun = Instant::now();
        chat.history.fault("terminate", Some(old));
        let status = cluster.terminate(old, SOON).await.unwrap();
        println!("node {old} ended after {:?}", begun.elapsed());
        assert_eq!(status.code(), Some(0), "{status}");
        cluster.leader_after(old).await.unwrap();
        chat.wait_acknowledged(100, SOON).await.unwrap();
        println!("longest time without an acknowledgement: {:?}", chat.longest_gap(begun));
        cluster.restart(old).unwrap();
        cluster.wait_ready(&[old]).await.unwrap();
    }
    load.stop().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 300, "too little happened: {verdict}");
}

/// The last one has nobody to hand over to, and ends all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_can_be_terminated_one_after_the_other_and_come_back() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let position = cluster.wait_writable(1, "hall").await.unwrap();
    for id in cluster.ids() {
        let status = cluster.terminate(id, SOON).await.unwrap();
        assert_eq!(status.code(), Some(0), "node {id}: {status}");
    }
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    for id in cluster.ids() {
        let room = quorate_torture::workload::whole_room(&cluster, id, "hall", &position)
            .await
            .unwrap();
        assert_eq!(room[0].1, "probe 1");
    }
}
