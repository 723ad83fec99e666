//! What an operator asks for at a bad moment: a snapshot, after which the log that it covers goes; and
//! another leader.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{Begun, Fault};
use crate::cluster::Cluster;
use crate::http::Call;

/// How long the one who asks waits for the answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Snapshot;

#[async_trait]
impl Fault for Snapshot {
    fn kind(&self) -> &'static str {
        "snapshot"
    }

    fn about(&self) -> &'static str {
        "some nodes take a snapshot and purge their logs"
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let mut ids = cluster.ids();
        ids.shuffle(dice);
        ids.truncate(dice.random_range(1..=ids.len()));
        let mut taken = Vec::new();
        for id in ids {
            let call = Call::post("/v1/cluster/snapshot", &json!({}));
            let answer = cluster.try_send(id, call, ANSWERED_WITHIN).await;
            if answer.is_some_and(|answer| answer.status == 202) {
                taken.push(id);
            }
        }
        Ok((!taken.is_empty()).then(|| Begun::over(format!("of nodes {taken:?}"), taken)))
    }
}

pub(super) struct Transfer;

#[async_trait]
impl Fault for Transfer {
    fn kind(&self) -> &'static str {
        "transfer"
    }

    fn about(&self) -> &'static str {
        "leadership is handed over, to any other node"
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let ids = cluster.ids();
        let Some(leader) = cluster.leader_now().await else {
            return Ok(None);
        };
        let others = cluster.others(leader);
        let (Some(to), Some(via)) = (others.choose(dice), ids.choose(dice)) else {
            return Ok(None);
        };
        let call = Call::post("/v1/cluster/transfer", &json!({ "to": to }));
        let Some(answer) = cluster.try_send(*via, call, ANSWERED_WITHIN).await else {
            return Ok(None);
        };
        // Refused: nothing has been handed over.
        if !(200..300).contains(&answer.status) {
            return Ok(None);
        }
        let what = format!(
            "from node {leader} to node {to}, asked of node {via}: {}",
            answer.status
        );
        Ok(Some(Begun::over(what, vec![leader, *to])))
    }
}
