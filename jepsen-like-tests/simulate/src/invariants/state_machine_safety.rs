use std::collections::BTreeMap;

use quorate_storage::log::LogId;

use super::{Invariant, Seen};

/// If a server has applied a log entry at a given index to its state machine, no other server will ever apply a
/// different log entry for the same index.
#[derive(Default)]
pub(super) struct StateMachineSafety {
    applied: BTreeMap<u64, LogId>,
    upto: BTreeMap<u64, u64>,
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety (§5.4.3)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        for node in nodes {
            let Some(last) = node.applied else { continue };
            // A new process applies again what its state had lost.
            let from = match node.is_new {
                true => 0,
                false => self.upto.get(&node.id).map_or(0, |upto| upto + 1),
            };
            self.upto.insert(node.id, last.index);
            let newly = node.ids.range(from..=last.index.max(from)).map(|(_, id)| *id);
            for id in newly.filter(|id| id.index <= last.index).chain([last]) {
                let first = *self.applied.entry(id.index).or_insert(id);
                if first != id {
                    return Err(format!(
                        "node {} has applied {id} where {first} was applied before",
                        node.id
                    ));
                }
            }
        }
        Ok(())
    }
}
