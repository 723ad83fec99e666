//! How a node notices that its leader's process is gone.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use quorate_storage::log::Vote;
use quorate_storage::state::StateStore;

use super::Sign;
use super::probe::Prober;
use crate::node::NodeCore;
use crate::peers::pool::Probe;
use crate::types::to_stored_vote;

/// Watches whoever leads, and takes part in replacing it when it is lost. Ends with the node.
pub async fn watch_leader<S: StateStore>(core: Arc<NodeCore<S>>) {
    let mut server = core.raft.server_metrics();
    let mut won = None;
    loop {
        let vote = to_stored_vote(server.borrow_and_update().vote);
        let leads = vote.committed && vote.leader == core.book.id;
        if leads && won != Some(vote.term) {
            core.failover.count_won(vote.term);
            won = Some(vote.term);
        }
        let another = async {
            while server.changed().await.is_ok() {
                if to_stored_vote(server.borrow_and_update().vote) != vote {
                    return true;
                }
            }
            false
        };
        let goes_on = match vote.committed && !leads {
            true => tokio::select! {
                biased;
                goes_on = another => goes_on,
                () = observe(&core, vote) => unreachable!("it watches until it is dropped"),
                () = core.replace_leader(vote) => unreachable!("it waits until it is dropped"),
            },
            false => another.await,
        };
        if !goes_on {
            return;
        }
        // What was found of the last leader says nothing of the next.
        core.failover.find(vote, None);
    }
}

/// Finds out again and again whether the process lives that leads by this vote: when a connection to it ends, and
/// when somebody asks.
async fn observe<S: StateStore>(core: &NodeCore<S>, leader: Vote) {
    let failover = &core.failover;
    // Learned only now, when it leads: an earlier run may have been met before it led.
    let mut known_run = None;
    let mut prober = Prober::new();
    loop {
        let probe = prober.probe(&core.pool, leader.leader).await;
        match probe {
            Probe::Met(connection) => {
                let run = connection.greeted.run;
                if restarted(known_run, run) {
                    let links_before = failover.inbound.next();
                    failover.find(leader, Some(Sign::Restarted { links_before }));
                    // It will not come back. Whoever waits for its links to end goes on by itself.
                    std::future::pending::<()>().await;
                }
                known_run = known_run.or(run);
                failover.find(leader, None);
                tokio::select! {
                    biased;
                    () = connection.closed() => {}
                    () = failover.asked.notified() => {}
                }
            }
            Probe::Refused | Probe::Silent | Probe::Unclear => {
                failover.find(leader, matches!(probe, Probe::Refused).then_some(Sign::Refused));
                prober.rest(&probe, failover).await;
            }
        }
    }
}

/// Whether another run answers than the one that was met when it led. What a peer of an earlier build is, nobody knows.
fn restarted(known: Option<u128>, met: Option<u128>) -> bool {
    known.zip(met).is_some_and(|(known, met)| known != met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_known_run_is_a_restart() {
        assert!(restarted(Some(1), Some(2)));
        assert!(!restarted(Some(1), Some(1)));
        assert!(!restarted(None, Some(2)), "it may have been met only after it ended");
        assert!(!restarted(Some(1), None));
    }
}
