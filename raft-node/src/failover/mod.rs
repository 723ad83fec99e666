//! A leader whose process is gone is replaced at once, without waiting for the election time-out
//! ([ADR 13](../../../docs/adr/0013-failover.md)).
//!
//! Every node keeps one connection to the leader on which nothing is sent. When it ends, the leader is dialled anew.
//! The leader is *lost* when nobody listens at its address or another run of its process answers, and all its
//! own connections to this node have ended and what came on them is in the log. A connection that ends, an answer
//! that does not come, a leader that is cut off are none of this: there the election time-out decides.
//!
//! | file | what |
//! |---|---|
//! | this one | what a node knows of its leader's death |
//! | `inbound` | the connections that others keep to this node |
//! | `watch` | how the death is noticed |
//! | `probe` | how long a dial of the leader is waited for, and when it is dialled again |
//! | `decision` | whether enough nodes have noticed it, and who is to lead: pure |
//! | `replace` | asking the others, and campaigning |

mod decision;
mod inbound;
mod probe;
mod replace;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_storage::log::Vote;
use tokio::sync::{Notify, watch as channel};

use crate::metrics::ElectionMetrics;
pub use inbound::{Inbound, Linked};
pub use watch::watch_leader;

/// What showed that a leader's process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Nobody listens at its address.
    Refused,
    /// Another run of its process answered: the one that led has ended, whoever of it still seems connected.
    /// Only connections with a smaller number than this may be its own.
    Restarted { links_before: u64 },
}

impl Sign {
    /// For metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Restarted { .. } => "restarted",
        }
    }
}

/// Why this node campaigns in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The leader's process is gone.
    Failover,
    /// The leader hands over to this node.
    Transfer,
}

/// What this node knows of its leader's death.
#[derive(Debug)]
pub struct Failover {
    pub inbound: Inbound,
    /// The leader that was found dead, by its vote, and how. Of no meaning once the vote has changed.
    found: channel::Sender<Option<(Vote, Sign)>>,
    /// Somebody asks whether the leader is lost: it is to be dialled now.
    asked: Notify,
    /// The last term in which this node campaigned for each cause; 0: never.
    failover_term: AtomicU64,
    transfer_term: AtomicU64,
    metrics: ElectionMetrics,
}

impl Failover {
    pub fn new(metrics: ElectionMetrics) -> Self {
        Self {
            inbound: Inbound::default(),
            found: channel::Sender::new(None),
            asked: Notify::new(),
            failover_term: AtomicU64::new(0),
            transfer_term: AtomicU64::new(0),
            metrics,
        }
    }

    /// This node is about to campaign in this term.
    pub fn begin(&self, cause: Cause, term: u64) {
        self.term_of(cause).store(term, Ordering::Relaxed);
    }

    /// Whether this node campaigns in this term because its leader is lost.
    pub fn is_failover(&self, term: u64) -> bool {
        self.failover_term.load(Ordering::Relaxed) == term
    }

    fn term_of(&self, cause: Cause) -> &AtomicU64 {
        match cause {
            Cause::Failover => &self.failover_term,
            Cause::Transfer => &self.transfer_term,
        }
    }

    /// This node leads now, in this term.
    fn count_won(&self, term: u64) {
        let began = |cause| self.term_of(cause).load(Ordering::Relaxed) == term;
        let cause = match (began(Cause::Failover), began(Cause::Transfer)) {
            (true, _) => "failover",
            (false, true) => "transfer",
            (false, false) => "timeout",
        };
        tracing::info!(term, cause, "this node leads");
        self.metrics.won(cause);
    }

    /// Whether the process is gone that leads by this vote, and all that it had sent to this node is in the log.
    pub fn is_lost(&self, leader: Vote) -> bool {
        let found = *self.found.borrow();
        match found {
            // Whoever is connected lives, even if nobody listens where it is said to be.
            Some((vote, Sign::Refused)) => vote == leader && !self.inbound.has(leader.leader, u64::MAX),
            Some((vote, Sign::Restarted { links_before })) => {
                vote == leader && !self.inbound.has(leader.leader, links_before)
            }
            None => false,
        }
    }

    /// Returns when [`Self::is_lost`] holds, at the moment.
    async fn lost(&self, leader: Vote) {
        let (mut found, mut links) = (self.found.subscribe(), self.inbound.news());
        loop {
            found.borrow_and_update();
            links.borrow_and_update();
            if self.is_lost(leader) {
                return;
            }
            // Both senders live as long as `self`.
            tokio::select! {
                biased;
                _ = found.changed() => {}
                _ = links.changed() => {}
            }
        }
    }

    fn find(&self, leader: Vote, sign: Option<Sign>) {
        self.found.send_replace(sign.map(|sign| (leader, sign)));
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::metrics::Metrics;

    const LEADER: Vote = Vote {
        term: 4,
        leader: 1,
        committed: true,
    };

    fn failover() -> Failover {
        let metrics = Metrics::new(&Registry::new()).expect("the names are valid");
        Failover::new(metrics.elections)
    }

    #[test]
    fn a_leader_that_is_still_connected_is_not_lost() {
        let failover = failover();
        let link = failover.inbound.enter(1);
        let other = failover.inbound.enter(2);
        failover.find(LEADER, Some(Sign::Refused));
        assert!(!failover.is_lost(LEADER));
        drop(link);
        assert!(failover.is_lost(LEADER), "the links of others say nothing");
        drop(other);
        let again = failover.inbound.enter(1);
        assert!(!failover.is_lost(LEADER), "it has dialled again: it lives");
        drop(again);
        failover.find(LEADER, None);
        assert!(!failover.is_lost(LEADER));
    }

    #[test]
    fn the_next_run_of_a_process_does_not_bring_the_last_one_back() {
        let failover = failover();
        let old = failover.inbound.enter(1);
        failover.find(
            LEADER,
            Some(Sign::Restarted {
                links_before: failover.inbound.next(),
            }),
        );
        let _new = failover.inbound.enter(1);
        assert!(!failover.is_lost(LEADER), "what the old one sent may still come in");
        drop(old);
        assert!(failover.is_lost(LEADER));
    }

    #[test]
    fn only_the_vote_that_was_found_dead_is() {
        let failover = failover();
        failover.find(LEADER, Some(Sign::Refused));
        for other in [
            Vote { term: 5, ..LEADER },
            Vote { leader: 2, ..LEADER },
            Vote {
                committed: false,
                ..LEADER
            },
        ] {
            assert!(!failover.is_lost(other), "{other:?}");
        }
    }

    #[test]
    fn a_campaign_is_a_failover_in_its_own_term_only() {
        let failover = failover();
        failover.begin(Cause::Transfer, 7);
        assert!(!failover.is_failover(7));
        failover.begin(Cause::Failover, 7);
        assert!(failover.is_failover(7) && !failover.is_failover(6) && !failover.is_failover(8));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_hears_of_the_last_link_that_ends() {
        let failover = failover();
        let link = failover.inbound.enter(1);
        let waits = async {
            failover.lost(LEADER).await;
        };
        let ends = async {
            tokio::task::yield_now().await;
            failover.find(LEADER, Some(Sign::Refused));
            tokio::task::yield_now().await;
            drop(link);
        };
        tokio::join!(waits, ends);
    }
}
