//! The stored form of openraft's membership and entries: our own versioned encoding, so that an
//! openraft upgrade is a code change and not a migration.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bincode::{Decode, Encode};
use bytes::Bytes;
use quorate_state_machine::codec::{self, Kind};
use quorate_storage::log;

use crate::types::{
    Entry, EntryPayload, Member, Membership, Payload, StoredMembership, to_raft_log_id, to_stored_log_id,
};

/// Knows neither `replaces` nor removed nodes. What needs neither is still written like this, so that builds
/// which know no more can read what a cluster of an old version has.
const VERSION_1: u8 = 1;
/// Knows both. `replaces` is in no entry before the cluster's version permits it.
const VERSION_2: u8 = 2;

#[derive(Debug, Encode, Decode)]
struct MemberV1 {
    peer_addr: String,
    client_url: String,
    store_id: u128,
}

#[derive(Debug, Encode, Decode)]
struct MembershipV1 {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, MemberV1>,
}

#[derive(Debug, Encode, Decode)]
struct RecordV1 {
    log_id: Option<log::LogId>,
    membership: MembershipV1,
}

#[derive(Debug, Encode, Decode)]
struct MembershipV2 {
    /// More than one while a change is under way (joint consensus, Raft paper section 6).
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Member>,
}

#[derive(Debug, Encode, Decode)]
struct RecordV2 {
    log_id: Option<log::LogId>,
    membership: MembershipV2,
    removed: BTreeMap<u64, u128>,
}

impl From<MembershipV1> for MembershipV2 {
    fn from(old: MembershipV1) -> Self {
        let member = |old: MemberV1| Member {
            peer_addr: old.peer_addr,
            client_url: old.client_url,
            store_id: old.store_id,
            replaces: None,
        };
        Self {
            configs: old.configs,
            nodes: old.nodes.into_iter().map(|(id, old)| (id, member(old))).collect(),
        }
    }
}

impl MembershipV1 {
    /// None: this version cannot say it all.
    fn from_raft(membership: &Membership) -> Option<Self> {
        let member = |(id, member): (&u64, &Member)| {
            let Member {
                peer_addr,
                client_url,
                store_id,
                replaces,
            } = member.clone();
            let old = MemberV1 {
                peer_addr,
                client_url,
                store_id,
            };
            replaces.is_none().then_some((*id, old))
        };
        Some(Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(member).collect::<Option<_>>()?,
        })
    }
}

impl MembershipV2 {
    fn from_raft(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        }
    }

    fn into_raft(self) -> io::Result<Membership> {
        if self.configs.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(self.configs, self.nodes).map_err(invalid)
    }
}

/// What the log has made of the membership so far, as it is stored beside the applied state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipRecord {
    pub stored: StoredMembership,
    /// Nodes that were members once, with their store ids. An id is never used again: the one who had it
    /// may come back, with votes that nobody remembers.
    pub removed: BTreeMap<u64, u128>,
}

impl MembershipRecord {
    /// The next membership of the log.
    pub fn advance(&mut self, next: StoredMembership) {
        let stays = |id: &u64| next.membership().get_node(id).is_some();
        let gone = self.stored.membership().nodes().filter(|(id, _)| !stays(id));
        self.removed.extend(gone.map(|(id, member)| (*id, member.store_id)));
        self.stored = next;
    }

    pub fn encode(&self) -> Vec<u8> {
        let log_id = self.stored.log_id().map(to_stored_log_id);
        if self.removed.is_empty()
            && let Some(membership) = MembershipV1::from_raft(self.stored.membership())
        {
            return codec::encode(Kind::Membership, VERSION_1, &RecordV1 { log_id, membership });
        }
        let value = RecordV2 {
            log_id,
            membership: MembershipV2::from_raft(self.stored.membership()),
            removed: self.removed.clone(),
        };
        codec::encode(Kind::Membership, VERSION_2, &value)
    }

    /// Empty bytes are the record of a store that has applied none.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let value: RecordV2 = if is_version_1(bytes) {
            let old: RecordV1 = codec::decode(Kind::Membership, VERSION_1, bytes).map_err(invalid)?;
            RecordV2 {
                log_id: old.log_id,
                membership: old.membership.into(),
                removed: BTreeMap::new(),
            }
        } else {
            codec::decode(Kind::Membership, VERSION_2, bytes).map_err(invalid)?
        };
        Ok(Self {
            stored: StoredMembership::new(value.log_id.map(to_raft_log_id), value.membership.into_raft()?),
            removed: value.removed,
        })
    }
}

fn is_version_1(bytes: &[u8]) -> bool {
    bytes.get(1) == Some(&VERSION_1)
}

/// A record's payload: nothing for a blank entry, else the packed commands or the membership, told
/// apart by the kind byte that both start with.
pub fn encode_payload(payload: &EntryPayload) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(payload) => payload.0.clone(),
        EntryPayload::Membership(membership) => match MembershipV1::from_raft(membership) {
            Some(value) => codec::encode(Kind::Membership, VERSION_1, &value).into(),
            None => codec::encode(Kind::Membership, VERSION_2, &MembershipV2::from_raft(membership)).into(),
        },
    }
}

