//! A rolling upgrade under load. The cluster stays at the version of its oldest node, rises by itself
//! when the last one is upgraded, and takes back nobody whose build is too old from then on.

use std::path::PathBuf;
use std::sync::Arc;

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::Chat;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CLUSTER_VERSION, SOON};

/// Which build a node plays that starts from now on: a file that all nodes read at their start.
struct Build {
    folder: TempDir,
}

impl Build {
    fn file(&self) -> PathBuf {
        self.folder.path().join("build.toml")
    }

    fn older(&self) {
        std::fs::write(self.file(), "cluster_version_max = 1\n").unwrap();
    }

    fn newer(&self) {
        std::fs::write(self.file(), "").unwrap();
    }
}

async fn versions(cluster: &Cluster) -> Vec<Value> {
    let mut versions = Vec::new();
    for id in cluster.ids() {
        let answer = cluster.expect(id, Call::get("/v1/cluster"), 200).await.unwrap();
        versions.push(answer.json().unwrap()["version"].clone());
    }
    versions
}

async fn assert_states_are_equal(cluster: &Cluster) {
    let asked = cluster.expect(1, Call::get("/v1/cluster/verify"), 200).await.unwrap();
    let verified: Value = asked.json().unwrap();
    let nodes = verified["nodes"].as_array().unwrap();
    let equal = nodes
        .iter()
        .all(|node| node["hash"].is_string() && node["hash"] == nodes[0]["hash"]);
    assert!(equal && nodes.len() == 3 && verified["agree"] == true, "{verified}");
}

/// What only version 2 has is refused, and these nodes are named as the reason.
async fn assert_held_back_by(cluster: &Cluster, older: &[u64]) {
    let body = json!({
        "id": 9, "client_url": "http://127.9.9.9:9001", "peer_addr": "127.9.9.9:9002", "replaces": 2,
    });
    let refused = cluster.send(1, Call::post("/v1/cluster/nodes", &body)).await.unwrap();
    let told = refused.to_string();
    assert_eq!(refused.status, 409, "{told}");
    assert!(
        told.contains("needs cluster version 2, and the cluster is at version 1"),
        "{told}"
    );
    for id in cluster.ids() {
        let named = told.contains(&format!("node {id} (its build supports 1 to 1)"));
        assert_eq!(named, older.contains(&id), "node {id}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_raises_the_version_at_its_end_and_there_is_no_way_back() {
    let build = Build {
        folder: tempfile::tempdir().unwrap(),
    };
    build.older();
    let config = build.file().display().to_string();
    let options = Cluster::options().serve_args(&["--config", &config]);
    let cluster = Arc::new(options.start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["harbour", "hall"]).await.unwrap();
    let load = Load::start(&chat, &cluster.ids(), 4, 1);
    chat.wait_acknowledged(50, SOON).await.unwrap();
    assert_held_back_by(&cluster, &[1, 2, 3]).await;

    build.newer();
    let mut older = cluster.ids();
    while let Some(id) = older.pop() {
        assert_eq!(versions(&cluster).await, [1, 1, 1]);
        chat.history.fault("upgrade", Some(id));
        let status = cluster.terminate(id, SOON).await.unwrap();
        assert_eq!(status.code(), Some(0), "node {id}: {status}");
        cluster.restart(id).unwrap();
        cluster.wait_ready(&[id]).await.unwrap();
        chat.wait_acknowledged(50, SOON).await.unwrap();
        if !older.is_empty() {
            cluster.leader().await.unwrap();
            assert_held_back_by(&cluster, &older).await;
        }
        assert_states_are_equal(&cluster).await;
    }
    eventually("the version rises by itself", SOON, async || {
        let versions = versions(&cluster).await;
        versions
            .iter()
            .all(|version| *version == CLUSTER_VERSION)
            .then_some(())
            .ok_or(format!("{versions:?}"))
    })
    .await
    .unwrap();
    assert_states_are_equal(&cluster).await;

    // Back to the older build with one node: it says why not, and the others go on.
    let leader = cluster.leader().await.unwrap();
    let back = cluster.others(leader)[0];
    chat.history.fault("downgrade", Some(back));
    cluster.terminate(back, SOON).await.unwrap();
    build.older();
    cluster.restart(back).unwrap();
    let node = cluster.node(back);
    let process = node.process();
    let ended = process.wait_end(SOON).await.unwrap();
    assert!(!ended.success(), "{ended}");
    let told = process.log_tail(4 << 10);
    assert!(
        told.contains("the cluster is at version 3, this build supports 1 to 1: use a newer build"),
        "{told}"
    );
    chat.wait_acknowledged(100, SOON).await.unwrap();

    build.newer();
    cluster.restart(back).unwrap();
    cluster.wait_ready(&[back]).await.unwrap();
    load.stop().await.unwrap();
    assert_states_are_equal(&cluster).await;
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= 300, "too little happened: {verdict}");
}
