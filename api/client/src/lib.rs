//! A client of Quorate that follows the leader, fails over between nodes, and never does a write
//! twice.
//!
//! Each write carries an idempotency key that all its attempts share, so that a broken connection
//! or a 504 is retried without harm. What could not be settled within the deadline is
//! [`Error::OutcomeUnknown`], never a guess. [`RoomStream`] resumes on any node from the position
//! of the last event that it gave. A [`Socket`] sends many messages at once over one WebSocket, under the same promise.
//!
//! This crate knows HTTP and the contract (docs/API.md), and nothing of Raft or of disks.
//! Start reading at [`Client`] (`client.rs`, with its calls in `calls.rs`), then `attempt.rs` (the
//! one loop that performs a request) and `route.rs` (which node is asked next, as plain functions).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempt;
mod calls;
mod client;
mod error;
mod lock;
mod path;
mod route;
mod socket;
mod sse;
mod stream;
#[cfg(test)]
mod testing;
pub mod wire;

pub use calls::{Level, PageFrom, Readiness};
pub use client::{Client, Options};
pub use error::Error;
pub use lock::LockGuard;
pub use socket::Socket;
pub use stream::{Event, EventBody, RoomStream, StreamFrom};
