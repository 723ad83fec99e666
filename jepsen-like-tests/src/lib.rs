//! Black-box tests of Quorate: real `quorate` processes, real sockets, real disks, real faults.
//!
//! This crate deliberately knows no other crate of the project. It speaks the documented contract
//! (docs/API.md) with its own wire code and judges answers with its own models, so that a mistake
//! in a shared type cannot hide on both sides.
//!
//! Start reading at [`cluster::Cluster`], which starts, breaks and mends a cluster; then
//! [`workload`] and [`load`], which write and read while that happens and keep a [`history`]; then
//! [`checker`], which decides whether the history was allowed. The tests themselves are in
//! `tests/process`.

pub mod checker;
pub mod cli;
pub mod cluster;
pub mod export;
pub mod history;
pub mod hostile;
pub mod http;
pub mod irc;
pub mod load;
pub mod measure;
pub mod nemesis;
pub mod raw;
pub mod run;
pub mod stream;
pub mod wait;
pub mod workload;
pub mod workloads;
