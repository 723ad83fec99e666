use std::collections::BTreeMap;

use quorate_storage::log::LogId;
use quorate_storage::state::StateStore;

use super::{Invariant, Seen};

/// Hashing all states after every step would take most of the time.
const EVERY_STEPS: u64 = 50;
/// Hashes that are remembered for nodes that are behind.
const REMEMBERED_MAX: usize = 10_000;

/// Two replicas that have applied the same entries are the same, byte for byte.
#[derive(Default)]
pub(super) struct SameStates {
    steps: u64,
    hashes: BTreeMap<LogId, (u64, u128)>,
}

impl Invariant for SameStates {
    fn name(&self) -> &'static str {
        "the same log makes the same state (§2)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        self.steps += 1;
        if !self.steps.is_multiple_of(EVERY_STEPS) {
            return Ok(());
        }
        for node in nodes {
            let Some(applied) = node.applied else { continue };
            let hash = node.state().state_hash().map_err(|error| error.to_string())?;
            let (first, expected) = *self.hashes.entry(applied).or_insert((node.id, hash));
            if expected != hash {
                return Err(format!("nodes {first} and {} differ after {applied}", node.id));
            }
        }
        while self.hashes.len() > REMEMBERED_MAX {
            self.hashes.pop_first();
        }
        Ok(())
    }
}
