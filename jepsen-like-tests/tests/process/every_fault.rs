//! Every kind of fault is made, lasts a moment and is healed, while clients write and read; then all nodes
//! are well, nothing is lost, and no node has ended that was not meant to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_torture::cluster::{Cluster, isolation};
use quorate_torture::load::Load;
use quorate_torture::nemesis::{self, Begun, Fault};
use quorate_torture::wait::Patience;
use quorate_torture::workload::Chat;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::{CLUSTER_VERSION, SOON};

/// A fault lasts as long as it says, but here not longer than this.
const LASTS_MAX: Duration = Duration::from_millis(1500);
/// Until another fault has been healed that is in the way of one.
const POSSIBLE_WITHIN: Duration = Duration::from_secs(90);
const SEED: u64 = 5;
/// Kinds that need nothing of the machine: these are never skipped.
const NEED_NOTHING: [&str; 8] = [
    "kill",
    "kill-all",
    "pause",
    "bit-flip",
    "truncate",
    "membership",
    "snapshot",
    "transfer",
];
/// Faults that are made where they overlap, and until when: many times what a machine with nothing else to do takes.
const OVERLAPPING: usize = 30;
const OVERLAPPING_WITHIN: Duration = Duration::from_secs(240);
/// How many of them are on at the same time at most.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_that_loopback_permits_is_made_and_healed() {
    let cluster = Cluster::options().nodes(3).for_faults(None);
    one_after_the_other(Arc::new(cluster.start().await.unwrap())).await;
}

#[test]
fn every_fault_is_made_and_healed_on_machines_of_their_own() {
    let Some(isolation) =
        isolation::inside_test("every_fault::every_fault_is_made_and_healed_on_machines_of_their_own")
    else {
        return;
    };
    runtime().block_on(async {
        let cluster = Cluster::options().nodes(5).for_faults(Some(isolation));
        one_after_the_other(Arc::new(cluster.start().await.unwrap())).await;
    });
}

#[test]
fn faults_overlap_on_machines_of_their_own() {
    let Some(isolation) = isolation::inside_test("every_fault::faults_overlap_on_machines_of_their_own") else {
        return;
    };
    runtime().block_on(async {
        let cluster = Cluster::options().nodes(5).for_faults(Some(isolation));
        overlapping(Arc::new(cluster.start().await.unwrap())).await;
    });
}

/// A test that starts itself again must not have threads before.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// All that can be made here; the others are told.
fn permitted(cluster: &Cluster) -> Vec<Box<dyn Fault>> {
    let mut all = nemesis::all();
    all.retain(|fault| {
        let permitted = fault.permitted(cluster);
        if let Err(why) = &permitted {
            println!("SKIPPED fault {}: {why}", fault.kind());
        }
        permitted.is_ok()
    });
    for kind in NEED_NOTHING {
        assert!(all.iter().any(|fault| fault.kind() == kind), "{kind} was skipped");
    }
    all
}

/// Every kind that is permitted here.
async fn one_after_the_other(cluster: Arc<Cluster>) {
    let (chat, load) = begin(&cluster).await;
    let nodes = cluster.ids().len();
    let mut dice = ChaCha8Rng::seed_from_u64(SEED);
    for fault in permitted(&cluster) {
        let patience = Patience::new(fault.kind(), POSSIBLE_WITHIN);
        let begun = loop {
            match fault.begin(&cluster, &mut dice).await {
                Ok(Some(begun)) => break begun,
                Ok(None) => patience.again("it is never possible").await.unwrap(),
                Err(error) => panic!("{}: {error:#}", fault.kind()),
            }
        };
        note(&chat, fault.as_ref(), &begun);
        tokio::time::sleep(begun.lasts.min(LASTS_MAX)).await;
        let healed = begun.heal.await;
        healed.unwrap_or_else(|error| panic!("{}: {error:#}", fault.kind()));
        chat.history.fault(&format!("{} healed", fault.kind()), None);
        chat.wait_acknowledged(5, SOON).await.unwrap();
    }
    end(&cluster, &chat, load, nodes, 250).await;
}

async fn overlapping(cluster: Arc<Cluster>) {
    let (chat, load) = begin(&cluster).await;
    let nodes = cluster.ids().len();
    let mut dice = ChaCha8Rng::seed_from_u64(SEED);
    let all = permitted(&cluster);
    let patience = Patience::new("faults overlap", OVERLAPPING_WITHIN);
    let mut on = tokio::task::JoinSet::new();
    let mut made = 0;
    while made < OVERLAPPING {
        if on.len() >= AT_ONCE {
            let healed: Result<anyhow::Result<()>, _> = on.join_next().await.unwrap();
            healed.unwrap().unwrap();
        }
        let fault = all.choose(&mut dice).unwrap();
        let Some(begun) = fault.begin(&cluster, &mut dice).await.unwrap() else {
            let reason = format!("{made} of {OVERLAPPING} were made, and not {} now", fault.kind());
            patience.again(reason).await.unwrap();
            continue;
        };
        made += 1;
        note(&chat, fault.as_ref(), &begun);
        on.spawn(async move {
            tokio::time::sleep(begun.lasts).await;
            begun.heal.await
        });
    }
    while let Some(healed) = on.join_next().await {
        healed.unwrap().unwrap();
    }
    end(&cluster, &chat, load, nodes, 100).await;
}

async fn begin(cluster: &Arc<Cluster>) -> (Arc<Chat>, Load) {
    cluster.wait_version(CLUSTER_VERSION).await.unwrap();
    let chat = Chat::begin(cluster.clone(), &["hall", "side"]).await.unwrap();
    let load = Load::everywhere(&chat, 4, 1);
    chat.wait_acknowledged(50, SOON).await.unwrap();
    (chat, load)
}

fn note(chat: &Chat, fault: &dyn Fault, begun: &Begun) {
    println!("{}: {} (for {:?})", fault.kind(), begun.what, begun.lasts);
    chat.history.fault(
        &format!("{}: {}", fault.kind(), begun.what),
        begun.nodes.first().copied(),
    );
}

async fn end(cluster: &Arc<Cluster>, chat: &Arc<Chat>, load: Load, nodes: usize, least: usize) {
    let healing = Instant::now();
    nemesis::heal_all(cluster).await.unwrap();
    println!("everything healed in {:?}", healing.elapsed());
    assert_eq!(cluster.ids().len(), nodes, "as many as before: {:?}", cluster.ids());
    chat.wait_acknowledged(20, SOON).await.unwrap();
    load.stop().await.unwrap();
    let ends = nemesis::unexpected_ends(cluster);
    assert!(ends.is_empty(), "{}", ends.join("\n"));
    let verdict = chat.judge().await.unwrap();
    assert!(verdict.acknowledged >= least, "too little happened: {verdict}");
}
