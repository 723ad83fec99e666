//! `quorate node transfer`: another leader.

use quorate_client::Client;
use quorate_client::wire::NewLeader;

use super::parse_id;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

const EXAMPLES: &str = "\
Examples:
  quorate node transfer          to the voter whose log is furthest
  quorate node transfer --to 2   to node 2

Before the leader's machine is serviced, for example. Returns when another node leads.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Transfer {
    /// The voter that shall lead [default: the one whose log is furthest]
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    to: Option<u64>,
}

impl Transfer {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let leader = client.transfer(self.to).await?;
        output.value(&NewLeader { leader }, || format!("node {leader} leads now"))
    }
}