pub fn decode_payload(bytes: Bytes) -> io::Result<EntryPayload> {
    match bytes.first() {
        None => Ok(EntryPayload::Blank),
        Some(kind) if *kind == Kind::PackedEntry as u8 => Ok(EntryPayload::Normal(Payload(bytes))),
        Some(kind) if *kind == Kind::Membership as u8 => {
            let value: MembershipV2 = if is_version_1(&bytes) {
                let old: MembershipV1 = codec::decode(Kind::Membership, VERSION_1, &bytes).map_err(invalid)?;
                old.into()
            } else {
                codec::decode(Kind::Membership, VERSION_2, &bytes).map_err(invalid)?
            };
            Ok(EntryPayload::Membership(value.into_raft()?))
        }
        Some(kind) => Err(invalid(format!("an entry of unknown kind {kind}"))),
    }
}

pub fn to_record(entry: &Entry) -> log::Record {
    log::Record {
        id: to_stored_log_id(entry.log_id),
        payload: encode_payload(&entry.payload),
    }
}

pub fn to_entry(record: log::Record) -> io::Result<Entry> {
    Ok(Entry {
        log_id: to_raft_log_id(record.id),
        payload: decode_payload(record.payload)?,
    })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8) -> Member {
        Member {
            peer_addr: format!("p{n}"),
            client_url: format!("u{n}"),
            store_id: u128::from(n),
            replaces: None,
        }
    }

    fn stored(index: u64, configs: Vec<BTreeSet<u64>>, nodes: impl IntoIterator<Item = u8>) -> StoredMembership {
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(|n| (u64::from(n), member(n))).collect();
        let id = log::LogId {
            term: 3,
            leader: 2,
            index,
        };
        StoredMembership::new(Some(to_raft_log_id(id)), Membership::new(configs, nodes).unwrap())
    }

    /// Golden bytes: nodes already hold these on disk.
    #[test]
    fn a_membership_reads_back_and_keeps_its_bytes() {
        let joint = stored(9, vec![[1, 2].into(), [2, 3].into()], 1..=3);
        let version_1 = [
            69, 1, 1, 3, 2, 9, 2, 2, 1, 2, 2, 2, 3, 3, 1, 2, 112, 49, 2, 117, 49, 1, 2, 2, 112, 50, 2, 117, 50, 2, 3,
            2, 112, 51, 2, 117, 51, 3,
        ];
        let mut record = MembershipRecord {
            stored: joint,
            removed: BTreeMap::new(),
        };
        assert_eq!(record.encode(), version_1, "nothing in it needs version 2");
        assert_eq!(MembershipRecord::decode(&version_1).unwrap(), record);

        record.removed.insert(7, 77);
        let version_2 = [
            69, 2, 1, 3, 2, 9, 2, 2, 1, 2, 2, 2, 3, 3, 1, 2, 112, 49, 2, 117, 49, 1, 0, 2, 2, 112, 50, 2, 117, 50, 2,
            0, 3, 2, 112, 51, 2, 117, 51, 3, 0, 1, 7, 77,
        ];
        assert_eq!(record.encode(), version_2);
        assert_eq!(MembershipRecord::decode(&version_2).unwrap(), record);
        assert!(MembershipRecord::decode(&version_2[..20]).is_err());
    }

    #[test]
    fn a_node_that_leaves_is_remembered_and_one_that_joins_is_not_forgotten_by_it() {
        let mut record = MembershipRecord::default();
        record.advance(stored(0, vec![[1, 2, 3].into()], 1..=3));
        assert_eq!(record.removed, BTreeMap::new());
        record.advance(stored(5, vec![[1, 2, 3].into(), [2, 3, 4].into()], 1..=4));
        assert_eq!(
            record.removed,
            BTreeMap::new(),
            "still known while the change is under way"
        );
        record.advance(stored(6, vec![[2, 3, 4].into()], 2..=4));
        assert_eq!(record.removed, BTreeMap::from([(1, 1)]));
        record.advance(stored(8, vec![[2, 3].into()], 2..=3));
        assert_eq!(record.removed, BTreeMap::from([(1, 1), (4, 4)]));
    }

    /// Golden bytes of entries: they go to nodes of other builds.
    #[test]
    fn an_entry_is_of_version_1_until_it_says_who_replaces_whom() {
        let entry = |replaces| {
            let newcomer = Member { replaces, ..member(2) };
            let nodes = BTreeMap::from([(1, member(1)), (2, newcomer)]);
            EntryPayload::Membership(Membership::new(vec![[1].into()], nodes).unwrap())
        };
        for (replaces, bytes) in [
            (
                None,
                &[
                    69u8, 1, 1, 1, 1, 2, 1, 2, 112, 49, 2, 117, 49, 1, 2, 2, 112, 50, 2, 117, 50, 2,
                ][..],
            ),
            (
                Some(1),
                &[
                    69, 2, 1, 1, 1, 2, 1, 2, 112, 49, 2, 117, 49, 1, 0, 2, 2, 112, 50, 2, 117, 50, 2, 1, 1,
                ],
            ),
        ] {
            assert_eq!(encode_payload(&entry(replaces)).as_ref(), bytes);
            assert_eq!(decode_payload(Bytes::copy_from_slice(bytes)).unwrap(), entry(replaces));
        }
    }

    #[test]
    fn payloads_are_told_apart_by_their_kind() {
        let normal = EntryPayload::Normal(Payload(Bytes::from_static(&[Kind::PackedEntry as u8, 1, 0])));
        for payload in [EntryPayload::Blank, normal] {
            assert_eq!(decode_payload(encode_payload(&payload)).unwrap(), payload);
        }
        assert!(decode_payload(Bytes::from_static(&[250])).is_err());
    }
}
