//! All nodes killed at once, as when the power fails: what was acknowledged was on disk.

use std::sync::Arc;

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::workload::{Chat, messages, page_of};
use serde_json::json;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_killed_under_load_lose_nothing_acknowledged() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["harbour", "hall"]).await.unwrap();
    let load = Load::start(&chat, &cluster.ids(), 8, 2);
    for _ in 0..2 {
        chat.wait_acknowledged(200, SOON).await.unwrap();
        chat.history.fault("kill-all", None);
        cluster.kill_together(&cluster.ids()).await.unwrap();
        cluster.start_all().unwrap();
        cluster.wait_all_ready().await.unwrap();
        chat.history.fault("restarted", None);
    }
    chat.wait_acknowledged(100, SOON).await.unwrap();
    load.stop().await.unwrap();
    let verdict = chat.judge().await.unwrap();
    assert!(
        verdict.acknowledged >= 500 && verdict.reads >= 20,
        "too little happened: {verdict}"
    );
}

/// A sender that does not know whether its message was taken asks again after the restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_send_after_a_full_restart_is_the_same_message() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let by_client_id = Call::post(messages("hall"), &json!({ "text": "once", "client_id": "c-1" }));
    let by_key = Call::post(messages("hall"), &json!({ "text": "only once" })).key("k-1");
    for (call, seq) in [(&by_client_id, 1), (&by_key, 2)] {
        let sent = cluster.expect(2, call.clone(), 201).await.unwrap();
        assert_eq!(sent.json().unwrap()["seq"], seq);
        assert_eq!(sent.header("Idempotency-Replayed"), None);
    }

    cluster.kill_together(&cluster.ids()).await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();

    for (call, seq) in [(&by_client_id, 1), (&by_key, 2)] {
        let again = cluster.expect(3, call.clone(), 201).await.unwrap();
        assert_eq!(again.json().unwrap()["seq"], seq);
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    }
    let other = Call::post(messages("hall"), &json!({ "text": "twice", "client_id": "c-1" }));
    cluster.expect(1, other, 422).await.unwrap();
    let page = cluster.expect(1, Call::get(messages("hall")), 200).await.unwrap();
    let (page, last_seq) = page_of(&page).unwrap();
    assert_eq!((page.len(), last_seq), (2, 2));
}
