//! The administrator's routes: what reaches the cluster, what comes back, and who may ask.

use std::time::{Duration, Instant};

use quorate_api::replica::{AdminError, Change, ChangeKind, ChangeStep, NewNode, NodeHash, ReplicaError, Verification};
use serde_json::{Value, json};

use crate::caller::{Node, Reply};
use crate::memory::Asked;

const NODES: &str = "/v1/cluster/nodes";
const TRANSFER: &str = "/v1/cluster/transfer";
const SNAPSHOT: &str = "/v1/cluster/snapshot";
const VERIFY: &str = "/v1/cluster/verify";

/// Every route of the administrator, with a body that is right.
const ROUTES: [(&str, &str, &str); 5] = [
    (
        "POST",
        NODES,
        r#"{"id":4,"client_url":"http://127.0.0.1:7104","peer_addr":"127.0.0.1:7204"}"#,
    ),
    ("DELETE", "/v1/cluster/nodes/2", ""),
    ("POST", TRANSFER, "{}"),
    ("POST", SNAPSHOT, "{}"),
    ("GET", VERIFY, ""),
];

fn four() -> Value {
    json!({"id": 4, "client_url": "http://127.0.0.1:7104", "peer_addr": "127.0.0.1:7204"})
}

fn asked(node: &Node) -> Vec<Asked> {
    let admin = node.replica.admin.lock().unwrap();
    admin.asked.iter().map(|(asked, _)| asked.clone()).collect()
}

fn fail_next(node: &Node, error: AdminError) {
    node.replica.admin.lock().unwrap().faults.push_back(error);
}

fn answer_verify(node: &Node, hashes: &[(u64, Result<u128, &str>, bool)]) {
    let nodes = hashes.iter().map(|(id, hash, differs)| NodeHash {
        id: *id,
        hash: hash.map_err(str::to_owned),
        differs: *differs,
    });
    node.replica.admin.lock().unwrap().verification = Some(Verification {
        index: 17,
        revision: 9,
        nodes: nodes.collect(),
    });
}

#[tokio::test]
async fn a_node_is_added_or_takes_anothers_place() {
    let node = Node::new();
    let change = node.post(NODES, four()).await.expect(202).json();
    let wanted = json!({"kind": "add", "node": 4, "step": "catching_up", "detail": "applied 3 of 9 entries"});
    assert_eq!(change, wanted, "what has no value is absent");
    let mut body = four();
    body["replaces"] = json!(2);
    let change = node.post(NODES, body).await.expect(202).json();
    assert_eq!((&change["kind"], &change["replaces"]), (&json!("replace"), &json!(2)));
    let new = |replaces| {
        Asked::Add(NewNode {
            id: 4,
            client_url: "http://127.0.0.1:7104".to_owned(),
            peer_addr: "127.0.0.1:7204".to_owned(),
            replaces,
        })
    };
    assert_eq!(asked(&node), [new(None), new(Some(2))]);
}

#[tokio::test]
async fn a_node_is_removed() {
    let node = Node::new();
    let reply = node.ask("DELETE", "/v1/cluster/nodes/2", &[]).await.expect(204);
    assert!(reply.body.is_empty());
    // A number that is no node's is the cluster's to refuse; what is no number is wrong in itself.
    node.ask("DELETE", "/v1/cluster/nodes/0", &[]).await.expect(204);
    for path in ["/v1/cluster/nodes/two", "/v1/cluster/nodes/-1", "/v1/cluster/nodes/1.5"] {
        node.ask("DELETE", path, &[]).await.problem(400, "bad_request");
    }
    assert_eq!(asked(&node), [Asked::Remove(2), Asked::Remove(0)]);
}

#[tokio::test]
async fn leadership_is_handed_over_to_whom_the_caller_names_or_to_the_furthest() {
    let node = Node::new();
    let reply = node.post(TRANSFER, json!({"to": 2})).await.expect(200);
    assert_eq!(reply.json(), json!({"leader": 2}));
    for reply in [
        node.post(TRANSFER, json!({})).await,
        node.ask("POST", TRANSFER, &[]).await,
    ] {
        assert_eq!(reply.expect(200).json(), json!({"leader": 3}));
    }
    assert_eq!(
        asked(&node),
        [Asked::Transfer(Some(2)), Asked::Transfer(None), Asked::Transfer(None)]
    );
}

