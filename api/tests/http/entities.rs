//! Users, rooms and members from creation to deletion, and the routes about the node.

use quorate_api::replica::RaftState;
use quorate_state_machine::Command;
use serde_json::json;

use crate::caller::Node;

#[tokio::test]
async fn a_user_from_creation_to_deletion() {
    for prefix in ["/v1/users", "/api/users"] {
        let node = Node::new();
        let body = json!({"user": "张三", "display_name": "Zhang", "email": "z@example.org", "attributes": {"a": 1}});
        let created = node.post(prefix, body).await.expect(201);
        let path = format!("{prefix}/%E5%BC%A0%E4%B8%89");
        assert_eq!(created.header("location"), path);
        let user = created.json();
        assert_eq!(
            user,
            json!({"user": "张三", "id": user["id"], "display_name": "Zhang", "email": "z@example.org",
                   "attributes": {"a": 1}, "created_at": "2026-01-01T00:00:00.123Z", "rev": user["rev"]})
        );
        let tag = format!("\"{}\"", user["rev"]);
        assert_eq!(created.header("etag"), tag);

        let read = node.get(&path).await.expect(200);
        assert_eq!((read.json(), read.header("etag")), (user, tag.as_str()));
        let unchanged = node.ask("GET", &path, &[("if-none-match", &tag)]).await.expect(304);
        assert!(unchanged.body.is_empty());
        assert_eq!(unchanged.header("etag"), tag);
        node.ask("GET", &path, &[("if-none-match", "\"0\"")]).await.expect(200);
        assert_eq!(node.ask("HEAD", &path, &[]).await.expect(200).header("etag"), tag);

        let patch = r#"{"email":null,"attributes":{"a":null,"b":2}}"#;
        let patched = node
            .send("PATCH", &path, &[("if-match", &tag)], patch)
            .await
            .expect(200);
        assert_eq!(patched.json()["attributes"], json!({"b": 2}));
        assert!(patched.json().get("email").is_none());
        assert_eq!(patched.json()["display_name"], "Zhang");
        node.send("PATCH", &path, &[("if-match", &tag)], "{}")
            .await
            .problem(412, "precondition_failed");

        node.ask("DELETE", &path, &[]).await.expect(204);
        node.ask("DELETE", &path, &[]).await.problem(404, "not_found");
        node.get(&path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn passwords_travel_as_hashes_only() {
    let node = Node::new();
    let created = node
        .post("/v1/users", json!({"user": "ann", "password": "correct horse"}))
        .await
        .expect(201);
    assert!(!String::from_utf8_lossy(&created.body).contains("password"));
    let hash = {
        let writes = node.replica.writes.lock().unwrap();
        assert!(!format!("{writes:?}").contains("correct horse"));
        match &writes[0].0.command {
            Command::CreateUser {
                password_hash: Some(hash),
                ..
            } => hash.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    node.send("PATCH", "/v1/users/ann", &[], r#"{"password":"another"}"#)
        .await
        .expect(200);
    node.send("PATCH", "/v1/users/ann", &[], r#"{"password":null}"#)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_room_and_its_members() {
    let node = Node::furnished().await;
    let ann = [("x-quorate-user", "ann")];
    let body =
        json!({"room": "[x]|y", "kind": "group", "title": "T", "members": ["bob"], "attributes": {"k": [1, null]}});
    let created = node.send("POST", "/v1/rooms", &ann, body.to_string()).await.expect(201);
    let path = created.header("location").to_owned();
    assert_eq!(path, "/v1/rooms/%5Bx%5D%7Cy");
    let room = created.json();
    assert_eq!(
        (&room["created_by"], &room["member_count"], &room["kind"]),
        (&json!("ann"), &json!(2), &json!("group"))
    );
    assert_eq!(
        (&room["last_seq"], &room["attributes"]),
        (&json!(0), &json!({"k": [1, null]}))
    );
    assert_eq!(node.get(&path).await.expect(200).json(), room);
    let tag = format!("\"{}\"", room["rev"]);
    node.ask("GET", &path, &[("if-none-match", &tag)]).await.expect(304);
    let patched = node.send("PATCH", &path, &ann, r#"{"title":null}"#).await.expect(200);
    assert!(patched.json().get("title").is_none());

    let bob = format!("{path}/members/bob");
    let changed = node
        .send("PUT", &bob, &ann, r#"{"role":"moderator"}"#)
        .await
        .expect(200);
    assert_eq!(
        (&changed.json()["user"], &changed.json()["role"]),
        (&json!("bob"), &json!("moderator"))
    );
    assert_eq!(changed.header("location"), "");
    node.ask("DELETE", &bob, &ann).await.expect(204);
    let added = node.send("PUT", &bob, &ann, r#"{"role":"member"}"#).await.expect(201);
    assert_eq!(added.header("location"), bob);
    let members = node.get(&format!("{path}/members")).await.expect(200).json();
    let names: Vec<_> = members["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| &member["user"])
        .collect();
    assert_eq!(names, ["ann", "bob"]);
    node.ask("DELETE", &format!("{path}/members/ann"), &ann)
        .await
        .problem(409, "conflict");

    node.ask("DELETE", &path, &ann).await.expect(204);
    node.get(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_node_itself() {
    let node = Node::furnished().await;
    assert_eq!(node.get("/livez").await.expect(200).body, b"alive\n");
    assert_eq!(node.get("/readyz").await.expect(200).body, b"ready\n");
    let verbose = node.get("/readyz?verbose").await.expect(200);
    assert_eq!(verbose.body, b"ready\nnode 1\nstate leader\nleader 1\nterm 7\n");
    node.get("/leader").await.expect(200);
    let cluster = node.get("/v1/cluster").await.expect(200).json();
    assert_eq!(
        (&cluster["leader"], &cluster["nodes"][0]["role"]),
        (&json!(1), &json!("voter"))
    );

    node.replica
        .set_status(|status| (status.state, status.leader) = (RaftState::Follower, Some(2)));
    node.get("/leader").await.problem(503, "not_ready");
    node.replica.set_status(|status| status.leader = None);
    node.get("/leader").await.problem(503, "no_leader");
    let problem = node.get("/readyz").await.problem(503, "not_ready");
    assert_eq!(problem["detail"], "no leader is known");
    node.get("/livez").await.expect(200);
    assert!(node.get("/v1/cluster").await.expect(200).json().get("leader").is_none());
}

#[tokio::test]
async fn metrics_by_route_and_status() {
    let node = Node::furnished().await;
    node.say("hall", &["a", "b"]).await;
    node.get("/v1/rooms/attic").await.expect(404);
    node.ask("FROB", "/v1/rooms", &[]).await.expect(405);
    let metrics = node.get("/metrics").await.expect(200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4");
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        r#"quorate_http_requests_total{method="POST",route="/v1/rooms/{room}/messages",status="201"} 2"#,
        r#"quorate_http_requests_total{method="GET",route="/v1/rooms/{room}",status="404"} 1"#,
        r#"quorate_http_requests_total{method="other",route="(method not allowed)",status="405"} 1"#,
        r#"quorate_http_request_seconds_count{route="/v1/rooms/{room}/messages"} 2"#,
        "quorate_http_requests_in_flight{class=\"writes\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
