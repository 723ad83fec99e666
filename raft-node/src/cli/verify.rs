//! `quorate status --verify`: whether all nodes have the same state.

use std::time::Duration;

use quorate_client::Client;
use quorate_client::wire::{NodeHash, Verification};

use super::exit::Failure;
use super::output::{Format, Output};

/// Each node reads its whole state for it. This is also the most that a node can be asked to take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Prints what each node has. Fails unless all were compared and have the same.
pub(crate) async fn run(client: Client, timeout: Option<Duration>, output: &Output) -> Result<(), Failure> {
    // Finds a node that answers, so that the long question does not go to one that is silent.
    client.cluster().await?;
    let timeout = timeout.unwrap_or(TIMEOUT);
    let verification = client.with_times(timeout, timeout).verify().await?;
    output.table(&verification, &["id", "state hash", ""], || {
        verification.nodes.iter().map(row).collect()
    })?;
    if let Some(why) = disagreement(&verification) {
        return Err(Failure::conflict(why));
    }
    if output.format() == Format::Table {
        let Verification { index, revision, .. } = verification;
        output.value(&(), || {
            format!("\nall nodes have the same state after log entry {index}, revision {revision}")
        })?;
    }
    Ok(())
}

fn row(node: &NodeHash) -> Vec<String> {
    let how = match &node.error {
        Some(error) => error.clone(),
        None if node.differs => "differs".to_owned(),
        None => String::new(),
    };
    vec![node.id.to_string(), node.hash.clone().unwrap_or_default(), how]
}

/// Which nodes differ, or else why it cannot be said that all agree.
fn disagreement(verification: &Verification) -> Option<String> {
    if verification.agree {
        return None;
    }
    let differing: Vec<u64> = verification
        .nodes
        .iter()
        .filter(|node| node.differs)
        .map(|node| node.id)
        .collect();
    let silent = verification
        .nodes
        .iter()
        .find_map(|node| Some((node.id, node.error.as_ref()?)));
    Some(match (&differing[..], silent) {
        ([one], _) => format!("the state of node {one} differs from that of the others"),
        ([_, ..], _) => {
            let ids: Vec<String> = differing.iter().map(u64::to_string).collect();
            format!(
                "the states of the nodes {} differ from that of the others",
                ids.join(", ")
            )
        }
        ([], Some((node, error))) => format!("node {node} was not compared: {error}"),
        ([], None) => "the nodes have different states, and none is that of most of them".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing;

    #[tokio::test]
    async fn only_a_cluster_that_agrees_ends_well() {
        for (agree, hash) in [(true, "a"), (false, "b")] {
            let url = testing::serve(move |_, path, _| {
                let nodes = [(Ok("a"), false), (Ok(hash), !agree)];
                let answer = match path {
                    "/v1/cluster/verify" => serde_json::to_value(verification(agree, &nodes)),
                    _ => Ok(
                        serde_json::json!({"cluster_id": "c", "version": 1, "nodes": [], "term": 1,
                                               "failures_tolerated": 0, "changes": []}),
                    ),
                };
                Some((200, answer.expect("JSON")))
            })
            .await;
            let ended = run(testing::client(&url), None, &Output::new(Format::Json)).await;
            match ended {
                Ok(()) => assert!(agree),
                Err(failure) => assert!(
                    matches!(&failure, Failure::No(409, _, why) if !agree && why.contains("node 2 differs")),
                    "{failure:?}"
                ),
            }
        }
    }

    /// Nodes 1, 2, 3 …
    fn verification(agree: bool, nodes: &[(Result<&str, &str>, bool)]) -> Verification {
        let nodes = nodes.iter().zip(1..).map(|((hash, differs), id)| NodeHash {
            id,
            hash: hash.ok().map(str::to_owned),
            error: hash.err().map(str::to_owned),
            differs: *differs,
        });
        Verification {
            index: 7,
            revision: 5,
            agree,
            nodes: nodes.collect(),
        }
    }

    #[test]
    fn the_node_that_differs_is_named() {
        let said = |agree, nodes: &[(Result<&str, &str>, bool)]| disagreement(&verification(agree, nodes));
        assert_eq!(said(true, &[(Ok("a"), false), (Ok("a"), false)]), None);
        let one = [(Ok("a"), false), (Ok("b"), true), (Err("it is silent"), false)];
        assert_eq!(
            said(false, &one).expect("a disagreement"),
            "the state of node 2 differs from that of the others"
        );
        let two = [(Ok("b"), true), (Ok("a"), false), (Ok("c"), true)];
        let words = said(false, &two).expect("a disagreement");
        assert!(words.contains("nodes 1, 3 differ"), "{words}");
        let silent = [(Ok("a"), false), (Err("it is silent"), false)];
        assert_eq!(
            said(false, &silent).expect("it is not known"),
            "node 2 was not compared: it is silent"
        );
        let tie = [(Ok("a"), false), (Ok("b"), false)];
        let words = said(false, &tie).expect("a disagreement");
        assert!(words.contains("none is that of most"), "{words}");
    }
}
