//! The HTTP interface as its callers see it, over a node of one in memory. Most tests call the
//! router as a function; those about sockets bind port 0.

#![allow(clippy::unwrap_used)]

mod caller;
mod cluster;
mod contract;
mod edits;
mod entities;
mod errors;
mod headers;
mod http2;
mod limits;
mod lists;
mod locks;
mod memory;
mod messages;
mod openapi;
mod outages;
mod pages;
mod sessions;
mod sockets;
mod stream;
mod strictness;
mod table;
mod tails;
mod websocket;
