//! Frames that are none: each gets its error, changes nothing, and the socket goes on, as long as it is still a
//! WebSocket.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, close, problem};
use crate::contract;
use crate::sockets::Served;

#[tokio::test]
async fn a_frame_that_cannot_be_read_is_refused_and_the_socket_goes_on() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    let writes = node.replica.writes.lock().unwrap().len();
    for (text, id) in [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ("\u{0}", ""),
        (r#"{"type":"send","room":"hall","text":"a"}"#, ""),
        (r#"{"id":7,"type":"ping"}"#, ""),
        (r#"{"id":"x","type":"send","room":"hall","text":1}"#, "x"),
        (r#"{"id":"x","type":"send","room":"hall","text":"\ud800"}"#, "x"),
        (r#"{"id":"x","type":"subscribe","room":"hall"}"#, "x"),
        (r#"{"id":"x","type":"send","room":"hall","text":"a","nonsense":1}"#, "x"),
    ] {
        socket.put(Message::text(text)).await;
        let answer = socket.hear().await;
        let problem = problem(&answer, id, "bad_request");
        assert_eq!(problem["outcome"], "not_applied", "{text}");
        // The document does not say that other fields are refused.
        if let Ok(frame) = serde_json::from_str::<Value>(text)
            && frame.get("nonsense").is_none()
        {
            assert!(!contract::may_be_said(&frame).await, "{text}");
        }
    }
    socket.put(Message::binary(&br#"{"id":"x","type":"ping"}"#[..])).await;
    let answer = socket.hear().await;
    assert!(
        problem(&answer, "", "bad_request")["detail"]
            .as_str()
            .unwrap()
            .contains("binary")
    );
    assert_eq!(
        node.replica.writes.lock().unwrap().len(),
        writes,
        "something came to the replica"
    );
    socket.is_alive().await;
    node.until_metric(r#"requests_total{method="other",route="/v1/ws",status="400"} 11"#)
        .await;
}

#[tokio::test]
async fn what_may_be_said_is_in_the_document() {
    for frame in [
        json!({"id": "1", "type": "ping"}),
        json!({"id": "1", "type": "send", "room": "hall", "text": "a"}),
        json!({"id": "1", "type": "send", "room": "hall", "text": "a", "client_id": "c", "kind": "notice", "reply_to": 1,
            "attributes": {}, "idempotency_key": "k", "if_lock": "l;token=1", "if_match": 3, "timeout_ms": 1000}),
        json!({"id": "1", "type": "send_batch", "room": "hall", "messages": [{"text": "a"}]}),
    ] {
        assert!(contract::may_be_said(&frame).await, "{frame}");
    }
}

#[tokio::test]
async fn a_frame_beyond_the_bound_ends_the_socket_after_what_was_at_work_is_answered() {
    let node = Served::start(|limits| limits.body_bytes_max = 1000).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    assert_eq!(socket.hello["frame_bytes_max"], 1000);
    node.replica.hold(true);
    socket.send("1", "a").await;
    socket.send("2", &"x".repeat(2000)).await;
    node.until_metric(r#"refused_total{bound="writes"} 0"#).await;
    node.replica.hold(false);
    assert_eq!(socket.hear().await["id"], "1");
    assert_eq!(socket.closed().await, close(1009, "too_large"));
    node.until_metric(r#"connections_cut_total{reason="frame_too_large"} 1"#)
        .await;
}

#[tokio::test]
async fn a_frame_in_parts_is_one_and_its_bound_is_that_of_the_whole() {
    let node = Served::start(|limits| limits.body_bytes_max = 1000).await;
    node.room().await;
    // FIN is not set: text, then a continuation, each masked with zeros.
    let part = |first: bool, last: bool, text: &str| {
        let opcode = u8::from(first) | if last { 0x80 } else { 0 };
        let mut bytes = vec![opcode, 0x80 | 126];
        bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(text.as_bytes());
        bytes
    };
    let mut socket = Socket::open(&node, &[]).await;
    let raw = socket.stream.get_mut();
    raw.write_all(&part(true, false, r#"{"id":"1","#)).await.unwrap();
    // A ping between the parts.
    raw.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
    raw.write_all(&part(false, true, r#""type":"ping"}"#)).await.unwrap();
    let pong = loop {
        match futures::StreamExt::next(&mut socket.stream).await.unwrap().unwrap() {
            Message::Text(text) => break text,
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pong.as_str(), r#"{"type":"pong","id":"1"}"#);
    let half = "x".repeat(600);
    let raw = socket.stream.get_mut();
    raw.write_all(&part(true, false, &half)).await.unwrap();
    raw.write_all(&part(false, false, &half)).await.unwrap();
    assert_eq!(socket.closed().await, close(1009, "too_large"));
}

#[tokio::test]
async fn what_is_no_websocket_ends_it() {
    let node = Served::start(|_| ()).await;
    for (bytes, code) in [
        // Not masked, a reserved bit, a continuation of nothing, an unknown kind, half a letter.
        (&[0x81, 0x00][..], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x80, 0x80, 0, 0, 0, 0], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xc3], 1007),
    ] {
        let mut socket = Socket::open(&node, &[]).await;
        socket.stream.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(socket.closed().await, close(code, "bad_request"), "{bytes:02x?}");
    }
    node.until_metric(r#"connections_cut_total{reason="broken_frame"} 5"#)
        .await;
    node.is_alive().await;
}

#[tokio::test]
async fn a_client_may_close_and_nobody_waits_for_it() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    let mut socket = Socket::open(&node, &[]).await;
    node.replica.hold(true);
    socket.send("1", "a").await;
    socket.stream.close(None).await.unwrap();
    assert_eq!(
        socket.closed().await,
        None,
        "the answer to a close without a code has none"
    );
    node.until_metric(r#"requests_in_flight{class="sockets"} 0"#).await;
    node.until_metric(r#"requests_in_flight{class="writes"} 0"#).await;
    node.replica.hold(false);
}
