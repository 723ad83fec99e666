//! The room stream: each message once, whatever was cut where; bookmarks; and every way it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use quorate_api::{ApiConfig, Limits};
use quorate_state_machine::Command;
use quorate_state_machine::RoomKind;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::caller::{Node, Reply, in_time, request};

pub(crate) const STREAM: &str = "/v1/rooms/hall/stream";

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

pub(crate) struct Stream {
    position: String,
    body: Body,
    received: String,
}

impl Stream {
    pub(crate) async fn open(node: &Node, path: &str, headers: &[(&str, &str)]) -> Self {
        let response = node
            .router
            .clone()
            .oneshot(request("GET", path, headers, Body::empty()))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(response.headers()["x-quorate-level"], "linearizable");
        let position = response.headers()["x-quorate-position"].to_str().unwrap().to_owned();
        Self {
            position,
            body: response.into_body(),
            received: String::new(),
        }
    }

    pub(crate) async fn resume(node: &Node, id: &str) -> Self {
        Self::open(node, STREAM, &[("last-event-id", id)]).await
    }

    /// None at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        in_time(self.next_untimed()).await
    }

    async fn next_untimed(&mut self) -> Option<Event> {
        while !self.received.contains("\n\n") {
            let piece = self.body.frame().await?.unwrap().into_data().unwrap();
            self.received.push_str(std::str::from_utf8(&piece).unwrap());
        }
        let (frame, rest) = self.received.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let values: Vec<&str> = frame.lines().filter_map(|line| line.strip_prefix(name)).collect();
            assert!(values.len() <= 1, "{frame}");
            values.first().copied().unwrap_or_default().to_owned()
        };
        let data = serde_json::from_str(&field("data: ")).unwrap();
        let event = Event {
            event: field("event: "),
            id: field("id: "),
            data,
        };
        self.received = rest.to_owned();
        Some(event)
    }

    pub(crate) async fn expect(&mut self, event: &str) -> Event {
        let next = self.next().await.expect("the stream goes on");
        assert_eq!(next.event, event, "{next:?}");
        next
    }

    /// The next `count` events that are no bookmarks.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let event = self.next().await.expect("the stream goes on");
            if event.event != "bookmark" {
                events.push(event);
            }
        }
        events
    }
}

pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> ApiConfig {
    let mut limits = Limits::default();
    change(&mut limits);
    ApiConfig {
        limits,
        ..ApiConfig::default()
    }
}

