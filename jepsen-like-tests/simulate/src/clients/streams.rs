//! A room that is followed: messages sent and edited, and streams of them that are cut and resumed on any node.

use std::time::Duration;

use quorate_api::replica::{Level, Replica};
use quorate_state_machine::apply::Response;
use quorate_state_machine::query::{Answer, QueryBody, RoomChange, RoomChangeBody, RoomCursor};
use quorate_state_machine::{Command, Position, Seq, Topic};
use quorate_torture::checker::streams::{Begin, EDIT, Frame, READ, SEND};
use quorate_torture::history::Entry;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::rooms::send;
use super::stage::{Operation, Stage};
use crate::node::{Core, lock};

pub(crate) const ROOM: &str = "feed";
/// Changes that a look at the room asks for.
const LIMIT: u32 = 16;
/// How long a connection lasts.
const LASTS_MS: std::ops::Range<u64> = 50..1500;

pub(super) async fn step(stage: &Stage, core: &Core, dice: &mut ChaCha8Rng) {
    match dice.random_range(0..10) {
        0..4 => send_one(stage, core).await,
        4 => edit_one(stage, core, dice).await,
        _ => follow(stage, core, dice).await,
    }
}

fn entry(core: &Core, value: serde_json::Value) -> Entry {
    Entry {
        key: Some(ROOM.to_owned()),
        value: Some(value),
        node: Some(core.book.id),
        ..Entry::default()
    }
}

async fn send_one(stage: &Stage, core: &Core) {
    let text = stage.new_name();
    let operation = stage.begin(SEND, entry(core, json!(text)));
    let sent = super::write(stage, core, send(ROOM, &text, true), None).await;
    match sent.map(|outcome| outcome.response) {
        Ok(Ok(Response::Sent { seq, rev, .. })) => {
            operation.ok(Entry {
                seq: Some(seq.0),
                rev: Some(rev.0),
                ..Entry::default()
            });
            lock(&stage.told).push(seq.0);
        }
        Ok(Ok(other)) => stage.violation(format!("a send was answered by {other:?}")),
        // The room is not there yet.
        Ok(Err(_)) => operation.fail(Entry::default()),
        Err(_) => {}
    }
}

/// Edits what is known to be there: who edits a message whose send was never answered leaves nobody who knows what it
/// said before.
async fn edit_one(stage: &Stage, core: &Core, dice: &mut ChaCha8Rng) {
    let seq = {
        let told = lock(&stage.told);
        match told.len() {
            0 => return,
            all => told[dice.random_range(0..all)],
        }
    };
    let text = stage.new_name();
    let begun = Entry {
        seq: Some(seq),
        ..entry(core, json!(text))
    };
    let operation = stage.begin(EDIT, begun);
    let command = Command::EditMessage {
        room: ROOM.to_owned(),
        seq: Seq(seq),
        text,
    };
    match super::write(stage, core, command, None)
        .await
        .map(|outcome| outcome.response)
    {
        Ok(Ok(Response::Message(message))) => operation.ok(Entry {
            rev: Some(message.rev.0),
            ..Entry::default()
        }),
        Ok(Ok(other)) => stage.violation(format!("an edit was answered by {other:?}")),
        Ok(Err(_)) => operation.fail(Entry::default()),
        Err(_) => {}
    }
}

async fn last_seq(stage: &Stage, core: &Core) -> Option<u64> {
    let body = QueryBody::Room { room: ROOM.to_owned() };
    match super::read(stage, core, body, Level::Local).await {
        Ok(Ok(Answer::Room(room))) => Some(room.last_seq.0),
        _ => None,
    }
}

/// Where a stream was left.
#[derive(Debug, Clone, Copy)]
struct Left {
    position: Position,
    /// The last message delivered up to there.
    after: u64,
    /// Of an event; none for a message.
    rev: Option<u64>,
}

/// Follows the room twice: behind some message, then behind the last event that was delivered.
async fn follow(stage: &Stage, core: &Core, dice: &mut ChaCha8Rng) {
    let Some(last) = last_seq(stage, core).await else {
        return;
    };
    let after = dice.random_range(0..=last);
    let until = |dice: &mut ChaCha8Rng| Instant::now() + Duration::from_millis(dice.random_range(LASTS_MS));
    let begin = Connection::begin(stage, core, Begin::Seq { after });
    let left = begin
        .run(stage, core, RoomCursor::AfterSeq(Seq(after)), after, until(dice))
        .await;
    if let Some(Left { position, after, rev }) = left {
        let begin = Connection::begin(stage, core, Begin::Id { after, rev });
        begin
            .run(stage, core, RoomCursor::After(position), after, until(dice))
            .await;
    }
}

/// Notes what it has delivered when it ends, also when its node dies.
struct Connection<'a> {
    operation: Option<Operation<'a>>,
    frames: Vec<Frame>,
}

impl<'a> Connection<'a> {
    fn begin(stage: &'a Stage, core: &Core, begin: Begin) -> Self {
        Self {
            operation: Some(stage.begin(READ, entry(core, json!(begin)))),
            frames: Vec::new(),
        }
    }

    async fn run(
        mut self,
        stage: &Stage,
        core: &Core,
        mut cursor: RoomCursor,
        mut after: u64,
        until: Instant,
    ) -> Option<Left> {
        let mut left = None;
        let mut news = None;
        loop {
            let body = QueryBody::RoomChanges {
                room: ROOM.to_owned(),
                after: cursor,
                limit: LIMIT,
            };
            let Ok(Ok(Answer::RoomChanges {
                items,
                next,
                more,
                room,
            })) = super::read(stage, core, body, Level::Local).await
            else {
                return left;
            };
            for RoomChange { position, body } in &items {
                let frame = frame(position, body);
                if let Frame::Message { seq, .. } = frame {
                    after = seq;
                }
                let rev = match frame {
                    Frame::Message { .. } => None,
                    _ => Some(position.revision.0),
                };
                left = Some(Left {
                    position: *position,
                    after,
                    rev,
                });
                self.frames.push(frame);
            }
            cursor = RoomCursor::After(next);
            if !more {
                self.frames.push(Frame::Bookmark { rev: next.revision.0 });
                // Watched before the next look, so that nothing is missed in between.
                let news = news.get_or_insert_with(|| core.watch(Topic::Room(room)));
                if timeout_at(until, news.changed()).await.is_err() {
                    return left;
                }
            }
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            operation.ok(Entry {
                value: Some(json!(self.frames)),
                ..Entry::default()
            });
        }
    }
}

fn frame(position: &Position, body: &RoomChangeBody) -> Frame {
    let rev = position.revision.0;
    match body {
        RoomChangeBody::Message(message) => Frame::Message {
            seq: message.seq.0,
            text: message.text.clone(),
        },
        RoomChangeBody::Edited(message) => Frame::Edit {
            seq: message.seq.0,
            rev,
            text: message.text.clone(),
        },
        RoomChangeBody::Redacted(message) => Frame::Redact {
            seq: message.seq.0,
            rev,
        },
        RoomChangeBody::Event(_) => Frame::Other {
            name: "event".to_owned(),
            rev: Some(rev),
        },
    }
}
