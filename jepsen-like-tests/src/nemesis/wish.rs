//! A change of the membership that is made whatever happens meanwhile: leaders fall, answers are lost, nodes
//! are cut off. It looks at what the cluster says of itself, asks for what is missing, and looks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::future::join_all;
use reqwest::Method;
use serde_json::Value;

use super::book::{Change, Claim, Ends};
use super::heal::look_for_end;
use crate::cluster::{Cluster, Newcomer, is_under_way, node_of};
use crate::http::Call;

/// Faults that last some seconds each come and go while it is under way.
const FULFILLED_WITHIN: Duration = Duration::from_secs(150);
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A node that was removed has noticed and ended by then; else it is killed, which changes nothing for others.
const LEFT_WITHIN: Duration = Duration::from_secs(5);

/// Who is to be a member, and who is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    another: bool,
    without: Option<u64>,
}

impl Wish {
    /// A new node takes the place of this one, which must have ended or may be killed.
    pub(super) fn replace(old: u64) -> Self {
        Self {
            another: true,
            without: Some(old),
        }
    }

    pub(super) fn add() -> Self {
        Self {
            another: true,
            without: None,
        }
    }

    pub(super) fn remove(old: u64) -> Self {
        Self {
            another: false,
            without: Some(old),
        }
    }

