//! `quorate status`: the cluster as the first node that answers sees it.

use std::time::Duration;

use quorate_client::Client;
use quorate_client::wire::{ChangeStep, Cluster};

use super::exit::Failure;
use super::output::{Format, Output, visible};
use super::{node, verify};

const EXAMPLES: &str = "\
Examples:
  quorate status            the nodes, the leader, and which changes of the nodes are under way
  quorate status --verify   has every node hash its state at one entry of the log, and compares

Ends with 1 while there is no leader; with --verify also unless all nodes have the same state.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Compare the states of all nodes; reads each whole state [default of --timeout: 60]
    #[arg(long)]
    verify: bool,
}

impl Status {
    pub(crate) async fn run(self, client: Client, timeout: Option<Duration>, output: &Output) -> Result<(), Failure> {
        if self.verify {
            verify::run(client, timeout, output).await
        } else {
            show(&client.cluster().await?, output)
        }
    }
}

/// Prints the cluster. Fails where it has no leader, so that scripts can wait for one.
fn show(cluster: &Cluster, output: &Output) -> Result<(), Failure> {
    node::table(cluster, &cluster.nodes, output)?;
    let people = output.format() == Format::Table;
    if people {
        output.value(&(), || changes(cluster))?;
    }
    let Some(leader) = cluster.leader else {
        return Err(Failure::no_leader("the cluster has no leader now".into()));
    };
    if people {
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

/// Those that are under way or have failed, below an empty line; nothing where there are none.
fn changes(cluster: &Cluster) -> String {
    let lines = cluster
        .changes
        .iter()
        .filter(|change| change.step != ChangeStep::Done)
        .map(|change| format!("\n{}", visible(&node::in_words(change))));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::wire::{Change, ChangeKind};

    #[test]
    fn changes_under_way_and_failed_ones_are_shown() {
        let change = |kind, node, replaces, step, detail: &str| Change {
            kind,
            node,
            replaces,
            step,
            detail: detail.to_owned(),
        };
        let mut cluster = Cluster {
            cluster_id: "c".into(),
            version: 1,
            nodes: Vec::new(),
            leader: Some(1),
            term: 1,
            failures_tolerated: 1,
            changes: vec![
                change(
                    ChangeKind::Add,
                    4,
                    None,
                    ChangeStep::CatchingUp,
                    "applied 3 of 9 entries",
                ),
                change(ChangeKind::Replace, 5, Some(1), ChangeStep::Promoting, ""),
                change(ChangeKind::Remove, 2, None, ChangeStep::Done, ""),
                change(
                    ChangeKind::Add,
                    6,
                    None,
                    ChangeStep::Failed,
                    "it is of\nanother cluster",
                ),
            ],
        };
        assert_eq!(
            changes(&cluster).lines().collect::<Vec<_>>(),
            [
                "",
                "add node 4: catching up (applied 3 of 9 entries)",
                "put node 5 in the place of node 1: promoting",
                "add node 6: failed (it is of⏎another cluster)",
            ]
        );
        cluster.changes.truncate(0);
        assert_eq!(changes(&cluster), "");
    }
}
