//! What the contract says of all requests holds for each of them.

use serde_json::json;

use crate::caller::Node;

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
