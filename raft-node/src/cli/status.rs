//! `quorate status`: the cluster as the first node that answers sees it.

use quorate_client::Client;

use super::exit::Failure;
use super::output::Output;

/// Prints the cluster. Fails where it has no leader, so that scripts can wait for one.
pub(crate) async fn run(client: Client, output: &Output) -> Result<(), Failure> {
    let cluster = client.cluster().await?;
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
    output.table(&cluster, &header, || {
        let row = |node: &quorate_client::wire::ClusterNode| {
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
        cluster.nodes.iter().map(row).collect()
    })?;
    let Some(leader) = cluster.leader else {
        return Err(Failure::No("the cluster has no leader now".into()));
    };
    if output.format() == super::output::Format::Table {
        let more = match cluster.failures_tolerated {
            0 => "no node may fail now".to_owned(),
            1 => "one more node may fail".to_owned(),
            n => format!("{n} more nodes may fail"),
        };
        output.value(&(), || {
            format!(
                "\ncluster {}: node {leader} leads in term {}; {more}",
                cluster.cluster_id, cluster.term
            )
        })?;
    }
    Ok(())
}
