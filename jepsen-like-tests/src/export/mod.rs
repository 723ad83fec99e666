//! Histories in the forms that other checkers read. docs/TESTING.md describes both.

pub mod edn;
pub mod porcupine;
mod registers;

#[cfg(test)]
mod tests;
