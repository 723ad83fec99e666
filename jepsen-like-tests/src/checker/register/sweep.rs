//! The rules over one register, and over the writes of all: revs are those of the whole store.

use std::collections::{BTreeMap, HashMap};

use super::operations::{Register, Registers, Write};
use crate::checker::Judgement;

/// An operation at its place in the order.
struct Placed {
    /// Twice the rev for a write, one more for a read of it.
    place: u64,
    index: u64,
    invoke_ns: u64,
    complete_ns: u64,
}

impl Placed {
    fn write(write: &Write) -> Self {
        Self {
            place: 2 * write.rev,
            index: write.index,
            invoke_ns: write.invoke_ns,
            complete_ns: write.complete_ns.unwrap_or(u64::MAX),
        }
    }
}

pub(super) fn check_register(name: &str, register: &Register, judgement: &mut Judgement) {
    check_values(name, register, judgement);
    check_conditions(name, register, judgement);
    let mut placed: Vec<Placed> = register.writes.iter().map(Placed::write).collect();
    placed.extend(register.reads.iter().map(|read| Placed {
        place: 2 * read.rev + 1,
        index: read.index,
        invoke_ns: read.invoke_ns,
        complete_ns: read.complete_ns,
    }));
    placed.sort_by_key(|operation| (operation.place, operation.invoke_ns));
    let earliest = sweep(&placed, |index, before| {
        judgement.violation(format_args!(
            "not linearizable: of register {name}, event {index} ended before event {before} began, yet stands after it"
        ));
    });
    check_refusals(name, register, &placed, &earliest, judgement);
}

/// Writes of different registers stand in one order too.
pub(super) fn check_writes(registers: &Registers, judgement: &mut Judgement) {
    let mut placed: Vec<(Placed, &str)> = Vec::new();
    for (name, register) in registers {
        placed.extend(
            register
                .writes
                .iter()
                .map(|write| (Placed::write(write), name.as_str())),
        );
    }
    placed.sort_by_key(|(operation, _)| (operation.place, operation.invoke_ns));
    for pair in placed.windows(2) {
        if pair[0].0.place == pair[1].0.place {
            let (rev, a, b) = (pair[0].0.place / 2, pair[0].0.index, pair[1].0.index);
            judgement.violation(format_args!("rev {rev} was given to the events {a} and {b}"));
        }
    }
    let names: HashMap<u64, &str> = placed
        .iter()
        .map(|(operation, name)| (operation.index, *name))
        .collect();
    let placed: Vec<Placed> = placed.into_iter().map(|(operation, _)| operation).collect();
    sweep(&placed, |index, before| {
        // Those of one register were told above.
        if names[&index] != names[&before] {
            judgement.violation(format_args!(
                "revs against time: event {index}, a write to {}, ended before event {before}, a write to {}, began, \
                 yet has the greater rev",
                names[&index], names[&before]
            ));
        }
    });
}

/// The earliest moment at which each operation can stand. Tells each one that ended before, and which operation's
/// beginning it ended before.
fn sweep(placed: &[Placed], mut too_late: impl FnMut(u64, u64)) -> Vec<u64> {
    let (mut moment, mut set_by) = (0, 0);
    let mut earliest = Vec::with_capacity(placed.len());
    for operation in placed {
        if operation.invoke_ns > moment {
            (moment, set_by) = (operation.invoke_ns, operation.index);
        }
        if moment > operation.complete_ns {
            too_late(operation.index, set_by);
        }
        earliest.push(moment);
    }
    earliest
}

/// A read shows what was written at the rev that it shows.
fn check_values(name: &str, register: &Register, judgement: &mut Judgement) {
    let by_rev: HashMap<u64, &Write> = register.writes.iter().map(|write| (write.rev, write)).collect();
    let by_value: HashMap<&str, &Write> = register
        .writes
        .iter()
        .map(|write| (write.value.as_str(), write))
        .collect();
    for read in &register.reads {
        let (index, rev, value) = (read.index, read.rev, &read.value);
        match (by_rev.get(&rev), by_value.get(value.as_str())) {
            (_, None) => judgement.violation(format_args!(
                "phantom: event {index} read {value:?} from register {name}, which nobody wrote, or whose write was refused"
            )),
            (Some(at), Some(_)) if at.value != *value => judgement.violation(format_args!(
                "wrong value: event {index} read {value:?} at rev {rev} of register {name}, where event {} wrote {:?}",
                at.index, at.value
            )),
            (_, Some(write)) if write.rev != rev => judgement.violation(format_args!(
                "wrong rev: event {index} read {value:?} at rev {rev} of register {name}; it was written at rev {}",
                write.rev
            )),
            _ => {}
        }
    }
}

/// What succeeded on a rev stands right behind it.
fn check_conditions(name: &str, register: &Register, judgement: &mut Judgement) {
    let mut before = None;
    for write in &register.writes {
        if let Some(if_rev) = write.if_rev
            && before.is_some_and(|before| before != if_rev)
        {
            judgement.violation(format_args!(
                "lost update: event {} succeeded on rev {if_rev} of register {name}, which was at rev {}",
                write.index,
                before.unwrap_or_default()
            ));
        }
        before = Some(write.rev);
    }
}

/// Who was refused because the register is not at his rev must find a moment at which it was not: before the write of
/// that rev, at the latest, or behind the next write, at the earliest.
fn check_refusals(name: &str, register: &Register, placed: &[Placed], earliest: &[u64], judgement: &mut Judgement) {
    let mut explained_by_unseen = 0;
    // By rev of each write: the latest moment at which it can stand, and the earliest one of the next write.
    let mut around: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let (mut latest, mut next) = (u64::MAX, u64::MAX);
    for (operation, earliest) in placed.iter().zip(earliest).rev() {
        latest = latest.min(operation.complete_ns);
        if operation.place % 2 == 0 {
            around.insert(operation.place / 2, (latest, next));
            next = *earliest;
        }
    }
    for refused in &register.refused {
        // A rev that nobody is known to have written cannot be judged.
        let Some((latest, next)) = around.get(&refused.if_rev) else {
            continue;
        };
        if *latest >= refused.invoke_ns || *next <= refused.complete_ns {
            continue;
        }
        if register.may_be_due_to_unseen(refused) {
            explained_by_unseen += 1;
            continue;
        }
        judgement.violation(format_args!(
            "refused wrongly: event {} named rev {} of register {name}, which was at that rev all the time",
            refused.index, refused.if_rev
        ));
    }
    *judgement
        .counts
        .entry("refusals that an unknown write may explain")
        .or_default() += explained_by_unseen;
}
