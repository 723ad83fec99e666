//! Changes of the membership, as an operator makes them: add, remove, replace, hand over; and the
//! questions that show what came of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Cluster, Node};
use crate::http::{Answer, Call, NoAnswer};
use crate::wait::eventually;

/// From the start of a new node until it votes; it may have everything to receive.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(40);
/// From the end of its membership until a node's process has noticed and ended.
const REMOVED_TIMEOUT: Duration = Duration::from_secs(20);
/// A change of the membership is at most as long under way as the contract lets a caller wait.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// A node that is to be added.
#[derive(Debug, Clone)]
pub struct Newcomer {
    id: u64,
    place: Place,
    args: Vec<String>,
}

/// Which addresses a newcomer has.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Those of its own number.
    Own,
    /// Those that this node had.
    Of(u64),
    /// These, which nobody has.
    Free(u64),
}

impl Newcomer {
    pub fn id(&self) -> u64 {
        self.id
    }

    /// On addresses of its own.
    pub fn new(id: u64) -> Self {
        Self {
            id,
            place: Place::Own,
            args: Vec::new(),
        }
    }

    /// On the addresses that `other` had, which must be gone.
    pub fn at_addresses_of(mut self, other: u64) -> Self {
        self.place = Place::Of(other);
        self
    }

    /// Further arguments for its `quorate serve`.
    pub fn serve_args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
}

impl Cluster {
    /// Starts a new node with `--join` and waits until it votes and is ready.
    pub async fn add(&self, id: u64) -> Result<()> {
        self.start_new(&Newcomer::new(id)).await?;
        self.wait_voter(id).await?;
        self.wait_ready(&[id]).await
    }

    /// Starts a new node, which joins the cluster; does not wait for it.
    pub async fn start_new(&self, newcomer: &Newcomer) -> Result<()> {
        self.prepare_new(newcomer).await?;
        self.restart(newcomer.id)
    }

    /// Makes ready to start a new node, which [`Cluster::restart`] then does: the links to it are there,
    /// and can be cut before it begins.
    pub async fn prepare_new(&self, newcomer: &Newcomer) -> Result<()> {
        let via = self.leader().await?;
        self.prepare_joining(newcomer, self.node(via).url()).await
    }

    /// The same, with the client URLs of the nodes that it is to ask.
    async fn prepare_joining(&self, newcomer: &Newcomer, urls: String) -> Result<()> {
        let slot = self.slot_of(newcomer);
        let mut args = vec!["--join".to_owned(), urls];
        self.link(newcomer.id, slot).await?;
        args.extend(["--advertise-peer-addr".to_owned(), self.peer_address(slot).to_string()]);
        args.extend(newcomer.args.iter().cloned());
        self.make_node(newcomer.id, slot, &args)
    }

    fn slot_of(&self, newcomer: &Newcomer) -> u64 {
        match newcomer.place {
            Place::Own => newcomer.id,
            Place::Of(other) => self.known(other).slot,
            Place::Free(slot) => slot,
        }
    }

    /// Prepares a node with a number and addresses that none has now, which [`Cluster::restart`] then starts.
    /// Needs no node to answer.
    pub(crate) async fn prepare_another(&self) -> Result<Newcomer> {
        let (id, slot) = {
            let nodes = self.read_nodes();
            let gone = self.gone.lock().expect("no holder of this lock panics");
            let ids = nodes.keys().copied().chain(gone.iter().map(|(id, _)| *id));
            let taken = nodes.values().map(|node| node.slot).collect();
            let slot = self.block.free_slot(&taken).context("no free addresses")?;
            (ids.max().unwrap_or_default() + 1, slot)
        };
        let newcomer = Newcomer {
            place: Place::Free(slot),
            ..Newcomer::new(id)
        };
        self.prepare_joining(&newcomer, self.endpoints()).await?;
        Ok(newcomer)
    }

