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

const VERSION: u8 = 1;

#[derive(Debug, Encode, Decode)]
struct MembershipV1 {
    /// More than one while a change is under way (joint consensus, Raft paper section 6).
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Member>,
}

#[derive(Debug, Encode, Decode)]
struct StoredMembershipV1 {
    log_id: Option<log::LogId>,
    membership: MembershipV1,
}

impl MembershipV1 {
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

pub fn encode_stored(membership: &StoredMembership) -> Vec<u8> {
    let value = StoredMembershipV1 {
        log_id: membership.log_id().map(to_stored_log_id),
        membership: MembershipV1::from_raft(membership.membership()),
    };
    codec::encode(Kind::Membership, VERSION, &value)
}

/// Empty bytes are the membership of a store that has applied none.
pub fn decode_stored(bytes: &[u8]) -> io::Result<StoredMembership> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let value: StoredMembershipV1 = codec::decode(Kind::Membership, VERSION, bytes).map_err(invalid)?;
    Ok(StoredMembership::new(
        value.log_id.map(to_raft_log_id),
        value.membership.into_raft()?,
    ))
}

/// A record's payload: nothing for a blank entry, else the packed commands or the membership, told
/// apart by the kind byte that both start with.
pub fn encode_payload(payload: &EntryPayload) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(payload) => payload.0.clone(),
        EntryPayload::Membership(membership) => {
            codec::encode(Kind::Membership, VERSION, &MembershipV1::from_raft(membership)).into()
        }
    }
}

pub fn decode_payload(bytes: Bytes) -> io::Result<EntryPayload> {
    match bytes.first() {
        None => Ok(EntryPayload::Blank),
        Some(kind) if *kind == Kind::PackedEntry as u8 => Ok(EntryPayload::Normal(Payload(bytes))),
        Some(kind) if *kind == Kind::Membership as u8 => {
            let value: MembershipV1 = codec::decode(Kind::Membership, VERSION, &bytes).map_err(invalid)?;
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

    #[test]
    fn a_membership_reads_back_and_keeps_its_bytes() {
        let member = |n: u8| Member {
            peer_addr: format!("p{n}"),
            client_url: format!("u{n}"),
            store_id: u128::from(n),
        };
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([(1, member(1)), (2, member(2)), (3, member(3))]),
        )
        .unwrap();
        let stored = StoredMembership::new(
            Some(to_raft_log_id(log::LogId {
                term: 3,
                leader: 2,
                index: 9,
            })),
            membership,
        );
        let bytes = encode_stored(&stored);
        assert_eq!(decode_stored(&bytes).unwrap(), stored);
        // Golden bytes: nodes already hold these on disk.
        let golden = [
            69, 1, 1, 3, 2, 9, 2, 2, 1, 2, 2, 2, 3, 3, 1, 2, 112, 49, 2, 117, 49, 1, 2, 2, 112, 50, 2, 117, 50, 2, 3,
            2, 112, 51, 2, 117, 51, 3,
        ];
        assert_eq!(bytes, golden);
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
