//! Random histories: few names, few keys and small numbers, so that commands meet each other.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_state_machine::command::{Idempotency, IfLock, NewMessage, Patch};
use quorate_state_machine::{
    Caller, Command, Conditions, EntryMeta, Envelope, Epoch, FencingToken, Home, Revision, Role, RoomKind, RunId, Seq,
    SpaceId, TokenHash, VERSION_MAX, WaiterId,
};

/// An entry of the log: its clocks and its commands.
pub(crate) type Entry = (EntryMeta, Vec<Envelope>);

fn user() -> impl Strategy<Value = String> + Clone {
    prop_oneof![8 => "[abc]", 1 => Just("root".to_owned()), 1 => Just("no name".to_owned())]
}

fn room() -> impl Strategy<Value = String> + Clone {
    prop_oneof![6 => Just("x".to_owned()), 3 => "[xyz]"]
}

fn caller() -> impl Strategy<Value = Caller> {
    prop_oneof![
        4 => Just(Caller::Root),
        10 => "[abc]".prop_map(Caller::User),
        1 => token().prop_map(Caller::Session),
    ]
}

fn attributes() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof![
        Just(r#"{"a":1}"#.to_owned()),
        Just(r#"{"b":{"c":0.1}, "a":null}"#.to_owned()),
        Just("[]".to_owned()),
    ])
}

fn patch<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Patch<T>> {
    prop_oneof![2 => Just(Patch::Keep), 1 => Just(Patch::Remove), 2 => value.prop_map(Patch::Set)]
}

fn attributes_patch() -> impl Strategy<Value = Patch<String>> {
    patch(attributes().prop_map(|attributes| attributes.unwrap_or_else(|| "{}".to_owned())))
}

fn role() -> impl Strategy<Value = Option<Role>> {
    option::of(prop_oneof![
        Just(Role::Owner),
        Just(Role::Moderator),
        Just(Role::Member)
    ])
}

fn message() -> impl Strategy<Value = NewMessage> {
    let rare = |strategy| option::weighted(0.1, strategy);
    (
        "[pq]",
        option::of("[1-3]".prop_map(String::from)),
        option::weighted(0.2, (0..6u64).prop_map(Seq)),
        attributes(),
        rare(user().boxed()),
        option::weighted(0.2, 0..2000u64),
    )
        .prop_map(
            |(text, client_id, reply_to, attributes, sender, sent_at_ms)| NewMessage {
                text,
                client_id,
                kind: None,
                reply_to,
                attributes: attributes.filter(|text| text != "[]"),
                sender,
                sent_at_ms,
            },
        )
}

fn command() -> impl Strategy<Value = Command> {
    let kind = prop_oneof![Just(RoomKind::Public), Just(RoomKind::Group), Just(RoomKind::Direct)];
    prop_oneof![
        3 => (user(), attributes()).prop_map(|(user, attributes)| Command::CreateUser {
            user,
            display_name: None,
            email: None,
            password_hash: None,
            attributes,
        }),
        1 => (user(), patch("[mn]"), attributes_patch()).prop_map(|(user, display_name, attributes)| {
            Command::UpdateUser { user, display_name, email: Patch::Keep, password_hash: Patch::Keep, attributes }
        }),
        1 => user().prop_map(|user| Command::DeleteUser { user }),
        3 => (room(), kind, vec(user(), 0..3), attributes()).prop_map(|(room, kind, members, attributes)| {
            Command::CreateRoom { room, kind, title: None, members, attributes }
        }),
        2 => (room(), patch("[mn]"), attributes_patch())
            .prop_map(|(room, title, attributes)| Command::UpdateRoom { room, title, attributes }),
        1 => room().prop_map(|room| Command::DeleteRoom { room }),
        4 => (room(), user(), role()).prop_map(|(room, user, role)| Command::PutMember { room, user, role }),
        2 => (room(), user()).prop_map(|(room, user)| Command::RemoveMember { room, user }),
        1 => (0..7u32).prop_map(|to| Command::RaiseVersion { to }),
        3 => lock_command(),
        3 => message_command(),
        3 => session_command(),
        8 => (room(), message())
            .prop_map(|(room, message)| Command::Send { room, messages: vec![message], batch: false }),
        4 => (room(), vec(message(), 0..5))
            .prop_map(|(room, messages)| Command::Send { room, messages, batch: true }),
    ]
}

/// Two locks, few tokens: those of small revisions, in the first epoch.
fn lock_command() -> impl Strategy<Value = Command> {
    let lock = || "[lm]";
    let token = || (0..60u64).prop_map(|revision| FencingToken::new(Epoch::FIRST, Revision(revision)));
    let waiter = || (0..4u128).prop_map(WaiterId);
    let wait = prop_oneof![2 => Just(0), 3 => 1..4000u64];
    let home = (1..3u64, 1..3u128).prop_map(|(node, run)| Home { node, run: RunId(run) });
    prop_oneof![
        6 => (lock(), "[vw]", 0..3000u64, wait, waiter(), home).prop_map(|(lock, owner, ttl_ms, wait_ms, waiter, home)| {
            Command::AcquireLock { lock, owner, ttl_ms, wait_ms, data: None, waiter, home }
        }),
        2 => (lock(), token(), option::of(100..9000u64))
            .prop_map(|(lock, token, ttl_ms)| Command::RenewLock { lock, token, ttl_ms }),
        4 => (lock(), token()).prop_map(|(lock, token)| Command::ReleaseLock { lock, token }),
        1 => (lock(), waiter(), option::of((0..60u64).prop_map(Revision)))
            .prop_map(|(lock, waiter, since)| Command::AbandonLock { lock, waiter, since }),
        1 => (1..3u64, option::of((1..3u128).prop_map(RunId)))
            .prop_map(|(node, except)| Command::DropWaiters { node, except }),
        3 => Just(Command::Tick),
    ]
}