    /// The body of a request to add this node.
    pub fn registration(&self, newcomer: &Newcomer, replaces: Option<u64>) -> Value {
        let slot = self.slot_of(newcomer);
        let peer = self.peer_address(slot);
        let client = self.block.client(slot);
        let mut body = json!({
            "id": newcomer.id,
            "client_url": format!("http://{client}"),
            "peer_addr": peer.to_string(),
        });
        if let Some(old) = replaces {
            body["replaces"] = json!(old);
        }
        body
    }

    /// Puts a new node in the place of one that is dead: says so to the cluster, starts the new one,
    /// and waits until it votes and the old one is no member.
    pub async fn replace(&self, old: u64, newcomer: &Newcomer) -> Result<()> {
        let via = self.leader_among(&self.others(old)).await?;
        let asked = Call::post("/v1/cluster/nodes", &self.registration(newcomer, Some(old)));
        self.expect(via, asked, 202).await?;
        self.forget(old);
        self.start_new(newcomer).await?;
        self.wait_voter(newcomer.id).await?;
        self.wait_ready(&[newcomer.id]).await?;
        eventually("the old node is no member", JOIN_TIMEOUT, async || {
            let members = self.membership(via).await.map_err(|error| format!("{error:#}"))?;
            match node_of(&members, old) {
                None => Ok(()),
                Some(_) => Err(members.to_string()),
            }
        })
        .await
    }

    /// Waits until a node other than it says that this node votes.
    pub async fn wait_voter(&self, id: u64) -> Result<()> {
        let waited = eventually("the node votes", JOIN_TIMEOUT, async || {
            let mut seen = format!("no node tells of node {id}");
            for other in self.others(id) {
                let Ok(answer) = self.probe(other, "/v1/cluster").await else {
                    continue;
                };
                let members = answer.json().map_err(|error| format!("{error:#}"))?;
                match node_of(&members, id) {
                    Some(node) if node["role"] == "voter" && !is_under_way(&members, id) => return Ok(()),
                    Some(node) => seen = format!("{node}; changes: {}", members["changes"]),
                    None => seen = format!("node {other} tells: {}", members["changes"]),
                }
            }
            Err(seen)
        });
        let node = self.node(id);
        tokio::select! {
            votes = waited => votes.with_context(|| format!("node {id}")),
            ended = node.process().wait_end(JOIN_TIMEOUT * 2) => {
                bail!("node {id} ended ({}); its log: {}", ended?, node.process().log_tail(super::TAIL_BYTES))
            }
        }
    }

    /// `GET /v1/cluster` of this node.
    pub async fn membership(&self, id: u64) -> Result<Value> {
        self.expect(id, Call::get("/v1/cluster"), 200).await?.json()
    }

    /// Waits until every node says that the cluster has this version. A new cluster begins with the oldest
    /// one and rises by itself a moment later, which is a change of the store like any other.
    pub async fn wait_version(&self, version: u64) -> Result<()> {
        eventually("the cluster has the version", CHANGE_TIMEOUT, async || {
            for id in self.ids() {
                let members = self.membership(id).await.map_err(|error| format!("{error:#}"))?;
                if members["version"] != version {
                    return Err(format!("node {id} says {}", members["version"]));
                }
            }
            Ok(())
        })
        .await
    }

    /// Asks the cluster to remove the node. Answers with the last answer: the caller judges it.
    pub async fn ask_remove(&self, via: u64, id: u64) -> Result<Answer, NoAnswer> {
        let call = Call::new(Method::DELETE, format!("/v1/cluster/nodes/{id}")).timeout(CHANGE_TIMEOUT);
        self.send(via, call).await
    }

