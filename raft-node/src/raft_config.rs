//! How openraft is set up, and why.

use std::sync::Arc;

use openraft::{Config as RaftConfig, SnapshotPolicy};

use crate::config::Config;

pub fn raft_config(config: &Config) -> anyhow::Result<Arc<RaftConfig>> {
    let raft = RaftConfig {
        cluster_name: "quorate".to_owned(),
        heartbeat_interval: config.heartbeat_interval_ms,
        election_timeout_min: config.election_timeout_min_ms,
        election_timeout_max: config.election_timeout_max_ms,
        // A node that was cut off must not depose a healthy leader when it comes back
        // (Raft dissertation, section 9.6).
        enable_pre_vote: Some(true),
        // A leader that restarts is elected anew: its log may lack what others have committed since.
        enable_leader_restore: Some(false),
        // Snapshots and purging are for the application to trigger: openraft's own timing can purge
        // what is still to be applied (its issue 2116). This version keeps the log whole.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 10_000,
        install_snapshot_timeout: 600_000,
        // Entries are packed (see `proposer`), and one append is bounded by bytes (see `log_store`).
        max_payload_entries: 1024,
        // A leader without a quorum falls silent in between, so that followers whose link to it
        // works in one direction only can elect another.
        quorum_loss_probe_interval: Some(3 * config.election_timeout_max_ms),
        // A peer that came back is dialled again this soon; a dead one refuses at no cost.
        backoff: "50ms".to_owned(),
        // Replication starts when an entry is readable, in parallel with this node's own fsync.
        broadcast_submitted_on_append: Some(true),
        ..RaftConfig::default()
    };
    Ok(Arc::new(raft.validate()?))
}
