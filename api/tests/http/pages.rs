//! Pages of history that others have read before: their bytes are kept, and are given to nobody whom the state would
//! not give them to, nor when the state says something else by now.

use serde_json::{Value, json};

use crate::caller::Node;

const PAGE: &str = "/v1/rooms/club/messages";
const ANN: (&str, &str) = ("x-quorate-user", "ann");
const BOB: (&str, &str) = ("x-quorate-user", "bob");

/// A group of ann and bob with three messages.
async fn club() -> Node {
    let node = Node::furnished().await;
    found(&node).await;
    node
}

async fn found(node: &Node) {
    let room = json!({"room": "club", "kind": "group", "members": ["ann", "bob"]});
    node.post("/v1/rooms", room).await.expect(201);
    node.say("club", &["one", "two", "three"]).await;
}

async fn texts(node: &Node, who: (&str, &str)) -> Vec<Value> {
    let page = node.ask("GET", PAGE, &[who]).await.expect(200).json();
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["text"].clone()).collect()
}

/// Messages that were read from the state and written out, and those whose bytes were there.
async fn counts(node: &Node) -> (u64, u64) {
    let text = String::from_utf8(node.get("/metrics").await.body).unwrap();
    let metric = |name: &str| -> u64 {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    };
    (
        metric("quorate_http_page_messages_written_total"),
        metric("quorate_http_page_messages_reused_total"),
    )
}

#[tokio::test]
async fn a_page_is_written_out_once_and_is_the_same_page() {
    let node = club().await;
    let first = node.ask("GET", PAGE, &[ANN]).await.expect(200);
    let second = node.ask("GET", PAGE, &[BOB]).await.expect(200);
    assert_eq!(first.body, second.body);
    assert_eq!(counts(&node).await, (3, 3));
    // A part of it, and more than it.
    let part = node.get(&format!("{PAGE}?after=1&limit=1")).await.expect(200).json();
    assert_eq!(
        (
            &part["messages"][0]["text"],
            &part["first_seq"],
            &part["more_before"],
            &part["more_after"]
        ),
        (&json!("two"), &json!(2), &json!(true), &json!(true))
    );
    node.say("club", &["four"]).await;
    assert_eq!(texts(&node, ANN).await, ["one", "two", "three", "four"]);
    assert_eq!(counts(&node).await, (4, 7));
    // Each message is what it is alone.
    let page = node.get(PAGE).await.expect(200).json();
    for seq in 1..=4 {
        let alone = node.get(&format!("{PAGE}/{seq}")).await.expect(200).json();
        assert_eq!(page["messages"][seq - 1], alone);
    }
}

#[tokio::test]
async fn what_is_edited_redacted_or_deleted_is_not_shown_from_before() {
    let node = club().await;
    assert_eq!(texts(&node, ANN).await, ["one", "two", "three"]);
    let edit = json!({"text": "another"}).to_string();
    node.send("PATCH", &format!("{PAGE}/1"), &[], edit).await.expect(200);
    assert_eq!(texts(&node, ANN).await, ["another", "two", "three"]);
    node.ask("DELETE", &format!("{PAGE}/2"), &[]).await.expect(204);
    assert_eq!(texts(&node, ANN).await, [json!("another"), json!(null), json!("three")]);
    let page = node.get(PAGE).await;
    assert!(!String::from_utf8_lossy(&page.body).contains("two"));

    node.ask("DELETE", "/v1/rooms/club", &[]).await.expect(204);
    node.get(PAGE).await.problem(404, "not_found");
    found(&node).await;
    node.say("club", &["new"]).await;
    assert_eq!(texts(&node, ANN).await, ["one", "two", "three", "new"]);
}

#[tokio::test]
async fn a_page_that_others_have_read_is_for_members_only() {
    let node = club().await;
    node.post("/v1/users", json!({"user": "eve"})).await.expect(201);
    let eve = ("x-quorate-user", "eve");
    assert_eq!(texts(&node, ANN).await.len(), 3);
    node.ask("GET", PAGE, &[eve]).await.problem(403, "not_a_member");
    node.ask("GET", PAGE, &[("x-quorate-user", "nobody")])
        .await
        .problem(401, "unauthenticated");
    node.ask("PUT", "/v1/rooms/club/members/eve", &[]).await.expect(201);
    assert_eq!(texts(&node, eve).await.len(), 3);
    node.ask("DELETE", "/v1/rooms/club/members/eve", &[]).await.expect(204);
    node.ask("GET", PAGE, &[eve]).await.problem(403, "not_a_member");
    assert_eq!(texts(&node, BOB).await.len(), 3);
    assert_eq!(counts(&node).await, (3, 6), "it was kept all the time");
}
