//! Many readers of one room: each change is written out once, and still everybody gets what he would get alone.

use std::time::Duration;

use serde_json::json;

use crate::caller::Node;
use crate::stream::{Event, STREAM, Stream, edit, limits, until};

async fn metric(node: &Node, name: &str) -> u64 {
    let text = String::from_utf8(node.get("/metrics").await.body).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}

async fn encoded(node: &Node) -> u64 {
    metric(node, "quorate_http_stream_events_encoded_total").await
}

async fn delivered(node: &Node) -> u64 {
    metric(node, "quorate_http_stream_events_delivered_total").await
}

/// A stream from now on, as this user; root where the name is empty.
async fn follow(node: &Node, path: &str, user: &str) -> Stream {
    let headers = [("x-quorate-user", user)];
    let headers: &[(&str, &str)] = if user.is_empty() { &[] } else { &headers };
    let mut stream = Stream::open(node, path, headers).await;
    stream.expect("bookmark").await;
    stream
}

#[tokio::test]
async fn a_change_is_written_out_once_for_all_who_follow() {
    let node = Node::furnished().await;
    let start = node.get("/v1/rooms/hall").await.header("x-quorate-position").to_owned();
    let mut readers = Vec::new();
    for user in ["", "ann", "bob", "", "ann", "bob", "", "ann"] {
        readers.push(follow(&node, STREAM, user).await);
    }
    // One at a time, and many at once, some of which have one revision.
    let mut seen: Vec<Vec<Event>> = vec![Vec::new(); readers.len()];
    for n in 1..=10 {
        node.say("hall", &[&n.to_string()]).await;
        for (reader, seen) in readers.iter_mut().zip(&mut seen) {
            seen.extend(reader.take(1).await);
        }
    }
    for n in 0..10 {
        let batch = json!({"messages": [{"text": format!("{n}, first")}, {"text": format!("{n}, second")}]});
        node.post("/v1/rooms/hall/messages/batch", batch).await.expect(201);
        node.ask("PUT", "/v1/rooms/hall/members/ann", &[]).await;
        node.ask("DELETE", "/v1/rooms/hall/members/ann", &[]).await.expect(204);
    }
    for (reader, seen) in readers.iter_mut().zip(&mut seen) {
        seen.extend(reader.take(40).await);
    }
    assert_eq!((encoded(&node).await, delivered(&node).await), (50, 50 * 8));
    for one in &seen {
        assert_eq!(one, &seen[0]);
    }
    // Alone, it is the same.
    assert_eq!(Stream::resume(&node, &start).await.take(50).await, seen[0]);

    drop(readers);
    until(&node, "quorate_http_streams 0").await;
    assert_eq!(metric(&node, "quorate_http_stream_tail_bytes").await, 0);
}

/// Who reads nothing for a while gets what is no longer kept from the state, and then goes on with the others.
#[tokio::test]
async fn who_is_far_behind_loses_nothing_and_little_is_kept_for_him() {
    let node = Node::furnished_with(limits(|limits| limits.slow_consumer_after = Duration::from_secs(3600))).await;
    let mut behind = follow(&node, STREAM, "bob").await;
    let mut ahead = follow(&node, STREAM, "ann").await;
    let large = "x".repeat(20_000);
    for seq in 1..=60 {
        node.say("hall", &[&large]).await;
        assert_eq!(ahead.expect("message").await.data["seq"], seq);
    }
    // 1.2 MB were sent.
    let kept = metric(&node, "quorate_http_stream_tail_bytes").await;
    assert!((1..=256 << 10).contains(&kept), "{kept}");
    assert!(
        encoded(&node).await < 60 + 10,
        "he who reads nothing has hardly asked for anything"
    );
    for seq in 1..=60 {
        assert_eq!(behind.expect("message").await.data["seq"], seq);
    }
    let encoded_by_both = encoded(&node).await;
    assert!(
        encoded_by_both > 60 + 30,
        "{encoded_by_both}: most of it was written out again"
    );
    for seq in 61..=80 {
        node.say("hall", &["small"]).await;
        assert_eq!(behind.expect("message").await.data["seq"], seq);
        assert_eq!(ahead.expect("message").await.data["seq"], seq);
    }
    assert_eq!(encoded(&node).await, encoded_by_both + 20);
    assert_eq!(delivered(&node).await, 2 * 80);
}

