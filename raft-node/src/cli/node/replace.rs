//! `quorate node replace OLD NEW`: a new node in the place of an old one, in one change of voters.

use std::time::Duration;

use quorate_client::Client;

use super::join::Join;
use super::parse_id;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

const EXAMPLES: &str = "\
A node whose disk is lost is replaced by one with a new id and an empty directory:
  quorate serve --id 5 --data-dir data/node-5 --client-addr 127.0.0.1:7105 \\
    --peer-addr 127.0.0.1:7205 --join http://127.0.0.1:7102
  quorate node replace 1 5 --client-url http://127.0.0.1:7105 --peer-addr 127.0.0.1:7205

The old node votes until the new one has caught up, and both change places at once, so that the
cluster never has fewer voters. The command waits for that, at most 10 minutes (--timeout), also
while the leader changes. Interrupted, or out of time, it ends with 3 and leaves the change to the
cluster; the same command waits for it again.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Replace {
    /// The node that goes
    #[arg(value_parser = parse_id)]
    old: u64,
    /// The id of the one that comes, which no node of this cluster has ever had
    #[arg(value_parser = parse_id)]
    new: u64,
    #[command(flatten)]
    join: Join,
}

impl Replace {
    pub(crate) async fn run(self, client: &Client, timeout: Option<Duration>, output: &Output) -> Result<(), Failure> {
        if self.old == self.new {
            return Err(Failure::Usage(
                "a node takes the place of another, under an id of its own".into(),
            ));
        }
        self.join.run(self.new, Some(self.old), client, timeout, output).await
    }
}
