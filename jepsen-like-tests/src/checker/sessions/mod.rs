//! The session checker: does who carries his position from node to node see time go forward?
//!
//! A session is one process. Each of its reads of a key must be at the rev of its reads and writes of that key before,
//! or a later one, on whatever node and at whatever level.
//!
//! | `f` | `key` | beginning | end |
//! |---|---|---|---|
//! | `session.read` | what is read | | `ok`: `value` and `rev` seen, `node` |
//! | `session.write` | what is written | `value`: a text that is written once | `ok`: `rev` |

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, bail};

use super::operation::Outcome;
use super::pairs::pairs;
use super::{Checker, Judgement};
use crate::history::{Event, Process};

pub const READ: &str = "session.read";
pub const WRITE: &str = "session.write";
/// All of these operations.
pub const PREFIX: &str = "session.";

#[derive(Debug, Clone, Copy, Default)]
pub struct Sessions;

/// What a session knows of one key.
struct Known {
    rev: u64,
    index: u64,
    is_own_write: bool,
}

impl Checker for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn about(&self) -> &'static str {
        "who carries his position to any node reads what he wrote, and never what is older than what he read"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["sessions", "reads", "acknowledged writes"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let (mut reads, mut writes, mut hops) = (0, 0, 0);
        let mut known: BTreeMap<(Process, &str), Known> = BTreeMap::new();
        let mut last_node: BTreeMap<Process, u64> = BTreeMap::new();
        let mut sessions = BTreeSet::new();
        let mut texts: HashMap<(&str, u64), String> = HashMap::new();
        for pair in pairs(events, &[PREFIX])? {
            let (key, index, process) = (pair.key()?, pair.index(), pair.begun.process);
            sessions.insert(process);
            let is_own_write = match pair.f() {
                READ => false,
                WRITE => true,
                other => bail!("event {index}: unknown operation {other}"),
            };
            if pair.outcome() != Outcome::Done {
                continue;
            }
            let rev = pair.rev()?;
            let text: String = if is_own_write { pair.asked()? } else { pair.answered()? };
            if is_own_write {
                writes += 1;
            } else {
                reads += 1;
            }
            if let Some(node) = pair.end.and_then(|end| end.node)
                && last_node.insert(process, node).is_some_and(|before| before != node)
            {
                hops += 1;
            }
            let before = texts.entry((key, rev)).or_insert_with(|| text.clone());
            if *before != text {
                judgement.violation(format_args!(
                    "two values: {key} is {before:?} and, to event {index}, {text:?}, both at rev {rev}"
                ));
            }
            if let Some(known) = known.get(&(process, key))
                && rev < known.rev
            {
                let what = if known.is_own_write {
                    "own write not read"
                } else {
                    "time goes back"
                };
                judgement.violation(format_args!(
                    "{what}: event {index} is at rev {rev} of {key}, after event {} of the same session was at rev {}",
                    known.index, known.rev
                ));
            }
            let now = Known {
                rev,
                index,
                is_own_write,
            };
            let at = known.entry((process, key)).or_insert_with(|| Known { ..now });
            if now.rev >= at.rev {
                *at = now;
            }
        }
        judgement.counts.insert("sessions", sessions.len() as u64);
        judgement.counts.insert("reads", reads);
        judgement.counts.insert("acknowledged writes", writes);
        judgement.counts.insert("hops to another node", hops);
        Ok(judgement)
    }
}
