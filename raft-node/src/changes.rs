//! Changes of the membership: one at a time, decided by the leader, refused when they would cost the
//! cluster its quorum.
//!
//! A node that is added goes through three steps: the leader contacts it (who is it, is its store empty?),
//! makes it a learner, and, when it has caught up, a voter; one that replaces another takes its place in
//! the same joint change (Raft paper, section 6). From the second step on all of it is in the log, so that
//! a new leader goes on where the old one stopped: every learner is on its way to become a voter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use quorate_state_machine::version::REPLACES;
use quorate_storage::state::StateStore;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::config::InitialMember;
use crate::node::NodeCore;
use crate::peers::Purpose;
use crate::peers::admin::{AdminRefusal, AdminReply, Change, ChangeKind, ChangeStep};
use crate::peers::connection::Connection;
use crate::peers::frame::{Reply, Request};
use crate::peers::pool::DIAL_TIMEOUT;
use crate::quorum::has_quorum;
use crate::types::{Member, StoredMembership, TypeConfig};

/// How often the leader looks whether the next step of a change can be taken.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A node that was announced and does not appear is given up after this: whoever announced it has
/// gone, or has made a mistake in its address.
const CONTACT_WITHIN: Duration = Duration::from_secs(600);
/// A change of the log that is not committed by then is looked at again; it may still be.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A learner that lacks no more entries than this has caught up: what is left takes it a moment.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// Changes that have ended and are still shown.
const SHOWN_MAX: usize = 16;
/// Members at once. Every write waits for a majority of the voters, and each node holds connections to
/// all others; 3 and 5 are usual.
const MEMBERS_MAX: usize = 9;

#[derive(Default)]
pub struct Changes {
    /// Held by whoever changes the membership, over the whole change.
    turn: tokio::sync::Mutex<()>,
    /// Held for a look only, never across an await.
    shown: Mutex<Shown>,
    wake: Notify,
}

#[derive(Default)]
struct Shown {
    pending: Option<Pending>,
    removing: Option<u64>,
    /// Bounded by `SHOWN_MAX`, oldest first.
    ended: VecDeque<Change>,
}

/// A node that is not in the log yet.
#[derive(Clone)]
struct Pending {
    node: InitialMember,
    replaces: Option<u64>,
    since: Instant,
    detail: String,
}

impl Pending {
    fn change(&self, step: ChangeStep, detail: String) -> Change {
        change(self.node.id, self.replaces, step, detail)
    }
}

fn change(node: u64, replaces: Option<u64>, step: ChangeStep, detail: String) -> Change {
    let kind = if replaces.is_some() {
        ChangeKind::Replace
    } else {
        ChangeKind::Add
    };
    Change {
        kind,
        node,
        replaces,
        step,
        detail,
    }
}

fn removal(node: u64, step: ChangeStep, detail: &str) -> Change {
    Change {
        kind: ChangeKind::Remove,
        node,
        replaces: None,
        step,
        detail: detail.to_owned(),
    }
}

impl Changes {
    /// Nobody changes the membership while this is held. None: somebody does just now.
    pub(crate) fn try_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.turn.try_lock().ok()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("no panic while the lock is held")
    }

    fn end(&self, change: Change) {
        tracing::info!(kind = ?change.kind, node = change.node, step = ?change.step, detail = %change.detail, "a change of the membership ended");
        let mut shown = self.shown();
        shown.ended.push_back(change);
        if shown.ended.len() > SHOWN_MAX {
            shown.ended.pop_front();
        }
    }
}

/// Shows a removal for as long as somebody works at it, even one whose caller goes away.
struct Removing<'a>(&'a Changes);

impl<'a> Removing<'a> {
    fn of(changes: &'a Changes, id: u64) -> Self {
        changes.shown().removing = Some(id);
        Self(changes)
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.0.shown().removing = None;
    }
}

/// Voters and learners, as decisions need them.
struct Standing {
    voters: BTreeSet<u64>,
    nodes: BTreeMap<u64, Member>,
}

impl Standing {
    fn of(membership: &StoredMembership) -> Self {
        Self {
            voters: membership.voter_ids().collect(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }

    fn learner(&self) -> Option<(u64, &Member)> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|(id, _)| !self.voters.contains(id))
            .map(|(id, member)| (*id, member))
    }
}

/// While a change of voters is under way, both the old and the new voters decide (Raft paper, section 6).
fn is_joint(membership: &StoredMembership) -> bool {
    membership.membership().get_joint_config().len() > 1
}

