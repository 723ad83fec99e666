//! `quorate node remove ID`: one node less.

use quorate_client::Client;

use super::parse_id;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

const EXAMPLES: &str = "\
Example:
  quorate node remove 4

Returns when the removal is committed; then stop the node. Its id is never used again. A removal
that would leave the cluster without a quorum is refused.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    #[arg(value_parser = parse_id)]
    id: u64,
}

impl Remove {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let id = self.id;
        client.remove_node(id).await?;
        output.value(&serde_json::json!({ "removed": id }), || {
            format!("node {id} was removed")
        })
    }
}
