//! What the leader knows of all members: it asks each of them how it stands, twice a second, and draws
//! from it whether writes go on (disks), whether the cluster version can be raised, and who waits at a node that
//! is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::state::StateStore;

use crate::node::NodeCore;
use crate::peers::Purpose;
use crate::peers::frame::{Reply, Request, StatusAnswer};
use crate::versions::Raising;
use crate::waits::AbsentNodes;

const ASK_EVERY: Duration = Duration::from_millis(500);
/// While the cluster version is below what this build supports: a cluster that has just begun is to have all
/// that its nodes support before the first of them can die and hold it back.
const ASK_EVERY_WHEN_HELD_BACK: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_millis(400);

/// What each member, voter or learner, has answered; none of those who were silent.
pub(crate) type Survey = BTreeMap<u64, Option<StatusAnswer>>;

impl<S: StateStore> NodeCore<S> {
    pub(crate) async fn ask_members(&self) -> Survey {
        self.ask_members_within(ASK_TIMEOUT).await
    }

    /// Asks all members at once, this node included.
    pub(crate) async fn ask_members_within(&self, within: Duration) -> Survey {
        let answers = self.book.members().into_keys().map(|id| async move {
            if id == self.book.id {
                return (id, Some(self.status_answer()));
            }
            match self.pool.call(id, Purpose::Control, Request::Status, within).await {
                Ok(Reply::Status(answer)) => (id, Some(answer)),
                _ => (id, None),
            }
        });
        join_all(answers).await.into_iter().collect()
    }
}

/// Asks at once when this node comes to lead, and again and again as long as it does.
pub async fn survey_members<S: StateStore>(core: Arc<NodeCore<S>>) {
    let mut raising = Raising::default();
    let mut absent = AbsentNodes::default();
    let mut leadership = core.raft.server_metrics();
    loop {
        drop(leadership.borrow_and_update());
        let mut pause = ASK_EVERY;
        if core.leads() {
            let survey = core.ask_members().await;
            let voters = core.raft.voter_ids().collect();
            core.disk.see_others(&voters, &survey);
            raising.look(&core, &survey);
            absent.look(&core, &survey);
            if core.applied.borrow().version < core.versions.max {
                pause = ASK_EVERY_WHEN_HELD_BACK;
            }
        } else {
            core.disk.forget_others();
            absent = AbsentNodes::default();
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}
