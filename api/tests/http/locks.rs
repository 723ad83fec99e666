//! Locks: who has them, who waits, and what becomes of those who go away. The replicated clock moves only
//! when a test moves it.

use std::time::Duration;

use quorate_api::replica::ReplicaError;
use quorate_api::{ApiConfig, Limits};
use quorate_state_machine::{Command, Envelope};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::caller::{Node, Reply, in_time};
use crate::memory::MemoryReplica;
use crate::sockets::{Served, read_to_end};

const DEPLOY: &str = "/v1/locks/deploy";

async fn acquire(node: &Node, owner: &str, wait_ms: u64, key: Option<&str>) -> Reply {
    let body = json!({"owner": owner, "ttl_ms": 5000, "wait_ms": wait_ms});
    let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    node.send("PUT", DEPLOY, &headers, body.to_string()).await
}

async fn token(node: &Node, owner: &str) -> u64 {
    acquire(node, owner, 0, None).await.expect(200).json()["token"]
        .as_u64()
        .unwrap()
}

async fn release(node: &Node, token: u64) -> Reply {
    node.ask("DELETE", &format!("{DEPLOY}?token={token}"), &[]).await
}

async fn shown(node: &Node) -> Value {
    node.get(DEPLOY).await.expect(200).json()
}

fn owners(list: &Value) -> Vec<&str> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item["owner"].as_str().unwrap()).collect()
}

