//! Where things lie in the state. Every key begins with its space (4 bytes), so that a space can
//! one day live in a Raft group of its own, and a tag (1 byte). Numbers are big-endian, so that
//! bytes sort as numbers do; text comes last in a key, so it needs no end mark and sorts as text.

use std::ops::Range;

use crate::ids::{LockId, Revision, RoomId, Seq, SpaceId, TokenHash, UserId};

/// A place in the state of one space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// The space's counters and clock: one row, written with every change.
    System,
    /// A user.
    User { user: UserId },
    /// Which user has the name now.
    UserName { name: &'a str },
    /// What of a room rarely changes: name, kind, title, attributes.
    Room { room: RoomId },
    /// Which room has the name now.
    RoomName { name: &'a str },
    /// What of a room changes with every message: its last seq.
    RoomTail { room: RoomId },
    /// A member, by his name, so that the list is ordered. The row says which user it was: a later
    /// one of the same name is not a member.
    Member { room: RoomId, user: &'a str },
    /// A room that the user is a member of, by the room's name, so that the list is ordered. The
    /// row says which room it was.
    UserRoom { user: UserId, room: &'a str },
    /// A message.
    Message { room: RoomId, seq: Seq },
    /// The message that a sender first sent under a `client_id`.
    ClientId {
        room: RoomId,
        sender: UserId,
        client_id: &'a str,
    },
    /// What happened in a room besides messages: the event number `index` (from 0) of a revision.
    Feed { room: RoomId, rev: Revision, index: u32 },
    /// What was decided under an idempotency key. The caller is a user, or root.
    Dedup { caller: UserId, key: &'a str },
    /// The queue in which dedup records expire.
    DedupExpiry {
        expires_ms: u64,
        caller: UserId,
        key: &'a str,
    },
    /// The cluster version; none while it is 1.
    Version,
    /// What is said of all that expires besides idempotency keys: when to look next, and counters.
    Timers,
    /// The queue in which locks, waiters and sessions expire.
    Expiry { at_ms: u64, what: Expiring },
    /// An earlier text of a message, under the change that brought it.
    MessageRevision { room: RoomId, seq: Seq, rev: Revision },
    /// A session, by its token's hash.
    Session { token: TokenHash },
    /// A session of the user, by the change that began it.
    UserSession { user: UserId, began: Revision },
    /// A lock: who holds it.
    Lock { lock: LockId },
    /// Which lock has the name.
    LockName { name: &'a str },
    /// Somebody who waits for the lock, by the change with which he began to: first come, first served.
    Waiter { lock: LockId, since: Revision },
    /// The same, by the node at which he waits.
    HomeWaiter { node: u64, lock: LockId, since: Revision },
}

/// What expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiring {
    /// What is held expires, or what is free is forgotten.
    Lock(LockId),
    Waiter(LockId, Revision),
    Session(UserId, Revision),
}

/// The first byte after the space. Tags are never reused.
mod tag {
    pub(super) const SYSTEM: u8 = 0x01;
    pub(super) const VERSION: u8 = 0x02;
    pub(super) const USER: u8 = 0x10;
    pub(super) const USER_NAME: u8 = 0x11;
    pub(super) const ROOM: u8 = 0x20;
    pub(super) const ROOM_NAME: u8 = 0x21;
    pub(super) const ROOM_TAIL: u8 = 0x22;
    pub(super) const MEMBER: u8 = 0x23;
    pub(super) const USER_ROOM: u8 = 0x24;
    pub(super) const MESSAGE: u8 = 0x30;
    pub(super) const CLIENT_ID: u8 = 0x31;
    pub(super) const FEED: u8 = 0x32;
    pub(super) const DEDUP: u8 = 0x40;
    pub(super) const DEDUP_EXPIRY: u8 = 0x41;
    pub(super) const TIMERS: u8 = 0x03;
    pub(super) const EXPIRY: u8 = 0x42;
    pub(super) const MESSAGE_REVISION: u8 = 0x33;
    pub(super) const SESSION: u8 = 0x12;
    pub(super) const USER_SESSION: u8 = 0x13;
    pub(super) const LOCK: u8 = 0x50;
    pub(super) const LOCK_NAME: u8 = 0x51;
    pub(super) const WAITER: u8 = 0x52;
    pub(super) const HOME_WAITER: u8 = 0x53;
}

/// What expires, in the key of the queue. Tags are never reused.
mod expiring {
    pub(super) const LOCK: u8 = 1;
    pub(super) const WAITER: u8 = 2;
    pub(super) const SESSION: u8 = 3;
}

/// Keys that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    UserNames,
    RoomNames,
    Members {
        room: RoomId,
    },
    UserRooms {
        user: UserId,
    },
    Messages {
        room: RoomId,
    },
    ClientIds {
        room: RoomId,
    },
    Feed {
        room: RoomId,
    },
    DedupExpiries,
    Expiries,
    /// Earlier texts of a room's messages.
    RoomRevisions {
        room: RoomId,
    },
    /// Earlier texts of one message.
    MessageRevisions {
        room: RoomId,
        seq: Seq,
    },
    UserSessions {
        user: UserId,
    },
    LockNames,
    Waiters {
        lock: LockId,
    },
    HomeWaiters {
        node: u64,
    },
}

impl<'a> Key<'a> {
    pub fn encode(&self, space: SpaceId) -> Vec<u8> {
        match *self {
            Key::System => Writer::new(space, tag::SYSTEM),
            Key::Version => Writer::new(space, tag::VERSION),
            Key::User { user } => Writer::new(space, tag::USER).number(user.0),
            Key::UserName { name } => Writer::new(space, tag::USER_NAME).text(name),
            Key::Room { room } => Writer::new(space, tag::ROOM).number(room.0),
            Key::RoomName { name } => Writer::new(space, tag::ROOM_NAME).text(name),
            Key::RoomTail { room } => Writer::new(space, tag::ROOM_TAIL).number(room.0),
            Key::Member { room, user } => Writer::new(space, tag::MEMBER).number(room.0).text(user),
            Key::UserRoom { user, room } => Writer::new(space, tag::USER_ROOM).number(user.0).text(room),
            Key::Message { room, seq } => Writer::new(space, tag::MESSAGE).number(room.0).number(seq.0),
            Key::ClientId {
                room,
                sender,
                client_id,
            } => Writer::new(space, tag::CLIENT_ID)
                .number(room.0)
                .number(sender.0)
                .text(client_id),
            Key::Feed { room, rev, index } => Writer::new(space, tag::FEED).number(room.0).number(rev.0).small(index),
            Key::Dedup { caller, key } => Writer::new(space, tag::DEDUP).number(caller.0).text(key),
            Key::DedupExpiry {
                expires_ms,
                caller,
                key,
            } => Writer::new(space, tag::DEDUP_EXPIRY)
                .number(expires_ms)
                .number(caller.0)
                .text(key),
            Key::Timers => Writer::new(space, tag::TIMERS),
            Key::Expiry { at_ms, what } => {
                let at = Writer::new(space, tag::EXPIRY).number(at_ms);
                match what {
                    Expiring::Lock(lock) => at.byte(expiring::LOCK).number(lock.0),
                    Expiring::Waiter(lock, since) => at.byte(expiring::WAITER).number(lock.0).number(since.0),
                    Expiring::Session(user, began) => at.byte(expiring::SESSION).number(user.0).number(began.0),
                }
            }
            Key::MessageRevision { room, seq, rev } => Writer::new(space, tag::MESSAGE_REVISION)
                .number(room.0)
                .number(seq.0)
                .number(rev.0),
            Key::Session { token } => Writer::new(space, tag::SESSION).bytes(&token.0),
            Key::UserSession { user, began } => Writer::new(space, tag::USER_SESSION).number(user.0).number(began.0),
            Key::Lock { lock } => Writer::new(space, tag::LOCK).number(lock.0),
            Key::LockName { name } => Writer::new(space, tag::LOCK_NAME).text(name),
            Key::Waiter { lock, since } => Writer::new(space, tag::WAITER).number(lock.0).number(since.0),
            Key::HomeWaiter { node, lock, since } => Writer::new(space, tag::HOME_WAITER)
                .number(node)
                .number(lock.0)
                .number(since.0),
        }
        .0
    }

    /// The space and the key that the bytes were made of; none if they were not.
    pub fn decode(bytes: &'a [u8]) -> Option<(SpaceId, Key<'a>)> {
        let mut reader = Reader(bytes);
        let space = SpaceId(reader.small()?);
        let tag = reader.take::<1>()?[0];
        let key = match tag {
            tag::SYSTEM => Key::System,
            tag::VERSION => Key::Version,
            tag::USER => Key::User {
                user: UserId(reader.number()?),
            },
            tag::USER_NAME => Key::UserName { name: reader.text()? },
            tag::ROOM => Key::Room {
                room: RoomId(reader.number()?),
            },
            tag::ROOM_NAME => Key::RoomName { name: reader.text()? },
            tag::ROOM_TAIL => Key::RoomTail {
                room: RoomId(reader.number()?),
            },
            tag::MEMBER => Key::Member {
                room: RoomId(reader.number()?),
                user: reader.text()?,
            },
            tag::USER_ROOM => Key::UserRoom {
                user: UserId(reader.number()?),
                room: reader.text()?,
            },
            tag::MESSAGE => Key::Message {
                room: RoomId(reader.number()?),
                seq: Seq(reader.number()?),
            },
            tag::CLIENT_ID => Key::ClientId {
                room: RoomId(reader.number()?),
                sender: UserId(reader.number()?),
                client_id: reader.text()?,
            },
            tag::FEED => Key::Feed {
                room: RoomId(reader.number()?),
                rev: Revision(reader.number()?),
                index: reader.small()?,
            },
            tag::DEDUP => Key::Dedup {
                caller: UserId(reader.number()?),
                key: reader.text()?,
            },
            tag::DEDUP_EXPIRY => Key::DedupExpiry {
                expires_ms: reader.number()?,
                caller: UserId(reader.number()?),
                key: reader.text()?,
            },
            tag::TIMERS => Key::Timers,
            tag::EXPIRY => Key::Expiry {
                at_ms: reader.number()?,
                what: match reader.take::<1>()?[0] {
                    expiring::LOCK => Expiring::Lock(LockId(reader.number()?)),
                    expiring::WAITER => Expiring::Waiter(LockId(reader.number()?), Revision(reader.number()?)),
                    expiring::SESSION => Expiring::Session(UserId(reader.number()?), Revision(reader.number()?)),
                    _ => return None,
                },
            },
            tag::MESSAGE_REVISION => Key::MessageRevision {
                room: RoomId(reader.number()?),
                seq: Seq(reader.number()?),
                rev: Revision(reader.number()?),
            },
            tag::SESSION => Key::Session {
                token: TokenHash(reader.take()?),
            },
            tag::USER_SESSION => Key::UserSession {
                user: UserId(reader.number()?),
                began: Revision(reader.number()?),
            },
            tag::LOCK => Key::Lock {
                lock: LockId(reader.number()?),
            },
            tag::LOCK_NAME => Key::LockName { name: reader.text()? },
            tag::WAITER => Key::Waiter {
                lock: LockId(reader.number()?),
                since: Revision(reader.number()?),
            },
            tag::HOME_WAITER => Key::HomeWaiter {
                node: reader.number()?,
                lock: LockId(reader.number()?),
                since: Revision(reader.number()?),
            },
            _ => return None,
        };
        reader.0.is_empty().then_some((space, key))
    }
}

impl Group {
    /// All keys of the group: `start <= key < end`.
    pub fn range(&self, space: SpaceId) -> Range<Vec<u8>> {
        let start = match *self {
            Group::UserNames => Writer::new(space, tag::USER_NAME),
            Group::RoomNames => Writer::new(space, tag::ROOM_NAME),
            Group::Members { room } => Writer::new(space, tag::MEMBER).number(room.0),
            Group::UserRooms { user } => Writer::new(space, tag::USER_ROOM).number(user.0),
            Group::Messages { room } => Writer::new(space, tag::MESSAGE).number(room.0),
            Group::ClientIds { room } => Writer::new(space, tag::CLIENT_ID).number(room.0),
            Group::Feed { room } => Writer::new(space, tag::FEED).number(room.0),
            Group::DedupExpiries => Writer::new(space, tag::DEDUP_EXPIRY),
            Group::Expiries => Writer::new(space, tag::EXPIRY),
            Group::RoomRevisions { room } => Writer::new(space, tag::MESSAGE_REVISION).number(room.0),
            Group::MessageRevisions { room, seq } => {
                Writer::new(space, tag::MESSAGE_REVISION).number(room.0).number(seq.0)
            }
            Group::UserSessions { user } => Writer::new(space, tag::USER_SESSION).number(user.0),
            Group::LockNames => Writer::new(space, tag::LOCK_NAME),
            Group::Waiters { lock } => Writer::new(space, tag::WAITER).number(lock.0),
            Group::HomeWaiters { node } => Writer::new(space, tag::HOME_WAITER).number(node),
        }
        .0;
        let end = after_prefix(&start);
        start..end
    }
}

/// The smallest key that is above every key with the prefix.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    unreachable!("a prefix has a tag, and no tag is 255")
}

/// The longest key without text at its end has 29 bytes, names are mostly short, and a sender's key of a message is often a UUID
/// behind 21 bytes.
const KEY_BYTES_TYPICAL: usize = 64;

struct Writer(Vec<u8>);

impl Writer {
    fn new(space: SpaceId, tag: u8) -> Self {
        let mut bytes = Vec::with_capacity(KEY_BYTES_TYPICAL);
        bytes.extend_from_slice(&space.0.to_be_bytes());
        bytes.push(tag);
        Self(bytes)
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn small(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn byte(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn small(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(std::mem::take(&mut self.0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key as plain values: its tag's rank, its numbers, its text. Sorts as keys must.
    type Fields = (u8, Vec<u64>, String);

    fn key((tag, numbers, text): &Fields) -> Key<'_> {
        let (room, user) = (RoomId(numbers[0]), UserId(numbers[0]));
        match tag {
            0 => Key::System,
            1 => Key::Version,
            2 => Key::User { user },
            3 => Key::UserName { name: text },
            4 => Key::Room { room },
            5 => Key::RoomName { name: text },
            6 => Key::RoomTail { room },
            7 => Key::Member { room, user: text },
            8 => Key::UserRoom { user, room: text },
            9 => Key::Message {
                room,
                seq: Seq(numbers[1]),
            },
            10 => Key::ClientId {
                room,
                sender: UserId(numbers[1]),
                client_id: text,
            },
            11 => Key::Feed {
                room,
                rev: Revision(numbers[1]),
                index: numbers[2] as u32,
            },
            12 => Key::MessageRevision {
                room,
                seq: Seq(numbers[1]),
                rev: Revision(numbers[2]),
            },
            13 => Key::Dedup {
                caller: user,
                key: text,
            },
            14 => Key::DedupExpiry {
                expires_ms: numbers[0],
                caller: UserId(numbers[1]),
                key: text,
            },
            15 => Key::Expiry {
                at_ms: numbers[0],
                what: Expiring::Lock(LockId(numbers[1])),
            },
            16 => Key::Lock {
                lock: LockId(numbers[0]),
            },
            17 => Key::LockName { name: text },
            18 => Key::Waiter {
                lock: LockId(numbers[0]),
                since: Revision(numbers[1]),
            },
            _ => Key::HomeWaiter {
                node: numbers[0],
                lock: LockId(numbers[1]),
                since: Revision(numbers[2]),
            },
        }
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..3u64, 250..260u64, Just(u64::MAX), any::<u64>()]
    }

    fn fields() -> impl Strategy<Value = Fields> {
        let numbers = (
            number(),
            number(),
            prop_oneof![0..3u64, Just(u64::from(u32::MAX)), Just(256)],
        );
        (0..=19u8, numbers, "[a-c张]{0,3}").prop_map(|(tag, (a, b, c), text)| {
            let (count, has_text) = match tag {
                0 | 1 => (0, false),
                2 | 4 | 6 | 16 => (1, false),
                3 | 5 | 17 => (0, true),
                7 | 8 | 13 => (1, true),
                9 | 15 | 18 => (2, false),
                10 | 14 => (2, true),
                _ => (3, false),
            };
            // Fields that the key does not have are the same everywhere, so that they do not sort.
            let mut numbers = vec![a, b, c];
            numbers[count..].fill(0);
            (tag, numbers, if has_text { text } else { String::new() })
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(space in any::<u32>(), fields in fields()) {
            let bytes = key(&fields).encode(SpaceId(space));
            prop_assert_eq!(Key::decode(&bytes), Some((SpaceId(space), key(&fields))));
        }

        #[test]
        fn bytes_sort_as_fields_do(a in fields(), b in fields(), spaces in (0..3u32, 0..3u32)) {
            let bytes = key(&a).encode(SpaceId(spaces.0)).cmp(&key(&b).encode(SpaceId(spaces.1)));
            prop_assert_eq!(bytes, (spaces.0, &a).cmp(&(spaces.1, &b)));
        }

        #[test]
        fn damaged_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Key::decode(&bytes);
        }
    }

    #[test]
    fn a_group_holds_its_keys_and_no_others() {
        let space = SpaceId::MAIN;
        for id in [0, 1, 255, 256, u64::MAX] {
            let range = Group::Messages { room: RoomId(id) }.range(space);
            for seq in [0, 1, u64::MAX] {
                assert!(
                    range.contains(
                        &Key::Message {
                            room: RoomId(id),
                            seq: Seq(seq)
                        }
                        .encode(space)
                    )
                );
                let revision = |room, seq| {
                    let (room, rev) = (RoomId(room), Revision(u64::MAX));
                    Key::MessageRevision {
                        room,
                        seq: Seq(seq),
                        rev,
                    }
                    .encode(space)
                };
                let of_room = Group::RoomRevisions { room: RoomId(id) }.range(space);
                let of_message = Group::MessageRevisions {
                    room: RoomId(id),
                    seq: Seq(seq),
                }
                .range(space);
                assert!(of_room.contains(&revision(id, seq)) && of_message.contains(&revision(id, seq)));
                assert!(!of_room.contains(&revision(id.wrapping_add(1), seq)));
                assert!(!of_message.contains(&revision(id, seq.wrapping_add(1))));
                for other in [id.wrapping_add(1), id.wrapping_sub(1)] {
                    assert!(
                        !range.contains(
                            &Key::Message {
                                room: RoomId(other),
                                seq: Seq(seq)
                            }
                            .encode(space)
                        )
                    );
                }
            }
            assert!(
                !range.contains(
                    &Key::ClientId {
                        room: RoomId(id),
                        sender: UserId(1),
                        client_id: ""
                    }
                    .encode(space)
                )
            );
        }
        assert!(
            Group::UserNames
                .range(space)
                .contains(&Key::UserName { name: "\u{10ffff}" }.encode(space))
        );
        assert!(
            !Group::UserNames
                .range(space)
                .contains(&Key::UserName { name: "a" }.encode(SpaceId(2)))
        );
    }

    /// Stored keys must be found again by every later version.
    #[test]
    fn golden() {
        let hex = |key: Key<'_>| {
            key.encode(SpaceId::MAIN)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        };
        let (room, user) = (RoomId(2), UserId(3));
        assert_eq!(hex(Key::System), "0000000101");
        assert_eq!(hex(Key::Timers), "0000000103");
        let (lock, since) = (LockId(4), Revision(5));
        for (what, bytes) in [
            (Expiring::Lock(lock), "010000000000000004"),
            (Expiring::Waiter(lock, since), "0200000000000000040000000000000005"),
            (Expiring::Session(user, since), "0300000000000000030000000000000005"),
        ] {
            assert_eq!(
                hex(Key::Expiry { at_ms: 6, what }),
                format!("00000001420000000000000006{bytes}")
            );
            let key = Key::Expiry { at_ms: 6, what };
            assert_eq!(Key::decode(&key.encode(SpaceId::MAIN)), Some((SpaceId::MAIN, key)));
        }
        assert_eq!(hex(Key::Lock { lock }), "00000001500000000000000004");
        assert_eq!(hex(Key::LockName { name: "a" }), "000000015161");
        assert_eq!(
            hex(Key::Waiter { lock, since }),
            "000000015200000000000000040000000000000005"
        );
        assert_eq!(
            hex(Key::HomeWaiter { node: 7, lock, since }),
            "0000000153000000000000000700000000000000040000000000000005"
        );
        assert_eq!(hex(Key::Version), "0000000102");
        assert_eq!(hex(Key::User { user }), "00000001100000000000000003");
        assert_eq!(hex(Key::UserName { name: "a" }), "000000011161");
        assert_eq!(hex(Key::Room { room }), "00000001200000000000000002");
        assert_eq!(hex(Key::RoomName { name: "a" }), "000000012161");
        assert_eq!(hex(Key::RoomTail { room }), "00000001220000000000000002");
        assert_eq!(hex(Key::Member { room, user: "a" }), "0000000123000000000000000261");
        assert_eq!(hex(Key::UserRoom { user, room: "a" }), "0000000124000000000000000361");
        assert_eq!(
            hex(Key::Message { room, seq: Seq(4) }),
            "000000013000000000000000020000000000000004"
        );
        assert_eq!(
            hex(Key::ClientId {
                room,
                sender: user,
                client_id: "a"
            }),
            "00000001310000000000000002000000000000000361"
        );
        assert_eq!(
            hex(Key::Feed {
                room,
                rev: Revision(5),
                index: 6
            }),
            "00000001320000000000000002000000000000000500000006"
        );
        assert_eq!(
            hex(Key::MessageRevision {
                room,
                seq: Seq(4),
                rev: Revision(5)
            }),
            "0000000133000000000000000200000000000000040000000000000005"
        );
        assert_eq!(
            hex(Key::Dedup { caller: user, key: "a" }),
            "0000000140000000000000000361"
        );
        assert_eq!(
            hex(Key::DedupExpiry {
                expires_ms: 7,
                caller: user,
                key: "a"
            }),
            "00000001410000000000000007000000000000000361"
        );
    }

    #[test]
    fn golden_of_sessions() {
        let hex = |key: Key<'_>| {
            let bytes = key.encode(SpaceId::MAIN);
            bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        let user = UserId(3);
        let token = TokenHash([0xab; 32]);
        assert_eq!(hex(Key::Session { token }), format!("0000000112{}", "ab".repeat(32)));
        let began = Revision(8);
        assert_eq!(
            hex(Key::UserSession { user, began }),
            "000000011300000000000000030000000000000008"
        );
        assert_eq!(
            hex(Key::Expiry {
                at_ms: 9,
                what: Expiring::Session(user, began)
            }),
            "000000014200000000000000090300000000000000030000000000000008"
        );
    }

    /// A session's token sorts by its bytes, a user's sessions by when they began, and what expires by its time.
    #[test]
    fn sessions_sort_as_they_must_and_stay_in_their_group() {
        let space = SpaceId::MAIN;
        let sorted = |keys: &[Key<'_>]| {
            let bytes: Vec<_> = keys.iter().map(|key| key.encode(space)).collect();
            for (bytes, key) in bytes.iter().zip(keys) {
                assert_eq!(Key::decode(bytes), Some((space, *key)));
                // Neither less nor more.
                assert_eq!(Key::decode(&bytes[..bytes.len() - 1]), None);
                assert_eq!(Key::decode(&[bytes.as_slice(), &[0]].concat()), None);
            }
            assert!(bytes.is_sorted_by(|a, b| a < b), "{keys:?}");
        };
        sorted(&[
            Key::Session {
                token: TokenHash([0; 32]),
            },
            Key::Session {
                token: TokenHash([1; 32]),
            },
            Key::Session {
                token: TokenHash([255; 32]),
            },
        ]);
        let of = |user, began| Key::UserSession {
            user: UserId(user),
            began: Revision(began),
        };
        sorted(&[of(1, 1), of(1, 256), of(1, u64::MAX), of(2, 0)]);
        let at = |at_ms, user| Key::Expiry {
            at_ms,
            what: Expiring::Session(UserId(user), Revision(1)),
        };
        let lock = |at_ms| Key::Expiry {
            at_ms,
            what: Expiring::Lock(LockId(9)),
        };
        sorted(&[at(1, 1), at(1, 2), lock(2), at(2, 1), at(u64::MAX, 0)]);
        let group = Group::UserSessions { user: UserId(1) }.range(space);
        assert!(group.contains(&of(1, 0).encode(space)) && group.contains(&of(1, u64::MAX).encode(space)));
        assert!(!group.contains(&of(0, u64::MAX).encode(space)) && !group.contains(&of(2, 0).encode(space)));
        assert!(
            Group::Expiries
                .range(space)
                .contains(&at(u64::MAX, u64::MAX).encode(space))
        );
    }
}
