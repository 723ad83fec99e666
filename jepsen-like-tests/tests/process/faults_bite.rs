//! Each fault does to real nodes what its name says: without that, surviving it proves nothing.

use std::sync::Arc;
use std::time::Duration;

use quorate_torture::cluster::{Cluster, Syncs, Weather, isolation};
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::{Patience, eventually};
use quorate_torture::workload::{Chat, messages};
use serde_json::json;

use crate::SOON;

/// A node that does not answer within this time is not going to: it takes milliseconds otherwise.
const SILENT: Duration = Duration::from_millis(1500);

#[test]
fn nodes_on_machines_of_their_own_can_be_cut_off_and_lose_power_and_room() {
    let name = "faults_bite::nodes_on_machines_of_their_own_can_be_cut_off_and_lose_power_and_room";
    let Some(isolation) = isolation::inside_test(name) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = Cluster::options().nodes(3).for_faults(Some(isolation));
        let cluster = Arc::new(options.start().await.unwrap());
        let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
        let load = Load::everywhere(&chat, 2, 1);
        chat.wait_acknowledged(50, SOON).await.unwrap();

        clients_do_not_reach_a_node_that_is_cut_off_from_them(&cluster).await;
        a_slow_network_is_slow(&cluster).await;
        a_leader_cut_off_from_its_peers_is_deposed(&cluster).await;
        a_leader_whose_disk_hangs_hands_over(&cluster).await;
        a_node_whose_disk_fails_ends_itself(&cluster).await;
        a_full_disk_refuses_writes(&cluster).await;
        chat.wait_acknowledged(20, SOON).await.unwrap();
        power_lost_by_all_loses_nothing(&cluster, &chat).await;

        load.stop().await.unwrap();
        chat.judge().await.unwrap();
    });
}

async fn clients_do_not_reach_a_node_that_is_cut_off_from_them(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    cluster.cut_clients(leader).unwrap();
    assert!(!answers(cluster, leader).await);
    // Its peers hear it as before.
    assert!(leads_for_others(cluster, leader).await);
    cluster.mend_clients(leader).unwrap();
    eventually("it answers again", SOON, async || {
        match answers(cluster, leader).await {
            true => Ok(()),
            false => Err("silence"),
        }
    })
    .await
    .unwrap();
}

async fn answers(cluster: &Cluster, id: u64) -> bool {
    let asked = tokio::time::timeout(SILENT, cluster.send(id, Call::get("/livez"))).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

/// Whether the others still follow it.
async fn leads_for_others(cluster: &Cluster, leader: u64) -> bool {
    let members = cluster.membership(cluster.others(leader)[0]).await.unwrap();
    members["leader"] == leader
}

async fn a_slow_network_is_slow(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    let delay = Duration::from_millis(60);
    for other in cluster.others(leader) {
        let weather = Weather {
            delay: delay..delay,
            ..Weather::default()
        };
        cluster.network().set_weather(leader, other, weather);
    }
    // Nothing is committed before a follower has heard of it.
    let room = cluster.create_room(leader, "slow").await.unwrap();
    assert!(room.took >= delay, "{room}");
    cluster.network().clear_up();
}

async fn a_leader_cut_off_from_its_peers_is_deposed(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    for other in &others {
        cluster.cut_link(leader, *other).unwrap();
    }
    let new = cluster.leader_after(leader).await.unwrap();
    assert_ne!(new, leader);
    for other in &others {
        cluster.mend_link(leader, *other).unwrap();
    }
    cluster.wait_all_ready().await.unwrap();
}

async fn a_leader_whose_disk_hangs_hands_over(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    cluster.freeze_disk(leader).unwrap();
    cluster.leader_after(leader).await.unwrap();
    cluster.thaw_disk(leader).unwrap();
    cluster.wait_all_ready().await.unwrap();
}

async fn a_node_whose_disk_fails_ends_itself(cluster: &Cluster) {
    for how in ["sync", "all"] {
        let victim = cluster.leader().await.unwrap();
        match how {
            "sync" if cluster.has_failing_syncs().is_ok() => cluster.fail_syncs(victim, Syncs::Fdatasync).unwrap(),
            "sync" => continue,
            _ => cluster.break_disk(victim).unwrap(),
        }
        let node = cluster.node(victim);
        let status = node.process().wait_end(SOON).await.unwrap();
        assert!(!status.success(), "{how}: {status}");
        let log = node.process().log_tail(4 << 10);
        assert!(log.contains("rror"), "{how}: {log}");
        cluster.restore_disks(&[victim]).await.unwrap();
        cluster.restart(victim).unwrap();
        cluster.wait_all_ready().await.unwrap();
    }
}

async fn a_full_disk_refuses_writes(cluster: &Cluster) {
    let leader = cluster.leader().await.unwrap();
    cluster.fill_disk(leader, 64 << 20).unwrap();
    let write = || Call::post(messages("hall"), &json!({ "text": "no room" }));
    let patience = Patience::new("writes are refused", SOON);
    // Whoever judges the room does not count these: nobody else writes such texts.
    while !cluster
        .metric(leader, "quorate_disk_low")
        .await
        .is_ok_and(|low| low == 1.0)
    {
        patience.again("the disk is not low").await.unwrap();
    }
    let refused = cluster.send(leader, write()).await.unwrap();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "disk_full"),
        "{refused}"
    );
    cluster.make_room(leader).unwrap();
    while !cluster
        .metric(leader, "quorate_disk_low")
        .await
        .is_ok_and(|low| low == 0.0)
    {
        patience.again("there is no room").await.unwrap();
    }
}

async fn power_lost_by_all_loses_nothing(cluster: &Arc<Cluster>, chat: &Chat) {
    for _ in 0..3 {
        let ids = cluster.ids();
        cluster.cut_power(&ids).await.unwrap();
        assert!(ids.iter().all(|id| !cluster.node(*id).process().runs()));
        cluster.start_all().unwrap();
        cluster.wait_all_ready().await.unwrap();
        chat.wait_acknowledged(20, SOON).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_is_seen_by_the_node_and_expires_nothing() {
    let cluster = Cluster::options().for_faults(None).start().await.unwrap();
    if let Err(why) = cluster.has_movable_clocks() {
        return eprintln!("SKIPPED a_clock_that_jumps_is_seen_by_the_node_and_expires_nothing: {why}");
    }
    let lock = json!({ "owner": "alice", "ttl_ms": 60_000 });
    let taken = cluster
        .expect(1, Call::put("/v1/locks/deploy", &lock), 200)
        .await
        .unwrap();
    let token = taken.json().unwrap()["token"].clone();
    let leader = cluster.leader().await.unwrap();
    let before = cluster.create_room(leader, "before").await.unwrap().json().unwrap();
    cluster.set_clock(leader, 26 * 3600).unwrap();
    let after = cluster.create_room(leader, "after").await.unwrap().json().unwrap();
    let [before, after] = [before, after].map(|room| {
        let at: jiff::Timestamp = room["created_at"].as_str().unwrap().parse().unwrap();
        at.as_second()
    });
    assert!(after - before >= 26 * 3600 - 60, "{before} {after}");
    let held = cluster
        .expect(leader, Call::get("/v1/locks/deploy"), 200)
        .await
        .unwrap();
    assert_eq!(held.json().unwrap()["holders"][0]["token"], token);
}
