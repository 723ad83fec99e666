//! A node whose data directory was emptied has forgotten what it voted for and what it
//! acknowledged. Under its old id it must not count any more.

use std::time::Duration;

use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use serde_json::json;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_refused_and_does_not_count() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    cluster.wait_writable(1, "hall").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let (wiped, whole) = (cluster.others(leader)[0], cluster.others(leader)[1]);

    cluster.kill(wiped).await.unwrap();
    cluster.wipe(wiped).unwrap();
    cluster.restart(wiped).unwrap();
    let told = eventually("the wiped node says that it is refused", SOON, async || {
        let log = cluster.node(wiped).process().log_tail(64 << 10);
        if let Some(status) = cluster.node(wiped).process().ended() {
            assert!(!status.success(), "it must not end as if all were well: {status}");
            return Ok(log);
        }
        let ready = cluster.send(wiped, Call::get("/readyz?verbose")).await;
        let ready = ready.map_err(|error| error.to_string())?;
        assert_ne!(ready.status, 200, "it must not be ready: {ready}");
        // The other end has turned its handshake down, and it says so.
        if log.contains("refused") {
            Ok(log)
        } else {
            Err(ready.to_string())
        }
    })
    .await
    .unwrap();
    // Whoever reads the log must find out what to do: it is about the store's identity.
    assert!(told.to_lowercase().contains("store"), "{told}");
    cluster.wait_writable(leader, "hall").await.unwrap();

    // With the other follower gone, only the wiped one is left: no majority, so nothing commits.
    cluster.kill(whole).await.unwrap();
    if !cluster.node(wiped).process().runs() {
        // As a service manager would.
        cluster.restart(wiped).unwrap();
    }
    for _ in 0..5 {
        let call = Call::post(messages("hall"), &json!({ "text": "nobody" })).timeout(Duration::from_millis(500));
        let answer = cluster.send(leader, call).await.unwrap();
        assert!(
            matches!(answer.status, 503 | 504),
            "the wiped node was counted: {answer}"
        );
    }
    cluster.restart(whole).unwrap();
    cluster.wait_ready(&[leader, whole]).await.unwrap();
    cluster.wait_writable(whole, "hall").await.unwrap();
}
