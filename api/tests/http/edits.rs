//! Messages in motion: edited, redacted, and what they said before.

use serde_json::{Value, json};

use crate::caller::{Node, Reply};

const MESSAGES: &str = "/v1/rooms/hall/messages";
const ONE: &str = "/v1/rooms/hall/messages/1";
const REVISIONS: &str = "/v1/rooms/hall/messages/1/revisions";
const ANN: (&str, &str) = ("x-quorate-user", "ann");
const BOB: (&str, &str) = ("x-quorate-user", "bob");

/// A node where ann has said `hello` in the hall.
async fn furnished() -> Node {
    let node = Node::furnished().await;
    let body = json!({"text": "hello", "client_id": "c1", "attributes": {"a": 1}}).to_string();
    node.send("POST", MESSAGES, &[ANN], body).await.expect(201);
    node
}

async fn edit(node: &Node, headers: &[(&str, &str)], text: &str) -> Reply {
    node.send("PATCH", ONE, headers, json!({ "text": text }).to_string())
        .await
}

#[tokio::test]
async fn an_edit_answers_the_message_and_keeps_what_it_said() {
    let node = furnished().await;
    let before = node.get(ONE).await.expect(200);
    let merge = ("content-type", "application/merge-patch+json");
    let edited = edit(&node, &[ANN, merge], "hello, all\n").await.expect(200);
    let message = edited.json();
    let rev = message["rev"].as_u64().unwrap();
    assert_eq!(
        message,
        json!({"room": "hall", "seq": 1, "rev": rev, "sender": "ann", "sent_at": "2026-01-01T00:00:00.123Z",
               "kind": "text", "text": "hello, all\n", "client_id": "c1", "attributes": {"a": 1},
               "edited_at": "2026-01-01T00:00:00.123Z"})
    );
    assert_eq!(edited.header("etag"), format!("\"{rev}\""));
    assert!(edited.header("x-quorate-position").ends_with(&format!(".{rev}")));
    assert_eq!(edited.header("idempotency-replayed"), "");

    // The old tag is of another state of the message, the new one of this.
    let tag = |reply: &Reply| reply.header("etag").to_owned();
    let read = node
        .ask("GET", ONE, &[("if-none-match", &tag(&before))])
        .await
        .expect(200);
    assert_eq!((read.json(), tag(&read)), (message.clone(), tag(&edited)));
    node.ask("GET", ONE, &[("if-none-match", &tag(&edited))])
        .await
        .expect(304);
    // The room is as it was.
    let room = node.get("/v1/rooms/hall").await.expect(200).json();
    assert_eq!(room["rev"], before.json()["rev"]);

    // The same text again is no edit.
    let same = edit(&node, &[ANN], "hello, all\n").await.expect(200);
    assert_eq!(same.json(), message);
    let revisions = node.get(REVISIONS).await.expect(200).json();
    assert_eq!(
        revisions,
        json!({"revisions": [{"rev": before.json()["rev"], "text": "hello", "at": "2026-01-01T00:00:00.123Z"}]})
    );
    // Sent again, it is the message of then.
    let again = json!({"text": "hello", "client_id": "c1"}).to_string();
    let again = node.send("POST", MESSAGES, &[ANN], again).await.expect(201);
    assert_eq!(
        (again.header("idempotency-replayed"), &again.json()["seq"]),
        ("true", &json!(1))
    );
    let other = json!({"text": "hello, all\n", "client_id": "c1"}).to_string();
    node.send("POST", MESSAGES, &[ANN], other).await.problem(422, "invalid");
}

