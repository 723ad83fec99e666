//! The room checker: is what was acknowledged and read what one ordered room would have done?
//!
//! A room exposes its order: every acknowledged send carries its seq, every read shows how far the
//! room was. So linearizability needs no search. A send stands at its seq, a read that saw seq n as
//! the last stands at n + ½; in that order each operation must find a moment, not before that of
//! the operation before it, between its own beginning and end. The earliest such moment is
//! `max(the moment before, its beginning)`, so one sweep decides, in O(n log n) for the sorting.
//! A send of unknown outcome that is in the room counts, without an end; one that is not is dropped.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use anyhow::{Context, Result, bail, ensure};

use super::operation::{self, Drain, Has, Outcome, Page, Room, by_room};
use super::{Checker, Judgement};
use crate::history::Event;

/// The checker of `append`, `sends` and `batches`, and of any other workload that sends and drains.
#[derive(Debug)]
pub struct Rooms;

impl Checker for Rooms {
    fn name(&self) -> &'static str {
        "rooms"
    }

    fn about(&self) -> &'static str {
        "each room is one order: nothing lost, twice, made up or moved, batches whole, reads linearizable, nodes equal"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["acknowledged messages"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let mut rooms = 0;
        let mut sum = Verdict::default();
        for (name, verdict) in check(events)? {
            rooms += 1;
            sum.add(&verdict);
            for violation in &verdict.violations {
                judgement.violation(format_args!("room {name}: {violation}"));
            }
        }
        judgement.counts = BTreeMap::from([
            ("rooms", rooms),
            ("acknowledged messages", sum.acknowledged as u64),
            ("refused messages", sum.refused as u64),
            ("unknown messages", sum.unknown as u64),
            ("unknown messages that were applied", sum.unknown_applied as u64),
            ("batches", sum.batches as u64),
            ("reads", sum.reads as u64),
            ("rooms compared, one node with another", sum.compared as u64),
        ]);
        Ok(judgement)
    }
}

/// What was not allowed. `index` is that of the event that began the operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An acknowledged message is not in the room.
    Lost { index: u64, text: String, seq: u64 },
    /// A message is in the room more than once.
    Duplicated { text: String, seqs: Vec<u64> },
    /// A message that nobody sent, or whose send was refused.
    Phantom { text: String, seq: u64 },
    /// A message was acknowledged or read at one seq and is in the room at another.
    Reordered {
        index: u64,
        text: String,
        seq: u64,
        is_at: u64,
    },
    /// Two messages were acknowledged at the same seq.
    SeqGivenTwice { seq: u64, indexes: Vec<u64> },
    /// A read showed a message that is not in the room in the end.
    Vanished { index: u64, text: String, seq: u64 },
    /// A page or a room whose seqs do not follow one another.
    Gap { index: Option<u64>, after: u64, next: u64 },
    /// Two nodes have different rooms.
    Diverged { nodes: (u64, u64), seq: u64 },
    /// A batch of which a part is in the room, or whose messages do not follow one another.
    Torn { index: u64, seqs: Vec<Option<u64>> },
    /// A read showed the room as it was within a batch.
    SawPart { index: u64, batch: u64, last_seq: u64 },
    /// A read did not show what was committed before it began, or an order against real time.
    NotLinearizable { index: u64, before: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { index, text, seq } => write!(f, "lost: {text:?}, acknowledged at seq {seq} (event {index})"),
            Self::Duplicated { text, seqs } => write!(f, "duplicated: {text:?} is at the seqs {seqs:?}"),
            Self::Phantom { text, seq } => write!(f, "phantom: {text:?} at seq {seq} was never sent, or was refused"),
            Self::Reordered {
                index,
                text,
                seq,
                is_at,
            } => {
                write!(
                    f,
                    "reordered: {text:?} was at seq {seq} (event {index}) and is at {is_at}"
                )
            }
            Self::Torn { index, seqs } => {
                write!(f, "torn: the messages of the batch (event {index}) are at the seqs ")?;
                let shown = seqs
                    .iter()
                    .map(|seq| seq.map_or("none".to_owned(), |seq| seq.to_string()));
                write!(f, "{}", shown.collect::<Vec<_>>().join(" "))
            }
            Self::SawPart { index, batch, last_seq } => write!(
                f,
                "torn: a read (event {index}) saw seq {last_seq} as the last, which is within a batch (event {batch})"
            ),
            Self::SeqGivenTwice { seq, indexes } => write!(f, "seq {seq} was given to the events {indexes:?}"),
            Self::Vanished { index, text, seq } => {
                write!(
                    f,
                    "vanished: {text:?}, read at seq {seq} (event {index}), is not in the room"
                )
            }
            Self::Gap {
                index: Some(index),
                after,
                next,
            } => {
                write!(f, "gap: the page of event {index} goes from seq {after} to {next}")
            }
            Self::Gap {
                index: None,
                after,
                next,
            } => write!(f, "gap: the room goes from seq {after} to {next}"),
            Self::Diverged { nodes: (a, b), seq } => write!(f, "diverged: nodes {a} and {b} differ at seq {seq}"),
            Self::NotLinearizable { index, before } => {
                write!(
                    f,
                    "not linearizable: event {index} ended before event {before} began, yet stands after it"
                )
            }
        }
    }
}