    /// Sees to it, with the right to change the membership, and answers with the new node. Whoever has claimed
    /// the old one keeps it until then.
    pub(super) async fn fulfil(self, cluster: &Arc<Cluster>, _change: &Change) -> Result<Option<u64>> {
        let mut new = match self.another {
            true => Some(newcomer(cluster).await?),
            false => None,
        };
        let end = Instant::now() + FULFILLED_WITHIN;
        let mut seen = "nobody was asked".to_owned();
        let mut turn = 0;
        loop {
            match self
                .step(cluster, new.as_ref().map(|(new, _)| new), turn, &mut seen)
                .await?
            {
                Step::Done => break,
                Step::Again => {}
                Step::Stranded => {
                    if let Some((stranded, _)) = new.replace(newcomer(cluster).await?) {
                        leave(cluster, stranded.id()).await;
                    }
                }
            }
            turn += 1;
            if Instant::now() > end {
                bail!("{self:?} with {new:?} is not fulfilled within {FULFILLED_WITHIN:?}; at last: {seen}");
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        if let Some(old) = self.without {
            leave(cluster, old).await;
        }
        Ok(new.map(|(newcomer, _)| newcomer.id()))
    }

    /// Looks whether it is fulfilled; if not, asks one node for what is missing and writes down what came of it.
    async fn step(
        self,
        cluster: &Arc<Cluster>,
        new: Option<&Newcomer>,
        turn: usize,
        seen: &mut String,
    ) -> Result<Step> {
        let others = members_to_ask(cluster, new, self.without);
        let told = ask_all(cluster, &others).await;
        let so = |members: &Value| self.is_so(members, new);
        // One alone may know of a change that is not committed, and will not be.
        if is_majority(told.iter().filter(|(_, members)| so(members)).count(), &others) {
            let read = Call::get("/v1/rooms?limit=1");
            let committed = cluster.try_send(told[turn % told.len()].0, read, ANSWERED_WITHIN).await;
            let told_again = ask_all(cluster, &others).await;
            let still = is_majority(told_again.iter().filter(|(_, members)| so(members)).count(), &others);
            return Ok(match still && committed.is_some_and(|answer| answer.status == 200) {
                true => Step::Done,
                false => Step::Again,
            });
        }
        // One after the other: some of them may know less, or be cut off.
        let Some((via, members)) = told.get(turn % told.len().max(1)) else {
            *seen = format!("none of the nodes {others:?} answers");
            return Ok(Step::Again);
        };
        let via = *via;
        let entered = new.is_none_or(|new| votes(members, new.id()));
        let busy = members["changes"].as_array().is_some_and(|changes| {
            let mut steps = changes.iter().filter_map(|change| change["step"].as_str());
            steps.any(|step| !matches!(step, "done" | "failed"))
        });
        if new.is_some_and(|new| is_stranded(members, new.id())) {
            return Ok(Step::Stranded);
        }
        if let Some(new) = new
            && !cluster.node(new.id()).process().runs()
            && (busy || node_of(members, new.id()).is_some())
        {
            // From now on the cluster expects it, in the place that it was asked to give it. It should not have
            // ended since it was started.
            look_for_end(cluster, new.id());
            cluster.restart(new.id())?;
        }
        if busy {
            *seen = format!("under way: {}", members["changes"]);
            return Ok(Step::Again);
        }
        let call = match (new, self.without) {
            (Some(new), old) if !entered => {
                let old = old.filter(|old| node_of(members, *old).is_some());
                Call::post("/v1/cluster/nodes", &cluster.registration(new, old))
            }
            (_, Some(old)) => Call::new(Method::DELETE, format!("/v1/cluster/nodes/{old}")),
            (_, None) => return Ok(Step::Again),
        };
        *seen = match cluster.try_send(via, call, ANSWERED_WITHIN).await {
            Some(answer) => format!("node {via} answers {answer}"),
            None => format!("node {via} does not answer the request for a change"),
        };
        Ok(Step::Again)
    }

    /// Whether it is fulfilled, as this answer to `/v1/cluster` tells.
    fn is_so(self, members: &Value, new: Option<&Newcomer>) -> bool {
        let entered = new.is_none_or(|new| votes(members, new.id()));
        let left = self.without.is_none_or(|old| node_of(members, old).is_none());
        entered && left
    }
}

/// What one look has shown.
enum Step {
    Done,
    Again,
    /// The newcomer cannot become a member any more.
    Stranded,
}

/// A node that is to come, which nobody else starts or kills.
async fn newcomer(cluster: &Arc<Cluster>) -> Result<(Newcomer, Option<Claim>)> {
    let newcomer = cluster.prepare_another().await?;
    let claim = cluster.book.claim(&[newcomer.id()], Ends::AreDefects);
    Ok((newcomer, claim))
}

/// The leader that was about to take it in has fallen before that was committed, and the node was started anew since:
/// what it was sent is in its directory, and of which cluster that is it does not know any more.
fn is_stranded(members: &Value, new: u64) -> bool {
    let changes = members["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = changes.iter().any(|change| {
        let why = change["detail"].as_str().unwrap_or_default();
        change["node"] == new && change["step"] == "failed" && why.contains("is not empty")
    });
    refused && node_of(members, new).is_none()
}

/// What those of them tell that answer.
async fn ask_all(cluster: &Cluster, ids: &[u64]) -> Vec<(u64, Value)> {
    let asked: Vec<_> = ids
        .iter()
        .map(|id| cluster.try_send(*id, Call::get("/v1/cluster"), ANSWERED_WITHIN))
        .collect();
    let answers = join_all(asked).await;
    let told = ids.iter().zip(answers).filter_map(|(id, answer)| {
        let answer = answer.filter(|answer| answer.status == 200)?;
        Some((*id, answer.json().ok()?))
    });
    told.collect()
}

fn is_majority(count: usize, ids: &[u64]) -> bool {
    count * 2 > ids.len()
}

/// Nodes that may know: not the one that comes, nor the one that goes.
fn members_to_ask(cluster: &Cluster, new: Option<&Newcomer>, old: Option<u64>) -> Vec<u64> {
    let mut ids = cluster.ids();
    ids.retain(|id| Some(*id) != old && new.is_none_or(|new| new.id() != *id));
    ids
}

fn votes(members: &Value, id: u64) -> bool {
    node_of(members, id).is_some_and(|node| node["role"] == "voter") && !is_under_way(members, id)
}

/// The node is no member any more: its process ends, by itself if it hears of it, and its disk is given back.
async fn leave(cluster: &Cluster, old: u64) {
    let node = cluster.node(old);
    if node.process().runs() {
        // A damaged one may be in any state.
        let _ = node.process().wait_end(LEFT_WITHIN).await;
    }
    if node.process().runs() {
        let _ = cluster.end(&[old]).await;
    }
    cluster.forget(old);
    cluster.discard_disk(old);
}
