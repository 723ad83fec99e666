//! The replicated node: the only crate that knows openraft.
//!
//! It turns openraft, `quorate-storage` and the rules of `quorate-state-machine` into the
//! [`Replica`](quorate_api::replica::Replica) that the HTTP API asks. It knows nothing of HTTP
//! routes, and the rules of chat are not here either.
//!
//! Start reading at [`serve`] (how a process comes up and goes down), then [`node`] (what happens
//! to a write and to a read), [`proposer`] (where throughput comes from) and [`peers`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bootstrap;
pub mod clock;
pub mod config;
pub mod log_store;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod proposer;
pub mod raft_config;
pub mod read_index;
pub mod serve;
pub mod start;
pub mod state_machine;
pub mod tasks;
pub mod types;
pub mod watchers;
