//! Decides whether a history was allowed. Checkers are pure functions over the history alone, and
//! their models are written apart from the product.

pub mod operation;
pub mod room;
