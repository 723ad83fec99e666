//! Real processes, real sockets, real disks: what a cluster promises while its nodes are killed,
//! paused, cut off, wiped and fed nonsense. One concept a file.
//!
//! The binary must have been built (`cargo build --release`, or QUORATE_BIN); `make test` sees to it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod appends_in_flight;
mod bad_input;
mod bench;
mod broken_connections;
mod command_line;
mod cut_off_leader;
mod damaged_files;
mod disks;
mod edits;
mod every_answer;
mod every_fault;
mod exactly_once;
mod export;
mod failover;
mod faults_bite;
mod full_queues;
mod full_restart;
mod graceful_stop;
mod hostile_clients;
mod import;
mod killed_run;
mod lock_run;
mod locks;
mod lost_quorum;
mod membership;
mod names;
mod pages;
mod paused_leader;
mod refused_changes;
mod replaced_node;
mod sample_logs;
mod sessions;
mod snapshots;
mod streams;
mod torture;
mod unread_log;
mod versions;
mod websockets;
mod wiped_node;
mod workloads;

use std::time::Duration;

/// The bound of anything that takes well below a second when nothing is wrong.
const SOON: Duration = Duration::from_secs(20);

/// The cluster version of a cluster all of whose nodes run this build.
const CLUSTER_VERSION: u64 = 3;
