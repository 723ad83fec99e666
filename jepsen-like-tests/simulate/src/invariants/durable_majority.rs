use std::collections::BTreeSet;

use quorate_storage::log::LogId;

use super::{Invariant, Seen, has_majority};

/// An entry is committed once the leader has replicated it on a majority of the servers, and replicated means
/// on disk: a crash of all of them at once must not take it back.
#[derive(Default)]
pub(super) struct DurableMajority {
    checked: Option<LogId>,
}

impl Invariant for DurableMajority {
    fn name(&self) -> &'static str {
        "committed on a majority of disks (§5.3, §8)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        let furthest = nodes.iter().max_by_key(|node| node.applied);
        let Some((node, applied)) = furthest.and_then(|node| Some((node, node.applied?))) else {
            return Ok(());
        };
        if self.checked >= Some(applied) {
            return Ok(());
        }
        self.checked = Some(applied);
        let keepers: BTreeSet<u64> = nodes
            .iter()
            .filter(|node| node.keeps(applied))
            .map(|node| node.id)
            .collect();
        // A change of the membership may have come between its commit and this look.
        let holds = node.configs.iter().any(|config| has_majority(config, &keepers));
        match holds || node.configs.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "node {} has applied {applied}, which only {keepers:?} of {:?} have on disk",
                node.id, node.configs
            )),
        }
    }
}
