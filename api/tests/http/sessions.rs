//! Signing in and out, what a token is good for, and both modes.

use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use quorate_api::{Accounts, ApiConfig, Limits, RootToken};
use quorate_state_machine::command::Patch;
use quorate_state_machine::{Caller, Command};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::caller::{Node, Reply, in_time, request};

const SESSIONS: &str = "/v1/sessions";
const CURRENT: &str = "/v1/sessions/current";
const ROOT_TOKEN: &str = "root-0123456789-0123456789-0123456789";
const PASSWORD: &str = "correct horse";

fn accounts(enforced: bool, session_ttl_ms: u64) -> ApiConfig {
    ApiConfig {
        accounts: Accounts {
            enforced,
            root_token: Some(RootToken::new(ROOT_TOKEN).unwrap()),
            session_ttl_ms,
        },
        // A stream asks again when it says where it is; here nothing but the end of a session makes it ask.
        limits: Limits {
            bookmark_interval: Duration::from_secs(3600),
            ..Limits::default()
        },
        ..ApiConfig::default()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Ann and bob have a password, eve has none; the room `hall` is public and `den` is ann's.
async fn node(enforced: bool) -> Node {
    let node = Node::with(accounts(enforced, 3_600_000));
    for body in [
        json!({"user": "ann", "password": PASSWORD}),
        json!({"user": "bob", "password": "bob's"}),
        json!({"user": "eve"}),
    ] {
        as_root(&node, "POST", "/v1/users", body).await.expect(201);
    }
    let hall = json!({"room": "hall", "kind": "public"});
    as_root(&node, "POST", "/v1/rooms", hall).await.expect(201);
    let den = json!({"room": "den", "kind": "group", "members": ["ann"]});
    as_root(&node, "POST", "/v1/rooms", den).await.expect(201);
    node
}

async fn as_root(node: &Node, method: &str, path: &str, body: Value) -> Reply {
    with_token(node, ROOT_TOKEN, method, path, body).await
}

async fn with_token(node: &Node, token: &str, method: &str, path: &str, body: Value) -> Reply {
    let authorization = bearer(token);
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    node.send(method, path, &[("authorization", &authorization)], body)
        .await
}

async fn ask(node: &Node, token: &str, path: &str) -> Reply {
    node.ask("GET", path, &[("authorization", &bearer(token))]).await
}

/// The new session's token.
async fn sign_in(node: &Node, user: &str, password: &str) -> String {
    let reply = node.post(SESSIONS, json!({"user": user, "password": password})).await;
    reply.expect(201).json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_password_becomes_a_token_that_says_who_asks() {
    for enforced in [false, true] {
        let node = node(enforced).await;
        let body = json!({"user": "ann", "password": PASSWORD, "device": "laptop"});
        let reply = node.post(SESSIONS, body).await.expect(201);
        assert_eq!(reply.header("cache-control"), "no-store");
        let session = reply.json();
        let token = session["token"].as_str().unwrap();
        assert!(token.starts_with("qst_") && token.len() == 4 + 64, "{token}");
        assert_eq!(
            session,
            json!({"token": token, "expires_at": "2026-01-01T01:00:00.123Z", "user": "ann"})
        );
        // Another one each time.
        assert_ne!(sign_in(&node, "ann", PASSWORD).await, token);

        let sent = with_token(&node, token, "POST", "/v1/rooms/den/messages", json!({"text": "hi"})).await;
        assert_eq!(sent.expect(201).json()["sender"], "ann");
        assert_eq!(
            ask(&node, token, "/v1/rooms").await.expect(200).json()["rooms"][0]["room"],
            "den"
        );
        ask(&node, token, "/v1/cluster").await.expect(200);
        let bob = sign_in(&node, "bob", "bob's").await;
        ask(&node, &bob, "/v1/rooms/den").await.problem(403, "not_a_member");

        // What the log and the state hold of it is no token and no password.
        let writes = node.replica.writes.lock().unwrap();
        let held = format!("{writes:?}");
        assert!(!held.contains(&token[4..]) && !held.contains(PASSWORD), "{held}");
        assert!(writes.iter().any(|(envelope, _)| matches!(
            (&envelope.caller, &envelope.command),
            (Caller::Root, Command::CreateSession { device: Some(device), .. }) if device == "laptop"
        )));
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_sign_in_is_answered_alike() {
    let node = node(true).await;
    let mut details = Vec::new();
    for (user, password) in [
        ("ann", "wrong"),
        ("eve", PASSWORD),
        ("nobody", PASSWORD),
        ("root", PASSWORD),
    ] {
        let reply = node.post(SESSIONS, json!({"user": user, "password": password})).await;
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        details.push(reply.problem(401, "unauthenticated")["detail"].clone());
    }
    assert!(details.iter().all(|detail| *detail == details[0]), "{details:?}");

    // What is wrong in itself goes first.
    for body in [
        json!({}),
        json!({"user": "ann"}),
        json!({"user": "ann", "password": null}),
        json!({"user": "ann", "password": ""}),
        json!({"user": "ann", "password": "x".repeat(1025)}),
        json!({"user": "a b", "password": "x"}),
        json!({"user": "ann", "password": "x", "device": ""}),
        json!({"user": "ann", "password": "x", "device": "x".repeat(129)}),
        json!({"user": "ann", "password": "x", "device": null}),
        json!({"user": "ann", "password": "x", "more": 1}),
    ] {
        node.post(SESSIONS, body).await.problem(400, "bad_request");
    }
    let good = json!({"user": "ann", "password": PASSWORD}).to_string();
    for header in [
        ("idempotency-key", "a b"),
        ("request-timeout-ms", "soon"),
        ("x-quorate-user", "%zz"),
    ] {
        node.send("POST", SESSIONS, &[header], good.clone())
            .await
            .problem(400, "bad_request");
    }
    node.send("POST", SESSIONS, &[("content-type", "text/plain")], good.clone())
        .await
        .problem(415, "unsupported_media_type");
    node.ask("GET", SESSIONS, &[]).await.problem(405, "method_not_allowed");
    // A token that comes along is a good one, as everywhere.
    for token in ["Bearer x".to_owned(), bearer(&format!("qst_{}", "0".repeat(64)))] {
        node.send("POST", SESSIONS, &[("authorization", &token)], good.clone())
            .await
            .problem(401, "unauthenticated");
    }
    let ann = bearer(&sign_in(&node, "ann", PASSWORD).await);
    node.send("POST", SESSIONS, &[("authorization", &ann)], good)
        .await
        .expect(201);
}

/// The same request twice makes two sessions, whatever key it has: the token of the first is told once.
#[tokio::test]
async fn a_sign_in_takes_no_key() {
    let node = node(true).await;
    let key = [("idempotency-key", "k")];
    let body = json!({"user": "ann", "password": PASSWORD}).to_string();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let reply = node.send("POST", SESSIONS, &key, body.clone()).await.expect(201);
        assert_eq!(reply.header("idempotency-replayed"), "");
        tokens.push(reply.json()["token"].as_str().unwrap().to_owned());
    }
    assert_ne!(tokens[0], tokens[1]);
    // Nor does a sign-out: the second one ends the second session.
    for token in &tokens {
        let headers = [("idempotency-key", "k"), ("authorization", &bearer(token))];
        node.ask("DELETE", CURRENT, &headers).await.expect(204);
        ask(&node, token, "/v1/rooms").await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_second_sign_in_at_the_same_time_is_asked_to_come_again() {
    let node = node(true).await;
    let body = || json!({"user": "ann", "password": PASSWORD});
    let replies = futures::future::join_all((0..4).map(|_| node.post(SESSIONS, body()))).await;
    let (done, refused): (Vec<_>, Vec<_>) = replies
        .into_iter()
        .partition(|reply| reply.status == StatusCode::CREATED);
    assert!(!done.is_empty() && !refused.is_empty());
    for reply in refused {
        assert_eq!(reply.header("retry-after"), "1");
        reply.problem(429, "overloaded");
    }
}

#[tokio::test]
async fn a_token_ends_with_its_session() {
    let node = node(false).await;
    // By signing out.
    let (one, other) = (
        sign_in(&node, "ann", PASSWORD).await,
        sign_in(&node, "ann", PASSWORD).await,
    );
    let out = with_token(&node, &one, "DELETE", CURRENT, Value::Null)
        .await
        .expect(204);
    assert!(out.body.is_empty());
    with_token(&node, &one, "DELETE", CURRENT, Value::Null)
        .await
        .problem(401, "unauthenticated");
    for path in [
        "/v1/rooms",
        "/v1/rooms/hall/stream",
        "/v1/cluster",
        "/v1/users/ann?level=local",
        "/v1/cluster/verify",
    ] {
        ask(&node, &one, path).await.problem(401, "unauthenticated");
    }
    // By a new password, which its own session survives.
    let third = sign_in(&node, "ann", PASSWORD).await;
    let patch = json!({"password": "another"});
    with_token(&node, &third, "PATCH", "/v1/users/ann", patch)
        .await
        .expect(200);
    ask(&node, &other, "/v1/rooms").await.problem(401, "unauthenticated");
    ask(&node, &third, "/v1/rooms").await.expect(200);
    node.post(SESSIONS, json!({"user": "ann", "password": PASSWORD}))
        .await
        .problem(401, "unauthenticated");
    // By its time.
    let fourth = sign_in(&node, "ann", "another").await;
    node.replica.advance(3_599_999);
    ask(&node, &fourth, "/v1/rooms").await.expect(200);
    node.replica.advance(1);
    ask(&node, &fourth, "/v1/rooms").await.problem(401, "unauthenticated");
    // With its user; who takes his name is somebody else.
    let fifth = sign_in(&node, "ann", "another").await;
    as_root(&node, "DELETE", "/v1/users/ann", Value::Null).await.expect(204);
    as_root(&node, "POST", "/v1/users", json!({"user": "ann"}))
        .await
        .expect(201);
    ask(&node, &fifth, "/v1/rooms").await.problem(401, "unauthenticated");
    // Who has no session has none to end.
    node.ask("DELETE", CURRENT, &[("x-quorate-user", "bob")])
        .await
        .problem(404, "not_found");
    as_root(&node, "DELETE", CURRENT, Value::Null)
        .await
        .problem(404, "not_found");
}

/// Routes that do not go through the log ask who the caller is themselves.
#[tokio::test]
async fn where_accounts_are_enforced_only_a_token_opens_a_route() {
    let node = node(true).await;
    let ann = sign_in(&node, "ann", PASSWORD).await;
    let body = |path: &str| match path {
        "/v1/users" => json!({"user": "new"}),
        "/v1/rooms" => json!({"room": "new", "kind": "public"}),
        "/v1/rooms/hall/messages" => json!({"text": "hi"}),
        "/v1/cluster/nodes" => json!({"id": 4, "client_url": "http://a:1", "peer_addr": "a:2"}),
        _ => Value::Null,
    };
    for (method, path) in [
        ("GET", "/v1/users"),
        ("POST", "/v1/users"),
        ("GET", "/api/users/ann"),
        ("DELETE", "/v1/users/bob"),
        ("GET", "/v1/rooms"),
        ("POST", "/v1/rooms"),
        ("POST", "/v1/rooms/hall/messages"),
        ("GET", "/v1/rooms/hall/messages"),
        ("GET", "/v1/rooms/hall/stream"),
        ("PUT", "/v1/rooms/hall/members/eve"),
        ("DELETE", CURRENT),
        ("GET", "/v1/cluster"),
        ("POST", "/v1/cluster/nodes"),
        ("POST", "/v1/cluster/transfer"),
        ("POST", "/v1/cluster/snapshot"),
        ("GET", "/v1/cluster/verify"),
    ] {
        let body = match body(path) {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let basic = ("authorization", "Basic cm9vdDp4");
        let unknown = bearer(&format!("qst_{}", "0".repeat(64)));
        for headers in [
            vec![],
            vec![("x-quorate-user", "ann")],
            vec![("authorization", "Bearer x")],
            vec![basic],
            vec![("authorization", unknown.as_str())],
        ] {
            let reply = node.send(method, path, &headers, body.clone()).await;
            assert_eq!(
                reply.header("www-authenticate"),
                "Bearer",
                "{method} {path} {headers:?}"
            );
            reply.problem(401, "unauthenticated");
        }
        let both = [("authorization", bearer(&ann)), ("x-quorate-user", "ann".to_owned())];
        let both = both.each_ref().map(|(name, value)| (*name, value.as_str()));
        node.send(method, path, &both, body).await.problem(400, "bad_request");
    }
    assert!(node.replica.admin.lock().unwrap().asked.is_empty());
    for path in ["/livez", "/readyz", "/leader", "/metrics"] {
        node.get(path).await.expect(200);
    }
    node.get("/v1/nowhere").await.problem(404, "not_found");

    // A user is no administrator; root's token is.
    with_token(&node, &ann, "POST", "/v1/cluster/transfer", Value::Null)
        .await
        .problem(403, "forbidden");
    as_root(&node, "POST", "/v1/cluster/transfer", Value::Null)
        .await
        .expect(200);
    with_token(&node, &ann, "POST", "/v1/users", json!({"user": "new"}))
        .await
        .problem(403, "forbidden");
    with_token(
        &node,
        "root-0123456789-0123456789-0123456788",
        "GET",
        "/v1/users",
        Value::Null,
    )
    .await
    .problem(401, "unauthenticated");
}

/// A hash is dear, so it is not made for somebody who is nobody: the one that may be made at a time is for users.
#[tokio::test]
async fn no_password_is_hashed_for_a_stranger() {
    let node = node(true).await;
    let stranger = format!("qst_{}", "0".repeat(64));
    let patches = (0..4).map(|_| with_token(&node, &stranger, "PATCH", "/v1/users/ann", json!({"password": "x"})));
    for reply in futures::future::join_all(patches).await {
        reply.problem(401, "unauthenticated");
    }
}

/// A session that began a moment ago at another node may be unknown here yet; the others are asked then.
#[tokio::test]
async fn a_session_is_asked_about_elsewhere_before_it_is_refused() {
    let node = node(true).await;
    let stranger = format!("qst_{}", "0".repeat(64));
    node.replica.reads.lock().unwrap().clear();
    ask(&node, &stranger, "/v1/cluster")
        .await
        .problem(401, "unauthenticated");
    let levels: Vec<_> = node
        .replica
        .reads
        .lock()
        .unwrap()
        .iter()
        .map(|read| read.level)
        .collect();
    use quorate_api::replica::Level::{Linearizable, Local};
    assert_eq!(levels, [Local, Linearizable]);
}

/// The bytes of a stream until it ends.
async fn rest_of(mut body: Body) -> String {
    let mut text = String::new();
    while let Some(frame) = in_time(body.frame()).await {
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn an_open_stream_ends_with_its_session_and_says_nothing() {
    let node = node(false).await;
    let mut streams = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let token = sign_in(&node, "ann", PASSWORD).await;
        let headers = [("authorization", bearer(&token))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let opened = request("GET", "/v1/rooms/hall/stream", &headers, Body::empty());
        let response = node.router.clone().oneshot(opened).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let bookmark = in_time(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert!(bookmark.starts_with(b"event: bookmark\n"), "{bookmark:?}");
        streams.push(body);
        tokens.push(token);
    }
    // Signed out, then another password: nothing but the end. What was sent before is delivered by the others.
    with_token(&node, &tokens[0], "DELETE", CURRENT, Value::Null)
        .await
        .expect(204);
    assert_eq!(rest_of(streams.remove(0)).await, "");
    let patch = Command::UpdateUser {
        user: "ann".to_owned(),
        display_name: Patch::Set("Ann".to_owned()),
        email: Patch::Keep,
        password_hash: Patch::Keep,
        attributes: Patch::Keep,
    };
    node.replica.apply_at_once([patch]);
    as_root(
        &node,
        "POST",
        "/v1/rooms/hall/messages",
        json!({"text": "for those who are left"}),
    )
    .await
    .expect(201);
    for stream in &mut streams {
        let message = in_time(stream.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert!(message.starts_with(b"event: message\n"), "{message:?}");
    }
    node.replica.advance(3_600_000);
    for stream in streams {
        assert_eq!(rest_of(stream).await, "");
    }
}

/// Also when the reader is slow, and the feed is waiting for him.
#[tokio::test]
async fn a_stream_whose_reader_reads_nothing_ends_too() {
    let node = node(false).await;
    let token = sign_in(&node, "ann", PASSWORD).await;
    let text = "x".repeat(60_000);
    for _ in 0..20 {
        as_root(&node, "POST", "/v1/rooms/hall/messages", json!({ "text": text }))
            .await
            .expect(201);
    }
    let authorization = bearer(&token);
    let opened = request(
        "GET",
        "/v1/rooms/hall/stream?after=0",
        &[("authorization", &authorization)],
        Body::empty(),
    );
    let response = node.router.clone().oneshot(opened).await.unwrap();
    with_token(&node, &token, "DELETE", CURRENT, Value::Null)
        .await
        .expect(204);
    let received = rest_of(response.into_body()).await;
    assert!(!received.contains("slow_consumer"));
    assert!(received.matches("event: message\n").count() < 20);
}
