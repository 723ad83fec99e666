//! Idempotent sends: each message is sent, to any node, until a node says that it is there. Half of the
//! copies or more may have been applied in the dark; the room in the end has it once.

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use rand::RngExt;
use serde_json::json;

use super::asking::{Client, Reply, is_replayed, seq_of};
use super::shared_rooms::Writes;
use crate::history::{Entry, Kind, SEND};
use crate::http::Call;
use crate::workload::messages;

/// One in so many messages is sent once more after it was acknowledged: the same answer must come.
const AGAIN: u32 = 4;

pub(super) struct Sends;

#[async_trait]
impl Writes for Sends {
    fn name(&self) -> &'static str {
        "sends"
    }

    fn about(&self) -> &'static str {
        "sends each message, under its key, to one node after the other until it is acknowledged"
    }

    fn reads(&self) -> u32 {
        0
    }

    /// One operation from the first copy to the acknowledgement. None: the run ended before it came.
    async fn write(&self, client: &mut Client, room: &str) -> Result<Option<u64>> {
        let text = client.fresh();
        let call = keyed(client, room, &text);
        let begun = Entry {
            key: Some(room.to_owned()),
            value: Some(json!(text)),
            ..Entry::default()
        };
        client.record(Kind::Invoke, SEND, begun);
        let mut open = None;
        loop {
            let node = client.node();
            match client.ask(node, call.clone()).await? {
                Reply::Decided(answer) if answer.status == 201 => {
                    let seq = seq_of(&answer)?;
                    let done = Entry::of(room, node);
                    client.record(Kind::Ok, SEND, Entry { seq: Some(seq), ..done });
                    if client.dice.random_ratio(1, AGAIN) {
                        again(client, call, seq).await?;
                    }
                    return Ok(Some(seq));
                }
                Reply::Decided(answer) => bail!("a message to a public room is answered by node {node} with {answer}"),
                // That this copy was not applied says nothing about the copies before it.
                Reply::NotApplied(_) => {}
                Reply::Unknown(error) => open = Some(error),
            }
            if client.is_stopping() {
                let refused = Reply::NotApplied("every copy was refused".to_owned());
                client.record_failure(SEND, room, open.map_or(refused, Reply::Unknown));
                return Ok(None);
            }
            client.back_off().await;
        }
    }
}

/// What makes two copies one message.
fn keyed(client: &mut Client, room: &str, text: &str) -> Call {
    let by_id = json!({ "text": text, "client_id": text });
    match client.dice.random_range(0..3) {
        0 => Call::post(messages(room), &by_id),
        1 => Call::post(messages(room), &json!({ "text": text })).key(text),
        _ => Call::post(messages(room), &by_id).key(text),
    }
}

/// A copy of what was acknowledged before is no operation of the history: it must change nothing, and say so.
async fn again(client: &mut Client, call: Call, seq: u64) -> Result<()> {
    let node = client.node();
    if let Reply::Decided(answer) = client.ask(node, call).await? {
        let replayed = is_replayed(&answer);
        ensure!(
            answer.status == 201 && replayed && seq_of(&answer)? == seq,
            "a copy of a message acknowledged at seq {seq} is answered by node {node} with {answer} (replayed: {replayed})"
        );
    }
    Ok(())
}
