//! Puts a node together from its parts and starts it: over RocksDB in a process, over memory in tests
//! and in the simulation.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use openraft::async_runtime::WatchReceiver;
use quorate_state_machine::RunId;
use quorate_storage::FatalHook;
use quorate_storage::log::LogStore;
use quorate_storage::state::StateStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{bootstrap, cluster_id_of, wiped_message};
use crate::changes::{Changes, keep_membership};
use crate::clock::{Clock, Wall};
use crate::compaction::{Compaction, LogBounds, keep_log_bounded};
use crate::config::{Config, InitialMember};
use crate::disk::{DiskGuard, FreeBytes, OldestUnsynced, watch_hangs, watch_space};
use crate::expiry::sweep_expired;
use crate::failover::{Failover, watch_leader};
use crate::join::join;
use crate::leadership::LeaderContact;
use crate::log_store::{RaftLog, sync_upto};
use crate::metrics::Metrics;
use crate::node::{NodeCore, Raft};
use crate::peers::network::Network;
use crate::peers::pool::Hooks;
use crate::peers::transport::{BoxListener, SharedTransport};
use crate::peers::{PeerBook, Pool, server};
use crate::proposer::Proposer;
use crate::raft_config::raft_config;
use crate::read_index::{ROUND_TIMEOUT, ReadIndex, Round};
use crate::snapshots::Snapshots;
use crate::state_machine::{Machine, Removed};
use crate::survey::survey_members;
use crate::tasks::spawn_vital;
use crate::types::StoredMembership;
use crate::verify::verify_now_and_then;
use crate::versions::Supported;
use crate::waits::give_up_earlier_runs;
use crate::watchers::Watchers;

pub type OnClusterId = Arc<dyn Fn(&str) -> anyhow::Result<()> + Send + Sync>;

pub struct Parts<L, S> {
    pub store_id: u128,
    /// Of this run of the process; never the same twice.
    pub run: RunId,
    pub wall: Wall,
    pub transport: SharedTransport,
    /// None until this node has been part of a cluster.
    pub cluster_id: Option<String>,
    /// Stores the cluster's id, once, when it becomes known.
    pub on_cluster_id: OnClusterId,
    pub log: L,
    pub state: S,
    /// For snapshots on their way out or in: on the state's file system, and emptied at the start.
    pub snapshot_dir: PathBuf,
    pub free_bytes: FreeBytes,
    pub oldest_unsynced: OldestUnsynced,
    pub metrics: Metrics,
    /// The node cannot go on: called with the reason.
    pub on_fatal: FatalHook,
}

