//! Sending and history.

use serde_json::{Value, json};

use crate::caller::Node;

const MESSAGES: &str = "/v1/rooms/hall/messages";

fn seqs(page: &Value) -> Vec<u64> {
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn one_message() {
    let node = Node::furnished().await;
    let body = json!({"text": "你好\n\u{0}", "client_id": "c1", "kind": "action", "attributes": {"b": 1}});
    let headers = [("x-quorate-user", "ann")];
    let sent = node
        .send("POST", MESSAGES, &headers, body.to_string())
        .await
        .expect(201);
    let answer = sent.json();
    assert_eq!(
        answer,
        json!({"room": "hall", "seq": 1, "rev": answer["rev"], "sent_at": "2026-01-01T00:00:00.123Z",
               "sender": "ann", "status": "committed"})
    );
    assert_eq!(sent.header("location"), "/v1/rooms/hall/messages/1");
    let read = node.get("/v1/rooms/hall/messages/1").await.expect(200);
    assert_eq!(
        read.json(),
        json!({"room": "hall", "seq": 1, "rev": answer["rev"], "sender": "ann", "sent_at": answer["sent_at"],
               "kind": "action", "text": "你好\n\u{0}", "client_id": "c1", "attributes": {"b": 1}})
    );
    assert_eq!(read.header("etag"), format!("\"{}\"", answer["rev"]));
    let tag = read.header("etag").to_owned();
    node.ask("GET", "/v1/rooms/hall/messages/1", &[("if-none-match", &tag)])
        .await
        .expect(304);

    let again = node
        .send("POST", MESSAGES, &headers, body.to_string())
        .await
        .expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json()["seq"], 1);
    let other = json!({"text": "other", "client_id": "c1"}).to_string();
    assert_eq!(node.send("POST", MESSAGES, &headers, other).await.status, 422);
    node.post(MESSAGES, json!({"text": "", "reply_to": 1}))
        .await
        .expect(201);
    assert_eq!(node.get("/v1/rooms/hall/messages/2").await.json()["sender"], "root");
}

#[tokio::test]
async fn a_batch_is_whole_or_nothing() {
    let node = Node::furnished().await;
    let batch = "/v1/rooms/hall/messages/batch";
    let import = json!({"messages": [
        {"text": "a", "sender": "ann", "sent_at": "2020-01-01T01:00:00+01:00", "client_id": "1"},
        {"text": "b", "sender": "root", "sent_at": "2020-01-01T00:00:01.5Z", "client_id": "2"},
    ]});
    let sent = node.post(batch, import.clone()).await.expect(201).json();
    assert_eq!(
        (&sent["first_seq"], &sent["last_seq"], &sent["seqs"]),
        (&json!(1), &json!(2), &json!([1, 2]))
    );
    let page = node.get(MESSAGES).await.expect(200).json();
    assert_eq!(page["messages"][0]["sent_at"], "2020-01-01T00:00:00.000Z");
    assert_eq!(page["messages"][1]["sent_at"], "2020-01-01T00:00:01.500Z");
    assert_eq!(page["messages"][0]["sender"], "ann");

    let again = node.post(batch, import).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json()["seqs"], json!([1, 2]));
    let half = json!({"messages": [{"text": "c"}, {"text": "d", "sender": "nobody"}]});
    node.post(batch, half).await.problem(422, "invalid");
    for sent_at in ["yesterday", "1969-01-01T00:00:00Z", "2020-01-01"] {
        let message = json!({"messages": [{"text": "c", "sent_at": sent_at}]});
        node.post(batch, message).await.problem(400, "bad_request");
    }
    assert_eq!(node.get("/v1/rooms/hall").await.json()["last_seq"], 2);
}

#[tokio::test]
async fn every_form_of_a_page() {
    let node = Node::furnished().await;
    let empty = node.get(MESSAGES).await.expect(200).json();
    let nothing = json!({"messages": [], "first_seq": 0, "last_seq": 0, "more_before": false, "more_after": false});
    assert_eq!(empty, nothing);
    let messages: Vec<Value> = (1..=9)
        .map(|n| json!({"text": n.to_string(), "sent_at": format!("2020-01-01T00:00:0{n}Z")}))
        .collect();
    node.post("/v1/rooms/hall/messages/batch", json!({"messages": messages}))
        .await
        .expect(201);

    for (query, expected, before, after) in [
        ("limit=3", vec![7, 8, 9], true, false),
        ("after=0&limit=2", vec![1, 2], false, true),
        ("after=7", vec![8, 9], true, false),
        ("before=3", vec![1, 2], false, true),
        ("before=99999999999999999999&limit=1", vec![9], true, false),
        ("around=5&limit=3", vec![4, 5, 6], true, true),
        ("at=2020-01-01T00:00:07.5Z", vec![8, 9], true, false),
        ("at=2020-01-01T01:00:09%2B01:00", vec![9], true, false),
        ("at=2020-01-01T01:00:09+01:00", vec![9], true, false),
        ("at=1900-01-01T00:00:00Z&limit=1", vec![1], false, true),
    ] {
        let page = node.get(&format!("{MESSAGES}?{query}")).await.expect(200).json();
        assert_eq!(seqs(&page), expected, "{query}");
        assert_eq!(
            (&page["more_before"], &page["more_after"]),
            (&json!(before), &json!(after)),
            "{query}"
        );
        assert_eq!(
            (&page["first_seq"], &page["last_seq"]),
            (&json!(expected[0]), &json!(expected.last())),
            "{query}"
        );
    }
    let beyond = node.get(&format!("{MESSAGES}?after=9")).await.expect(200).json();
    assert_eq!((seqs(&beyond), &beyond["first_seq"]), (vec![], &json!(0)));
}
