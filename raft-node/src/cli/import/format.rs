//! What the formats of files have in common for `run`, which reads, makes users and sends.

use std::fmt::Debug;
use std::path::PathBuf;

use quorate_client::wire::{BatchMessage, Message};

use super::lines::TextLine;

/// How the lines of one file become messages. A file is read twice from its first line on: once
/// with [`Format::check`], before anything is asked of the store, and once to be sent.
pub(crate) trait Format: Debug {
    /// Looks at a line, numbered from 1. An error in words goes behind "line N".
    fn check(&mut self, number: u64, line: &TextLine) -> Result<(), String>;

    /// Where in the room's newest messages the last one stands that an earlier run has sent, and
    /// its line.
    fn come_to(&self, newest: &[Message]) -> Option<(usize, u64)>;

    /// The file is read again, to be sent. Its first line becomes, or has become, the message after
    /// `base`, unless others write to the room meanwhile.
    fn begin(&mut self, base: u64);

    fn message(&mut self, number: u64, line: &TextLine) -> Result<BatchMessage, String>;

    /// The idempotency key of a batch, where its messages do not have keys of their own. `room` is
    /// the room's id: a name can be given again.
    fn batch_key(&self, room: u64, first: u64, last: u64) -> Option<String>;
}

/// A file to import.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// Without its directory.
    pub(crate) name: String,
    pub(crate) format: Box<dyn Format>,
}
