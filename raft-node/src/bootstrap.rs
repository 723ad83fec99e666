//! The first start of a cluster: the same flags on every node, and exactly one initialisation.
//!
//! Only the node with the lowest listed id initialises, and only after every listed peer has reported
//! an empty store. What it writes first into the log holds every node's store id, so that a disk that
//! is wiped later is recognised. Every other node waits to be contacted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use quorate_storage::state::StateStore;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use crate::config::InitialMember;
use crate::node::NodeCore;
use crate::peers::connection::{Connection, DialError};
use crate::peers::frame::Purpose;
use crate::peers::handshake::{Greeted, HandshakeError};
use crate::peers::pool::DIAL_TIMEOUT;
use crate::types::{Member, Membership, StoredMembership};

/// Peers that are still starting are asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often a node that waits for its peers says so.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// Initialises the cluster if that is this node's part. Returns when it is done or when there is
/// nothing to do; an error means that this node must not run.
pub async fn bootstrap<S: StateStore>(core: Arc<NodeCore<S>>, initial: &[InitialMember]) -> anyhow::Result<()> {
    if core
        .raft
        .is_initialized()
        .await
        .context("failed to ask the Raft core")?
    {
        return Ok(());
    }
    let lowest = initial
        .iter()
        .map(|member| member.id)
        .min()
        .context("the initial cluster has no member")?;
    if core.book.id != lowest {
        tracing::info!(
            lowest,
            "this store is empty: waiting for the node with the lowest id to initialise the cluster"
        );
        return Ok(());
    }
    let mut said = Instant::now();
    loop {
        let others: Vec<_> = initial.iter().filter(|member| member.id != core.book.id).collect();
        let greeted = join_all(others.iter().map(|member| greet(&core, member))).await;
        let mut members = BTreeMap::from([(core.book.id, core.book.store_id)]);
        let mut missing = Vec::new();
        for (member, greeted) in others.iter().zip(greeted) {
            match greeted? {
                Some(peer) if peer.empty && peer.cluster_id.is_none() => {
                    members.insert(peer.id, peer.store_id);
                }
                Some(peer) => {
                    // An initialised cluster whose membership lacks this node, or one in the making
                    // by flags that differ. Its leader decides; this node does not initialise.
                    tracing::info!(
                        peer = peer.id,
                        "a peer belongs to a cluster already: this node waits for its leader"
                    );
                    return Ok(());
                }
                None => missing.push(member.id),
            }
        }
        if missing.is_empty() {
            return initialise(&core, initial, &members).await;
        }
        if said.elapsed() >= SAY_AFTER {
            tracing::info!(?missing, "waiting for peers before the cluster is initialised");
            said = Instant::now();
        }
        tokio::select! {
            () = core.stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
        }
    }
}

/// None: not there yet.
async fn greet<S: StateStore>(core: &NodeCore<S>, member: &InitialMember) -> anyhow::Result<Option<Greeted>> {
    match Connection::dial(
        member.peer_addr.clone(),
        &core.pool,
        member.id,
        Purpose::Bootstrap,
        DIAL_TIMEOUT,
    )
    .await
    {
        Ok(connection) => Ok(Some(connection.greeted.clone())),
        Err(DialError::Handshake {
            error: HandshakeError::Refused {
                known_store: Some(known),
                ..
            },
            ..
        }) => {
            bail!(wiped_message(core.book.id, core.book.store_id, member.id, known))
        }
        Err(error) => {
            tracing::debug!(peer = member.id, %error, "a peer is not there yet");
            Ok(None)
        }
    }
}

/// What an operator reads when a node's directory was emptied or swapped.
pub fn wiped_message(id: u64, own: u128, told_by: u64, known: u128) -> String {
    format!(
        "the data directory of node {id} is not the one that the cluster knows: it has store {own:032x}, but node \
         {told_by} knows node {id} with store {known:032x}. The directory was emptied or swapped. A node whose disk is \
         gone must not come back under its old id: it has forgotten votes and entries that it acknowledged. Put the old \
         directory back, or replace the node: quorate node replace, with a new id and an empty directory"
    )
}

async fn initialise<S: StateStore>(
    core: &NodeCore<S>,
    initial: &[InitialMember],
    stores: &BTreeMap<u64, u128>,
) -> anyhow::Result<()> {
    let members: BTreeMap<u64, Member> = initial
        .iter()
        .map(|member| {
            let store_id = stores[&member.id];
            let InitialMember {
                id,
                peer_addr,
                client_url,
            } = member.clone();
            (
                id,
                Member {
                    peer_addr,
                    client_url,
                    store_id,
                    replaces: None,
                },
            )
        })
        .collect();
    core.raft
        .initialize(members)
        .await
        .context("failed to initialise the cluster")?;
    tracing::info!(members = ?stores.keys().collect::<Vec<_>>(), "initialised the cluster");
    Ok(())
}

/// The cluster's id is made of the store ids of its first members, which are random: every node
/// derives the same one from the first entry of the log.
pub fn cluster_id_of(membership: &StoredMembership) -> Option<String> {
    let is_first = membership.log_id().is_some_and(|log_id| log_id.index == 0);
    is_first.then(|| cluster_id_from(membership.membership()))
}

fn cluster_id_from(membership: &Membership) -> String {
    let mut bytes = Vec::new();
    for (id, member) in membership.nodes() {
        bytes.extend(id.to_be_bytes());
        bytes.extend(member.store_id.to_be_bytes());
    }
    format!("{:032x}", xxh3_128(&bytes))
}
