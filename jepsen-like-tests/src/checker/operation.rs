//! Pairs the beginnings and ends of a history into operations, and says what is wrong with a
//! history that cannot be paired: such a run is inconclusive, never passed.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::history::{BATCH, DRAIN, Event, Kind, Process, READ, SEND};

/// Seqs and texts, as a page or a whole room shows them.
pub type Page<'a> = Vec<(u64, &'a str)>;

/// What a client asked, from before the request to after the answer.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    pub begun: &'a Event,
    /// None: never answered. It may have happened.
    pub end: Option<&'a Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It certainly did not happen.
    Refused,
    /// It may have happened, then or later.
    Unknown,
}

impl Operation<'_> {
    pub fn outcome(&self) -> Outcome {
        match self.end.map(|end| end.kind) {
            Some(Kind::Ok) => Outcome::Done,
            Some(Kind::Fail) => Outcome::Refused,
            // An end is never a beginning: `operations` pairs them.
            Some(Kind::Info | Kind::Invoke) | None => Outcome::Unknown,
        }
    }
}

/// The operations of all clients, of whatever workload, in the order of their beginnings.
pub fn operations(events: &[Event]) -> Result<Vec<Operation<'_>>> {
    let mut all: Vec<Operation> = Vec::with_capacity(events.len() / 2);
    let mut open: HashMap<Process, usize> = HashMap::new();
    for event in events {
        match (event.process, event.kind) {
            (Process::Fault(_), _) => {}
            (process, Kind::Invoke) => {
                if let Some(before) = open.insert(process, all.len()) {
                    let before = all[before].begun.index;
                    bail!("event {}: {process:?} begins while {before} is open", event.index);
                }
                all.push(Operation {
                    begun: event,
                    end: None,
                });
            }
            (process, _) => {
                let place = open
                    .remove(&process)
                    .with_context(|| format!("event {} ends nothing", event.index))?;
                let operation = &mut all[place];
                ensure!(
                    operation.begun.f == event.f && operation.begun.key == event.key,
                    "event {} ends another operation",
                    event.index
                );
                operation.end = Some(event);
            }
        }
    }
    Ok(all)
}

/// One message sent, alone or in a batch.
#[derive(Debug, Clone)]
pub struct Send<'a> {
    /// Index of the invoking event: names the operation in a report.
    pub index: u64,
    pub text: &'a str,
    pub outcome: Outcome,
    pub invoke_ns: u64,
    /// The time of the answer, where there was one.
    pub complete_ns: Option<u64>,
    /// Where it was put, as the answer said.
    pub seq: Option<u64>,
}

/// Messages of one request, which are applied together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    pub index: u64,
    /// Its messages are those at these places of [`Room::sends`].
    pub places: std::ops::Range<usize>,
}

/// One linearizable read that was answered.
#[derive(Debug, Clone)]
pub struct Read<'a> {
    pub index: u64,
    pub invoke_ns: u64,
    pub complete_ns: u64,
    pub page: Page<'a>,
    /// The room's last seq as the answer shows it; 0 for an empty room.
    pub last_seq: u64,
}

/// A whole room as one node has it in the end.
#[derive(Debug, Clone)]
pub struct Drain<'a> {
    pub node: u64,
    pub has: Has<'a>,
}

#[derive(Debug, Clone)]
pub enum Has<'a> {
    Page(Page<'a>),
    /// The same as that node, whose page is in the history.
    SameAs {
        node: u64,
        hash: &'a str,
    },
}

/// Everything that happened to one room.
#[derive(Debug, Clone, Default)]
pub struct Room<'a> {
    pub sends: Vec<Send<'a>>,
    pub batches: Vec<Batch>,
    pub reads: Vec<Read<'a>>,
    pub drains: Vec<Drain<'a>>,
}

