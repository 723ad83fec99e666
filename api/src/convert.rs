//! Entities as the contract's JSON shows them.

use quorate_client::wire;
use quorate_state_machine::{Lock, LockWaiter, Member, Message, MessageRevision, Revision, Role, Room, RoomKind, User};

use crate::replica::{
    Change, ChangeKind, ChangeStep, ClusterNode, ClusterStatus, NewNode, NodeHash, RaftState, Verification,
};
use crate::time::format_ms;

/// Attributes are checked before they are stored; text that is no object is shown as none rather
/// than keeping the whole page from being read.
fn attributes(text: Option<String>) -> Option<wire::Attributes> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

pub(crate) fn user(user: User) -> wire::User {
    wire::User {
        user: user.user,
        id: user.id.0,
        display_name: user.display_name,
        email: user.email,
        attributes: attributes(user.attributes),
        created_at: format_ms(user.created_at_ms),
        rev: user.rev.0,
    }
}

pub(crate) fn room(room: Room) -> wire::Room {
    wire::Room {
        room: room.room,
        id: room.id.0,
        kind: match room.kind {
            RoomKind::Public => wire::RoomKind::Public,
            RoomKind::Group => wire::RoomKind::Group,
            RoomKind::Direct => wire::RoomKind::Direct,
        },
        title: room.title,
        attributes: attributes(room.attributes),
        created_at: format_ms(room.created_at_ms),
        created_by: room.created_by,
        first_seq: room.first_seq.0,
        last_seq: room.last_seq.0,
        member_count: room.member_count,
        rev: room.rev.0,
    }
}

pub(crate) fn room_kind(kind: wire::RoomKind) -> RoomKind {
    match kind {
        wire::RoomKind::Public => RoomKind::Public,
        wire::RoomKind::Group => RoomKind::Group,
        wire::RoomKind::Direct => RoomKind::Direct,
    }
}

pub(crate) fn role(role: Role) -> wire::Role {
    match role {
        Role::Owner => wire::Role::Owner,
        Role::Moderator => wire::Role::Moderator,
        Role::Member => wire::Role::Member,
    }
}

pub(crate) fn role_from(role: wire::Role) -> Role {
    match role {
        wire::Role::Owner => Role::Owner,
        wire::Role::Moderator => Role::Moderator,
        wire::Role::Member => Role::Member,
    }
}

pub(crate) fn member(member: Member) -> wire::Member {
    wire::Member {
        user: member.user,
        role: role(member.role),
        joined_at: format_ms(member.joined_at_ms),
        joined_seq: member.joined_seq.0,
        rev: member.rev.0,
    }
}

/// The same for GET, pages and streams, so that all three show the same bytes.
pub(crate) fn message(message: Message) -> wire::Message {
    wire::Message {
        room: message.room,
        seq: message.seq.0,
        rev: message.rev.0,
        sender: message.sender,
        sent_at: format_ms(message.sent_at_ms),
        kind: message.kind,
        text: message.text,
        client_id: message.client_id,
        reply_to: message.reply_to.map(|seq| seq.0),
        edited_at: message.edited_at_ms.map(format_ms),
        redacted_at: message.redacted_at_ms.map(format_ms),
        attributes: attributes(message.attributes),
    }
}

pub(crate) fn revision(revision: MessageRevision) -> wire::MessageRevision {
    wire::MessageRevision {
        rev: revision.rev.0,
        text: revision.text,
        at: format_ms(revision.at_ms),
    }
}

/// What a stream tells of an edit: its own rev, and the message as it is by now.
pub(crate) fn edited(rev: Revision, message: Message) -> wire::Edited {
    wire::Edited {
        room: message.room,
        seq: message.seq.0,
        rev: rev.0,
        text: message.text,
        edited_at: message.edited_at_ms.map(format_ms),
    }
}

pub(crate) fn redacted(rev: Revision, message: Message) -> wire::Redacted {
    wire::Redacted {
        room: message.room,
        seq: message.seq.0,
        rev: rev.0,
        redacted_at: message.redacted_at_ms.map(format_ms),
    }
}

