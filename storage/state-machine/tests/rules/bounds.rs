//! What happens at the bounds that only much data reaches.

use quorate_state_machine::apply::Response;
use quorate_state_machine::command::{NewMessage, Patch};
use quorate_state_machine::limits::{ATTRIBUTES_BYTES_MAX, MEMBERSHIPS_ENDED_MAX, MESSAGE_REVISIONS_MAX};
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Caller, Code, Command, EntryMeta, Envelope, RoomKind, Seq, VERSION_MAX};

use crate::world::{World, create_user, root};

fn create_room(room: String, members: Vec<String>) -> Envelope {
    root(Command::CreateRoom {
        room,
        kind: RoomKind::Public,
        title: None,
        members,
        attributes: None,
    })
}

fn all_done(world: &mut World, commands: &[Envelope]) {
    for outcome in world.entry(EntryMeta::default(), commands) {
        outcome.response.unwrap();
    }
}

fn rooms_of(world: &World, user: &str) -> Vec<String> {
    match world
        .query(
            Caller::User(user.to_owned()),
            QueryBody::Rooms { after: None, limit: 2 },
        )
        .answer
    {
        Ok(Answer::Rooms { rooms, next: None }) => rooms.into_iter().map(|room| room.room).collect(),
        other => panic!("{other:?}"),
    }
}

/// One command ends a bounded number of memberships, so a user in more rooms has to leave some first.
#[test]
fn a_user_in_very_many_rooms_leaves_some_before_he_is_deleted() {
    let mut world = World::default();
    let mut commands = vec![create_user("a")];
    commands.extend((0..=MEMBERSHIPS_ENDED_MAX).map(|n| create_room(format!("r{n}"), vec!["a".to_owned()])));
    all_done(&mut world, &commands);
    let delete = root(Command::DeleteUser { user: "a".to_owned() });
    let before = world.memory.clone();
    let refused = world.apply(EntryMeta::default(), &delete);
    assert_eq!(refused.response.unwrap_err().code, Code::Conflict);
    assert!(world.memory == before);

    all_done(
        &mut world,
        &[root(Command::RemoveMember {
            room: "r7".to_owned(),
            user: "a".to_owned(),
        })],
    );
    let outcome = world.apply(EntryMeta::default(), &delete);
    assert_eq!(outcome.response, Ok(Response::Deleted));
    assert_eq!(outcome.events.len(), MEMBERSHIPS_ENDED_MAX);
}

/// A deleted room leaves index rows of the members beyond the bound: nobody sees them, also not when
/// there is a room of that name again, and they do not stand in the way of anything.
#[test]
fn a_very_large_room_is_deleted_for_all_of_its_members() {
    let mut world = World::default();
    let names: Vec<String> = (0..=MEMBERSHIPS_ENDED_MAX).map(|n| format!("u{n:05}")).collect();
    let mut commands: Vec<Envelope> = names.iter().map(|name| create_user(name)).collect();
    commands.push(create_room("big".to_owned(), Vec::new()));
    commands.extend(names.iter().map(|user| {
        root(Command::PutMember {
            room: "big".to_owned(),
            user: user.clone(),
            role: None,
        })
    }));
    commands.push(create_room("small".to_owned(), vec![names.last().unwrap().clone()]));
    all_done(&mut world, &commands);
    let last = names.last().unwrap();
    assert_eq!(rooms_of(&world, last), ["big", "small"]);
    let rows = world.memory.len();

    all_done(&mut world, &[root(Command::DeleteRoom { room: "big".to_owned() })]);
    // Name, room, tail, all members, the feed (creation and every joining), and the index but for one row.
    let members = names.len();
    assert_eq!(world.memory.len(), rows - (3 + members + (1 + members) + (members - 1)));
    assert_eq!(rooms_of(&world, last), ["small"]);
    // A page that skips the row goes on behind it.
    all_done(&mut world, &[create_room("tiny".to_owned(), vec![last.clone()])]);
    let body = QueryBody::Rooms { after: None, limit: 1 };
    let Ok(Answer::Rooms { rooms, next }) = world.query(Caller::User(last.clone()), body).answer else {
        panic!("he may ask");
    };
    assert_eq!((rooms[0].room.as_str(), next.as_deref()), ("small", Some("small")));
    all_done(
        &mut world,
        &[root(Command::DeleteRoom {
            room: "tiny".to_owned(),
        })],
    );
    all_done(&mut world, &[create_room("big".to_owned(), vec![names[0].clone()])]);
    assert_eq!(rooms_of(&world, last), ["small"]);
    assert_eq!(rooms_of(&world, &names[0]), ["big"]);
    all_done(&mut world, &[root(Command::DeleteUser { user: last.clone() })]);
    let Ok(Answer::Room(big)) = world
        .query(Caller::Root, QueryBody::Room { room: "big".to_owned() })
        .answer
    else {
        panic!("it is there");
    };
    assert_eq!(big.member_count, 1);
}

/// Two patches that are allowed each must not add up to attributes that are not.
#[test]
fn attributes_stay_bounded_however_often_they_are_patched() {
    let mut world = World::default();
    all_done(&mut world, &[create_room("r".to_owned(), Vec::new())]);
    let patch = |key: &str, bytes: usize| {
        let attributes = Patch::Set(format!(r#"{{"{key}":"{}"}}"#, "x".repeat(bytes)));
        root(Command::UpdateRoom {
            room: "r".to_owned(),
            title: Patch::Keep,
            attributes,
        })
    };
    all_done(&mut world, &[patch("a", ATTRIBUTES_BYTES_MAX / 2)]);
    let before = world.memory.clone();
    for (bytes, code) in [
        (ATTRIBUTES_BYTES_MAX / 2, Code::Invalid),
        (ATTRIBUTES_BYTES_MAX, Code::TooLarge),
    ] {
        let refused = world.apply(EntryMeta::default(), &patch("b", bytes));
        assert_eq!(refused.response.unwrap_err().code, code);
        assert!(world.memory == before);
    }
    all_done(&mut world, &[patch("a", 1), patch("b", ATTRIBUTES_BYTES_MAX / 2)]);
}

/// A message keeps a bounded number of earlier texts. Another edit is refused; the last text again is none, and
/// redacting it still works.
#[test]
fn a_message_is_edited_so_many_times_and_no_more() {
    let mut world = World::default();
    let room = || "r".to_owned();
    let message = NewMessage {
        text: "text 0".to_owned(),
        client_id: None,
        kind: None,
        reply_to: None,
        attributes: None,
        sender: None,
        sent_at_ms: None,
    };
    let edit = |n: usize| {
        root(Command::EditMessage {
            room: room(),
            seq: Seq(1),
            text: format!("text {n}"),
        })
    };
    let mut commands = vec![
        root(Command::RaiseVersion { to: VERSION_MAX }),
        create_room(room(), Vec::new()),
        root(Command::Send {
            room: room(),
            messages: vec![message],
            batch: false,
        }),
    ];
    commands.extend((1..=MESSAGE_REVISIONS_MAX).map(edit));
    all_done(&mut world, &commands);

    let before = world.memory.clone();
    let refused = world.apply(EntryMeta::default(), &edit(MESSAGE_REVISIONS_MAX + 1));
    assert_eq!(refused.response.unwrap_err().code, Code::Conflict);
    let same = world.apply(EntryMeta::default(), &edit(MESSAGE_REVISIONS_MAX));
    assert!(matches!(same.response, Ok(Response::Message(_))));
    assert!(world.memory == before);
    let redact = root(Command::RedactMessage {
        room: room(),
        seq: Seq(1),
    });
    all_done(&mut world, &[redact]);
}
