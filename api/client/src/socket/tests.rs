//! A socket against nodes whose answers the test writes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::testing::{dead_url, problem};
use crate::wire::NewMessage;
use crate::{Client, Error, Options};

/// What the node does about a frame.
enum Act {
    Say(Value),
    Silence,
    /// Ends the connection without a word.
    Cut,
    /// Goes down in an orderly way.
    Close,
}

struct FakeNode {
    url: String,
    /// Every frame, with the number of its connection.
    frames: Arc<Mutex<Vec<(usize, Value)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl FakeNode {
    /// `act(number, frame)` is asked about each frame; numbers count from 0 over all connections.
    async fn start(id: u64, act: impl Fn(usize, &Value) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let frames: Arc<Mutex<Vec<(usize, Value)>>> = Arc::default();
        let (log, act) = (Arc::clone(&frames), Arc::new(act));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, id, connection, Arc::clone(&log), Arc::clone(&act)));
            }
        });
        Self { url, frames, task }
    }

    fn frames(&self) -> Vec<(usize, Value)> {
        self.frames.lock().unwrap().clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: TcpStream,
    id: u64,
    connection: usize,
    log: Arc<Mutex<Vec<(usize, Value)>>>,
    act: Arc<impl Fn(usize, &Value) -> Act>,
) {
    // What asks for something else than a socket is turned away.
    let Ok(mut stream) = tokio_tungstenite::accept_hdr_async(socket, subprotocol).await else {
        return;
    };
    let hello = json!({"type": "hello", "node": id, "leader": id, "term": 1, "in_flight_max": 256,
        "frame_bytes_max": 4194304, "ping_interval_ms": 15000});
    stream.send(Message::text(hello.to_string())).await.unwrap();
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let number = {
            let mut log = log.lock().unwrap();
            log.push((connection, frame.clone()));
            log.len() - 1
        };
        match act(number, &frame) {
            Act::Say(answer) => stream.send(Message::text(answer.to_string())).await.unwrap(),
            Act::Silence => {}
            Act::Cut => return,
            Act::Close => {
                let frame = CloseFrame {
                    code: CloseCode::Away,
                    reason: "shutting_down".into(),
                };
                let _ = stream.close(Some(frame)).await;
            }
        }
    }
}

#[allow(clippy::result_large_err)]
fn subprotocol(
    request: &tokio_tungstenite::tungstenite::handshake::server::Request,
    mut response: tokio_tungstenite::tungstenite::handshake::server::Response,
) -> Result<
    tokio_tungstenite::tungstenite::handshake::server::Response,
    tokio_tungstenite::tungstenite::handshake::server::ErrorResponse,
> {
    let offered = request.headers()["sec-websocket-protocol"].clone();
    response.headers_mut().insert("sec-websocket-protocol", offered);
    Ok(response)
}

fn sent(frame: &Value, seq: u64) -> Act {
    Act::Say(
        json!({"id": frame["id"], "type": "sent", "room": frame["room"], "seq": seq, "rev": seq,
        "sent_at": "2026-01-31T12:00:00.000Z", "sender": "ann", "status": "committed", "position": "1.0.1"}),
    )
}

fn refused(frame: &Value, status: u16, code: &str, outcome: &str) -> Act {
    Act::Say(json!({"id": frame["id"], "type": "error", "problem": problem(status, code, outcome)}))
}

fn client(urls: &[&str], deadline: Duration) -> Client {
    patient_client(urls, deadline, Duration::from_secs(2))
}

fn patient_client(urls: &[&str], deadline: Duration, attempt: Duration) -> Client {
    let options = Options {
        deadline,
        attempt,
        ..Options::default()
    };
    Client::new(urls, options).unwrap()
}

fn text(text: &str) -> NewMessage {
    NewMessage {
        text: text.to_owned(),
        ..NewMessage::default()
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn many_sends_are_answered_by_their_ids() {
    let held: Arc<Mutex<Vec<Value>>> = Arc::default();
    let node = FakeNode::start(1, move |number, frame| {
        // Each is answered with the one before it, and the last two change places.
        let mut held = held.lock().unwrap();
        held.push(frame.clone());
        match number {
            0 => Act::Silence,
            _ => sent(&held[number - 1], number as u64),
        }
    })
    .await;
    let socket = client(&[&node.url], LONG).socket();
    let sends: Vec<_> = (0..50).map(|n| socket.send("hall", text(&n.to_string()))).collect();
    let mut sends: Vec<_> = sends.into_iter().map(|send| tokio::spawn(send)).collect();
    let last = sends.pop().unwrap();
    for (n, answer) in join_all(sends).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().unwrap().seq, n as u64 + 1);
    }
    last.abort();
    let frames = node.frames();
    assert!(frames.iter().all(|(connection, _)| *connection == 0), "one connection");
    let ids: std::collections::BTreeSet<_> = frames.iter().map(|(_, frame)| frame["client_id"].to_string()).collect();
    assert_eq!(ids.len(), 50, "each has a client_id of its own");
}