    /// Removes a node and waits until its process has ended by itself and said why. Asks another
    /// node, and asks again where the answer is that nobody leads now, that the change before it is not over,
    /// or that the outcome is unknown.
    pub async fn remove(&self, id: u64) -> Result<()> {
        let others = self.others(id);
        let mut turn = 0;
        let answer = eventually("the node is removed", CHANGE_TIMEOUT, async || {
            turn += 1;
            match self.ask_remove(others[turn % others.len()], id).await {
                Ok(answer) if matches!(answer.status, 503 | 504) => Err(answer.to_string()),
                // The change before it ends a moment after its effect is seen.
                Ok(answer) if answer.to_string().contains("under way") => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
                Ok(answer) => Ok(answer),
            }
        });
        let answer = answer.await?;
        // Asked again after an unknown outcome, it may be gone.
        ensure!(
            answer.status == 204 || (turn > 1 && answer.status == 404),
            "node {id} is not removed: {answer}"
        );
        let node = self.node(id);
        if node.process().runs() {
            let ended = node.process().wait_end(REMOVED_TIMEOUT).await;
            ended.with_context(|| format!("node {id} was removed"))?;
            let log = node.process().log_tail(super::TAIL_BYTES);
            ensure!(
                log.contains("removed"),
                "node {id} does not say that it was removed: {log}"
            );
        }
        self.forget(id);
        Ok(())
    }

    /// From now on the node is no part of the cluster for the test. It is killed if it runs.
    pub fn forget(&self, id: u64) {
        let node = self
            .write_nodes()
            .remove(&id)
            .expect("the test names a node of the cluster");
        // It may have ended already.
        let _ = node.process().signal(nix::sys::signal::Signal::SIGKILL);
        self.gone
            .lock()
            .expect("no holder of this lock panics")
            .push((id, node));
    }

    /// Hands leadership over, to this node or to anyone, and answers with the new leader.
    pub async fn transfer(&self, via: u64, to: Option<u64>) -> Result<u64> {
        let body = to.map_or(json!({}), |to| json!({ "to": to }));
        let answer = self.expect(via, Call::post("/v1/cluster/transfer", &body), 200).await?;
        let leader = answer.json()?["leader"].as_u64();
        leader.with_context(|| format!("no leader: {answer}"))
    }

    /// Has the node take a snapshot and purge the log that it covers; does not wait for it.
    pub async fn take_snapshot(&self, id: u64) -> Result<()> {
        self.expect(id, Call::post("/v1/cluster/snapshot", &json!({})), 202)
            .await?;
        Ok(())
    }

    /// `GET /v1/cluster/verify`, which has every node hash its state after one entry.
    pub async fn compare(&self, via: u64) -> Result<Value> {
        let call = Call::get("/v1/cluster/verify").timeout(CHANGE_TIMEOUT);
        self.expect(via, call, 200).await?.json()
    }

    /// Has every node hash its state after one entry, and insists that all of them are equal.
    pub async fn verify(&self) -> Result<()> {
        let ids = self.ids();
        let via = *ids.first().context("a cluster has nodes")?;
        let verified = self.compare(via).await?;
        let nodes = verified["nodes"].as_array().context("no nodes")?;
        let mut hashes = nodes.iter().map(|node| (node["id"].as_u64(), node["hash"].as_str()));
        let first = nodes.first().and_then(|node| node["hash"].as_str());
        let whole = first.is_some() && hashes.clone().all(|(_, hash)| hash == first);
        let same_nodes =
            hashes.clone().count() == ids.len() && hashes.all(|(id, _)| id.is_some_and(|id| ids.contains(&id)));
        ensure!(
            whole && same_nodes && verified["agree"] == true,
            "the states of the nodes {ids:?} are not equal: {verified}"
        );
        Ok(())
    }

    /// A node that is no part of the cluster any more, with its directory and its flags.
    pub fn gone(&self, id: u64) -> Arc<Node> {
        let gone = self.gone.lock().expect("no holder of this lock panics");
        let node = gone.iter().find(|(old, _)| *old == id).map(|(_, node)| node.clone());
        node.unwrap_or_else(|| panic!("the test names node {id}, which is not gone"))
    }
}

/// Whether the node is on its way into the cluster: it votes already while its last step is committed.
pub(crate) fn is_under_way(members: &Value, id: u64) -> bool {
    let changes = members["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut of_node = changes.iter().filter(|change| change["node"] == id);
    of_node.any(|change| !matches!(change["step"].as_str(), Some("done" | "failed")))
}

/// The node with this id in an answer of `/v1/cluster`.
pub fn node_of(members: &Value, id: u64) -> Option<&Value> {
    members["nodes"].as_array()?.iter().find(|node| node["id"] == id)
}
