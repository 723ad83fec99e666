//! HTTP for Quorate: routes, limits, errors and streams, as docs/API.md promises them.
//!
//! This crate knows neither openraft nor RocksDB, and decides nothing about chat: who may do what
//! is decided by `quorate-state-machine` when an entry is applied, and everything goes there through
//! [`replica::Replica`]. What is decided here is whether a request is well-formed, whether there is
//! room for it, and how an answer is written.
//!
//! Start reading at `routes` (which path leads where) and `operation` (what a route promises, from
//! which `openapi` makes `/openapi.json` and `/docs`), then `front` (what happens around every
//! request: request id, bounds, body, headers, log line), `request` (how headers, path and query
//! become values) and [`server`] (the sockets).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
pub mod address;
mod administer;
mod answer;
mod app;
mod body;
mod budget;
mod checks;
pub mod config;
mod connection;
mod convert;
mod cursor;
mod feed;
mod fingerprint;
mod front;
mod headers;
mod json;
mod kept;
mod message;
mod metrics;
mod openapi;
mod operation;
mod params;
mod password;
mod percent;
mod places;
mod problem;
mod rate_key;
mod rate_limit;
pub mod replica;
mod reply;
mod request;
mod revocation;
mod routes;
mod sending;
pub mod server;
mod sign_in;
mod socket;
mod sse;
mod time;
mod token;
mod waiting;

pub use accounts::{Accounts, SESSION_TTL_MS};
pub use config::{ApiConfig, Limits};
pub use replica::{Replica, SharedReplica};
pub use routes::router;
pub use server::serve;
pub use token::{ROOT_TOKEN_CHARS_MIN, RootToken};

/// Without this crate's feature there are no planted bugs anywhere below it: only then this is a constant.
#[cfg(not(feature = "testing"))]
const _: () = assert!(!quorate_state_machine::planted::is_planted(
    quorate_state_machine::planted::Bug::AckBeforeFsync
));
