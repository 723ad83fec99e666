//! Streams: subscribers that are cut off again and again and go on at another node, behind what they had.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use futures::future::BoxFuture;
use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::asking::{ATTEMPT, Client, Reply, is_replayed, well};
use super::{Stage, Workload};
use crate::checker::Checker;
use crate::checker::streams::{Begin, DRAIN, EDIT, Frame, READ, REDACT, SEND, Streams as StreamChecker};
use crate::history::{Entry, Kind};
use crate::http::{Call, encoded};
use crate::stream::{self, Stream};
use crate::wait::Patience;
use crate::workload::messages;

const ROOMS: u64 = 2;
const WRITERS: u64 = 2;
const SUBSCRIBERS: u64 = 4;
/// Between two changes of one writer.
const THINK: Duration = Duration::from_millis(40);
/// Events that one connection is read for at most, so that there are many resumptions.
const FRAMES_MAX: usize = 40;
/// A connection on which nothing comes for so long is cut: its node may be paused.
const QUIET: Duration = Duration::from_secs(2);
/// Messages of a page of the drain: the most that the contract allows.
const DRAIN_PAGE: u64 = 500;
/// How long the stream of one room may take to its end, when all is well again. Some thousands of events take seconds.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// An edited message is one of so many that its writer sent last.
const RECENT: usize = 20;

#[derive(Debug, Clone, Copy, Default)]
pub struct Streams;

#[async_trait]
impl Workload for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn about(&self) -> &'static str {
        "subscribers of rooms that are cut off and resume at other nodes, while writers send, edit and redact"
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()> {
        let mut client = Client::new(stage, "stream-begin", 0);
        for room in rooms() {
            let (node, key) = (client.node(), client.fresh());
            let call = Call::post("/v1/rooms", &json!({ "room": room, "kind": "public" }));
            well(stage, node, call.key(&key), 201).await?;
        }
        Ok(())
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        let writer =
            |number| -> BoxFuture<'static, Result<()>> { Box::pin(write(Client::new(stage, "stream-writer", number))) };
        let subscriber = |number| -> BoxFuture<'static, Result<()>> {
            let subscriber = Subscriber::new(Client::new(stage, "stream-reader", number), number % ROOMS);
            Box::pin(subscriber.work())
        };
        (0..WRITERS)
            .map(writer)
            .chain((0..SUBSCRIBERS).map(subscriber))
            .collect()
    }

    /// The rooms as each node has them, by pages and by its stream.
    async fn drain(&self, stage: &Arc<Stage>) -> Result<()> {
        let nodes = stage.cluster.ids();
        let first = *nodes.first().context("a cluster has nodes")?;
        let position = well(stage, first, Call::get("/v1/rooms"), 200).await?.position()?;
        for node in nodes {
            for room in rooms() {
                let mut client = Client::new(stage, "stream-end", node);
                let last = drain_pages(&mut client, node, &room, &position).await?;
                let mut subscriber = Subscriber::new(client, 0);
                subscriber.room = room;
                let patience = Patience::new("the stream comes to the end of the room", DRAINED_WITHIN);
                while subscriber.at.after < last {
                    let begun = subscriber.connect(node, Cut::Behind(last)).await?;
                    ensure!(begun, "node {node} ends the stream early");
                    if subscriber.at.after < last {
                        let reason = format!("node {node} is at {} of {last}", subscriber.at.after);
                        patience.again(reason).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(StreamChecker)]
    }
}

fn rooms() -> impl Iterator<Item = String> {
    (0..ROOMS).map(room)
}

fn room(number: u64) -> String {
    format!("stream-{number}")
}

async fn drain_pages(client: &mut Client, node: u64, room: &str, position: &str) -> Result<u64> {
    let entry = Entry {
        key: Some(room.to_owned()),
        node: Some(node),
        ..Entry::default()
    };
    client.record(Kind::Invoke, DRAIN, entry.clone());
    let mut entries: Vec<(u64, Option<String>)> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |(seq, _)| *seq);
        let path = format!("{}?level=local&after={after}&limit={DRAIN_PAGE}", messages(room));
        let page = well(&client.stage, node, Call::get(path).min_position(position), 200)
            .await?
            .json()?;
        let shown = page
            .get("messages")
            .and_then(Value::as_array)
            .context("a page without messages")?;
        for message in shown {
            let seq = message
                .get("seq")
                .and_then(Value::as_u64)
                .context("a message without seq")?;
            entries.push((seq, text_of(message)));
        }
        ensure!(
            shown.is_empty() || entries.last().is_some_and(|(seq, _)| *seq > after),
            "node {node} shows a page of {room} that does not go beyond {after}"
        );
        if shown.is_empty() || page.get("more_after").and_then(Value::as_bool) == Some(false) {
            break;
        }
    }
    let last = entries.last().map_or(0, |(seq, _)| *seq);
    let value = Some(json!(entries));
    client.record(Kind::Ok, DRAIN, Entry { value, ..entry });
    Ok(last)
}

