//! A leader that is cut off from its peers, but not from its clients, must not answer as if it
//! still led.

use std::sync::Arc;
use std::time::Duration;

use quorate_torture::cluster::Cluster;
use quorate_torture::http::{Answer, Call};
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{Chat, Sent, messages, page_of};

use crate::SOON;

const TIMEOUT: Duration = Duration::from_millis(1000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_leader_refuses_linearizable_reads_and_follows_once_healed() {
    let cluster = Arc::new(Cluster::options().breakable_links().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let old = cluster.leader().await.unwrap();
    let others = cluster.others(old);
    // Reads and writes everywhere, the cut-off node included, before, during and after the cut.
    let load = Load::start(&chat, &others, 2, 1);
    let load_on_old = Load::start(&chat, &[old], 1, 2);
    chat.wait_acknowledged(50, SOON).await.unwrap();

    chat.history.fault("isolate", Some(old));
    cluster.network().isolate(old);
    let new = cluster.leader_after(old).await.unwrap();
    let process = chat.history.new_client();
    let Sent::Committed { seq, position } = chat.send(process, new, "hall", TIMEOUT).await else {
        panic!("the majority's leader commits")
    };

    let process = chat.history.new_client();
    for _ in 0..5 {
        let read = chat.read(process, old, "hall", TIMEOUT).await.unwrap();
        assert_eq!(
            read.status, 503,
            "node {old} cannot know what was written meanwhile: {read}"
        );
        assert_eq!(read.json().unwrap()["outcome"], "not_applied", "{read}");
    }
    // A local read still answers, and what it does not show proves that the cut is real.
    let local = Call::get(format!("{}?level=local", messages("hall")));
    let (_, last_seq) = page_of(&cluster.expect(old, local.clone(), 200).await.unwrap()).unwrap();
    assert!(last_seq < seq, "node {old} is cut off and has seq {last_seq} of {seq}");
    let not_yet = cluster
        .expect(old, local.clone().min_position(&position).timeout(TIMEOUT), 503)
        .await
        .unwrap();
    assert_eq!(not_yet.code(), "not_ready");
    // Nor does it acknowledge a write.
    let process = chat.history.new_client();
    let refused = chat.send(process, old, "hall", TIMEOUT).await;
    assert!(matches!(refused, Sent::Refused(_) | Sent::Unknown(_)), "{refused:?}");
    chat.wait_acknowledged(50, SOON).await.unwrap();

    chat.history.fault("heal", None);
    cluster.network().heal();
    let call = local.min_position(&position).timeout(SOON);
    cluster.expect(old, call, 200).await.unwrap();
    eventually("the old leader follows the new one", SOON, async || {
        let read = chat
            .read(process, old, "hall", TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        if read.status == 200 {
            Ok(())
        } else {
            Err(read.to_string())
        }
    })
    .await
    .unwrap();
    chat.wait_acknowledged(50, SOON).await.unwrap();
    load.stop().await.unwrap();
    load_on_old.stop().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(
        verdict.acknowledged >= 150 && verdict.reads >= 50,
        "too little happened: {verdict}"
    );
}

/// A leader whose messages still go out but who hears nothing any more cannot commit; it must not
/// keep the others from choosing one who can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nothing_is_replaced() {
    let cluster = Arc::new(Cluster::options().breakable_links().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let old = cluster.leader().await.unwrap();
    let others = cluster.others(old);
    let load = Load::start(&chat, &others, 4, 2);
    chat.wait_acknowledged(50, SOON).await.unwrap();
    chat.history.fault("deafen", Some(old));
    for other in &others {
        cluster.network().cut_one_way(*other, old);
    }
    chat.wait_acknowledged(50, SOON).await.unwrap();
    chat.history.fault("heal", None);
    cluster.network().heal();
    cluster.wait_all_ready().await.unwrap();
    chat.wait_acknowledged(50, SOON).await.unwrap();
    load.stop().await.unwrap();
    chat.judge().await.unwrap();
}

/// A follower whose messages do not arrive cannot be elected. It must not raise its term meanwhile
/// (pre-vote), or it would depose the leader on its return. Connections that are reset are made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_follower_and_reset_connections_stop_nothing() {
    let cluster = Arc::new(Cluster::options().breakable_links().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let followers = cluster.others(leader);
    let load = Load::start(&chat, &[leader], 4, 2);
    chat.wait_acknowledged(50, SOON).await.unwrap();
    chat.history.fault("mute", Some(followers[0]));
    cluster.network().cut_one_way(followers[0], leader);
    cluster.network().cut_one_way(followers[0], followers[1]);
    chat.wait_acknowledged(100, SOON).await.unwrap();
    let muted = cluster.expect(followers[0], Call::get("/livez"), 200).await.unwrap();
    let led = cluster.expect(leader, Call::get("/livez"), 200).await.unwrap();
    let term = |answer: &Answer| {
        answer
            .header("X-Quorate-Term")
            .and_then(|term| term.parse::<u64>().ok())
            .unwrap()
    };
    assert!(
        term(&muted) <= term(&led),
        "the muted follower has campaigned to term {}",
        term(&muted)
    );
    cluster.network().heal();
    for _ in 0..5 {
        chat.history.fault("reset", None);
        for from in cluster.ids() {
            for to in cluster.others(from) {
                cluster.network().reset(from, to);
            }
        }
        chat.wait_acknowledged(20, SOON).await.unwrap();
    }
    load.stop().await.unwrap();
    cluster.wait_all_ready().await.unwrap();
    chat.judge().await.unwrap();
}
