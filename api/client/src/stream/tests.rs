//! A stream cut at any place and resumed on another node gives each event once.

use std::time::Duration;

use crate::testing::{FakeNode, Received, Reply, dead_url, json, problem};
use crate::wire::{Edited, Redacted};
use crate::{Client, Error, EventBody, Options, RoomStream, StreamFrom};

fn options() -> Options {
    Options {
        deadline: Duration::from_secs(3),
        attempt: Duration::from_secs(1),
        stream_idle: Duration::from_millis(200),
        ..Options::default()
    }
}

fn message(seq: u64) -> String {
    let data = serde_json::json!({"room": "r", "seq": seq, "rev": seq + 100, "sender": "root",
        "sent_at": "2026-01-01T00:00:00.000Z", "kind": "text", "text": format!("line\n{seq}")});
    format!("event: message\nid: 1.1.{}\ndata: {data}\n\n", seq + 100)
}

/// A room of `count` messages as a node streams it: from the request's position on, cut after so
/// many bytes, and the end of the connection.
fn serve(request: &Received, count: u64, bytes_max: usize) -> Reply {
    let after = match request.headers.get("last-event-id") {
        Some(id) => id.strip_prefix("1.1.").unwrap().parse::<u64>().unwrap() - 100,
        None => request
            .path
            .split_once("after=")
            .map_or(0, |(_, seq)| seq.parse().unwrap()),
    };
    let mut text: String = (after + 1..=count).map(message).collect();
    text.truncate(bytes_max);
    Reply::Stream(Vec::new(), vec![text])
}

async fn seqs(stream: &mut RoomStream, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        if let EventBody::Message(message) = stream.next().await.unwrap().body {
            seqs.push(message.seq);
        }
    }
    seqs
}

#[tokio::test]
async fn a_stream_that_is_cut_again_and_again_has_no_gap_and_no_duplicate() {
    // Cuts inside the first frame, inside later ones, and at a frame's end.
    let frame = message(1).len();
    for cut in [frame, frame + 1, frame + 30, 2 * frame - 1, 2 * frame, 3 * frame + 9] {
        let one = FakeNode::start(move |request, _| serve(request, 9, cut)).await;
        let two = FakeNode::start(move |request, _| serve(request, 9, cut)).await;
        let client = Client::new(&[&one.url, &dead_url().await, &two.url], options()).unwrap();
        let mut stream = client.stream("r", StreamFrom::AfterSeq(2)).unwrap();
        assert_eq!(seqs(&mut stream, 7).await, [3, 4, 5, 6, 7, 8, 9], "cut at {cut}");
        assert_eq!(stream.position(), Some("1.1.109"));
        assert!(
            !one.received().is_empty() && !two.received().is_empty(),
            "both nodes were asked"
        );
    }
}

#[tokio::test]
async fn a_stream_resumes_from_a_position_and_a_bookmark_moves_it() {
    let node = FakeNode::start(|_, n| match n {
        0 => Reply::Stream(
            Vec::new(),
            vec![": hi\n\n".into(), "event: bookmark\nid: 1.1.200\ndata: {}\n\n".into()],
        ),
        _ => Reply::Open(vec![
            message(101),
            "event: member\nid: 1.1.202\ndata: {\"user\":\"a\"}\n\n".into(),
        ]),
    })
    .await;
    let client = Client::new(&[&node.url], options()).unwrap();
    let mut stream = client.stream("r", StreamFrom::Position("1.1.150".into())).unwrap();
    assert_eq!(stream.next().await.unwrap().body, EventBody::Bookmark);
    assert_eq!(seqs(&mut stream, 1).await, [101]);
    let change = stream.next().await.unwrap();
    assert_eq!(change.position.as_deref(), Some("1.1.202"));
    assert!(matches!(change.body, EventBody::Change { event, .. } if event == "member"));
    let asked: Vec<String> = node
        .received()
        .iter()
        .map(|request| request.headers["last-event-id"].clone())
        .collect();
    assert_eq!(asked, ["1.1.150", "1.1.200"]);
}