fn text_of(message: &Value) -> Option<String> {
    message.get("text").and_then(Value::as_str).map(str::to_owned)
}

/// Sends, edits and redacts.
async fn write(mut client: Client) -> Result<()> {
    // Seqs that this writer sent, by room.
    let mut sent: Vec<Vec<u64>> = vec![Vec::new(); usize::try_from(ROOMS)?];
    while !client.is_stopping() {
        let number = client.dice.random_range(0..ROOMS);
        let (room, mine) = (room(number), &mut sent[usize::try_from(number)?]);
        let (node, text, what) = (client.node(), client.fresh(), client.dice.random_range(0..100));
        let recent = mine.len().saturating_sub(RECENT);
        let target = if mine.is_empty() {
            None
        } else {
            Some(client.pick(&mine[recent..])).copied()
        };
        let entry = Entry {
            key: Some(room.clone()),
            node: Some(node),
            ..Entry::default()
        };
        let value = Some(json!(text));
        let (f, call, entry, status, value) = match (what, target) {
            (0..25, Some(seq)) => {
                let call = Call::new(Method::PATCH, format!("{}/{seq}", messages(&room)));
                let seq = Some(seq);
                (
                    EDIT,
                    call.json(&json!({ "text": text })),
                    Entry { seq, ..entry },
                    200,
                    value,
                )
            }
            (25..30, Some(seq)) => {
                mine.retain(|other| *other != seq);
                let call = Call::new(Method::DELETE, format!("{}/{seq}", messages(&room)));
                let seq = Some(seq);
                (REDACT, call, Entry { seq, ..entry }, 204, None)
            }
            _ => {
                let call = Call::post(messages(&room), &json!({ "text": text }));
                (SEND, call, entry, 201, value)
            }
        };
        client.record(Kind::Invoke, f, Entry { value, ..entry.clone() });
        match client.settle(node, call, Duration::ZERO, ATTEMPT).await? {
            Reply::Decided(answer) if answer.status == status => {
                let json = if status == 204 { Value::Null } else { answer.json()? };
                if f == EDIT && text_of(&json).as_deref() != Some(text.as_str()) {
                    ensure!(
                        is_replayed(&answer),
                        "an edit to {text:?} was answered with another text: {answer}"
                    );
                    let error = format!("applied, and changed since: {answer}");
                    client.record_failure(f, &room, Reply::Unknown(error));
                    continue;
                }
                let number = |field: &str| json.get(field).and_then(Value::as_u64);
                let (seq, rev) = (entry.seq.or(number("seq")), number("rev"));
                if f == SEND {
                    mine.extend(seq);
                }
                client.record(Kind::Ok, f, Entry { seq, rev, ..entry });
            }
            // An edit of a message whose redaction was of unknown outcome, or a second redaction.
            Reply::Decided(answer) if f != SEND && matches!(answer.status, 404 | 409) => {
                client.record_failure(f, &room, Reply::Decided(answer));
            }
            Reply::Decided(answer) => bail!("{f}: {answer}"),
            reply => {
                client.record_failure(f, &room, reply);
                client.back_off().await;
            }
        }
        client.pause(THINK).await;
    }
    Ok(())
}

/// A place in the stream.
#[derive(Debug, Clone, Default)]
struct Place {
    /// The last message up to it.
    after: u64,
    /// The rev of the event there; none for a message.
    rev: Option<u64>,
    id: Option<String>,
}

/// When a connection is cut here.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// After so many events, or when it is time to stop.
    After(usize),
    /// Behind this message.
    Behind(u64),
}

struct Subscriber {
    client: Client,
    room: String,
    /// Behind everything that was delivered.
    at: Place,
    /// Earlier places of the last connection.
    earlier: Vec<Place>,
}

impl Subscriber {
    fn new(client: Client, number: u64) -> Self {
        Self {
            client,
            room: room(number),
            at: Place::default(),
            earlier: Vec::new(),
        }
    }

    async fn work(mut self) -> Result<()> {
        while !self.client.is_stopping() {
            match self.client.dice.random_range(0..100) {
                // By seq.
                0..15 => self.at.id = None,
                // Once more behind an event that was delivered already.
                15..30 if !self.earlier.is_empty() => self.at = self.client.pick(&self.earlier).clone(),
                _ => {}
            }
            let (node, cut) = (
                self.client.node(),
                Cut::After(self.client.dice.random_range(1..=FRAMES_MAX)),
            );
            if !self.connect(node, cut).await? {
                self.client.back_off().await;
            }
        }
        Ok(())
    }

