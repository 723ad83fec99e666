//! The replicated node: the only crate that knows openraft.
//!
//! It turns openraft, `quorate-storage` and the rules of `quorate-state-machine` into the
//! [`Replica`](quorate_api::replica::Replica) that the HTTP API asks. It knows nothing of HTTP
//! routes, and the rules of chat are not here either.
//!
//! Start reading at [`serve`] (how a process comes up and goes down), then [`node`] (what happens
//! to a write and to a read), [`proposer`] (where throughput comes from) and [`peers`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod bootstrap;
pub mod changes;
pub mod clock;
pub mod compaction;
pub mod config;
pub mod descriptors;
pub mod disk;
pub mod expiry;
pub mod failover;
pub mod gathering;
mod heap;
pub mod join;
pub mod leadership;
pub mod log_store;
pub mod membership;
pub mod metrics;
pub mod node;
mod own_command;
pub mod peers;
pub mod proposer;
pub mod quorum;
pub mod raft_config;
pub mod read_index;
pub mod runtime;
pub mod serve;
pub mod snapshots;
pub mod start;
pub mod state_hashes;
pub mod state_machine;
pub mod status;
pub mod survey;
pub mod tasks;
pub mod types;
pub mod verify;
pub mod versions;
pub mod waits;
pub mod watchers;

/// Without this crate's feature there are no planted bugs anywhere below it: only then this is a constant.
#[cfg(not(feature = "testing"))]
const _: () = assert!(!quorate_state_machine::planted::is_planted(
    quorate_state_machine::planted::Bug::AckBeforeFsync
));
