//! Messages, one a request or many.

use std::sync::Arc;

use quorate_client::{Error, Level};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::http::{Http, encode, parse};
use super::scatter;
use super::stage::Stage;
use super::text::Texts;
use crate::target::{Call, Done, Fault, Target, Unheld};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is the same for one message and for many: where they go, and who says them.
#[derive(Debug)]
pub(crate) struct Senders {
    http: Arc<Http>,
    pub(crate) stage: Arc<Stage>,
    pub(crate) texts: Texts,
    /// By room, then by node.
    urls: Vec<Vec<Url>>,
    /// By user.
    headers: Vec<HeaderMap>,
    /// Each request has an idempotency key, as those of the client library do.
    keys: Option<u64>,
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
    pub(crate) fn new(http: Arc<Http>, stage: Arc<Stage>, keyed: bool, batch: bool) -> Self {
        let last = if batch { "/batch" } else { "" };
        let path = |room| format!("/v1/rooms/{}/messages{last}", encode(&stage.room(room)));
        let urls = (0..stage.rooms()).map(|room| http.urls(&path(room))).collect();
        let headers = (0..stage.users())
            .map(|user| http.headers(stage.user_of(user).as_deref()))
            .collect();
        Self {
            texts: stage.texts(),
            urls,
            headers,
            keys: keyed.then(rand::random),
            http,
            stage,
        }
    }

    /// Which room this message goes to.
    fn room_of(&self, number: u64) -> usize {
        (scatter(number) % self.urls.len() as u64) as usize
    }

    async fn post(&self, call: Call, room: usize, body: bytes::Bytes) -> Result<bytes::Bytes, Fault> {
        let url = self.urls[room][call.client % self.http.nodes()].clone();
        let mut headers = &self.headers[call.client % self.headers.len()];
        let with_key;
        if let Some(run) = self.keys {
            let key = HeaderValue::from_str(&format!("{run:016x}-{}", call.number)).expect("digits are ASCII");
            with_key = {
                let mut own = headers.clone();
                own.insert(IDEMPOTENCY_KEY, key);
                own
            };
            headers = &with_key;
        }
        self.http.ask(call.client, Method::POST, url, headers, body).await
    }

    /// One message with the text of this number, and where it went.
    pub(crate) async fn send_as(&self, call: Call, number: u64) -> Result<Placed, Fault> {
        let room = self.room_of(call.number);
        let answer = self.post(call, room, self.texts.body(number)).await?;
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
    pub fn new(http: Arc<Http>, stage: Arc<Stage>, keyed: bool) -> Self {
        Self(Senders::new(http, stage, keyed, false))
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
    pub fn new(http: Arc<Http>, stage: Arc<Stage>, keyed: bool, size: u64) -> Self {
        Self {
            senders: Senders::new(http, stage, keyed, true),
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
        let body = self.senders.texts.batch(first, self.size);
        let answer = self.senders.post(call, room, body).await?;
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