/// Starts the Raft core, the proposer, the reads and the peers' server, and takes this node's part in
/// the first start of a cluster. `stop_peers` ends the peers' server.
pub async fn start<L: LogStore, S: StateStore>(
    config: &Config,
    peer_listener: BoxListener,
    parts: Parts<L, S>,
    stop_peers: CancellationToken,
) -> anyhow::Result<Arc<NodeCore<S>>> {
    let Parts {
        store_id,
        run,
        wall,
        transport,
        cluster_id,
        on_cluster_id,
        log,
        state,
        snapshot_dir,
        free_bytes,
        oldest_unsynced,
        metrics,
        on_fatal,
    } = parts;
    let versions = Supported::up_to(config.cluster_version_max);
    let own = InitialMember {
        id: config.id,
        peer_addr: config.advertise_peer_addr.clone(),
        client_url: config.advertise_client_url.clone(),
    };
    let book = Arc::new(PeerBook::new(config.id, store_id, &config.initial_cluster, cluster_id));
    let pool = Pool::new(book.clone(), transport, metrics.peers.clone());
    let watchers = Arc::new(Watchers::default());
    let snapshots = Snapshots::open(state.clone(), &snapshot_dir).context("failed to clean up old snapshots")?;
    let machine = Machine::open(
        state.clone(),
        snapshots.clone(),
        log.flushed(),
        watchers.clone(),
        metrics.apply.clone(),
        versions,
        on_fatal.clone(),
    )
    .context("failed to open the state")?;
    let applied = machine.applied_now();
    let next_expiry = machine.next_expiry();
    let (removed, hashes) = (machine.removed(), machine.hashes());
    let raft = Raft::new(
        config.id,
        raft_config(config)?,
        Network::new(pool.clone()),
        RaftLog::new(log.clone(), sync_upto(state.clone())),
        machine,
    )
    .await
    .context("failed to start the Raft core")?;
    hashes.open();
    let clock = Clock::new(wall);
    let proposer = Proposer::start(
        raft.clone(),
        applied.clone(),
        clock.clone(),
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
                core.read_index_round(ROUND_TIMEOUT).await
            })
        });
        let reads = ReadIndex::start(round, on_fatal.clone());
        NodeCore {
            book,
            server: raft.server_metrics(),
            data: raft.data_metrics(),
            raft,
            state,
            pool,
            applied,
            next_expiry,
            watchers,
            clock,
            run,
            proposer,
            reads,
            contact: LeaderContact::new(config.election_timeout_max_ms),
            failover: Failover::new(metrics.elections.clone()),
            changes: Changes::default(),
            hashes,
            verifying: tokio::sync::Mutex::default(),
            disk: DiskGuard::default(),
            compaction: Compaction::default(),
            versions,
            incoming_dir: snapshot_dir,
            stopping: CancellationToken::new(),
            on_fatal: on_fatal.clone(),
        }
    });

    let (asked, campaigning) = (Arc::downgrade(&core), Arc::downgrade(&core));
    let (removed_fatal, id) = (on_fatal.clone(), config.id);
    core.pool.set_hooks(Hooks {
        leads_with_majority: Box::new(move || asked.upgrade().is_some_and(|core| core.holds_lease())),
        removed: Box::new(move |told_by| removed_fatal(removed_message(id, told_by))),
        is_failover: Box::new(move |term| {
            campaigning
                .upgrade()
                .is_some_and(|core| core.failover.is_failover(term))
        }),
    });

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
        follow_membership(core.clone(), on_cluster_id.clone()),
    );
    spawn_vital(
        "following removals",
        on_fatal.clone(),
        follow_removals(core.clone(), removed),
    );
    spawn_vital(
        "keeping the membership",
        on_fatal.clone(),
        keep_membership(core.clone(), own.clone()),
    );
    spawn_vital("watching the leader", on_fatal.clone(), watch_leader(core.clone()));
    let bounds = LogBounds {
        bytes_max: config.log_bytes_max,
        age_max: Duration::from_secs(config.log_age_max_s),
    };
    spawn_vital(
        "keeping the log bounded",
        on_fatal.clone(),
        keep_log_bounded(core.clone(), log, snapshots, bounds),
    );
    spawn_vital(
        "watching the disk's space",
        on_fatal.clone(),
        watch_space(core.clone(), free_bytes, config.disk_free_min),
    );
    spawn_vital("surveying the members", on_fatal.clone(), survey_members(core.clone()));
    spawn_vital(
        "sweeping what has expired",
        on_fatal.clone(),
        sweep_expired(core.clone()),
    );
    tokio::spawn(give_up_earlier_runs(core.clone()));
    let election_max = Duration::from_millis(config.election_timeout_max_ms);
    spawn_vital(
        "watching for a disk that hangs",
        on_fatal.clone(),
        watch_hangs(core.clone(), oldest_unsynced, election_max),
    );
    if config.verify_interval_s > 0 {
        let every = Duration::from_secs(config.verify_interval_s);
        let compared = metrics.verify.clone();
        spawn_vital(
            "comparing the states",
            on_fatal.clone(),
            verify_now_and_then(core.clone(), every, compared),
        );
    }
    tokio::spawn(watch_core(core.clone()));
    let told = on_fatal.clone();
    let peers = server::serve(peer_listener, core.clone(), stop_peers, move |wiped| {
        told(wiped_message(id, store_id, wiped.told_by, wiped.known));
    });
    spawn_vital("the peers' server", on_fatal.clone(), peers);
    let (starting, initial, endpoints) = (core.clone(), config.initial_cluster.clone(), config.join.clone());
    let token = config.accounts.root_token.as_ref().map(|token| token.text().to_owned());
    tokio::spawn(async move {
        let started = match endpoints.is_empty() {
            true => bootstrap(starting, &initial).await,
            false => join(starting, own, &endpoints, token, on_cluster_id).await,
        };
        if let Err(error) = started {
            on_fatal(format!("{error:#}"));
        }
    });
    Ok(core)
}

