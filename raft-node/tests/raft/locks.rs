//! What the node adds to the rules of locks: it lets time pass by itself, on whoever leads, and it gives up who
//! waited at a node that is gone.

use std::time::{Duration, Instant};

use quorate_api::replica::{Level, Replica, Written};
use quorate_state_machine::apply::Response;
use quorate_state_machine::query::{Answer, QueryBody};
use quorate_state_machine::{Command, FencingToken, Lock, LockId, LockWait, Revision, Topic, WaiterId};

use crate::cluster::{Cluster, Node, soon, until};

fn ask(node: &Node, ttl_ms: u64, wait_ms: u64) -> Command {
    Command::AcquireLock {
        lock: "l".to_owned(),
        owner: format!("at {}", node.core.book.id),
        ttl_ms,
        wait_ms,
        data: None,
        waiter: WaiterId(0),
        home: node.core.status().home,
    }
}

fn token(written: Written) -> FencingToken {
    match written.outcome.response {
        Ok(Response::LockHeld { token, .. }) => token,
        other => panic!("not held: {other:?}"),
    }
}

fn wait(written: Written) -> (LockId, Revision) {
    match written.outcome.response {
        Ok(Response::LockWaiting { lock, since }) => (lock, since),
        other => panic!("not waiting: {other:?}"),
    }
}

async fn shown(node: &Node) -> Lock {
    match node
        .read(QueryBody::Lock { lock: "l".to_owned() }, Level::Linearizable)
        .await
    {
        Ok(Answer::Lock(lock)) => lock,
        other => panic!("{other:?}"),
    }
}

/// As a handler does: watches, asks this node once it has applied the wait itself, and waits for a hint.
async fn outcome_of(node: &Node, (lock, since): (LockId, Revision)) -> LockWait {
    let mut hints = node.core.watch(Topic::Lock(lock));
    let mut applied = node.core.applied.clone();
    let followed = async {
        applied.wait_for(|now| now.revision >= since).await.unwrap();
        loop {
            hints.mark_unchanged();
            match node
                .read(QueryBody::LockWait { lock, since }, Level::Local)
                .await
                .unwrap()
            {
                Answer::LockWait(LockWait::Waiting) => hints.changed().await.unwrap(),
                Answer::LockWait(over) => return over,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout_at(soon().into(), followed).await.unwrap()
}

/// Nobody writes anything while the ttl runs out: the leader ticks, and a waiter at a follower hears of it.
/// The very first command after the start has to wait for the cluster version, and does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_by_itself() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (first, second) = (&cluster.nodes[leader], &cluster.nodes[(leader + 1) % 3]);
    let before = Instant::now();
    let held = token(first.write(ask(first, 700, 0)).await.unwrap());
    let waiting = wait(second.write(ask(second, 60_000, 20_000)).await.unwrap());
    let in_vain = wait(first.write(ask(first, 60_000, 100)).await.unwrap());
    assert_eq!(outcome_of(first, in_vain).await, LockWait::Over);
    let LockWait::Granted { token: next, .. } = outcome_of(second, waiting).await else {
        panic!("the first ttl has come to its end");
    };
    assert!(before.elapsed() >= Duration::from_millis(700), "{:?}", before.elapsed());
    assert!(next > held);
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

/// Time without a leader does not count: a lock is not lost by a failover. Its waiters, who are at living nodes,
/// keep their places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_takes_nothing_from_a_ttl() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let ttl = Duration::from_millis(1500);
    let second = &cluster.nodes[(leader + 1) % 3];
    let before = Instant::now();
    let held = token(second.write(ask(second, 1500, 0)).await.unwrap());
    let waiting = wait(second.write(ask(second, 60_000, 20_000)).await.unwrap());
    cluster.nodes[leader].stop().await;
    let LockWait::Granted { token: next, .. } = outcome_of(second, waiting).await else {
        panic!("a waiter at a living node is served");
    };
    assert!(next > held);
    assert!(before.elapsed() >= ttl, "{:?}", before.elapsed());
    stop_all_but(&cluster, leader).await;
}

async fn stop_all_but(cluster: &Cluster, stopped: usize) {
    for (n, node) in cluster.nodes.iter().enumerate() {
        if n != stopped {
            node.stop().await;
        }
    }
}

/// A dead node cannot give up who waited there: the leader does, and whoever comes next is not kept waiting for
/// a ttl of the dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_at_a_dead_node_is_dropped() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (first, dead) = (&cluster.nodes[leader], &cluster.nodes[(leader + 1) % 3]);
    let held = token(first.write(ask(first, 60_000, 0)).await.unwrap());
    for _ in 0..300 {
        wait(dead.write(ask(dead, 60_000, 60_000)).await.unwrap());
    }
    let waiting = wait(first.write(ask(first, 60_000, 60_000)).await.unwrap());
    assert_eq!(shown(first).await.waiters, 301);
    dead.stop().await;
    let left = async {
        while shown(first).await.waiters > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout_at(soon().into(), left).await.unwrap();
    let released = first
        .write(Command::ReleaseLock {
            lock: "l".to_owned(),
            token: held,
        })
        .await
        .unwrap();
    assert_eq!(released.outcome.response, Ok(Response::Deleted));
    assert!(matches!(outcome_of(first, waiting).await, LockWait::Granted { .. }));
    stop_all_but(&cluster, (leader + 1) % 3).await;
}

/// What a node shows of the time that is left never grows for want of news, and its clock never runs behind what
/// it has applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_is_reckoned_on() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let first = &cluster.nodes[leader];
    token(first.write(ask(first, 60_000, 0)).await.unwrap());
    let expires_ms = shown(first).await.holder.unwrap().expires_ms;
    let left = |node: &Node| expires_ms.saturating_sub(node.core.status().elapsed_ms);
    let at_first = left(first);
    assert!(at_first <= 60_000);
    until("time has passed", || (left(first) < at_first).then_some(())).await;
    for node in &cluster.nodes {
        shown(node).await;
        assert!(left(node) <= 60_000);
    }
    cluster.stop().await;
}
