//! What this node shows at `/metrics`, in etcd's spirit. One `Metrics` a node, registered in the
//! registry that the API serves.

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// From a tenth of a millisecond to some ten seconds, doubling.
fn seconds_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(0.0001, 2.0, 17).expect("the arguments are valid")
}

#[derive(Debug, Clone)]
pub struct Metrics {
    pub has_leader: IntGauge,
    pub is_leader: IntGauge,
    pub leader_changes: IntCounter,
    pub term: IntGauge,
    pub last_log_index: IntGauge,
    pub committed_index: IntGauge,
    pub applied_index: IntGauge,
    pub proposals: ProposalMetrics,
    pub apply: ApplyMetrics,
    pub peers: PeerMetrics,
    pub fsync: FsyncMetrics,
    pub disk_bytes: IntGaugeVec,
    /// What is kept in memory to spare the disk.
    pub kept_bytes: IntGaugeVec,
    pub disk_free_bytes: IntGauge,
    pub read_index_rounds: IntCounter,
    pub memory_bytes: IntGauge,
    pub stderr_lines_dropped: IntCounter,
    pub disk_low: IntGauge,
    pub log_retained_bytes: IntGauge,
    pub snapshot_sent_bytes: IntGauge,
    pub snapshot_received_bytes: IntGauge,
    pub verify: VerifyMetrics,
    pub elections: ElectionMetrics,
}

#[derive(Debug, Clone)]
pub struct VerifyMetrics {
    compared: IntCounter,
    differs: IntGaugeVec,
}

#[derive(Debug, Clone)]
pub struct ElectionMetrics {
    won: IntCounterVec,
    lost: IntCounterVec,
}

#[derive(Debug, Clone)]
pub struct ProposalMetrics {
    pub committed: IntCounter,
    pub failed: IntCounterVec,
    pub pending: IntGauge,
    pub packed: Histogram,
    /// Time between coming and being packed.
    pub queued: Histogram,
}

#[derive(Debug, Clone)]
pub struct ApplyMetrics {
    entries: IntCounter,
    commands: IntCounter,
    seconds: Histogram,
}

#[derive(Debug, Clone)]
pub struct PeerMetrics {
    round_trip: HistogramVec,
    in_flight: IntGaugeVec,
    in_flight_max: IntGaugeVec,
}