#[tokio::test]
async fn a_snapshot_is_begun() {
    let node = Node::new();
    for reply in [
        node.post(SNAPSHOT, json!({})).await,
        node.ask("POST", SNAPSHOT, &[]).await,
    ] {
        assert_eq!(reply.expect(202).json(), json!({}));
    }
    assert_eq!(asked(&node), [Asked::Snapshot, Asked::Snapshot]);
}

#[tokio::test]
async fn states_are_compared() {
    let node = Node::new();
    answer_verify(&node, &[(1, Ok(0xab), false), (2, Ok(0xab), false)]);
    let reply = node.get(VERIFY).await.expect(200);
    assert_eq!(reply.header("x-quorate-level"), "linearizable");
    let hash = "000000000000000000000000000000ab";
    let same = |id: u64| json!({"id": id, "hash": hash, "differs": false});
    assert_eq!(
        reply.json(),
        json!({"index": 17, "revision": 9, "agree": true, "nodes": [same(1), same(2)]})
    );

    answer_verify(
        &node,
        &[(1, Ok(0xab), false), (2, Ok(u128::MAX), true), (3, Ok(0xab), false)],
    );
    let verification = node.get(VERIFY).await.expect(200).json();
    assert_eq!(verification["agree"], false);
    assert_eq!(
        verification["nodes"][1],
        json!({"id": 2, "hash": "f".repeat(32), "differs": true})
    );

    // A node that was not compared is no node that agrees, wherever it stands in the list.
    for silent in [0, 2] {
        let mut nodes = vec![(1, Ok(7), false), (2, Ok(7), false)];
        nodes.insert(silent, (3, Err("it does not answer"), false));
        answer_verify(&node, &nodes);
        let verification = node.get(VERIFY).await.expect(200).json();
        assert_eq!(verification["agree"], false);
        let wanted = json!({"id": 3, "error": "it does not answer", "differs": false});
        assert_eq!(verification["nodes"][silent], wanted);
    }
    // Two against two: no hash is the one that most have, and yet they do not agree.
    answer_verify(&node, &[(1, Ok(1), false), (2, Ok(2), false)]);
    assert_eq!(node.get(VERIFY).await.json()["agree"], false);
}

#[tokio::test]
async fn changes_are_shown_to_everybody() {
    let node = Node::furnished().await;
    let change = |kind, node, replaces, step| Change {
        kind,
        node,
        replaces,
        step,
        detail: "d".to_owned(),
    };
    node.replica.admin.lock().unwrap().changes = vec![
        change(ChangeKind::Add, 4, None, ChangeStep::Contacting),
        change(ChangeKind::Replace, 5, Some(1), ChangeStep::Promoting),
        change(ChangeKind::Remove, 2, None, ChangeStep::Done),
        change(ChangeKind::Add, 6, None, ChangeStep::Failed),
    ];
    let reply = node
        .ask("GET", "/v1/cluster", &[("x-quorate-user", "ann")])
        .await
        .expect(200);
    let shown = |kind: &str, node: u64, step: &str| json!({"kind": kind, "node": node, "step": step, "detail": "d"});
    let mut replace = shown("replace", 5, "promoting");
    replace["replaces"] = json!(1);
    assert_eq!(
        reply.json()["changes"],
        json!([
            shown("add", 4, "contacting"),
            replace,
            shown("remove", 2, "done"),
            shown("add", 6, "failed")
        ])
    );
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let node = Node::new();
    let with = |field: &str, value: Value| {
        let mut body = four();
        body[field] = value;
        body
    };
    for body in [
        json!({}),
        json!([]),
        json!({"id": 4}),
        with("colour", json!("red")),
        with("id", json!(0)),
        with("id", json!(1_u64 << 53)),
        with("id", json!("4")),
        with("id", json!(1.5)),
        with("id", json!(-1)),
        with("replaces", json!(null)),
        with("replaces", json!(0)),
        with("replaces", json!(1_u64 << 53)),
        with("replaces", json!(4)),
        with("client_url", json!("")),
        with("client_url", json!("127.0.0.1:7104")),
        with("client_url", json!("https://127.0.0.1:7104")),
        with("client_url", json!("http://127.0.0.1")),
        with("client_url", json!("http://127.0.0.1:7104/")),
        with("client_url", json!("http://127.0.0.1:7104/v1")),
        with("client_url", json!("http://127.0.0.1:0")),
        with("client_url", json!("http://127.0.0.1:7204")),
        with("peer_addr", json!("")),
        with("peer_addr", json!("127.0.0.1")),
        with("peer_addr", json!("127.0.0.1:70000")),
        with("peer_addr", json!("http://127.0.0.1:7204")),
        with("peer_addr", json!(7204)),
    ] {
        let problem = node.post(NODES, body).await.problem(400, "bad_request");
        assert_eq!(problem["outcome"], "not_applied");
    }
    for body in [
        json!({"to": 0}),
        json!({"to": 1_u64 << 53}),
        json!({"to": "2"}),
        json!({"to": null}),
        json!({"from": 1}),
        json!([]),
    ] {
        node.post(TRANSFER, body).await.problem(400, "bad_request");
    }
    for body in [json!({"node": 1}), json!([]), json!(null)] {
        node.post(SNAPSHOT, body).await.problem(400, "bad_request");
    }
    assert_eq!(asked(&node), [], "nothing of it reaches the cluster");
    node.post(NODES, with("id", json!((1_u64 << 53) - 1))).await.expect(202);
    node.post(NODES, with("peer_addr", json!("[::1]:7204")))
        .await
        .expect(202);
}

