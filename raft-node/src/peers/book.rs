//! Who the peers are. Identity is the cluster id, the node id and the store id; an address is only
//! where a node was last said to be.

use std::collections::BTreeMap;
use std::sync::RwLock;

use crate::config::InitialMember;
use crate::types::{Member, Membership};

#[derive(Debug)]
pub struct PeerBook {
    pub id: u64,
    pub store_id: u128,
    /// From this node's own flags. They win over the log: an operator who moves a node changes the
    /// flags, and the log may be unreachable exactly then.
    initial: BTreeMap<u64, InitialMember>,
    /// Held for look-ups only, never across an await.
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    cluster_id: Option<String>,
    members: BTreeMap<u64, Member>,
}

/// Why a node at the other end is not who it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error(
        "node {id} has store {found:032x}, but the cluster knows it with store {known:032x}: its disk was wiped or swapped"
    )]
    OtherStore { id: u64, known: u128, found: u128 },
    #[error("node {id} belongs to cluster {found}, this one to {own}")]
    OtherCluster { id: u64, own: String, found: String },
    #[error("node {id} is not a member of this cluster")]
    NotAMember { id: u64 },
}

impl PeerBook {
    pub fn new(id: u64, store_id: u128, initial: &[InitialMember], cluster_id: Option<String>) -> Self {
        Self {
            id,
            store_id,
            initial: initial.iter().map(|member| (member.id, member.clone())).collect(),
            known: RwLock::new(Known {
                cluster_id,
                members: BTreeMap::new(),
            }),
        }
    }

    pub fn cluster_id(&self) -> Option<String> {
        self.read().cluster_id.clone()
    }

    pub fn set_cluster_id(&self, cluster_id: String) {
        self.write().cluster_id = Some(cluster_id);
    }

    /// Called for each effective membership.
    pub fn set_members(&self, membership: &Membership) {
        self.write().members = membership.nodes().map(|(id, member)| (*id, member.clone())).collect();
    }

    /// Members by id, as the log knows them.
    pub fn members(&self) -> BTreeMap<u64, Member> {
        self.read().members.clone()
    }

    /// A cluster is known: this node was initialised or has heard from one that is.
    pub fn has_members(&self) -> bool {
        !self.read().members.is_empty()
    }

    pub fn peer_addr(&self, id: u64) -> Option<String> {
        let initial = self.initial.get(&id).map(|member| member.peer_addr.clone());
        initial.or_else(|| self.read().members.get(&id).map(|member| member.peer_addr.clone()))
    }

    pub fn client_url(&self, id: u64) -> Option<String> {
        let initial = self.initial.get(&id).map(|member| member.client_url.clone());
        initial.or_else(|| self.read().members.get(&id).map(|member| member.client_url.clone()))
    }

    /// The store that the cluster knows under this id.
    pub fn known_store(&self, id: u64) -> Option<u128> {
        self.read().members.get(&id).map(|member| member.store_id)
    }

    /// Whether a node may be of this cluster, whatever its store: it is listed or a member, and names
    /// no other cluster.
    pub fn may_be_peer(&self, id: u64, cluster_id: Option<&str>) -> bool {
        let known = self.read();
        let same_cluster = match (known.cluster_id.as_deref(), cluster_id) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        same_cluster && (self.initial.contains_key(&id) || known.members.contains_key(&id))
    }

    /// Checks the other end of a connection against what this node knows. Before there is a
    /// membership, the nodes of `--initial-cluster` are let in: the handshake's other side checks
    /// what it knows.
    pub fn check(&self, id: u64, store_id: u128, cluster_id: Option<&str>) -> Result<(), Stranger> {
        let known = self.read();
        if let (Some(own), Some(found)) = (known.cluster_id.as_deref(), cluster_id)
            && own != found
        {
            return Err(Stranger::OtherCluster {
                id,
                own: own.to_owned(),
                found: found.to_owned(),
            });
        }
        match known.members.get(&id) {
            Some(member) if member.store_id == store_id => Ok(()),
            Some(member) => Err(Stranger::OtherStore {
                id,
                known: member.store_id,
                found: store_id,
            }),
            None if known.members.is_empty() && self.initial.contains_key(&id) => Ok(()),
            None => Err(Stranger::NotAMember { id }),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().expect("no panic while the lock is held")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().expect("no panic while the lock is held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> PeerBook {
        let initial: Vec<_> = (1..=3)
            .map(|id| InitialMember {
                id,
                peer_addr: format!("p{id}"),
                client_url: format!("u{id}"),
            })
            .collect();
        PeerBook::new(1, 11, &initial, Some("c".to_owned()))
    }

    fn know(book: &PeerBook) {
        let member = |id: u64| Member {
            peer_addr: "old".into(),
            client_url: "old".into(),
            store_id: u128::from(id) * 11,
        };
        let nodes: BTreeMap<_, _> = [1, 2, 4].map(|id| (id, member(id))).into();
        book.set_members(&Membership::new(vec![[1, 2, 4].into()], nodes).unwrap());
    }

    #[test]
    fn before_a_membership_the_initial_nodes_are_let_in() {
        let book = book();
        assert_eq!(book.check(2, 99, None), Ok(()));
        assert_eq!(book.check(9, 99, None), Err(Stranger::NotAMember { id: 9 }));
    }

    #[test]
    fn a_wiped_disk_a_stranger_and_another_cluster_are_refused() {
        let book = book();
        know(&book);
        assert_eq!(book.check(2, 22, Some("c")), Ok(()));
        assert_eq!(
            book.check(2, 23, Some("c")),
            Err(Stranger::OtherStore {
                id: 2,
                known: 22,
                found: 23
            })
        );
        assert_eq!(book.check(3, 33, Some("c")), Err(Stranger::NotAMember { id: 3 }));
        assert!(matches!(
            book.check(2, 22, Some("d")),
            Err(Stranger::OtherCluster { .. })
        ));
    }

    #[test]
    fn flags_win_over_the_log_for_addresses() {
        let book = book();
        know(&book);
        assert_eq!(book.peer_addr(2).unwrap(), "p2");
        assert_eq!(book.peer_addr(4).unwrap(), "old");
        assert_eq!(book.peer_addr(5), None);
    }
}
