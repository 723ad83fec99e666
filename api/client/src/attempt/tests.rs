//! Retries and failover against nodes whose answers are written by hand.

use std::time::{Duration, Instant};

use serde_json::json as value;

use crate::testing::{FakeNode, Received, Reply, dead_url, json, problem};
use crate::wire::{BatchMessage, ChangeKind, ChangeStep, NewMessage, NewNode, NewSession, NewUser};
use crate::{Client, Error, Level, Options, PageFrom};

fn client(urls: &[&str]) -> Client {
    Client::new(urls, quick()).unwrap()
}

fn quick() -> Options {
    Options {
        deadline: Duration::from_secs(5),
        attempt: Duration::from_secs(1),
        ..Options::default()
    }
}

fn hello() -> NewMessage {
    NewMessage {
        text: "hello".into(),
        ..NewMessage::default()
    }
}

fn sent() -> Reply {
    let body = value!({"room": "r", "seq": 1, "rev": 9, "sent_at": "2026-01-01T00:00:00.000Z",
                       "sender": "root", "status": "committed"});
    json(201, body)
}

/// With `X-Quorate-Node` and `X-Quorate-Leader`.
fn from_node(reply: Reply, node: u64, leader: &str) -> Reply {
    match reply {
        Reply::Whole(status, mut headers, body) => {
            headers.push(("X-Quorate-Node", node.to_string()));
            headers.push(("X-Quorate-Leader", leader.to_owned()));
            Reply::Whole(status, headers, body)
        }
        other => other,
    }
}

fn refused(status: u16, code: &str, outcome: &str) -> Reply {
    json(status, problem(status, code, outcome))
}

fn key(request: &Received) -> String {
    request.headers["idempotency-key"].clone()
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let live = FakeNode::start(|_, _| sent()).await;
    let client = client(&[&dead_url().await, &live.url]);
    assert_eq!(client.send("r", &hello()).await.unwrap().seq, 1);
    client.send("r", &hello()).await.unwrap();
    let received = live.received();
    assert_eq!(received.len(), 2);
    assert_ne!(
        key(&received[0]),
        key(&received[1]),
        "each logical write has its own key"
    );
}

#[tokio::test]
async fn a_write_whose_connection_broke_is_repeated_with_the_same_key_and_body() {
    let broken = FakeNode::start(|_, _| Reply::Close).await;
    let live = FakeNode::start(|_, _| sent()).await;
    client(&[&broken.url, &live.url]).send("r", &hello()).await.unwrap();
    let (first, second) = (broken.received(), live.received());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(key(&first[0]), key(&second[0]));
    assert_eq!(first[0].body, second[0].body);
    assert_eq!(first[0].path, "/v1/rooms/r/messages");
    let asked: u64 = first[0].headers["request-timeout-ms"].parse().unwrap();
    assert!((900..=1000).contains(&asked), "{asked} ms");
}

#[tokio::test]
async fn a_504_is_repeated_with_the_same_key_and_settled_by_the_next_answer() {
    let node = FakeNode::start(|_, n| {
        if n == 0 {
            refused(504, "commit_unknown", "unknown")
        } else {
            sent()
        }
    })
    .await;
    client(&[&node.url]).send("r", &hello()).await.unwrap();
    let received = node.received();
    assert_eq!(received.len(), 2);
    assert_eq!(key(&received[0]), key(&received[1]));
}

#[tokio::test]
async fn a_503_is_retried_until_it_succeeds() {
    let node = FakeNode::start(|_, n| {
        if n < 3 {
            refused(503, "no_leader", "not_applied")
        } else {
            json(200, user())
        }
    })
    .await;
    assert_eq!(client(&[&node.url]).user("alice").await.unwrap().id, 7);
    assert_eq!(node.received().len(), 4);
}

#[tokio::test]
async fn a_refusal_is_final() {
    for (status, code) in [
        (400, "bad_request"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "already_exists"),
        (422, "invalid"),
    ] {
        let node = FakeNode::start(move |_, _| refused(status, code, "not_applied")).await;
        let error = client(&[&node.url, &node.url]).send("r", &hello()).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(!error.outcome_unknown());
        assert_eq!(node.received().len(), 1, "{code} must not be retried");
    }
}

