//! What the contract says of all requests holds for each of them.

use serde_json::json;

use crate::caller::Node;
use crate::contract;
use crate::openapi::{operations, some_path};

/// Whether the route has a use for the header or not.
#[tokio::test]
async fn headers_that_do_not_parse_are_refused_by_every_route() {
    let node = Node::furnished().await;
    for (method, path, operation) in operations(contract::document().await) {
        if operation.get("security").is_none() {
            continue;
        }
        for (name, value) in [
            ("idempotency-key", ""),
            ("if-match", "7"),
            ("if-lock", "a"),
            ("request-timeout-ms", "soon"),
            ("x-quorate-min-position", "x"),
            ("x-quorate-user", "%"),
        ] {
            let body = some_body(&format!("{method} {path}"));
            // What else is wrong with a request could be told first.
            let query = if method == "DELETE" && path.contains("{lock}") {
                "?token=1"
            } else {
                ""
            };
            let target = format!("{}{query}", some_path(path));
            let reply = node.send(&method, &target, &[(name, value)], body).await;
            assert_eq!(reply.status, 400, "{method} {path} with {name}: {value}");
            let problem = reply.problem(400, "bad_request");
            let detail = problem["detail"].as_str().unwrap().to_ascii_lowercase();
            assert!(detail.contains(name), "{method} {path} with {name}: {value}: {detail}");
        }
    }
}

/// A body that is not what the refusal is about.
fn some_body(operation: &str) -> &'static str {
    match operation {
        "POST /v1/users" | "POST /api/users" => r#"{"user":"u"}"#,
        "POST /v1/rooms" => r#"{"room":"r","kind":"public"}"#,
        "POST /v1/rooms/{room}/messages" => r#"{"text":"t"}"#,
        "POST /v1/rooms/{room}/messages/batch" => r#"{"messages":[{"text":"t"}]}"#,
        "POST /v1/cluster/nodes" => r#"{"id":4,"client_url":"http://h:1","peer_addr":"h:2"}"#,
        "PATCH /v1/rooms/{room}/messages/{seq}" => r#"{"text":"t"}"#,
        "POST /v1/sessions" => r#"{"user":"u","password":"p"}"#,
        "PUT /v1/locks/{lock}" => r#"{"owner":"o","ttl_ms":1000}"#,
        "POST /v1/locks/{lock}/renew" => r#"{"token":1}"#,
        _ => "{}",
    }
}

#[tokio::test]
async fn numbers_stay_below_two_to_53() {
    let node = Node::furnished().await;
    let attributes = |number: &str| format!(r#"{{"user":"u","attributes":{{"a":[{{"b":{number}}}]}}}}"#);
    for number in [
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551616",
        "1e300",
        "9007199254740992.0",
    ] {
        let reply = node.send("POST", "/v1/users", &[], attributes(number)).await;
        reply.problem(400, "bad_request");
    }
    for number in ["9007199254740991", "-9007199254740991", "1.5", "-0.0", "1e15"] {
        node.send("POST", "/v1/users", &[], attributes(number))
            .await
            .expect(201);
        node.ask("DELETE", "/v1/users/u", &[]).await.expect(204);
    }
    let reply_to = |number: u64| json!({"text": "t", "reply_to": number});
    let reply = node.post("/v1/rooms/hall/messages", reply_to(1 << 53)).await;
    reply.problem(400, "bad_request");
    let reply = node.post("/v1/rooms/hall/messages", reply_to((1 << 53) - 1)).await;
    reply.problem(422, "invalid");
}
