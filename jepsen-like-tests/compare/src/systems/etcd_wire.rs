//! As much of etcd's gRPC as is needed, over Tonic: fields of `rpc.proto` and `kv.proto` by their numbers. They are
//! few, and so they are written and read here by hand, as Protocol Buffers have them.

use axum::http::uri::PathAndQuery;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// The types of fields that there are, by their numbers.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

#[derive(Debug)]
pub(super) struct Put {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// Linearizable: that is what it is unless a field is set that is not here.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) key: Bytes,
    /// Empty: only `key`; else all below this one.
    pub(super) end: Bytes,
    pub(super) limit: u64,
}

/// Who answered a question for his state, and who leads as far as he knows; 0: nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) member: u64,
    pub(super) leader: u64,
}

pub(super) async fn put(channel: &Channel, put: &Put) -> Result<(), Status> {
    call(channel, PUT, put.encode()).await.map(drop)
}

/// The values, in the order of their keys.
pub(super) async fn range(channel: &Channel, range: &Range) -> Result<Vec<Bytes>, Status> {
    values(call(channel, RANGE, range.encode()).await?).ok_or_else(|| foreign(RANGE))
}

pub(super) async fn standing(channel: &Channel) -> Result<Standing, Status> {
    Standing::decode(call(channel, STATUS, Bytes::new()).await?).ok_or_else(|| foreign(STATUS))
}

fn foreign(path: &str) -> Status {
    Status::data_loss(format!("the answer to {path} is not of etcd"))
}

async fn call(channel: &Channel, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(Request::new(request), path, Plain).await?.into_inner())
}

/// Messages as they are on the wire: who calls has encoded them, and decodes them.
#[derive(Debug, Default, Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

impl Put {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.key.len() + self.value.len() + 16);
        put_bytes(&mut out, 1, &self.key);
        put_bytes(&mut out, 2, &self.value);
        out.freeze()
    }
}

impl Range {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.key.len() + self.end.len() + 16);
        put_bytes(&mut out, 1, &self.key);
        if !self.end.is_empty() {
            put_bytes(&mut out, 2, &self.end);
        }
        put_varint(&mut out, 3 << 3 | VARINT);
        put_varint(&mut out, self.limit);
        out.freeze()
    }
}

/// Of a `RangeResponse`: field 2 is a `KeyValue`, whose field 5 is the value. One that is empty is left out.
fn values(mut answer: Bytes) -> Option<Vec<Bytes>> {
    let mut found = Vec::new();
    while answer.has_remaining() {
        if let (2, Field::Bytes(mut pair)) = field(&mut answer)? {
            let mut value = Bytes::new();
            while pair.has_remaining() {
                if let (5, Field::Bytes(bytes)) = field(&mut pair)? {
                    value = bytes;
                }
            }
            found.push(value);
        }
    }
    Some(found)
}

impl Standing {
    /// Of a `StatusResponse`: field 1 is a header, whose field 2 is the member; field 4 is the leader.
    fn decode(mut answer: Bytes) -> Option<Self> {
        let mut this = Self { member: 0, leader: 0 };
        while answer.has_remaining() {
            match field(&mut answer)? {
                (1, Field::Bytes(mut header)) => {
                    while header.has_remaining() {
                        if let (2, Field::Number(member)) = field(&mut header)? {
                            this.member = member;
                        }
                    }
                }
                (4, Field::Number(leader)) => this.leader = leader,
                _ => {}
            }
        }
        Some(this)
    }
}

enum Field {
    Number(u64),
    Bytes(Bytes),
    /// Of no interest here.
    Fixed,
}

/// The next field and its number; none if this is no message.
fn field(from: &mut Bytes) -> Option<(u64, Field)> {
    let tag = varint(from)?;
    let field = match tag & 7 {
        VARINT => Field::Number(varint(from)?),
        LENGTH => {
            let length = usize::try_from(varint(from)?).ok()?;
            Field::Bytes((length <= from.len()).then(|| from.split_to(length))?)
        }
        fixed @ (FIXED_64 | FIXED_32) => {
            let length = if fixed == FIXED_64 { 8 } else { 4 };
            (length <= from.len()).then(|| from.advance(length))?;
            Field::Fixed
        }
        _ => return None,
    };
    Some((tag >> 3, field))
}

fn varint(from: &mut Bytes) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_bytes(out: &mut BytesMut, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | LENGTH);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_etcd() {
        let put = Put {
            key: "k".into(),
            value: vec![b'v'; 300].into(),
        };
        let mut expected = b"\x0a\x01k\x12\xac\x02".to_vec();
        expected.extend([b'v'; 300]);
        assert_eq!(put.encode(), expected);
        let mut range = Range {
            key: "a".into(),
            end: "b".into(),
            limit: 50,
        };
        assert_eq!(range.encode(), &b"\x0a\x01a\x12\x01b\x18\x32"[..]);
        range.end = Bytes::new();
        assert_eq!(range.encode(), &b"\x0a\x01a\x18\x32"[..]);
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_told_from_them() {
        // Header (cluster 1, member 7, revision 3); a pair (key, revisions, version, value) and one without a value;
        // more; count.
        let answer = b"\x0a\x06\x08\x01\x10\x07\x18\x03\x12\x0c\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x01v\x12\x03\x0a\x01l\x18\x01\x20\x02";
        let found = values(Bytes::from_static(answer)).expect("it is well-formed");
        assert_eq!(found, [&b"v"[..], b""]);
        assert_eq!(values(Bytes::new()), Some(vec![]));
        // Header (member 7), version, size, leader 300, and fixed fields, which etcd has none of.
        let answer = b"\x0a\x02\x10\x07\x12\x063.4.23\x18\x80\x01\x20\xac\x02\x55aaaa\x59bbbbbbbb";
        let found = Standing::decode(Bytes::from_static(answer)).expect("it is well-formed");
        assert_eq!(found, Standing { member: 7, leader: 300 });
        for cut in [
            &b"\x12\x09\x0a"[..],
            b"\x12",
            b"\x13",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x55aa",
        ] {
            assert_eq!(values(Bytes::from_static(cut)), None, "{cut:?}");
            assert_eq!(Standing::decode(Bytes::from_static(cut)), None, "{cut:?}");
        }
    }
}
