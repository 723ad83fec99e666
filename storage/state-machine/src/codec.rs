//! The one place that knows bincode: every stored value and every frame starts with a kind and a
//! version. Decoding is bounded and never panics on damaged bytes.

use std::cell::RefCell;

use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use bincode::{BorrowDecode, Decode, Encode};

/// What a stored value or a frame is. Tags are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Envelope = 1,
    PackedEntry = 2,
    Outcome = 3,
    // 16..=63: rows of the state machine. 64..=95: storage (log records, vote, applied).
    // 96..=127: frames between peers.
    SystemRow = 16,
    UserRow = 17,
    UserNameRow = 18,
    RoomRow = 19,
    RoomNameRow = 20,
    RoomTailRow = 21,
    MemberRow = 22,
    UserRoomRow = 23,
    MessageRow = 24,
    ClientIdRow = 25,
    FeedRow = 26,
    DedupRow = 27,
    DedupExpiryRow = 28,
    VersionRow = 29,
    TimersRow = 30,
    ExpiryRow = 31,
    MessageRevisionRow = 32,
    SessionRow = 33,
    UserSessionRow = 34,
    LockRow = 35,
    LockNameRow = 36,
    WaiterRow = 37,
    HomeWaiterRow = 38,
    LogRecord = 64,
    Vote = 65,
    LogId = 66,
    Applied = 67,
    Mark = 68,
    Membership = 69,
    PeerHello = 96,
    PeerFrame = 97,
}

/// The bytes are not a value of that kind and version.
#[derive(Debug, thiserror::Error)]
#[error("failed to decode {kind:?}: {reason}")]
pub struct DecodeError {
    pub kind: Kind,
    pub reason: String,
}

/// No value is larger: 64 MiB is well above a full entry (4 MiB) and a full append (16 MiB).
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// What a thread keeps of memory to encode in: more than a message of the usual kind needs.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<VALUE_BYTES_MAX>()
}

/// `kind`, `version`, then the value.
pub fn encode<T: Encode>(kind: Kind, version: u8, value: &T) -> Vec<u8> {
    // A buffer that grows field by field would be allocated several times for each value.
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        append(scratch, kind, version, value);
        if scratch.capacity() > SCRATCH_BYTES_MAX {
            return std::mem::take(scratch);
        }
        scratch.as_slice().to_vec()
    })
}

/// The same of a large value, about whose size is known: in a buffer of its own, which need not grow.
pub fn encode_of_about<T: Encode>(bytes: usize, kind: Kind, version: u8, value: &T) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(bytes);
    append(&mut buffer, kind, version, value);
    buffer
}

fn append<T: Encode>(buffer: &mut Vec<u8>, kind: Kind, version: u8, value: &T) {
    buffer.extend_from_slice(&[kind as u8, version]);
    bincode::encode_into_writer(value, Appending(buffer), config()).expect("encoding into memory cannot fail");
}

struct Appending<'a>(&'a mut Vec<u8>);

impl Writer for Appending<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Decodes a value of exactly this kind and version; trailing bytes are an error.
pub fn decode<T: Decode<()>>(kind: Kind, version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    whole(kind, decode_prefix(kind, version, bytes)?)
}

/// The same of a value whose bytes stay where they lie.
pub fn borrow_decode<'a, T: BorrowDecode<'a, ()>>(kind: Kind, version: u8, bytes: &'a [u8]) -> Result<T, DecodeError> {
    let rest = body(kind, version, bytes)?;
    let (value, used) = bincode::borrow_decode_from_slice(rest, config()).map_err(|error| DecodeError {
        kind,
        reason: error.to_string(),
    })?;
    whole(kind, (value, rest.len() - used))
}

fn whole<T>(kind: Kind, (value, rest): (T, usize)) -> Result<T, DecodeError> {
    if rest != 0 {
        return Err(DecodeError {
            kind,
            reason: format!("{rest} bytes too many"),
        });
    }
    Ok(value)
}

/// Decodes the first fields of a value of this kind and version, and says how many bytes follow:
/// for searches that look at many rows and need little of each.
pub fn decode_prefix<T: Decode<()>>(kind: Kind, version: u8, bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    let rest = body(kind, version, bytes)?;
    let (value, used) = bincode::decode_from_slice(rest, config()).map_err(|error| DecodeError {
        kind,
        reason: error.to_string(),
    })?;
    Ok((value, rest.len() - used))
}

/// What follows kind and version, if they are these.
fn body(kind: Kind, version: u8, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let fail = |reason: String| DecodeError { kind, reason };
    match bytes {
        [k, v, rest @ ..] if *k == kind as u8 && *v == version => Ok(rest),
        [k, v, ..] => Err(fail(format!("found kind {k} version {v}, expected version {version}"))),
        _ => Err(fail("too short".to_owned())),
    }
}
