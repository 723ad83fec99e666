//! What a node tells of itself and of its cluster.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_api::replica::{ClusterNode, ClusterStatus, RaftState};
use quorate_storage::state::StateStore;
use tokio::time::Instant;

use crate::node::NodeCore;
use crate::peers::admin::Change;
use crate::peers::frame::{NodeState, StatusAnswer};

/// How long `/v1/cluster` waits for a node before it calls it unreachable.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
/// A node that is further behind what it knows to be committed is not ready.
const READY_LAG_ENTRIES: u64 = 1024;

impl<S: StateStore> NodeCore<S> {
    pub fn raft_state(&self) -> NodeState {
        match self.server.borrow_watched().state {
            ServerState::Leader => NodeState::Leader,
            ServerState::Candidate => NodeState::Candidate,
            ServerState::Learner => NodeState::Learner,
            ServerState::Follower | ServerState::Shutdown => NodeState::Follower,
        }
    }

    pub fn status_answer(&self) -> StatusAnswer {
        let metrics = self.raft.metrics();
        let (term, last_log) = {
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.last_log_index.unwrap_or(0))
        };
        StatusAnswer {
            id: self.book.id,
            state: self.raft_state(),
            term,
            last_log,
            applied: self.applied.borrow().index(),
            disk_low: self.disk.is_low(),
            changes: self.changes_shown(),
            versions: self.versions,
        }
    }

    pub(crate) fn readiness(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("this node is shutting down".to_owned());
        }
        if !self.book.has_members() {
            return Err("the cluster is not initialised yet".to_owned());
        }
        if self.live_leader().is_none() {
            return Err("no leader is known".to_owned());
        }
        let committed = self.data.borrow_watched().local_committed.map_or(0, |id| id.index);
        let applied = self.applied.borrow().index();
        if applied + READY_LAG_ENTRIES < committed {
            return Err(format!("it has applied {applied} of {committed} committed entries"));
        }
        Ok(())
    }

    pub(crate) async fn cluster_status(&self, deadline: Instant) -> ClusterStatus {
        let membership = self.server.borrow_watched().membership_config.clone();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let members = self.book.members();
        let within = deadline.saturating_duration_since(Instant::now()).min(STATUS_TIMEOUT);
        let mut answers = self.ask_members_within(within).await;
        let leader = self.live_leader();
        let changes = answers
            .values()
            .flatten()
            .find(|answer| Some(answer.id) == leader)
            .map(|answer| answer.changes.clone())
            .unwrap_or_default();
        let leader_last = answers
            .values()
            .flatten()
            .find(|answer| Some(answer.id) == leader)
            .map(|answer| answer.last_log);
        let nodes: Vec<ClusterNode> = members
            .iter()
            .map(|(id, member)| {
                let answer = answers.remove(id).flatten();
                let (state, last_log, applied) = match &answer {
                    Some(answer) => (to_api_state(answer.state), answer.last_log, answer.applied),
                    None => (RaftState::Unreachable, 0, 0),
                };
                ClusterNode {
                    id: *id,
                    client_url: member.client_url.clone(),
                    peer_addr: member.peer_addr.clone(),
                    voter: voters.contains(id),
                    state,
                    last_log,
                    applied,
                    lag: leader_last.unwrap_or(last_log).saturating_sub(applied),
                }
            })
            .collect();
        let reachable = nodes
            .iter()
            .filter(|node| node.voter && node.state != RaftState::Unreachable)
            .count();
        let majority = voters.len() / 2 + 1;
        let term = self.raft.metrics().borrow_watched().current_term;
        ClusterStatus {
            cluster_id: self.book.cluster_id().unwrap_or_default(),
            version: self.applied.borrow().version,
            nodes,
            leader,
            term,
            failures_tolerated: reachable.saturating_sub(majority) as u64,
            changes: changes.into_iter().map(Change::into_api).collect(),
        }
    }
}

pub(crate) fn to_api_state(state: NodeState) -> RaftState {
    match state {
        NodeState::Leader => RaftState::Leader,
        NodeState::Follower => RaftState::Follower,
        NodeState::Candidate => RaftState::Candidate,
        NodeState::Learner => RaftState::Learner,
    }
}
