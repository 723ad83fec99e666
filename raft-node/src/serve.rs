//! How a process comes up and goes down.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use openraft::async_runtime::WatchReceiver;
use prometheus::Registry;
use quorate_api::{ApiConfig, Limits};
use quorate_state_machine::RunId;
use quorate_storage::log::{LogOptions, LogStore, RocksLog};
use quorate_storage::node_dir::NodeDir;
use quorate_storage::state::{RocksState, StateOptions, StateStore};
use quorate_storage::{FatalHook, aside, check_agreement};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::wall_ms;
use crate::config::Config;
use crate::descriptors;
use crate::metrics::Metrics;
use crate::node::NodeCore;
use crate::peers::transport::Tcp;
use crate::start::{Parts, start};
use crate::tasks::tell_last;

/// Kept beyond what the API gives to requests in progress, so that it is the API that ends them.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);
/// No disk that will ever answer takes so long over a synced write.
const HUNG_FOR_GOOD: Duration = Duration::from_secs(30);
/// A process that cannot go on has ended by then, one way or the other.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How often sizes on disk and in memory are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

type Core = NodeCore<RocksState>;

/// Runs a node until a signal ends it (`Ok`) or it cannot go on (`Err`). `lines_dropped` says how many lines could not be
/// logged since the process started.
pub async fn run(config: Config, lines_dropped: impl Fn() -> u64 + Send + Sync + 'static) -> anyhow::Result<()> {
    let (fatal_tx, mut fatal_rx) = mpsc::unbounded_channel::<String>();
    let on_fatal: FatalHook = Arc::new(move |reason: String| {
        end_for_sure(reason.clone());
        // The first reason ends the process; nobody is left to hear the others.
        let _ = fatal_tx.send(reason);
    });

    // Addresses first: a port that is taken is the commonest mistake, and nothing is touched yet.
    let client_listener = listen(config.client_addr, "client").await?;
    let peer_listener = listen(config.peer_addr, "peer").await?;

    let node_dir = Arc::new(NodeDir::open(&config.data_dir, config.id)?);
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).context("failed to set up metrics")?;
    let log = open_log(&node_dir, &metrics, on_fatal.clone())?;
    let state = StateOptions {
        block_cache_bytes: usize::try_from(config.block_cache_bytes).context("block-cache-bytes")?,
        ..StateOptions::default()
    };
    let state = RocksState::open(&node_dir.state_dir(), state, on_fatal.clone())?;
    check_agreement(&node_dir, &log.state(), state.applied()?.last, state.installed())?;

    let identity = node_dir.identity();
    let store_cluster_id = node_dir.clone();
    let parts = Parts {
        store_id: u128::from_str_radix(&identity.store_id, 16)
            .context("the data directory's store id is not a number")?,
        run: RunId(uuid::Uuid::new_v4().as_u128()),
        wall: Arc::new(wall_ms),
        transport: Arc::new(Tcp),
        cluster_id: identity.cluster_id,
        on_cluster_id: Arc::new(move |id| Ok(aside(|| store_cluster_id.set_cluster_id(id))?)),
        log: log.clone(),
        state: state.clone(),
        snapshot_dir: node_dir.tmp_dir().join("snapshot"),
        free_bytes: {
            let node_dir = node_dir.clone();
            Arc::new(move || aside(|| node_dir.free_bytes()))
        },
        oldest_unsynced: {
            let log = log.clone();
            Arc::new(move || log.oldest_unsynced())
        },
        metrics: metrics.clone(),
        on_fatal,
    };
    let parts_fatal = parts.on_fatal.clone();
    let stop_peers = CancellationToken::new();
    let core = start(&config, Box::new(peer_listener), parts, stop_peers.clone()).await?;
    let _hang_watch = HangWatch::start(log.clone(), parts_fatal)?;
    let gauges = Gauges {
        core: core.clone(),
        log: log.clone(),
        node_dir: node_dir.clone(),
        lines_dropped: Box::new(lines_dropped),
    };
    tokio::spawn(gauges.keep_current(metrics));
    let stop_http = CancellationToken::new();
    let api = ApiConfig {
        registry,
        limits: Limits {
            user_requests_per_s: config.user_rate_limit,
            user_requests_burst: config.user_rate_burst,
            ..Limits::default()
        },
        accounts: config.accounts.clone(),
    };
    descriptors::make_room(api.limits.connections_max);
    let drain_timeout = api.limits.shutdown_grace + DRAIN_MARGIN;
    let mut http = tokio::spawn(quorate_api::serve(
        client_listener,
        core.clone(),
        api,
        stop_http.clone().cancelled_owned(),
    ));
    tracing::info!(
        node = config.id, client_addr = %config.client_addr, peer_addr = %config.peer_addr,
        data_dir = %config.data_dir.display(), version = env!("CARGO_PKG_VERSION"), "node started"
    );

    tokio::select! {
        reason = fatal_rx.recv() => {
            // Nothing is waited for: what is not durable now was never acknowledged. (RocksDB flushes the state when it is closed,
            // and `end_for_sure` bounds that.)
            bail!(reason.unwrap_or_else(|| "the node stopped for no stated reason".to_owned()));
        }
        ended = &mut http => {
            ended.context("the HTTP server panicked")?.context("the HTTP server failed")?;
            bail!("the HTTP server ended");
        }
        signal = termination() => tracing::info!(signal = signal?, "shutting down"),
    }

    // A second signal does not wait.
    tokio::select! {
        () = shut_down(&core, &stop_http, &stop_peers, http, drain_timeout) => {}
        Some(reason) = fatal_rx.recv() => bail!(reason),
        _ = termination() => {
            end_for_sure("ended by a second signal".to_owned());
            bail!("ended by a second signal");
        }
    }
    log.close();
    if let Ok(reason) = fatal_rx.try_recv() {
        bail!(reason);
    }
    state.sync().context("failed to flush the state")?;
    tracing::info!("node stopped");
    Ok(())
}