#[tokio::test]
async fn what_a_lost_connection_leaves_open_is_sent_again_as_it_was_to_another_node() {
    for ending in [|| Act::Cut, || Act::Close] {
        let first = FakeNode::start(1, move |number, frame| match number {
            0 => sent(frame, 1),
            1 | 2 => Act::Silence,
            _ => ending(),
        })
        .await;
        let second = FakeNode::start(2, |number, frame| sent(frame, number as u64 + 2)).await;
        let socket = client(&[&first.url, &second.url], LONG).socket();
        assert_eq!(socket.send("hall", text("0")).await.unwrap().seq, 1);
        let answers = join_all((1..4).map(|n| socket.send("hall", text(&n.to_string())))).await;
        let seqs: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().seq).collect();
        assert_eq!(seqs, [2, 3, 4], "in the order in which they were asked for");
        let strip = |frames: Vec<(usize, Value)>| frames.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>();
        assert_eq!(strip(first.frames())[1..], strip(second.frames())[..]);
    }
}

#[tokio::test]
async fn a_node_that_cannot_serve_is_left_for_another() {
    let first = FakeNode::start(1, |_, frame| refused(frame, 503, "shutting_down", "not_applied")).await;
    let second = FakeNode::start(2, |_, frame| sent(frame, 7)).await;
    let socket = client(&[&first.url, &second.url], LONG).socket();
    assert_eq!(socket.send("hall", text("a")).await.unwrap().seq, 7);
    let dead = dead_url().await;
    let socket = client(&[&dead, &second.url], LONG).socket();
    assert_eq!(socket.send("hall", text("a")).await.unwrap().seq, 7);
}

#[tokio::test]
async fn what_may_succeed_later_is_sent_again_on_the_same_connection() {
    let node = FakeNode::start(1, |number, frame| match number {
        0 => refused(frame, 429, "overloaded", "not_applied"),
        1 => refused(frame, 504, "commit_unknown", "unknown"),
        _ => sent(frame, 1),
    })
    .await;
    let socket = client(&[&node.url], LONG).socket();
    assert_eq!(socket.send("hall", text("a")).await.unwrap().seq, 1);
    let frames = node.frames();
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|one| *one == frames[0]), "{frames:?}");
}

#[tokio::test]
async fn a_refusal_is_the_answer_unless_an_earlier_attempt_may_have_been_applied() {
    let node = FakeNode::start(1, |_, frame| refused(frame, 403, "not_a_member", "not_applied")).await;
    let socket = client(&[&node.url], LONG).socket();
    let error = socket.send("den", text("a")).await.unwrap_err();
    assert_eq!(error.code(), Some("not_a_member"));

    let node = FakeNode::start(1, |number, frame| match number {
        0 => Act::Cut,
        _ => refused(frame, 403, "not_a_member", "not_applied"),
    })
    .await;
    let socket = client(&[&node.url], LONG).socket();
    let error = socket.send("den", text("a")).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
}

#[tokio::test]
async fn a_send_ends_with_its_deadline_and_says_what_is_known() {
    let short = Duration::from_millis(300);
    let dead = dead_url().await;
    let socket = client(&[&dead], short).socket();
    let error = socket.send("hall", text("a")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("failed to connect"), "{error}");

    let node = FakeNode::start(1, |_, _| Act::Silence).await;
    let socket = client(&[&node.url], short).socket();
    let message = NewMessage {
        client_id: Some("mine".to_owned()),
        ..text("a")
    };
    let error = socket.send("hall", message).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(error.to_string().contains("client_id mine"), "{error}");
}

#[tokio::test]
async fn sends_in_flight_are_bounded() {
    const LAST: usize = super::IN_FLIGHT_MAX - 1;
    let full = Arc::new(Notify::new());
    let told = Arc::clone(&full);
    // The last one that fits is answered, and its place is taken by the one that waits for it.
    let node = FakeNode::start(1, move |number, frame| match number {
        LAST => sent(frame, 1),
        super::IN_FLIGHT_MAX => {
            told.notify_one();
            Act::Silence
        }
        _ => Act::Silence,
    })
    .await;
    // As patient with an answer: what is not answered in time is sent again.
    let patient = patient_client(&[&node.url], LONG, LONG).socket();
    let sends = (0..=super::IN_FLIGHT_MAX).map(|n| tokio::spawn(patient.send("hall", text(&n.to_string()))));
    let sends: Vec<_> = sends.collect();
    let waited = tokio::time::timeout(LONG, full.notified()).await;
    waited.expect("an answer makes room for the send that waits");

    // Another deadline than theirs: a place that is given back in time is rightly taken.
    let hasty = super::Socket {
        deadline: Duration::from_millis(300),
        ..patient
    };
    for answer in join_all((0..3).map(|_| hasty.send("hall", text("one too many")))).await {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("too many sends are in flight"), "{error}");
    }
    assert_eq!(node.frames().len(), super::IN_FLIGHT_MAX + 1, "the rest was never sent");
    let answered = sends.iter().filter(|send| send.is_finished()).count();
    assert_eq!(answered, 1, "the others wait on");
}

#[tokio::test]
async fn a_connection_is_closed_with_the_last_handle() {
    let node = FakeNode::start(1, |_, frame| sent(frame, 1)).await;
    let socket = client(&[&node.url], LONG).socket();
    let other = socket.clone();
    let answer = tokio::spawn(other.send("hall", text("a")));
    drop((socket, other));
    assert_eq!(
        answer.await.unwrap().unwrap().seq,
        1,
        "a send that is not answered keeps it open"
    );
}
