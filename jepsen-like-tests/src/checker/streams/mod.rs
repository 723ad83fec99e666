//! The stream checker: does each connection to a room's stream deliver what the room holds, once and in order?
//!
//! A connection begins behind a seq (`?after=`) or behind an event that another connection delivered (`Last-Event-ID`),
//! on any node. From there its messages must be +1, +1, … with the texts of the room. Edits must come in the order of
//! their revs, none left out. A bookmark says that all before it was delivered: nothing before it may be missing then,
//! or come later.
//!
//! | `f` | `key` | beginning | end |
//! |---|---|---|---|
//! | `stream.send` | room | `value`: text | `ok`: `seq`, `rev` |
//! | `stream.edit` | room | `value`: text, `seq` | `ok`: `rev` |
//! | `stream.redact` | room | `seq` | `ok` |
//! | `stream.read` | room | `value`: [`Begin`], `node` | `ok`: `value`: the [`Frame`]s until the connection ended |
//! | `stream.drain` | room | `node` | `ok`: `value`: the whole room as this node has it, `[[seq, text or null], …]` |

mod connection;
mod told;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use self::connection::check_connection;
use self::told::Told;
use super::operation::Outcome;
use super::pairs::{Pair, pairs};
use super::{Checker, Judgement};
use crate::history::Event;

pub const SEND: &str = "stream.send";
pub const EDIT: &str = "stream.edit";
pub const REDACT: &str = "stream.redact";
pub const READ: &str = "stream.read";
pub const DRAIN: &str = "stream.drain";
/// All of these operations.
pub const PREFIX: &str = "stream.";

/// Where a connection begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Begin {
    /// Messages behind this seq come first, then what happens from then on.
    Seq { after: u64 },
    /// Everything behind an event that was delivered before. `after`: the last message delivered up to it. `rev`:
    /// that of the event; none for a message, whose place is that of its sending.
    Id { after: u64, rev: Option<u64> },
}

impl Begin {
    pub fn after(&self) -> u64 {
        match self {
            Self::Seq { after } | Self::Id { after, .. } => *after,
        }
    }
}

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// No text: redacted by now.
    Message {
        seq: u64,
        text: Option<String>,
    },
    Edit {
        seq: u64,
        rev: u64,
        text: Option<String>,
    },
    Redact {
        seq: u64,
        rev: u64,
    },
    Bookmark {
        rev: u64,
    },
    /// Any other event.
    Other {
        name: String,
        rev: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Streams;

/// Of one room.
#[derive(Debug, Default)]
struct Room<'a> {
    told: Told,
    reads: Vec<Pair<'a>>,
    drains: Vec<(u64, Page)>,
}

/// Seqs and texts; none where the content is gone.
type Page = Vec<(u64, Option<String>)>;

impl Checker for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn about(&self) -> &'static str {
        "each connection delivers what the room holds, +1 by +1, and goes on behind what was delivered before"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["connections", "messages"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        for (name, room) in &rooms(events)? {
            ensure!(!room.drains.is_empty(), "room {name} was never drained");
            check_drains(name, room, &mut judgement);
            for read in &room.reads {
                let (begin, frames): (Begin, Vec<Frame>) = (read.asked()?, read.answered()?);
                count(&mut judgement, &begin, &frames);
                check_connection(name, read.index(), &begin, &frames, &room.told, &mut judgement);
            }
        }
        for what in ["connections", "resumptions by id", "messages", "edits", "bookmarks"] {
            judgement.counts.entry(what).or_default();
        }
        Ok(judgement)
    }
}

fn rooms(events: &[Event]) -> Result<BTreeMap<String, Room<'_>>> {
    let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
    for pair in pairs(events, &[PREFIX])? {
        let room = rooms.entry(pair.key()?.to_owned()).or_default();
        let is_done = pair.outcome() == Outcome::Done;
        match pair.f() {
            SEND | EDIT | REDACT => room
                .told
                .add(&pair)
                .with_context(|| format!("event {}", pair.index()))?,
            // A connection that did not begin has delivered nothing.
            READ | DRAIN if !is_done => {}
            READ => room.reads.push(pair),
            DRAIN => {
                let node = pair
                    .begun
                    .node
                    .with_context(|| format!("event {}: no node", pair.index()))?;
                room.drains.push((node, pair.answered()?));
            }
            other => bail!("event {}: unknown operation {other}", pair.index()),
        }
    }
    for room in rooms.values_mut() {
        // Nodes that differ are told; the rest is judged by the longest.
        if let Some((_, page)) = room.drains.iter().max_by_key(|(_, page)| page.len()) {
            room.told.complete(page);
        }
    }
    Ok(rooms)
}

fn count(judgement: &mut Judgement, begin: &Begin, frames: &[Frame]) {
    let mut add = |what, more| *judgement.counts.entry(what).or_default() += more;
    add("connections", 1);
    add("resumptions by id", u64::from(matches!(begin, Begin::Id { .. })));
    for frame in frames {
        match frame {
            Frame::Message { .. } => add("messages", 1),
            Frame::Edit { .. } => add("edits", 1),
            Frame::Redact { .. } => add("redactions", 1),
            Frame::Bookmark { .. } => add("bookmarks", 1),
            Frame::Other { .. } => add("other events", 1),
        }
    }
}

/// All nodes hold the same room, without gaps, with everything that was acknowledged.
fn check_drains(name: &str, room: &Room<'_>, judgement: &mut Judgement) {
    let (first_node, first) = &room.drains[0];
    for (node, page) in &room.drains {
        if page != first {
            judgement.violation(format_args!(
                "diverged: nodes {first_node} and {node} have different rooms {name}"
            ));
        }
        for (place, (seq, _)) in page.iter().enumerate() {
            if *seq != place as u64 + 1 {
                judgement.violation(format_args!(
                    "hole: room {name} on node {node} has seq {seq} where {} belongs",
                    place + 1
                ));
                break;
            }
        }
    }
    for (seq, index) in room.told.acknowledged() {
        if seq > room.told.last_seq() {
            judgement.violation(format_args!(
                "lost: event {index} was acknowledged at seq {seq} of {name}, which ends before"
            ));
        }
    }
}
