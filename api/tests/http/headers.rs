//! The headers of every request and every answer.

use serde_json::json;

use crate::caller::Node;

#[tokio::test]
async fn every_answer_says_who_and_when() {
    let node = Node::furnished().await;
    let text = r#"{"text":"a"}"#;
    let replies = [
        node.get("/v1/rooms/hall").await.expect(200),
        node.send("POST", "/v1/rooms/hall/messages", &[], text)
            .await
            .expect(201),
        node.ask("DELETE", "/v1/rooms/den", &[]).await.expect(204),
        node.get("/v1/rooms/attic").await.expect(404),
        node.get("/nowhere").await.expect(404),
        node.ask("PUT", "/v1/rooms", &[]).await.expect(405),
        node.send("POST", "/v1/rooms", &[], "{").await.expect(400),
        node.get("/livez").await.expect(200),
        node.get("/metrics").await.expect(200),
        node.get("/v1/cluster").await.expect(200),
    ];
    for reply in replies {
        assert_eq!(reply.header("x-quorate-node"), "1");
        assert_eq!(reply.header("x-quorate-leader"), "1");
        assert_eq!(reply.header("x-quorate-term"), "7");
        assert_eq!(reply.header("x-request-id").len(), 36, "{reply:?}");
    }
    node.replica.set_status(|status| status.leader = None);
    let reply = node.get("/v1/rooms/hall").await;
    assert_eq!(reply.headers["x-quorate-leader"], "");
}

#[tokio::test]
async fn positions_and_levels() {
    let node = Node::furnished().await;
    let position = |reply: &crate::caller::Reply| reply.header("x-quorate-position").to_owned();
    let sent = node
        .post("/v1/rooms/hall/messages", json!({"text": "a"}))
        .await
        .expect(201);
    assert_eq!(sent.header("x-quorate-level"), "");
    let read = node.get("/v1/rooms/hall/messages/1").await.expect(200);
    assert_eq!(position(&sent), position(&read));
    assert_eq!(read.header("x-quorate-level"), "linearizable");
    assert_eq!(
        node.get("/v1/rooms/hall?level=local").await.header("x-quorate-level"),
        "local"
    );
    // A refusal was read from a state, too.
    let refused = node.get("/v1/rooms/attic").await.expect(404);
    assert_eq!(position(&refused), position(&read));
    assert_eq!(refused.header("x-quorate-level"), "linearizable");
    let refused = node.post("/v1/users", json!({"user": "ann"})).await.expect(409);
    assert_eq!(position(&refused), position(&read));

    let current = position(&read);
    node.ask("GET", "/v1/rooms/hall", &[("x-quorate-min-position", &current)])
        .await
        .expect(200);
    let ahead = format!("{}.1.99999", current.split('.').next().unwrap());
    let headers = [("x-quorate-min-position", ahead.as_str()), ("request-timeout-ms", "1")];
    node.ask("GET", "/v1/rooms/hall", &headers)
        .await
        .problem(503, "not_ready");
    let problem = node
        .ask("GET", "/v1/rooms/hall", &[("x-quorate-min-position", "77.1.1")])
        .await
        .problem(410, "position_expired");
    assert_eq!(problem["oldest"], current);
    for bad in ["", "x", "1.2", "1.2.3.4.5", "-1.1.1"] {
        node.ask("GET", "/v1/rooms/hall", &[("x-quorate-min-position", bad)])
            .await
            .problem(400, "bad_request");
    }
}

#[tokio::test]
async fn request_ids() {
    let node = Node::furnished().await;
    let reply = node.ask("GET", "/nowhere", &[("x-request-id", "mine-1")]).await;
    assert_eq!(reply.header("x-request-id"), "mine-1");
    assert_eq!(reply.problem(404, "not_found")["request_id"], "mine-1");
    let reply = node.ask("GET", "/livez", &[("x-request-id", "not mine")]).await;
    assert_ne!(reply.header("x-request-id"), "not mine");
    let id = "r-7";
    node.send(
        "POST",
        "/v1/rooms/hall/messages",
        &[("x-request-id", id)],
        r#"{"text":"a"}"#,
    )
    .await
    .expect(201);
    assert_eq!(node.replica.writes.lock().unwrap().last().unwrap().0.request_id, id);
}

#[tokio::test]
async fn headers_that_do_not_parse() {
    let node = Node::furnished().await;
    for (name, value) in [
        ("request-timeout-ms", "0"),
        ("request-timeout-ms", "60001"),
        ("request-timeout-ms", "1.5"),
        ("x-quorate-user", "%zz"),
        ("x-quorate-user", ""),
        ("x-quorate-user", "a%20b"),
    ] {
        node.ask("GET", "/v1/rooms/hall", &[(name, value)])
            .await
            .problem(400, "bad_request");
        node.send("POST", "/v1/rooms/hall/messages", &[(name, value)], r#"{"text":"a"}"#)
            .await
            .problem(400, "bad_request");
    }
    let long = "k".repeat(129);
    for (name, value) in [
        ("idempotency-key", ""),
        ("idempotency-key", "a b"),
        ("idempotency-key", long.as_str()),
        ("if-match", "7"),
        ("if-match", "W/\"7\""),
        ("if-none-match", "\"7\""),
        ("if-lock", "name"),
        ("if-lock", "name;token=x"),
    ] {
        node.send("POST", "/v1/rooms/hall/messages", &[(name, value)], r#"{"text":"a"}"#)
            .await
            .problem(400, "bad_request");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    node.send("POST", "/v1/rooms/hall/messages", &twice, r#"{"text":"a"}"#)
        .await
        .problem(400, "bad_request");
    assert_eq!(node.get("/v1/rooms/hall").await.json()["last_seq"], 0);
}

#[tokio::test]
async fn idempotency_keys() {
    let node = Node::furnished().await;
    let key = [("idempotency-key", "k1")];
    let path = "/v1/rooms/hall/messages";
    let first = node.send("POST", path, &key, r#"{"text":"a"}"#).await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = node
        .send("POST", &format!("{path}?redirect=true"), &key, r#"{"text":"a"}"#)
        .await
        .expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.json(), again.json());
    node.send("POST", path, &key, r#"{"text":"b"}"#)
        .await
        .problem(422, "idempotency_mismatch");
    let conditional = [key[0], ("if-match", "\"1\"")];
    node.send("POST", path, &conditional, r#"{"text":"a"}"#)
        .await
        .problem(422, "idempotency_mismatch");

    // A refusal is remembered as well.
    let key = [("idempotency-key", "k2")];
    node.send("POST", "/v1/users", &key, r#"{"user":"ann"}"#)
        .await
        .problem(409, "already_exists");
    let again = node.send("POST", "/v1/users", &key, r#"{"user":"ann"}"#).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    again.problem(409, "already_exists");

    // A password counts for the key, though neither it nor a fast hash of it goes into the log.
    let key = [("idempotency-key", "k3")];
    let eve = |password: &str| json!({"user": "eve", "password": password}).to_string();
    node.send("POST", "/v1/users", &key, eve("secret")).await.expect(201);
    let again = node.send("POST", "/v1/users", &key, eve("secret")).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    node.send("POST", "/v1/users", &key, eve("other"))
        .await
        .problem(422, "idempotency_mismatch");
}
