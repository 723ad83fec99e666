//! The cluster version: when it rises, what it permits, and what a build does that cannot follow.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use prometheus::Registry;
use quorate_api::replica::{AdminError, ChangeStep, Replica};
use quorate_state_machine::{Command, VERSION_MAX};
use quorate_storage::log::LogId;
use quorate_storage::state::{MemoryState, StateStore};
use quorate_storage::transfer::SnapshotDir;
use raft_node::metrics::Metrics;
use raft_node::snapshots::{SnapshotMeta, Snapshots};
use raft_node::state_machine::Machine;
use raft_node::versions::Supported;
use raft_node::watchers::Watchers;

use crate::cluster::{Cluster, create_room, soon, until};
use crate::membership::new_node;

/// The leader asks all members twice a second at least. That nothing comes of it can only be waited for.
const SOME_SURVEYS: Duration = Duration::from_millis(1200);
const TOO_NEW: &str = "the cluster is at version 3, this build supports 1 to 1: use a newer build";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_rises_once_when_all_nodes_support_it() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    cluster.at_version(VERSION_MAX).await;
    let status = cluster.nodes[1].core.cluster(soon()).await;
    assert_eq!(status.version, VERSION_MAX);
    // Nothing is proposed again.
    let index = cluster.nodes[0].core.applied.borrow().index();
    tokio::time::sleep(SOME_SURVEYS).await;
    assert_eq!(cluster.nodes[0].core.applied.borrow().index(), index);
    let written = cluster.nodes[0].write(create_room("lobby")).await.unwrap();
    assert_eq!(written.outcome.revision.0, 1, "the first change that clients see");
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_older_node_holds_the_version_back_and_is_named() {
    let mut cluster = Cluster::start_mixed(3, &[3]).await;
    let leader = cluster.leader().await;
    let stranger = cluster.start_stranger(4).await;
    // Long enough for the leader to ask all members a few times.
    tokio::time::sleep(SOME_SURVEYS).await;
    let asked = &cluster.nodes[leader].core;
    let refused = asked.add_node(new_node(stranger.clone(), Some(2)), soon()).await;
    let Err(AdminError::Conflict(why)) = refused else {
        panic!("not refused: {refused:?}")
    };
    assert_eq!(
        why,
        "replacing a node in one change needs cluster version 2, and the cluster is at version 1: held back by \
         node 3 (its build supports 1 to 1)"
    );
    // What version 1 has goes on: the node is added as a further one.
    asked.add_node(new_node(stranger, None), soon()).await.unwrap();
    until("the node is a voter", || {
        asked.raft.voter_ids().any(|id| id == 4).then_some(())
    })
    .await;
    cluster.at_version(1).await;
    cluster.assert_equal_states().await;

    // The older one was the last: with it gone the version rises.
    if leader == 2 {
        asked.transfer(Some(1), soon()).await.unwrap();
    }
    cluster.nodes[0].core.remove_node(3, soon()).await.unwrap();
    let gone = cluster.nodes.remove(2);
    gone.stop().await;
    cluster.at_version(VERSION_MAX).await;
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_cannot_follow_is_refused_when_it_is_contacted() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.at_version(VERSION_MAX).await;
    let older = cluster.start_older_stranger(4).await;
    let asked = &cluster.nodes[leader].core;
    asked.add_node(new_node(older, None), soon()).await.unwrap();
    let failed = until("the change has failed", || {
        let shown = asked.changes_shown();
        let failed = shown.iter().find(|change| change.node == 4)?.clone().into_api();
        (failed.step == ChangeStep::Failed).then_some(failed)
    })
    .await;
    assert_eq!(
        failed.detail,
        "the cluster is at version 3, the build of node 4 supports 1 to 1: use a newer build"
    );
    assert!(asked.book.members().keys().eq(&[1, 2, 3]));
    cluster.stop().await;
}

/// Nothing raises the version behind a node's back, unless somebody does it by force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sees_a_version_beyond_its_build_ends_and_the_others_go_on() {
    let mut cluster = Cluster::start_mixed(3, &[3]).await;
    cluster.leader().await;
    cluster.nodes[0]
        .write(Command::RaiseVersion { to: VERSION_MAX })
        .await
        .unwrap();
    let reason = until("the older node ends", || cluster.nodes[2].ended.lock().unwrap().clone()).await;
    assert_eq!(reason, TOO_NEW);
    let gone = cluster.nodes.remove(2);
    assert_eq!(gone.core.applied.borrow().version, 1, "its state stays as it was");
    gone.stop().await;
    cluster.nodes[0].write(create_room("lobby")).await.unwrap();
    cluster.at_version(VERSION_MAX).await;
    cluster.assert_equal_states().await;
    cluster.stop().await;
}

fn older_machine(
    dir: &Path,
    state: MemoryState,
    ended: &Arc<Mutex<Option<String>>>,
) -> std::io::Result<Machine<MemoryState>> {
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let snapshots = Snapshots::open(state.clone(), &dir.join("snapshot")).unwrap();
    let (_, flushed) = tokio::sync::watch::channel(None::<LogId>);
    let told = ended.clone();
    let on_fatal = Arc::new(move |reason| *told.lock().unwrap() = Some(reason));
    let watchers = Arc::new(Watchers::default());
    Machine::open(
        state,
        snapshots,
        flushed,
        watchers,
        metrics.apply,
        Supported::up_to(1),
        on_fatal,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_build_refuses_newer_data_at_the_start_and_in_a_snapshot() {
    let cluster = Cluster::start(1).await;
    cluster.at_version(VERSION_MAX).await;
    let newer = cluster.nodes[0].core.state.clone();
    cluster.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let ended = Arc::new(Mutex::new(None));

    let Err(refused) = older_machine(dir.path(), newer.clone(), &ended) else {
        panic!("it was opened")
    };
    assert_eq!(refused.to_string(), TOO_NEW);

    let mut machine = older_machine(dir.path(), MemoryState::new(), &ended).unwrap();
    let checkpoint = dir.path().join("checkpoint");
    newer.checkpoint(&checkpoint).unwrap();
    let files = Arc::new(SnapshotDir::adopt(checkpoint));
    let refused = machine
        .install_snapshot(&SnapshotMeta::default(), files)
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), TOO_NEW);
    assert_eq!(ended.lock().unwrap().as_deref(), Some(TOO_NEW));
    assert_eq!(machine.applied_now().borrow().version, 1, "nobody reads it");
}
