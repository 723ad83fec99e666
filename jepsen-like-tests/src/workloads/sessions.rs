//! Sessions: clients that go from node to node and carry their position along, so that any copy will do.

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
use crate::checker::sessions::{READ, Sessions as SessionChecker, WRITE};
use crate::history::{Entry, Kind};
use crate::http::{Answer, Call, encoded};
use crate::workload::messages;

const CLIENTS: u64 = 4;
/// Of each kind: users, whose display name is what is read, and rooms, whose last message is.
const KEYS: u64 = 2;
/// Between two operations: less than a follower may be behind, so that without a position reads would go back.
const THINK: Duration = Duration::from_millis(8);
/// Operations of one session.
const SESSION: u64 = 100;

#[derive(Debug, Clone, Copy, Default)]
pub struct Sessions;

#[async_trait]
impl Workload for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn about(&self) -> &'static str {
        "clients that write at one node and read at another, mostly its own copy, with X-Quorate-Min-Position"
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()> {
        let mut client = Client::new(stage, "session-begin", 0);
        for key in keys() {
            let (value, node) = (client.fresh(), client.node());
            let call = match &key {
                Key::User(user) => Call::post("/v1/users", &json!({ "user": user, "display_name": value })),
                Key::Room(room) => Call::post("/v1/rooms", &json!({ "room": room, "kind": "public" })),
            };
            well(stage, node, call.key(&value), 201).await?;
            if let Key::Room(_) = &key {
                let (call, status) = key.write(&value);
                well(stage, node, call.key(&client.fresh()), status).await?;
            }
        }
        Ok(())
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        let client = |number| -> BoxFuture<'static, Result<()>> {
            let client = Client::new(stage, "session", number);
            Box::pin(work(client))
        };
        (0..CLIENTS).map(client).collect()
    }

    async fn drain(&self, _: &Arc<Stage>) -> Result<()> {
        Ok(())
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(SessionChecker)]
    }
}

#[derive(Debug, Clone)]
enum Key {
    User(String),
    Room(String),
}

fn keys() -> Vec<Key> {
    let users = (0..KEYS).map(|number| Key::User(format!("session-user-{number}")));
    let rooms = (0..KEYS).map(|number| Key::Room(format!("session-room-{number}")));
    users.chain(rooms).collect()
}

impl Key {
    fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Room(name) => name,
        }
    }

    /// And the status that says that it is done.
    fn write(&self, value: &str) -> (Call, u16) {
        match self {
            Self::User(user) => {
                let call = Call::new(Method::PATCH, format!("/v1/users/{}", encoded(user)));
                (call.json(&json!({ "display_name": value })), 200)
            }
            Self::Room(room) => (Call::post(messages(room), &json!({ "text": value })), 201),
        }
    }

    fn read(&self, level: &str) -> Call {
        match self {
            Self::User(user) => Call::get(format!("/v1/users/{}?level={level}", encoded(user))),
            Self::Room(room) => Call::get(format!("{}?level={level}&limit=1", messages(room))),
        }
    }

    /// Whether the answer to a write of this value shows it. That of a message says its seq and nothing else.
    fn shows(&self, answer: &Answer, value: &str) -> Result<bool> {
        match self {
            Self::User(_) => Ok(self.seen(answer)?.0 == value),
            Self::Room(_) => Ok(true),
        }
    }

    /// The rev that the answer to a write says; a room's messages have their seqs for that.
    fn rev_written(&self, answer: &Answer) -> Result<u64> {
        let field = match self {
            Self::User(_) => "rev",
            Self::Room(_) => "seq",
        };
        let rev = answer.json()?.get(field).and_then(Value::as_u64);
        rev.with_context(|| format!("no {field}: {answer}"))
    }

    /// The value that the answer to a read shows, and its rev.
    fn seen(&self, answer: &Answer) -> Result<(String, u64)> {
        let json = answer.json()?;
        let (entity, rev, value) = match self {
            Self::User(_) => (Some(&json), "rev", "display_name"),
            Self::Room(_) => (json.pointer("/messages/0"), "seq", "text"),
        };
        let found = entity.and_then(|entity| Some((entity.get(value)?.as_str()?, entity.get(rev)?.as_u64()?)));
        let (value, rev) = found.with_context(|| format!("nothing that was written: {answer}"))?;
        Ok((value.to_owned(), rev))
    }
}

