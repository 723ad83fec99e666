//! What `quorate bench` drives: a running cluster, over HTTP, as its users do.
//!
//! [`Http`] sends what was prepared and says which code came back, [`Sockets`] does so over WebSockets;
//! [`Stage`] makes the rooms and members that a workload needs, and takes them away again. Each workload is a
//! file of its own.

mod failover;
mod http;
mod locks;
mod mixed;
mod reads;
mod sends;
mod socket;
mod stage;
mod streams;
mod subscriber;
mod text;

pub use failover::{Disturber, Failover, FailoverReport, ROUNDS_MAX, Round};
pub use http::{Http, Protocol, Wiring};
pub use locks::{Locks, OWNERS_MAX};
pub use mixed::Mixed;
pub use reads::{PagePlace, Pages, Reads};
pub use sends::{Batches, Door, Sends};
pub use socket::Sockets;
pub use stage::{MEMBERS_MAX, ROOMS_MAX, Stage, Wanted};
pub use streams::{Deliveries, StreamReport, Streams};
pub use text::Texts;

/// Spreads consecutive numbers over all values (SplitMix64's output function): which room, which message. The same
/// number gives the same choice in every run.
pub fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