/// The checker's answer for one room. The counts say how much it had to go by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    /// Of the unknown ones, those that turned out to be in the room.
    pub unknown_applied: usize,
    pub reads: usize,
    pub batches: usize,
    /// Nodes whose room was compared with that of another.
    pub compared: usize,
}

impl Verdict {
    /// Adds the counts of another room.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.unknown_applied += other.unknown_applied;
        self.reads += other.reads;
        self.batches += other.batches;
        self.compared += other.compared;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            violations,
            acknowledged,
            refused,
            unknown,
            unknown_applied,
            reads,
            ..
        } = self;
        write!(
            f,
            "{} violations in {acknowledged} acknowledged sends and {reads} reads \
             ({refused} refused, {unknown} unknown, of which {unknown_applied} applied)",
            violations.len()
        )?;
        violations
            .iter()
            .take(10)
            .try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Checks every room of the history. An error means that the history itself cannot be judged: it
/// is malformed, a text was sent twice, or a room was never drained.
pub fn check(events: &[Event]) -> Result<BTreeMap<String, Verdict>> {
    let rooms = by_room(events)?;
    rooms
        .into_iter()
        .map(|(name, room)| Ok((name.to_owned(), check_room(name, &room)?)))
        .collect()
}

fn check_room(name: &str, room: &Room) -> Result<Verdict> {
    let mut texts = HashSet::with_capacity(room.sends.len());
    for send in &room.sends {
        ensure!(
            texts.insert(send.text),
            "room {name}: {:?} was sent twice; a retry belongs to its send",
            send.text
        );
    }
    let pages = pages_of(&room.drains).with_context(|| format!("room {name}"))?;
    // Nodes that lag or differ are reported; the rest is judged by the longest.
    let longest = pages.iter().max_by_key(|(_, page)| page.len());
    let Some((_, log)) = longest else {
        bail!("room {name} was never drained");
    };
    let at: HashMap<&str, u64> = log.iter().map(|(seq, text)| (*text, *seq)).collect();

    let mut violations = Vec::new();
    violations.extend(diverged(&pages));
    violations.extend(gaps(None, 0, log));
    violations.extend(duplicated(log));
    violations.extend(phantoms(room, log));
    violations.extend(misplaced_sends(room, &at));
    violations.extend(given_twice(room));
    violations.extend(torn(room, &at));
    violations.extend(misread(room, &at));
    violations.extend(out_of_time(room, &at));
    violations.sort();
    violations.dedup();

    let count = |outcome| room.sends.iter().filter(|send| send.outcome == outcome).count();
    let applied = room
        .sends
        .iter()
        .filter(|s| s.outcome == Outcome::Unknown && at.contains_key(s.text));
    Ok(Verdict {
        violations,
        acknowledged: count(Outcome::Done),
        refused: count(Outcome::Refused),
        unknown: count(Outcome::Unknown),
        unknown_applied: applied.count(),
        reads: room.reads.len(),
        batches: room.batches.len(),
        compared: room.drains.len(),
    })
}