#[tokio::test]
async fn edits_and_redactions_are_events_of_their_own() {
    let node = FakeNode::start(|_, _| {
        Reply::Open(vec![
            "event: edit\nid: 1.1.7\ndata: {\"room\":\"r\",\"seq\":1,\"rev\":7,\"text\":\"b\",\"edited_at\":\"t\"}\n\n"
                .into(),
            "event: edit\nid: 1.1.8\ndata: {\"room\":\"r\",\"seq\":2,\"rev\":8,\"later\":1}\n\n".into(),
            "event: redact\nid: 1.1.9\ndata: {\"room\":\"r\",\"seq\":2,\"rev\":9,\"redacted_at\":\"u\"}\n\n".into(),
        ])
    })
    .await;
    let client = Client::new(&[&node.url], options()).unwrap();
    let mut stream = client.stream("r", StreamFrom::Now).unwrap();
    let edited = |seq, rev, text: Option<&str>, at: Option<&str>| {
        EventBody::Edited(Box::new(Edited {
            room: "r".into(),
            seq,
            rev,
            text: text.map(str::to_owned),
            edited_at: at.map(str::to_owned),
        }))
    };
    assert_eq!(stream.next().await.unwrap().body, edited(1, 7, Some("b"), Some("t")));
    // What a later version adds does not matter; a text may be gone by now.
    assert_eq!(stream.next().await.unwrap().body, edited(2, 8, None, None));
    let redacted = stream.next().await.unwrap();
    assert_eq!(redacted.position.as_deref(), Some("1.1.9"));
    let Redacted {
        seq, rev, redacted_at, ..
    } = match redacted.body {
        EventBody::Redacted(redacted) => *redacted,
        other => panic!("{other:?}"),
    };
    assert_eq!((seq, rev, redacted_at.as_deref()), (2, 9, Some("u")));
}

#[tokio::test]
async fn now_is_when_the_first_connection_began() {
    let node = FakeNode::start(|_, n| match n {
        0 => Reply::Stream(vec![("X-Quorate-Position", "1.1.104".into())], Vec::new()),
        _ => Reply::Open(vec![message(5)]),
    })
    .await;
    let mut stream = Client::new(&[&node.url], options())
        .unwrap()
        .stream("r", StreamFrom::Now)
        .unwrap();
    assert_eq!(seqs(&mut stream, 1).await, [5]);
    let received = node.received();
    assert_eq!(received[0].headers.get("last-event-id"), None);
    assert_eq!(
        received[1].headers["last-event-id"], "1.1.104",
        "what came between is not lost"
    );
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let stuck = FakeNode::start(|_, _| Reply::Open(vec![message(1)])).await;
    let live = FakeNode::start(|request, _| serve(request, 2, usize::MAX)).await;
    let client = Client::new(&[&stuck.url, &live.url], options()).unwrap();
    let mut stream = client.stream("r", StreamFrom::AfterSeq(0)).unwrap();
    assert_eq!(seqs(&mut stream, 2).await, [1, 2]);
}

#[tokio::test]
async fn a_slow_reader_resumes_and_an_expired_position_ends() {
    let node = FakeNode::start(|_, n| match n {
        0 => Reply::Open(vec![message(1), "event: slow_consumer\ndata: {}\n\n".into()]),
        1 => Reply::Open(vec![
            message(2),
            "event: expired\ndata: {\"oldest\":\"1.1.900\"}\n\n".into(),
        ]),
        _ => json(410, problem(410, "position_expired", "not_applied")),
    })
    .await;
    let mut stream = Client::new(&[&node.url], options())
        .unwrap()
        .stream("r", StreamFrom::AfterSeq(0))
        .unwrap();
    assert_eq!(seqs(&mut stream, 2).await, [1, 2]);
    for _ in 0..2 {
        assert_eq!(stream.next().await.unwrap_err().code(), Some("position_expired"));
    }
}

#[tokio::test]
async fn an_outage_is_reported_and_the_stream_can_go_on_from_where_it_stood() {
    let node = FakeNode::start(|request, n| match n {
        0 => serve(request, 1, usize::MAX),
        1..=4 => json(503, problem(503, "not_ready", "not_applied")),
        _ => serve(request, 2, usize::MAX),
    })
    .await;
    let options = Options {
        deadline: Duration::from_millis(80),
        ..options()
    };
    let mut stream = Client::new(&[&node.url], options)
        .unwrap()
        .stream("r", StreamFrom::AfterSeq(0))
        .unwrap();
    assert_eq!(seqs(&mut stream, 1).await, [1]);
    let mut outages = 0;
    let second = loop {
        match stream.next().await {
            Ok(event) => break event,
            Err(Error::Unavailable { .. }) => outages += 1,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(outages > 0);
    assert!(matches!(second.body, EventBody::Message(message) if message.seq == 2));
}

#[tokio::test]
async fn a_room_that_is_gone_ends_the_stream() {
    let node = FakeNode::start(|_, _| json(404, problem(404, "not_found", "not_applied"))).await;
    let mut stream = Client::new(&[&node.url], options())
        .unwrap()
        .stream("r", StreamFrom::Now)
        .unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Some("not_found"));
}
