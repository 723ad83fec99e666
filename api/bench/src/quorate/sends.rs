//! Messages, one a request or many.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_client::{Error, Level};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::http::{Http, encode, parse};
use super::scatter;
use super::socket::Sockets;
use super::stage::Stage;
use super::text::{Content, Texts};
use crate::target::{Call, Done, Fault, Target, Unheld};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Bytes of a frame beside its head and its content: the id, and an idempotency key.
const FRAME_MORE: usize = 96;

/// By which door requests come in.
#[derive(Debug, Clone)]
pub enum Door {
    /// Each over a connection that it has for itself, or shares by HTTP/2.
    Http(Arc<Http>),
    /// Many at a time on each.
    Sockets(Arc<Sockets>),
}

/// What is the same for one message and for many: where they go, and who says them.
#[derive(Debug)]
pub(crate) struct Senders {
    pub(crate) stage: Arc<Stage>,
    pub(crate) texts: Texts,
    way: Way,
    /// Each request has an idempotency key, as those of the client library do.
    keys: Option<u64>,
}

/// A door, with what is prepared of requests that go by it.
#[derive(Debug)]
enum Way {
    Http {
        http: Arc<Http>,
        /// By room, then by node.
        urls: Vec<Vec<Url>>,
        /// By user.
        headers: Vec<HeaderMap>,
    },
    Sockets {
        sockets: Arc<Sockets>,
        /// By room: its frames up to the id.
        heads: Vec<String>,
    },
}

impl Way {
    fn new(door: Door, stage: &Stage, batch: bool) -> Self {
        match door {
            Door::Http(http) => {
                let last = if batch { "/batch" } else { "" };
                let path = |room| format!("/v1/rooms/{}/messages{last}", encode(&stage.room(room)));
                Self::Http {
                    urls: (0..stage.rooms()).map(|room| http.urls(&path(room))).collect(),
                    headers: http.headers_by_user(stage),
                    http,
                }
            }
            Door::Sockets(sockets) => {
                let kind = if batch { "send_batch" } else { "send" };
                let head = |room| {
                    let room = serde_json::Value::from(stage.room(room));
                    format!(r#"{{"type":"{kind}","room":{room},"id":""#)
                };
                Self::Sockets {
                    heads: (0..stage.rooms()).map(head).collect(),
                    sockets,
                }
            }
        }
    }
}

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    room: usize,
    seq: u64,
    number: u64,
}

impl Placed {
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

#[derive(Deserialize)]
struct Sent {
    seq: u64,
}

#[derive(Deserialize)]
struct SentBatch {
    first_seq: u64,
    last_seq: u64,
}

impl Senders {
    pub(crate) fn new(door: Door, stage: Arc<Stage>, keyed: bool, batch: bool) -> Self {
        Self {
            texts: stage.texts(),
            way: Way::new(door, &stage, batch),
            keys: keyed.then(rand::random),
            stage,
        }
    }

    /// Which room this message goes to.
    fn room_of(&self, number: u64) -> usize {
        (scatter(number) % self.stage.rooms() as u64) as usize
    }

