//! The rules from outside, through nothing but `apply` and `query`: scenarios as text (one file a
//! subject, in `tests/scripts`), and properties over random histories.

#![allow(clippy::unwrap_used)]

mod bounds;
mod costs;
mod line;
mod locks;
mod overlay;
mod properties;
mod random;
mod scripts;
mod sessions;
mod show;
mod world;
