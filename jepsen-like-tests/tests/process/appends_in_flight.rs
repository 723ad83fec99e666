//! Replication is pipelined: the leader does not wait for one append before it sends the next.

use std::sync::Arc;

use quorate_torture::cluster::Cluster;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::Chat;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_appends_are_in_flight_to_each_peer() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall", "harbour"]).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let load = Load::start(&chat, &cluster.ids(), 32, 0);
    for peer in cluster.others(leader) {
        let sample = format!("quorate_peer_appends_in_flight_max{{peer=\"{peer}\"}}");
        eventually("more than one append is in flight", SOON, async || {
            let most = cluster
                .metric(leader, &sample)
                .await
                .map_err(|error| format!("{error:#}"))?;
            if most > 1.0 {
                Ok(())
            } else {
                Err(format!("{sample} is {most}"))
            }
        })
        .await
        .unwrap();
    }
    load.stop().await.unwrap();
    chat.judge().await.unwrap();
}
