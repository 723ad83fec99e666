use std::collections::BTreeSet;

use quorate_storage::log::LogId;

use super::{Invariant, Seen};

/// If a log entry is committed in a given term, then that entry will be present in the logs of the leaders for
/// all higher-numbered terms.
#[derive(Default)]
pub(super) struct LeaderCompleteness {
    /// The last entry that anybody has applied.
    committed: Option<LogId>,
    leaders: BTreeSet<(u64, u64)>,
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness (§5.4)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        for node in nodes {
            let Some(term) = node.leads else { continue };
            if !self.leaders.insert((term, node.id)) {
                continue;
            }
            let Some(committed) = self
                .committed
                .filter(|committed| (committed.term, committed.leader) < (term, node.id))
            else {
                continue;
            };
            let purged = node.log.purged.is_some_and(|purged| purged.index >= committed.index);
            if !purged && node.ids.get(&committed.index) != Some(&committed) {
                return Err(format!(
                    "node {} leads term {term} without the committed entry {committed}",
                    node.id
                ));
            }
        }
        self.committed = self.committed.max(nodes.iter().filter_map(|node| node.applied).max());
        Ok(())
    }
}
