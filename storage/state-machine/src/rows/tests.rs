//! Golden bytes: a store that was written by this version is read by every later one. When one of
//! these fails, do not change the bytes: give the row a new version and keep a decoder for this one.

use super::*;
use crate::apply::{Outcome, Response};
use crate::command::{
    Caller, Command, Conditions, EntryMeta, Envelope, Idempotency, IfLock, NewMessage, PackedEntry, Patch,
};
use crate::ids::{FencingToken, SpaceId};
use crate::rejection::Code;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn golden<R: Row + PartialEq + std::fmt::Debug>(row: R, bytes: &str) {
    let encoded = row.to_bytes();
    assert_eq!(hex(&encoded), bytes);
    assert_eq!(R::from_bytes(&encoded).unwrap(), row);
    // Neither less nor more, nor another kind or version.
    assert!(R::from_bytes(&encoded[..encoded.len() - 1]).is_err());
    assert!(R::from_bytes(&[encoded.as_slice(), &[0]].concat()).is_err());
    for at in [0, 1] {
        let mut other = encoded.clone();
        other[at] += 1;
        assert!(R::from_bytes(&other).is_err());
    }
}

fn message(text: Option<&str>) -> MessageRow {
    MessageRow {
        head: MessageHead {
            created_rev: Revision(300),
            sent_at_max_ms: 2,
        },
        rev: Revision(301),
        sent_at_ms: 1,
        sender: UserId(7),
        sender_name: "a".to_owned(),
        kind: "text".to_owned(),
        client_id: Some("c".to_owned()),
        reply_to: Some(Seq(4)),
        attributes: Some("{}".to_owned()),
        text: text.map(str::to_owned),
        edited_at_ms: Some(5),
        redacted_at_ms: None,
    }
}

fn holder() -> HolderRow {
    HolderRow {
        owner: "o".to_owned(),
        caller: UserId(1),
        token: FencingToken(2),
        since: Revision(3),
        waiter: WaiterId(4),
        ttl_ms: 5,
        expires_ms: 6,
        data: Some("7".to_owned()),
    }
}

#[test]
fn rows_of_locks() {
    golden(
        TimersRow {
            next_ms: Some(1),
            locks: 2,
            sessions: 3,
        },
        "1e0101010203",
    );
    golden(ExpiryRow {}, "1f01");
    golden(
        LockRow {
            name: "l".to_owned(),
            rev: Revision(1),
            last_token: FencingToken(2),
            holder: Some(holder()),
            waiters: 8,
            served: Revision(9),
            timer_ms: 10,
        },
        "2301016c010201016f01020304050601013708090a",
    );
    golden(LockNameRow { lock: LockId(1) }, "240101");
    golden(
        WaiterRow {
            owner: "o".to_owned(),
            caller: UserId(1),
            waiter: WaiterId(2),
            home: Home { node: 3, run: RunId(4) },
            ttl_ms: 5,
            asked_ms: 6,
            deadline_ms: 7,
            data: None,
            key: Some("k".to_owned()),
        },
        "2501016f010203040506070001016b",
    );
    golden(HomeWaiterRow { run: RunId(1) }, "260101");
    for (decided, bytes) in [
        (Decided::MessageEdited { rev: Revision(1) }, "1b0101020a01"),
        (
            Decided::LockWaiting {
                lock: LockId(1),
                since: Revision(2),
            },
            "1b0101020b0102",
        ),
        (
            Decided::LockGranted {
                token: FencingToken(1),
                expires_ms: 2,
            },
            "1b0101020c0102",
        ),
        (
            Decided::LockRenewed {
                owner: "o".to_owned(),
                token: FencingToken(1),
                expires_ms: 2,
            },
            "1b0101020d016f0102",
        ),
    ] {
        golden(
            DedupRow {
                fingerprint: 1,
                expires_ms: 2,
                decided,
            },
            bytes,
        );
    }
}

