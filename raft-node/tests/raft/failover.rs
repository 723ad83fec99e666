//! A leader that is gone is replaced without an election time-out, which is longer here than any test; one that is
//! not gone, or not for enough nodes, is left alone.

use std::time::Duration;

use openraft::raft::VoteRequest;
use quorate_storage::log::{LogId, Vote};
use raft_node::peers::Purpose;
use raft_node::peers::frame::{Reply, Request, VoteAsk};
use raft_node::types::{TypeConfig, to_raft_log_id, to_raft_vote};

use crate::cluster::{Cluster, create_room, send, until};

const WITHIN: Duration = Duration::from_secs(5);

/// The leader's vote, and the two nodes that follow it.
async fn led(cluster: &Cluster) -> (Vote, [u64; 2]) {
    let leader = cluster.leader().await;
    cluster.nodes[leader].write(create_room("hall")).await.unwrap();
    let vote = vote(cluster, leader as u64 + 1).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != vote.leader).collect();
    (vote, [others[0], others[1]])
}

/// The vote of a node's own core.
async fn vote(cluster: &Cluster, id: u64) -> Vote {
    let core = &cluster.nodes[id as usize - 1].core;
    let vote = core.raft.with_raft_state(|state| *state.vote_ref()).await.unwrap();
    Vote {
        term: vote.leader_id.term,
        leader: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

async fn is_lost(cluster: &Cluster, id: u64, leader: Vote, lost: bool) {
    let failover = &cluster.nodes[id as usize - 1].core.failover;
    let what = format!("node {id} has lost the leader: {lost}");
    until(&what, || (failover.is_lost(leader) == lost).then_some(())).await;
}

async fn write(cluster: &Cluster, id: u64, text: &str) {
    let node = &cluster.nodes[id as usize - 1];
    node.write(send("hall", text.to_owned())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_a_majority_has_lost_is_replaced_at_once() {
    let cluster = Cluster::start_patient(3).await;
    let (old, [one, other]) = led(&cluster).await;
    cluster.gates.close(old.leader, one);
    cluster.gates.close(old.leader, other);
    until("one of the others leads", || {
        let leader = cluster.nodes[one as usize - 1].core.live_leader()?;
        (leader != old.leader).then_some(())
    })
    .await;
    write(&cluster, one, "one").await;
    write(&cluster, other, "other").await;
    let new = vote(&cluster, one).await;
    assert_eq!((new.term, new.committed), (old.term + 1, true));
    // The old one was alive all the time, and finds that it leads no more.
    cluster.gates.open(old.leader, one);
    cluster.gates.open(old.leader, other);
    until("all follow the new leader", || {
        let leader = cluster.nodes[old.leader as usize - 1].core.live_leader()?;
        (leader == new.leader).then_some(())
    })
    .await;
    write(&cluster, old.leader, "old").await;
    assert_eq!(cluster.nodes[one as usize - 1].last_seq("hall").await, 3);
    assert_eq!(vote(&cluster, other).await, new);
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_one_node_has_lost_goes_on_leading() {
    let cluster = Cluster::start_patient(3).await;
    let (leader, [one, other]) = led(&cluster).await;
    cluster.gates.close(leader.leader, one);
    is_lost(&cluster, one, leader, true).await;
    assert_eq!(cluster.nodes[one as usize - 1].core.live_leader(), None);
    // Time for some rounds of questions.
    for text in 0..50 {
        write(&cluster, other, &text.to_string()).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_lost(&cluster, other, leader, false).await;
    cluster.gates.open(leader.leader, one);
    is_lost(&cluster, one, leader, false).await;
    write(&cluster, one, "back").await;
    for id in 1..=3 {
        assert_eq!(vote(&cluster, id).await, leader, "node {id}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_of_all_the_leaders_connections_elect_nobody() {
    let cluster = Cluster::start_patient(3).await;
    let (leader, [one, other]) = led(&cluster).await;
    for text in 0..100 {
        cluster.gates.reset(leader.leader, one);
        cluster.gates.reset(leader.leader, other);
        // Through a follower, so that there are connections again.
        write_if_sent(&cluster, one, text).await;
    }
    write(&cluster, other, "last").await;
    for id in 1..=3 {
        assert_eq!(vote(&cluster, id).await, leader, "node {id}");
    }
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

/// A write whose connection is reset has no known outcome.
async fn write_if_sent(cluster: &Cluster, id: u64, text: u64) {
    let node = &cluster.nodes[id as usize - 1];
    let _ = node.write(send("hall", text.to_string())).await;
}

/// Whoever campaigns as if the leader were gone gets no vote of a node that still hears it, and none of the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_is_none_gets_no_vote() {
    let cluster = Cluster::start_patient(3).await;
    let (leader, [one, other]) = led(&cluster).await;
    let campaign = Vote {
        term: leader.term + 1,
        leader: one,
        committed: false,
    };
    let far = LogId {
        term: leader.term,
        leader: leader.leader,
        index: 1 << 20,
    };
    let asks: VoteRequest<TypeConfig> = VoteRequest::new(to_raft_vote(campaign), Some(to_raft_log_id(far)));
    let pool = &cluster.nodes[one as usize - 1].core.pool;
    for voter in [leader.leader, other] {
        let request = Request::FailoverVote(VoteAsk::without_leave(&asks));
        let reply = pool.call(voter, Purpose::Control, request, WITHIN).await.unwrap();
        let Reply::Vote(answer) = reply else {
            panic!("another reply: {reply:?}")
        };
        assert!(!answer.into_raft().vote_granted, "node {voter} has voted");
        assert_eq!(vote(&cluster, voter).await, leader, "node {voter}");
    }
    // Nor does anybody say that the leader is lost.
    for asked in [leader.leader, other] {
        let request = Request::LostLeader {
            leader,
            timeout_ms: 100,
        };
        let reply = pool.call(asked, Purpose::Control, request, WITHIN).await.unwrap();
        let Reply::LostLeader(answer) = reply else {
            panic!("another reply: {reply:?}")
        };
        assert!(!answer.lost, "node {asked}");
    }
    write(&cluster, other, "still here").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_needs_no_time_out_either() {
    let cluster = Cluster::start_patient(3).await;
    let (old, [one, _]) = led(&cluster).await;
    cluster.nodes[old.leader as usize - 1].core.hand_over().await;
    write(&cluster, one, "handed over").await;
    let new = vote(&cluster, one).await;
    assert_eq!(new.term, old.term + 1);
    assert_ne!(new.leader, old.leader);
    cluster.stop().await;
}