async fn work(mut client: Client) -> Result<()> {
    let keys = keys();
    // The state that the session has seen, and how long it lasts.
    let (mut position, mut left): (Option<String>, u64) = (None, SESSION);
    while !client.is_stopping() {
        if left == 0 {
            client.process = client.stage.history.new_client();
            (position, left) = (None, SESSION);
        }
        left -= 1;
        let (key, process) = (client.pick(&keys).clone(), client.process);
        if client.dice.random_bool(0.3) {
            write(&mut client, &key, &mut position).await?;
        } else {
            read(&mut client, &key, &mut position).await?;
        }
        if client.process != process {
            // Who does not know whether he wrote begins anew.
            (position, left) = (None, SESSION);
        }
        client.pause(THINK).await;
    }
    Ok(())
}

async fn write(client: &mut Client, key: &Key, position: &mut Option<String>) -> Result<()> {
    let (node, value) = (client.node(), client.fresh());
    let entry = Entry {
        key: Some(key.name().to_owned()),
        node: Some(node),
        ..Entry::default()
    };
    let text = Some(json!(value));
    client.record(
        Kind::Invoke,
        WRITE,
        Entry {
            value: text,
            ..entry.clone()
        },
    );
    let (call, status) = key.write(&value);
    match client.settle(node, call, Duration::ZERO, ATTEMPT).await? {
        Reply::Decided(answer) if answer.status == status => {
            if !key.shows(&answer, &value)? {
                ensure!(
                    is_replayed(&answer),
                    "a write of {value:?} was answered with another value: {answer}"
                );
                let error = format!("applied, and overwritten since: {answer}");
                client.record_failure(WRITE, key.name(), Reply::Unknown(error));
                return Ok(());
            }
            let rev = Some(key.rev_written(&answer)?);
            *position = Some(answer.position()?);
            client.record(Kind::Ok, WRITE, Entry { rev, ..entry });
        }
        Reply::Decided(answer) => bail!("{} is there: {answer}", key.name()),
        reply => {
            client.record_failure(WRITE, key.name(), reply);
            client.back_off().await;
        }
    }
    Ok(())
}

async fn read(client: &mut Client, key: &Key, position: &mut Option<String>) -> Result<()> {
    let node = client.node();
    let level = if client.dice.random_bool(0.9) {
        "local"
    } else {
        "linearizable"
    };
    let mut call = key.read(level);
    if let Some(position) = &position {
        call = call.min_position(position);
    }
    let entry = Entry {
        key: Some(key.name().to_owned()),
        node: Some(node),
        ..Entry::default()
    };
    client.record(Kind::Invoke, READ, entry.clone());
    match client.ask(node, call).await? {
        Reply::Decided(answer) if answer.status == 200 => {
            let (value, rev) = key.seen(&answer)?;
            *position = Some(answer.position()?);
            let (value, rev) = (Some(json!(value)), Some(rev));
            client.record(Kind::Ok, READ, Entry { value, rev, ..entry });
        }
        // A copy that was asked without a position may be older than what is read.
        Reply::Decided(answer) if answer.status == 404 && position.is_none() => {
            client.record_failure(READ, key.name(), Reply::Decided(answer));
        }
        Reply::Decided(answer) => bail!("{} is there: {answer}", key.name()),
        // A read that was not answered has done nothing.
        Reply::NotApplied(error) | Reply::Unknown(error) => {
            client.record_failure(READ, key.name(), Reply::NotApplied(error));
            client.back_off().await;
        }
    }
    Ok(())
}