/// Whoever of the readers it is who asks the state for all.
#[tokio::test]
async fn who_may_not_read_any_more_is_told_nothing_of_what_others_are() {
    for ann_is_first in [true, false] {
        let node = Node::furnished().await;
        let den = "/v1/rooms/den/stream";
        let put = node
            .send("PUT", "/v1/rooms/den/members/bob", &[], r#"{"role":"owner"}"#)
            .await;
        put.expect(201);
        let mut ann = None;
        if ann_is_first {
            ann = Some(follow(&node, den, "ann").await);
        }
        let mut others = [follow(&node, den, "bob").await, follow(&node, den, "").await];
        let mut ann = match ann {
            Some(ann) => ann,
            None => follow(&node, den, "ann").await,
        };
        node.say("den", &["for all"]).await;
        ann.expect("message").await;
        node.ask("DELETE", "/v1/rooms/den/members/ann", &[]).await.expect(204);
        node.say("den", &["not for ann"]).await;
        for other in &mut others {
            other.expect("message").await;
            other.expect("member").await;
            assert_eq!(other.expect("message").await.data["text"], "not for ann");
        }
        while let Some(event) = ann.next().await {
            assert_ne!(event.event, "message", "{event:?}");
        }
    }
}

#[tokio::test]
async fn a_user_who_is_deleted_is_told_nothing_more_of_a_public_room() {
    for bob_is_first in [true, false] {
        let node = Node::furnished().await;
        let users = if bob_is_first { ["bob", ""] } else { ["", "bob"] };
        let mut streams = [
            follow(&node, STREAM, users[0]).await,
            follow(&node, STREAM, users[1]).await,
        ];
        let [bob, root] = if bob_is_first { [0, 1] } else { [1, 0] };
        node.say("hall", &["for all"]).await;
        for stream in &mut streams {
            stream.expect("message").await;
        }
        // Nothing happens in the room.
        node.ask("DELETE", "/v1/users/bob", &[]).await.expect(204);
        node.say("hall", &["not for bob"]).await;
        assert_eq!(streams[root].expect("message").await.data["text"], "not for bob");
        assert_eq!(streams[bob].next().await, None);
    }
}

/// What a message said is kept for nobody once it was taken away.
#[tokio::test]
async fn a_text_that_was_taken_away_is_not_told_again() {
    let node = Node::furnished_with(limits(|limits| limits.slow_consumer_after = Duration::from_secs(3600))).await;
    let mut behind = follow(&node, STREAM, "bob").await;
    let mut ahead = follow(&node, STREAM, "ann").await;
    // More than the way to his socket holds.
    for _ in 0..8 {
        node.say("hall", &["hello"]).await;
        ahead.expect("message").await;
    }
    node.say("hall", &["secret", "wrong"]).await;
    assert_eq!(ahead.take(2).await[0].data["text"], "secret");
    node.ask("DELETE", "/v1/rooms/hall/messages/9", &[]).await.expect(204);
    edit(&node, 10, "right").await;
    assert_eq!(ahead.take(2).await[1].data["text"], "right");

    let told = behind.take(12).await;
    let told: Vec<_> = told[7..]
        .iter()
        .map(|event| (event.event.as_str(), event.data.get("text")))
        .collect();
    let (hello, right) = (json!("hello"), json!("right"));
    let expected = [
        ("message", Some(&hello)),
        ("message", None),
        ("message", Some(&right)),
        ("redact", None),
        ("edit", Some(&right)),
    ];
    assert_eq!(told, expected);
}
