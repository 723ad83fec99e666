//! A send over a socket and one over HTTP are the same: answers, refusals, replays.

use std::collections::BTreeMap;

use quorate_api::replica::ReplicaError;
use serde_json::{Value, json};

use super::{Socket, problem};
use crate::caller::Node;
use crate::sockets::Served;

/// The node's HTTP side, over the same state.
async fn furnished() -> (Served, Node) {
    let served = Served::start(|_| ()).await;
    let node = Node::over(served.replica.clone(), quorate_api::ApiConfig::default());
    for user in ["ann", "bob"] {
        node.post("/v1/users", json!({ "user": user })).await.expect(201);
    }
    for room in [
        json!({"room": "hall", "kind": "public"}),
        json!({"room": "den", "kind": "group", "members": ["ann"]}),
    ] {
        node.post("/v1/rooms", room).await.expect(201);
    }
    (served, node)
}

#[tokio::test]
async fn a_send_is_answered_as_over_http() {
    let (served, node) = furnished().await;
    let mut socket = Socket::open(&served, &[("x-quorate-user", "ann")]).await;
    let over_http = node
        .send(
            "POST",
            "/v1/rooms/den/messages",
            &[("x-quorate-user", "ann")],
            r#"{"text":"a"}"#,
        )
        .await
        .expect(201);
    let frame = json!({"id": "1", "type": "send", "room": "den", "text": "你好\u{0}", "kind": "notice",
        "reply_to": 1, "client_id": "c", "attributes": {"a": [1]}});
    let mut answer = socket.ask(frame).await;
    let mut expected = over_http.json();
    for (field, value) in [("id", json!("1")), ("type", json!("sent")), ("seq", json!(2))] {
        expected[field] = value;
    }
    expected["rev"] = answer["rev"].take();
    answer["rev"] = expected["rev"].clone();
    assert!(answer["rev"].as_u64() > over_http.json()["rev"].as_u64());
    expected["position"] = node.get("/v1/rooms/den").await.header("x-quorate-position").into();
    assert_eq!(answer, expected);
    let message = node.get("/v1/rooms/den/messages/2").await.expect(200).json();
    assert_eq!(
        (
            &message["text"],
            &message["kind"],
            &message["reply_to"],
            &message["attributes"]
        ),
        (&json!("你好\u{0}"), &json!("notice"), &json!(1), &json!({"a": [1]}))
    );
}

#[tokio::test]
async fn a_batch_is_answered_as_over_http() {
    let (served, node) = furnished().await;
    let mut socket = Socket::open(&served, &[]).await;
    let messages = json!([{"text": "a", "sender": "ann", "sent_at": "2020-01-01T00:00:00Z"}, {"text": "b"}]);
    let frame = json!({"id": "1", "type": "send_batch", "room": "hall", "messages": messages});
    let answer = socket.ask(frame).await;
    assert_eq!(answer["type"], "sent_batch");
    assert_eq!(
        (&answer["first_seq"], &answer["last_seq"], &answer["seqs"]),
        (&json!(1), &json!(2), &json!([1, 2]))
    );
    let first = node.get("/v1/rooms/hall/messages/1").await.expect(200).json();
    assert_eq!(
        (&first["sender"], &first["sent_at"]),
        (&json!("ann"), &json!("2020-01-01T00:00:00.000Z"))
    );
}

#[tokio::test]
async fn many_in_flight_are_answered_by_their_ids_as_they_are_done() {
    let (served, node) = furnished().await;
    let mut socket = Socket::open(&served, &[]).await;
    served.replica.hold(true);
    for n in 0..100 {
        socket.send(&format!("m{n}"), &format!("text {n}")).await;
    }
    // The later question is answered before.
    socket.is_alive().await;
    served.replica.hold(false);
    let mut seqs = BTreeMap::new();
    for _ in 0..100 {
        let answer = socket.hear().await;
        assert_eq!(answer["type"], "sent", "{answer}");
        let id = answer["id"].as_str().unwrap().to_owned();
        assert!(seqs.insert(id, answer["seq"].as_u64().unwrap()).is_none(), "{answer}");
    }
    for (id, seq) in seqs {
        let message = node.get(&format!("/v1/rooms/hall/messages/{seq}")).await.json();
        assert_eq!(message["text"], format!("text {}", &id[1..]));
    }
}