#[derive(Debug, Clone)]
pub struct FsyncMetrics {
    seconds: Histogram,
    entries: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            has_leader: IntGauge::new(
                "quorate_server_has_leader",
                "1 if this node knows a leader it has lately heard from.",
            )?,
            is_leader: IntGauge::new(
                "quorate_server_is_leader",
                "1 if this node leads and a majority has lately confirmed it.",
            )?,
            leader_changes: IntCounter::new(
                "quorate_server_leader_changes_total",
                "Leader changes seen by this node.",
            )?,
            term: IntGauge::new("quorate_raft_term", "Current Raft term.")?,
            last_log_index: IntGauge::new(
                "quorate_raft_last_log_index",
                "Index of the last entry in this node's log.",
            )?,
            committed_index: IntGauge::new(
                "quorate_raft_committed_index",
                "Index of the last entry that this node knows to be committed.",
            )?,
            applied_index: IntGauge::new(
                "quorate_raft_applied_index",
                "Index of the last entry applied on this node.",
            )?,
            proposals: ProposalMetrics {
                committed: IntCounter::new(
                    "quorate_proposals_committed_total",
                    "Commands proposed by this node that were committed and applied.",
                )?,
                failed: IntCounterVec::new(
                    Opts::new(
                        "quorate_proposals_failed_total",
                        "Commands that this node took and could not commit, by reason.",
                    ),
                    &["reason"],
                )?,
                pending: IntGauge::new(
                    "quorate_proposals_pending",
                    "Commands waiting at this node to be committed.",
                )?,
                packed: Histogram::with_opts(
                    HistogramOpts::new("quorate_proposal_commands", "Commands packed into one Raft entry.")
                        .buckets(prometheus::exponential_buckets(1.0, 2.0, 11)?),
                )?,
                queued: Histogram::with_opts(
                    HistogramOpts::new(
                        "quorate_proposal_queue_seconds",
                        "Time that a command waited at this node until it was put into an entry.",
                    )
                    .buckets(prometheus::exponential_buckets(0.0005, 2.0, 14)?),
                )?,
            },
            apply: ApplyMetrics {
                entries: IntCounter::new("quorate_apply_entries_total", "Entries applied on this node.")?,
                commands: IntCounter::new(
                    "quorate_apply_commands_total",
                    "Commands applied on this node, refused ones included.",
                )?,
                seconds: Histogram::with_opts(
                    HistogramOpts::new("quorate_apply_seconds", "Time to apply one batch of entries.")
                        .buckets(seconds_buckets()),
                )?,
            },
            peers: PeerMetrics {
                round_trip: HistogramVec::new(
                    HistogramOpts::new(
                        "quorate_peer_round_trip_seconds",
                        "Round trips on the control connection to a peer.",
                    )
                    .buckets(seconds_buckets()),
                    &["peer"],
                )?,
                in_flight: IntGaugeVec::new(
                    Opts::new(
                        "quorate_peer_appends_in_flight",
                        "Appends to a peer in flight when the last one was sent.",
                    ),
                    &["peer"],
                )?,
                in_flight_max: IntGaugeVec::new(
                    Opts::new(
                        "quorate_peer_appends_in_flight_max",
                        "The most appends to a peer that were in flight at once.",
                    ),
                    &["peer"],
                )?,
            },
            fsync: FsyncMetrics {
                seconds: Histogram::with_opts(
                    HistogramOpts::new("quorate_log_fsync_seconds", "Time of one synced write of the log.")
                        .buckets(seconds_buckets()),
                )?,
                entries: IntCounter::new(
                    "quorate_log_synced_entries_total",
                    "Entries made durable; divided by the count of fsyncs, the size of a group commit.",
                )?,
            },
            disk_bytes: IntGaugeVec::new(
                Opts::new("quorate_disk_bytes", "Bytes on disk, by what they are for."),
                &["of"],
            )?,
            kept_bytes: IntGaugeVec::new(
                Opts::new("quorate_kept_bytes", "Bytes kept in memory, by what they are of."),
                &["of"],
            )?,
            disk_free_bytes: IntGauge::new(
                "quorate_disk_free_bytes",
                "Bytes free on the data directory's file system.",
            )?,
            read_index_rounds: IntCounter::new(
                "quorate_read_index_rounds_total",
                "Rounds that confirmed the leader for linearizable reads; many reads share one.",
            )?,
            memory_bytes: IntGauge::new("process_resident_memory_bytes", "Resident memory of this process.")?,
            stderr_lines_dropped: IntCounter::new(
                "quorate_stderr_lines_dropped_total",
                "Log lines that were dropped because nobody read standard error fast enough.",
            )?,
            disk_low: IntGauge::new(
                "quorate_disk_low",
                "1 if less space is free than --disk-free-min: writes are refused with 507.",
            )?,
            log_retained_bytes: IntGauge::new(
                "quorate_log_retained_bytes",
                "Bytes of the entries that the log still has; bounded by --log-bytes-max.",
            )?,
            snapshot_sent_bytes: IntGauge::new(
                "quorate_snapshot_sent_bytes_total",
                "Bytes of snapshots sent to other nodes.",
            )?,
            snapshot_received_bytes: IntGauge::new(
                "quorate_snapshot_received_bytes_total",
                "Bytes of snapshots received from other nodes.",
            )?,
            verify: VerifyMetrics {
                compared: IntCounter::new(
                    "quorate_state_compared_total",
                    "Comparisons of all nodes' states that this node made as the leader.",
                )?,
                differs: IntGaugeVec::new(
                    Opts::new(
                        "quorate_state_differs",
                        "1 for a node whose state was not the one that most nodes had, when this node last compared.",
                    ),
                    &["node"],
                )?,
            },
            elections: ElectionMetrics {
                won: IntCounterVec::new(
                    Opts::new(
                        "quorate_elections_won_total",
                        "Elections that this node won, by what began them: a leader that was silent for the election \
                         time-out, one that handed over, or one whose process was gone.",
                    ),
                    &["cause"],
                )?,
                lost: IntCounterVec::new(
                    Opts::new(
                        "quorate_leaders_lost_total",
                        "Leaders whose process this node found to be gone, by what showed it.",
                    ),
                    &["sign"],
                )?,
            },
        };
        // There from the start, or the first failure would be missed by a rate.
        for reason in ["not_leader", "overloaded", "expired", "stopped", "unknown"] {
            metrics.proposals.failed.with_label_values(&[reason]).inc_by(0);
        }
        for cause in ["timeout", "transfer", "failover"] {
            metrics.elections.won.with_label_values(&[cause]).inc_by(0);
        }
        for sign in ["refused", "restarted"] {
            metrics.elections.lost.with_label_values(&[sign]).inc_by(0);
        }
        let Self {
            proposals,
            apply,
            peers,
            fsync,
            verify,
            elections,
            ..
        } = &metrics;
        let collectors: [Box<dyn prometheus::core::Collector>; 36] = [
            Box::new(metrics.has_leader.clone()),
            Box::new(metrics.is_leader.clone()),
            Box::new(metrics.leader_changes.clone()),
            Box::new(metrics.term.clone()),
            Box::new(metrics.last_log_index.clone()),
            Box::new(metrics.committed_index.clone()),
            Box::new(metrics.applied_index.clone()),
            Box::new(proposals.committed.clone()),
            Box::new(proposals.failed.clone()),
            Box::new(proposals.pending.clone()),
            Box::new(proposals.packed.clone()),
            Box::new(proposals.queued.clone()),
            Box::new(apply.entries.clone()),
            Box::new(apply.commands.clone()),
            Box::new(apply.seconds.clone()),
            Box::new(peers.round_trip.clone()),
            Box::new(peers.in_flight.clone()),
            Box::new(peers.in_flight_max.clone()),
            Box::new(fsync.seconds.clone()),
            Box::new(fsync.entries.clone()),
            Box::new(metrics.disk_bytes.clone()),
            Box::new(metrics.kept_bytes.clone()),
            Box::new(metrics.disk_free_bytes.clone()),
            Box::new(metrics.read_index_rounds.clone()),
            Box::new(metrics.memory_bytes.clone()),
            Box::new(metrics.stderr_lines_dropped.clone()),
            Box::new(metrics.disk_low.clone()),
            Box::new(metrics.log_retained_bytes.clone()),
            Box::new(metrics.snapshot_sent_bytes.clone()),
            Box::new(metrics.snapshot_received_bytes.clone()),
            Box::new(verify.compared.clone()),
            Box::new(verify.differs.clone()),
            Box::new(elections.won.clone()),
            Box::new(elections.lost.clone()),
            Box::new(build_info()?),
            Box::new(start_time()?),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(metrics)
    }
}

