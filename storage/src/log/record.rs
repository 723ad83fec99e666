//! How the log lies on disk.
//!
//! | column family | key | value |
//! |---|---|---|
//! | default | group (u32), index (u64) | an entry |
//! | meta | group (u32), what (u8) | vote, committed or purged |
//!
//! Numbers in keys are big-endian, so that their order is that of the bytes. Each value begins with
//! its kind and version and ends with a checksum (CRC-32) over its key and itself: a value that is
//! whole but stands in the wrong place is damage too. An entry is written out by hand, because its
//! payload is copied once this way and three times through a generic encoding.

use bytes::Bytes;
use quorate_state_machine::codec::{self, Kind};

use super::{LogId, Record, Vote};

const RECORD_VERSION: u8 = 1;
const VOTE_VERSION: u8 = 1;
const LOG_ID_VERSION: u8 = 1;

/// kind, version, term, leader.
const HEADER_BYTES: usize = 2 + 8 + 8;
const CHECKSUM_BYTES: usize = 4;

/// The single values beside the entries. Tags are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Meta {
    Vote = 1,
    Committed = 2,
    Purged = 3,
}

pub(super) type RecordKey = [u8; 12];

pub(super) fn record_key(group: u32, index: u64) -> RecordKey {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The smallest key above all entries of the group.
pub(super) fn records_end(group: u32) -> Vec<u8> {
    let mut key = record_key(group, u64::MAX).to_vec();
    key.push(0);
    key
}

/// The index in a key of [`record_key`]'s form.
pub(super) fn record_index(key: &[u8]) -> Result<u64, String> {
    let key: &RecordKey = key.try_into().map_err(|_| format!("a key of {} bytes", key.len()))?;
    Ok(u64::from_be_bytes(key[4..].try_into().expect("a slice of eight")))
}

pub(super) fn meta_key(group: u32, meta: Meta) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4] = meta as u8;
    key
}

/// Writes the value of `record` into `value`, which is emptied first.
pub(super) fn encode_record(key: &[u8], record: &Record, value: &mut Vec<u8>) {
    value.clear();
    value.reserve(HEADER_BYTES + record.payload.len() + CHECKSUM_BYTES);
    value.push(Kind::LogRecord as u8);
    value.push(RECORD_VERSION);
    value.extend_from_slice(&record.id.term.to_be_bytes());
    value.extend_from_slice(&record.id.leader.to_be_bytes());
    value.extend_from_slice(&record.payload);
    seal(key, value);
}

/// Checks and reads an entry. The error says what is wrong with it.
pub(super) fn decode_record(key: &[u8], value: &[u8]) -> Result<Record, String> {
    let index = record_index(key)?;
    let damaged = |reason: String| format!("entry {index}: {reason}");
    let body = unseal(key, value).map_err(&damaged)?;
    let Some((header, payload)) = body.split_first_chunk::<HEADER_BYTES>() else {
        return Err(damaged("it is too short".to_owned()));
    };
    if header[..2] != [Kind::LogRecord as u8, RECORD_VERSION] {
        return Err(damaged(format!(
            "found kind {} version {}, expected kind {} version {RECORD_VERSION}",
            header[0],
            header[1],
            Kind::LogRecord as u8
        )));
    }
    let term = u64::from_be_bytes(header[2..10].try_into().expect("a slice of eight"));
    let leader = u64::from_be_bytes(header[10..18].try_into().expect("a slice of eight"));
    Ok(Record {
        id: LogId { term, leader, index },
        payload: Bytes::copy_from_slice(payload),
    })
}

pub(super) fn encode_vote(key: &[u8], vote: &Vote) -> Vec<u8> {
    let mut value = codec::encode(Kind::Vote, VOTE_VERSION, vote);
    seal(key, &mut value);
    value
}

pub(super) fn decode_vote(key: &[u8], value: &[u8]) -> Result<Vote, String> {
    let body = unseal(key, value).map_err(|reason| format!("vote: {reason}"))?;
    codec::decode(Kind::Vote, VOTE_VERSION, body).map_err(|error| error.to_string())
}