#[test]
fn rows() {
    golden(
        SystemRow {
            epoch: Epoch(1),
            revision: Revision(2),
            elapsed_ms: 300,
            next_user: UserId(4),
            next_room: RoomId(5),
            dedup_records: 6,
            dedup_oldest_ms: Some(7),
        },
        "10010102fb2c010405060107",
    );
    golden(
        UserRow {
            name: "a".to_owned(),
            display_name: "A".to_owned(),
            email: Some("e".to_owned()),
            password_hash: None,
            attributes: Some("{}".to_owned()),
            created_at_ms: 70_000,
            rev: Revision(2),
        },
        "1101016101410101650001027b7dfc7011010002",
    );
    golden(UserNameRow { user: UserId(3) }, "120103");
    golden(
        RoomRow {
            name: "r".to_owned(),
            kind: RoomKind::Group,
            title: Some("T".to_owned()),
            attributes: None,
            created_at_ms: 5,
            created_by: UserId(6),
            created_by_name: "a".to_owned(),
        },
        "13010172010101540005060161",
    );
    golden(
        RoomNameRow {
            room: RoomId(3),
            kind: RoomKind::Direct,
            created_rev: Revision(4),
        },
        "1401030204",
    );
    golden(
        RoomTailRow {
            first_seq: Seq(1),
            last_seq: Seq(2),
            sent_at_max_ms: 3,
            members: 4,
            owners: 5,
            rev: Revision(6),
        },
        "1501010203040506",
    );
    golden(
        MemberRow {
            user: UserId(1),
            role: Role::Owner,
            joined_at_ms: 2,
            joined_seq: Seq(3),
            rev: Revision(4),
        },
        "16010102020304",
    );
    golden(UserRoomRow { room: RoomId(5) }, "170105");
    golden(
        message(Some("hi")),
        "1801fb2c0102fb2d01010701610474657874010163010401027b7d01026869010500",
    );
    golden(ClientIdRow { seq: Seq(9) }, "190109");
    golden(
        FeedRow {
            body: EventBody::Messages {
                first: Seq(1),
                last: Seq(2),
            },
        },
        "1a01000102",
    );
    golden(
        FeedRow {
            body: EventBody::Member {
                user: "a".to_owned(),
                role: Some(Role::Moderator),
            },
        },
        "1a010101610101",
    );
    golden(FeedRow { body: EventBody::Room }, "1a0102");
    golden(
        FeedRow {
            body: EventBody::RoomDeleted,
        },
        "1a0103",
    );
    golden(
        FeedRow {
            body: EventBody::Edited { seq: Seq(300) },
        },
        "1a0104fb2c01",
    );
    golden(
        FeedRow {
            body: EventBody::Redacted { seq: Seq(1) },
        },
        "1a010501",
    );
    golden(DedupExpiryRow {}, "1c01");
    golden(
        MessageRevisionRow {
            number: 1,
            text: "hi".to_owned(),
            at_ms: 300,
        },
        "200101026869fb2c01",
    );
    golden(VersionRow { version: 2 }, "1d0102");
}

#[test]
fn decisions() {
    let (rev, at_ms) = (Revision(1), 2);
    for (decided, bytes) in [
        (
            Decided::UserCreated {
                id: UserId(3),
                rev,
                at_ms,
            },
            "1b01fe000000000000000000000000100000000800030102",
        ),
        (
            Decided::UserUpdated { id: UserId(3), rev },
            "1b01fe0000000000000000000000001000000008010301",
        ),
        (
            Decided::RoomCreated {
                id: RoomId(3),
                rev,
                at_ms,
                members: 4,
            },
            "1b01fe00000000000000000000000010000000080203010204",
        ),
        (
            Decided::RoomUpdated { id: RoomId(3), rev },
            "1b01fe0000000000000000000000001000000008030301",
        ),
        (
            Decided::Member {
                role: Role::Member,
                joined_at_ms: at_ms,
                joined_seq: Seq(3),
                rev,
                created: true,
            },
            "1b01fe0000000000000000000000001000000008040002030101",
        ),
        (Decided::Deleted, "1b01fe000000000000000000000000100000000805"),
        (
            Decided::Sent {
                seq: Seq(3),
                rev,
                sent_at_ms: at_ms,
            },
            "1b01fe000000000000000000000000100000000806030102",
        ),
        (
            Decided::SentBatch {
                runs: vec![(Seq(3), 4)],
                rev,
            },
            "1b01fe00000000000000000000000010000000080701030401",
        ),
        (
            Decided::Refused(Rejection::new(Code::Conflict, "no")),
            "1b01fe0000000000000000000000001000000008080a026e6f",
        ),
        (Decided::VersionRaised, "1b01fe000000000000000000000000100000000809"),
        (
            Decided::MessageEdited { rev },
            "1b01fe00000000000000000000000010000000080a01",
        ),
    ] {
        golden(
            DedupRow {
                fingerprint: 1 << 100,
                expires_ms: 8,
                decided,
            },
            bytes,
        );
    }
}

