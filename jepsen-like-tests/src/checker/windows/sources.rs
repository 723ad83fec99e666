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
    bound_by_sight(&mut timed);
    timed
}

/// What stands before something in the order of revs had happened when that was answered. Without this, one write of
/// unknown outcome would leave no moment to cut.
fn bound_by_sight(timed: &mut [Timed]) {
    let rev_of = |op: &Op| match op {
        Op::Read(state) | Op::Begin(state) | Op::Write { to: state, .. } => Some(state.rev),
        Op::Refused { .. } => None,
    };
    let mut order: Vec<usize> = (0..timed.len())
        .filter(|place| rev_of(&timed[*place].op).is_some())
        .collect();
    order.sort_by_key(|place| rev_of(&timed[*place].op));
    let mut answered = u64::MAX;
    for place in order.into_iter().rev() {
        let operation = &mut timed[place];
        answered = answered.min(operation.complete_ns);
        if operation.op.after().is_some() {
            // One that was seen before it began keeps its beginning; the search will not find an order.
            operation.complete_ns = operation.complete_ns.min(answered.max(operation.invoke_ns));
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
        bound_by_sight(&mut timed);
        rooms.insert(name.to_owned(), timed);
    }
    Ok(rooms)
}

/// What stands in a room at a seq is the room checker's to judge.
fn of_seq(seq: u64) -> State {
    State { rev: seq, value: 0 }
}