fn build_info() -> prometheus::Result<IntGaugeVec> {
    let info = IntGaugeVec::new(
        Opts::new("quorate_build_info", "1, labelled with the version of this build."),
        &["version"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(info)
}

fn start_time() -> prometheus::Result<Gauge> {
    let start = Gauge::new(
        "process_start_time_seconds",
        "When this process started, in seconds since 1970.",
    )?;
    start.set(crate::clock::wall_ms() as f64 / 1000.0);
    Ok(start)
}

impl ApplyMetrics {
    pub fn observe(&self, entries: usize, commands: usize, took: Duration) {
        self.entries.inc_by(entries as u64);
        self.commands.inc_by(commands as u64);
        self.seconds.observe(took.as_secs_f64());
    }
}

impl PeerMetrics {
    pub fn round_trip(&self, peer: u64, took: Duration) {
        self.round_trip
            .with_label_values(&[peer.to_string().as_str()])
            .observe(took.as_secs_f64());
    }

    /// Looked up once for a stream of appends, not for each.
    pub fn in_flight_to(&self, peer: u64) -> InFlight {
        let peer = peer.to_string();
        InFlight::new(
            self.in_flight.with_label_values(&[peer.as_str()]),
            self.in_flight_max.with_label_values(&[peer.as_str()]),
        )
    }
}

/// Appends to one peer in flight.
#[derive(Debug, Clone)]
pub struct InFlight {
    now: IntGauge,
    max: IntGauge,
}

impl InFlight {
    /// How many now, and the most at once.
    pub fn new(now: IntGauge, max: IntGauge) -> Self {
        Self { now, max }
    }

    pub fn set(&self, in_flight: usize) {
        let in_flight = i64::try_from(in_flight).unwrap_or(i64::MAX);
        self.now.set(in_flight);
        if in_flight > self.max.get() {
            self.max.set(in_flight);
        }
    }
}

impl VerifyMetrics {
    /// One comparison of the leader, with what it found of each node.
    pub fn observe(&self, nodes: impl Iterator<Item = (u64, bool)>) {
        self.compared.inc();
        // Nodes that have left are not shown any more.
        self.differs.reset();
        for (node, differs) in nodes {
            self.differs
                .with_label_values(&[node.to_string().as_str()])
                .set(i64::from(differs));
        }
    }

    /// This node does not lead, so it knows nothing of the others.
    pub fn forget(&self) {
        self.differs.reset();
    }
}

impl ElectionMetrics {
    pub fn won(&self, cause: &str) {
        self.won.with_label_values(&[cause]).inc();
    }

    pub fn lost(&self, sign: &str) {
        self.lost.with_label_values(&[sign]).inc();
    }
}

impl FsyncMetrics {
    pub fn observe(&self, took: Duration, entries: usize) {
        self.seconds.observe(took.as_secs_f64());
        self.entries.inc_by(entries as u64);
    }
}