/// The rooms of the nodes as far as they are written out. One that only names another is equal to it.
fn pages_of<'r, 'a>(drains: &'r [Drain<'a>]) -> Result<Vec<(u64, &'r Page<'a>)>> {
    let mut pages: Vec<(u64, &Page)> = Vec::new();
    for drain in drains {
        match &drain.has {
            Has::Page(page) => pages.push((drain.node, page)),
            Has::SameAs { node, hash } => {
                let named = pages.iter().find(|(of, _)| of == node);
                let (_, page) = named.with_context(|| format!("node {node} was not drained before {}", drain.node))?;
                let has = operation::hash_of(page.iter().copied());
                ensure!(
                    has == *hash,
                    "the room of node {node} has the hash {has} and not {hash}"
                );
            }
        }
    }
    Ok(pages)
}

/// The first difference between the first node and each other.
fn diverged(pages: &[(u64, &Page)]) -> Vec<Violation> {
    let Some(((first, page), others)) = pages.split_first() else {
        return Vec::new();
    };
    let differs = |(node, other): &(u64, &Page)| {
        let longer = page.len().max(other.len());
        let place = (0..longer).find(|place| page.get(*place) != other.get(*place))?;
        let seq = page.get(place).or(other.get(place)).map_or(0, |(seq, _)| *seq);
        Some(Violation::Diverged {
            nodes: (*first, *node),
            seq,
        })
    };
    others.iter().filter_map(differs).collect()
}

/// Places where a page does not go on with the next seq. The page begins after `begin`.
fn gaps(index: Option<u64>, begin: u64, page: &Page) -> Vec<Violation> {
    let befores = std::iter::once(begin).chain(page.iter().map(|(seq, _)| *seq));
    let steps = befores.zip(page.iter().map(|(seq, _)| *seq));
    steps
        .filter(|(after, next)| *next != after + 1)
        .map(|(after, next)| Violation::Gap { index, after, next })
        .collect()
}

fn duplicated(log: &Page) -> Vec<Violation> {
    let mut first: HashMap<&str, u64> = HashMap::with_capacity(log.len());
    let mut again: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seq, text) in log {
        match first.entry(text) {
            Entry::Vacant(entry) => _ = entry.insert(*seq),
            Entry::Occupied(entry) => again.entry(text).or_insert_with(|| vec![*entry.get()]).push(*seq),
        }
    }
    again
        .into_iter()
        .map(|(text, seqs)| Violation::Duplicated {
            text: text.to_owned(),
            seqs,
        })
        .collect()
}

/// What was in the room, or in any page of it, without having been sent.
fn phantoms(room: &Room, log: &Page) -> Vec<Violation> {
    let sent = room.sends.iter().filter(|send| send.outcome != Outcome::Refused);
    let sent: HashSet<&str> = sent.map(|send| send.text).collect();
    let shown = log.iter().chain(room.reads.iter().flat_map(|read| &read.page));
    let unsent = shown.filter(|(_, text)| !sent.contains(text));
    unsent
        .map(|(seq, text)| Violation::Phantom {
            text: (*text).to_owned(),
            seq: *seq,
        })
        .collect()
}

fn misplaced_sends(room: &Room, at: &HashMap<&str, u64>) -> Vec<Violation> {
    let misplaced = |send: &operation::Send| {
        let (index, seq, text) = (send.index, send.seq?, send.text);
        match at.get(text) {
            None => Some(Violation::Lost {
                index,
                text: text.to_owned(),
                seq,
            }),
            Some(is_at) if *is_at != seq => Some(Violation::Reordered {
                index,
                text: text.to_owned(),
                seq,
                is_at: *is_at,
            }),
            Some(_) => None,
        }
    };
    room.sends.iter().filter_map(misplaced).collect()
}

fn given_twice(room: &Room) -> Vec<Violation> {
    let mut given: Vec<(u64, u64)> = room
        .sends
        .iter()
        .filter_map(|send| Some((send.seq?, send.index)))
        .collect();
    given.sort_unstable();
    let equal = given.chunk_by(|one, other| one.0 == other.0);
    let twice = equal.filter(|same| same.len() > 1);
    twice
        .map(|same| Violation::SeqGivenTwice {
            seq: same[0].0,
            indexes: same.iter().map(|(_, index)| *index).collect(),
        })
        .collect()
}

