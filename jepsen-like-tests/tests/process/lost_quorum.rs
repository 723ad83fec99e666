//! Five nodes: two may die and nobody notices; with three dead nothing is acknowledged, every
//! caller is told so in time, and the cluster goes on by itself when two come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{Chat, Sent, messages};

use crate::SOON;

const TIMEOUT: Duration = Duration::from_millis(1000);
/// What a busy machine may add to a request's own time-out.
const SLACK: Duration = Duration::from_millis(1000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_go_on_without_two_refuse_without_three_and_recover() {
    let cluster = Arc::new(Cluster::options().nodes(5).start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::start(&chat, &cluster.ids(), 4, 2);
    chat.wait_acknowledged(100, SOON).await.unwrap();

    // Two of five, the leader among them.
    let first = cluster.leader().await.unwrap();
    let second = cluster.others(first)[0];
    chat.history.fault("kill-two", Some(first));
    let begun = Instant::now();
    cluster.kill_together(&[first, second]).await.unwrap();
    chat.wait_acknowledged(100, SOON).await.unwrap();
    println!(
        "two killed, the leader among them: {:?} without an acknowledgement",
        chat.longest_gap(begun)
    );
    load.stop().await.unwrap();

    // A third, so that a leader is left that cannot know yet.
    let left: Vec<u64> = cluster
        .ids()
        .into_iter()
        .filter(|id| ![first, second].contains(id))
        .collect();
    let leader = cluster.leader_among(&left).await.unwrap();
    let third = *left.iter().find(|id| **id != leader).unwrap();
    chat.history.fault("kill-third", Some(third));
    cluster.kill(third).await.unwrap();
    let alive: Vec<u64> = left.into_iter().filter(|id| *id != third).collect();

    for node in &alive {
        let before = Instant::now();
        eventually(
            "a write is refused for want of a leader",
            SOON,
            async || match write_without_quorum(&chat, *node).await {
                (503, code) if code == "no_leader" => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await
        .unwrap();
        println!("node {node} answers no_leader after {:?}", before.elapsed());
    }
    for node in &alive {
        // Once known, it stays known, for reads too.
        let (status, code) = write_without_quorum(&chat, *node).await;
        assert_eq!((status, code.as_str()), (503, "no_leader"));
        let local = cluster
            .expect(*node, Call::get(format!("{}?level=local", messages("hall"))), 200)
            .await
            .unwrap();
        assert_eq!(local.header("X-Quorate-Level"), Some("local"));
        assert!(local.took < TIMEOUT + SLACK, "a local read needs nobody: {local}");
        let process = chat.history.new_client();
        let read = chat.read(process, *node, "hall", TIMEOUT).await.unwrap();
        assert_eq!(read.status, 503, "{read}");
        assert_eq!(read.json().unwrap()["outcome"], "not_applied");
        assert!(read.took < TIMEOUT + SLACK, "{read}");
    }

    // Two come back and nothing else is done.
    let load = Load::start(&chat, &alive, 4, 2);
    let begun = Instant::now();
    cluster.restart(second).unwrap();
    cluster.restart(third).unwrap();
    chat.wait_acknowledged(1, SOON).await.unwrap();
    println!("two restarted: the first acknowledgement after {:?}", begun.elapsed());
    chat.wait_acknowledged(100, SOON).await.unwrap();
    load.stop().await.unwrap();
    cluster.restart(first).unwrap();
    cluster.wait_all_ready().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 300, "too little happened: {verdict}");
}

/// Sends one message to a cluster that cannot commit it: status and code of the answer, which must
/// come in time and say one of the two things that are true.
async fn write_without_quorum(chat: &Chat, node: u64) -> (u16, String) {
    let process = chat.history.new_client();
    let before = Instant::now();
    let sent = chat.send(process, node, "hall", TIMEOUT).await;
    let took = before.elapsed();
    assert!(
        took < TIMEOUT + SLACK,
        "the answer took {took:?} of {TIMEOUT:?}: {sent:?}"
    );
    match sent {
        Sent::Refused(answer) => {
            assert_eq!((answer.status, answer.code().as_str()), (503, "no_leader"), "{answer}");
            assert!(answer.header("Retry-After").is_some(), "{answer}");
            (answer.status, answer.code())
        }
        Sent::Unknown(what) => {
            assert!(
                what.starts_with("504") && what.contains(r#""commit_unknown""#),
                "{what}"
            );
            (504, "commit_unknown".to_owned())
        }
        other => panic!("a write without a quorum: {other:?}"),
    }
}
