//! `quorate node snapshot`: each node keeps its state in one piece, and forgets the log before it.

use futures::future::join_all;
use quorate_client::Client;
use serde::Serialize;

use super::parse_id;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

const EXAMPLES: &str = "\
Examples:
  quorate node snapshot        on every node
  quorate node snapshot 2 3    on these

Returns when the nodes have begun. They go on serving meanwhile.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Snapshot {
    /// Which nodes [default: all]
    #[arg(value_name = "ID", value_parser = parse_id)]
    ids: Vec<u64>,
}

/// What one node said.
#[derive(Debug, Serialize)]
struct Said {
    node: u64,
    begun: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Snapshot {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let known: Vec<u64> = client.cluster().await?.nodes.iter().map(|node| node.id).collect();
        if let Some(id) = self.ids.iter().find(|id| !known.contains(id)) {
            return Err(Failure::not_found(format!("there is no node {id}")));
        }
        let ids = if self.ids.is_empty() { known } else { self.ids };
        let answers = join_all(ids.iter().map(|id| client.snapshot(*id))).await;
        let said: Vec<Said> = ids
            .into_iter()
            .zip(answers)
            .map(|(node, answer)| Said {
                node,
                begun: answer.is_ok(),
                error: answer.err().map(|error| error.to_string()),
            })
            .collect();
        output.table(&serde_json::json!({ "nodes": said }), &["id", "snapshot"], || {
            let row = |said: &Said| {
                let how = said.error.clone().unwrap_or_else(|| "begun".to_owned());
                vec![said.node.to_string(), how]
            };
            said.iter().map(row).collect()
        })?;
        match said.iter().find_map(|said| Some((said.node, said.error.as_ref()?))) {
            Some((node, error)) => Err(Failure::unavailable(format!("node {node}: {error}"))),
            None => Ok(()),
        }
    }
}