/// The tag of each code, which is stored with refusals.
#[test]
fn codes() {
    let codes = [
        Code::Unauthenticated,
        Code::IdempotencyMismatch,
        Code::NotFound,
        Code::Forbidden,
        Code::NotAMember,
        Code::Banned,
        Code::PreconditionFailed,
        Code::LockLost,
        Code::AlreadyExists,
        Code::LockHeld,
        Code::Conflict,
        Code::Invalid,
        Code::BadRequest,
        Code::TooLarge,
        Code::RateLimited,
        Code::PositionExpired,
    ];
    for (tag, code) in codes.into_iter().enumerate() {
        let bytes = codec::encode(Kind::Outcome, 0, &code);
        assert_eq!(bytes, [Kind::Outcome as u8, 0, tag as u8]);
    }
}

/// A search reads the head of a message and nothing behind it.
#[test]
fn the_head_of_a_message_comes_first() {
    let row = message(Some("long text"));
    let bytes = row.to_bytes();
    assert_eq!(MessageHead::decode(&bytes).unwrap(), row.head);
    assert_eq!(MessageHead::decode(&bytes[..7]).unwrap(), row.head);
}

fn envelope(command: Command) -> Envelope {
    Envelope {
        space: SpaceId::MAIN,
        caller: Caller::User("a".to_owned()),
        request_id: "r".to_owned(),
        idempotency: Some(Idempotency {
            key: "k".to_owned(),
            fingerprint: 1,
        }),
        conditions: Conditions {
            if_match: Some(Revision(2)),
            if_none_match: true,
            if_lock: Some(IfLock {
                name: "l".to_owned(),
                token: FencingToken(3),
            }),
        },
        command,
    }
}