fn message_command() -> impl Strategy<Value = Command> {
    let seq = || (0..6u64).prop_map(Seq);
    prop_oneof![
        2 => (room(), seq(), "[pqr]").prop_map(|(room, seq, text)| Command::EditMessage { room, seq, text }),
        1 => (room(), seq()).prop_map(|(room, seq)| Command::RedactMessage { room, seq }),
    ]
}

fn token() -> impl Strategy<Value = TokenHash> {
    (0..4u8).prop_map(|n| TokenHash([n; 32]))
}

fn session_command() -> impl Strategy<Value = Command> {
    let hash = || prop_oneof![3 => Just("hash".to_owned()), 1 => Just("other".to_owned())];
    let password = prop_oneof![5 => hash().prop_map(Patch::Set), 1 => Just(Patch::Remove)];
    let set_password = (user(), password).prop_map(|(user, password_hash)| Command::UpdateUser {
        user,
        display_name: Patch::Keep,
        email: Patch::Keep,
        password_hash,
        attributes: Patch::Keep,
    });
    prop_oneof![
        2 => set_password,
        4 => (user(), hash(), token(), 1000..5000u64).prop_map(|(user, password_hash, token, ttl_ms)| Command::CreateSession {
            user,
            password_hash,
            token,
            device: None,
            ttl_ms,
        }),
        2 => Just(Command::EndSession),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let rare = option::weighted(0.05, 0..9u64);
    (rare.clone(), proptest::bool::weighted(0.05), rare).prop_map(|(if_match, if_none_match, lock)| Conditions {
        if_match: if_match.map(Revision),
        if_none_match,
        if_lock: lock.map(|token| IfLock {
            name: "l".to_owned(),
            token: FencingToken::new(Epoch::FIRST, Revision(token)),
        }),
    })
}

pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    asked(caller(), command())
}

fn asked(
    caller: impl Strategy<Value = Caller>,
    command: impl Strategy<Value = Command>,
) -> impl Strategy<Value = Envelope> {
    let idempotency = option::of(("[1-6]", prop_oneof![8 => Just(0u128), 1 => Just(1u128)]));
    (caller, idempotency, conditions(), command).prop_map(|(caller, idempotency, conditions, command)| {
        // The fingerprint is that of the command, but now and then a wrong one.
        let idempotency = idempotency.map(|(key, wrong)| {
            let text = format!("{conditions:?}{command:?}");
            let sum = text
                .bytes()
                .fold(7u128, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            Idempotency {
                key,
                fingerprint: sum ^ wrong,
            }
        });
        Envelope {
            space: SpaceId::MAIN,
            caller,
            request_id: String::new(),
            idempotency,
            conditions,
            command,
        }
    })
}

/// Sometimes the clock passes a day, sometimes a leader's stamp is behind.
fn meta() -> impl Strategy<Value = EntryMeta> {
    (
        prop_oneof![4 => 0..5000u64, 1 => 86_000_000..90_000_000u64, 1 => any::<u32>().prop_map(u64::from)],
        0..3000u64,
    )
        .prop_map(|(elapsed_ms, wall_ms)| EntryMeta { elapsed_ms, wall_ms })
}

/// A history that begins with three users and two rooms.
pub(crate) fn history() -> impl Strategy<Value = Vec<Entry>> {
    begun(envelope())
}

/// A history in which most of what happens is that messages are sent, edited and redacted.
pub(crate) fn talk() -> impl Strategy<Value = Vec<Entry>> {
    let send = (room(), vec(message(), 1..3)).prop_map(|(room, messages)| Command::Send {
        room,
        messages,
        batch: true,
    });
    // Root may edit everything.
    begun(asked(
        prop_oneof![2 => Just(Caller::Root), 1 => caller()],
        prop_oneof![3 => send, 6 => message_command(), 1 => command()],
    ))
}

fn begun(envelope: impl Strategy<Value = Envelope>) -> impl Strategy<Value = Vec<Entry>> {
    let make_user = |user: &str| Command::CreateUser {
        user: user.to_owned(),
        display_name: None,
        email: None,
        password_hash: None,
        attributes: None,
    };
    let make_room = |room: &str, kind| Command::CreateRoom {
        room: room.to_owned(),
        kind,
        title: None,
        members: vec!["a".to_owned(), "b".to_owned()],
        attributes: None,
    };
    let commands = vec![
        Command::RaiseVersion { to: VERSION_MAX },
        make_user("a"),
        make_user("b"),
        make_user("c"),
        make_room("x", RoomKind::Public),
        make_room("y", RoomKind::Group),
    ];
    let first: Vec<Envelope> = commands
        .into_iter()
        .map(|command| Envelope {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            request_id: String::new(),
            idempotency: None,
            conditions: Conditions::default(),
            command,
        })
        .collect();
    vec((meta(), vec(envelope, 1..8)), 0..12).prop_map(move |mut entries| {
        entries.insert(0, (EntryMeta::default(), first.clone()));
        entries
    })
}
