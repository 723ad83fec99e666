//! A node that is added to a cluster: asks it who its members are, and to be taken in.
//!
//! Nothing here is needed once the cluster has made this node a learner: from then on the log knows it,
//! and the same flags at the next start do nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use openraft::async_runtime::WatchReceiver;
use quorate_client::wire::NewNode;
use quorate_client::{Client, Options};
use quorate_storage::state::StateStore;
use tokio::time::Instant;

use crate::config::InitialMember;
use crate::node::NodeCore;
use crate::start::OnClusterId;

const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
const SAY_AFTER: Duration = Duration::from_secs(5);

/// `token`: root's, where the cluster enforces accounts. Returns when the cluster has taken this node in, or when there is nothing to do. An error means that
/// this node must not run.
pub async fn join<S: StateStore>(
    core: Arc<NodeCore<S>>,
    own: InitialMember,
    endpoints: &[String],
    token: Option<String>,
    on_cluster_id: OnClusterId,
) -> anyhow::Result<()> {
    if core
        .raft
        .is_initialized()
        .await
        .context("failed to ask the Raft core")?
    {
        return Ok(());
    }
    let options = Options {
        token,
        ..Options::default()
    };
    let client = Client::new(endpoints, options).context("join")?;
    let mut said = None::<Instant>;
    loop {
        if core.stopping.is_cancelled() || core.book.has_members() {
            return Ok(());
        }
        let detail = match ask(&core, &client, &own, &on_cluster_id).await? {
            Asked::Under(detail) => detail,
            Asked::Later(reason) => reason,
        };
        if said.is_none_or(|said| said.elapsed() >= SAY_AFTER) {
            tracing::info!(?endpoints, %detail, "joining the cluster");
            said = Some(Instant::now());
        }
        let mut metrics = core.raft.server_metrics();
        drop(metrics.borrow_and_update());
        tokio::select! {
            () = core.stopping.cancelled() => return Ok(()),
            _ = metrics.changed() => {}
            () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
        }
    }
}

enum Asked {
    /// The cluster is about it.
    Under(String),
    Later(String),
}

async fn ask<S: StateStore>(
    core: &NodeCore<S>,
    client: &Client,
    own: &InitialMember,
    on_cluster_id: &OnClusterId,
) -> anyhow::Result<Asked> {
    let cluster = match client.cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return Ok(Asked::Later(error.to_string())),
    };
    if cluster.cluster_id.is_empty() {
        return Ok(Asked::Later("the cluster is not initialised yet".to_owned()));
    }
    match core.book.cluster_id() {
        Some(known) if known != cluster.cluster_id => bail!(
            "this node's directory belongs to cluster {known}, and --join leads to cluster {}",
            cluster.cluster_id
        ),
        Some(_) => {}
        None => {
            on_cluster_id(&cluster.cluster_id)?;
            core.book.set_cluster_id(cluster.cluster_id.clone());
        }
    }
    let members: Vec<InitialMember> = cluster
        .nodes
        .iter()
        .filter(|node| node.id != own.id)
        .map(|node| InitialMember {
            id: node.id,
            peer_addr: node.peer_addr.clone(),
            client_url: node.client_url.clone(),
        })
        .collect();
    core.book.set_hints(&members);
    let node = NewNode {
        id: own.id,
        client_url: own.client_url.clone(),
        peer_addr: own.peer_addr.clone(),
        replaces: None,
    };
    match client.add_node(&node).await {
        Ok(change) => Ok(Asked::Under(format!("{:?}: {}", change.step, change.detail))),
        // An id that was removed stays removed.
        Err(error) if matches!(error.code(), Some("invalid" | "forbidden")) => {
            bail!("the cluster does not take this node in: {error}")
        }
        Err(error) if error.code() == Some("already_exists") => Ok(Asked::Later(format!(
            "{error}; if this node is to take its place: quorate node replace"
        ))),
        Err(error) => Ok(Asked::Later(error.to_string())),
    }
}