#[test]
fn envelopes() {
    let name = || "n".to_owned();
    let some = || Some("s".to_owned());
    let message = NewMessage {
        text: name(),
        client_id: some(),
        kind: some(),
        reply_to: Some(Seq(1)),
        attributes: some(),
        sender: some(),
        sent_at_ms: Some(2),
    };
    let lone = |command| Envelope {
        caller: Caller::Root,
        idempotency: None,
        conditions: Conditions::default(),
        ..envelope(command)
    };
    for (envelope, bytes) in [
        (
            envelope(Command::DeleteUser { user: name() }),
            "010101010161017201016b0101020101016c0302016e",
        ),
        (
            lone(Command::CreateUser {
                user: name(),
                display_name: some(),
                email: None,
                password_hash: some(),
                attributes: None,
            }),
            "0101010001720000000000016e0101730001017300",
        ),
        (
            lone(Command::UpdateUser {
                user: name(),
                display_name: Patch::Keep,
                email: Patch::Remove,
                password_hash: Patch::Set(name()),
                attributes: Patch::Keep,
            }),
            "0101010001720000000001016e000102016e00",
        ),
        (
            lone(Command::CreateRoom {
                room: name(),
                kind: RoomKind::Public,
                title: None,
                members: vec![name()],
                attributes: some(),
            }),
            "0101010001720000000003016e000001016e010173",
        ),
        (
            lone(Command::UpdateRoom {
                room: name(),
                title: Patch::Remove,
                attributes: Patch::Keep,
            }),
            "0101010001720000000004016e0100",
        ),
        (lone(Command::DeleteRoom { room: name() }), "0101010001720000000005016e"),
        (
            lone(Command::PutMember {
                room: name(),
                user: name(),
                role: Some(Role::Owner),
            }),
            "0101010001720000000006016e016e0102",
        ),
        (
            lone(Command::RemoveMember {
                room: name(),
                user: name(),
            }),
            "0101010001720000000007016e016e",
        ),
        (
            lone(Command::Send {
                room: name(),
                messages: vec![message],
                batch: true,
            }),
            "0101010001720000000008016e01016e0101730101730101010173010173010201",
        ),
        (lone(Command::RaiseVersion { to: 2 }), "010101000172000000000902"),
        (
            Envelope {
                caller: Caller::Session(TokenHash([7; 32])),
                ..lone(Command::EndSession)
            },
            "0101010207070707070707070707070707070707070707070707070707070707070707070172000000000d",
        ),
        (
            lone(Command::EditMessage {
                room: name(),
                seq: Seq(1),
                text: name(),
            }),
            "010101000172000000000a016e01016e",
        ),
        (
            lone(Command::RedactMessage {
                room: name(),
                seq: Seq(1),
            }),
            "010101000172000000000b016e01",
        ),
        (
            lone(Command::CreateSession {
                user: name(),
                password_hash: name(),
                token: TokenHash([7; 32]),
                device: some(),
                ttl_ms: 1,
            }),
            "010101000172000000000c016e016e070707070707070707070707070707070707070707070707070707070707070701017301",
        ),
        (
            lone(Command::AcquireLock {
                lock: name(),
                owner: name(),
                ttl_ms: 1,
                wait_ms: 2,
                data: some(),
                waiter: WaiterId(3),
                home: Home { node: 4, run: RunId(5) },
            }),
            "010101000172000000000e016e016e0102010173030405",
        ),
        (
            lone(Command::RenewLock {
                lock: name(),
                token: FencingToken(1),
                ttl_ms: Some(2),
            }),
            "010101000172000000000f016e010102",
        ),
        (
            lone(Command::ReleaseLock {
                lock: name(),
                token: FencingToken(1),
            }),
            "0101010001720000000010016e01",
        ),
        (
            lone(Command::AbandonLock {
                lock: name(),
                waiter: WaiterId(1),
                since: Some(Revision(2)),
            }),
            "0101010001720000000011016e010102",
        ),
        (
            lone(Command::DropWaiters {
                node: 1,
                except: Some(RunId(2)),
            }),
            "0101010001720000000012010102",
        ),
        (lone(Command::Tick), "0101010001720000000013"),
    ] {
        assert_eq!(hex(&envelope.encode()), bytes, "{envelope:?}");
        assert_eq!(Envelope::decode(&envelope.encode()).unwrap(), envelope);
    }
}

#[test]
fn entries() {
    let entry = PackedEntry {
        meta: EntryMeta {
            elapsed_ms: 1,
            wall_ms: 300,
        },
        commands: vec![&[1, 2], &[]],
    };
    let bytes = entry.encode();
    assert_eq!(hex(&bytes), "020101fb2c010202010200");
    assert_eq!(PackedEntry::decode(&bytes).unwrap(), entry);
}

