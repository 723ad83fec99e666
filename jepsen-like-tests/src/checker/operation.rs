//! Pairs the beginnings and ends of a history into operations, and says what is wrong with a
//! history that cannot be paired: such a run is inconclusive, never passed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::history::{DRAIN, Event, Kind, Process, READ, SEND};

/// Seqs and texts, as a page or a whole room shows them.
pub type Page = Vec<(u64, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It certainly did not happen.
    Refused,
    /// It may have happened, then or later.
    Unknown,
}

/// One send, from before the request to after the answer.
#[derive(Debug, Clone)]
pub struct Send {
    /// Index of the invoking event: names the operation in a report.
    pub index: u64,
    pub text: String,
    pub outcome: Outcome,
    pub invoke_ns: u64,
    /// The time of the answer, where there was one.
    pub complete_ns: Option<u64>,
    /// Where it was put, as the answer said.
    pub seq: Option<u64>,
}

/// One linearizable read that was answered.
#[derive(Debug, Clone)]
pub struct Read {
    pub index: u64,
    pub invoke_ns: u64,
    pub complete_ns: u64,
    pub page: Page,
    /// The room's last seq as the answer shows it; 0 for an empty room.
    pub last_seq: u64,
}

/// A whole room as one node has it in the end.
#[derive(Debug, Clone)]
pub struct Drain {
    pub node: u64,
    pub page: Page,
}

/// Everything that happened to one room.
#[derive(Debug, Clone, Default)]
pub struct Room {
    pub sends: Vec<Send>,
    pub reads: Vec<Read>,
    pub drains: Vec<Drain>,
}

/// The operations of each room, in the order of their beginnings.
pub fn by_room(events: &[Event]) -> Result<BTreeMap<String, Room>> {
    let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
    let mut open: BTreeMap<Process, &Event> = BTreeMap::new();
    let mut ends: Vec<(&Event, Option<&Event>)> = Vec::new();
    for event in events {
        match (event.process, event.kind) {
            (Process::Fault(_), _) => {}
            (process, Kind::Invoke) => {
                if let Some(before) = open.insert(process, event) {
                    bail!(
                        "event {}: {process:?} begins while {} is open",
                        event.index,
                        before.index
                    );
                }
            }
            (process, _) => {
                let begun = open
                    .remove(&process)
                    .with_context(|| format!("event {} ends nothing", event.index))?;
                ensure!(
                    begun.f == event.f && begun.key == event.key,
                    "event {} ends another operation",
                    event.index
                );
                ends.push((begun, Some(event)));
            }
        }
    }
    // What was never answered may have happened.
    ends.extend(open.into_values().map(|begun| (begun, None)));
    ends.sort_by_key(|(begun, _)| begun.index);
    for (begun, end) in ends {
        let name = begun
            .key
            .as_ref()
            .with_context(|| format!("event {} names no room", begun.index))?;
        let room = rooms.entry(name.clone()).or_default();
        add(room, begun, end).with_context(|| format!("event {}", begun.index))?;
    }
    Ok(rooms)
}

fn add(room: &mut Room, begun: &Event, end: Option<&Event>) -> Result<()> {
    let outcome = match end.map(|end| end.kind) {
        Some(Kind::Ok) => Outcome::Done,
        Some(Kind::Fail) => Outcome::Refused,
        Some(Kind::Info) | None => Outcome::Unknown,
        Some(Kind::Invoke) => bail!("an operation cannot end with its beginning"),
    };
    let (index, invoke_ns) = (begun.index, begun.time_ns);
    match (begun.f.as_str(), end) {
        (SEND, _) => {
            let text = begun
                .value
                .as_ref()
                .and_then(Value::as_str)
                .context("a send without its text")?
                .to_owned();
            let answered = end.filter(|_| outcome == Outcome::Done);
            let seq = answered
                .map(|end| end.seq.context("an acknowledged send without its seq"))
                .transpose()?;
            let complete_ns = answered.map(|end| end.time_ns);
            room.sends.push(Send {
                index,
                text,
                outcome,
                invoke_ns,
                complete_ns,
                seq,
            });
        }
        (READ, Some(end)) if outcome == Outcome::Done => {
            let last_seq = end.seq.context("a read without the room's last seq")?;
            room.reads.push(Read {
                index,
                invoke_ns,
                complete_ns: end.time_ns,
                page: page(end)?,
                last_seq,
            });
        }
        (DRAIN, Some(end)) if outcome == Outcome::Done => {
            let node = end.node.context("a drain without its node")?;
            room.drains.push(Drain { node, page: page(end)? });
        }
        // A read that failed says nothing.
        (READ | DRAIN, _) => {}
        (other, _) => bail!("unknown operation {other}"),
    }
    Ok(())
}

fn page(end: &Event) -> Result<Page> {
    let value = end.value.clone().context("an answered read without its page")?;
    Ok(serde_json::from_value(value)?)
}
