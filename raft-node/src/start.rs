//! Puts a node together from its parts and starts it: over RocksDB in a process, over memory in tests
//! and in the simulation.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::FatalHook;
use quorate_storage::log::LogStore;
use quorate_storage::state::StateStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{bootstrap, cluster_id_of, wiped_message};
use crate::config::Config;
use crate::log_store::RaftLog;
use crate::metrics::Metrics;
use crate::node::{LeaderContact, NodeCore, Raft};
use crate::peers::network::Network;
use crate::peers::{PeerBook, Pool, server};
use crate::proposer::Proposer;
use crate::raft_config::raft_config;
use crate::read_index::{ReadIndex, Round};
use crate::state_machine::Machine;
use crate::tasks::spawn_vital;
use crate::types::StoredMembership;
use crate::watchers::Watchers;

/// A round of ReadIndex that the leader has not answered by then has failed.
const READ_INDEX_TIMEOUT: Duration = Duration::from_millis(1000);

type OnClusterId = Arc<dyn Fn(&str) -> anyhow::Result<()> + Send + Sync>;

pub struct Parts<L, S> {
    pub store_id: u128,
    /// None until this node has been part of a cluster.
    pub cluster_id: Option<String>,
    /// Stores the cluster's id, once, when it becomes known.
    pub on_cluster_id: OnClusterId,
    pub log: L,
    pub state: S,
    pub snapshot_dir: PathBuf,
    pub metrics: Metrics,
    /// The node cannot go on: called with the reason.
    pub on_fatal: FatalHook,
}

/// Starts the Raft core, the proposer, the reads and the peers' server, and takes this node's part in
/// the first start of a cluster. `stop_peers` ends the peers' server.
pub async fn start<L: LogStore, S: StateStore>(
    config: &Config,
    peer_listener: TcpListener,
    parts: Parts<L, S>,
    stop_peers: CancellationToken,
) -> anyhow::Result<Arc<NodeCore<S>>> {
    let Parts {
        store_id,
        cluster_id,
        on_cluster_id,
        log,
        state,
        snapshot_dir,
        metrics,
        on_fatal,
    } = parts;
    let book = Arc::new(PeerBook::new(config.id, store_id, &config.initial_cluster, cluster_id));
    let pool = Pool::new(book.clone(), metrics.peers.clone());
    let watchers = Arc::new(Watchers::default());
    let machine = Machine::open(
        state.clone(),
        &snapshot_dir,
        log.flushed(),
        watchers.clone(),
        metrics.apply.clone(),
    )
    .context("failed to open the state")?;
    let applied = machine.applied_now();
    let raft = Raft::new(
        config.id,
        raft_config(config)?,
        Network::new(pool.clone()),
        RaftLog::new(log),
        machine,
    )
    .await
    .context("failed to start the Raft core")?;
    let proposer = Proposer::start(
        raft.clone(),
        applied.clone(),
        metrics.proposals.clone(),
        on_fatal.clone(),
    );
    let rounds = metrics.read_index_rounds.clone();
    let core = Arc::new_cyclic(|core: &Weak<NodeCore<S>>| {
        let core = core.clone();
        let round: Round = Arc::new(move || {
            let core = core.clone();
            rounds.inc();
            Box::pin(async move {
                let core = core.upgrade().ok_or_else(|| "this node is shutting down".to_owned())?;
                core.read_index_round(READ_INDEX_TIMEOUT).await
            })
        });
        let reads = ReadIndex::start(round, on_fatal.clone());
        NodeCore {
            book,
            raft,
            state,
            pool,
            applied,
            watchers,
            proposer,
            reads,
            contact: LeaderContact::new(config.election_timeout_max_ms),
            stopping: CancellationToken::new(),
            on_fatal: on_fatal.clone(),
        }
    });

    let asked = Arc::downgrade(&core);
    core.pool
        .set_majority_check(move || asked.upgrade().is_some_and(|core| core.holds_lease()));

    // What the log already knows about the members comes before any peer is let in.
    let membership = core
        .raft
        .with_raft_state(|state| state.membership_state.effective().clone())
        .await;
    let membership = membership.context("failed to ask the Raft core")?;
    core.book.set_members(membership.membership());
    spawn_vital(
        "following the membership",
        on_fatal.clone(),
        follow_membership(core.clone(), on_cluster_id),
    );
    tokio::spawn(watch_core(core.clone()));
    let (told, id) = (on_fatal.clone(), config.id);
    let peers = server::serve(peer_listener, core.clone(), stop_peers, move |wiped| {
        told(wiped_message(id, store_id, wiped.told_by, wiped.known));
    });
    spawn_vital("the peers' server", on_fatal.clone(), peers);
    let (starting, initial) = (core.clone(), config.initial_cluster.clone());
    tokio::spawn(async move {
        if let Err(error) = bootstrap(starting, &initial).await {
            on_fatal(format!("{error:#}"));
        }
    });
    Ok(core)
}

/// Keeps the peer book at the effective membership, and stores the cluster's id once it is known.
async fn follow_membership<S: StateStore>(core: Arc<NodeCore<S>>, on_cluster_id: OnClusterId) {
    let mut metrics = core.raft.server_metrics();
    loop {
        let (effective, committed) = {
            let metrics = metrics.borrow_and_update();
            (
                metrics.membership_config.clone(),
                metrics.committed_membership_config.clone(),
            )
        };
        core.book.set_members(effective.membership());
        if let Err(error) = learn_cluster_id(&core, &committed, &on_cluster_id) {
            (core.on_fatal)(format!("failed to store the cluster's id: {error:#}"));
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// From the committed membership: one that is only in memory may be gone after a crash, and a store
/// that names a cluster but holds nothing of it would never be initialised.
fn learn_cluster_id<S: StateStore>(
    core: &NodeCore<S>,
    committed: &StoredMembership,
    on_cluster_id: &OnClusterId,
) -> anyhow::Result<()> {
    if core.book.cluster_id().is_none()
        && let Some(cluster_id) = cluster_id_of(committed)
    {
        on_cluster_id(&cluster_id)?;
        tracing::info!(%cluster_id, "this node belongs to a cluster now");
        core.book.set_cluster_id(cluster_id);
    }
    Ok(())
}

/// A Raft core that has failed leaves a process that answers nothing right: the process ends, and the
/// scripts or the service manager start it anew.
async fn watch_core<S: StateStore>(core: Arc<NodeCore<S>>) {
    let mut metrics = core.raft.metrics();
    let reason = loop {
        if let Err(error) = metrics.borrow_and_update().running_state.clone() {
            break format!("the Raft core has stopped: {error}");
        }
        if metrics.changed().await.is_err() {
            break "the Raft core has gone".to_owned();
        }
    };
    if !core.stopping.is_cancelled() {
        (core.on_fatal)(reason);
    }
}
