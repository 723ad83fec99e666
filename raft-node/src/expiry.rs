//! The leader's part in expiry: it proposes a tick when something is due. Whether something has expired does
//! not depend on it; but those who wait for a lock, and the streams of a session, are to hear of it in time.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_state_machine::Command;
use quorate_state_machine::apply::Response;
use quorate_state_machine::version::LOCKS_SESSIONS_EDITS;
use quorate_storage::state::StateStore;
use tokio::time::Instant;

use crate::node::NodeCore;
use crate::own_command::{OF_THE_NODE, own_command};
use crate::state_machine::AppliedNow;

/// A tick that no majority has confirmed by then is proposed anew: two of them do what one does.
const TICK_TIMEOUT: Duration = Duration::from_secs(5);
/// After a tick that failed, for want of a majority or of a place in the queue.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Ticks as long as this node leads.
pub async fn sweep_expired<S: StateStore>(core: Arc<NodeCore<S>>) {
    let mut next_expiry = core.next_expiry.clone();
    let mut leadership = core.raft.server_metrics();
    loop {
        drop(leadership.borrow_and_update());
        next_expiry.mark_unchanged();
        let now = *core.applied.borrow();
        let until_due = core.until_next_expiry(&now);
        tokio::select! {
            () = sleep_for(until_due) => {
                if !core.tick().await {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
            changed = next_expiry.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// For ever, if there is nothing to wait for.
async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl<S: StateStore> NodeCore<S> {
    /// How long until something is due by the clock of this leadership; none if nothing is, or this node does
    /// not lead. Asked when a leadership begins, it also makes the clock begin then.
    fn until_next_expiry(&self, now: &AppliedNow) -> Option<Duration> {
        if !self.leads() || now.version < LOCKS_SESSIONS_EDITS {
            return None;
        }
        let clock_ms = self.clock.elapsed_ms(self.term(), now.elapsed_ms);
        let next_ms = now.next_expiry_ms?;
        Some(Duration::from_millis(next_ms.saturating_sub(clock_ms)))
    }

    /// Whether it went through. What is left is due at once.
    async fn tick(&self) -> bool {
        let deadline = Instant::now() + TICK_TIMEOUT;
        match self
            .proposer
            .propose(own_command(Command::Tick, OF_THE_NODE).encode().into(), deadline)
            .await
        {
            Ok(outcome) => match outcome.response {
                Ok(Response::Swept { .. }) => true,
                other => {
                    tracing::error!(?other, "a tick was answered otherwise than it must be");
                    false
                }
            },
            Err(error) => {
                tracing::debug!(?error, "a tick did not go through");
                false
            }
        }
    }
}