/// Ends the process even if a thread hangs in the kernel, on a disk that never answers: the way out
/// through `main` waits for all threads, because RocksDB's must not be at work while statics are taken down.
fn end_for_sure(reason: String) {
    let watchdog = std::thread::Builder::new().name("last-resort".to_owned());
    let spawned = watchdog.spawn(move || {
        std::thread::sleep(END_WITHIN);
        tell_last(format!("quorate: {reason}; a thread hangs, so the process is killed"));
        // Nothing of this process runs any more after it, unlike with `abort` or `exit`.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "nobody watches whether the process ends");
    }
}

/// A disk that hangs may take along the threads of the runtime, and with them the watch that hands leadership
/// over (see `disk`). This one has a thread of its own.
struct HangWatch {
    /// Closed to end the thread.
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HangWatch {
    fn start(log: RocksLog, on_fatal: FatalHook) -> anyhow::Result<Self> {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let watch = move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(MEASURE_EVERY) {
                if log.oldest_unsynced().is_some_and(|age| age >= HUNG_FOR_GOOD) {
                    let seconds = HUNG_FOR_GOOD.as_secs();
                    on_fatal(format!(
                        "the disk hangs: a write of the log has not come back within {seconds} s"
                    ));
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("hang-watch".to_owned()).spawn(watch);
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread.context("failed to start a thread")?),
        })
    }
}

impl Drop for HangWatch {
    fn drop(&mut self) {
        // It owns a handle of the log, which must be closed before the process ends.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watch for a hanging disk has panicked");
        }
    }
}

async fn listen(addr: std::net::SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("failed to listen on the {what} address {addr}"))
}

fn open_log(node_dir: &NodeDir, metrics: &Metrics, on_fatal: FatalHook) -> anyhow::Result<RocksLog> {
    let fsync = metrics.fsync.clone();
    let options = LogOptions {
        on_sync: Some(Arc::new(move |took, entries| fsync.observe(took, entries))),
        ..LogOptions::default()
    };
    Ok(RocksLog::open(&node_dir.log_dir(), options, on_fatal)?)
}

