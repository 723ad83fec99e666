//! Replacing a leader that is lost: asking the other voters, and campaigning where the answers say so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use quorate_storage::log::{LogId, Vote};
use quorate_storage::state::StateStore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::decision::candidate;
use super::{Cause, Sign};
use crate::node::NodeCore;
use crate::peers::Purpose;
use crate::peers::frame::{LostAnswer, PROTOCOL_FAILOVER, Reply, Request};
use crate::types::{TypeConfig, to_raft_log_id, to_raft_vote, to_stored_log_id, to_stored_vote};

/// How long a node that is asked may take to see for itself. A process that has just died is seen within a few
/// milliseconds; one that is not dead is not worth more.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// And for the way there and back, a connection included.
const WAY: Duration = Duration::from_millis(100);
/// When enough have answered, so much longer for the others: one may have a longer log.
const STRAGGLERS_WITHIN: Duration = Duration::from_millis(20);
/// Between two rounds of questions. Whoever was to campaign has done it by then, or cannot.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(50);
/// With too few nodes left there is no election anyhow, and nobody has to be asked often.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

impl<S: StateStore> NodeCore<S> {
    /// Whether the leader is lost that this node knows. Asked of the core itself, which may have voted a moment ago.
    pub(crate) async fn has_lost_leader(&self) -> bool {
        if !self.failover.is_lost(self.vote()) {
            return false;
        }
        let now = self.vote_and_log().await;
        now.is_some_and(|(vote, _)| self.failover.is_lost(vote))
    }

    /// None: the core has stopped.
    async fn vote_and_log(&self) -> Option<(Vote, Option<LogId>)> {
        let asked = self
            .raft
            .with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied()));
        let (vote, last_log_id) = asked.await.ok()?;
        Some((to_stored_vote(vote), last_log_id.map(to_stored_log_id)))
    }

    /// To another voter, who has lost the leader of this vote.
    pub async fn answer_lost_leader(&self, leader: Vote, within: Duration) -> LostAnswer {
        let not_lost = LostAnswer {
            lost: false,
            last_log_id: None,
        };
        if leader.leader == self.book.id || self.vote() != leader {
            return not_lost;
        }
        if !self.failover.is_lost(leader) {
            self.failover.asked.notify_one();
            // What it has found out by then is the answer.
            let _ = timeout(within.min(ANSWER_WITHIN), self.failover.lost(leader)).await;
        }
        match self.vote_and_log().await {
            Some((vote, last_log_id)) if vote == leader && self.failover.is_lost(leader) => LostAnswer {
                lost: true,
                last_log_id,
            },
            _ => not_lost,
        }
    }

    /// Waits until the leader of this vote is lost, and then tries to replace it until somebody has: the caller
    /// drops this when the vote changes.
    pub(super) async fn replace_leader(&self, leader: Vote) {
        self.failover.lost(leader).await;
        let sign = self
            .failover
            .found
            .borrow()
            .map_or("", |(_, sign): (_, Sign)| sign.name());
        tracing::warn!(
            node = leader.leader,
            term = leader.term,
            sign,
            "the leader's process is gone"
        );
        self.failover.metrics.lost(sign);
        let mut pause = ASK_AGAIN_MIN;
        loop {
            self.failover.lost(leader).await;
            self.replace_once(leader).await;
            sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
    }

    async fn replace_once(&self, leader: Vote) {
        let membership = self.server.borrow_watched().membership_config.clone();
        let configs = membership.get_joint_config();
        if !configs.iter().any(|voters| voters.contains(&self.book.id)) {
            return;
        }
        let Some((vote, last_log_id)) = self.vote_and_log().await else {
            return;
        };
        if vote != leader {
            return;
        }
        let lost = self.ask_voters(leader, configs, last_log_id).await;
        match candidate(configs, &lost) {
            Some(id) if id == self.book.id => self.campaign(leader, last_log_id).await,
            Some(id) => tracing::info!(candidate = id, "another node is to replace the leader"),
            None => tracing::info!(lost = ?lost.keys(), "too few nodes have lost the leader to replace it"),
        }
    }

    /// Who has lost the leader, this node included, and how far their logs are.
    async fn ask_voters(
        &self,
        leader: Vote,
        configs: &[BTreeSet<u64>],
        last_log_id: Option<LogId>,
    ) -> BTreeMap<u64, Option<LogId>> {
        let voters: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let others = voters
            .into_iter()
            .filter(|id| *id != self.book.id && *id != leader.leader);
        let mut asked: FuturesUnordered<_> = others
            .map(|id| async move { (id, self.ask_voter(id, leader).await) })
            .collect();
        let mut lost = BTreeMap::from([(self.book.id, last_log_id)]);
        let mut until = None;
        loop {
            let next = match until {
                None => asked.next().await,
                Some(until) => timeout_at(until, asked.next()).await.unwrap_or_default(),
            };
            let Some((id, answer)) = next else { return lost };
            if let Some(LostAnswer {
                lost: true,
                last_log_id,
            }) = answer
            {
                lost.insert(id, last_log_id);
            }
            if until.is_none() && candidate(configs, &lost).is_some() {
                until = Some(Instant::now() + STRAGGLERS_WITHIN);
            }
        }
    }

    /// None: no answer.
    async fn ask_voter(&self, id: u64, leader: Vote) -> Option<LostAnswer> {
        let within = ANSWER_WITHIN + WAY;
        let connection = self.pool.connection(id, Purpose::Control, within).await.ok()?;
        if connection.greeted.protocol < PROTOCOL_FAILOVER {
            return None;
        }
        let timeout_ms = u64::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let request = Request::LostLeader { leader, timeout_ms };
        match self.pool.call(id, Purpose::Control, request, within).await {
            Ok(Reply::LostLeader(answer)) => Some(answer),
            Ok(other) => {
                tracing::warn!(peer = id, ?other, "an unexpected reply");
                None
            }
            Err(error) => {
                tracing::debug!(peer = id, %error, "a voter did not say whether it has lost the leader");
                None
            }
        }
    }

    /// openraft campaigns without a pre-vote when a leader hands over to this node. That this one has not is said
    /// to the voters (see `Request::FailoverVote`).
    async fn campaign(&self, leader: Vote, last_log_id: Option<LogId>) {
        let term = leader.term + 1;
        tracing::info!(term, "campaigning to replace the leader");
        self.failover.begin(Cause::Failover, term);
        let request = TransferLeaderRequest::<TypeConfig>::new(
            to_raft_vote(leader),
            self.book.id,
            last_log_id.map(to_raft_log_id),
        );
        let refused = match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(fatal) => fatal.to_string(),
        };
        // Nothing was begun: a leader that hands over after all does so in the usual way.
        self.failover.begin(Cause::Failover, 0);
        tracing::info!(reason = refused, "the campaign was not begun");
    }
}
