//! Who the peers are. Identity is the cluster id, the node id and the store id; an address is only
//! where a node was last said to be.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use crate::config::InitialMember;
use crate::types::{Member, Membership};

#[derive(Debug)]
pub struct PeerBook {
    pub id: u64,
    pub store_id: u128,
    /// Held for look-ups only, never across an await.
    known: RwLock<Known>,
    /// Counts what was learned about who may be a peer, so that open connections are checked again.
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    cluster_id: Option<String>,
    /// From this node's own flags, or from the cluster that it asked to join. Where the log knows a node,
    /// this is only where else it may be: an operator who moves all nodes at once changes the flags, and
    /// the log cannot say so before a majority has met.
    hints: BTreeMap<u64, InitialMember>,
    members: BTreeMap<u64, Member>,
    /// Nodes that were members once, with their store ids.
    removed: Arc<BTreeMap<u64, u128>>,
    /// Being contacted, to become a learner.
    candidate: Option<InitialMember>,
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
    #[error("node {id} was removed from this cluster")]
    Removed { id: u64 },
}

impl PeerBook {
    pub fn new(id: u64, store_id: u128, hints: &[InitialMember], cluster_id: Option<String>) -> Self {
        Self {
            id,
            store_id,
            known: RwLock::new(Known {
                cluster_id,
                hints: by_id(hints),
                ..Known::default()
            }),
            news: watch::Sender::new(0),
        }
    }

    pub fn cluster_id(&self) -> Option<String> {
        self.read().cluster_id.clone()
    }

    pub fn set_cluster_id(&self, cluster_id: String) {
        self.write().cluster_id = Some(cluster_id);
    }

    /// A node that has missed the first membership learns the cluster's id from a peer that knows this
    /// very store.
    pub fn adopt_cluster_id(&self, cluster_id: Option<&str>, own_store_there: Option<u128>) {
        if let Some(cluster_id) = cluster_id
            && own_store_there == Some(self.store_id)
        {
            self.write().cluster_id.get_or_insert_with(|| cluster_id.to_owned());
        }
    }

    /// What a node that joins was told by the cluster.
    pub fn set_hints(&self, hints: &[InitialMember]) {
        self.write().hints = by_id(hints);
        self.tell();
    }

    /// Called for each effective membership.
    pub fn set_members(&self, membership: &Membership) {
        self.write().members = membership.nodes().map(|(id, member)| (*id, member.clone())).collect();
        self.tell();
    }

    pub fn set_removed(&self, removed: Arc<BTreeMap<u64, u128>>) {
        self.write().removed = removed;
        self.tell();
    }

    /// The node that the leader tries to contact; none when it has become a learner or was given up.
    pub fn set_candidate(&self, candidate: Option<InitialMember>) {
        self.write().candidate = candidate;
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    /// Changes when somebody who was welcome may not be any more.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Members by id, as the log knows them.
    pub fn members(&self) -> BTreeMap<u64, Member> {
        self.read().members.clone()
    }

    /// A cluster is known: this node was initialised or has heard from one that is.
    pub fn has_members(&self) -> bool {
        !self.read().members.is_empty()
    }

    pub fn was_removed(&self, id: u64) -> bool {
        self.read().removed.contains_key(&id)
    }

    /// Where a node may be, the likeliest first.
    pub fn peer_addrs(&self, id: u64) -> Vec<String> {
        let known = self.read();
        let candidate = known.candidate.as_ref().filter(|candidate| candidate.id == id);
        let addrs = [
            known.members.get(&id).map(|member| &member.peer_addr),
            candidate.map(|candidate| &candidate.peer_addr),
            known.hints.get(&id).map(|hint| &hint.peer_addr),
        ];
        let mut addrs: Vec<String> = addrs.into_iter().flatten().cloned().collect();
        addrs.dedup();
        addrs
    }

    pub fn client_url(&self, id: u64) -> Option<String> {
        let known = self.read();
        let member = known.members.get(&id).map(|member| member.client_url.clone());
        member.or_else(|| known.hints.get(&id).map(|hint| hint.client_url.clone()))
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
        same_cluster && (known.hints.contains_key(&id) || known.members.contains_key(&id))
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
            None if known.members.is_empty() && known.hints.contains_key(&id) => Ok(()),
            // It is asked who it is; what it says decides whether it becomes a learner.
            None if known.candidate.as_ref().is_some_and(|candidate| candidate.id == id) => Ok(()),
            None if known.removed.contains_key(&id) => Err(Stranger::Removed { id }),
            // A node that lags, or that died before it knew of any membership, has not heard of its newest
            // peers yet, and can hear of them only from them: Raft's servers take requests from servers that
            // are not in their configuration (Raft paper, section 6).
            None if known.cluster_id.is_some() && known.cluster_id.as_deref() == cluster_id => Ok(()),
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

fn by_id(hints: &[InitialMember]) -> BTreeMap<u64, InitialMember> {
    hints.iter().map(|hint| (hint.id, hint.clone())).collect()
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
            replaces: None,
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
        assert_eq!(book.check(3, 33, None), Err(Stranger::NotAMember { id: 3 }));
        assert!(matches!(
            book.check(2, 22, Some("d")),
            Err(Stranger::OtherCluster { .. })
        ));
    }

    #[test]
    fn a_peer_of_the_same_cluster_is_let_in_before_the_log_tells_of_it() {
        let book = book();
        know(&book);
        assert_eq!(book.check(9, 99, Some("c")), Ok(()));
    }

    #[test]
    fn the_clusters_id_is_believed_from_one_who_knows_this_store() {
        let book = PeerBook::new(1, 11, &[], None);
        book.adopt_cluster_id(Some("x"), Some(12));
        book.adopt_cluster_id(Some("x"), None);
        book.adopt_cluster_id(None, Some(11));
        assert_eq!(book.cluster_id(), None);
        book.adopt_cluster_id(Some("c"), Some(11));
        book.adopt_cluster_id(Some("d"), Some(11));
        assert_eq!(book.cluster_id().as_deref(), Some("c"));
    }

    #[test]
    fn a_node_that_was_removed_is_told_so() {
        let book = book();
        know(&book);
        book.set_removed(Arc::new([(3, 33)].into()));
        assert_eq!(book.check(3, 33, Some("c")), Err(Stranger::Removed { id: 3 }));
        assert!(book.was_removed(3) && !book.was_removed(2));
    }

    #[test]
    fn a_node_that_is_to_be_added_may_be_asked_who_it_is() {
        let book = book();
        know(&book);
        let candidate = InitialMember {
            id: 5,
            peer_addr: "p5".into(),
            client_url: "u5".into(),
        };
        book.set_candidate(Some(candidate));
        assert_eq!(book.check(5, 55, None), Ok(()));
        assert_eq!(book.peer_addrs(5), ["p5"]);
        book.set_candidate(None);
        assert_eq!(book.check(5, 55, None), Err(Stranger::NotAMember { id: 5 }));
    }

    #[test]
    fn the_log_wins_over_the_flags_which_are_tried_next() {
        let book = book();
        know(&book);
        assert_eq!(book.peer_addrs(2), ["old", "p2"]);
        assert_eq!(book.client_url(2).unwrap(), "old");
        assert_eq!(book.peer_addrs(4), ["old"]);
        assert_eq!(book.peer_addrs(3), ["p3"]);
        assert!(book.peer_addrs(5).is_empty());
    }
}
