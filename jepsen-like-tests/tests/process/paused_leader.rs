//! A leader that stands still for longer than an election (a long pause of its machine) and wakes
//! up believing that it still leads.

use std::sync::Arc;

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{Chat, Sent};

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_steps_down_when_it_wakes_up() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let old = cluster.leader().await.unwrap();
    let others = cluster.others(old);
    let load = Load::start(&chat, &others, 4, 2);
    // These meet the old leader in the middle of its work, and again when it wakes up.
    let load_on_old = Load::start(&chat, &[old], 4, 2);
    chat.wait_acknowledged(100, SOON).await.unwrap();

    let term_before = term(&cluster, old).await;
    chat.history.fault("pause", Some(old));
    cluster.pause(old).unwrap();
    // What arrives while it stands still is the first thing it sees afterwards.
    let asleep = tokio::spawn({
        let chat = chat.clone();
        async move {
            let process = chat.history.new_client();
            chat.send(process, old, "hall", SOON).await
        }
    });
    let asked = tokio::spawn({
        let chat = chat.clone();
        async move {
            let process = chat.history.new_client();
            chat.read(process, old, "hall", SOON).await
        }
    });
    cluster.leader_after(old).await.unwrap();
    chat.wait_acknowledged(100, SOON).await.unwrap();

    chat.history.fault("resume", Some(old));
    cluster.resume(old).unwrap();
    // The checker judges what the old leader answers from here on; it must answer again soon.
    let process = chat.history.new_client();
    eventually("the old leader answers a linearizable read", SOON, async || {
        let read = chat
            .read(process, old, "hall", SOON)
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
    let sent = asleep.await.unwrap();
    assert!(
        !matches!(sent, Sent::NotSent(_)),
        "its socket was open all the time: {sent:?}"
    );
    asked.await.unwrap().unwrap();
    assert!(
        term(&cluster, old).await > term_before,
        "the old leader has stepped down from its old term"
    );
    chat.wait_acknowledged(100, SOON).await.unwrap();
    load.stop().await.unwrap();
    load_on_old.stop().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(
        verdict.acknowledged >= 300 && verdict.reads >= 50,
        "too little happened: {verdict}"
    );
}

/// The term that the node believes in.
async fn term(cluster: &Cluster, id: u64) -> u64 {
    let answer = cluster.expect(id, Call::get("/livez"), 200).await.unwrap();
    answer.header("X-Quorate-Term").unwrap().parse().unwrap()
}
