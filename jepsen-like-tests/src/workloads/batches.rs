//! Several messages in one request: all are in the room, one after the other, or none is. Readers look for the
//! room as it was in between.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use rand::RngExt;
use serde_json::{Value, json};

use super::append::read;
use super::caller::{Caller, Written};
use super::rooms::{LANES, Rooms};
use super::{Stage, Workload};
use crate::checker::{Checker, room};
use crate::history::{BATCH, Entry, Kind};
use crate::http::Call;
use crate::workload::messages;

/// Sets the clients' dice apart from those of other workloads.
const SALT: u64 = 3;
/// One in so many operations reads.
const READS: u32 = 3;
/// Messages of a batch.
const MESSAGES: std::ops::RangeInclusive<usize> = 2..=12;

#[derive(Debug)]
pub struct Batches {
    rooms: Arc<Rooms>,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            rooms: Rooms::new("batches"),
        }
    }
}

impl Workload for Batches {
    fn name(&self) -> &'static str {
        "batches"
    }

    fn about(&self) -> &'static str {
        "sends several messages in one request, and reads whether a part of them is ever seen"
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
        } else if let Some(seq) = send(&mut caller, &room, &format!("b{number}-{turn}")).await? {
            rooms.turn(&mut caller, lane, &room, seq).await?;
        }
    }
    Ok(())
}

/// The last seq of the batch, if that is known.
async fn send(caller: &mut Caller, room: &str, name: &str) -> Result<Option<u64>> {
    let node = caller.node();
    let at = Entry {
        node: Some(node),
        ..Entry::default()
    };
    let texts: Vec<String> = (0..caller.dice.random_range(MESSAGES))
        .map(|number| format!("{name}-{number}"))
        .collect();
    let body: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    let begun = Entry {
        value: Some(json!(texts)),
        ..at.clone()
    };
    caller.begin(BATCH, room, begun);
    let call = Call::post(format!("{}/batch", messages(room)), &json!({ "messages": body }));
    match caller.write(node, call).await? {
        Written::Done(answer) => {
            let seqs = answer.json()?.get("seqs").cloned();
            let seqs = seqs.with_context(|| format!("a batch without its seqs: {answer}"))?;
            let seq_at = |place: usize| seqs.get(place).and_then(Value::as_u64);
            let (first, last) = (seq_at(0), seq_at(texts.len() - 1));
            let entry = Entry {
                seq: first,
                value: Some(seqs),
                ..at
            };
            caller.end(Kind::Ok, BATCH, room, entry);
            return Ok(last);
        }
        Written::Refused(error) => {
            let error = Some(error);
            caller.end(Kind::Fail, BATCH, room, Entry { error, ..at });
        }
        Written::Unknown(error) => {
            let error = Some(error);
            caller.end(Kind::Info, BATCH, room, Entry { error, ..at });
        }
    }
    caller.back_off().await;
    Ok(None)
}