/// Refuses a change after which no living majority would be left.
fn check_quorum_with(
    standing: &Standing,
    alive: &BTreeSet<u64>,
    added: Option<u64>,
    removed: Option<u64>,
) -> Result<(), AdminRefusal> {
    let mut after = standing.voters.clone();
    after.extend(added);
    if let Some(removed) = removed {
        after.remove(&removed);
    }
    let alive_after = |id| alive.contains(&id) || Some(id) == added;
    if has_quorum(&after, alive_after) && has_quorum(&standing.voters, |id| alive.contains(&id)) {
        return Ok(());
    }
    let silent: Vec<String> = after
        .iter()
        .filter(|id| !alive_after(**id))
        .map(u64::to_string)
        .collect();
    Err(AdminRefusal::Conflict(format!(
        "it would cost the cluster its quorum: of the voters that it would have, {} cannot be reached ({})",
        silent.len(),
        silent.join(", ")
    )))
}

impl<S: StateStore> NodeCore<S> {
    /// The membership, if nothing about it is under way.
    fn settled(&self) -> Result<Standing, AdminRefusal> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let effective = &metrics.membership_config;
        if effective.log_id() != metrics.committed_membership_config.log_id() || is_joint(effective) {
            return Err(AdminRefusal::Conflict(
                "another change of the membership is under way".to_owned(),
            ));
        }
        Ok(Standing::of(effective))
    }

    /// Who has answered something that the leader sent within this time.
    fn answered_within(&self, time: Duration) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = metrics.heartbeat.iter().flatten().filter(|(_, at)| {
            let at = at.as_ref();
            at.is_some_and(|at| at.elapsed() <= time)
        });
        heard.map(|(id, _)| *id).chain([self.book.id]).collect()
    }

    /// What this node, as the leader, knows of changes.
    pub fn changes_shown(&self) -> Vec<Change> {
        if !self.leads() {
            return Vec::new();
        }
        let metrics = self.raft.metrics();
        let (membership, replication, last) = {
            let metrics = metrics.borrow_watched();
            (
                metrics.membership_config.clone(),
                metrics.replication.clone().unwrap_or_default(),
                metrics.last_log_index.unwrap_or(0),
            )
        };
        let shown = self.changes.shown();
        let mut changes: Vec<Change> = shown.ended.iter().cloned().collect();
        let standing = Standing::of(&membership);
        for (id, member) in standing.nodes.iter().filter(|(id, _)| !standing.voters.contains(id)) {
            let matched = replication.get(id).copied().flatten().map_or(0, |log_id| log_id.index);
            let behind = format!("{} entries behind", last.saturating_sub(matched));
            changes.push(change(*id, member.replaces, ChangeStep::CatchingUp, behind));
        }
        if is_joint(&membership) {
            let configs = membership.membership().get_joint_config();
            let after = configs.last().cloned().unwrap_or_default();
            let before = configs.first().cloned().unwrap_or_default();
            let detail = || "the change of voters is being committed".to_owned();
            for id in after.difference(&before) {
                let replaces = standing.nodes.get(id).and_then(|member| member.replaces);
                changes.push(change(*id, replaces, ChangeStep::Promoting, detail()));
            }
        }
        if let Some(id) = shown.removing {
            changes.push(removal(id, ChangeStep::Promoting, "the removal is being committed"));
        }
        if let Some(pending) = &shown.pending {
            changes.push(pending.change(ChangeStep::Contacting, pending.detail.clone()));
        }
        changes
    }

    /// Waits until this node, as the leader, knows everything that was decided before.
    async fn know_all(&self) -> Result<(), AdminRefusal> {
        if !self.leads() {
            return Err(AdminRefusal::NotLeader);
        }
        let known = async {
            let log_id = self.local_read_index().await?;
            let mut applied = self.applied.clone();
            let reached = applied.wait_for(|now| now.index() >= log_id.index).await;
            reached.map(|_| ()).map_err(|error| error.to_string())
        };
        match timeout(COMMIT_TIMEOUT, known).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(AdminRefusal::NotReady(reason)),
            Err(_) => Err(AdminRefusal::NotReady("no majority confirmed the leader".to_owned())),
        }
    }

    pub(crate) async fn add_node_here(
        &self,
        node: InitialMember,
        replaces: Option<u64>,
    ) -> Result<AdminReply, AdminRefusal> {
        self.know_all().await?;
        let begun = |change| Ok(AdminReply::Begun(change));
        let id = node.id;
        let _turn = self.changes.turn.lock().await;
        let pending = self.changes.shown().pending.clone();
        if let Some(mut pending) = pending {
            // A node that joins asks by itself, and may come before the operator who says what for.
            if pending.node == node && pending.replaces.is_none() && replaces.is_some() {
                let standing = self.settled()?;
                self.check_replaced(&standing, id, replaces).await?;
                pending.replaces = replaces;
                self.changes.shown().pending = Some(pending.clone());
            }
            return if pending.node == node && (replaces.is_none() || pending.replaces == replaces) {
                begun(pending.change(ChangeStep::Contacting, pending.detail.clone()))
            } else {
                Err(AdminRefusal::Conflict(format!(
                    "node {} is being added: one change at a time",
                    pending.node.id
                )))
            };
        }
        if self.book.was_removed(id) {
            return Err(AdminRefusal::Invalid(format!(
                "node {id} was removed from this cluster, and an id is never used again: take a new one"
            )));
        }
        let standing = self.settled()?;
        let known = standing.nodes.get(&id);
        if let Some(known) = known {
            if (&known.client_url, &known.peer_addr) != (&node.client_url, &node.peer_addr) {
                return Err(AdminRefusal::AlreadyExists(format!(
                    "node {id} is a member at {} and {}",
                    known.client_url, known.peer_addr
                )));
            }
            if !standing.voters.contains(&id) {
                return if replaces.is_none() || known.replaces == replaces {
                    begun(change(id, known.replaces, ChangeStep::CatchingUp, String::new()))
                } else if known.replaces.is_none() {
                    self.check_replaced(&standing, id, replaces).await?;
                    let told = Member {
                        replaces,
                        ..known.clone()
                    };
                    self.commit_change(ChangeMembers::SetNodes([(id, told)].into())).await?;
                    begun(change(id, replaces, ChangeStep::CatchingUp, String::new()))
                } else {
                    Err(AdminRefusal::Conflict(format!("node {id} is being added already")))
                };
            }
            if replaces.is_none_or(|old| !standing.nodes.contains_key(&old)) {
                return begun(change(id, replaces, ChangeStep::Done, "it is a voter".to_owned()));
            }
        }
        if let (Some(old), Some(_)) = (replaces, known) {
            // It is a voter already: what is left is the removal.
            drop(_turn);
            self.remove_node_here(old).await?;
            return begun(change(
                id,
                replaces,
                ChangeStep::Done,
                format!("node {old} was removed"),
            ));
        }
        for (other, member) in &standing.nodes {
            let same = member.client_url == node.client_url || member.peer_addr == node.peer_addr;
            if same && Some(*other) != replaces {
                return Err(AdminRefusal::AlreadyExists(format!(
                    "node {other} is a member at {} and {}",
                    member.client_url, member.peer_addr
                )));
            }
        }
        if let Some((other, _)) = standing.learner() {
            return Err(AdminRefusal::Conflict(format!(
                "node {other} is being added: one change at a time"
            )));
        }
        if standing.nodes.len() >= MEMBERS_MAX + usize::from(replaces.is_some()) {
            return Err(AdminRefusal::Conflict(format!(
                "the cluster has {} nodes; it takes {MEMBERS_MAX} at most",
                standing.nodes.len()
            )));
        }
        self.check_replaced(&standing, id, replaces).await?;
        self.check_quorum_in_time(&standing, Some(id), replaces).await?;
        let pending = Pending {
            node,
            replaces,
            since: Instant::now(),
            detail: "it has not been reached yet".to_owned(),
        };
        self.book.set_candidate(Some(pending.node.clone()));
        let begun_change = pending.change(ChangeStep::Contacting, pending.detail.clone());
        tracing::info!(node = id, ?replaces, "a node is to be added");
        self.changes.shown().pending = Some(pending);
        self.changes.wake.notify_one();
        begun(begun_change)
    }

    /// Whether `id` may take the place of that node in one change.
    async fn check_replaced(&self, standing: &Standing, id: u64, replaces: Option<u64>) -> Result<(), AdminRefusal> {
        let Some(old) = replaces else { return Ok(()) };
        if old == id || !standing.voters.contains(&old) {
            return Err(AdminRefusal::Invalid(format!(
                "node {old}, which it is to replace, is no other voter of this cluster"
            )));
        }
        let allowed = self.need_version(REPLACES, "replacing a node in one change").await;
        allowed.map_err(AdminRefusal::Conflict)
    }

    /// [`check_quorum_with`] with patience. Only answers to what was sent after the question count: a
    /// node that died a moment ago must not pass for alive, nor one that a new leader has not asked yet for dead.
    async fn check_quorum_in_time(
        &self,
        standing: &Standing,
        added: Option<u64>,
        removed: Option<u64>,
    ) -> Result<(), AdminRefusal> {
        let began = Instant::now();
        loop {
            let alive = self.answered_within(began.elapsed());
            let checked = check_quorum_with(standing, &alive, added, removed);
            if checked.is_ok() || began.elapsed() >= self.contact.lease() {
                return checked;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn remove_node_here(&self, id: u64) -> Result<AdminReply, AdminRefusal> {
        self.know_all().await?;
        // Not while the node is being made a learner: then it is no longer to be called off.
        let _turn = self.changes.turn.lock().await;
        let pending = {
            let mut shown = self.changes.shown();
            let is_pending = shown.pending.as_ref().is_some_and(|pending| pending.node.id == id);
            if is_pending { shown.pending.take() } else { None }
        };
        if let Some(pending) = pending {
            self.book.set_candidate(None);
            self.changes
                .end(pending.change(ChangeStep::Failed, "it was called off".to_owned()));
            return Ok(AdminReply::Done);
        }
        let standing = self.settled()?;
        if !standing.nodes.contains_key(&id) {
            return Err(AdminRefusal::NotFound(format!(
                "node {id} is not a member of this cluster"
            )));
        }
        let is_voter = standing.voters.contains(&id);
        if is_voter {
            if standing.voters.len() == 1 {
                return Err(AdminRefusal::Conflict("it is the only voter".to_owned()));
            }
            if let Some((other, _)) = standing.learner() {
                return Err(AdminRefusal::Conflict(format!(
                    "node {other} is being added: one change at a time"
                )));
            }
            self.check_quorum_in_time(&standing, None, Some(id)).await?;
        }
        if id == self.book.id {
            // Whoever leads next removes it, so that no write waits for an election.
            self.transfer_here(None).await?;
            return Err(AdminRefusal::NotLeader);
        }
        let change = match is_voter {
            true => ChangeMembers::RemoveVoters([id].into()),
            false => ChangeMembers::RemoveNodes([id].into()),
        };
        let shown_while = Removing::of(&self.changes, id);
        self.commit_change(change).await?;
        drop(shown_while);
        self.changes.end(removal(id, ChangeStep::Done, "it was removed"));
        Ok(AdminReply::Done)
    }

    /// A member is reached elsewhere now.
    pub(crate) async fn moved_here(
        &self,
        id: u64,
        store_id: u128,
        peer_addr: String,
        client_url: String,
    ) -> Result<AdminReply, AdminRefusal> {
        self.know_all().await?;
        let _turn = self.changes.turn.try_lock().map_err(|_| busy())?;
        let standing = self.settled()?;
        let member = standing.nodes.get(&id).filter(|member| member.store_id == store_id);
        let Some(member) = member else {
            return Err(AdminRefusal::NotFound(format!(
                "node {id} is not a member of this cluster"
            )));
        };
        let moved = Member {
            peer_addr,
            client_url,
            ..member.clone()
        };
        let taken = standing.nodes.iter().find(|(other, member)| {
            **other != id && (member.peer_addr == moved.peer_addr || member.client_url == moved.client_url)
        });
        if let Some((other, _)) = taken {
            return Err(AdminRefusal::AlreadyExists(format!(
                "node {other} is a member at that address"
            )));
        }
        if *member != moved {
            // A slip in a flag must not make a healthy node unreachable.
            if id != self.book.id {
                Connection::dial(
                    moved.peer_addr.clone(),
                    &self.pool,
                    id,
                    Purpose::Bootstrap,
                    DIAL_TIMEOUT,
                )
                .await
                .map_err(|error| AdminRefusal::Invalid(format!("node {id} is not at its new address: {error}")))?;
            }
            tracing::info!(node = id, peer_addr = %moved.peer_addr, client_url = %moved.client_url, "a node has moved");
            self.commit_change(ChangeMembers::SetNodes([(id, moved)].into()))
                .await?;
        }
        Ok(AdminReply::Done)
    }

    async fn commit_change(&self, change: ChangeMembers<u64, Member>) -> Result<(), AdminRefusal> {
        // Removed nodes go altogether.
        let retain = false;
        match timeout(COMMIT_TIMEOUT, self.raft.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(explain(error)),
            Err(_) => Err(AdminRefusal::Unknown(
                "no majority has confirmed it in time; it may still be".to_owned(),
            )),
        }
    }

    /// Takes the next step of a change, if there is one and it can be taken.
    async fn next_step(&self) {
        let Ok(_turn) = self.changes.turn.try_lock() else {
            return;
        };
        let metrics = self.raft.server_metrics();
        let (effective, committed) = {
            let metrics = metrics.borrow_watched();
            (
                metrics.membership_config.clone(),
                *metrics.committed_membership_config.log_id(),
            )
        };
        if *effective.log_id() != committed {
            return;
        }
        if is_joint(&effective) {
            // A leader before this one began the change. The second half of it is decided.
            tracing::info!("finishing a change of voters that an earlier leader began");
            let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
            if let Err(error) = self.commit_change(nothing).await {
                tracing::warn!(?error, "failed to finish a change of voters");
            }
            return;
        }
        let standing = Standing::of(&effective);
        if let Some((id, member)) = standing.learner() {
            self.promote(&standing, id, member.replaces).await;
            return;
        }
        let pending = self.changes.shown().pending.clone();
        if let Some(pending) = pending {
            self.contact_node(pending).await;
        }
    }

    async fn promote(&self, standing: &Standing, id: u64, replaces: Option<u64>) {
        let replaces = replaces.filter(|old| standing.voters.contains(old));
        let caught_up = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.iter().flatten().find(|(of, _)| **of == id);
            let matched = matched.and_then(|(_, matched)| matched.map(|log_id| log_id.index));
            let last = metrics.last_log_index.unwrap_or(0);
            matched.is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last)
        };
        let alive = self.answered_within(self.contact.lease());
        if !caught_up || !alive.contains(&id) {
            return;
        }
        if let Err(error) = check_quorum_with(standing, &alive, Some(id), replaces) {
            tracing::warn!(
                node = id,
                ?error,
                "a learner has caught up and cannot be made a voter now"
            );
            return;
        }
        if replaces == Some(self.book.id) {
            // The next leader makes the change that removes this one.
            if let Err(error) = self.transfer_here(None).await {
                tracing::warn!(
                    ?error,
                    "failed to hand leadership over to the one who is to remove this node"
                );
            }
            return;
        }
        let add = ChangeMembers::AddVoterIds([id].into());
        let change_of_voters = match replaces {
            Some(old) => ChangeMembers::Batch(vec![add, ChangeMembers::RemoveVoters([old].into())]),
            None => add,
        };
        match self.commit_change(change_of_voters).await {
            Ok(()) => self
                .changes
                .end(change(id, replaces, ChangeStep::Done, "it is a voter".to_owned())),
            Err(error) => tracing::warn!(node = id, ?error, "failed to make a learner a voter"),
        }
    }

    async fn contact_node(&self, pending: Pending) {
        let id = pending.node.id;
        let outcome = match self.learn_who_it_is(&pending).await {
            Ok(member) => match timeout(COMMIT_TIMEOUT, self.raft.add_learner(id, member, false)).await {
                Ok(Ok(_)) => {
                    tracing::info!(node = id, "a node was made a learner");
                    None
                }
                Ok(Err(error)) => Some((ChangeStep::Contacting, format!("failed to make it a learner: {error}"))),
                Err(_) => Some((ChangeStep::Contacting, "no majority confirmed it in time".to_owned())),
            },
            Err(Contact::Later(reason)) if pending.since.elapsed() < CONTACT_WITHIN => {
                Some((ChangeStep::Contacting, reason))
            }
            Err(Contact::Later(reason) | Contact::Never(reason)) => Some((ChangeStep::Failed, reason)),
        };
        let mut shown = self.changes.shown();
        // It may have been called off meanwhile.
        if shown.pending.as_ref().is_none_or(|now| now.node != pending.node) {
            return;
        }
        match outcome {
            Some((ChangeStep::Contacting, detail)) => {
                if let Some(now) = &mut shown.pending {
                    now.detail = detail;
                }
            }
            ended => {
                shown.pending = None;
                drop(shown);
                self.book.set_candidate(None);
                if let Some((step, detail)) = ended {
                    self.changes.end(pending.change(step, detail));
                }
            }
        }
    }

    async fn learn_who_it_is(&self, pending: &Pending) -> Result<Member, Contact> {
        let InitialMember {
            id,
            peer_addr,
            client_url,
        } = pending.node.clone();
        let connection = Connection::dial(peer_addr.clone(), &self.pool, id, Purpose::Bootstrap, DIAL_TIMEOUT)
            .await
            .map_err(|error| Contact::Later(error.to_string()))?;
        let greeted = &connection.greeted;
        // One that an earlier leader began to add has entries and a vote. They are of this cluster's log, so to keep
        // them is as right as for any server (and to lose them would not be). It knows its cluster only if a member
        // knew its store; ids that have left are refused before this.
        let is_of_this_cluster = greeted.cluster_id.is_some() && greeted.cluster_id == self.book.cluster_id();
        if !greeted.empty && !is_of_this_cluster {
            return Err(Contact::Never(
                "its directory is not empty: a node is added with a new one".to_owned(),
            ));
        }
        let members = self.book.members();
        if members.values().any(|member| member.store_id == greeted.store_id) {
            return Err(Contact::Never("another member has this store".to_owned()));
        }
        let status = match connection.call(Request::Status, DIAL_TIMEOUT).await {
            Ok(Reply::Status(status)) => status,
            Ok(other) => return Err(Contact::Later(format!("unexpected reply {other:?}"))),
            Err(error) => return Err(Contact::Later(error.to_string())),
        };
        // The version cannot rise meanwhile: the turn is this change's.
        let supported = status.versions.check(self.applied.borrow().version);
        supported.map_err(|unsupported| Contact::Never(unsupported.of_node(id)))?;
        Ok(Member {
            peer_addr,
            client_url,
            store_id: greeted.store_id,
            replaces: pending.replaces,
        })
    }

    fn drop_pending(&self) {
        let pending = self.changes.shown().pending.take();
        if let Some(pending) = pending {
            self.book.set_candidate(None);
            let reason = "this node does not lead any more: ask again".to_owned();
            self.changes.end(pending.change(ChangeStep::Failed, reason));
        }
    }
}