pub(crate) async fn until(node: &Node, line: &str) {
    in_time(async {
        while !String::from_utf8(node.get("/metrics").await.body)
            .unwrap()
            .contains(line)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn from_now_on() {
    let node = Node::furnished().await;
    node.say("hall", &["before"]).await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    let bookmark = stream.expect("bookmark").await;
    assert_eq!(bookmark.id, stream.position);
    assert_eq!(bookmark.data["room"], "hall");
    node.say("den", &["elsewhere"]).await;
    node.say("hall", &["line\nbreak"]).await;
    let message = stream.expect("message").await;
    // Byte for byte what GET gives.
    assert_eq!(message.data, node.get("/v1/rooms/hall/messages/2").await.json());
    assert_eq!(message.data["text"], "line\nbreak");

    let ann = "/v1/rooms/hall/members/ann";
    node.ask("PUT", ann, &[]).await.expect(201);
    let event = stream.expect("member").await;
    assert_eq!(
        event.data,
        json!({"room": "hall", "rev": event.data["rev"], "user": "ann", "role": "member"})
    );
    node.ask("DELETE", ann, &[]).await.expect(204);
    let event = stream.expect("member").await;
    assert_eq!(
        event.data,
        json!({"room": "hall", "rev": event.data["rev"], "user": "ann"})
    );
    let room = node
        .send("PATCH", "/v1/rooms/hall", &[], r#"{"title":"T"}"#)
        .await
        .expect(200)
        .json();
    assert_eq!(
        stream.expect("room").await.data,
        json!({"room": "hall", "rev": room["rev"]})
    );
}

#[tokio::test]
async fn after_a_seq_and_on() {
    let node = Node::furnished().await;
    let texts: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    node.say("hall", &texts).await;
    let mut stream = Stream::open(&node, "/v1/rooms/hall/stream?after=2", &[]).await;
    for seq in 3..=100 {
        assert_eq!(stream.expect("message").await.data["seq"], seq);
    }
    // Only now is everything delivered that a bookmark would promise.
    let bookmark = stream.expect("bookmark").await;
    assert_eq!(bookmark.id, stream.position);
    node.say("hall", &["live"]).await;
    assert_eq!(stream.expect("message").await.data["seq"], 101);
    let mut beyond = Stream::open(&node, "/v1/rooms/hall/stream?after=999", &[]).await;
    beyond.expect("bookmark").await;
    node.say("hall", &["live"]).await;
    assert_eq!(beyond.expect("message").await.data["seq"], 102);
}

#[tokio::test]
async fn cut_at_every_event_and_resumed() {
    let node = Node::furnished().await;
    let start = Stream::open(&node, STREAM, &[]).await.position;
    node.say("hall", &["1", "2"]).await;
    let batch =
        |texts: &[&str]| json!({"messages": texts.iter().map(|text| json!({"text": text})).collect::<Vec<_>>()});
    node.post("/v1/rooms/hall/messages/batch", batch(&["3", "4", "5"]))
        .await
        .expect(201);
    node.ask("PUT", "/v1/rooms/hall/members/ann", &[]).await.expect(201);
    node.post("/v1/rooms/hall/messages/batch", batch(&["6", "7"]))
        .await
        .expect(201);
    edit(&node, 4, "4, edited").await;
    node.ask("DELETE", "/v1/rooms/hall/members/ann", &[]).await.expect(204);
    node.ask("DELETE", "/v1/rooms/hall/messages/2", &[]).await.expect(204);
    node.say("hall", &["8"]).await;
    edit(&node, 8, "8, edited").await;

    let whole = Stream::resume(&node, &start).await.take(13).await;
    let seqs_of = |name: &str| -> Vec<u64> {
        let named = whole.iter().filter(|event| event.event == name);
        named.map(|event| event.data["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs_of("message"), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((seqs_of("edit"), seqs_of("redact")), (vec![4, 8], vec![2]));
    for (n, cut) in whole.iter().enumerate() {
        let mut resumed = Stream::resume(&node, &cut.id).await;
        assert_eq!(resumed.expect("bookmark").await.id, cut.id);
        let rest = resumed.take(whole.len() - n - 1).await;
        assert_eq!(rest, whole[n + 1..], "cut behind {cut:?}");
        // And nothing of it again, but what comes next, with what came behind the earlier cuts.
        node.say("hall", &["next"]).await;
        for (seq, event) in (9..).zip(resumed.take(n + 1).await) {
            assert_eq!((&event.data["text"], &event.data["seq"]), (&json!("next"), &json!(seq)));
        }
    }
}

pub(crate) async fn edit(node: &Node, seq: u64, text: &str) -> Value {
    let body = json!({ "text": text }).to_string();
    let path = format!("/v1/rooms/hall/messages/{seq}");
    node.send("PATCH", &path, &[], body).await.expect(200).json()
}

/// An edit comes with the message's text, as it is when the event is delivered: what was taken away since is not
/// told again.
#[tokio::test]
async fn edits_and_redactions() {
    let node = Node::furnished().await;
    node.say("hall", &["one", "two"]).await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    let start = stream.expect("bookmark").await.id;
    let edited = edit(&node, 1, "line\nbreak").await;
    let event = stream.expect("edit").await;
    assert_eq!(
        event.data,
        json!({"room": "hall", "seq": 1, "rev": edited["rev"], "text": "line\nbreak",
               "edited_at": edited["edited_at"]})
    );
    node.ask("DELETE", "/v1/rooms/hall/messages/2", &[]).await.expect(204);
    let redacted = node.get("/v1/rooms/hall/messages/2").await.json();
    let event = stream.expect("redact").await;
    assert_eq!(
        event.data,
        json!({"room": "hall", "seq": 2, "rev": redacted["rev"], "redacted_at": redacted["redacted_at"]})
    );
    // The same text again tells nothing.
    edit(&node, 1, "line\nbreak").await;
    node.say("hall", &["three"]).await;
    stream.expect("message").await;

    // Who comes later is told of each, with what the message says by then.
    edit(&node, 1, "later").await;
    let late = Stream::resume(&node, &start).await.take(4).await;
    let told: Vec<_> = late
        .iter()
        .map(|event| (event.event.as_str(), &event.data["text"]))
        .collect();
    let later = json!("later");
    assert_eq!(
        told,
        [
            ("edit", &later),
            ("redact", &Value::Null),
            ("message", &json!("three")),
            ("edit", &later)
        ]
    );
    assert_eq!(
        (&late[0].data["rev"], &late[0].id),
        (&edited["rev"], &event_id(&start, &edited["rev"]))
    );
    node.ask("DELETE", "/v1/rooms/hall/messages/1", &[]).await.expect(204);
    let late = Stream::resume(&node, &start).await.take(5).await;
    assert!(
        late[0].data.get("text").is_none() && late[3].data.get("text").is_none(),
        "{late:?}"
    );
}

/// The position of a change of one event.
fn event_id(position: &str, rev: &Value) -> String {
    let (store, _) = position.rsplit_once('.').unwrap();
    format!("{store}.{rev}")
}

/// What is committed while a stream's query is on its way back is not in its answer, and must
/// still wake the stream.
#[tokio::test]
async fn no_wake_up_is_lost() {
    let node = Node::furnished_with(limits(|limits| limits.bookmark_interval = Duration::from_secs(3600))).await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    stream.expect("bookmark").await;
    node.replica.hold_answers(true);
    node.say("hall", &["1"]).await;
    in_time(async {
        while node.replica.answers_waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.say("hall", &["2"]).await;
    node.replica.hold_answers(false);
    assert_eq!(stream.expect("message").await.data["seq"], 1);
    assert_eq!(stream.expect("message").await.data["seq"], 2);
}

#[tokio::test]
async fn the_last_event_id_wins_and_is_checked() {
    let node = Node::furnished().await;
    node.say("hall", &["1", "2", "3"]).await;
    let second = Stream::open(&node, "/v1/rooms/hall/stream?after=0", &[])
        .await
        .take(2)
        .await
        .pop()
        .unwrap();
    let mut stream = Stream::open(&node, "/v1/rooms/hall/stream?after=0", &[("last-event-id", &second.id)]).await;
    assert_eq!(stream.take(1).await[0].data["seq"], 3);

    node.ask("GET", STREAM, &[("last-event-id", "x")])
        .await
        .problem(400, "bad_request");
    let gone = node
        .ask("GET", STREAM, &[("last-event-id", "77.1.1")])
        .await
        .problem(410, "position_expired");
    assert_eq!(gone["oldest"], stream.position);
    let ahead = format!("{}.1.9999", stream.position.split('.').next().unwrap());
    let headers = [("last-event-id", ahead.as_str()), ("request-timeout-ms", "1")];
    node.ask("GET", STREAM, &headers).await.problem(503, "not_ready");
}

#[tokio::test]
async fn bookmarks_come_by_themselves_and_move_on() {
    let node = Node::furnished_with(limits(|limits| limits.bookmark_interval = Duration::from_millis(10))).await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    let first = stream.expect("bookmark").await;
    node.say("den", &["elsewhere"]).await;
    let mut next = stream.expect("bookmark").await;
    while next.id == first.id {
        next = stream.expect("bookmark").await;
    }
    assert_eq!(next.id, node.get("/v1/rooms/hall").await.header("x-quorate-position"));
}

#[tokio::test]
async fn a_slow_reader_is_told_and_can_resume() {
    let node = Node::furnished_with(limits(|limits| limits.slow_consumer_after = Duration::from_millis(20))).await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    stream.expect("bookmark").await;
    let large = "x".repeat(40_000);
    node.say("hall", &[large.as_str(); 12]).await;
    // Nothing was read meanwhile, and the node gives the stream up by itself.
    until(&node, "quorate_http_slow_consumers_total 1").await;
    until(&node, "quorate_http_streams 0").await;
    let mut seen = 0;
    let mut last = String::new();
    let end = loop {
        let event = stream.next().await.unwrap();
        match event.event.as_str() {
            "message" => {
                seen += 1;
                assert_eq!(event.data["seq"], seen);
                last = event.id;
            }
            "bookmark" => last = event.id,
            _ => break event,
        }
    };
    assert_eq!((end.event.as_str(), &end.id), ("slow_consumer", &last));
    assert_eq!(stream.next().await, None);
    assert!((1..12).contains(&seen), "{seen}");
    let mut resumed = Stream::resume(&node, &last).await;
    for event in resumed.take(usize::try_from(12 - seen).unwrap()).await {
        seen += 1;
        assert_eq!(event.data["seq"], seen);
    }
}

#[tokio::test]
async fn it_ends_with_the_room_and_with_the_membership() {
    let node = Node::furnished().await;
    let mut hall = Stream::open(&node, STREAM, &[]).await;
    hall.expect("bookmark").await;
    let mut den = Stream::open(&node, "/v1/rooms/den/stream", &[("x-quorate-user", "ann")]).await;
    den.expect("bookmark").await;

    node.ask("DELETE", "/v1/rooms/hall", &[]).await.expect(204);
    let event = hall.expect("room").await;
    assert_eq!(
        (&event.data["room"], &event.data["deleted"]),
        (&json!("hall"), &json!(true))
    );
    assert_eq!(hall.next().await, None);

    node.ask("PUT", "/v1/rooms/den/members/bob", &[]).await.expect(201);
    node.send("PUT", "/v1/rooms/den/members/bob", &[], r#"{"role":"owner"}"#)
        .await
        .expect(200);
    den.take(2).await;
    node.ask("DELETE", "/v1/rooms/den/members/ann", &[]).await.expect(204);
    node.say("den", &["not for ann"]).await;
    while let Some(event) = den.next().await {
        assert_ne!(event.event, "message");
    }
}

#[tokio::test]
async fn a_room_made_anew_is_another_room() {
    let node = Node::furnished().await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    stream.expect("bookmark").await;
    node.replica.apply_at_once([
        Command::DeleteRoom {
            room: "hall".to_owned(),
        },
        Command::CreateRoom {
            room: "hall".to_owned(),
            kind: RoomKind::Public,
            title: None,
            members: Vec::new(),
            attributes: None,
        },
    ]);
    let expired = stream.expect("expired").await;
    assert_eq!(expired.id, "");
    assert_eq!(stream.next().await, None);
    let oldest = expired.data["oldest"].as_str().unwrap();
    Stream::resume(&node, oldest).await.expect("bookmark").await;
}

#[tokio::test]
async fn it_ends_when_the_node_shuts_down() {
    let node = Node::furnished().await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    stream.expect("bookmark").await;
    node.replica.shutting_down.cancel();
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn only_so_many_streams() {
    let node = Node::furnished_with(limits(|limits| limits.streams_max = 1)).await;
    let mut stream = Stream::open(&node, STREAM, &[]).await;
    stream.expect("bookmark").await;
    until(&node, "quorate_http_streams 1").await;
    let refused: Reply = node.get(STREAM).await;
    refused.problem(429, "overloaded");
    drop(stream);
    until(&node, "quorate_http_streams 0").await;
    Stream::open(&node, STREAM, &[]).await.expect("bookmark").await;
}
