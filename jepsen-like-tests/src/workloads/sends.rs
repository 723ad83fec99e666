//! Idempotent sends: each message is sent, to any node, until a node says that it is there. Half of the
//! copies or more may have been applied in the dark; the room in the end has it once.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use rand::RngExt;
use serde_json::json;

use super::caller::{Caller, Written};
use super::rooms::{LANES, Rooms};
use super::{Stage, Workload};
use crate::checker::{Checker, room};
use crate::history::{Entry, Kind, SEND};
use crate::http::Call;
use crate::workload::messages;

/// Sets the clients' dice apart from those of other workloads.
const SALT: u64 = 2;
/// One in so many messages is sent once more after it was acknowledged: the same answer must come.
const AGAIN: u32 = 4;

#[derive(Debug)]
pub struct Sends {
    rooms: Arc<Rooms>,
}

impl Default for Sends {
    fn default() -> Self {
        Self {
            rooms: Rooms::new("sends"),
        }
    }
}

impl Workload for Sends {
    fn name(&self) -> &'static str {
        "sends"
    }

    fn about(&self) -> &'static str {
        "sends each message, under its key, to one node after the other until it is acknowledged"
    }

    fn prepare<'a>(&'a self, stage: &'a Arc<Stage>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.rooms.prepare(stage))
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        let client = |number| {
            let caller = Caller::new(stage, SALT, number);
            Box::pin(work(caller, self.rooms.clone(), number)) as BoxFuture<'static, _>
        };
        (0..stage.clients).map(client).collect()
    }

    fn drain<'a>(&'a self, stage: &'a Arc<Stage>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.rooms.drain(stage))
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(room::Rooms)]
    }
}

async fn work(mut caller: Caller, rooms: Arc<Rooms>, number: u64) -> Result<()> {
    let mut turn = 0;
    while caller.goes_on().await {
        turn += 1;
        let lane = caller.dice.random_range(0..LANES);
        let room = rooms.room(lane);
        if let Some(seq) = send(&mut caller, &room, &format!("s{number}-{turn}")).await? {
            rooms.turn(&mut caller, lane, &room, seq).await?;
        }
    }
    Ok(())
}

/// What makes two copies one message.
fn keyed(caller: &mut Caller, room: &str, text: &str) -> Call {
    let by_id = json!({ "text": text, "client_id": text });
    match caller.dice.random_range(0..3) {
        0 => Call::post(messages(room), &by_id),
        1 => Call::post(messages(room), &json!({ "text": text })).key(text),
        _ => Call::post(messages(room), &by_id).key(text),
    }
}

/// One operation from the first copy to the acknowledgement. None: the run ended before it came.
async fn send(caller: &mut Caller, room: &str, text: &str) -> Result<Option<u64>> {
    let call = keyed(caller, room, text);
    let begun = Entry {
        value: Some(json!(text)),
        ..Entry::default()
    };
    caller.begin(SEND, room, begun);
    let mut open = None;
    loop {
        let node = caller.node();
        match caller.write(node, call.clone()).await? {
            Written::Done(answer) => {
                let seq = seq_of(&answer)?;
                let entry = Entry {
                    seq: Some(seq),
                    node: Some(node),
                    ..Entry::default()
                };
                caller.end(Kind::Ok, SEND, room, entry);
                if caller.dice.random_ratio(1, AGAIN) {
                    again(caller, call, seq).await?;
                }
                return Ok(Some(seq));
            }
            // That this copy was not applied says nothing about the copies before it.
            Written::Refused(_) => {}
            Written::Unknown(error) => open = Some(error),
        }
        if caller.stage.is_stopping() {
            let kind = if open.is_some() { Kind::Info } else { Kind::Fail };
            let error = open.or(Some("every copy was refused".to_owned()));
            let entry = Entry {
                error,
                ..Entry::default()
            };
            caller.end(kind, SEND, room, entry);
            return Ok(None);
        }
        caller.back_off().await;
    }
}

/// A copy of what was acknowledged before is no operation of the history: it must change nothing, and say so.
async fn again(caller: &mut Caller, call: Call, seq: u64) -> Result<()> {
    let node = caller.node();
    if let Written::Done(answer) = caller.write(node, call).await? {
        let replayed = answer.header("Idempotency-Replayed") == Some("true");
        ensure!(
            replayed && seq_of(&answer)? == seq,
            "a copy of a message acknowledged at seq {seq} is answered by node {node} with {answer} (replayed: {replayed})"
        );
    }
    Ok(())
}

fn seq_of(answer: &crate::http::Answer) -> Result<u64> {
    let seq = answer.json()?.get("seq").and_then(serde_json::Value::as_u64);
    seq.with_context(|| format!("a message without its seq: {answer}"))
}
