//! `quorate node list`: the nodes as the first one that answers sees them.

use quorate_client::Client;
use quorate_client::wire::ClusterNode;
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::output::Output;

pub(super) async fn run(client: &Client, output: &Output) -> Result<(), Failure> {
    let nodes = client.cluster().await?.nodes;
    table(&serde_json::json!({ "nodes": nodes }), &nodes, output)
}

/// The nodes for people, `document` for programs.
pub(crate) fn table<T: Serialize>(document: &T, nodes: &[ClusterNode], output: &Output) -> Result<(), Failure> {
    let header = [
        "id",
        "role",
        "state",
        "client url",
        "peer addr",
        "last log",
        "applied",
        "lag",
    ];
    output.table(document, &header, || {
        let row = |node: &ClusterNode| {
            vec![
                node.id.to_string(),
                node.role.clone(),
                node.state.clone(),
                node.client_url.clone(),
                node.peer_addr.clone(),
                node.last_log.to_string(),
                node.applied.to_string(),
                node.lag.to_string(),
            ]
        };
        nodes.iter().map(row).collect()
    })
}
