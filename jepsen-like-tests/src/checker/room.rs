//! The room checker: is what was acknowledged and read what one ordered room would have done?
//!
//! A room exposes its order: every acknowledged send carries its seq, every read shows how far the
//! room was. So linearizability needs no search. A send stands at its seq, a read that saw seq n as
//! the last stands at n + ½; in that order each operation must find a moment, not before that of
//! the operation before it, between its own beginning and end. The earliest such moment is
//! `max(the moment before, its beginning)`, so one sweep decides, in O(n log n) for the sorting.
//! A send of unknown outcome that is in the room counts, without an end; one that is not is dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::{Result, ensure};

use super::operation::{Drain, Outcome, Page, Room, by_room};
use crate::history::Event;

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
        .map(|(name, room)| Ok((name.clone(), check_room(&name, &room)?)))
        .collect()
}

fn check_room(name: &str, room: &Room) -> Result<Verdict> {
    let mut texts = BTreeSet::new();
    for send in &room.sends {
        ensure!(
            texts.insert(&send.text),
            "room {name}: {:?} was sent twice; a retry belongs to its send",
            send.text
        );
    }
    ensure!(!room.drains.is_empty(), "room {name} was never drained");
    // Nodes that lag or differ are reported; the rest is judged by the longest.
    let log = &room
        .drains
        .iter()
        .max_by_key(|drain| drain.page.len())
        .expect("there is at least one")
        .page;
    let at: HashMap<&str, u64> = log.iter().map(|(seq, text)| (text.as_str(), *seq)).collect();

    let mut violations = Vec::new();
    violations.extend(diverged(&room.drains));
    violations.extend(gaps(None, 0, log));
    violations.extend(duplicated(log));
    violations.extend(phantoms(room, log));
    violations.extend(misplaced_sends(room, &at));
    violations.extend(given_twice(room));
    violations.extend(misread(room, &at));
    violations.extend(out_of_time(room, &at));
    violations.sort();
    violations.dedup();

    let count = |outcome| room.sends.iter().filter(|send| send.outcome == outcome).count();
    let applied = room
        .sends
        .iter()
        .filter(|s| s.outcome == Outcome::Unknown && at.contains_key(s.text.as_str()));
    Ok(Verdict {
        violations,
        acknowledged: count(Outcome::Done),
        refused: count(Outcome::Refused),
        unknown: count(Outcome::Unknown),
        unknown_applied: applied.count(),
        reads: room.reads.len(),
    })
}

/// The first difference between the first node and each other.
fn diverged(drains: &[Drain]) -> Vec<Violation> {
    let Some((first, others)) = drains.split_first() else {
        return Vec::new();
    };
    let differs = |other: &Drain| {
        let longer = first.page.len().max(other.page.len());
        let place = (0..longer).find(|place| first.page.get(*place) != other.page.get(*place))?;
        let seq = first
            .page
            .get(place)
            .or(other.page.get(place))
            .map_or(0, |(seq, _)| *seq);
        Some(Violation::Diverged {
            nodes: (first.node, other.node),
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
    let mut seqs: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seq, text) in log {
        seqs.entry(text).or_default().push(*seq);
    }
    let more_than_once = seqs.into_iter().filter(|(_, seqs)| seqs.len() > 1);
    more_than_once
        .map(|(text, seqs)| Violation::Duplicated {
            text: text.to_owned(),
            seqs,
        })
        .collect()
}

/// What was in the room, or in any page of it, without having been sent.
fn phantoms(room: &Room, log: &Page) -> Vec<Violation> {
    let sent = room.sends.iter().filter(|send| send.outcome != Outcome::Refused);
    let sent: BTreeSet<&str> = sent.map(|send| send.text.as_str()).collect();
    let shown = log.iter().chain(room.reads.iter().flat_map(|read| &read.page));
    let unsent = shown.filter(|(_, text)| !sent.contains(text.as_str()));
    unsent
        .map(|(seq, text)| Violation::Phantom {
            text: text.clone(),
            seq: *seq,
        })
        .collect()
}

fn misplaced_sends(room: &Room, at: &HashMap<&str, u64>) -> Vec<Violation> {
    let misplaced = |send: &super::operation::Send| {
        let (index, seq, text) = (send.index, send.seq?, send.text.clone());
        match at.get(send.text.as_str()) {
            None => Some(Violation::Lost { index, text, seq }),
            Some(is_at) if *is_at != seq => Some(Violation::Reordered {
                index,
                text,
                seq,
                is_at: *is_at,
            }),
            Some(_) => None,
        }
    };
    room.sends.iter().filter_map(misplaced).collect()
}

fn given_twice(room: &Room) -> Vec<Violation> {
    let mut indexes: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for send in &room.sends {
        if let Some(seq) = send.seq {
            indexes.entry(seq).or_default().push(send.index);
        }
    }
    let twice = indexes.into_iter().filter(|(_, indexes)| indexes.len() > 1);
    twice
        .map(|(seq, indexes)| Violation::SeqGivenTwice { seq, indexes })
        .collect()
}

/// Pages that show what the room does not hold, or hold it elsewhere, or have gaps.
fn misread(room: &Room, at: &HashMap<&str, u64>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in &room.reads {
        let index = read.index;
        for (seq, text) in &read.page {
            let (seq, text) = (*seq, text.clone());
            match at.get(text.as_str()) {
                None => found.push(Violation::Vanished { index, text, seq }),
                Some(is_at) if *is_at != seq => found.push(Violation::Reordered {
                    index,
                    text,
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
            Outcome::Unknown => at.get(send.text.as_str()).copied(),
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
