//! `quorate node …`: which nodes the cluster is made of, and who leads. One subcommand a file.

mod add;
mod change;
mod join;
mod list;
mod progress;
mod remove;
mod replace;
mod snapshot;
mod transfer;

use std::time::Duration;

use clap::Subcommand;
use quorate_client::Client;

pub(crate) use change::in_words;
pub(crate) use list::table;

use super::exit::Failure;
use super::output::Output;

const EXAMPLES: &str = "\
Examples:
  quorate node list
  quorate node add 4 --client-url http://127.0.0.1:7104 --peer-addr 127.0.0.1:7204
  quorate node replace 1 5 --client-url http://127.0.0.1:7105 --peer-addr 127.0.0.1:7205
  quorate node remove 4
  quorate node transfer --to 2
  quorate node snapshot

An id that was removed is never used again. Each command may be repeated: it asks for the same.";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Node {
    /// List the nodes: role, state, how far each is
    List,
    /// Add a node, and wait until it votes
    Add(add::Add),
    /// Put a new node in the place of an old one, which may be dead, and wait until it votes
    Replace(replace::Replace),
    /// Remove a node
    Remove(remove::Remove),
    /// Hand leadership over
    Transfer(transfer::Transfer),
    /// Have nodes begin a snapshot, and forget the log that it covers
    Snapshot(snapshot::Snapshot),
}

impl Node {
    /// `timeout` is what the line says; adding waits longer than the others where it says nothing.
    pub(crate) async fn run(self, client: Client, timeout: Option<Duration>, output: &Output) -> Result<(), Failure> {
        match self {
            Node::List => list::run(&client, output).await,
            Node::Add(add) => add.run(&client, timeout, output).await,
            Node::Replace(replace) => replace.run(&client, timeout, output).await,
            Node::Remove(remove) => remove.run(&client, output).await,
            Node::Transfer(transfer) => transfer.run(&client, output).await,
            Node::Snapshot(snapshot) => snapshot.run(&client, output).await,
        }
    }
}

/// Parses a node's id.
fn parse_id(text: &str) -> Result<u64, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(id) if plain && (1..=quorate_api::address::NODE_ID_MAX).contains(&id) => Ok(id),
        _ => Err("expected a node's id: 1, 2, 3 …".to_owned()),
    }
}

#[cfg(test)]
mod tests;
