//! What the caller hears when the cluster cannot do what he asks, and when the node is full.

use std::time::{Duration, Instant};

use quorate_api::replica::ReplicaError;
use serde_json::json;

use crate::caller::Node;

const MESSAGES: &str = "/v1/rooms/hall/messages";

#[tokio::test]
async fn redirects_keep_path_and_query() {
    let node = Node::furnished().await;
    node.replica.fail_next(ReplicaError::Redirect {
        client_url: "http://127.0.0.1:7102".to_owned(),
    });
    let path = "/v1/rooms/%E5%BC%A0/messages?redirect=true";
    let reply = node.post(path, json!({"text": "a"})).await.expect(307);
    assert_eq!(reply.header("location"), format!("http://127.0.0.1:7102{path}"));
    assert_eq!(reply.header("x-quorate-node"), "1");
    assert!(node.replica.writes.lock().unwrap().last().unwrap().1.redirect);
}

#[tokio::test]
async fn time_outs_reach_the_replica_and_hold_without_it() {
    let node = Node::furnished().await;
    let begun = Instant::now();
    node.ask("GET", MESSAGES, &[("request-timeout-ms", "60000")])
        .await
        .expect(200);
    let deadline = node.replica.reads.lock().unwrap().last().unwrap().deadline;
    assert!((Duration::from_secs(59)..Duration::from_secs(62)).contains(&(deadline - begun)));

    node.replica.hold(true);
    let quickly = [("request-timeout-ms", "1")];
    let write = node.send("POST", MESSAGES, &quickly, r#"{"text":"a"}"#);
    let read = node.ask("GET", MESSAGES, &quickly);
    let (write, read) = tokio::join!(write, read);
    write.problem(504, "commit_unknown");
    read.problem(503, "not_ready");
    node.replica.hold(false);
}
