//! Changes of the membership, and what a node needs that was not there from the beginning.

use std::sync::atomic::Ordering;

use openraft::async_runtime::WatchReceiver;
use quorate_api::replica::{AdminError, Change, ChangeStep, NewNode, Replica};
use quorate_state_machine::VERSION_MAX;
use raft_node::config::InitialMember;

use crate::cluster::{Cluster, Node, create_room, send, soon, until};

pub(crate) fn new_node(member: InitialMember, replaces: Option<u64>) -> NewNode {
    NewNode {
        id: member.id,
        client_url: member.client_url,
        peer_addr: member.peer_addr,
        replaces,
    }
}

async fn until_voter(node: &Node, id: u64) {
    until("the node is a voter", || {
        let voters: Vec<u64> = node.core.raft.voter_ids().collect();
        voters.contains(&id).then_some(())
    })
    .await;
}

/// A node that was not there from the beginning gets the state as a whole, because the log is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_added_by_snapshot_and_the_leader_removes_itself() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[0].write(create_room("lobby")).await.unwrap();
    for n in 0..200 {
        let text = format!("{n} {}", "x".repeat(20_000));
        cluster.nodes[n % 3].write(send("lobby", text)).await.unwrap();
    }
    for node in &cluster.nodes {
        node.core.take_snapshot().await.unwrap();
        until("the log is cut", || {
            node.core
                .raft
                .metrics()
                .borrow_watched()
                .purged
                .filter(|id| id.index > 0)
        })
        .await;
    }

    let member = cluster.start_stranger(4).await;
    let begun = cluster.nodes[1].core.add_node(new_node(member, None), soon()).await;
    assert_eq!(begun.unwrap().step, ChangeStep::Contacting);
    until_voter(&cluster.nodes[leader], 4).await;
    let received = cluster.nodes[3]
        .core
        .pool
        .transfers
        .received_bytes
        .load(Ordering::Relaxed);
    assert!(received > 0, "it came by a snapshot");
    cluster.assert_equal_states().await;
    assert_eq!(cluster.nodes[3].last_seq("lobby").await, 200);

    let removed = leader as u64 + 1;
    cluster.nodes[3].core.remove_node(removed, soon()).await.unwrap();
    until("the removed node ends", || {
        cluster.nodes[leader].ended.lock().unwrap().clone()
    })
    .await;
    let gone = cluster.nodes.remove(leader);
    gone.stop().await;
    assert!(gone.ended.lock().unwrap().as_ref().unwrap().contains("was removed"));
    cluster.nodes[0].write(send("lobby", "after".into())).await.unwrap();
    cluster.assert_equal_states().await;
    let verified = cluster.nodes[0].core.verify(soon()).await.unwrap();
    assert_eq!(verified.nodes.len(), 3);
    assert!(
        verified.nodes.iter().all(|node| node.hash.is_ok() && !node.differs),
        "{verified:?}"
    );

    // Its id is gone for good.
    let again = InitialMember {
        id: removed,
        peer_addr: "127.0.0.1:1".into(),
        client_url: "http://again".into(),
    };
    let refused = cluster.nodes[0].core.add_node(new_node(again, None), soon()).await;
    assert!(matches!(refused, Err(AdminError::Invalid(_))), "{refused:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_in_one_change() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[0].write(create_room("lobby")).await.unwrap();
    cluster.at_version(VERSION_MAX).await;
    let dead = (leader + 1) % 3;
    let gone = cluster.nodes[dead].core.book.id;
    cluster.nodes[dead].stop().await;
    let member = cluster.start_stranger(4).await;
    let asked = &cluster.nodes[leader].core;
    asked
        .add_node(new_node(member.clone(), Some(gone)), soon())
        .await
        .unwrap();
    until("the change is done", || {
        let voters: Vec<u64> = asked.raft.voter_ids().collect();
        (voters.contains(&4) && !voters.contains(&gone)).then_some(())
    })
    .await;
    // Asking again for what is done is no error.
    let again: Change = asked.add_node(new_node(member, Some(gone)), soon()).await.unwrap();
    assert_eq!(again.step, ChangeStep::Done);
    cluster.nodes[3]
        .write(send("lobby", "by the new one".into()))
        .await
        .unwrap();
    cluster.nodes.remove(dead);
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_cost_the_quorum_is_refused() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = (leader + 1) % 3;
    cluster.nodes[dead].stop().await;
    let asked = &cluster.nodes[leader].core;
    let (alive, silent) = ((leader + 2) % 3, cluster.nodes[dead].core.book.id);
    let lease = asked.contact.lease();
    until("the leader misses the dead node", || {
        let heard = asked.raft.metrics().borrow_watched().heartbeat.clone()?;
        let at = heard.get(&silent).copied().flatten();
        at.is_none_or(|at| openraft::Instant::elapsed(&*at) > lease)
            .then_some(())
    })
    .await;
    let refused = asked.remove_node(alive as u64 + 1, soon()).await;
    assert!(
        matches!(&refused, Err(AdminError::Conflict(why)) if why.contains("quorum")),
        "{refused:?}"
    );
    // The dead one itself may go: two living voters are left.
    asked.remove_node(silent, soon()).await.unwrap();
    assert!(matches!(
        asked.remove_node(9, soon()).await,
        Err(AdminError::NotFound(_))
    ));
    cluster.nodes[alive].write(create_room("lobby")).await.unwrap();
    // An address that belongs to another node.
    let twin = NewNode {
        id: 7,
        client_url: "http://elsewhere".into(),
        peer_addr: asked.book.members()[&(leader as u64 + 1)].peer_addr.clone(),
        replaces: None,
    };
    let refused = asked.add_node(twin, soon()).await;
    assert!(matches!(refused, Err(AdminError::AlreadyExists(_))), "{refused:?}");
    cluster.nodes[leader].stop().await;
    cluster.nodes[alive].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_the_one_who_is_named() {
    let cluster = Cluster::start(3).await;
    for to in [2, 3, 1, 1] {
        let asked = &cluster.nodes[cluster.leader().await % 3].core;
        assert_eq!(asked.transfer(Some(to), soon()).await, Ok(to));
        assert_eq!(cluster.leader().await as u64 + 1, to);
    }
    let refused = cluster.nodes[0].core.transfer(Some(9), soon()).await;
    assert!(matches!(refused, Err(AdminError::Invalid(_))), "{refused:?}");
    cluster.stop().await;
}
