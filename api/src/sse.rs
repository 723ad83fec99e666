//! Server-Sent Events: how the items of a room's stream are written.

use bytes::BytesMut;
use quorate_client::wire;
use quorate_state_machine::query::{RoomChange, RoomChangeBody};
use quorate_state_machine::{EventBody, Position};
use serde::Serialize;

use crate::convert;

/// The data of every event but those of messages.
#[derive(Serialize)]
struct Notice<'a> {
    room: &'a str,
    rev: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<wire::Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
}

impl<'a> Notice<'a> {
    fn new(room: &'a str, rev: u64) -> Self {
        Self {
            room,
            rev,
            user: None,
            role: None,
            deleted: None,
            oldest: None,
        }
    }
}

/// One change. True when it is the room's last.
pub(crate) fn change(frames: &mut BytesMut, room: &str, change: RoomChange) -> bool {
    let (id, rev) = (Some(change.position), change.position.revision);
    match change.body {
        RoomChangeBody::Message(message) => {
            frame(frames, "message", id, &convert::message(*message));
            false
        }
        RoomChangeBody::Edited(message) => {
            frame(frames, "edit", id, &convert::edited(rev, *message));
            false
        }
        RoomChangeBody::Redacted(message) => {
            frame(frames, "redact", id, &convert::redacted(rev, *message));
            false
        }
        RoomChangeBody::Event(event) => {
            let notice = Notice::new(room, event.rev.0);
            match event.body {
                EventBody::Member { user, role } => {
                    let role = role.map(convert::role);
                    frame(
                        frames,
                        "member",
                        id,
                        &Notice {
                            user: Some(&user),
                            role,
                            ..notice
                        },
                    );
                    false
                }
                EventBody::Room => {
                    frame(frames, "room", id, &notice);
                    false
                }
                EventBody::RoomDeleted => {
                    frame(
                        frames,
                        "room",
                        id,
                        &Notice {
                            deleted: Some(true),
                            ..notice
                        },
                    );
                    true
                }
                // Messages, and what becomes of them, are items of their own.
                EventBody::Messages { .. } | EventBody::Edited { .. } | EventBody::Redacted { .. } => false,
            }
        }
    }
}

/// Everything up to here was delivered.
pub(crate) fn bookmark(frames: &mut BytesMut, room: &str, position: Position) {
    frame(
        frames,
        "bookmark",
        Some(position),
        &Notice::new(room, position.revision.0),
    );
}

/// The room is gone; found by the state rather than by an event.
pub(crate) fn deleted(frames: &mut BytesMut, room: &str, state: Position) {
    let notice = Notice {
        deleted: Some(true),
        ..Notice::new(room, state.revision.0)
    };
    frame(frames, "room", Some(state), &notice);
}

/// The reader's position is no longer kept; he begins again with what GET says.
pub(crate) fn expired(frames: &mut BytesMut, room: &str, state: Position) {
    let notice = Notice {
        oldest: Some(state.to_string()),
        ..Notice::new(room, state.revision.0)
    };
    frame(frames, "expired", None, &notice);
}

/// The reader was too slow; `last` is what he was sent last and can resume from, if anything.
pub(crate) fn slow_consumer(frames: &mut BytesMut, room: &str, last: Option<Position>) {
    let rev = last.map_or(0, |position| position.revision.0);
    frame(frames, "slow_consumer", last, &Notice::new(room, rev));
}

fn frame(frames: &mut BytesMut, event: &str, id: Option<Position>, data: &impl Serialize) {
    use std::fmt::Write;
    writeln!(frames, "event: {event}").expect("a buffer in memory grows");
    if let Some(id) = id {
        writeln!(frames, "id: {id}").expect("a buffer in memory grows");
    }
    frames.extend_from_slice(b"data: ");
    // JSON escapes line ends, so this is one line.
    let data = serde_json::to_vec(data).expect("events hold only strings and numbers");
    frames.extend_from_slice(&data);
    frames.extend_from_slice(b"\n\n");
}
