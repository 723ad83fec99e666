//! Bad input gets its documented code, changes nothing, and is checked in the documented order.

use axum::body::Body;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::caller::{Node, request};

const MESSAGES: &str = "/v1/rooms/hall/messages";
const BATCH: &str = "/v1/rooms/hall/messages/batch";

#[tokio::test]
async fn no_path_and_no_method() {
    let node = Node::furnished().await;
    for path in [
        "/",
        "/v1",
        "/v1/room",
        "/v1/rooms/hall/nothing",
        "/v1/users/",
        "/v2/rooms",
    ] {
        node.get(path).await.problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("PUT", "/v1/users", "POST,GET,HEAD"),
        ("POST", "/v1/users/ann", "GET,HEAD,PATCH,DELETE"),
        ("GET", BATCH, "POST"),
        ("GET", "/v1/rooms/hall/members/ann", "PUT,DELETE"),
        ("DELETE", MESSAGES, "POST,GET,HEAD"),
        ("POST", "/livez", "GET,HEAD"),
        ("FROB", "/v1/rooms", "POST,GET,HEAD"),
    ] {
        let reply = node.ask(method, path, &[]).await;
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
        reply.problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn media_types() {
    let node = Node::furnished().await;
    let body = r#"{"text":"hi"}"#;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
    ] {
        let reply = node
            .send("POST", MESSAGES, &[("content-type", content_type)], body)
            .await;
        reply.problem(415, "unsupported_media_type");
    }
    node.call(request("POST", MESSAGES, &[], body))
        .await
        .problem(415, "unsupported_media_type");
    node.call(request("POST", MESSAGES, &[], Body::empty()))
        .await
        .problem(415, "unsupported_media_type");
    let reply = node.send("POST", MESSAGES, &[("content-encoding", "gzip")], body).await;
    reply.problem(415, "unsupported_media_type");
    for content_type in ["application/json;charset=UTF-8", "APPLICATION/JSON"] {
        node.send("POST", MESSAGES, &[("content-type", content_type)], body)
            .await
            .expect(201);
    }
    // A merge patch has a type of its own, which a creation has not.
    let merge = [("content-type", "application/merge-patch+json")];
    node.send("PATCH", "/v1/rooms/hall", &merge, r#"{"title":"T"}"#)
        .await
        .expect(200);
    node.send("PATCH", "/v1/rooms/hall", &[], r#"{"title":"T"}"#)
        .await
        .expect(200);
    node.send("POST", MESSAGES, &merge, body)
        .await
        .problem(415, "unsupported_media_type");
    // No body needs no type.
    node.call(request("PUT", "/v1/rooms/hall/members/ann", &[], Body::empty()))
        .await
        .expect(201);
    node.call(request("DELETE", "/v1/rooms/hall/members/ann", &[], Body::empty()))
        .await
        .expect(204);
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let node = Node::furnished().await;
    let bad: &[&[u8]] = &[
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"hi\"",
        b"{}",
        b"{\"text\":1}",
        b"{\"text\":null}",
        b"{\"text\":\"\xff\"}",
        b"{\"text\":\"a\"",
        b"{\"text\":\"a\"} x",
        b"{\"text\":\"a\",\"colour\":1}",
        b"{\"text\":\"a\",\"text\":\"b\"}",
        b"{\"text\":\"a\",\"client_id\":null}",
        b"{\"text\":\"a\",\"client_id\":\"\"}",
        b"{\"text\":\"a\",\"reply_to\":\"1\"}",
        b"{\"text\":\"a\",\"kind\":\"\"}",
        b"{\"text\":\"a\",\"kind\":\"a b\"}",
        b"{\"text\":\"a\",\"attributes\":[1]}",
        b"{\"text\":\"a\",\"sender\":\"ann\"}",
    ];
    for body in bad {
        let reply = node.send("POST", MESSAGES, &[], Bytes::from_static(body)).await;
        let problem = reply.problem(400, "bad_request");
        assert_eq!(problem["outcome"], "not_applied");
        assert_eq!(problem["retryable"], false);
    }
    let long_id = json!({"text": "a", "client_id": "x".repeat(129)});
    node.post(MESSAGES, long_id).await.problem(400, "bad_request");
    let deep = format!(
        r#"{{"text":"a","attributes":{{"a":{}1{}}}}}"#,
        "[".repeat(64),
        "]".repeat(64)
    );
    node.send("POST", MESSAGES, &[], deep).await.problem(400, "bad_request");
    for body in [
        json!({"user": "a b"}),
        json!({"user": ""}),
        json!({"user": "a/b"}),
        json!({"user": "x".repeat(129)}),
        json!({"user": "e\u{301}"}),
        json!({"user": 1}),
        json!({"name": "a"}),
        json!({"user": "c", "email": "nowhere"}),
        json!({"user": "c", "display_name": ""}),
        json!({"user": "c", "password": ""}),
    ] {
        node.post("/v1/users", body).await.problem(400, "bad_request");
    }
    for body in [
        json!({"room": "x"}),
        json!({"room": "x", "kind": "secret"}),
        json!({"room": "x", "kind": {"public": null}}),
        json!({"room": "x y", "kind": "public"}),
        json!({"room": "x", "kind": "group", "members": ["a b"]}),
        json!({"room": "x", "kind": "group", "members": null}),
    ] {
        node.post("/v1/rooms", body).await.problem(400, "bad_request");
    }
    let role = node
        .send("PUT", "/v1/rooms/hall/members/ann", &[], r#"{"role":"king"}"#)
        .await;
    role.problem(400, "bad_request");
    for body in ["[]", r#"{"user":"x"}"#, r#"{"display_name":1}"#] {
        node.send("PATCH", "/v1/users/ann", &[], body)
            .await
            .problem(400, "bad_request");
    }
    assert_eq!(node.get("/v1/rooms/hall").await.json()["last_seq"], 0);
    assert_eq!(node.get("/v1/users").await.json()["users"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn sizes() {
    let node = Node::furnished().await;
    let text = |bytes| json!({"text": "x".repeat(bytes)});
    node.post(MESSAGES, text(65_536)).await.expect(201);
    node.post(MESSAGES, text(65_537)).await.problem(413, "too_large");
    node.post(BATCH, json!({"messages": [text(65_537)]}))
        .await
        .problem(413, "too_large");

    let body = |bytes: usize| {
        let frame = r#"{"text":"a"}"#;
        format!("{frame}{}", " ".repeat(bytes - frame.len()))
    };
    node.send("POST", MESSAGES, &[], body(4 << 20)).await.expect(201);
    node.send("POST", MESSAGES, &[], body((4 << 20) + 1))
        .await
        .problem(413, "too_large");
    // Without a length that tells it beforehand.
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = futures::stream::iter(std::iter::repeat_n(chunk, 5).map(Ok::<_, std::io::Error>));
    node.send("POST", MESSAGES, &[], Body::from_stream(chunks))
        .await
        .problem(413, "too_large");
    // By what it says alone.
    node.send("POST", MESSAGES, &[("content-length", "4194305")], "{}")
        .await
        .problem(413, "too_large");

    let batch = |messages: usize| json!({"messages": vec![json!({"text": "a"}); messages]});
    node.post(BATCH, batch(0)).await.problem(400, "bad_request");
    node.post(BATCH, batch(1001)).await.problem(413, "too_large");
    let sent = node.post(BATCH, batch(1000)).await.expect(201).json();
    assert_eq!((&sent["first_seq"], &sent["last_seq"]), (&json!(3), &json!(1002)));
}

#[tokio::test]
async fn queries() {
    let node = Node::furnished().await;
    node.say("hall", &["one"]).await;
    for list in ["/v1/users", "/v1/rooms", "/v1/rooms/hall/members", MESSAGES] {
        for query in [
            "limit=-1",
            "limit=0",
            "limit=501",
            "limit=ten",
            "limit=",
            "level=strong",
            "colour=1",
            "limit=1&limit=2",
        ] {
            node.get(&format!("{list}?{query}")).await.problem(400, "bad_request");
        }
        node.get(&format!("{list}?limit=500&level=local")).await.expect(200);
    }
    for query in [
        "after=1&before=1",
        "around=1&at=2026-01-01T00:00:00Z",
        "after=x",
        "before=-1",
        "around=1.5",
        "at=yesterday",
        "at=2026-01-01",
        "after=1&after=1",
    ] {
        node.get(&format!("{MESSAGES}?{query}"))
            .await
            .problem(400, "bad_request");
    }
    node.get("/v1/rooms/hall?limit=1").await.problem(400, "bad_request");
    node.get("/v1/rooms/hall/stream?after=x")
        .await
        .problem(400, "bad_request");
    node.ask("DELETE", "/v1/rooms/hall?redirect=yes", &[])
        .await
        .problem(400, "bad_request");
    node.ask("DELETE", "/v1/rooms/hall?level=local", &[])
        .await
        .problem(400, "bad_request");
    node.get("/v1/rooms/hall").await.expect(200);
}

#[tokio::test]
async fn what_does_not_exist() {
    let node = Node::furnished().await;
    node.say("hall", &["one"]).await;
    for path in [
        "/v1/users/eve",
        "/v1/rooms/attic",
        "/v1/rooms/attic/members",
        "/v1/rooms/attic/messages",
        "/v1/rooms/attic/stream",
        "/v1/rooms/hall/messages/0",
        "/v1/rooms/hall/messages/2",
        "/v1/rooms/hall/messages/99999999999999999999999",
    ] {
        node.get(path).await.problem(404, "not_found");
    }
    for path in [
        "/v1/rooms//messages",
        "/v1/users/a%20b",
        "/v1/users/%zz",
        "/v1/users/%ff",
        "/v1/rooms/a%2Fb/messages",
        "/v1/rooms/hall/messages/one",
    ] {
        node.get(path).await.problem(400, "bad_request");
    }
    node.post("/v1/rooms/attic/messages", json!({"text": "a"}))
        .await
        .problem(404, "not_found");
    node.ask("PUT", "/v1/rooms/hall/members/eve", &[])
        .await
        .problem(404, "not_found");
    node.ask("DELETE", "/v1/users/eve", &[]).await.problem(404, "not_found");
    // In a body it is the request that does not fit.
    let group = json!({"room": "x", "kind": "group", "members": ["eve"]});
    node.post("/v1/rooms", group).await.problem(422, "invalid");
    node.post(MESSAGES, json!({"text": "a", "reply_to": 9}))
        .await
        .problem(422, "invalid");
}

#[tokio::test]
async fn refusals_of_the_log() {
    let node = Node::furnished().await;
    let ann = [("x-quorate-user", "ann")];
    let bob = [("x-quorate-user", "bob")];
    let text = r#"{"text":"a"}"#;
    node.send("POST", "/v1/rooms/den/messages", &bob, text)
        .await
        .problem(403, "not_a_member");
    node.ask("GET", "/v1/rooms/den/messages", &bob)
        .await
        .problem(403, "not_a_member");
    node.ask("GET", "/v1/rooms/den/stream", &bob)
        .await
        .problem(403, "not_a_member");
    node.send("POST", "/v1/rooms/den/messages", &ann, text)
        .await
        .expect(201);
    node.post("/v1/users", json!({"user": "ann"}))
        .await
        .problem(409, "already_exists");
    node.send("DELETE", "/v1/rooms/hall", &[("if-match", "\"999\"")], "")
        .await
        .problem(412, "precondition_failed");
    let none = [("if-none-match", "*")];
    node.send("PATCH", "/v1/rooms/hall", &none, r#"{"title":"a"}"#)
        .await
        .problem(412, "precondition_failed");
    node.send("POST", MESSAGES, &[("if-lock", "l;token=1")], text)
        .await
        .problem(412, "lock_lost");
    let import = r#"{"messages":[{"text":"a","sender":"bob"}]}"#;
    node.send("POST", "/v1/rooms/den/messages/batch", &ann, import)
        .await
        .problem(403, "forbidden");

    // An unknown caller, wherever he asks.
    let eve = [("x-quorate-user", "eve")];
    node.send("POST", MESSAGES, &eve, text)
        .await
        .problem(401, "unauthenticated");
    node.ask("GET", MESSAGES, &eve).await.problem(401, "unauthenticated");
    node.ask("GET", "/v1/rooms/hall/stream", &eve)
        .await
        .problem(401, "unauthenticated");
    let reply = node.ask("GET", MESSAGES, &[("authorization", "Bearer x")]).await;
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    reply.problem(401, "unauthenticated");
    node.send("POST", MESSAGES, &[("authorization", "Bearer x")], text)
        .await
        .problem(401, "unauthenticated");
    node.ask("GET", "/v1/cluster", &[("authorization", "Bearer x")])
        .await
        .problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_node_goes_on() {
    let node = Node::furnished().await;
    let reply = node
        .send("POST", MESSAGES, &[("x-request-id", "panic")], r#"{"text":"a"}"#)
        .await;
    let problem: Value = reply.problem(500, "internal");
    assert_eq!(problem["outcome"], "unknown");
    node.say("hall", &["still here"]).await;
}
