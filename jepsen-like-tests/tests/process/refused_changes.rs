//! Changes of the membership that would do harm are refused, say why, and change nothing.

use quorate_torture::cluster::{Cluster, Newcomer, node_of};
use quorate_torture::http::{Answer, Call};
use quorate_torture::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use crate::SOON;

async fn add(cluster: &Cluster, via: u64, body: &Value, status: u16) -> Answer {
    let call = Call::post("/v1/cluster/nodes", body);
    cluster.expect(via, call, status).await.unwrap()
}

async fn remove(cluster: &Cluster, via: u64, id: u64, status: u16) -> Answer {
    let call = Call::new(Method::DELETE, format!("/v1/cluster/nodes/{id}"));
    cluster.expect(via, call, status).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_and_addresses_are_taken_once_and_changes_come_one_at_a_time() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let before = cluster.membership(2).await.unwrap();

    // What another node has: its id, or one of its addresses.
    let own = cluster.registration(&Newcomer::new(4), None);
    let with = |changes: &[(&str, Value)]| {
        let mut body = own.clone();
        for (name, value) in changes {
            body[*name] = value.clone();
        }
        body
    };
    let member = node_of(&before, 2).unwrap();
    for taken in [
        with(&[("id", json!(2))]),
        with(&[("client_url", member["client_url"].clone())]),
        with(&[("peer_addr", member["peer_addr"].clone())]),
    ] {
        assert_eq!(add(&cluster, 3, &taken, 409).await.code(), "already_exists", "{taken}");
    }
    assert_eq!(
        add(&cluster, 3, &with(&[("replaces", json!(9))]), 422).await.code(),
        "invalid"
    );
    for wrong in [
        with(&[("id", json!(0))]),
        with(&[("peer_addr", json!("nowhere"))]),
        with(&[("client_url", json!("nowhere"))]),
        with(&[("colour", json!("red"))]),
    ] {
        assert_eq!(add(&cluster, 3, &wrong, 400).await.code(), "bad_request", "{wrong}");
    }
    assert_eq!(remove(&cluster, 3, 9, 404).await.code(), "not_found");
    let unchanged = cluster.membership(2).await.unwrap();
    assert_eq!(unchanged["changes"], before["changes"], "refusals are no changes");
    assert_eq!(unchanged["nodes"].as_array().unwrap().len(), 3);

    // A node that was announced and is not there yet: nobody else can come meanwhile.
    add(&cluster, 3, &own, 202).await;
    add(&cluster, 1, &own, 202).await;
    let second = cluster.registration(&Newcomer::new(5), None);
    assert_eq!(add(&cluster, 2, &second, 409).await.code(), "conflict");
    let shown = cluster.membership(cluster.leader().await.unwrap()).await.unwrap();
    let change = shown["changes"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (change["node"].as_u64(), change["step"].as_str()),
        (Some(4), Some("contacting")),
        "{shown}"
    );
    cluster.start_new(&Newcomer::new(4)).await.unwrap();
    cluster.wait_voter(4).await.unwrap();

    // Once removed, never again: not under its old directory, not under a new one, not announced by anyone.
    cluster.remove(4).await.unwrap();
    let old = cluster.gone(4);
    old.process().start().unwrap();
    let ended = old.process().wait_end(SOON).await.unwrap();
    assert!(!ended.success(), "{ended}");
    assert!(old.process().log_tail(4 << 10).contains("removed"));
    let again = add(&cluster, 2, &own, 422).await;
    assert!(
        again.code() == "invalid" && again.to_string().contains("removed"),
        "{again}"
    );
    std::fs::remove_dir_all(old.data()).unwrap();
    old.process().start().unwrap();
    let ended = old.process().wait_end(SOON).await.unwrap();
    assert!(!ended.success(), "{ended}");
    assert!(old.process().log_tail(4 << 10).contains("never used again"));
    cluster.wait_writable(1, "hall").await.unwrap();
    cluster.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_would_cost_the_quorum_is_refused() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let (dead, alive) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    cluster.kill(dead).await.unwrap();
    eventually("the dead node is known to be unreachable", SOON, async || {
        let members = cluster.membership(leader).await.map_err(|error| error.to_string())?;
        match node_of(&members, dead) {
            Some(node) if node["state"] == "unreachable" => Ok(()),
            _ => Err(members.to_string()),
        }
    })
    .await
    .unwrap();

    for id in [alive, leader] {
        let refused = remove(&cluster, alive, id, 409).await;
        assert!(
            refused.code() == "conflict" && refused.to_string().contains("quorum"),
            "{refused}"
        );
        assert_eq!(refused.json().unwrap()["outcome"], "not_applied");
    }
    cluster.wait_writable(alive, "hall").await.unwrap();

    // The dead one can go: two that live are left. Of those neither can.
    remove(&cluster, alive, dead, 204).await;
    assert_eq!(remove(&cluster, leader, dead, 404).await.code(), "not_found");
    cluster.forget(dead);
    cluster.wait_writable(leader, "hall").await.unwrap();
    cluster.verify().await.unwrap();
    // It comes back and is told.
    let old = cluster.gone(dead);
    old.process().start().unwrap();
    assert!(!old.process().wait_end(SOON).await.unwrap().success());
    assert!(old.process().log_tail(4 << 10).contains("removed"));
}
