//! What replaces a leader, by the nodes' own count: its process gone, its hand-over, or its silence. Where the
//! election time-out must have no part in it, it is longer than the test.

use std::sync::Arc;
use std::time::Duration;

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::Chat;

use crate::SOON;

const RESETS: u32 = 200;
/// Between two resets: the nodes dial each other again within it.
const RESET_EVERY: Duration = Duration::from_millis(10);

/// A cluster in which no election time-out ends while a test runs.
async fn patient(links: bool) -> Arc<Cluster> {
    let options = Cluster::options().serve_args(&[
        "--election-timeout-min-ms",
        "55000",
        "--election-timeout-max-ms",
        "60000",
    ]);
    let options = match links {
        true => options.breakable_links(),
        false => options,
    };
    Arc::new(options.start().await.unwrap())
}

/// Elections that these nodes have won since they were started, by this cause.
async fn won(cluster: &Cluster, nodes: &[u64], cause: &str) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        let sample = format!("quorate_elections_won_total{{cause=\"{cause}\"}}");
        sum += cluster.metric(*node, &sample).await.unwrap();
    }
    sum
}

async fn term(cluster: &Cluster, node: u64) -> u64 {
    let answer = cluster.expect(node, Call::get("/livez"), 200).await.unwrap();
    answer.header("X-Quorate-Term").unwrap().parse().unwrap()
}

/// Waits until the node has all that was written; the next leader may need it.
async fn catches_up(cluster: &Cluster, node: u64) {
    let leader = cluster.leader().await.unwrap();
    let goal = cluster.metric(leader, "quorate_raft_last_log_index").await.unwrap();
    eventually("the node catches up", SOON, async || {
        let applied = cluster.metric(node, "quorate_raft_applied_index").await;
        match applied.map_err(|error| error.to_string())? {
            applied if applied >= goal => Ok(()),
            applied => Err(format!("{applied} of {goal}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_without_waiting_for_a_time_out() {
    let cluster = patient(false).await;
    let chat = Chat::begin(cluster.clone(), &["hall", "den"]).await.unwrap();
    let load = Load::everywhere(&chat, 6, 2);
    for round in 0..3 {
        chat.wait_acknowledged(100, SOON).await.unwrap();
        let old = cluster.leader().await.unwrap();
        let others = cluster.others(old);
        let before = (term(&cluster, old).await, won(&cluster, &others, "failover").await);
        chat.history.fault("kill", Some(old));
        cluster.kill(old).await.unwrap();
        if round == 2 {
            // Back before anybody may have found nobody there.
            cluster.restart(old).unwrap();
        }
        let new = cluster.leader_after(old).await.unwrap();
        chat.wait_acknowledged(100, SOON).await.unwrap();
        assert_eq!(
            won(&cluster, &others, "failover").await,
            before.1 + 1.0,
            "round {round}"
        );
        assert_eq!(term(&cluster, new).await, before.0 + 1, "round {round}");
        if round < 2 {
            cluster.restart(old).unwrap();
        }
        cluster.wait_all_ready().await.unwrap();
        catches_up(&cluster, old).await;
    }
    load.stop().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 600, "too little happened: {verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_end_hands_over_and_is_not_missed() {
    let cluster = patient(false).await;
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::everywhere(&chat, 4, 1);
    chat.wait_acknowledged(100, SOON).await.unwrap();
    let old = cluster.leader().await.unwrap();
    let others = cluster.others(old);
    let term_before = term(&cluster, old).await;
    chat.history.fault("term", Some(old));
    let status = cluster.terminate(old, SOON).await.unwrap();
    assert!(status.success(), "{status}");
    let new = cluster.leader_after(old).await.unwrap();
    chat.wait_acknowledged(100, SOON).await.unwrap();
    assert_eq!(won(&cluster, &others, "transfer").await, 1.0);
    assert_eq!(won(&cluster, &others, "failover").await, 0.0);
    assert_eq!(term(&cluster, new).await, term_before + 1);
    cluster.restart(old).unwrap();
    cluster.wait_all_ready().await.unwrap();
    load.stop().await.unwrap();
    chat.judge().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_of_the_leaders_connections_elect_nobody() {
    let cluster = patient(true).await;
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::everywhere(&chat, 4, 1);
    chat.wait_acknowledged(100, SOON).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let term_before = term(&cluster, leader).await;
    chat.history.fault("reset", Some(leader));
    for _ in 0..RESETS {
        for other in cluster.others(leader) {
            cluster.network().reset(leader, other);
            cluster.network().reset(other, leader);
        }
        tokio::time::sleep(RESET_EVERY).await;
    }
    chat.wait_acknowledged(100, SOON).await.unwrap();
    assert_eq!(cluster.leader().await.unwrap(), leader);
    for node in cluster.ids() {
        assert_eq!(term(&cluster, node).await, term_before, "node {node}");
        for sign in ["refused", "restarted"] {
            let sample = format!("quorate_leaders_lost_total{{sign=\"{sign}\"}}");
            assert_eq!(cluster.metric(node, &sample).await.unwrap(), 0.0, "node {node}, {sign}");
        }
    }
    load.stop().await.unwrap();
    chat.judge().await.unwrap();
}

/// Its sockets are open, and its kernel takes new connections: only its silence tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_is_replaced_by_the_time_out() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    cluster.create_room(1, "hall").await.unwrap();
    let old = cluster.leader().await.unwrap();
    let others = cluster.others(old);
    let before = won(&cluster, &others, "timeout").await;
    cluster.pause(old).unwrap();
    let new = cluster.leader_after(old).await.unwrap();
    cluster.wait_writable(new, "hall").await.unwrap();
    assert!(won(&cluster, &others, "timeout").await > before);
    assert_eq!(won(&cluster, &others, "failover").await, 0.0);
    cluster.resume(old).unwrap();
    cluster.wait_all_ready().await.unwrap();
}
