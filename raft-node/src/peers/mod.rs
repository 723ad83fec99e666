//! Everything that passes between nodes.
//!
//! Each node dials each other node with one connection a purpose ([`Purpose`]), so that a bulk of
//! entries never delays a heartbeat or a vote. A connection begins with a handshake that checks who
//! is at the other end ([`handshake`]); after it, frames ([`frame`]) carry requests and replies.
//!
//! | file | what |
//! |---|---|
//! | [`book`] | who the peers are: addresses, store ids, cluster id |
//! | [`handshake`] | the first frame of each side, and its checks |
//! | [`frame`] | requests and replies, their encoding |
//! | [`framing`] | how frames are cut out of the byte stream, and checked |
//! | [`connection`] | a dialled connection for calls: many in flight, matched by number |
//! | [`pool`] | one connection a peer and purpose, redialled with back-off |
//! | [`network`] | openraft's network on top of the pool |
//! | [`append_stream`] | entries on their way to a peer |
//! | [`followed`] | who has lately followed this node, for reads |
//! | [`server`] | the accepting side |
//! | `append_server` | the accepting side of entries |
//! | [`admin`] | changes of the cluster, as they travel to the leader |
//! | [`transport`] | how a connection comes about: TCP, or a simulated link |
//! | [`snapshot`] | whole states on their way to another node |

pub mod admin;
mod append_server;
pub mod append_stream;
pub mod book;
pub mod connection;
pub mod followed;
pub mod frame;
pub mod framing;
pub mod handshake;
pub mod network;
pub mod pool;
pub mod server;
pub mod snapshot;
pub mod transport;

pub use book::PeerBook;
pub use frame::Purpose;
pub use pool::Pool;
