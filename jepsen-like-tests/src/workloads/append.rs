//! Many clients append unique texts and read pages of several rooms through all nodes, linearizably. Each
//! request is sent once: what is not known stays unknown.

use anyhow::{Result, bail};
use async_trait::async_trait;
use serde_json::json;

use super::asking::{Client, Reply, seq_of};
use super::shared_rooms::Writes;
use crate::history::{Entry, Kind, SEND};
use crate::http::Call;
use crate::workload::messages;

pub(super) struct Append;

#[async_trait]
impl Writes for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn about(&self) -> &'static str {
        "appends unique messages to several rooms and reads their newest pages, through all nodes"
    }

    fn reads(&self) -> u32 {
        3
    }

    async fn write(&self, client: &mut Client, room: &str) -> Result<Option<u64>> {
        let (node, text) = (client.node(), client.fresh());
        let entry = Entry::of(room, node);
        let value = Some(json!(text));
        client.record(Kind::Invoke, SEND, Entry { value, ..entry.clone() });
        let call = Call::post(messages(room), &json!({ "text": text }));
        match client.ask(node, call).await? {
            Reply::Decided(answer) if answer.status == 201 => {
                let seq = Some(seq_of(&answer)?);
                client.record(Kind::Ok, SEND, Entry { seq, ..entry });
                Ok(seq)
            }
            Reply::Decided(answer) => bail!("a message to a public room is answered by node {node} with {answer}"),
            reply => {
                client.record_failure(SEND, room, reply);
                client.back_off().await;
                Ok(None)
            }
        }
    }
}
