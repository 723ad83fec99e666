//! A load generator, and what of Quorate it can drive.
//!
//! [`run`] drives anything that is a [`Target`], in one of two ways. In the closed loop each of N clients has
//! one request under way and sends the next when it is answered: that is how users of a pool behave, and it
//! shows what a system can carry. In the open loop requests are due at a constant rate, whatever becomes of
//! the earlier ones, and a request's time counts from the moment at which it was due: a stall then shows in
//! the percentiles with all who would have come meanwhile, and does not hide because nobody was sent (the
//! mistake known as coordinated omission).
//!
//! What is acknowledged is sampled and read back afterwards; an answer that does not hold is an error of the
//! run, however fast it was.
//!
//! This crate knows HTTP, the wire types of `quorate-client`, and no server. Start reading at [`target`], then
//! `run.rs`; [`quorate`] has the workloads of `quorate bench`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod live;
pub mod plan;
pub mod quorate;
mod read_back;
pub mod report;
mod run;
mod sample;
mod tally;
pub mod target;
#[cfg(test)]
mod testing;
mod times;

pub use live::Live;
pub use plan::{Load, Plan};
pub use read_back::ReadBack;
pub use report::Report;
pub use run::run;
pub use target::{Call, Done, Fault, Target, Unheld};
pub use times::{Percentiles, Times};