/// The operations of each room, in the order of their beginnings. Other operations are passed over, and so are
/// reads of what is no room.
pub fn by_room(events: &[Event]) -> Result<BTreeMap<&str, Room<'_>>> {
    let all = operations(events)?;
    let is_room = |operation: &&Operation| matches!(operation.begun.f.as_str(), SEND | BATCH | DRAIN);
    let names: HashSet<&str> = all
        .iter()
        .filter(is_room)
        .filter_map(|operation| operation.begun.key.as_deref())
        .collect();
    let mut rooms: HashMap<&str, Room> = HashMap::new();
    for operation in &all {
        let begun = operation.begun;
        if !matches!(begun.f.as_str(), SEND | BATCH | DRAIN | READ) {
            continue;
        }
        let name = begun
            .key
            .as_deref()
            .with_context(|| format!("event {} names no room", begun.index))?;
        if names.contains(name) {
            add(rooms.entry(name).or_default(), operation).with_context(|| format!("event {}", begun.index))?;
        }
    }
    Ok(rooms.into_iter().collect())
}

fn add<'a>(room: &mut Room<'a>, operation: &Operation<'a>) -> Result<()> {
    let outcome = operation.outcome();
    let begun = operation.begun;
    let answered = operation.end.filter(|_| outcome == Outcome::Done);
    let (index, invoke_ns) = (begun.index, begun.time_ns);
    let send = |text, seq| Send {
        index,
        text,
        outcome,
        invoke_ns,
        complete_ns: answered.map(|end| end.time_ns),
        seq,
    };
    match (begun.f.as_str(), answered) {
        (SEND, answered) => {
            let text = begun.value.as_ref().and_then(Value::as_str);
            let seq = answered.map(|end| end.seq.context("an acknowledged send without its seq"));
            let text = text.context("a send without its text")?;
            room.sends.push(send(text, seq.transpose()?));
        }
        (BATCH, answered) => {
            let texts = begun.value.as_ref().and_then(Value::as_array);
            let texts = texts.context("a batch without its texts")?;
            let seqs = match answered {
                None => vec![None; texts.len()],
                Some(end) => {
                    let seqs = end.value.as_ref().and_then(Value::as_array);
                    let seqs = seqs.context("an acknowledged batch without its seqs")?;
                    seqs.iter().map(Value::as_u64).collect()
                }
            };
            ensure!(seqs.len() == texts.len(), "a batch with as many seqs as messages");
            let first = room.sends.len();
            for (text, seq) in texts.iter().zip(seqs) {
                let text = text.as_str().context("a text of a batch")?;
                ensure!(
                    answered.is_none() || seq.is_some(),
                    "an acknowledged message without its seq"
                );
                room.sends.push(send(text, seq));
            }
            room.batches.push(Batch {
                index,
                places: first..room.sends.len(),
            });
        }
        (READ, Some(end)) => {
            let last_seq = end.seq.context("a read without the room's last seq")?;
            room.reads.push(Read {
                index,
                invoke_ns,
                complete_ns: end.time_ns,
                page: page(end)?,
                last_seq,
            });
        }
        (DRAIN, Some(end)) => {
            let node = end.node.context("a drain without its node")?;
            let has = match end.value.as_ref().and_then(Value::as_object) {
                None => Has::Page(page(end)?),
                Some(same) => Has::SameAs {
                    node: same
                        .get("same_as")
                        .and_then(Value::as_u64)
                        .context("the same as whom?")?,
                    hash: same
                        .get("hash")
                        .and_then(Value::as_str)
                        .context("a room without its hash")?,
                },
            };
            room.drains.push(Drain { node, has });
        }
        // A read that failed says nothing.
        _ => {}
    }
    Ok(())
}

fn page(end: &Event) -> Result<Page<'_>> {
    let value = end.value.as_ref().and_then(Value::as_array);
    let entries = value.context("an answered read without its page")?;

    entries
        .iter()
        .map(|shown| unpack(shown).context("an entry of a page is its seq and its text"))
        .collect()
}

fn unpack(entry: &Value) -> Option<(u64, &str)> {
    match entry.as_array()?.as_slice() {
        [seq, text] => Some((seq.as_u64()?, text.as_str()?)),
        _ => None,
    }
}

/// A hash of a room's seqs and texts (FNV-1a, 64 bits), for people and tools that compare: whether two rooms are
/// the same is decided by their messages.
pub fn hash_of<'a>(page: impl IntoIterator<Item = (u64, &'a str)>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for (seq, text) in page {
        seq.to_le_bytes().into_iter().for_each(&mut eat);
        // No text holds this byte, so that no two rooms are the same bytes.
        text.bytes().chain([0xff]).for_each(&mut eat);
    }
    format!("{hash:016x}")
}
