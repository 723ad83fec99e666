//! Many clients append unique texts and read pages of several rooms through all nodes, linearizably. Each
//! request is sent once: what is not known stays unknown.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use rand::RngExt;
use serde_json::json;

use super::caller::{Caller, Written};
use super::rooms::{LANES, Rooms};
use super::{Stage, Workload};
use crate::checker::{Checker, room};
use crate::history::{Entry, Kind, READ, SEND};
use crate::http::Call;
use crate::workload::{messages, page_of};

/// Sets the clients' dice apart from those of other workloads.
const SALT: u64 = 1;
/// One in so many operations reads.
const READS: u32 = 3;
/// A read shows at most so many messages: few, for they all go into the history.
const PAGE_MAX: u64 = 6;

#[derive(Debug)]
pub struct Append {
    rooms: Arc<Rooms>,
}

impl Default for Append {
    fn default() -> Self {
        Self {
            rooms: Rooms::new("append"),
        }
    }
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn about(&self) -> &'static str {
        "appends unique messages to several rooms and reads their newest pages, through all nodes"
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
        if caller.dice.random_ratio(1, READS) {
            read(&mut caller, &room).await?;
        } else if let Some(seq) = append(&mut caller, &room, format!("a{number}-{turn}")).await? {
            rooms.turn(&mut caller, lane, &room, seq).await?;
        }
    }
    Ok(())
}

/// The seq that it was given, if that is known.
async fn append(caller: &mut Caller, room: &str, text: String) -> Result<Option<u64>> {
    let node = caller.node();
    let at = Entry {
        node: Some(node),
        ..Entry::default()
    };
    let begun = Entry {
        value: Some(json!(text)),
        ..at.clone()
    };
    caller.begin(SEND, room, begun);
    let call = Call::post(messages(room), &json!({ "text": text }));
    match caller.write(node, call).await? {
        Written::Done(answer) => {
            let seq = answer.json()?.get("seq").and_then(serde_json::Value::as_u64);
            let seq = Some(seq.with_context(|| format!("a message without its seq: {answer}"))?);
            caller.end(Kind::Ok, SEND, room, Entry { seq, ..at });
            return Ok(seq);
        }
        Written::Refused(error) => {
            let error = Some(error);
            caller.end(Kind::Fail, SEND, room, Entry { error, ..at });
        }
        Written::Unknown(error) => {
            let error = Some(error);
            caller.end(Kind::Info, SEND, room, Entry { error, ..at });
        }
    }
    caller.back_off().await;
    Ok(None)
}

/// Reads the newest page of the room.
pub(super) async fn read(caller: &mut Caller, room: &str) -> Result<()> {
    let node = caller.node();
    let limit = caller.dice.random_range(1..=PAGE_MAX);
    let at = Entry {
        node: Some(node),
        ..Entry::default()
    };
    caller.begin(READ, room, at.clone());
    let call = Call::get(format!("{}?limit={limit}", messages(room)));
    match caller.read(node, call).await? {
        Ok(answer) => {
            let level = answer.header("X-Quorate-Level");
            ensure!(
                level == Some("linearizable"),
                "node {node} served a linearizable read as {level:?}: {answer}"
            );
            let (page, last_seq) = page_of(&answer)?;
            let entry = Entry {
                value: Some(json!(page)),
                seq: Some(last_seq),
                ..at
            };
            caller.end(Kind::Ok, READ, room, entry);
        }
        Err(error) => {
            let error = Some(error);
            caller.end(Kind::Fail, READ, room, Entry { error, ..at });
            caller.back_off().await;
        }
    }
    Ok(())
}
