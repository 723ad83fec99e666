//! What a node keeps on its disk: the Raft log ([`log`]), the applied state ([`state`]), the
//! directory that holds both ([`node_dir`]), and how a copy of the state travels ([`transfer`]).
//!
//! This is the only crate that knows RocksDB. It knows nothing of openraft, of the network or of
//! what the state means: entries and memberships are bytes to it, keys and values come from the state
//! machine. Each store has a twin in memory that behaves alike; tests hold the two against each other.
//!
//! Start reading at [`log::LogStore`] and [`state::StateStore`], then `log/writer.rs` (when is an entry
//! durable) and `log/mark.rs` (how a disk that has lost data is recognised).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agreement;
mod aside;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
mod error;
mod framing;
pub mod log;
pub mod node_dir;
mod small_file;
pub mod state;
pub mod transfer;
mod uneven;

pub use agreement::check_agreement;
pub use aside::{aside, aside_if};
pub use error::{FatalHook, OpenError};

/// Without this crate's feature there are no planted bugs anywhere below it: only then this is a constant.
#[cfg(not(feature = "testing"))]
const _: () = assert!(!quorate_state_machine::planted::is_planted(
    quorate_state_machine::planted::Bug::AckBeforeFsync
));
