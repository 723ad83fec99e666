//! What the caller hears when the cluster cannot do what he asks, and when the node is full.

use std::time::{Duration, Instant};

use quorate_api::replica::ReplicaError;
use serde_json::json;

use crate::caller::Node;

const MESSAGES: &str = "/v1/rooms/hall/messages";

#[tokio::test]
async fn every_failure_of_the_replica() {
    let node = Node::furnished().await;
    for (error, status, code, retryable, outcome) in [
        (ReplicaError::NoLeader, 503, "no_leader", true, "not_applied"),
        (
            ReplicaError::NotReady("starting".to_owned()),
            503,
            "not_ready",
            true,
            "not_applied",
        ),
        (ReplicaError::ShuttingDown, 503, "shutting_down", true, "not_applied"),
        (
            ReplicaError::Overloaded("queue".to_owned()),
            429,
            "overloaded",
            true,
            "not_applied",
        ),
        (ReplicaError::DiskFull, 507, "disk_full", true, "not_applied"),
        (
            ReplicaError::PositionExpired,
            410,
            "position_expired",
            false,
            "not_applied",
        ),
        (
            ReplicaError::CommitUnknown("forwarded".to_owned()),
            504,
            "commit_unknown",
            true,
            "unknown",
        ),
    ] {
        node.replica.fail_next(error);
        let reply = node.post(MESSAGES, json!({"text": "a"})).await;
        assert_eq!(
            reply.header("retry-after"),
            if matches!(status, 429 | 503) { "1" } else { "" }
        );
        let problem = reply.problem(status, code);
        assert_eq!(
            (&problem["retryable"], &problem["outcome"]),
            (&json!(retryable), &json!(outcome))
        );
    }
    // A read has no outcome that could be unknown.
    node.replica
        .fail_next(ReplicaError::CommitUnknown("no answer".to_owned()));
    assert_eq!(
        node.get(MESSAGES).await.problem(503, "not_ready")["outcome"],
        "not_applied"
    );
}

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