#[tokio::test]
async fn only_root_may() {
    let node = Node::furnished().await;
    let user = |name| [("x-quorate-user", name)];
    for (method, path, body) in ROUTES {
        node.send(method, path, &user("ann"), body)
            .await
            .problem(403, "forbidden");
        node.send(method, path, &user("eve"), body)
            .await
            .problem(401, "unauthenticated");
        node.send(method, path, &[("authorization", "Bearer x")], body)
            .await
            .problem(401, "unauthenticated");
    }
    // What the path names is looked for before the caller's right to it.
    node.ask("DELETE", "/v1/cluster/nodes/9", &user("ann"))
        .await
        .problem(404, "not_found");
    assert_eq!(asked(&node), [], "nothing of it reaches the cluster");
    // Who writes root means the administrator, and is told how to be him.
    let problem = node
        .ask("DELETE", "/v1/cluster/nodes/2", &user("root"))
        .await
        .problem(401, "unauthenticated");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("leave the header"), "{detail}");
    for path in ["/v1/rooms/hall", "/v1/rooms/hall/stream"] {
        let problem = node
            .ask("GET", path, &user("root"))
            .await
            .problem(401, "unauthenticated");
        assert_eq!(problem["detail"], detail, "the same everywhere");
    }
}

#[tokio::test]
async fn the_order_of_the_checks() {
    let node = Node::furnished().await;
    let eve = ("x-quorate-user", "eve");
    let header = ("request-timeout-ms", "soon");
    let plain = ("content-type", "text/plain");
    node.send("PUT", NODES, &[plain, header, eve], "{")
        .await
        .problem(405, "method_not_allowed");
    node.send("POST", NODES, &[plain, header, eve], "{")
        .await
        .problem(415, "unsupported_media_type");
    node.send("POST", NODES, &[eve], "x".repeat((4 << 20) + 1))
        .await
        .problem(413, "too_large");
    for (method, path, body) in ROUTES {
        node.send(method, path, &[header, eve], body)
            .await
            .problem(400, "bad_request");
        let query = format!("{path}?colour=1");
        node.send(method, &query, &[eve], body)
            .await
            .problem(400, "bad_request");
    }
    // A user's 403 and the cluster's refusals come after all of it.
    fail_next(&node, AdminError::Conflict("busy".to_owned()));
    node.send("POST", NODES, &[("x-quorate-user", "ann")], four().to_string())
        .await
        .problem(403, "forbidden");
    node.post(NODES, four()).await.problem(409, "conflict");
}

#[tokio::test]
async fn headers_of_the_logs_commands() {
    let node = Node::new();
    for (method, path, body) in ROUTES {
        for (name, value) in [
            ("if-match", "\"7\""),
            ("if-none-match", "*"),
            ("if-none-match", "\"7\""),
            ("if-lock", "l;token=1"),
        ] {
            let problem = node
                .send(method, path, &[(name, value)], body)
                .await
                .problem(400, "bad_request");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(name), "{method} {path}: {detail}");
        }
        node.send(method, path, &[("idempotency-key", "a b")], body)
            .await
            .problem(400, "bad_request");
    }
    assert_eq!(asked(&node), []);
    // A key is taken and means nothing: the same one stands for another request, too.
    let key = [("idempotency-key", "k")];
    for (to, leader) in [(2, 2), (3, 3)] {
        let reply = node
            .send("POST", TRANSFER, &key, json!({ "to": to }).to_string())
            .await
            .expect(200);
        assert_eq!(reply.json()["leader"], leader);
        assert_eq!(reply.header("idempotency-replayed"), "");
    }
}

