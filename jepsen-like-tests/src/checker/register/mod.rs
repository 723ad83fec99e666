//! The register checker: is each register, an entity with a `rev`, what one copy would have been?
//!
//! A register exposes its order: every acknowledged write says its rev, every read the rev that it saw. So
//! linearizability needs no search. A write stands at its rev, a read right behind the write that it saw; in that
//! order each operation must find a moment, not before that of the operation before it, between its own beginning and
//! end. The earliest such moment is `max(the moment before, its beginning)`: one sweep decides. A write of unknown
//! outcome that somebody read counts, without an end; one that nobody saw is dropped.
//!
//! | `f` | `key` | beginning | end |
//! |---|---|---|---|
//! | `register.read` | register | | `ok`: `value` and `rev` seen |
//! | `register.write` | register | `value`: a text that is written once | `ok`: `rev` |
//! | `register.cas` | register | `value`: `{"if_rev": N, "value": text}` | `ok`: `rev`; `fail` with `rev`: refused, the register was not at that rev; `fail` without: not asked |

mod operations;
mod sweep;

#[cfg(test)]
mod tests;

use anyhow::Result;

pub use self::operations::{Read, Refused, Register, Registers, Write, registers};
use self::sweep::{check_register, check_writes};
use super::{Checker, Judgement};
use crate::history::Event;

pub const READ: &str = "register.read";
pub const WRITE: &str = "register.write";
pub const CAS: &str = "register.cas";
/// All of these operations.
pub const PREFIX: &str = "register.";

#[derive(Debug, Clone, Copy, Default)]
pub struct RegisterChecker;

impl Checker for RegisterChecker {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn about(&self) -> &'static str {
        "registers are linearizable in the order of their revs, and a compare-and-set succeeds only on the rev it names"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["registers", "reads", "acknowledged writes"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let registers = registers(events)?;
        let mut judgement = Judgement::default();
        for (name, register) in &registers {
            check_register(name, register, &mut judgement);
        }
        check_writes(&registers, &mut judgement);
        let sum = |count: fn(&Register) -> usize| registers.values().map(|register| count(register) as u64).sum();
        judgement.counts.insert("registers", registers.len() as u64);
        judgement.counts.insert("reads", sum(|register| register.reads.len()));
        judgement.counts.insert(
            "acknowledged writes",
            sum(|register| register.writes.iter().filter(|write| write.is_acknowledged()).count()),
        );
        judgement.counts.insert(
            "unknown writes that were seen",
            sum(|register| register.writes.iter().filter(|write| !write.is_acknowledged()).count()),
        );
        judgement
            .counts
            .insert("unknown writes that nobody saw", sum(|register| register.unseen.len()));
        judgement
            .counts
            .insert("refused compare-and-sets", sum(|register| register.refused.len()));
        Ok(judgement)
    }
}