#[tokio::test]
async fn a_client_id_makes_a_send_safe_to_repeat_through_either_door() {
    let (served, node) = furnished().await;
    let mut socket = Socket::open(&served, &[("x-quorate-user", "ann")]).await;
    let frame =
        |id: &str, text: &str| json!({"id": id, "type": "send", "room": "hall", "text": text, "client_id": "c"});
    let first = socket.ask(frame("1", "a")).await;
    assert!(first.get("replayed").is_none(), "{first}");
    let again = socket.ask(frame("2", "a")).await;
    assert_eq!((&again["seq"], &again["rev"]), (&first["seq"], &first["rev"]));
    assert_eq!(again["replayed"], true);
    let refused = socket.ask(frame("3", "b")).await;
    problem(&refused, "3", "invalid");
    let over_http = node
        .send(
            "POST",
            "/v1/rooms/hall/messages",
            &[("x-quorate-user", "ann")],
            r#"{"text":"a","client_id":"c"}"#,
        )
        .await
        .expect(201);
    assert_eq!(over_http.header("idempotency-replayed"), "true");
    assert_eq!(over_http.json()["seq"], first["seq"]);
}

#[tokio::test]
async fn a_key_holds_for_both_doors_and_remembers_refusals() {
    let (served, node) = furnished().await;
    let mut socket = Socket::open(&served, &[("x-quorate-user", "bob")]).await;
    let key = [("x-quorate-user", "bob"), ("idempotency-key", "k-1")];
    let first = node
        .send(
            "POST",
            "/v1/rooms/hall/messages",
            &key,
            r#"{"text":"a","kind":"notice"}"#,
        )
        .await
        .expect(201);
    let frame =
        json!({"kind": "notice", "text": "a", "id": "1", "room": "hall", "type": "send", "idempotency_key": "k-1"});
    let again = socket.ask(frame).await;
    assert_eq!(
        (&again["seq"], &again["replayed"]),
        (&first.json()["seq"], &json!(true))
    );

    let refused = json!({"id": "2", "type": "send", "room": "den", "text": "a", "idempotency_key": "k-2"});
    let first = socket.ask(refused.clone()).await;
    problem(&first, "2", "not_a_member");
    assert!(
        first.get("replayed").is_none() && first["position"].is_string(),
        "{first}"
    );
    node.send("PUT", "/v1/rooms/den/members/bob", &[], "{}")
        .await
        .expect(201);
    let again = socket.ask(refused).await;
    problem(&again, "2", "not_a_member");
    assert_eq!(again["replayed"], true);
    let over_http = [("x-quorate-user", "bob"), ("idempotency-key", "k-2")];
    let reply = node
        .send("POST", "/v1/rooms/den/messages", &over_http, r#"{"text":"a"}"#)
        .await;
    assert_eq!(reply.header("idempotency-replayed"), "true");
    reply.problem(403, "not_a_member");
    let other = json!({"id": "3", "type": "send", "room": "den", "text": "b", "idempotency_key": "k-2"});
    problem(&socket.ask(other).await, "3", "idempotency_mismatch");
}

/// What both doors say of it, but for what belongs to the door.
fn told(problem: &Value) -> Value {
    let mut told = problem.clone();
    let fields = told.as_object_mut().unwrap();
    fields.remove("request_id");
    fields.remove("retry_after_ms");
    told
}

/// Who sends what to which room, and headers with the fields that stand for them.
type Case = (
    &'static str,
    &'static str,
    Value,
    Vec<(&'static str, &'static str, Value)>,
);

#[tokio::test]
async fn what_http_refuses_a_socket_refuses_in_the_same_words() {
    let (served, node) = furnished().await;
    let long = "x".repeat(65_537);
    let large = json!({"a": "x".repeat(16 << 10)});
    let cases: Vec<Case> = vec![
        ("bob", "den", json!({"text": "a"}), vec![]),
        ("bob", "attic", json!({"text": "a"}), vec![]),
        ("nobody", "hall", json!({"text": "a"}), vec![]),
        ("ann", "hall", json!({ "text": long }), vec![]),
        ("ann", "hall", json!({"text": "a", "attributes": large}), vec![]),
        ("ann", "hall", json!({"text": "a", "client_id": ""}), vec![]),
        ("ann", "hall", json!({"text": "a", "kind": "a b"}), vec![]),
        ("ann", "hall", json!({"text": "a", "reply_to": 99}), vec![]),
        ("ann", "hall", json!({"text": "a", "reply_to": 1_u64 << 53}), vec![]),
        (
            "ann",
            "hall",
            json!({"text": "a"}),
            vec![("if-lock", "l;token=1", json!("l;token=1"))],
        ),
        (
            "ann",
            "hall",
            json!({"text": "a"}),
            vec![("if-match", "\"999\"", json!(999))],
        ),
    ];
    for (n, (user, room, body, extra)) in cases.into_iter().enumerate() {
        let mut headers = vec![("x-quorate-user", user)];
        headers.extend(extra.iter().map(|(name, value, _)| (*name, *value)));
        let before = served.replica.state();
        let reply = node
            .send(
                "POST",
                &format!("/v1/rooms/{room}/messages"),
                &headers,
                body.to_string(),
            )
            .await;
        let status = reply.status.as_u16();
        assert!(status >= 400, "{n}");
        if user == "nobody" {
            let refused = Socket::try_open(served.addr, &[("x-quorate-user", user)]).await;
            assert_eq!(refused.map(drop).unwrap_err(), (401, "unauthenticated".to_owned()));
            continue;
        }
        let mut frame = body;
        frame["id"] = json!("x");
        frame["type"] = json!("send");
        frame["room"] = json!(room);
        for (name, _, field) in extra {
            frame[name.replace('-', "_")] = field;
        }
        let mut socket = Socket::open(&served, &[("x-quorate-user", user), ("x-request-id", "r")]).await;
        let answer = socket.ask(frame).await;
        assert_eq!(told(&answer["problem"]), told(&reply.json()), "{n}");
        assert_eq!(answer["problem"]["request_id"], "r/x");
        assert!(served.replica.state() == before, "{n} has changed something");
    }
}

#[tokio::test]
async fn what_the_cluster_cannot_do_is_told_with_its_outcome_and_the_socket_stays() {
    let (served, node) = furnished().await;
    let mut socket = Socket::open(&served, &[]).await;
    for (error, retry_after_ms) in [
        (ReplicaError::NoLeader, Some(1000)),
        (ReplicaError::NotReady("starting".to_owned()), Some(1000)),
        (ReplicaError::ShuttingDown, Some(1000)),
        (ReplicaError::Overloaded("the queue".to_owned()), Some(1000)),
        (ReplicaError::DiskFull, None),
        (ReplicaError::CommitUnknown("the leader is gone".to_owned()), None),
    ] {
        served.replica.fail_next_write(error.clone());
        let reply = node.post("/v1/rooms/hall/messages", json!({"text": "a"})).await;
        served.replica.fail_next_write(error.clone());
        let answer = socket
            .ask(json!({"id": "1", "type": "send", "room": "hall", "text": "a"}))
            .await;
        assert_eq!(told(&answer["problem"]), told(&reply.json()), "{error}");
        let unknown = matches!(error, ReplicaError::CommitUnknown(_));
        assert_eq!(
            answer["problem"]["outcome"],
            if unknown { "unknown" } else { "not_applied" }
        );
        assert_eq!(answer["problem"]["retry_after_ms"].as_u64(), retry_after_ms, "{error}");
    }
    // A follower forwards: nobody is sent elsewhere.
    assert!(
        served
            .replica
            .writes
            .lock()
            .unwrap()
            .iter()
            .all(|(_, options)| !options.redirect)
    );
    socket.is_alive().await;
}

#[tokio::test]
async fn a_time_out_is_each_sends_own() {
    let (served, _) = furnished().await;
    let mut socket = Socket::open(&served, &[]).await;
    served.replica.hold(true);
    socket
        .say(json!({"id": "slow", "type": "send", "room": "hall", "text": "a", "timeout_ms": 60_000}))
        .await;
    let quick = json!({"id": "quick", "type": "send", "room": "hall", "text": "b", "timeout_ms": 1});
    let answer = socket.ask(quick).await;
    assert_eq!(problem(&answer, "quick", "commit_unknown")["outcome"], "unknown");
    served.replica.hold(false);
    assert_eq!(socket.hear().await["id"], "slow");
}

/// Which requests met a defect is seen in the log of the node; the others on the socket go on.
#[tokio::test]
async fn a_defect_costs_one_answer() {
    let (served, _) = furnished().await;
    let mut socket = Socket::open(&served, &[]).await;
    socket.send("panic", "a").await;
    let answer = socket.hear().await;
    assert_eq!(problem(&answer, "panic", "internal")["outcome"], "unknown");
    socket.send("next", "a").await;
    assert_eq!(socket.hear().await["type"], "sent");
}