#[test]
fn outcomes() {
    let name = || "n".to_owned();
    let user = UserRow {
        name: name(),
        display_name: name(),
        email: None,
        password_hash: Some(name()),
        attributes: None,
        created_at_ms: 1,
        rev: Revision(2),
    };
    let tail = RoomTailRow {
        first_seq: Seq(1),
        last_seq: Seq(2),
        sent_at_max_ms: 3,
        members: 4,
        owners: 5,
        rev: Revision(6),
    };
    let room = RoomRow {
        name: name(),
        kind: RoomKind::Public,
        title: None,
        attributes: None,
        created_at_ms: 1,
        created_by: UserId::ROOT,
        created_by_name: "root".to_owned(),
    };
    let member = MemberRow {
        user: UserId(1),
        role: Role::Owner,
        joined_at_ms: 2,
        joined_seq: Seq(3),
        rev: Revision(4),
    };
    for (response, bytes) in [
        (
            Ok(Response::User(user.entity(UserId(3)))),
            "03010000016e03016e00000102010109",
        ),
        (
            Ok(Response::Room(room.entity(RoomId(3), &tail))),
            "03010001016e030000000104726f6f7401020406010109",
        ),
        (
            Ok(Response::Member {
                member: member.entity(name()),
                created: true,
            }),
            "03010002016e0202030401010109",
        ),
        (Ok(Response::Deleted), "03010003010109"),
        (
            Ok(Response::Sent {
                room: name(),
                seq: Seq(1),
                rev: Revision(2),
                sent_at_ms: 3,
                sender: name(),
            }),
            "03010004016e010203016e010109",
        ),
        (
            Ok(Response::SentBatch {
                room: name(),
                seqs: vec![Seq(1)],
                rev: Revision(2),
            }),
            "03010005016e010102010109",
        ),
        (Ok(Response::VersionRaised { version: 2 }), "0301000602010109"),
        (
            Ok(Response::SessionCreated {
                user: "n".to_owned(),
                expires_at_ms: 1,
            }),
            "03010008016e01010109",
        ),
        (
            Ok(Response::LockHeld {
                owner: "o".to_owned(),
                token: FencingToken(1),
                expires_in_ms: 2,
            }),
            "03010009016f0102010109",
        ),
        (
            Ok(Response::LockWaiting {
                lock: LockId(1),
                since: Revision(2),
            }),
            "0301000a0102010109",
        ),
        (Ok(Response::Swept { more: true }), "0301000b01010109"),
        (
            Ok(Response::Message(Box::new(self::message(None).entity(name(), Seq(2))))),
            "03010007016e02fb2d01016101047465787400010163010401027b7d010500010109",
        ),
        (Err(Rejection::new(Code::Conflict, "no")), "0301010a026e6f010109"),
    ] {
        let outcome = Outcome {
            response,
            replayed: true,
            epoch: Epoch(1),
            revision: Revision(9),
            events: Vec::new(),
            topics: Vec::new(),
        };
        assert_eq!(hex(&outcome.encode()), bytes, "{outcome:?}");
        assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
    }
}

#[test]
fn sessions() {
    golden(
        SessionRow {
            user: UserId(1),
            began: Revision(300),
            device: Some("d".to_owned()),
            created_at_ms: 2,
            expires_ms: 3,
        },
        "210101fb2c010101640203",
    );
    golden(
        UserSessionRow {
            token: TokenHash([0xab; 32]),
        },
        "2201abababababababababababababababababababababababababababababababab",
    );
    golden(ExpiryRow {}, "1f01");
    golden(
        TimersRow {
            next_ms: Some(1),
            locks: 2,
            sessions: 3,
        },
        "1e0101010203",
    );
}

#[test]
fn commands_of_sessions() {
    let name = || "n".to_owned();
    let envelope = |caller, command| Envelope {
        space: SpaceId::MAIN,
        caller,
        request_id: "r".to_owned(),
        idempotency: None,
        conditions: Conditions::default(),
        command,
    };
    let token = TokenHash([0xab; 32]);
    let create = Command::CreateSession {
        user: name(),
        password_hash: name(),
        token,
        device: Some(name()),
        ttl_ms: 300,
    };
    for (envelope, bytes) in [
        (
            envelope(Caller::Root, create),
            "010101000172000000000c016e016eabababababababababababababababababababababababababababababababab01016efb2c01",
        ),
        (
            envelope(Caller::Session(token), Command::EndSession),
            "01010102abababababababababababababababababababababababababababababababab0172000000000d",
        ),
    ] {
        assert_eq!(hex(&envelope.encode()), bytes, "{envelope:?}");
        assert_eq!(Envelope::decode(&envelope.encode()).unwrap(), envelope);
    }
    let outcome = Outcome {
        response: Ok(Response::SessionCreated {
            user: name(),
            expires_at_ms: 3,
        }),
        replayed: false,
        epoch: Epoch(1),
        revision: Revision(9),
        events: Vec::new(),
        topics: Vec::new(),
    };
    assert_eq!(hex(&outcome.encode()), "03010008016e03000109");
    assert_eq!(Outcome::decode(&outcome.encode()).unwrap(), outcome);
}
