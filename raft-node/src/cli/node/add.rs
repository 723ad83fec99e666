//! `quorate node add ID`: one node more.

use std::time::Duration;

use quorate_client::Client;

use super::join::Join;
use super::parse_id;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

const EXAMPLES: &str = "\
Start the new node with --join and the URL of a node of the cluster, then add it:
  quorate serve --id 4 --data-dir data/node-4 --client-addr 127.0.0.1:7104 \\
    --peer-addr 127.0.0.1:7204 --join http://127.0.0.1:7101
  quorate node add 4 --client-url http://127.0.0.1:7104 --peer-addr 127.0.0.1:7204

It receives what the others have, and votes when it has caught up. The command waits for that, at
most 10 minutes (--timeout), also while the leader changes. Interrupted, or out of time, it ends
with 3 and leaves the change to the cluster; the same command waits for it again.
  quorate node add 4 --client-url http://127.0.0.1:7104 --peer-addr 127.0.0.1:7204 --no-wait
  quorate status";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Add {
    /// Its id, which no node of this cluster has ever had
    #[arg(value_parser = parse_id)]
    id: u64,
    #[command(flatten)]
    join: Join,
}

impl Add {
    pub(crate) async fn run(self, client: &Client, timeout: Option<Duration>, output: &Output) -> Result<(), Failure> {
        self.join.run(self.id, None, client, timeout, output).await
    }
}
