//! What the general checker is given: the operations of each register and of each room.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;

use super::model::{Op, State, Value};
use crate::checker::operation::{Has, Outcome, by_room};
use crate::checker::register::{Register, registers};
use crate::history::Event;

/// An operation and when it may have happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    pub(super) index: u64,
    pub(super) invoke_ns: u64,
    pub(super) complete_ns: u64,
    pub(super) op: Op,
}

pub(super) fn of_registers(events: &[Event]) -> Result<BTreeMap<String, Vec<Timed>>> {
    let registers = registers(events)?;
    Ok(registers
        .into_iter()
        .map(|(name, register)| (name, of_register(&register)))
        .collect())
}

/// Writes that nobody saw are left out, and with them the refusals that they may explain.
fn of_register(register: &Register) -> Vec<Timed> {
    let mut numbers: HashMap<&str, Value> = HashMap::new();
    let mut number = |text| {
        let next = Value::try_from(numbers.len()).expect("no history has that many writes") + 1;
        *numbers.entry(text).or_insert(next)
    };
    let mut timed: Vec<Timed> = Vec::new();
    for write in &register.writes {
        let to = State {
            rev: write.rev,
            value: number(&write.value),
        };
        timed.push(Timed {
            index: write.index,
            invoke_ns: write.invoke_ns,
            complete_ns: write.complete_ns.unwrap_or(u64::MAX),
            op: Op::Write {
                after: 0,
                if_rev: write.if_rev,
                to,
            },
        });
    }
    for read in &register.reads {
        let seen = State {
            rev: read.rev,
            value: number(&read.value),
        };
        timed.push(Timed {
            index: read.index,
            invoke_ns: read.invoke_ns,
            complete_ns: read.complete_ns,
            op: Op::Read(seen),
        });
    }
    let judged = register
        .refused
        .iter()
        .filter(|refused| !register.may_be_due_to_unseen(refused));
    timed.extend(judged.map(|refused| Timed {
        index: refused.index,
        invoke_ns: refused.invoke_ns,
        complete_ns: refused.complete_ns,
        op: Op::Refused { if_rev: refused.if_rev },
    }));
    narrow_by_rev(&mut timed);
    timed
}

/// Whatever order explains the operations, it is that of their revs, a write before the reads that saw it. So none
/// of them happened before an earlier one began, nor after a later one was answered. Without this, one write that is
/// answered late or never would leave no moment to cut, and the search would try all orders of what it spans.
fn narrow_by_rev(timed: &mut [Timed]) {
    let place_of = |op: &Op| match op {
        Op::Begin(state) | Op::Write { to: state, .. } => Some((state.rev, false)),
        Op::Read(state) => Some((state.rev, true)),
        Op::Refused { .. } => None,
    };
    let mut order: Vec<(_, usize)> = (0..timed.len())
        .filter_map(|index| Some((place_of(&timed[index].op)?, index)))
        .collect();
    order.sort_unstable();
    // Reads of the same rev say nothing of each other.
    let same: Vec<&[(_, usize)]> = order.chunk_by(|(one, _), (other, _)| one == other).collect();

    let mut narrowed: Vec<(u64, u64)> = timed.iter().map(|op| (op.invoke_ns, op.complete_ns)).collect();
    let (mut begun, mut written) = (0, 0);
    for ((rev, is_read), indexes) in same.iter().map(|same| (same[0].0, *same)) {
        for (_, index) in indexes {
            narrowed[*index].0 = begun.max(timed[*index].invoke_ns);
            if let Op::Write { after, .. } = &mut timed[*index].op {
                *after = written;
            }
        }
        let begins = indexes.iter().map(|(_, index)| timed[*index].invoke_ns);
        begun = begins.fold(begun, u64::max);
        written = if is_read { written } else { rev };
    }
    let mut answered = u64::MAX;
    for indexes in same.iter().rev() {
        for (_, index) in *indexes {
            narrowed[*index].1 = answered.min(timed[*index].complete_ns);
        }
        let ends = indexes.iter().map(|(_, index)| timed[*index].complete_ns);
        answered = ends.fold(answered, u64::min);
    }
    for (operation, (invoke_ns, complete_ns)) in timed.iter_mut().zip(narrowed) {
        // One for which no moment is left keeps its times; the search will not find an order.
        if invoke_ns <= complete_ns {
            (operation.invoke_ns, operation.complete_ns) = (invoke_ns, complete_ns);
        }
    }
}

pub(super) fn of_rooms(events: &[Event]) -> Result<BTreeMap<String, Vec<Timed>>> {
    let mut rooms = BTreeMap::new();
    for (name, room) in by_room(events)? {
        let pages = room
            .drains
            .iter()
            .filter_map(|drain| match &drain.has {
                Has::Page(page) => Some(page),
                Has::SameAs { .. } => None,
            })
            .chain(room.reads.iter().map(|read| &read.page));
        let at: HashMap<&str, u64> = pages.flatten().map(|(seq, text)| (*text, *seq)).collect();
        let mut timed: Vec<Timed> = Vec::new();
        for send in &room.sends {
            let seq = match send.outcome {
                Outcome::Done => send.seq,
                Outcome::Refused => None,
                Outcome::Unknown => at.get(send.text).copied(),
            };
            timed.extend(seq.map(|seq| Timed {
                index: send.index,
                invoke_ns: send.invoke_ns,
                complete_ns: send.complete_ns.unwrap_or(u64::MAX),
                op: Op::Write {
                    after: 0,
                    if_rev: None,
                    to: of_seq(seq),
                },
            }));
        }
        timed.extend(room.reads.iter().map(|read| Timed {
            index: read.index,
            invoke_ns: read.invoke_ns,
            complete_ns: read.complete_ns,
            op: Op::Read(of_seq(read.last_seq)),
        }));
        narrow_by_rev(&mut timed);
        rooms.insert(name.to_owned(), timed);
    }
    Ok(rooms)
}

/// What stands in a room at a seq is the room checker's to judge.
fn of_seq(seq: u64) -> State {
    State { rev: seq, value: 0 }
}
