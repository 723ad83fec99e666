//! Disks that fill up, and disks that hang.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate_api::replica::ReplicaError;
use quorate_state_machine::Command;

use crate::cluster::{Cluster, create_room, send, until};

/// Writes are refused while a majority's disks are nearly full, deletions are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_refuses_growth_and_recovers_by_itself() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[0].write(create_room("lobby")).await.unwrap();
    let refused = |node: usize| {
        let node = &cluster.nodes[node];
        async move {
            matches!(
                node.write(send("lobby", "more".into())).await,
                Err(ReplicaError::DiskFull)
            )
        }
    };
    for followers in [true, false] {
        let low: Vec<usize> = (0..3).filter(|n| (*n != leader) == followers).collect();
        for n in &low {
            cluster.nodes[*n].free.store(0, Ordering::Relaxed);
        }
        let filling = Instant::now();
        while !refused(leader).await {
            assert!(filling.elapsed() < Duration::from_secs(20), "writes go on: {low:?}");
        }
        assert!(refused((leader + 1) % 3).await, "a follower passes the refusal on");
        cluster.nodes[leader].last_seq("lobby").await;
        let deleted = Command::DeleteUser { user: "nobody".into() };
        cluster.nodes[(leader + 1) % 3].write(deleted).await.unwrap();
        for n in &low {
            cluster.nodes[*n].free.store(1 << 30, Ordering::Relaxed);
        }
        let emptying = Instant::now();
        while cluster.nodes[leader].write(send("lobby", "more".into())).await.is_err() {
            assert!(emptying.elapsed() < Duration::from_secs(20), "writes do not come back");
        }
    }
    cluster.stop().await;
}

/// Nothing that a leader with such a disk takes is ever answered, and its heartbeats look healthy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_hands_over() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].disk_hangs.store(true, Ordering::Relaxed);
    until("another node leads", || {
        let now = cluster.nodes[(leader + 1) % 3].core.live_leader()?;
        (now != leader as u64 + 1).then_some(())
    })
    .await;
    cluster.nodes[leader].write(create_room("lobby")).await.unwrap();
    assert_eq!(
        *cluster.nodes[leader].ended.lock().unwrap(),
        None,
        "as a follower it may go on"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_ends_where_nobody_takes_over() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for n in (0..3).filter(|n| *n != leader) {
        cluster.nodes[n].stop().await;
    }
    cluster.nodes[leader].disk_hangs.store(true, Ordering::Relaxed);
    let reason = until("the node ends", || cluster.nodes[leader].ended.lock().unwrap().clone()).await;
    assert!(reason.contains("disk hangs"), "{reason}");
    cluster.nodes[leader].stop().await;
}
