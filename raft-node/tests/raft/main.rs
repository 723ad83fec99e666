//! openraft on our storage and our network: its own storage suite, and whole clusters in one process
//! over real sockets and stores in memory.

#![allow(clippy::unwrap_used)]

mod cluster;
mod disks;
mod failover;
mod gates;
mod lock_run;
mod locks;
mod membership;
mod suite;
mod versions;
mod writes;
