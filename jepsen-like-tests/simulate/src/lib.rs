//! Deterministic simulation: a cluster in one thread, which a seed repeats byte for byte.
//!
//! Each node is the product's own: `raft_node::start` with its proposer, openraft, peers, reads and `apply`. Only
//! what it stands on is simulated: the network and time (turmoil), the disk (`quorate_storage`'s stores in memory,
//! which forget what was not synced) and wall clocks. Nothing of Raft is defined here; what is, are the invariants
//! that a look from outside can decide.
//!
//! Start reading at [`run`], then `node.rs` (a node), `clients` (who uses it), `faults.rs` (who breaks it) and
//! `invariants` (what must hold after every step).

mod clients;
mod disk;
mod faults;
mod invariants;
mod node;
mod outcome;
mod transport;
mod wall;
mod world;

pub use outcome::{Counts, Outcome};
pub use world::{Settings, run};