#[tokio::test]
async fn refusals_of_the_cluster() {
    let node = Node::new();
    let replica = |error: ReplicaError| AdminError::Replica(error);
    for (method, path, body) in ROUTES {
        for (error, status, code) in [
            (AdminError::NotFound("why".to_owned()), 404, "not_found"),
            (AdminError::AlreadyExists("why".to_owned()), 409, "already_exists"),
            (AdminError::Conflict("why".to_owned()), 409, "conflict"),
            (AdminError::Invalid("why".to_owned()), 422, "invalid"),
        ] {
            fail_next(&node, error);
            let problem = node.send(method, path, &[], body).await.problem(status, code);
            assert_eq!(
                (&problem["detail"], &problem["outcome"]),
                (&json!("why"), &json!("not_applied"))
            );
            assert_eq!(problem["retryable"], false);
        }
        for (error, status, code) in [
            (ReplicaError::NoLeader, 503, "no_leader"),
            (ReplicaError::NotReady("why".to_owned()), 503, "not_ready"),
            (ReplicaError::ShuttingDown, 503, "shutting_down"),
            (ReplicaError::Overloaded("why".to_owned()), 429, "overloaded"),
            (ReplicaError::DiskFull, 507, "disk_full"),
        ] {
            fail_next(&node, replica(error));
            let reply = node.send(method, path, &[], body).await;
            assert_eq!(reply.header("retry-after"), if status == 507 { "" } else { "1" });
            assert_eq!(reply.problem(status, code)["outcome"], "not_applied");
        }
        fail_next(&node, replica(ReplicaError::CommitUnknown("why".to_owned())));
        unknown(method, node.send(method, path, &[], body).await);
    }
}

/// Of a change it is not known whether it was made; a question is asked again.
#[track_caller]
fn unknown(method: &str, reply: Reply) {
    if method == "GET" {
        assert_eq!(reply.problem(503, "not_ready")["outcome"], "not_applied");
    } else {
        assert_eq!(reply.problem(504, "commit_unknown")["outcome"], "unknown");
    }
}

#[tokio::test]
async fn time_outs_reach_the_cluster_and_hold_without_it() {
    let node = Node::new();
    answer_verify(&node, &[(1, Ok(1), false)]);
    let begun = Instant::now();
    for (method, path, body) in ROUTES {
        let reply = node.send(method, path, &[("request-timeout-ms", "60000")], body).await;
        assert!(reply.status.is_success(), "{reply:?}");
    }
    let deadlines: Vec<Instant> = {
        let admin = node.replica.admin.lock().unwrap();
        admin.asked.iter().filter_map(|(_, deadline)| *deadline).collect()
    };
    assert_eq!(deadlines.len(), 4, "a snapshot is only begun");
    for deadline in deadlines {
        assert!((Duration::from_secs(59)..Duration::from_secs(62)).contains(&(deadline - begun)));
    }
    node.replica.hold(true);
    for (method, path, body) in ROUTES {
        unknown(
            method,
            node.send(method, path, &[("request-timeout-ms", "1")], body).await,
        );
    }
    node.replica.hold(false);
}

#[tokio::test]
async fn redirects_lead_to_the_leader() {
    let node = Node::new();
    let redirectable = &ROUTES[..3];
    let with = |path: &str| format!("{path}?redirect=true");
    for (method, path, body) in redirectable {
        let reply = node.send(method, &with(path), &[], *body).await;
        assert!(reply.status.is_success(), "the leader does it itself: {reply:?}");
    }
    let done = asked(&node).len();
    node.replica.set_status(|status| status.leader = Some(2));
    for (method, path, body) in redirectable {
        let reply = node.send(method, &with(path), &[], *body).await.expect(307);
        assert_eq!(
            reply.header("location"),
            format!("http://127.0.0.1:7102{path}?redirect=true")
        );
    }
    assert_eq!(asked(&node).len(), done, "whom it sends away, it does nothing for");
    // Without the parameter the cluster forwards it; of a leader without a URL it says what it can.
    node.post(TRANSFER, json!({})).await.expect(200);
    node.replica.set_status(|status| status.leader = Some(9));
    node.post(&with(TRANSFER), json!({})).await.expect(200);
    // These are not the leader's alone.
    for (method, path, body) in &ROUTES[3..] {
        node.send(method, &with(path), &[], *body)
            .await
            .problem(400, "bad_request");
    }
}
