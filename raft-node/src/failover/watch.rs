//! How a node notices that its leader's process is gone.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_storage::log::Vote;
use quorate_storage::state::StateStore;
use tokio::time::timeout;

use super::{Failover, Sign};
use crate::node::NodeCore;
use crate::peers::pool::{DIAL_TIMEOUT, Probe};
use crate::types::to_stored_vote;

/// A process that ends closes its sockets one after the other: for a moment its listener may outlive a connection.
const PROBE_AGAIN_MIN: Duration = Duration::from_millis(2);
/// While nobody listens: a process that is started anew is soon seen, and dialling costs nothing.
const PROBE_AGAIN_REFUSED: Duration = Duration::from_millis(100);
/// While nothing can be said: a link that is down, or a node that does not take this one for a peer.
const PROBE_AGAIN_UNCLEAR: Duration = Duration::from_secs(1);

/// How long a probe first waits for an answer. A packet that comes just as a listener closes may be dropped without a
/// word, and TCP sends it again after a second: whoever dials anew hears at once that nobody listens. A leader that is
/// far away or busy is given twice as long each time.
const PROBE_WITHIN_MIN: Duration = Duration::from_millis(50);

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
    let mut pause = PROBE_AGAIN_MIN;
    let mut within = PROBE_WITHIN_MIN;
    loop {
        let probe = core.pool.probe(leader.leader, within).await;
        within = next_within(&probe, within);
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
                pause = PROBE_AGAIN_MIN;
                tokio::select! {
                    biased;
                    () = connection.closed() => {}
                    () = failover.asked.notified() => {}
                }
            }
            Probe::Refused => {
                failover.find(leader, Some(Sign::Refused));
                rest(failover, &mut pause, PROBE_AGAIN_REFUSED).await;
            }
            Probe::Unclear => {
                failover.find(leader, None);
                rest(failover, &mut pause, PROBE_AGAIN_UNCLEAR).await;
            }
        }
    }
}

/// How long the next probe waits, after one that waited for so long.
fn next_within(probe: &Probe, within: Duration) -> Duration {
    match probe {
        Probe::Met(_) | Probe::Refused => PROBE_WITHIN_MIN,
        Probe::Unclear => (within * 2).min(DIAL_TIMEOUT),
    }
}

/// Whether another run answers than the one that was met when it led. What a peer of an earlier build is, nobody knows.
fn restarted(known: Option<u128>, met: Option<u128>) -> bool {
    known.zip(met).is_some_and(|(known, met)| known != met)
}

/// Until the pause is over or somebody asks; the next pause is twice as long.
async fn rest(failover: &Failover, pause: &mut Duration, pause_max: Duration) {
    let _ = timeout((*pause).min(pause_max), failover.asked.notified()).await;
    *pause = (*pause * 2).min(pause_max);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_packet_costs_little_and_a_slow_leader_is_waited_for() {
        let unclear = |within: &Duration| Some(next_within(&Probe::Unclear, *within));
        let waits: Vec<u128> = std::iter::successors(Some(PROBE_WITHIN_MIN), unclear)
            .take(7)
            .map(|within| within.as_millis())
            .collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(next_within(&Probe::Refused, DIAL_TIMEOUT), PROBE_WITHIN_MIN);
    }

    #[test]
    fn only_another_known_run_is_a_restart() {
        assert!(restarted(Some(1), Some(2)));
        assert!(!restarted(Some(1), Some(1)));
        assert!(!restarted(None, Some(2)), "it may have been met only after it ended");
        assert!(!restarted(Some(1), None));
    }
}
