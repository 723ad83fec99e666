//! What the rules of Raft promise to writers and readers on every node.

use futures::future::join_all;
use quorate_api::replica::{Level, Replica, ReplicaError, WriteOptions};
use quorate_state_machine::Seq;
use quorate_state_machine::apply::Response;
use quorate_state_machine::query::{Answer, QueryBody};

use crate::cluster::{Cluster, create_room, envelope, send};

/// Writes through all nodes at once: each is applied once, the seqs are dense, many commands share
/// an entry, several appends are in flight to a peer, and the states are equal byte for byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_through_every_node_are_each_applied_once() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[0].write(create_room("r")).await.unwrap();

    let count = 600;
    let seqs = join_all((0..count).map(|i| {
        let node = &cluster.nodes[i % 3];
        async move {
            let written = node.write(send("r", format!("m{i}"))).await.unwrap();
            match written.outcome.response {
                Ok(Response::Sent { seq, .. }) => seq.0,
                other => panic!("{other:?}"),
            }
        }
    }))
    .await;
    let mut sorted = seqs.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=count as u64).collect::<Vec<_>>());

    // A read on any node right after sees the last write.
    for node in &cluster.nodes {
        match node
            .read(QueryBody::Room { room: "r".into() }, Level::Linearizable)
            .await
            .unwrap()
        {
            Answer::Room(room) => assert_eq!(room.last_seq, Seq(count as u64)),
            other => panic!("{other:?}"),
        }
    }
    let packed = &cluster.nodes[leader].metrics.proposals.packed;
    assert!(
        packed.get_sample_count() < count as u64,
        "{} commands took {} entries: nothing was packed",
        packed.get_sample_sum(),
        packed.get_sample_count()
    );
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_redirects_when_asked_to() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for (i, node) in cluster.nodes.iter().enumerate() {
        let options = WriteOptions {
            deadline: std::time::Instant::now() + std::time::Duration::from_secs(10),
            redirect: true,
        };
        let result = node.core.write(envelope(create_room(&format!("r{i}"))), options).await;
        if i == leader {
            assert!(result.is_ok(), "{result:?}");
        } else {
            let client_url = format!("http://node-{}", leader + 1);
            assert_eq!(result.unwrap_err(), ReplicaError::Redirect { client_url });
        }
    }
    cluster.stop().await;
}

/// A leader that goes down on purpose hands over first: no election time-out passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    cluster.nodes[old].write(create_room("r")).await.unwrap();
    cluster.nodes[old].core.hand_over().await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    // The node that led before forwards like any follower.
    cluster.nodes[old].write(send("r", "after".into())).await.unwrap();
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

/// Without a majority nothing is acknowledged, and a linearizable read is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_acknowledges_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].write(create_room("r")).await.unwrap();
    for (i, node) in cluster.nodes.iter().enumerate() {
        if i != leader {
            node.core.raft.shutdown().await.unwrap();
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(1500);
    let command = envelope(send("r", "lost".into()));
    let written = cluster.nodes[leader]
        .core
        .write(
            command,
            WriteOptions {
                deadline,
                redirect: false,
            },
        )
        .await;
    assert!(
        matches!(written, Err(ReplicaError::CommitUnknown(_) | ReplicaError::NoLeader)),
        "a write was answered without a majority: {written:?}"
    );
    assert!(
        std::time::Instant::now() < deadline + std::time::Duration::from_secs(1),
        "it took longer than it was given"
    );

    let query = quorate_state_machine::Query {
        space: quorate_state_machine::SpaceId::MAIN,
        caller: quorate_state_machine::Caller::Root,
        body: QueryBody::Room { room: "r".into() },
    };
    let options = |level| quorate_api::replica::ReadOptions {
        deadline: std::time::Instant::now() + std::time::Duration::from_millis(1500),
        level,
        min_position: None,
    };
    let core = &cluster.nodes[leader].core;
    assert!(core.read(query.clone(), options(Level::Linearizable)).await.is_err());
    assert!(core.read(query, options(Level::Local)).await.unwrap().answer.is_ok());
}