/// Keeps the peer book at the effective membership, and stores the cluster's id once it is known.
async fn follow_membership<S: StateStore>(core: Arc<NodeCore<S>>, on_cluster_id: OnClusterId) {
    let mut metrics = core.raft.server_metrics();
    let mut stored = core.book.cluster_id();
    loop {
        let (effective, committed) = {
            let metrics = metrics.borrow_and_update();
            (
                metrics.membership_config.clone(),
                metrics.committed_membership_config.clone(),
            )
        };
        core.book.set_members(effective.membership());
        if stored.is_none() {
            match learn_cluster_id(&core, &committed, &on_cluster_id) {
                Ok(learned) => stored = learned,
                Err(error) => (core.on_fatal)(format!("failed to store the cluster's id: {error:#}")),
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Once a membership is committed: one that is only in memory may be gone after a crash, and a store
/// that names a cluster but holds nothing of it would never be initialised. The id follows from the first
/// membership; a node that has missed it was told by a peer.
fn learn_cluster_id<S: StateStore>(
    core: &NodeCore<S>,
    committed: &StoredMembership,
    on_cluster_id: &OnClusterId,
) -> anyhow::Result<Option<String>> {
    if committed.log_id().is_none() {
        return Ok(None);
    }
    let Some(cluster_id) = cluster_id_of(committed).or_else(|| core.book.cluster_id()) else {
        return Ok(None);
    };
    on_cluster_id(&cluster_id)?;
    tracing::info!(%cluster_id, "this node belongs to a cluster now");
    core.book.set_cluster_id(cluster_id.clone());
    Ok(Some(cluster_id))
}

/// Keeps the peer book at the nodes that have left. When this node is one of them, it ends.
async fn follow_removals<S: StateStore>(core: Arc<NodeCore<S>>, mut removed: watch::Receiver<Removed>) {
    loop {
        let now = removed.borrow_and_update().clone();
        if now.contains_key(&core.book.id) {
            (core.on_fatal)(removed_message(core.book.id, core.book.id));
        }
        core.book.set_removed(now);
        if removed.changed().await.is_err() {
            return;
        }
    }
}

/// What an operator reads when a node was removed from its cluster.
fn removed_message(id: u64, told_by: u64) -> String {
    let source = if told_by == id {
        "its log says so".to_owned()
    } else {
        format!("node {told_by} says so")
    };
    format!(
        "node {id} was removed from the cluster ({source}). Its id is never used again: delete its data directory, and \
         start a node with a new id and --join to add one"
    )
}

/// A Raft core that has failed leaves a process that answers nothing right: the process ends, and the
/// scripts or the service manager start it anew.
async fn watch_core<S: StateStore>(core: Arc<NodeCore<S>>) {
    // Its channels end with the core. Of the one that tells whether it runs, every move of the core is news.
    let mut server = core.raft.server_metrics();
    while server.changed().await.is_ok() {}
    let reason = match &core.raft.metrics().borrow_watched().running_state {
        Err(error) => format!("the Raft core has stopped: {error}"),
        Ok(()) => "the Raft core has gone".to_owned(),
    };
    if !core.stopping.is_cancelled() {
        (core.on_fatal)(reason);
    }
}
