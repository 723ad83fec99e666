//! Every bound of a socket, what happens at it, and that nobody else notices.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use quorate_api::{ApiConfig, Limits};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, close, problem};
use crate::caller::{Node, in_time};
use crate::sockets::{SHORT, Served};

fn writes(node: &Served) -> usize {
    node.replica.writes.lock().unwrap().len()
}

async fn until(what: impl Fn() -> bool) {
    in_time(async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn beyond_the_bound_of_requests_a_socket_is_not_read_and_loses_nothing() {
    let node = Served::start(|limits| limits.socket_in_flight_max = 3).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    assert_eq!(socket.hello["in_flight_max"], 3);
    let mut other = Socket::open(&node, &[]).await;
    let before = writes(&node);
    node.replica.hold(true);
    for n in 0..10 {
        socket.send(&n.to_string(), "a").await;
    }
    until(|| writes(&node) == before + 3).await;
    // What another does takes longer than reading one more frame would.
    other.is_alive().await;
    assert_eq!(writes(&node), before + 3);
    node.replica.hold(false);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(socket.hear().await["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn beyond_the_bound_of_bytes_neither() {
    let node = Served::start(|limits| limits.body_bytes_max = 1000).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    let before = writes(&node);
    node.replica.hold(true);
    for n in 0..10 {
        socket.send(&n.to_string(), &"x".repeat(800)).await;
    }
    until(|| writes(&node) == before + 3).await;
    Socket::open(&node, &[]).await.is_alive().await;
    assert_eq!(
        writes(&node),
        before + 3,
        "two bodies, and the one that crosses the bound"
    );
    node.replica.hold(false);
    for _ in 0..10 {
        assert_eq!(socket.hear().await["type"], "sent");
    }
}

#[tokio::test]
async fn full_classes_of_requests_refuse_each_frame_and_keep_the_socket() {
    for (change, word) in [
        ((|limits| limits.writes_max = 1) as fn(&mut Limits), "writes"),
        (|limits| limits.bodies_bytes_max = 60, "bytes"),
    ] {
        let node = Served::start(change).await;
        node.room().await;
        let mut socket = Socket::open(&node, &[]).await;
        node.replica.hold(true);
        socket.send("1", "a").await;
        socket.send("2", "a").await;
        let answer = socket.hear().await;
        let refused = problem(&answer, "2", "overloaded");
        assert!(refused["detail"].as_str().unwrap().contains(word), "{answer}");
        assert_eq!(refused["retry_after_ms"], 1000);
        node.replica.hold(false);
        assert_eq!(socket.hear().await["id"], "1");
        socket.send("3", "a").await;
        assert_eq!(socket.hear().await["type"], "sent");
    }
}

#[tokio::test]
async fn one_socket_too_many_is_told_so_and_a_place_comes_back() {
    let node = Served::start(|limits| limits.sockets_max = 1).await;
    let socket = Socket::open(&node, &[]).await;
    node.until_metric(r#"requests_in_flight{class="sockets"} 1"#).await;
    let refused = Socket::try_open(node.addr, &[]).await.map(drop).unwrap_err();
    assert_eq!(refused, (429, "overloaded".to_owned()));
    drop(socket);
    node.until_metric(r#"requests_in_flight{class="sockets"} 0"#).await;
    Socket::open(&node, &[]).await.is_alive().await;
}

#[tokio::test]
async fn a_socket_is_a_connection_and_outlives_what_is_idle() {
    let node = Served::start(|limits| {
        limits.keep_alive_timeout = Duration::from_millis(1);
        limits.header_read_timeout = SHORT;
    })
    .await;
    let mut socket = Socket::open(&node, &[]).await;
    node.until_metric("quorate_http_connections 2").await;
    // Connections that ask nothing are cut meanwhile.
    let mut idle = node.connect().await;
    assert_eq!(crate::sockets::read_to_end(&mut idle).await, "");
    socket.is_alive().await;
    drop(socket);
    node.until_metric("quorate_http_connections 1").await;
}

#[tokio::test]
async fn every_frame_counts_against_its_users_rate() {
    let limits = Limits {
        user_requests_per_s: 1,
        user_requests_burst: 3,
        ..Limits::default()
    };
    let node = Served::start_with(ApiConfig {
        limits,
        ..ApiConfig::default()
    })
    .await;
    let http = Node::over(node.replica.clone(), ApiConfig::default());
    http.post("/v1/users", json!({"user": "ann"})).await.expect(201);
    node.room().await;
    let mut socket = Socket::open(&node, &[("x-quorate-user", "ann")]).await;
    socket.send("1", "a").await;
    assert_eq!(socket.hear().await["type"], "sent");
    socket.put(Message::text("{")).await;
    socket.hear().await;
    socket.send("3", "a").await;
    let answer = socket.hear().await;
    let refused = problem(&answer, "3", "rate_limited");
    assert_eq!(
        (&refused["retry_after_ms"], &refused["status"]),
        (&json!(1000), &json!(429))
    );
    // Root is not limited.
    let mut root = Socket::open(&node, &[]).await;
    for _ in 0..10 {
        root.is_alive().await;
    }
}

#[tokio::test]
async fn who_does_not_take_his_answers_is_cut_and_nobody_else_notices() {
    let node = Served::start(|limits| limits.slow_consumer_after = SHORT).await;
    node.room().await;
    let mut slow = Socket::open(&node, &[]).await;
    // Each is answered with some 600 bytes, which nobody takes; he can not even ask without end.
    let garbage = async {
        let text = "x".repeat(400);
        while slow.stream.send(Message::text(text.clone())).await.is_ok() {}
    };
    let others = async {
        let mut other = Socket::open(&node, &[]).await;
        node.until_metric(r#"connections_cut_total{reason="slow_socket"} 1"#)
            .await;
        other.send("1", "a").await;
        assert_eq!(other.hear().await["type"], "sent");
    };
    in_time(Box::pin(async { tokio::join!(garbage, others) })).await;
    node.until_metric("quorate_http_slow_consumers_total 1").await;
    node.until_metric(r#"requests_in_flight{class="sockets"} 0"#).await;
}

#[tokio::test]
async fn who_is_silent_is_asked_and_who_does_not_answer_is_cut() {
    let node = Served::start(|limits| limits.socket_ping_interval = SHORT).await;
    let _dead = Socket::open(&node, &[]).await;
    let mut living = Socket::open(&node, &[]).await;
    // To read is to answer pings.
    let mut pings = 0;
    while pings < 5 {
        match in_time(living.stream.next()).await.unwrap().unwrap() {
            Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
        in_time(living.stream.flush()).await.unwrap();
    }
    node.until_metric(r#"connections_cut_total{reason="silent_socket"} 1"#)
        .await;
    living.is_alive().await;
    node.until_metric(r#"requests_in_flight{class="sockets"} 1"#).await;
}

#[tokio::test]
async fn a_frame_that_drips_is_cut() {
    let node = Served::start(|limits| limits.body_window = SHORT).await;
    let mut socket = Socket::open(&node, &[]).await;
    let mut other = Socket::open(&node, &[]).await;
    // The head of a frame of 65,535 bytes, then a byte now and then.
    let raw = socket.stream.get_mut();
    raw.write_all(&[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0]).await.unwrap();
    let mut drops = tokio::time::interval(SHORT / 10);
    let drip = async {
        loop {
            drops.tick().await;
            if raw.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let noticed = node.until_metric(r#"connections_cut_total{reason="frame_read_timeout"} 1"#);
    tokio::select! {
        () = drip => {}
        () = noticed => {}
    }
    other.is_alive().await;
    assert_eq!(socket.closed().await, close(4408, "timeout"));
}

#[tokio::test]
async fn what_arrives_of_frames_counts_against_all_bodies() {
    let node = Served::start(|limits| limits.bodies_bytes_max = 100 << 10).await;
    let mut socket = Socket::open(&node, &[]).await;
    let mut other = Socket::open(&node, &[]).await;
    let mut frame = vec![0x81, 0xff];
    frame.extend((1_u64 << 20).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(300 << 10, b'x');
    // It may be cut while it writes.
    let _ = socket.stream.get_mut().write_all(&frame).await;
    assert_eq!(socket.closed().await, close(1013, "overloaded"));
    other.is_alive().await;
}

#[tokio::test]
async fn a_shutdown_answers_what_is_at_work_and_then_says_so() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    let before = writes(&node);
    node.replica.hold_outcomes(true);
    for n in 0..5 {
        socket.send(&n.to_string(), "a").await;
    }
    until(|| writes(&node) == before + 5).await;
    node.stop.cancel();
    node.replica.hold_outcomes(false);
    for _ in 0..5 {
        assert_eq!(socket.hear().await["type"], "sent");
    }
    assert_eq!(socket.closed().await, close(1001, "shutting_down"));
    in_time(node.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let node = Served::start(|limits| limits.shutdown_grace = SHORT).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    node.replica.hold(true);
    socket.send("1", "a").await;
    // And one who does not read at all.
    let _silent = Socket::open(&node, &[]).await;
    node.stop.cancel();
    assert_eq!(socket.closed().await, close(1001, "shutting_down"));
    in_time(node.task).await.unwrap().unwrap();
    node.replica.hold(false);
}
