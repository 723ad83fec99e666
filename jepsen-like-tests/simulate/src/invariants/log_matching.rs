use std::collections::BTreeMap;

use quorate_storage::log::LogId;

use super::{Invariant, Seen};

/// If two logs contain an entry with the same index and term, then the logs are identical in all entries up
/// through the given index.
///
/// It is enough that each entry has one predecessor, wherever it lies.
#[derive(Default)]
pub(super) struct LogMatching {
    predecessors: BTreeMap<LogId, LogId>,
    /// Up to where each node's log was looked at, and with which entry there.
    looked: BTreeMap<u64, LogId>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching (§5.3)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        for node in nodes {
            let looked = self.looked.get(&node.id).copied();
            let unchanged = looked.filter(|looked| node.ids.get(&looked.index) == Some(looked));
            let from = unchanged.map_or(0, |looked| looked.index);
            let mut before = None;
            for id in node.ids.range(from..).map(|(_, id)| *id) {
                if let Some(before) = before {
                    let first = *self.predecessors.entry(id).or_insert(before);
                    if first != before {
                        return Err(format!(
                            "entry {id} follows {first}, and on node {} it follows {before}",
                            node.id
                        ));
                    }
                }
                before = Some(id);
            }
            if let Some((_, last)) = node.ids.last_key_value() {
                self.looked.insert(node.id, *last);
            }
        }
        Ok(())
    }
}
