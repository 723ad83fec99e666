//! Who asks too often, and what happens at each bound on requests at work and on bytes in memory:
//! the one beyond it hears so at once, and nobody else notices.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::SinkExt;
use futures::channel::mpsc;
use quorate_api::{ApiConfig, Limits};
use serde_json::json;
use tower::ServiceExt;

use crate::caller::{Node, Reply, in_time, request};

const MESSAGES: &str = "/v1/rooms/hall/messages";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn node(change: impl FnOnce(&mut Limits)) -> Node {
    let mut limits = Limits::default();
    change(&mut limits);
    Node::furnished_with(ApiConfig {
        limits,
        ..ApiConfig::default()
    })
    .await
}

async fn get_as(node: &Node, user: &str) -> Reply {
    node.ask("GET", "/v1/rooms/hall", &[("x-quorate-user", user)]).await
}

/// A body that comes as the test sends it.
fn body_by_hand() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (pieces, received) = mpsc::channel(8);
    (pieces, Body::from_stream(received))
}

async fn until(what: impl Fn() -> bool) {
    in_time(async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn metric(node: &Node, line: &str) -> bool {
    let text = String::from_utf8(node.get("/metrics").await.expect(200).body).unwrap();
    text.lines().any(|one| one == line)
}

async fn until_metric(node: &Node, line: &str) {
    in_time(async {
        while !metric(node, line).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_who_asks_too_often_is_told_when_to_come_back() {
    let node = node(|limits| (limits.user_requests_per_s, limits.user_requests_burst) = (1, 3)).await;
    for left in [2, 1, 0] {
        let reply = get_as(&node, "ann").await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), "\"user\";q=3;w=3");
        assert_eq!(reply.header("ratelimit"), format!("\"user\";r={left};t={}", 3 - left));
    }
    let refused = get_as(&node, "%61nn").await;
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("ratelimit"), "\"user\";r=0;t=3");
    let problem = refused.problem(429, "rate_limited");
    assert_eq!(
        (&problem["retryable"], &problem["outcome"]),
        (&json!(true), &json!("not_applied"))
    );
    assert!(metric(&node, r#"quorate_http_refused_total{bound="user_rate"} 1"#).await);
    // Others, root and whoever watches the node do not notice; what is no route is no request.
    get_as(&node, "bob").await.expect(200);
    for _ in 0..5 {
        assert_eq!(node.get("/v1/rooms/hall").await.expect(200).header("ratelimit"), "");
        let ann = [("x-quorate-user", "ann")];
        assert_eq!(
            node.ask("GET", "/livez", &ann).await.expect(200).header("ratelimit"),
            ""
        );
        node.ask("GET", "/v1/nowhere", &ann).await.expect(404);
    }
}

#[tokio::test]
async fn a_rate_refusal_comes_before_all_that_costs_work() {
    let node = node(|limits| limits.user_requests_per_s = 1).await;
    get_as(&node, "ann").await.expect(200);
    let (_pieces, endless) = body_by_hand();
    let ann = [
        ("x-quorate-user", "ann"),
        ("content-type", "text/plain"),
        ("expect", "100-continue"),
    ];
    node.call(request("POST", MESSAGES, &ann, endless))
        .await
        .problem(429, "rate_limited");
    // Who names nobody gets no bucket for each slip.
    get_as(&node, "").await.expect(400);
    get_as(&node, "%zz").await.problem(429, "rate_limited");
}

#[tokio::test]
async fn without_a_limit_nothing_is_said_of_one() {
    let node = node(|_| ()).await;
    let reply = get_as(&node, "ann").await.expect(200);
    assert_eq!((reply.header("ratelimit"), reply.header("ratelimit-policy")), ("", ""));
}

/// Fills one class with requests that wait in the replica, and asks for one more of each.
async fn full(node: &Node, held: (&str, &str, &str), refused: &[(&str, &str)], served: &[(&str, &str)]) {
    let text = |method: &str| if method == "GET" { "" } else { r#"{"text":"a"}"# };
    let arrived = || {
        let replica = &node.replica;
        let admin = replica.admin.lock().unwrap().asked.len();
        replica.reads.lock().unwrap().len() + replica.writes.lock().unwrap().len() + admin
    };
    let before = arrived();
    node.replica.hold(true);
    let (method, path, body) = held;
    let first = node.send(method, path, &[], body.to_owned());
    let rest = async {
        until(|| arrived() == before + 1).await;
        for (method, path) in refused {
            let reply = node.send(method, path, &[], text(method)).await;
            assert_eq!(reply.header("retry-after"), "1");
            reply.problem(429, "overloaded");
        }
        for (method, path) in served {
            let now = arrived();
            let sent = node.send(method, path, &[], text(method));
            tokio::pin!(sent);
            in_time(async {
                while arrived() == now {
                    tokio::select! {
                        biased;
                        early = &mut sent => panic!("{method} {path}: {early:?}"),
                        () = tokio::task::yield_now() => {}
                    }
                }
            })
            .await;
        }
        // Whoever watches the node still can.
        node.get("/livez").await.expect(200);
        node.get("/metrics").await.expect(200);
        node.replica.hold(false);
    };
    let (first, ()) = tokio::join!(first, rest);
    assert!(first.status.is_success(), "{first:?}");
    for (method, path) in refused {
        let again = node.send(method, path, &[], text(method)).await;
        assert_ne!(again.status, 429, "{method} {path}");
    }
}

#[tokio::test]
async fn reads_without_a_place_leave_writes_and_the_administrator_alone() {
    let node = node(|limits| limits.reads_max = 1).await;
    let refused = [
        ("GET", MESSAGES),
        ("GET", "/v1/users"),
        ("GET", "/v1/rooms/hall/stream"),
    ];
    full(
        &node,
        ("GET", MESSAGES, ""),
        &refused[..2],
        &[("POST", MESSAGES), ("GET", "/v1/cluster/verify")],
    )
    .await;
    assert!(metric(&node, r#"quorate_http_refused_total{bound="reads"} 2"#).await);
    assert!(metric(&node, r#"quorate_http_refused_total{bound="writes"} 0"#).await);
}

#[tokio::test]
async fn writes_without_a_place_leave_reads_and_the_administrator_alone() {
    let node = node(|limits| limits.writes_max = 1).await;
    let text = r#"{"text":"a"}"#;
    let served = [("GET", MESSAGES), ("GET", "/v1/cluster/verify")];
    full(&node, ("POST", MESSAGES, text), &[("POST", MESSAGES)], &served).await;
    assert!(metric(&node, r#"quorate_http_refused_total{bound="writes"} 1"#).await);
}

#[tokio::test]
async fn the_administrator_without_a_place_leaves_all_others_alone() {
    let node = node(|limits| limits.admin_max = 1).await;
    let served = [("GET", MESSAGES), ("POST", MESSAGES)];
    full(
        &node,
        ("POST", "/v1/cluster/snapshot", "{}"),
        &[("GET", "/v1/cluster"), ("GET", "/v1/cluster/verify")],
        &served,
    )
    .await;
    assert!(metric(&node, r#"quorate_http_refused_total{bound="administration"} 2"#).await);
}

#[tokio::test]
async fn bodies_that_drip_keep_out_only_their_like() {
    let node = node(|limits| (limits.writes_max, limits.bodies_max) = (1, 1)).await;
    let (mut pieces, drips) = body_by_hand();
    let first = node.call(request("POST", MESSAGES, &JSON, drips));
    let rest = async {
        pieces.send(Ok(r#"{"text":"#.into())).await.unwrap();
        until_metric(&node, r#"quorate_http_requests_in_flight{class="bodies"} 1"#).await;
        let (_kept, other) = body_by_hand();
        let expects = [JSON[0], ("expect", "100-continue")];
        let refused = node.call(request("POST", MESSAGES, &expects, other)).await;
        refused.problem(429, "overloaded");
        // Neither the only place of a write is taken, nor does a body that is there need one to arrive.
        node.post(MESSAGES, json!({"text": "b"})).await.expect(201);
        pieces.send(Ok(r#""a"}"#.into())).await.unwrap();
        drop(pieces);
    };
    let (first, ()) = tokio::join!(first, rest);
    first.expect(201);
    assert!(metric(&node, r#"quorate_http_refused_total{bound="bodies"} 1"#).await);
    assert!(metric(&node, r#"quorate_http_requests_in_flight{class="bodies"} 0"#).await);
}

#[tokio::test]
async fn a_body_that_drips_is_a_408_before_its_whole_time_is_over() {
    let node = node(|limits| limits.body_window = Duration::from_millis(100)).await;
    let (mut pieces, drips) = body_by_hand();
    let sent = node.call(request("POST", MESSAGES, &JSON, drips));
    let drip = async {
        let mut drops = tokio::time::interval(Duration::from_millis(10));
        loop {
            drops.tick().await;
            if pieces.send(Ok(" ".into())).await.is_err() {
                return futures::future::pending::<()>().await;
            }
        }
    };
    let reply = in_time(async {
        tokio::select! { reply = sent => reply, () = drip => unreachable!("it drips for ever") }
    })
    .await;
    let problem = reply.problem(408, "bad_request");
    assert_eq!(problem["detail"], "the body came too slowly");
}

#[tokio::test]
async fn bodies_in_memory_have_a_bound_for_the_whole_node() {
    let node = node(|limits| limits.bodies_bytes_max = 4096).await;
    let (mut pieces, slow) = body_by_hand();
    let first = node.call(request("POST", MESSAGES, &JSON, slow));
    let rest = async {
        let begun = format!(r#"{{"text":"{}"#, "x".repeat(3000));
        pieces.send(Ok(begun.into())).await.unwrap();
        until_metric(&node, r#"quorate_http_requests_in_flight{class="bodies"} 1"#).await;
        // A body is counted as it comes: announcing much takes nothing from others.
        let text = json!({"text": "x".repeat(2000)});
        in_time(async {
            loop {
                let reply = node.post(MESSAGES, text.clone()).await;
                match reply.status.as_u16() {
                    // What was sent is not read yet.
                    201 => tokio::task::yield_now().await,
                    _ => return reply.problem(429, "overloaded"),
                }
            }
        })
        .await;
        node.post(MESSAGES, json!({"text": "small"})).await.expect(201);
        pieces.send(Ok(r#""}"#.into())).await.unwrap();
        drop(pieces);
    };
    let (first, ()) = tokio::join!(first, rest);
    first.expect(201);
    node.post(MESSAGES, json!({"text": "x".repeat(4000)})).await.expect(201);
    assert!(metric(&node, r#"quorate_http_refused_total{bound="body_bytes"} 1"#).await);
}

#[tokio::test]
async fn answers_that_nobody_takes_have_a_bound_for_the_whole_node() {
    let node = node(|limits| limits.answers_bytes_max = 200 << 10).await;
    let text = "x".repeat(60_000);
    node.say("hall", &[&text, &text]).await;
    let page = || request("GET", MESSAGES, &[], Body::empty());
    let untaken = node.router.clone().oneshot(page()).await.unwrap();
    assert_eq!(untaken.status(), 200);
    node.call(page()).await.problem(429, "overloaded");
    node.get("/v1/rooms/hall").await.expect(200);
    drop(untaken);
    let reply = node.call(page()).await.expect(200);
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    assert!(metric(&node, r#"quorate_http_refused_total{bound="answer_bytes"} 1"#).await);
}