pub(super) fn encode_log_id(key: &[u8], id: &LogId) -> Vec<u8> {
    let mut value = codec::encode(Kind::LogId, LOG_ID_VERSION, id);
    seal(key, &mut value);
    value
}

pub(super) fn decode_log_id(key: &[u8], value: &[u8]) -> Result<LogId, String> {
    let body = unseal(key, value).map_err(|reason| format!("log id: {reason}"))?;
    codec::decode(Kind::LogId, LOG_ID_VERSION, body).map_err(|error| error.to_string())
}

/// Appends the checksum of `key` and `value`.
pub(super) fn seal(key: &[u8], value: &mut Vec<u8>) {
    value.extend_from_slice(&checksum(key, value).to_be_bytes());
}

/// What [`seal`] was given, if it is whole.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], String> {
    let Some((body, sum)) = value.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err("it is too short".to_owned());
    };
    if u32::from_be_bytes(*sum) != checksum(key, body) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(body)
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, payload: &'static [u8]) -> Record {
        Record {
            id: LogId {
                term: 7,
                leader: 2,
                index,
            },
            payload: Bytes::from_static(payload),
        }
    }

    /// What older programs have written must stay readable: these bytes never change.
    #[test]
    fn golden_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let key = record_key(1, 300);
        assert_eq!(hex(&key), "00000001000000000000012c");
        let mut value = Vec::new();
        encode_record(&key, &record(300, b"abc"), &mut value);
        assert_eq!(hex(&value), "4001000000000000000700000000000000026162633560dbf1");
        let key = meta_key(1, Meta::Vote);
        assert_eq!(hex(&key), "0000000101");
        let vote = Vote {
            term: 300,
            leader: 2,
            committed: true,
        };
        assert_eq!(hex(&encode_vote(&key, &vote)), "4101fb2c01020118d73633");
        let key = meta_key(1, Meta::Purged);
        assert_eq!(hex(&key), "0000000103");
        assert_eq!(
            hex(&encode_log_id(&key, &record(300, b"").id)),
            "42010702fb2c011567b1a8"
        );
        assert_eq!(meta_key(1, Meta::Committed)[4], 2);
    }

    #[test]
    fn what_was_written_is_read() {
        for payload in [&b""[..], b"x", &[0xff; 1000]] {
            let record = Record {
                id: LogId {
                    term: 1,
                    leader: 2,
                    index: 3,
                },
                payload: Bytes::from(payload),
            };
            let key = record_key(0, 3);
            let mut value = vec![1, 2, 3];
            encode_record(&key, &record, &mut value);
            assert_eq!(decode_record(&key, &value).unwrap(), record);
        }
        let key = meta_key(0, Meta::Vote);
        let vote = Vote {
            term: 1,
            leader: u64::MAX,
            committed: false,
        };
        assert_eq!(decode_vote(&key, &encode_vote(&key, &vote)).unwrap(), vote);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let key = record_key(0, 3);
        let mut value = Vec::new();
        encode_record(&key, &record(3, b"payload"), &mut value);
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            decode_record(&key, &bad).unwrap_err();
        }
        for cut in 0..value.len() {
            decode_record(&key, &value[..cut]).unwrap_err();
        }
    }

    #[test]
    fn a_whole_value_in_the_wrong_place_is_noticed() {
        let mut value = Vec::new();
        encode_record(&record_key(0, 3), &record(3, b"payload"), &mut value);
        decode_record(&record_key(0, 4), &value).unwrap_err();
        decode_record(&record_key(1, 3), &value).unwrap_err();
        let vote = encode_log_id(&meta_key(0, Meta::Committed), &LogId::default());
        decode_log_id(&meta_key(0, Meta::Purged), &vote).unwrap_err();
    }

    #[test]
    fn keys_are_ordered_as_indexes() {
        assert!(record_key(0, 255) < record_key(0, 256));
        assert!(record_key(0, u64::MAX).as_slice() < records_end(0).as_slice());
        assert!(records_end(0).as_slice() < record_key(1, 0).as_slice());
    }
}