    async fn post(&self, call: Call, room: usize, content: Content) -> Result<Bytes, Fault> {
        let key = self.keys.map(|run| format!("{run:016x}-{}", call.number));
        match &self.way {
            Way::Http { http, urls, headers } => {
                let url = urls[room][call.client % http.nodes()].clone();
                let mut headers = &headers[call.client % headers.len()];
                let with_key;
                if let Some(key) = key {
                    with_key = {
                        let mut own = headers.clone();
                        own.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&key).expect("digits are ASCII"));
                        own
                    };
                    headers = &with_key;
                }
                let body = self.texts.body(content);
                http.ask(call.client, Method::POST, url, headers, body).await
            }
            Way::Sockets { sockets, heads } => {
                let head = heads[room].as_bytes();
                let mut frame = BytesMut::with_capacity(head.len() + self.texts.room_for(content) + FRAME_MORE);
                frame.put_slice(head);
                // No two operations of a run have the same number.
                let id = call.number;
                write!(frame, "{id}\",").expect("memory takes what is written");
                if let Some(key) = key {
                    write!(frame, "\"idempotency_key\":\"{key}\",").expect("memory takes what is written");
                }
                self.texts.put(&mut frame, content);
                frame.put_u8(b'}');
                sockets.ask(call.client, id, frame.freeze()).await
            }
        }
    }

    /// One message with the text of this number, and where it went.
    pub(crate) async fn send_as(&self, call: Call, number: u64) -> Result<Placed, Fault> {
        let room = self.room_of(call.number);
        let answer = self.post(call, room, Content::Message(number)).await?;
        let Sent { seq } = parse(&answer)?;
        Ok(Placed { room, seq, number })
    }

    /// Is it there, as it was sent?
    pub(crate) async fn read_back(&self, placed: &Placed) -> Result<(), Unheld> {
        let room = self.stage.room(placed.room);
        let found = self
            .stage
            .client()
            .message(&room, placed.seq, Level::Linearizable)
            .await;
        match found {
            Ok(message)
                if message
                    .text
                    .as_deref()
                    .is_some_and(|text| self.texts.is(text, placed.number)) =>
            {
                Ok(())
            }
            Ok(message) => Err(Unheld::Lie(format!(
                "message {} of {room} was acknowledged as number {:x}, and reads {:?}",
                placed.seq,
                placed.number,
                message.text.map(|text| text.chars().take(40).collect::<String>())
            ))),
            Err(error @ Error::Refused(_)) => Err(Unheld::Lie(format!(
                "message {} of {room} was acknowledged, and cannot be read: {error}",
                placed.seq
            ))),
            Err(error) => Err(Unheld::Unread(error.to_string())),
        }
    }
}

/// `send`: a message a request.
#[derive(Debug)]
pub struct Sends(Senders);

impl Sends {
    pub fn new(door: Door, stage: Arc<Stage>, keyed: bool) -> Self {
        Self(Senders::new(door, stage, keyed, false))
    }
}

impl Target for Sends {
    type Receipt = Placed;

    fn kinds(&self) -> &'static [&'static str] {
        &["send"]
    }

    async fn perform(&self, call: Call) -> Result<Done<Placed>, Fault> {
        self.0
            .send_as(call, call.number)
            .await
            .map(|placed| Done::one(Some(placed)))
    }

    async fn read_back(&self, placed: &Placed) -> Result<(), Unheld> {
        self.0.read_back(placed).await
    }
}

/// `batch`: so many messages a request.
#[derive(Debug)]
pub struct Batches {
    senders: Senders,
    size: u64,
}

impl Batches {
    pub fn new(door: Door, stage: Arc<Stage>, keyed: bool, size: u64) -> Self {
        Self {
            senders: Senders::new(door, stage, keyed, true),
            size,
        }
    }
}

impl Target for Batches {
    /// The first message of a batch, and the last.
    type Receipt = [Placed; 2];

    fn kinds(&self) -> &'static [&'static str] {
        &["batch"]
    }

    async fn perform(&self, call: Call) -> Result<Done<[Placed; 2]>, Fault> {
        let room = self.senders.room_of(call.number);
        let first = call.number * self.size;
        let content = Content::Batch {
            first,
            count: self.size,
        };
        let answer = self.senders.post(call, room, content).await?;
        let SentBatch { first_seq, last_seq } = parse(&answer)?;
        if last_seq - first_seq + 1 != self.size {
            let room = self.senders.stage.room(room);
            return Err(Fault::Wrong(format!(
                "{} messages to {room} were acknowledged as {first_seq} to {last_seq}",
                self.size
            )));
        }
        let receipt = [(first_seq, first), (last_seq, first + self.size - 1)];
        Ok(Done {
            units: self.size,
            ..Done::one(Some(receipt.map(|(seq, number)| Placed { room, seq, number })))
        })
    }

    async fn read_back(&self, ends: &[Placed; 2]) -> Result<(), Unheld> {
        for placed in ends {
            self.senders.read_back(placed).await?;
        }
        Ok(())
    }
}
