//! Messages sent, sent again and read.

use quorate_api::replica::Level;
use quorate_state_machine::apply::Response;
use quorate_state_machine::command::NewMessage;
use quorate_state_machine::query::{self, Answer, Page, QueryBody};
use quorate_state_machine::{Command, Idempotency, Outcome, Seq};
use quorate_storage::state::{MemoryState, StateStore};
use quorate_torture::history::{Entry, Kind, Process, READ, SEND};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::stage::Stage;
use crate::node::{Core, lock};

pub(crate) const ROOMS: [&str; 2] = ["general", "random"];
const PAGE: u32 = 20;
/// Of a page when a room is read whole; the most that a query gives.
const WHOLE_PAGE: u32 = 500;
/// Sends that are not known to have happened and wait for somebody to send them again. Beyond it the oldest
/// stays unknown.
const UNFINISHED_MAX: usize = 64;
/// Acknowledged sends that are remembered, to send some of them again.
const ACKNOWLEDGED_MAX: usize = 256;

/// A send that goes on, from whichever node.
pub(super) struct Unfinished {
    process: Process,
    room: &'static str,
    text: String,
}

#[derive(Clone)]
pub(super) struct Acknowledged {
    room: &'static str,
    text: String,
    seq: u64,
}

pub(super) async fn step(stage: &Stage, core: &Core, dice: &mut ChaCha8Rng) {
    let room = ROOMS[dice.random_range(0..ROOMS.len())];
    match dice.random_range(0..100) {
        0..40 => send_new(stage, core, room).await,
        40..55 => finish_one(stage, core).await,
        55..60 => send_again(stage, core, dice).await,
        _ => read(stage, core, room).await,
    }
}

async fn send_new(stage: &Stage, core: &Core, room: &'static str) {
    let text = stage.new_name();
    let begun = Entry {
        key: Some(room.to_owned()),
        value: Some(json!(text)),
        node: Some(core.book.id),
        ..Entry::default()
    };
    let process = stage.begin(SEND, begun).process;
    // From here on it goes on, also if this node does not.
    finish_later(stage, Unfinished { process, room, text });
    finish_one(stage, core).await;
}

fn finish_later(stage: &Stage, send: Unfinished) {
    let mut unfinished = lock(&stage.unfinished);
    if unfinished.len() >= UNFINISHED_MAX {
        unfinished.pop_front();
    }
    unfinished.push_back(send);
}

/// Sends again what is not known to have happened.
async fn finish_one(stage: &Stage, core: &Core) {
    let taken = lock(&stage.unfinished).pop_back();
    let Some(send) = taken else { return };
    let (process, room, text) = (send.process, send.room, send.text.clone());
    let back = PutBack {
        stage,
        send: Some(send),
    };
    let named = |entry: Entry| Entry {
        key: Some(room.to_owned()),
        node: Some(core.book.id),
        ..entry
    };
    match send_once(stage, core, room, &text)
        .await
        .map(|outcome| outcome.response)
    {
        Ok(Ok(Response::Sent { seq, .. })) => {
            back.not_any_more();
            let entry = Entry {
                seq: Some(seq.0),
                ..Entry::default()
            };
            stage.history.record(process, Kind::Ok, SEND, named(entry));
            let mut acknowledged = lock(&stage.acknowledged);
            if acknowledged.len() >= ACKNOWLEDGED_MAX {
                acknowledged.pop_front();
            }
            acknowledged.push_back(Acknowledged { room, text, seq: seq.0 });
        }
        // The room is not there yet.
        Ok(Err(_)) => {
            back.not_any_more();
            stage.history.record(process, Kind::Fail, SEND, named(Entry::default()));
        }
        Ok(Ok(other)) => stage.violation(format!("a send was answered by {other:?}")),
        // Somebody sends it again.
        Err(_) => {}
    }
}

/// Gives the send back to those who finish it, also when the node dies meanwhile.
struct PutBack<'a> {
    stage: &'a Stage,
    send: Option<Unfinished>,
}

impl PutBack<'_> {
    fn not_any_more(mut self) {
        self.send = None;
    }
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            finish_later(self.stage, send);
        }
    }
}

/// Sends what was acknowledged once more: the answer must be the first one.
async fn send_again(stage: &Stage, core: &Core, dice: &mut ChaCha8Rng) {
    let chosen = {
        let acknowledged = lock(&stage.acknowledged);
        match acknowledged.len() {
            0 => return,
            all => acknowledged[dice.random_range(0..all)].clone(),
        }
    };
    let Acknowledged { room, text, seq } = chosen;
    let Ok(outcome) = send_once(stage, core, room, &text).await else {
        return;
    };
    match outcome.response {
        Ok(Response::Sent { seq: again, .. }) if again.0 == seq && outcome.replayed => {}
        other => stage.violation(format!(
            "{text} was acknowledged at seq {seq} of {room}; sent again it is {other:?} (replayed: {})",
            outcome.replayed
        )),
    }
}

async fn read(stage: &Stage, core: &Core, room: &'static str) {
    let begun = Entry {
        key: Some(room.to_owned()),
        node: Some(core.book.id),
        ..Entry::default()
    };
    let operation = stage.begin(READ, begun);
    match super::read(stage, core, page(room, Page::Newest, PAGE), Level::Linearizable).await {
        Ok(Ok(Answer::Messages { messages, last_seq, .. })) => {
            let shown: Vec<_> = messages.iter().map(|message| (message.seq.0, &message.text)).collect();
            operation.ok(Entry {
                value: Some(json!(shown)),
                seq: Some(last_seq.0),
                ..Entry::default()
            });
        }
        // No answer says nothing about the room.
        _ => operation.fail(Entry::default()),
    }
}

fn page(room: &str, from: Page, limit: u32) -> QueryBody {
    QueryBody::Messages {
        room: room.to_owned(),
        from,
        limit,
    }
}

/// The same message is the same send: half of them by a key of idempotency, half by their client_id.
async fn send_once(
    stage: &Stage,
    core: &Core,
    room: &str,
    text: &str,
) -> Result<Outcome, quorate_api::replica::ReplicaError> {
    let by_key = text.bytes().last().is_some_and(|digit| digit % 2 == 0);
    let key = by_key.then(|| Idempotency {
        key: text.to_owned(),
        fingerprint: 0,
    });
    super::write(stage, core, send(room, text, !by_key), key).await
}

pub(super) fn send(room: &str, text: &str, with_client_id: bool) -> Command {
    let message = NewMessage {
        text: text.to_owned(),
        client_id: with_client_id.then(|| text.to_owned()),
        kind: None,
        reply_to: None,
        attributes: None,
        sender: None,
        sent_at_ms: None,
    };
    Command::Send {
        room: room.to_owned(),
        messages: vec![message],
        batch: false,
    }
}

/// Seqs and texts, as a node's state has them.
pub(crate) fn whole_room(state: &MemoryState, room: &str) -> Vec<(u64, Option<String>)> {
    let mut all: Vec<(u64, Option<String>)> = Vec::new();
    loop {
        let after = Page::After(Seq(all.last().map_or(0, |(seq, _)| *seq)));
        let asked = super::query(page(room, after, WHOLE_PAGE));
        let answered = state.read(|view| query::query(&view, &asked));
        let Ok(Answer::Messages {
            messages, more_after, ..
        }) = answered.expect("a state in memory can be read").answer
        else {
            return all;
        };
        all.extend(messages.into_iter().map(|message| (message.seq.0, message.text)));
        if !more_after {
            return all;
        }
    }
}