/// Batches that are not there whole and in one piece, and reads that saw a part of one.
fn torn(room: &Room, at: &HashMap<&str, u64>) -> Vec<Violation> {
    let mut found = Vec::new();
    // First and last seq of each, and its event.
    let mut whole: Vec<(u64, u64, u64)> = Vec::new();
    for batch in &room.batches {
        let sends = &room.sends[batch.places.clone()];
        let seqs: Vec<Option<u64>> = sends.iter().map(|send| at.get(send.text).copied()).collect();
        let index = batch.index;
        match (seqs.first().copied().flatten(), seqs.last().copied().flatten()) {
            // Messages that were acknowledged and are gone are lost as well, and told as such.
            (None, _) if seqs.iter().all(Option::is_none) => {}
            (Some(first), Some(last)) if seqs.iter().copied().eq((first..).take(seqs.len()).map(Some)) => {
                whole.push((first, last, index));
            }
            _ => found.push(Violation::Torn { index, seqs }),
        }
    }
    whole.sort_unstable();
    for read in &room.reads {
        let after = whole.partition_point(|(first, _, _)| *first <= read.last_seq);
        if let Some((_, last, batch)) = after.checked_sub(1).map(|place| whole[place])
            && read.last_seq < last
        {
            found.push(Violation::SawPart {
                index: read.index,
                batch,
                last_seq: read.last_seq,
            });
        }
    }
    found
}

/// Pages that show what the room does not hold, or hold it elsewhere, or have gaps.
fn misread(room: &Room, at: &HashMap<&str, u64>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in &room.reads {
        let index = read.index;
        for (seq, text) in &read.page {
            let seq = *seq;
            match at.get(text) {
                None => found.push(Violation::Vanished {
                    index,
                    text: (*text).to_owned(),
                    seq,
                }),
                Some(is_at) if *is_at != seq => found.push(Violation::Reordered {
                    index,
                    text: (*text).to_owned(),
                    seq,
                    is_at: *is_at,
                }),
                Some(_) => {}
            }
        }
        let begin = read
            .page
            .first()
            .map_or(read.last_seq, |(seq, _)| seq.saturating_sub(1));
        found.extend(gaps(Some(index), begin, &read.page));
        // A newest page ends with the room's last message.
        let end = read.page.last().map_or(begin, |(seq, _)| *seq);
        if end != read.last_seq {
            found.push(Violation::Gap {
                index: Some(index),
                after: end,
                next: read.last_seq,
            });
        }
    }
    found
}

/// An operation at its place in the room's order.
struct Placed {
    /// Twice the seq for a send, one more than twice the last seq seen for a read.
    place: u64,
    index: u64,
    invoke_ns: u64,
    complete_ns: u64,
}

/// The sweep.
fn out_of_time(room: &Room, at: &HashMap<&str, u64>) -> Vec<Violation> {
    let mut placed: Vec<Placed> = Vec::new();
    for send in &room.sends {
        let seq = match send.outcome {
            Outcome::Done => send.seq,
            Outcome::Refused => None,
            Outcome::Unknown => at.get(send.text).copied(),
        };
        let (index, invoke_ns, complete_ns) = (send.index, send.invoke_ns, send.complete_ns.unwrap_or(u64::MAX));
        placed.extend(seq.map(|seq| Placed {
            place: 2 * seq,
            index,
            invoke_ns,
            complete_ns,
        }));
    }
    placed.extend(room.reads.iter().map(|read| Placed {
        place: 2 * read.last_seq + 1,
        index: read.index,
        invoke_ns: read.invoke_ns,
        complete_ns: read.complete_ns,
    }));
    placed.sort_by_key(|operation| (operation.place, operation.invoke_ns));
    let mut found = Vec::new();
    // The earliest moment left, and the operation that set it.
    let (mut moment, mut set_by) = (0, 0);
    for operation in &placed {
        if operation.invoke_ns > moment {
            (moment, set_by) = (operation.invoke_ns, operation.index);
        }
        if moment > operation.complete_ns {
            found.push(Violation::NotLinearizable {
                index: operation.index,
                before: set_by,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests;
