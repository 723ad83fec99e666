//! What the history says of each register.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{CAS, PREFIX, READ, WRITE};
use crate::checker::operation::Outcome;
use crate::checker::pairs::{Pair, pairs};
use crate::history::Event;

/// By name.
pub type Registers = BTreeMap<String, Register>;

/// A write whose place in the order is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub index: u64,
    pub value: String,
    /// What a compare-and-set asked for.
    pub if_rev: Option<u64>,
    pub rev: u64,
    pub invoke_ns: u64,
    /// None: its outcome was unknown, and somebody read what it wrote.
    pub complete_ns: Option<u64>,
}

impl Write {
    pub fn is_acknowledged(&self) -> bool {
        self.complete_ns.is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub index: u64,
    pub value: String,
    pub rev: u64,
    pub invoke_ns: u64,
    pub complete_ns: u64,
}

/// A compare-and-set that was told that the register is not at this rev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub index: u64,
    pub if_rev: u64,
    pub invoke_ns: u64,
    pub complete_ns: u64,
}

/// A write of unknown outcome that nobody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    pub if_rev: Option<u64>,
    pub invoke_ns: u64,
}

/// Everything that happened to one register.
#[derive(Debug, Clone, Default)]
pub struct Register {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub refused: Vec<Refused>,
    pub unseen: Vec<Unseen>,
}

impl Register {
    /// Whether a write that nobody saw may be the reason of this refusal.
    pub fn may_be_due_to_unseen(&self, refused: &Refused) -> bool {
        let may = |unseen: &Unseen| {
            unseen.invoke_ns <= refused.complete_ns && unseen.if_rev.is_none_or(|rev| rev == refused.if_rev)
        };
        self.unseen.iter().any(may)
    }
}

#[derive(Debug, Deserialize)]
struct CompareAndSet {
    if_rev: u64,
    value: String,
}

/// Writes of unknown outcome, before it is known which of them were seen.
type Unknown = HashMap<(String, String), Write>;

/// Sorts the history by register. An error: it cannot be judged.
pub fn registers(events: &[Event]) -> Result<Registers> {
    let mut registers = Registers::new();
    let mut unknown = Unknown::new();
    let mut values: HashMap<(String, String), u64> = HashMap::new();
    for pair in pairs(events, &[PREFIX])? {
        add(&mut registers, &mut unknown, &mut values, pair).with_context(|| format!("event {}", pair.index()))?;
    }
    for (name, register) in &mut registers {
        for read in &register.reads {
            let seen = unknown.remove(&(name.clone(), read.value.clone()));
            register
                .writes
                .extend(seen.map(|write| Write { rev: read.rev, ..write }));
        }
    }
    for ((name, _), Write { if_rev, invoke_ns, .. }) in unknown {
        let register = registers.entry(name).or_default();
        register.unseen.push(Unseen { if_rev, invoke_ns });
    }
    for register in registers.values_mut() {
        register.writes.sort_by_key(|write| (write.rev, write.index));
    }
    Ok(registers)
}

fn add(
    registers: &mut Registers,
    unknown: &mut Unknown,
    values: &mut HashMap<(String, String), u64>,
    pair: Pair<'_>,
) -> Result<()> {
    let name = pair.key()?.to_owned();
    let register = registers.entry(name.clone()).or_default();
    let (index, invoke_ns) = (pair.index(), pair.invoke_ns());
    let (if_rev, value) = match pair.f() {
        READ => {
            if pair.outcome() == Outcome::Done {
                register.reads.push(Read {
                    index,
                    value: pair.answered()?,
                    rev: pair.rev()?,
                    invoke_ns,
                    complete_ns: pair.complete_ns(),
                });
            }
            // A read that was not answered says nothing.
            return Ok(());
        }
        WRITE => (None, pair.asked()?),
        CAS => {
            let CompareAndSet { if_rev, value } = pair.asked()?;
            (Some(if_rev), value)
        }
        other => bail!("unknown operation {other}"),
    };
    if let Some(before) = values.insert((name.clone(), value.clone()), index) {
        bail!("{value:?} was written by event {before} already; a retry belongs to its write");
    }
    let write = Write {
        index,
        value,
        if_rev,
        rev: 0,
        invoke_ns,
        complete_ns: None,
    };
    match pair.outcome() {
        Outcome::Done => {
            let (rev, complete_ns) = (pair.rev()?, Some(pair.complete_ns()));
            ensure!(rev > 0, "revs count from 1");
            register.writes.push(Write {
                rev,
                complete_ns,
                ..write
            });
        }
        Outcome::Unknown => {
            unknown.insert((name, write.value.clone()), write);
        }
        Outcome::Refused => {
            let refused = pair.end.and_then(|end| end.rev).map(|if_rev| Refused {
                index,
                if_rev,
                invoke_ns,
                complete_ns: pair.complete_ns(),
            });
            register.refused.extend(refused);
        }
    }
    Ok(())
}
