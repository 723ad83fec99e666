//! Changes of the cluster on their way to the leader, and what it answers.

use bincode::{Decode, Encode};
use quorate_api::replica::{self, AdminError, ReplicaError};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AdminRequest {
    AddNode {
        id: u64,
        client_url: String,
        peer_addr: String,
        replaces: Option<u64>,
    },
    RemoveNode {
        id: u64,
    },
    Transfer {
        to: Option<u64>,
    },
    Verify,
    /// A member says that it is reached elsewhere now.
    Moved {
        id: u64,
        store_id: u128,
        client_url: String,
        peer_addr: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AdminReply {
    Begun(Change),
    Done,
    Transferred(u64),
    Verified(Verification),
}

/// Why not. All but `Unknown` mean that nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AdminRefusal {
    NotLeader,
    NotFound(String),
    AlreadyExists(String),
    Conflict(String),
    Invalid(String),
    NotReady(String),
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    pub kind: ChangeKind,
    pub node: u64,
    pub replaces: Option<u64>,
    pub step: ChangeStep,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ChangeKind {
    Add,
    Replace,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ChangeStep {
    Contacting,
    CatchingUp,
    Promoting,
    Done,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Verification {
    pub index: u64,
    pub revision: u64,
    pub nodes: Vec<NodeHash>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeHash {
    pub id: u64,
    pub hash: Result<u128, String>,
    pub differs: bool,
}

impl AdminRefusal {
    /// None: ask whoever leads now.
    pub fn into_api(self) -> Option<AdminError> {
        Some(match self {
            Self::NotLeader => return None,
            Self::NotFound(reason) => AdminError::NotFound(reason),
            Self::AlreadyExists(reason) => AdminError::AlreadyExists(reason),
            Self::Conflict(reason) => AdminError::Conflict(reason),
            Self::Invalid(reason) => AdminError::Invalid(reason),
            Self::NotReady(reason) => ReplicaError::NotReady(reason).into(),
            Self::Unknown(reason) => ReplicaError::CommitUnknown(reason).into(),
        })
    }
}

impl Change {
    pub fn into_api(self) -> replica::Change {
        replica::Change {
            kind: match self.kind {
                ChangeKind::Add => replica::ChangeKind::Add,
                ChangeKind::Replace => replica::ChangeKind::Replace,
                ChangeKind::Remove => replica::ChangeKind::Remove,
            },
            node: self.node,
            replaces: self.replaces,
            step: match self.step {
                ChangeStep::Contacting => replica::ChangeStep::Contacting,
                ChangeStep::CatchingUp => replica::ChangeStep::CatchingUp,
                ChangeStep::Promoting => replica::ChangeStep::Promoting,
                ChangeStep::Done => replica::ChangeStep::Done,
                ChangeStep::Failed => replica::ChangeStep::Failed,
            },
            detail: self.detail,
        }
    }
}

impl Verification {
    pub fn into_api(self) -> replica::Verification {
        let node = |node: NodeHash| replica::NodeHash {
            id: node.id,
            hash: node.hash,
            differs: node.differs,
        };
        replica::Verification {
            index: self.index,
            revision: self.revision,
            nodes: self.nodes.into_iter().map(node).collect(),
        }
    }
}