#[tokio::test]
async fn who_may_and_when() {
    let node = furnished().await;
    let tag = node.get(ONE).await.header("etag").to_owned();
    edit(&node, &[BOB], "x").await.problem(403, "forbidden");
    node.ask("DELETE", ONE, &[BOB]).await.problem(403, "forbidden");
    edit(&node, &[ANN, ("if-match", "\"1\"")], "x")
        .await
        .problem(412, "precondition_failed");
    edit(&node, &[ANN, ("if-none-match", "*")], "x")
        .await
        .problem(412, "precondition_failed");
    edit(&node, &[ANN, ("if-match", &tag)], "x").await.expect(200);
    node.ask("DELETE", ONE, &[ANN, ("if-match", &tag)])
        .await
        .problem(412, "precondition_failed");
    edit(&node, &[], "as root says").await.expect(200);
    for path in ["/v1/rooms/hall/messages/9", "/v1/rooms/attic/messages/1"] {
        node.send("PATCH", path, &[], r#"{"text":"x"}"#)
            .await
            .problem(404, "not_found");
        node.ask("DELETE", path, &[]).await.problem(404, "not_found");
        node.get(&format!("{path}/revisions")).await.problem(404, "not_found");
    }
    // Of a group's messages nobody outside hears.
    node.say("den", &["between us"]).await;
    let den = "/v1/rooms/den/messages/1";
    node.send("PATCH", den, &[BOB], r#"{"text":"x"}"#)
        .await
        .problem(403, "not_a_member");
    node.ask("DELETE", den, &[BOB]).await.problem(403, "not_a_member");
    node.ask("GET", &format!("{den}/revisions"), &[BOB])
        .await
        .problem(403, "not_a_member");
}

#[tokio::test]
async fn what_is_no_edit() {
    let node = furnished().await;
    for body in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"text":null}"#,
        r#"{"text":7}"#,
        r#"{"text":"x","kind":"notice"}"#,
        r#"{"text":"x","text":"y"}"#,
        r#"["x"]"#,
    ] {
        node.send("PATCH", ONE, &[ANN], body).await.problem(400, "bad_request");
    }
    edit(&node, &[ANN], &"x".repeat(65_537)).await.problem(413, "too_large");
    node.send("PATCH", ONE, &[ANN, ("content-type", "text/plain")], "x")
        .await
        .problem(415, "unsupported_media_type");
    node.send("PATCH", "/v1/rooms/hall/messages/one", &[ANN], r#"{"text":"x"}"#)
        .await
        .problem(400, "bad_request");
    for path in [ONE, REVISIONS] {
        node.send("PUT", path, &[ANN], r#"{"text":"x"}"#)
            .await
            .problem(405, "method_not_allowed");
    }
    for query in [
        "limit=0",
        "limit=501",
        "cursor=m31",
        "cursor=v",
        "cursor=v61",
        "after=1",
    ] {
        node.get(&format!("{REVISIONS}?{query}"))
            .await
            .problem(400, "bad_request");
    }
    assert_eq!(node.get(ONE).await.expect(200).json()["text"], "hello");
}

#[tokio::test]
async fn a_redaction_leaves_the_seq_and_takes_the_content() {
    let node = furnished().await;
    edit(&node, &[ANN], "secret").await.expect(200);
    let redacted = node.ask("DELETE", ONE, &[ANN]).await.expect(204);
    assert!(redacted.body.is_empty());
    assert_ne!(redacted.header("x-quorate-position"), "");
    let message = node.get(ONE).await.expect(200).json();
    assert_eq!(
        message,
        json!({"room": "hall", "seq": 1, "rev": message["rev"], "sender": "ann",
               "sent_at": "2026-01-01T00:00:00.123Z", "kind": "text", "client_id": "c1",
               "edited_at": "2026-01-01T00:00:00.123Z", "redacted_at": "2026-01-01T00:00:00.123Z"})
    );
    assert_eq!(node.get(REVISIONS).await.expect(200).json(), json!({ "revisions": [] }));
    node.ask("DELETE", ONE, &[ANN]).await.problem(404, "not_found");
    edit(&node, &[ANN], "again").await.problem(409, "conflict");
    node.say("hall", &["next"]).await;
    let page = node.get(MESSAGES).await.expect(200).json();
    assert_eq!((&page["first_seq"], &page["last_seq"]), (&json!(1), &json!(2)));
    assert_eq!(page["messages"][0], message);
}

#[tokio::test]
async fn repeated_under_a_key_it_is_answered_alike() {
    let node = furnished().await;
    let (key, other) = (("idempotency-key", "k1"), ("idempotency-key", "k2"));
    let first = edit(&node, &[ANN, key], "once").await.expect(200);
    let again = edit(&node, &[ANN, key], "once").await.expect(200);
    assert_eq!(
        (again.json(), again.header("etag")),
        (first.json(), first.header("etag"))
    );
    assert_eq!(again.header("idempotency-replayed"), "true");
    edit(&node, &[ANN, key], "twice")
        .await
        .problem(422, "idempotency_mismatch");
    node.ask("DELETE", ONE, &[ANN, other]).await.expect(204);
    let again = node.ask("DELETE", ONE, &[ANN, other]).await.expect(204);
    assert_eq!(again.header("idempotency-replayed"), "true");
}

#[tokio::test]
async fn earlier_texts_in_pages() {
    let node = furnished().await;
    for n in 1..=5 {
        edit(&node, &[ANN], &n.to_string()).await.expect(200);
    }
    let mut texts: Vec<Value> = Vec::new();
    let mut path = format!("{REVISIONS}?level=local&limit=2");
    loop {
        let page = node.get(&path).await.expect(200);
        let body = page.json();
        texts.extend(
            body["revisions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["text"].clone()),
        );
        let Some(cursor) = body["next_cursor"].as_str() else {
            assert_eq!(page.header("link"), "");
            break;
        };
        let next = format!("{REVISIONS}?level=local&limit=2&cursor={cursor}");
        assert_eq!(page.header("link"), format!("<{next}>; rel=\"next\""));
        path = next;
    }
    assert_eq!(texts, ["hello", "1", "2", "3", "4"]);
}