    /// One connection. False: it did not begin.
    async fn connect(&mut self, node: u64, cut: Cut) -> Result<bool> {
        let path = format!("/v1/rooms/{}/stream", encoded(&self.room));
        let after = self.at.after;
        let (begin, call) = match &self.at.id {
            Some(id) => {
                let rev = self.at.rev;
                (Begin::Id { after, rev }, Call::get(path).header("Last-Event-ID", id))
            }
            None => (Begin::Seq { after }, Call::get(format!("{path}?after={after}"))),
        };
        let entry = Entry {
            key: Some(self.room.clone()),
            node: Some(node),
            ..Entry::default()
        };
        let value = Some(json!(begin));
        self.client.record(Kind::Invoke, READ, Entry { value, ..entry.clone() });
        let cluster = self.client.stage.cluster.clone();
        let url = cluster.node(node).url();
        let opened = tokio::time::timeout(ATTEMPT, Stream::open(cluster.http(), &url, call)).await;
        let error = match opened.unwrap_or_else(|_| Err(anyhow::anyhow!("the stream did not begin within {ATTEMPT:?}")))
        {
            Ok(Ok(mut stream)) => {
                let (frames, error) = self.read(&mut stream, cut).await?;
                let value = Some(json!(frames));
                self.client.record(Kind::Ok, READ, Entry { value, error, ..entry });
                return Ok(true);
            }
            Ok(Err(refused)) if refused.code() == "position_expired" => {
                self.at.id = None;
                refused.to_string()
            }
            Ok(Err(refused)) if matches!(refused.status, 429 | 503) => refused.to_string(),
            // A copy that was asked by seq may be older than the room.
            Ok(Err(refused)) if refused.status == 404 => refused.to_string(),
            Ok(Err(refused)) => bail!("node {node} refuses the stream: {refused}"),
            Err(error) => {
                self.client.shun(node);
                format!("{error:#}")
            }
        };
        self.client.record_failure(READ, &self.room, Reply::NotApplied(error));
        Ok(false)
    }

    fn is_time(&self, cut: Cut, frames: usize) -> bool {
        match cut {
            Cut::After(frames_max) => frames >= frames_max || self.client.is_stopping(),
            Cut::Behind(seq) => self.at.after >= seq,
        }
    }

    /// What came, and how it ended where it was not cut here.
    async fn read(&mut self, stream: &mut Stream, cut: Cut) -> Result<(Vec<Frame>, Option<String>)> {
        let mut frames = Vec::new();
        self.earlier.clear();
        while !self.is_time(cut, frames.len()) {
            let event = match stream.next(QUIET).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok((frames, Some("ended".to_owned()))),
                // Nothing came for a while, or the node is gone.
                Err(error) if is_cut(&error) => return Ok((frames, Some(format!("{error:#}")))),
                Err(error) => return Err(error),
            };
            let is_end = matches!(event.name.as_str(), "expired" | "slow_consumer");
            let (frame, rev) = frame_of(&event)?;
            if let Frame::Message { seq, .. } = &frame {
                self.at.after = self.at.after.max(*seq);
            }
            self.at.rev = rev;
            // Every event is a place to resume from.
            self.at.id = Some(
                event
                    .id
                    .clone()
                    .with_context(|| format!("an event without an id: {event:?}"))?,
            );
            if event.name == "expired" {
                self.at.id = None;
            } else {
                self.earlier.push(self.at.clone());
            }
            frames.push(frame);
            if is_end {
                return Ok((frames, Some(event.name)));
            }
        }
        Ok((frames, None))
    }
}

/// Whether the connection broke or was quiet, and not that what came was nonsense.
fn is_cut(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<reqwest::Error>()) || error.to_string().starts_with("no event within")
}

/// The event, and the rev of its place; none for a message, which shows that of its last edit.
fn frame_of(event: &stream::Event) -> Result<(Frame, Option<u64>)> {
    let number = |field: &str| event.data.get(field).and_then(Value::as_u64);
    let (seq, rev) = (number("seq"), number("rev"));
    let place = |number: Option<u64>| number.with_context(|| format!("an event without seq or rev: {event:?}"));
    let text = text_of(&event.data);
    Ok(match event.name.as_str() {
        "message" => (Frame::Message { seq: place(seq)?, text }, None),
        "edit" => {
            let (seq, rev) = (place(seq)?, place(rev)?);
            (Frame::Edit { seq, rev, text }, Some(rev))
        }
        "redact" => {
            let (seq, rev) = (place(seq)?, place(rev)?);
            (Frame::Redact { seq, rev }, Some(rev))
        }
        "bookmark" => {
            let rev = place(rev)?;
            (Frame::Bookmark { rev }, Some(rev))
        }
        name => {
            let name = name.to_owned();
            (Frame::Other { name, rev }, rev)
        }
    })
}