#[tokio::test]
async fn a_refusal_without_problem_json_is_a_refusal_too() {
    let node = FakeNode::start(|_, _| Reply::Whole(431, Vec::new(), "too many headers".into())).await;
    let error = client(&[&node.url]).user("alice").await.unwrap_err();
    assert_eq!(error.code(), Some("http_431"));
    assert!(error.to_string().contains("too many headers"), "{error}");
}

#[tokio::test]
async fn a_429_waits_as_long_as_it_was_told() {
    let node = FakeNode::start(|_, n| match n {
        0 => match refused(429, "overloaded", "not_applied") {
            Reply::Whole(status, mut headers, body) => {
                headers.push(("Retry-After", "1".into()));
                Reply::Whole(status, headers, body)
            }
            other => other,
        },
        _ => sent(),
    })
    .await;
    let other = FakeNode::start(|_, _| sent()).await;
    let began = Instant::now();
    client(&[&node.url, &other.url]).send("r", &hello()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(other.received().len(), 0, "another node is no way round the bound");
}

#[tokio::test]
async fn a_node_without_a_leader_is_asked_again_long_before_its_second_is_over() {
    let node = FakeNode::start(|_, n| match n {
        0 => match refused(503, "no_leader", "not_applied") {
            Reply::Whole(status, mut headers, body) => {
                headers.push(("Retry-After", "1".into()));
                Reply::Whole(status, headers, body)
            }
            other => other,
        },
        _ => sent(),
    })
    .await;
    let began = Instant::now();
    client(&[&node.url]).send("r", &hello()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_that_stands_still_is_left_for_another_with_the_same_key() {
    let paused = FakeNode::start(|_, _| Reply::Silence).await;
    let live = FakeNode::start(|_, _| sent()).await;
    let options = Options {
        attempt: Duration::from_secs(60),
        deadline: Duration::from_secs(60),
        ..Options::default()
    };
    let client = Client::new(&[&paused.url, &live.url], options).unwrap();
    let began = Instant::now();
    client.send("r", &hello()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(key(&paused.received()[0]), key(&live.received()[0]));
}

#[tokio::test]
async fn a_busy_node_that_says_that_it_lives_keeps_its_time() {
    let busy = FakeNode::start(|request, _| match request.path.as_str() {
        "/livez" => refused(404, "not_found", "not_applied"),
        _ => Reply::Silence,
    })
    .await;
    let live = FakeNode::start(|_, _| sent()).await;
    let began = Instant::now();
    client(&[&busy.url, &live.url]).send("r", &hello()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let probes = busy.received().iter().filter(|asked| asked.path == "/livez").count();
    assert!(probes >= 2, "{probes}");
}

#[tokio::test]
async fn the_deadline_holds_and_says_that_nothing_was_applied() {
    let node = FakeNode::start(|_, _| refused(503, "no_leader", "not_applied")).await;
    let options = Options {
        deadline: Duration::from_micros(399_999),
        ..quick()
    };
    let client = Client::new(&[&node.url, &dead_url().await], options).unwrap();
    let began = Instant::now();
    let error = client.send("r", &hello()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    assert!(
        matches!(&error, Error::Unavailable { detail, .. } if detail.starts_with("not within 0.4 s: ")),
        "{error:?}"
    );
    let received = node.received();
    assert!(received.len() > 2, "several attempts, not one");
    assert!(received.len() < 40, "no tight loop: {}", received.len());
    assert!(received.iter().all(|request| key(request) == key(&received[0])));
}

#[tokio::test]
async fn the_deadline_cuts_off_a_silent_node_and_the_outcome_is_unknown() {
    let node = FakeNode::start(|_, _| Reply::Silence).await;
    let options = Options {
        deadline: Duration::from_millis(300),
        ..quick()
    };
    let client = Client::new(&[&node.url], options).unwrap();
    let began = Instant::now();
    let error = client
        .with_key("chosen")
        .unwrap()
        .send("r", &hello())
        .await
        .unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(
        matches!(&error, Error::OutcomeUnknown { key: Some(key), .. } if key == "chosen"),
        "{error:?}"
    );
    assert!(
        matches!(client.user("alice").await.unwrap_err(), Error::Unavailable { .. }),
        "a read has no outcome"
    );
}

/// What was asked and lost has changed nothing, so the next answer is the answer.
#[tokio::test]
async fn a_read_that_is_refused_after_a_broken_connection_is_refused() {
    let node = FakeNode::start(|_, n| match n {
        0 => Reply::Close,
        _ => refused(404, "not_found", "not_applied"),
    })
    .await;
    let error = client(&[&node.url]).user("nobody").await.unwrap_err();
    assert_eq!(error.code(), Some("not_found"), "{error:?}");
}

#[tokio::test]
async fn a_repetition_that_fails_before_its_key_is_looked_up_settles_nothing() {
    for (status, code, settled) in [(401, "unauthenticated", false), (409, "conflict", true)] {
        let node = FakeNode::start(move |_, n| {
            if n == 0 {
                Reply::Close
            } else {
                refused(status, code, "not_applied")
            }
        })
        .await;
        let error = client(&[&node.url]).send("r", &hello()).await.unwrap_err();
        assert_eq!(error.outcome_unknown(), !settled, "{error:?}");
    }
}

#[tokio::test]
async fn writes_go_straight_to_a_leader_whose_url_was_learnt_from_the_cluster() {
    let leader = FakeNode::start(|_, _| from_node(sent(), 3, "3")).await;
    let leader_url = leader.url.clone();
    let follower = FakeNode::start(move |request, _| {
        if request.path != "/v1/cluster" {
            return from_node(sent(), 1, "3");
        }
        let node = |id: u64, url: &str| {
            value!({"id": id, "client_url": url, "peer_addr": "p", "role": "voter", "state": "follower",
                    "last_log": 1, "applied": 1, "lag": 0})
        };
        let nodes = [node(1, "http://127.0.0.1:1"), node(3, &leader_url)];
        json(
            200,
            value!({"cluster_id": "c", "version": 1, "nodes": nodes, "leader": 3, "term": 1,
                          "failures_tolerated": 1, "changes": []}),
        )
    })
    .await;
    let client = client(&[&follower.url]);
    client.send("r", &hello()).await.unwrap();
    // The URLs are learnt beside the calls: until then writes go through the follower.
    let learnt = async {
        while client.endpoints().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), learnt).await.unwrap();
    client.send("r", &hello()).await.unwrap();
    assert_eq!(leader.received().len(), 1, "the second write went to the leader");
    client.user("alice").await.unwrap_err();
    assert_eq!(follower.received().last().unwrap().method, "GET", "reads stay");

    drop(leader);
    client.send("r", &hello()).await.unwrap();
    let last = follower.received().pop().unwrap();
    assert_eq!(last.method, "POST", "a dead leader is left");
}

#[tokio::test]
async fn requests_are_as_the_contract_has_them() {
    let node = FakeNode::start(|request, _| match (request.method.as_str(), request.path.as_str()) {
        ("DELETE", _) => Reply::Whole(204, Vec::new(), String::new()),
        ("GET", path) if path.contains("/messages?") => json(
            200,
            value!({"messages": [], "first_seq": 0, "last_seq": 0, "more_before": false, "more_after": false}),
        ),
        ("GET", _) => json(200, value!({"users": []})),
        (_, path) if path.ends_with("batch") => json(
            201,
            value!({"room": "r", "first_seq": 1, "last_seq": 1, "seqs": [1], "rev": 2}),
        ),
        _ => json(201, user()),
    })
    .await;
    let options = Options {
        token: Some("t".into()),
        ..quick()
    };
    let client = Client::new(&[&node.url], options)
        .unwrap()
        .acting_as(Some("张三"))
        .unwrap();
    client
        .create_user(&NewUser {
            user: "[a]|b".into(),
            ..NewUser::default()
        })
        .await
        .unwrap();
    client.delete_user("[a]|b").await.unwrap();
    client.users(500, Some("c/1")).await.unwrap();
    client
        .history("张三", &PageFrom::Around(5), 7, Level::Local)
        .await
        .unwrap();
    client
        .history("r", &PageFrom::Newest, 50, Level::Linearizable)
        .await
        .unwrap();
    client.update_user("a", &value!({"email": null})).await.unwrap();
    let batch = vec![BatchMessage {
        text: "x".into(),
        ..BatchMessage::default()
    }];
    client.send_batch("r", batch).await.unwrap();

    let received = node.received();
    let lines: Vec<String> = received
        .iter()
        .map(|request| format!("{} {}", request.method, request.path))
        .collect();
    assert_eq!(
        lines,
        [
            "POST /v1/users",
            "DELETE /v1/users/%5Ba%5D%7Cb",
            "GET /v1/users?limit=500&cursor=c%2F1",
            "GET /v1/rooms/%E5%BC%A0%E4%B8%89/messages?around=5&limit=7&level=local",
            "GET /v1/rooms/r/messages?limit=50",
            "PATCH /v1/users/a",
            "POST /v1/rooms/r/messages/batch",
        ]
    );
    assert_eq!(received[0].body, r#"{"user":"[a]|b"}"#);
    assert_eq!(received[5].body, r#"{"email":null}"#);
    assert_eq!(received[6].body, r#"{"messages":[{"text":"x"}]}"#);
    for request in &received {
        assert_eq!(request.headers["x-quorate-user"], "%E5%BC%A0%E4%B8%89");
        assert_eq!(request.headers["authorization"], "Bearer t");
        assert_eq!(request.headers.contains_key("idempotency-key"), request.method != "GET");
    }
}

/// Changes of the cluster have no key: what a repetition hears is decided anew.
#[tokio::test]
async fn the_administrators_requests_are_as_the_contract_has_them() {
    let node = FakeNode::start(|request, _| match (request.method.as_str(), request.path.as_str()) {
        ("DELETE", _) => Reply::Whole(204, Vec::new(), String::new()),
        (_, "/v1/cluster/nodes") => json(
            202,
            value!({"kind": "replace", "node": 4, "replaces": 1, "step": "catching_up", "detail": "d"}),
        ),
        (_, "/v1/cluster/transfer") => json(200, value!({"leader": 2})),
        (_, "/v1/cluster/snapshot") => from_node(json(202, value!({})), 1, "2"),
        (_, "/v1/cluster/verify") => json(
            200,
            value!({"index": 7, "revision": 5, "agree": false, "nodes": [
                {"id": 1, "hash": "ab", "differs": true}, {"id": 2, "error": "silent", "differs": false}]}),
        ),
        (_, "/v1/cluster") => from_node(json(200, cluster_of(1, "http://elsewhere:1")), 1, "1"),
        other => panic!("{other:?}"),
    })
    .await;
    let client = client(&[&node.url]);
    let new = NewNode {
        id: 4,
        client_url: "http://h:1".into(),
        peer_addr: "h:2".into(),
        replaces: Some(1),
    };
    let change = client.add_node(&new).await.unwrap();
    assert_eq!(
        (change.kind, change.node, change.replaces, change.step),
        (ChangeKind::Replace, 4, Some(1), ChangeStep::CatchingUp)
    );
    client.remove_node(3).await.unwrap();
    assert_eq!(client.transfer(None).await.unwrap(), 2);
    assert_eq!(client.transfer(Some(2)).await.unwrap(), 2);
    assert!(
        matches!(client.snapshot(1).await, Err(Error::Invalid(_))),
        "not learnt yet"
    );
    client.cluster().await.unwrap();
    client.snapshot(1).await.unwrap();
    let verification = client.verify().await.unwrap();
    assert!(!verification.agree && verification.nodes[0].differs);
    assert_eq!(verification.nodes[1].error.as_deref(), Some("silent"));

    let received = node.received();
    let lines: Vec<String> = received
        .iter()
        .map(|request| format!("{} {} {}", request.method, request.path, request.body))
        .collect();
    assert_eq!(
        lines,
        [
            r#"POST /v1/cluster/nodes {"id":4,"client_url":"http://h:1","peer_addr":"h:2","replaces":1}"#,
            "DELETE /v1/cluster/nodes/3 ",
            "POST /v1/cluster/transfer {}",
            r#"POST /v1/cluster/transfer {"to":2}"#,
            "GET /v1/cluster ",
            "POST /v1/cluster/snapshot ",
            "GET /v1/cluster/verify ",
        ]
    );
    for request in &received {
        assert!(!request.headers.contains_key("idempotency-key"), "{}", request.path);
    }
}

#[tokio::test]
async fn a_removal_whose_answer_was_lost_is_done_when_the_node_is_gone() {
    for (uncertain, done) in [(true, true), (false, false)] {
        let node = FakeNode::start(move |_, n| match n {
            0 if uncertain => refused(504, "commit_unknown", "unknown"),
            _ => refused(404, "not_found", "not_applied"),
        })
        .await;
        let removed = client(&[&node.url]).remove_node(3).await;
        assert_eq!(removed.is_ok(), done, "{removed:?}");
    }
    // Elsewhere a key makes the node say what became of the first attempt, also if that was a 404.
    let node = FakeNode::start(|_, n| match n {
        0 => refused(504, "commit_unknown", "unknown"),
        _ => refused(404, "not_found", "not_applied"),
    })
    .await;
    let error = client(&[&node.url]).delete_user("a").await.unwrap_err();
    assert_eq!(error.code(), Some("not_found"));
}

#[tokio::test]
async fn a_change_without_a_key_is_not_settled_by_a_refused_repetition() {
    let node = FakeNode::start(|_, n| match n {
        0 => Reply::Close,
        _ => refused(409, "conflict", "not_applied"),
    })
    .await;
    let error = client(&[&node.url]).transfer(None).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { key: None, .. }), "{error:?}");
    assert!(error.to_string().ends_with("(safe to repeat)"), "{error}");
    let error = client(&[&node.url]).transfer(None).await.unwrap_err();
    assert_eq!(error.code(), Some("conflict"), "refused at once, it is refused");
}

#[tokio::test]
async fn a_living_nodes_words_are_told_rather_than_that_others_are_dead() {
    let quickly = Options {
        deadline: Duration::from_millis(300),
        ..quick()
    };
    let node = FakeNode::start(|_, _| refused(503, "no_leader", "not_applied")).await;
    let dead = [dead_url().await, dead_url().await];
    for urls in [
        [node.url.as_str(), &dead[0], &dead[1]],
        [&dead[0], &node.url, &dead[1]],
        [&dead[0], &dead[1], &node.url],
    ] {
        let client = || Client::new(&urls, quickly.clone()).unwrap();
        for error in [
            client().user("alice").await.unwrap_err(),
            client().send("r", &hello()).await.unwrap_err(),
        ] {
            let Error::Unavailable { detail, problem } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(problem.as_ref().unwrap().code, "no_leader");
            assert!(detail.contains("why (503 no_leader)"), "{detail}");
        }
    }
    // An attempt for which no time is left takes nothing back.
    let slow = FakeNode::start(|_, n| match n {
        0 => refused(503, "no_leader", "not_applied"),
        _ => Reply::Silence,
    })
    .await;
    let client = Client::new(&[&slow.url], quickly.clone()).unwrap();
    let error = client.user("alice").await.unwrap_err();
    assert!(error.to_string().contains("no_leader"), "{error}");
    // Once it has died as well, what it said is no longer its last word.
    let dying = FakeNode::start(|_, n| match n {
        0 => refused(503, "no_leader", "not_applied"),
        _ => Reply::Close,
    })
    .await;
    let client = Client::new(&[&dying.url], quickly).unwrap();
    let error = client.user("alice").await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { problem: None, detail } if detail.contains("connection failed")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_of_the_contract_is_told_apart() {
    let node = FakeNode::start(|_, _| Reply::Whole(200, Vec::new(), "<html>".into())).await;
    let client = client(&[&node.url]);
    let read = client.user("alice").await.unwrap_err();
    assert!(matches!(read, Error::BadResponse { write: false, .. }), "{read:?}");
    assert!(
        client.send("r", &hello()).await.unwrap_err().outcome_unknown(),
        "it may have been applied"
    );
    let moved = FakeNode::start(|_, _| Reply::Whole(307, vec![("Location", "http://x".into())], String::new())).await;
    let error = self::client(&[&moved.url]).user("alice").await.unwrap_err();
    assert!(matches!(error, Error::BadResponse { .. }), "{error:?}");
}

#[tokio::test]
async fn edits_and_redactions_are_repeated_under_their_key() {
    let message = value!({"room": "r", "seq": 7, "rev": 9, "sender": "alice", "kind": "text", "text": "b",
                          "sent_at": "2026-01-01T00:00:00.000Z", "edited_at": "2026-01-01T00:00:01.000Z"});
    let node = FakeNode::start(move |request, n| match (n % 2, request.method.as_str()) {
        (0, _) => Reply::Close,
        (_, "PATCH") => json(200, message.clone()),
        _ => Reply::Whole(204, Vec::new(), String::new()),
    })
    .await;
    let client = client(&[&node.url]);
    assert_eq!(client.edit("r", 7, "b").await.unwrap().text.as_deref(), Some("b"));
    client.redact("r", 7).await.unwrap();
    let received = node.received();
    let asked: Vec<_> = received
        .iter()
        .map(|it| (it.method.as_str(), it.path.as_str(), it.body.as_str()))
        .collect();
    let path = "/v1/rooms/r/messages/7";
    let (edit, redact) = (("PATCH", path, r#"{"text":"b"}"#), ("DELETE", path, ""));
    assert_eq!(asked, [edit, edit, redact, redact]);
    let key = |n: usize| &received[n].headers["idempotency-key"];
    assert!(key(0) == key(1) && key(2) == key(3) && key(0) != key(2));
}

#[tokio::test]
async fn readiness_is_asked_of_each_node_once() {
    let ready = FakeNode::start(|_, _| Reply::Whole(200, Vec::new(), "ready".into())).await;
    let starting = FakeNode::start(|_, _| refused(503, "not_ready", "not_applied")).await;
    let answers = client(&[&ready.url, &starting.url, &dead_url().await]).readyz().await;
    let states: Vec<bool> = answers.iter().map(|answer| answer.ready.is_ok()).collect();
    assert_eq!(states, [true, false, false]);
    assert_eq!(starting.received().len(), 1);
}

fn cluster_of(id: u64, url: &str) -> serde_json::Value {
    let node = value!({"id": id, "client_url": url, "peer_addr": "p", "role": "voter", "state": "leader",
                       "last_log": 1, "applied": 1, "lag": 0});
    value!({"cluster_id": "c", "version": 1, "nodes": [node], "leader": id, "term": 1, "failures_tolerated": 0,
            "changes": []})
}

fn user() -> serde_json::Value {
    value!({"user": "alice", "id": 7, "display_name": "Alice", "created_at": "2026-01-01T00:00:00.000Z", "rev": 1})
}

#[tokio::test]
async fn signing_in_and_out_take_no_key() {
    let node = FakeNode::start(|request, _| match request.method.as_str() {
        "POST" => json(
            201,
            value!({"token": "qst_1", "expires_at": "2026-01-01T00:00:00.000Z", "user": "ann"}),
        ),
        _ => Reply::Whole(204, Vec::new(), String::new()),
    })
    .await;
    let client = client(&[&node.url]);
    let session = NewSession {
        user: "ann".to_owned(),
        password: "secret".to_owned(),
        device: None,
    };
    assert!(!format!("{session:?}").contains("secret"));
    let signed_in = client.sign_in(&session).await.unwrap();
    assert_eq!((signed_in.token.as_str(), signed_in.user.as_str()), ("qst_1", "ann"));
    assert!(!format!("{signed_in:?}").contains("qst_1"));
    client
        .with_token(Some(&signed_in.token))
        .unwrap()
        .sign_out()
        .await
        .unwrap();

    let received = node.received();
    assert_eq!(received[0].body, r#"{"user":"ann","password":"secret"}"#);
    assert_eq!(received[0].path, "/v1/sessions");
    assert_eq!(
        (received[1].method.as_str(), received[1].path.as_str()),
        ("DELETE", "/v1/sessions/current")
    );
    assert_eq!(received[1].headers["authorization"], "Bearer qst_1");
    assert!(
        received
            .iter()
            .all(|request| !request.headers.contains_key("idempotency-key"))
    );
}

/// Whoever has signed out is nobody: that is what a second attempt hears when the first one was applied.
#[tokio::test]
async fn a_sign_out_whose_answer_was_lost_is_settled_by_the_401_after_it() {
    for lost in [true, false] {
        let node = FakeNode::start(move |_, n| match n {
            0 if lost => Reply::Close,
            _ => refused(401, "unauthenticated", "not_applied"),
        })
        .await;
        let ended = client(&[&node.url]).sign_out().await;
        assert_eq!(ended.is_ok(), lost, "{ended:?}");
    }
    // Another repeated change is not settled by it.
    let node = FakeNode::start(|_, n| match n {
        0 => Reply::Close,
        _ => refused(401, "unauthenticated", "not_applied"),
    })
    .await;
    assert!(client(&[&node.url]).remove_node(3).await.is_err());
}