/// At a time of the replicated clock. That time may be behind what the state has (an answer of another
/// moment) or ahead of it (while there is no leader): no span is negative.
pub(crate) fn lock(lock: Lock, now_ms: u64) -> wire::Lock {
    let holder = lock.holder.map(|holder| wire::LockHolder {
        owner: holder.owner,
        token: holder.token.0,
        expires_in_ms: holder.expires_ms.saturating_sub(now_ms),
        data: holder.data.and_then(|text| serde_json::from_str(&text).ok()),
    });
    let waiter = |waiter: LockWaiter| wire::LockWaiter {
        owner: waiter.owner,
        waiting_ms: now_ms.saturating_sub(waiter.asked_ms),
    };
    wire::Lock {
        lock: lock.lock,
        mode: wire::LockMode::Exclusive,
        holders: holder.into_iter().collect(),
        queue: lock.queue.into_iter().map(waiter).collect(),
        waiters: u64::from(lock.waiters),
        last_token: lock.last_token.0,
        rev: lock.rev.0,
    }
}

pub(crate) fn cluster(cluster: ClusterStatus) -> wire::Cluster {
    wire::Cluster {
        cluster_id: cluster.cluster_id,
        version: cluster.version,
        nodes: cluster.nodes.into_iter().map(cluster_node).collect(),
        leader: cluster.leader,
        term: cluster.term,
        failures_tolerated: cluster.failures_tolerated,
        changes: cluster.changes.into_iter().map(change).collect(),
    }
}

fn cluster_node(node: ClusterNode) -> wire::ClusterNode {
    wire::ClusterNode {
        id: node.id,
        client_url: node.client_url,
        peer_addr: node.peer_addr,
        role: if node.voter { "voter" } else { "learner" }.to_owned(),
        state: raft_state(node.state).to_owned(),
        last_log: node.last_log,
        applied: node.applied,
        lag: node.lag,
    }
}

/// A learner follows; that it does not vote is said by its role.
pub(crate) fn raft_state(state: RaftState) -> &'static str {
    match state {
        RaftState::Leader => "leader",
        RaftState::Follower | RaftState::Learner => "follower",
        RaftState::Candidate => "candidate",
        RaftState::Unreachable => "unreachable",
    }
}

pub(crate) fn new_node(node: wire::NewNode) -> NewNode {
    NewNode {
        id: node.id,
        client_url: node.client_url,
        peer_addr: node.peer_addr,
        replaces: node.replaces,
    }
}

pub(crate) fn change(change: Change) -> wire::Change {
    wire::Change {
        kind: match change.kind {
            ChangeKind::Add => wire::ChangeKind::Add,
            ChangeKind::Replace => wire::ChangeKind::Replace,
            ChangeKind::Remove => wire::ChangeKind::Remove,
        },
        node: change.node,
        replaces: change.replaces,
        step: match change.step {
            ChangeStep::Contacting => wire::ChangeStep::Contacting,
            ChangeStep::CatchingUp => wire::ChangeStep::CatchingUp,
            ChangeStep::Promoting => wire::ChangeStep::Promoting,
            ChangeStep::Done => wire::ChangeStep::Done,
            ChangeStep::Failed => wire::ChangeStep::Failed,
        },
        detail: change.detail,
    }
}

/// A node that gave no hash was not compared, so its cluster does not pass for one that agrees.
pub(crate) fn verification(verification: Verification) -> wire::Verification {
    let Verification { index, revision, nodes } = verification;
    let first = nodes.first().map(|node| &node.hash);
    let agree = first.is_some_and(Result::is_ok) && nodes.iter().all(|node| Some(&node.hash) == first);
    wire::Verification {
        index,
        revision,
        agree,
        nodes: nodes.into_iter().map(node_hash).collect(),
    }
}

fn node_hash(node: NodeHash) -> wire::NodeHash {
    let (hash, error) = match node.hash {
        Ok(hash) => (Some(format!("{hash:032x}")), None),
        Err(error) => (None, Some(error)),
    };
    wire::NodeHash {
        id: node.id,
        hash,
        error,
        differs: node.differs,
    }
}
