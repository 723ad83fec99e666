//! Those who wait for a lock at a node that is gone. A node gives up a waiter itself when his connection closes;
//! when it dies it cannot, and a lock would be granted to one dead waiter after the other, a ttl for each. So
//! the leader drops them when the node has been silent for a while, and a node that comes back drops those of
//! its earlier runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::replica::{ReplicaError, WriteOptions};
use quorate_state_machine::apply::Response;
use quorate_state_machine::version::LOCKS_SESSIONS_EDITS;
use quorate_state_machine::{Command, Fatal, RunId, SpaceId, query};
use quorate_storage::state::StateStore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::node::NodeCore;
use crate::own_command::{OF_THE_NODE, own_command};
use crate::survey::Survey;

/// A node is asked twice a second; one that has not answered for so long is taken for gone. With the time to
/// notice and to propose, its waiters are dropped within two seconds, as the contract says. One that was only
/// slow tells those who waited that their wait is over.
const GONE_AFTER: Duration = Duration::from_secs(1);
const DROP_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The leader's part.
#[derive(Default)]
pub(crate) struct AbsentNodes {
    /// Nodes at which somebody waits and that do not answer, since when.
    silent: BTreeMap<u64, Instant>,
    under_way: Option<JoinHandle<()>>,
}

impl AbsentNodes {
    /// Takes what the members have just said.
    pub(crate) fn look<S: StateStore>(&mut self, core: &Arc<NodeCore<S>>, survey: &Survey) {
        // Whoever hears from no majority is the one who is gone.
        if !core.holds_lease() {
            self.silent.clear();
            return;
        }
        let homes = match core.homes() {
            Ok(homes) => homes,
            Err(error) => return (core.on_fatal)(error.to_string()),
        };
        let answers = |node: &u64| matches!(survey.get(node), Some(Some(_)));
        self.silent.retain(|node, _| homes.contains(node) && !answers(node));
        for node in homes.into_iter().filter(|node| !answers(node)) {
            let since = *self.silent.entry(node).or_insert_with(Instant::now);
            let busy = self.under_way.as_ref().is_some_and(|task| !task.is_finished());
            // Who has left the cluster will not come back.
            if !busy && (since.elapsed() >= GONE_AFTER || !survey.contains_key(&node)) {
                tracing::info!(node, "giving up those who wait for locks at a node that is gone");
                self.under_way = Some(tokio::spawn(drop_those_at(core.clone(), node)));
            }
        }
    }
}

/// A node's own part, once after its start.
pub async fn give_up_earlier_runs<S: StateStore>(core: Arc<NodeCore<S>>) {
    let (node, run) = (core.book.id, core.run);
    let mut applied = core.applied.clone();
    if applied
        .wait_for(|now| now.version >= LOCKS_SESSIONS_EDITS)
        .await
        .is_err()
    {
        return;
    }
    // What an earlier run proposed is known when this node has caught up.
    while core.catch_up().await.is_err() {
        if core.stopping.is_cancelled() {
            return;
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
    match core.homes() {
        // Of this run, or of an earlier one: apply tells them apart.
        Ok(homes) if homes.contains(&node) => drop_those_before(core, node, run).await,
        Ok(_) => {}
        Err(error) => (core.on_fatal)(error.to_string()),
    }
}

/// As the leader, and as nobody else: what it proposes is never sent on, and not proposed again. If it did not go
/// through, the next survey finds the node silent still, or back.
async fn drop_those_at<S: StateStore>(core: Arc<NodeCore<S>>, node: u64) {
    let command = own_command(Command::DropWaiters { node, except: None }, OF_THE_NODE).encode();
    loop {
        let deadline = Instant::now() + DROP_TIMEOUT;
        match core.proposer.propose(command.clone().into(), deadline).await {
            Ok(outcome) => match outcome.response {
                Ok(Response::Swept { more: true }) => {}
                Ok(_) => return,
                Err(refused) => return tracing::error!(reason = %refused.detail, "waiters were not dropped"),
            },
            Err(error) => return tracing::debug!(?error, node, "waiters were not dropped"),
        }
    }
}

/// As the node itself, wherever the leader is, until it went through: nobody of this run is among them.
async fn drop_those_before<S: StateStore>(core: Arc<NodeCore<S>>, node: u64, run: RunId) {
    let except = Some(run);
    let command = own_command(Command::DropWaiters { node, except }, OF_THE_NODE).encode();
    loop {
        let options = WriteOptions {
            deadline: Instant::now().into_std() + DROP_TIMEOUT,
            redirect: false,
        };
        match core.write_command(command.clone().into(), options).await {
            Ok(outcome) => match outcome.response {
                Ok(Response::Swept { more: true }) => {}
                Ok(_) => return,
                Err(refused) => return tracing::error!(reason = %refused.detail, "waiters were not dropped"),
            },
            Err(ReplicaError::ShuttingDown) => return,
            Err(error) => {
                tracing::warn!(%error, "failed to drop those who waited at an earlier run, trying again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

impl<S: StateStore> NodeCore<S> {
    fn homes(&self) -> Result<Vec<u64>, Fatal> {
        self.state.read(|view| query::homes(&view, SpaceId::MAIN))
    }
}