async fn shut_down(
    core: &Arc<Core>,
    stop_http: &CancellationToken,
    stop_peers: &CancellationToken,
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    drain_timeout: Duration,
) {
    core.hand_over().await;
    core.stopping.cancel();
    stop_http.cancel();
    if tokio::time::timeout(drain_timeout, http).await.is_err() {
        tracing::warn!("requests were still in progress when their time was up");
    }
    if let Err(error) = core.raft.shutdown().await {
        tracing::warn!(%error, "the Raft core did not stop cleanly");
    }
    stop_peers.cancel();
}

async fn termination() -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate()).context("failed to listen for signals")?;
    let mut int = signal(SignalKind::interrupt()).context("failed to listen for signals")?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}

/// What is looked at now and then, for the metrics.
struct Gauges {
    core: Arc<Core>,
    log: RocksLog,
    node_dir: Arc<NodeDir>,
    lines_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Gauges {
    async fn keep_current(self, metrics: Metrics) {
        let core = &self.core;
        let mut leadership = core.raft.server_metrics();
        let mut last_leader = None;
        let mut ticks = tokio::time::interval(MEASURE_EVERY);
        loop {
            let leader = leadership.borrow_and_update().current_leader;
            if leader.is_some() && leader != last_leader {
                if last_leader.is_some() {
                    metrics.leader_changes.inc();
                }
                last_leader = leader;
                tracing::info!(leader, "leader is known");
            }
            let live = core.live_leader();
            metrics.has_leader.set(i64::from(live.is_some()));
            metrics.is_leader.set(i64::from(live == Some(core.book.id)));
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                _ = ticks.tick() => aside(|| self.read(&metrics)),
            }
        }
    }

    fn read(&self, metrics: &Metrics) {
        let Self {
            core,
            log,
            node_dir,
            lines_dropped,
        } = self;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        {
            let raft = core.raft.metrics();
            let raft = raft.borrow_watched();
            metrics.term.set(gauge(raft.current_term));
            metrics.last_log_index.set(gauge(raft.last_log_index.unwrap_or(0)));
            metrics
                .committed_index
                .set(gauge(raft.local_committed.map_or(0, |id| id.index)));
        }
        metrics.applied_index.set(gauge(core.applied.borrow().index()));
        let log = log.stats();
        metrics
            .disk_bytes
            .with_label_values(&["log"])
            .set(gauge(log.disk_bytes));
        metrics.log_retained_bytes.set(gauge(log.retained_bytes));
        let snapshots = node_dir.unshared_tmp_bytes();
        metrics
            .disk_bytes
            .with_label_values(&["snapshot"])
            .set(gauge(snapshots));
        metrics.disk_low.set(i64::from(core.disk.is_low()));
        let transfers = &core.pool.transfers;
        metrics
            .snapshot_sent_bytes
            .set(gauge(transfers.sent_bytes.load(Ordering::Relaxed)));
        metrics
            .snapshot_received_bytes
            .set(gauge(transfers.received_bytes.load(Ordering::Relaxed)));
        let state = core.state.stats();
        metrics
            .disk_bytes
            .with_label_values(&["state"])
            .set(gauge(state.disk_bytes));
        for (of, bytes) in [
            ("recent_entries", log.cache_bytes),
            ("memtables", state.memtable_bytes),
            ("blocks", state.block_cache_bytes),
        ] {
            metrics.kept_bytes.with_label_values(&[of]).set(gauge(bytes));
        }
        if let Ok(free) = node_dir.free_bytes() {
            metrics.disk_free_bytes.set(gauge(free));
        }
        if let Some(bytes) = resident_bytes(Path::new("/proc/self/statm")) {
            metrics.memory_bytes.set(gauge(bytes));
        }
        let dropped = &metrics.stderr_lines_dropped;
        let lately = lines_dropped().saturating_sub(dropped.get());
        if lately > 0 {
            dropped.inc_by(lately);
            // Said again as long as this line is dropped too: whoever reads the log knows of each gap.
            tracing::warn!(
                lately,
                total = dropped.get(),
                "log lines were dropped: nobody read them in time"
            );
        }
    }
}

/// The second field is resident pages.
fn resident_bytes(statm: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(statm).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