/// Until so many wait for the lock.
async fn until_waiting(replica: &MemoryReplica, waiters: u32) {
    in_time(async {
        while replica.waiters("deploy") != waiters {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lock_from_its_grant_to_its_release() {
    let node = Node::new();
    node.get(DEPLOY).await.problem(404, "not_found");
    let body = json!({"owner": "ann", "ttl_ms": 5000, "mode": "exclusive", "data": {"b": 1, "a": [null]}});
    let granted = node.send("PUT", DEPLOY, &[], body.to_string()).await.expect(200);
    let held = granted.json();
    let token = held["token"].as_u64().unwrap();
    assert!(token < 1 << 53);
    assert_eq!(
        held,
        json!({"lock": "deploy", "owner": "ann", "token": token, "mode": "exclusive", "expires_in_ms": 5000})
    );

    node.replica.advance(1200);
    let read = node.get(DEPLOY).await.expect(200);
    let lock = read.json();
    assert_eq!(read.header("etag"), format!("\"{}\"", lock["rev"]));
    assert_eq!(read.header("x-quorate-position"), granted.header("x-quorate-position"));
    assert_eq!(
        lock,
        json!({"lock": "deploy", "mode": "exclusive", "queue": [], "waiters": 0, "last_token": token,
               "rev": lock["rev"],
               "holders": [{"owner": "ann", "token": token, "expires_in_ms": 3800,
                            "data": {"a": [null], "b": 1}}]})
    );
    // The body changes with time, so there is no 304.
    node.ask("GET", DEPLOY, &[("if-none-match", read.header("etag"))])
        .await
        .expect(200);

    release(&node, token + 1).await.problem(412, "lock_lost");
    release(&node, token).await.expect(204);
    release(&node, token).await.problem(412, "lock_lost");
    let free = shown(&node).await;
    assert_eq!((&free["holders"], &free["last_token"]), (&json!([]), &json!(token)));
    let next = self::token(&node, "bob").await;
    assert!(next > token);
}

#[tokio::test]
async fn who_is_refused_hears_who_holds_the_lock_and_who_waits() {
    let node = Node::new();
    let token = token(&node, "ann").await;
    node.replica.advance(1000);
    let wait = acquire(&node, "bob", 60_000, None);
    let look = async {
        until_waiting(&node.replica, 1).await;
        node.replica.advance(500);
        let refused = acquire(&node, "carol", 0, None).await;
        assert_eq!(
            refused.header("x-quorate-position"),
            node.get(DEPLOY).await.header("x-quorate-position")
        );
        let problem = refused.problem(409, "lock_held");
        assert_eq!(
            problem["holders"],
            json!([{"owner": "ann", "token": token, "expires_in_ms": 3500}])
        );
        assert_eq!(problem["queue"], json!([{"owner": "bob", "waiting_ms": 500}]));
        assert_eq!(
            (&problem["retryable"], &problem["outcome"]),
            (&json!(true), &json!("not_applied"))
        );
        // Other refusals do not have it.
        let problem = release(&node, 1).await.problem(412, "lock_lost");
        assert!(problem.get("holders").is_none());
        release(&node, token).await.expect(204);
    };
    tokio::join!(wait, look).0.expect(200);
}

#[tokio::test]
async fn three_who_wait_are_served_in_their_order() {
    let node = Node::new();
    let served = std::sync::Mutex::new(vec![("ann", token(&node, "ann").await)]);
    let begin = async {
        until_waiting(&node.replica, 3).await;
        let queue = shown(&node).await["queue"].clone();
        assert_eq!(owners(&queue), ["bob", "carol", "dave"]);
        let ann = served.lock().unwrap()[0].1;
        release(&node, ann).await.expect(204);
    };
    let wait = |owner: &'static str, before: u32| {
        let (node, served) = (&node, &served);
        async move {
            until_waiting(&node.replica, before).await;
            let granted = acquire(node, owner, 60_000, None).await.expect(200).json();
            let token = granted["token"].as_u64().unwrap();
            assert_eq!(owners(&shown(node).await["holders"]), [owner]);
            served.lock().unwrap().push((owner, token));
            release(node, token).await.expect(204);
        }
    };
    tokio::join!(wait("bob", 0), wait("carol", 1), wait("dave", 2), begin);
    let served = served.into_inner().unwrap();
    assert_eq!(
        served.iter().map(|(owner, _)| *owner).collect::<Vec<_>>(),
        ["ann", "bob", "carol", "dave"]
    );
    assert!(served.is_sorted_by(|(_, one), (_, next)| one < next), "{served:?}");
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline_and_a_grant_has_what_is_left() {
    let node = Node::new();
    token(&node, "ann").await;
    let (told, tells) = tokio::sync::oneshot::channel();
    let early = async {
        let answer = acquire(&node, "bob", 1000, None).await;
        told.send(()).unwrap();
        answer
    };
    let late = async {
        until_waiting(&node.replica, 1).await;
        acquire(&node, "carol", 60_000, None).await
    };
    let clock = async {
        until_waiting(&node.replica, 2).await;
        node.replica.advance(999);
        assert_eq!(node.replica.waiters("deploy"), 2);
        node.replica.advance(1);
        assert_eq!(node.replica.waiters("deploy"), 1);
        tells.await.unwrap();
        // Ann's time is over: it is Carol's turn. Her answer is held up on its way.
        node.replica.hold(true);
        node.replica.advance(4000);
        node.replica.set_clock_ahead(300);
        node.replica.hold(false);
    };
    let (early, late, ()) = tokio::join!(early, late, clock);
    let over = early.problem(409, "lock_held");
    assert_eq!(owners(&over["holders"]), ["ann"]);
    assert_eq!(over["outcome"], "not_applied");
    assert_eq!(late.expect(200).json()["expires_in_ms"], 4700);
}

#[tokio::test]
async fn renewals_begin_the_ttl_anew() {
    let node = Node::new();
    let token = token(&node, "ann").await;
    let path = format!("{DEPLOY}/renew");
    node.replica.advance(4000);
    let renewed = node.post(&path, json!({ "token": token })).await.expect(200).json();
    assert_eq!(
        renewed,
        json!({"lock": "deploy", "owner": "ann", "token": token, "mode": "exclusive", "expires_in_ms": 5000})
    );
    let longer = node
        .post(&path, json!({"token": token, "ttl_ms": 8000}))
        .await
        .expect(200);
    assert_eq!(longer.json()["expires_in_ms"], 8000);
    node.post(&path, json!({"token": token + 1}))
        .await
        .problem(412, "lock_lost");
    node.post("/v1/locks/never/renew", json!({ "token": token }))
        .await
        .problem(404, "not_found");
    node.replica.advance(7999);
    assert_eq!(shown(&node).await["holders"][0]["expires_in_ms"], 1);
    node.replica.advance(1);
    assert_eq!(shown(&node).await["holders"], json!([]));
    node.post(&path, json!({ "token": token }))
        .await
        .problem(412, "lock_lost");
}

#[tokio::test]
async fn a_write_under_a_lock_goes_through_with_the_live_token_only() {
    let node = Node::furnished().await;
    let stale = token(&node, "ann").await;
    node.replica.advance(5000);
    let live = token(&node, "bob").await;
    let send = |token: u64| {
        let guard = format!("deploy;token={token}");
        let node = &node;
        async move {
            let body = json!({"text": "deployed"}).to_string();
            node.send("POST", "/v1/rooms/hall/messages", &[("if-lock", &guard)], body)
                .await
        }
    };
    send(stale).await.problem(412, "lock_lost");
    assert_eq!(send(live).await.expect(201).json()["seq"], 1);
    release(&node, live).await.expect(204);
    send(live).await.problem(412, "lock_lost");
    // Locks themselves may be guarded by one.
    let guard = [("if-lock", "deploy;token=1")];
    let other = json!({"owner": "x", "ttl_ms": 1000}).to_string();
    node.send("PUT", "/v1/locks/other", &guard, other)
        .await
        .problem(412, "lock_lost");
}

#[tokio::test]
async fn conditions_hold_as_for_any_entity() {
    let node = Node::new();
    let body = || json!({"owner": "ann", "ttl_ms": 1000}).to_string();
    node.send("PUT", DEPLOY, &[("if-match", "\"1\"")], body())
        .await
        .problem(412, "precondition_failed");
    node.send("PUT", DEPLOY, &[("if-none-match", "*")], body())
        .await
        .expect(200);
    let problem = node
        .send("PUT", DEPLOY, &[("if-none-match", "*")], body())
        .await
        .problem(412, "precondition_failed");
    assert!(problem.get("holders").is_none());
}

#[tokio::test]
async fn a_wait_that_is_asked_for_again_is_the_same_wait() {
    let node = Node::new();
    let held = token(&node, "ann").await;
    let first = acquire(&node, "bob", 60_000, Some("k1"));
    let second = async {
        until_waiting(&node.replica, 1).await;
        acquire(&node, "bob", 60_000, Some("k1")).await
    };
    let serve = async {
        let is_there = |(envelope, _): &&(Envelope, _)| envelope.idempotency.is_some();
        in_time(async {
            while node.replica.writes.lock().unwrap().iter().filter(is_there).count() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(node.replica.waiters("deploy"), 1);
        release(&node, held).await.expect(204);
    };
    let (first, second, ()) = tokio::join!(first, second, serve);
    assert_eq!(first.header("idempotency-replayed"), "");
    assert_eq!(second.header("idempotency-replayed"), "true");
    let granted = first.expect(200).json();
    assert_eq!(granted, second.expect(200).json());

    // And once more, when it is decided.
    let third = acquire(&node, "bob", 60_000, Some("k1")).await;
    assert_eq!(third.header("idempotency-replayed"), "true");
    assert_eq!(third.expect(200).json(), granted);
    acquire(&node, "eve", 60_000, Some("k1"))
        .await
        .problem(422, "idempotency_mismatch");
    let refused = acquire(&node, "carol", 0, Some("k2")).await;
    assert_eq!(refused.header("idempotency-replayed"), "");
    let again = acquire(&node, "carol", 0, Some("k2")).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(owners(&again.problem(409, "lock_held")["holders"]), ["bob"]);
}

/// A waiting request on a connection of its own, which the test may close.
async fn ask_and_wait(node: &Served, owner: &str, key: Option<&str>) -> tokio::net::TcpStream {
    let mut socket = node.connect().await;
    let body = json!({"owner": owner, "ttl_ms": 5000, "wait_ms": 60_000}).to_string();
    let key = key.map_or(String::new(), |key| format!("idempotency-key: {key}\r\n"));
    let head =
        format!("PUT {DEPLOY} HTTP/1.1\r\nhost: q\r\ncontent-type: application/json\r\nconnection: close\r\n{key}");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn hold(node: &Served) {
    let held = node.request("PUT", DEPLOY, r#"{"owner":"ann","ttl_ms":5000}"#).await;
    assert!(held.starts_with("HTTP/1.1 200 "), "{held}");
}

#[tokio::test]
async fn who_closes_his_connection_waits_no_more() {
    let node = Served::start(|_| ()).await;
    hold(&node).await;
    let bob = ask_and_wait(&node, "bob", None).await;
    until_waiting(&node.replica, 1).await;
    let mut carol = ask_and_wait(&node, "carol", None).await;
    until_waiting(&node.replica, 2).await;
    drop(bob);
    until_waiting(&node.replica, 1).await;
    node.replica.advance(5000);
    let granted = read_to_end(&mut carol).await;
    assert!(
        granted.starts_with("HTTP/1.1 200 ") && granted.contains("carol"),
        "{granted}"
    );
}

#[tokio::test]
async fn what_is_granted_to_nobody_is_given_back() {
    let node = Served::start(|_| ()).await;
    // The lock is granted at once, and the answer held up until the client is gone.
    node.replica.hold_outcomes(true);
    let bob = ask_and_wait(&node, "bob", None).await;
    in_time(async {
        while node.replica.holder("deploy").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(bob);
    in_time(async {
        while node.replica.holder("deploy").is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.replica.hold_outcomes(false);
}

#[tokio::test]
async fn a_waiter_is_given_up_when_there_is_a_leader_again() {
    let node = Served::start(|_| ()).await;
    hold(&node).await;
    let bob = ask_and_wait(&node, "bob", None).await;
    until_waiting(&node.replica, 1).await;
    for error in [
        ReplicaError::NoLeader,
        ReplicaError::CommitUnknown("the leader is gone".to_owned()),
    ] {
        node.replica.fail_next_write(error);
    }
    drop(bob);
    until_waiting(&node.replica, 0).await;
}

#[tokio::test]
async fn whoever_asked_last_under_a_key_owns_the_wait() {
    let node = Served::start(|_| ()).await;
    hold(&node).await;
    let first = ask_and_wait(&node, "bob", Some("k1")).await;
    until_waiting(&node.replica, 1).await;
    let before = node.replica.writes.lock().unwrap().len();
    let mut second = ask_and_wait(&node, "bob", Some("k1")).await;
    let writes = async |count| {
        in_time(async {
            while node.replica.writes.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    writes(before + 1).await;
    drop(first);
    // The first is given up, and that changes nothing.
    writes(before + 2).await;
    {
        let writes = node.replica.writes.lock().unwrap();
        assert!(matches!(writes.last().unwrap().0.command, Command::AbandonLock { .. }));
    }
    assert_eq!(node.replica.waiters("deploy"), 1);
    node.replica.advance(5000);
    let granted = read_to_end(&mut second).await;
    assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
    assert!(granted.contains("idempotency-replayed: true"), "{granted}");
}

#[tokio::test]
async fn a_node_that_goes_down_sends_those_who_wait_elsewhere() {
    let node = Served::start(|_| ()).await;
    hold(&node).await;
    let mut unkeyed = ask_and_wait(&node, "bob", None).await;
    until_waiting(&node.replica, 1).await;
    let mut keyed = ask_and_wait(&node, "carol", Some("k1")).await;
    until_waiting(&node.replica, 2).await;
    node.stop.cancel();
    for socket in [&mut unkeyed, &mut keyed] {
        let answer = read_to_end(socket).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains(r#""code":"shutting_down""#), "{answer}");
        assert!(answer.contains(r#""outcome":"unknown""#), "{answer}");
    }
    // Who can come back under his key keeps his place until the leader knows that the node is gone.
    until_waiting(&node.replica, 1).await;
    assert_eq!(node.replica.first_waiter("deploy").as_deref(), Some("carol"));
}

#[tokio::test]
async fn an_unknown_outcome_is_given_up_and_a_key_gets_time_to_come_back() {
    let node = Node::new();
    let abandoned = || {
        let writes = node.replica.writes.lock().unwrap();
        let is_abandon = |command: &Command| matches!(command, Command::AbandonLock { .. });
        writes
            .iter()
            .filter(|(envelope, _)| is_abandon(&envelope.command))
            .count()
    };
    let until_abandoned = async |count| {
        in_time(async {
            while abandoned() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    let unknown = || ReplicaError::CommitUnknown("the leader is gone".to_owned());
    // What was certainly never proposed needs no giving up.
    node.replica.fail_next_write(ReplicaError::NoLeader);
    acquire(&node, "bob", 0, None).await.problem(503, "no_leader");
    node.replica.fail_next_write(unknown());
    acquire(&node, "ann", 0, None).await.problem(504, "commit_unknown");
    until_abandoned(1).await;

    node.replica.fail_next_write(unknown());
    acquire(&node, "ann", 0, Some("k1"))
        .await
        .problem(504, "commit_unknown");
    // Whatever could be done at once would be done now.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(abandoned(), 1);
    let again = acquire(&node, "ann", 0, Some("k1")).await.expect(200).json();
    // Whatever the first attempt does now, the lock is the second one's.
    until_abandoned(2).await;
    assert_eq!(shown(&node).await["holders"][0]["token"], again["token"]);
    assert_eq!(abandoned(), 2);
}

#[tokio::test]
async fn a_wait_of_which_nobody_says_anything_ends_all_the_same() {
    let node = Node::new();
    token(&node, "ann").await;
    // No tick comes. The request has its own time and that of the wait.
    let begun = std::time::Instant::now();
    let body = json!({"owner": "bob", "ttl_ms": 5000, "wait_ms": 300}).to_string();
    let answer = node.send("PUT", DEPLOY, &[("request-timeout-ms", "200")], body).await;
    answer.problem(504, "commit_unknown");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300 + 180), "{took:?}");
    until_waiting(&node.replica, 0).await;
}

#[tokio::test]
async fn those_who_wait_leave_the_places_of_requests_at_work() {
    let limits = Limits {
        writes_max: 1,
        ..Limits::default()
    };
    let node = Node::with(ApiConfig {
        limits,
        ..ApiConfig::default()
    });
    let held = token(&node, "ann").await;
    let wait = acquire(&node, "bob", 60_000, None);
    let others = async {
        until_waiting(&node.replica, 1).await;
        release(&node, held).await.expect(204);
    };
    tokio::join!(wait, others).0.expect(200);
}

#[tokio::test]
async fn bad_input_changes_nothing() {
    let node = Node::new();
    let writes = node.replica.writes.lock().unwrap().len();
    let long = "x".repeat(129);
    let deep = format!(
        r#"{{"owner":"a","ttl_ms":100,"data":{}1{}}}"#,
        "[".repeat(65),
        "]".repeat(65)
    );
    for body in [
        "{}",
        "[]",
        r#"{"owner":"a"}"#,
        r#"{"ttl_ms":1000}"#,
        r#"{"owner":"","ttl_ms":1000}"#,
        r#"{"owner":"a\nb","ttl_ms":1000}"#,
        &json!({"owner": long, "ttl_ms": 1000}).to_string(),
        r#"{"owner":"a","ttl_ms":99}"#,
        r#"{"owner":"a","ttl_ms":3600001}"#,
        r#"{"owner":"a","ttl_ms":-1}"#,
        r#"{"owner":"a","ttl_ms":1000.5}"#,
        r#"{"owner":"a","ttl_ms":"1000"}"#,
        r#"{"owner":"a","ttl_ms":1000,"wait_ms":3600001}"#,
        r#"{"owner":"a","ttl_ms":1000,"wait_ms":null}"#,
        r#"{"owner":"a","ttl_ms":1000,"mode":"shared"}"#,
        r#"{"owner":"a","ttl_ms":1000,"mode":"Exclusive"}"#,
        r#"{"owner":"a","ttl_ms":1000,"mode":null}"#,
        r#"{"owner":"a","ttl_ms":1000,"data":null}"#,
        r#"{"owner":"a","ttl_ms":1000,"colour":1}"#,
        &deep,
    ] {
        let reply = node.send("PUT", DEPLOY, &[], body.to_owned()).await;
        let problem = reply.problem(400, "bad_request");
        assert_eq!(problem["outcome"], "not_applied", "{body}");
    }
    let large = json!({"owner": "a", "ttl_ms": 1000, "data": "x".repeat(4096)}).to_string();
    node.send("PUT", DEPLOY, &[], large).await.problem(413, "too_large");
    let good = || json!({"owner": "a", "ttl_ms": 1000}).to_string();
    for name in ["a%20b", &long, "e%CC%81", "%ff"] {
        let path = format!("/v1/locks/{name}");
        node.send("PUT", &path, &[], good()).await.problem(400, "bad_request");
        node.get(&path).await.problem(400, "bad_request");
    }
    let path = format!("{DEPLOY}/renew");
    for body in [
        "{}",
        r#"{"token":"1"}"#,
        r#"{"token":-1}"#,
        r#"{"token":1,"ttl_ms":99}"#,
        r#"{"token":1,"ttl_ms":null}"#,
    ] {
        node.send("POST", &path, &[], body).await.problem(400, "bad_request");
    }
    for query in [
        "",
        "?token=",
        "?token=x",
        "?token=-1",
        "?token=1&token=2",
        "?token=1&x=2",
    ] {
        node.ask("DELETE", &format!("{DEPLOY}{query}"), &[])
            .await
            .problem(400, "bad_request");
    }
    assert_eq!(node.replica.writes.lock().unwrap().len(), writes);
    node.send("PUT", DEPLOY, &[("x-quorate-user", "nobody")], good())
        .await
        .problem(401, "unauthenticated");
    node.ask("DELETE", &format!("{DEPLOY}?token=1"), &[])
        .await
        .problem(404, "not_found");
    node.ask("PATCH", DEPLOY, &[]).await.problem(405, "method_not_allowed");
    // The bounds themselves are fine.
    let largest = json!({"owner": "x".repeat(128), "ttl_ms": 3_600_000, "wait_ms": 3_600_000,
                         "data": "x".repeat(4094)});
    let path = format!("/v1/locks/{}", "x".repeat(128));
    node.send("PUT", &path, &[], largest.to_string()).await.expect(200);
    node.send(
        "PUT",
        "/v1/locks/%5Ba%5D%7Cb",
        &[],
        json!({"owner": "a", "ttl_ms": 100, "data": false}).to_string(),
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn a_user_cannot_give_back_what_another_holds() {
    let node = Node::furnished().await;
    let body = json!({"owner": "ann's laptop", "ttl_ms": 5000}).to_string();
    let granted = node
        .send("PUT", DEPLOY, &[("x-quorate-user", "ann")], body)
        .await
        .expect(200);
    let path = format!("{DEPLOY}?token={}", granted.json()["token"]);
    node.ask("DELETE", &path, &[("x-quorate-user", "bob")])
        .await
        .problem(403, "forbidden");
    node.ask("DELETE", &path, &[("x-quorate-user", "ann")])
        .await
        .expect(204);
}

#[tokio::test]
async fn locks_come_in_pages() {
    let node = Node::new();
    for name in ["b", "a", "c"] {
        let body = json!({"owner": name, "ttl_ms": 1000}).to_string();
        node.send("PUT", &format!("/v1/locks/{name}"), &[], body)
            .await
            .expect(200);
    }
    let first = node.get("/v1/locks?limit=2").await.expect(200);
    let names = |page: &Value| -> Vec<String> {
        let locks = page["locks"].as_array().unwrap().iter();
        locks.map(|lock| lock["lock"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first.json()), ["a", "b"]);
    assert_eq!(first.json()["locks"][0]["holders"][0]["expires_in_ms"], 1000);
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(
        first.header("link"),
        format!("</v1/locks?limit=2&cursor={cursor}>; rel=\"next\"")
    );
    let last = node
        .get(&format!("/v1/locks?limit=2&cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(names(&last.json()), ["c"]);
    assert_eq!((last.json().get("next_cursor"), last.header("link")), (None, ""));
    node.get(&format!("/v1/users?cursor={cursor}"))
        .await
        .problem(400, "bad_request");
}
