//! After the faults: the cluster must come together again by itself, within a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::Cluster;
use crate::http::Call;
use crate::wait::eventually;

/// From the end of the last fault until all nodes are ready, take writes and have the same state. A node that
/// replays a long log, or is sent a snapshot, on a busy machine is within it.
pub const CONVERGE_WITHIN: Duration = Duration::from_secs(120);
/// Where the writes go that show that each node takes them.
const ROOM: &str = "converged";
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until all nodes are ready, each takes a write, and all have identical state hashes. Says how long it took.
pub async fn converge(cluster: &Arc<Cluster>) -> Result<Duration> {
    let begun = Instant::now();
    let left = || CONVERGE_WITHIN.saturating_sub(begun.elapsed());
    for id in cluster.ids() {
        let ready = async || {
            let call = Call::get("/readyz").timeout(Duration::from_secs(1));
            match cluster.send(id, call).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        eventually("the node is ready", left(), ready)
            .await
            .with_context(|| format!("node {id}"))?;
    }
    for id in cluster.ids() {
        eventually("the node takes a write", left(), async || write(cluster, id).await)
            .await
            .with_context(|| format!("node {id}"))?;
    }
    // A node that still catches up is no difference; one that stays different is.
    let same = async || cluster.verify().await.map_err(|error| format!("{error:#}"));
    eventually("all nodes have the same state", left(), same).await?;
    Ok(begun.elapsed())
}

async fn write(cluster: &Cluster, id: u64) -> Result<(), String> {
    let room = Call::post("/v1/rooms", &json!({ "room": ROOM, "kind": "public" })).timeout(WRITE_TIMEOUT);
    let made = cluster.send(id, room).await.map_err(|error| error.to_string())?;
    if !matches!(made.status, 201 | 409) {
        return Err(made.to_string());
    }
    let body = json!({ "text": format!("by node {id}") });
    let call = Call::post(crate::workload::messages(ROOM), &body).timeout(WRITE_TIMEOUT);
    let sent = cluster.send(id, call).await.map_err(|error| error.to_string())?;
    match sent.status {
        201 => Ok(()),
        _ => Err(sent.to_string()),
    }
}
