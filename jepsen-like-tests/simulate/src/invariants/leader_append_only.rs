use std::collections::BTreeMap;

use super::{Invariant, Seen};

/// A leader never overwrites or deletes entries in its log; it only appends new entries.
#[derive(Default)]
pub(super) struct LeaderAppendOnly {
    led: BTreeMap<u64, u64>,
}

impl Invariant for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only (§5.3)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        for node in nodes {
            let before = match node.leads {
                Some(term) => self.led.insert(node.id, term),
                None => self.led.remove(&node.id),
            };
            // A crash takes what was not synced.
            let led_on = !node.is_new && node.leads.is_some() && before == node.leads;
            if let Some(gone) = node.truncated.last().filter(|_| led_on) {
                return Err(format!(
                    "node {} leads term {:?} and dropped entry {gone}",
                    node.id, node.leads
                ));
            }
        }
        Ok(())
    }
}
