//! Requests that change or examine the cluster: taken by any node, done by the leader.

use std::time::Duration;

use quorate_api::replica::{AdminError, ReplicaError};
use quorate_storage::state::StateStore;
use tokio::time::Instant;

use crate::config::InitialMember;
use crate::node::NodeCore;
use crate::peers::Purpose;
use crate::peers::admin::{AdminRefusal, AdminReply, AdminRequest};
use crate::peers::connection::CallError;
use crate::peers::frame::{Reply, Request};

/// While there is no leader, or it cannot be reached, it is looked for again this often.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// A leader that does not change anything within this is asked no longer by the node itself.
const TELL_WITHIN: Duration = Duration::from_secs(2);

impl<S: StateStore> NodeCore<S> {
    /// Has the leader do it. Tried again only while it is certain that nothing was begun.
    pub(crate) async fn admin(&self, request: AdminRequest, deadline: Instant) -> Result<AdminReply, AdminError> {
        loop {
            if self.stopping.is_cancelled() {
                return Err(ReplicaError::ShuttingDown.into());
            }
            let outcome = match self.leader_hint() {
                Some(leader) if leader == self.book.id => {
                    match tokio::time::timeout_at(deadline, self.admin_here(request.clone(), deadline)).await {
                        Ok(outcome) => outcome,
                        Err(_) => Err(AdminRefusal::Unknown("it took longer than the time given".to_owned())),
                    }
                }
                Some(leader) => self.ask_leader(leader, request.clone(), deadline).await,
                None => Err(AdminRefusal::NotLeader),
            };
            match outcome.map_err(AdminRefusal::into_api) {
                Ok(reply) => return Ok(reply),
                Err(Some(error)) => return Err(error),
                Err(None) => {}
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(RETRY_AFTER))
                .await
                .is_err()
            {
                return Err(ReplicaError::NoLeader.into());
            }
        }
    }

    async fn ask_leader(
        &self,
        leader: u64,
        request: AdminRequest,
        deadline: Instant,
    ) -> Result<AdminReply, AdminRefusal> {
        let within = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Admin { request, timeout_ms };
        match self.pool.call(leader, Purpose::Forward, request, within).await {
            Ok(Reply::Admin(outcome)) => outcome,
            Ok(other) => Err(AdminRefusal::Unknown(format!("unexpected reply {other:?}"))),
            Err(CallError::NotSent(_) | CallError::Closed) => Err(AdminRefusal::NotLeader),
            Err(error) => Err(AdminRefusal::Unknown(format!("asked node {leader}: {error}"))),
        }
    }

    /// Done here if this node leads.
    pub(crate) async fn admin_here(
        &self,
        request: AdminRequest,
        deadline: Instant,
    ) -> Result<AdminReply, AdminRefusal> {
        match request {
            AdminRequest::AddNode {
                id,
                client_url,
                peer_addr,
                replaces,
            } => {
                let node = InitialMember {
                    id,
                    peer_addr,
                    client_url,
                };
                self.add_node_here(node, replaces).await
            }
            AdminRequest::RemoveNode { id } => self.remove_node_here(id).await,
            AdminRequest::Transfer { to } => self.transfer_here(to).await.map(AdminReply::Transferred),
            AdminRequest::Verify => self.verify_here(deadline).await.map(AdminReply::Verified),
            AdminRequest::Moved {
                id,
                store_id,
                client_url,
                peer_addr,
            } => self.moved_here(id, store_id, peer_addr, client_url).await,
        }
    }

    /// The log has this node's old addresses.
    pub(crate) async fn tell_where_we_are(&self, own: &InitialMember) {
        let request = AdminRequest::Moved {
            id: own.id,
            store_id: self.book.store_id,
            client_url: own.client_url.clone(),
            peer_addr: own.peer_addr.clone(),
        };
        match self.admin(request, Instant::now() + TELL_WITHIN).await {
            Ok(_) => {
                tracing::info!(peer_addr = %own.peer_addr, client_url = %own.client_url, "the cluster knows where this node is now")
            }
            Err(error) => tracing::warn!(%error, "the cluster does not know yet where this node is now"),
        }
    }
}
