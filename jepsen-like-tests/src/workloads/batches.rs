//! Several messages in one request: all are in the room, one after the other, or none is. Readers look for the
//! room as it was in between.

use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use rand::RngExt;
use serde_json::{Value, json};

use super::asking::{Client, Reply};
use super::shared_rooms::Writes;
use crate::history::{BATCH, Entry, Kind};
use crate::http::Call;
use crate::workload::messages;

/// Messages of a batch.
const MESSAGES: RangeInclusive<usize> = 2..=12;

pub(super) struct Batches;

#[async_trait]
impl Writes for Batches {
    fn name(&self) -> &'static str {
        "batches"
    }

    fn about(&self) -> &'static str {
        "sends several messages in one request, and reads whether a part of them is ever seen"
    }

    fn reads(&self) -> u32 {
        3
    }

    async fn write(&self, client: &mut Client, room: &str) -> Result<Option<u64>> {
        let (node, name) = (client.node(), client.fresh());
        let entry = Entry::of(room, node);
        let texts: Vec<String> = (0..client.dice.random_range(MESSAGES))
            .map(|number| format!("{name}-{number}"))
            .collect();
        let body: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
        let value = Some(json!(texts));
        client.record(Kind::Invoke, BATCH, Entry { value, ..entry.clone() });
        let call = Call::post(format!("{}/batch", messages(room)), &json!({ "messages": body }));
        match client.ask(node, call).await? {
            Reply::Decided(answer) if answer.status == 201 => {
                let seqs = answer.json()?.get("seqs").cloned();
                let seqs = seqs.with_context(|| format!("a batch without its seqs: {answer}"))?;
                let seq_at = |place: usize| seqs.get(place).and_then(Value::as_u64);
                let (seq, last) = (seq_at(0), seq_at(texts.len() - 1));
                let value = Some(seqs);
                client.record(Kind::Ok, BATCH, Entry { seq, value, ..entry });
                Ok(last)
            }
            Reply::Decided(answer) => bail!("a batch to a public room is answered by node {node} with {answer}"),
            reply => {
                client.record_failure(BATCH, room, reply);
                client.back_off().await;
                Ok(None)
            }
        }
    }
}
