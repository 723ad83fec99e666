//! Comparing the states of all nodes, while they work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_state_machine::PackedEntry;
use quorate_storage::state::StateStore;
use tokio::time::{Instant, timeout_at};

use crate::metrics::VerifyMetrics;
use crate::node::NodeCore;
use crate::peers::Purpose;
use crate::peers::admin::{AdminRefusal, NodeHash, Verification};
use crate::peers::frame::{Reply, Request};
use crate::state_hashes::StateHash;
use crate::types::Payload;

/// Kept from the time given, so that the answer of those who did hash comes back in time.
const MARGIN: Duration = Duration::from_millis(200);
/// For the comparison that the leader makes by itself.
const OWN_TIMEOUT: Duration = Duration::from_secs(60);

impl<S: StateStore> NodeCore<S> {
    /// As the leader: marks a place in the log and asks everybody for the hash of the state there.
    pub(crate) async fn verify_here(&self, deadline: Instant) -> Result<Verification, AdminRefusal> {
        if !self.leads() {
            return Err(AdminRefusal::NotLeader);
        }
        let mark = PackedEntry::mark(self.clock.stamp(self.term(), self.applied.borrow().elapsed_ms));
        // Each costs every node a pass over its whole state.
        let Ok(_turn) = self.verifying.try_lock() else {
            return Err(AdminRefusal::Conflict(
                "the states are being compared already".to_owned(),
            ));
        };
        let written = timeout_at(deadline, self.raft.client_write(Payload(mark.encode().into())))
            .await
            .map_err(|_| AdminRefusal::NotReady("no majority has confirmed the mark in time".to_owned()))?
            .map_err(|error| AdminRefusal::NotReady(error.to_string()))?;
        let index = written.log_id.index;
        let until = deadline.checked_sub(MARGIN).unwrap_or(deadline);
        let members: Vec<u64> = self.book.members().into_keys().collect();
        let hashes = join_all(members.iter().map(|id| self.hash_of(*id, index, until))).await;
        let revision = self
            .hash_here(index, Instant::now())
            .await
            .map_or(0, |own| own.revision);
        Ok(Verification {
            index,
            revision,
            nodes: compare(members.into_iter().zip(hashes)),
        })
    }

    async fn hash_of(&self, id: u64, index: u64, until: Instant) -> Result<u128, String> {
        if id == self.book.id {
            return self.hash_here(index, until).await.map(|own| own.hash);
        }
        let within = until.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let request = Request::StateHash { index, timeout_ms };
        match self.pool.call(id, Purpose::Forward, request, within).await {
            Ok(Reply::StateHash(answer)) => answer.map(|(_, hash)| hash),
            Ok(other) => Err(format!("unexpected reply {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// This node's hash after entry `index`, which it may still have to apply.
    pub(crate) async fn hash_here(&self, index: u64, until: Instant) -> Result<StateHash, String> {
        match tokio::time::timeout_at(until, self.hashes.get(index)).await {
            Ok(result) => result,
            Err(_) => Err("it was not ready in time".to_owned()),
        }
    }
}

/// Marks those whose hash is not the one that most have.
fn compare(hashes: impl Iterator<Item = (u64, Result<u128, String>)>) -> Vec<NodeHash> {
    let hashes: Vec<_> = hashes.collect();
    let mut counts = BTreeMap::new();
    for (_, hash) in &hashes {
        if let Ok(hash) = hash {
            *counts.entry(*hash).or_insert(0) += 1;
        }
    }
    // On a tie nobody is right: then all are said to differ.
    let most = counts.values().copied().max().unwrap_or(0);
    let mut winners = counts.iter().filter(|(_, count)| **count == most);
    let usual = match (winners.next(), winners.next()) {
        (Some((hash, _)), None) => Some(*hash),
        _ => None,
    };
    let node = |(id, hash): (u64, Result<u128, String>)| NodeHash {
        id,
        differs: hash.as_ref().is_ok_and(|hash| Some(*hash) != usual),
        hash,
    };
    hashes.into_iter().map(node).collect()
}

/// The leader compares all nodes now and then, and raises the alarm.
pub async fn verify_now_and_then<S: StateStore>(core: Arc<NodeCore<S>>, every: Duration, metrics: VerifyMetrics) {
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    loop {
        ticks.tick().await;
        if !core.leads() {
            metrics.forget();
            continue;
        }
        match core.verify_here(Instant::now() + OWN_TIMEOUT).await {
            Ok(verification) => {
                metrics.observe(verification.nodes.iter().map(|node| (node.id, node.differs)));
                for node in verification.nodes.iter().filter(|node| node.differs) {
                    tracing::error!(
                        node = node.id,
                        index = verification.index,
                        revision = verification.revision,
                        "the state of this node is not the one that most nodes have: replace it"
                    );
                }
            }
            Err(refusal) => tracing::warn!(?refusal, "the states were not compared"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing(hashes: &[(u64, Option<u128>)]) -> Vec<u64> {
        let hashes = hashes.iter().map(|(id, hash)| (*id, hash.ok_or("silent".to_owned())));
        let compared = compare(hashes);
        compared
            .iter()
            .filter(|node| node.differs)
            .map(|node| node.id)
            .collect()
    }

    #[test]
    fn the_one_that_differs_from_most_is_named() {
        assert_eq!(differing(&[(1, Some(7)), (2, Some(7)), (3, Some(7))]), [0; 0]);
        assert_eq!(differing(&[(1, Some(7)), (2, Some(8)), (3, Some(7))]), [2]);
        assert_eq!(differing(&[(1, Some(7)), (2, None), (3, Some(7))]), [0; 0]);
        assert_eq!(differing(&[(1, Some(7)), (2, Some(8)), (3, None)]), [1, 2]);
    }
}