enum Contact {
    Later(String),
    Never(String),
}

fn busy() -> AdminRefusal {
    AdminRefusal::Conflict("another change of the membership is under way".to_owned())
}

fn explain(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> AdminRefusal {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => AdminRefusal::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => busy(),
            other => AdminRefusal::Conflict(other.to_string()),
        },
        other => AdminRefusal::Unknown(other.to_string()),
    }
}

/// Drives changes for as long as this node leads, and says where this node is reached if the log has it
/// elsewhere.
pub async fn keep_membership<S: StateStore>(core: Arc<NodeCore<S>>, own: InitialMember) {
    let mut metrics = core.raft.server_metrics();
    let mut asked_to_move = None::<Instant>;
    loop {
        let (leads, has_work) = {
            let now = metrics.borrow_and_update();
            let membership = &now.membership_config;
            let learners = membership.membership().learner_ids().next().is_some();
            (
                now.current_leader == Some(core.book.id),
                learners || is_joint(membership),
            )
        };
        let has_work = has_work || core.changes.shown().pending.is_some();
        if leads && has_work {
            core.next_step().await;
        }
        if !leads {
            core.drop_pending();
        }
        let moved = core
            .book
            .members()
            .get(&own.id)
            .is_some_and(|member| (&member.peer_addr, &member.client_url) != (&own.peer_addr, &own.client_url));
        if moved && asked_to_move.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            asked_to_move = Some(Instant::now());
            core.tell_where_we_are(&own).await;
        }
        let pause = if (leads && has_work) || moved {
            LOOK_EVERY
        } else {
            Duration::from_secs(5)
        };
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = core.changes.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_must_leave_a_living_majority() {
        let quorum =
            |voters: &[u64], alive: &[u64]| has_quorum(&voters.iter().copied().collect(), |id| alive.contains(&id));
        assert!(quorum(&[1, 2, 3], &[1, 2]));
        assert!(!quorum(&[1, 2, 3], &[1]));
        // From three to two while one of the two is silent.
        assert!(!quorum(&[1, 2], &[1]));
        assert!(quorum(&[1, 2], &[1, 2]));
        // From three to four while one is silent.
        assert!(quorum(&[1, 2, 3, 4], &[1, 2, 4]));
        assert!(!quorum(&[1, 2, 3, 4], &[1, 4]));
    }
}
