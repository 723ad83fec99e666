//! Queues that fill while nothing is committed: what does not fit is refused at once, and said to be
//! refused; what was taken is decided later, once.

use std::time::Duration;

use futures::future::join_all;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{each_once, messages, whole_room};
use serde_json::json;

use crate::SOON;

/// The leader keeps 64 MiB of commands that wait or are on their way.
const COMMANDS: usize = 24;
const TEXTS: usize = 62;
const TEXT_BYTES: usize = 60 << 10;
const TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_beyond_the_leaders_queue_are_refused_and_nothing_breaks() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let text = "x".repeat(TEXT_BYTES);
    let batch = |number: usize| {
        let message = |place: usize| json!({ "text": text, "client_id": format!("{number}-{place}") });
        let texts: Vec<_> = (0..TEXTS).map(message).collect();
        let call = Call::post(format!("{}/batch", messages("hall")), &json!({ "messages": texts }));
        call.timeout(TIMEOUT)
    };
    // Made before the followers stop: the leader knows after a second or so that it is alone.
    let calls: Vec<Call> = (0..COMMANDS).map(batch).collect();
    for follower in cluster.others(leader) {
        cluster.pause(follower).unwrap();
    }
    let answers = join_all(calls.iter().map(|call| cluster.send(leader, call.clone()))).await;
    for follower in cluster.others(leader) {
        cluster.resume(follower).unwrap();
    }

    let (mut refused, mut undecided) = (0, 0);
    for answer in answers {
        let answer = answer.unwrap();
        let outcome = answer.json().unwrap()["outcome"].clone();
        match (answer.status, answer.code().as_str()) {
            (429, "overloaded") => {
                assert_eq!(outcome, "not_applied", "{answer}");
                assert!(answer.header("Retry-After").is_some(), "{answer}");
                refused += 1;
            }
            (503, "no_leader") => assert_eq!(outcome, "not_applied", "{answer}"),
            (504, "commit_unknown") => undecided += 1,
            _ => panic!("a write without a majority: {answer}"),
        }
    }
    println!("{refused} of {COMMANDS} batches were refused, {undecided} are undecided");
    assert!(refused > 0 && undecided > 0, "{refused} refused, {undecided} undecided");

    // With a majority again each batch is taken once, those of unknown outcome by the keys of their messages.
    for call in calls {
        let call = call.timeout(Duration::from_secs(20));
        let via = cluster.leader().await.unwrap();
        eventually("the batch is taken", SOON, async || {
            // What waited in the queue is still on its way.
            match cluster.send(via, call.clone()).await {
                Ok(answer) if answer.status == 201 => Ok(()),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .unwrap();
    }
    let position = cluster.wait_writable(1, "hall").await.unwrap();
    let room = whole_room(&cluster, 1, "hall", &position).await.unwrap();
    let seqs: Vec<u64> = room.iter().map(|(seq, _)| *seq).collect();
    each_once(&seqs, (COMMANDS * TEXTS + 1) as u64).unwrap();
    cluster.wait_all_ready().await.unwrap();
    cluster.verify().await.unwrap();
}
