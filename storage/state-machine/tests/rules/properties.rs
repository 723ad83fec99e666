//! What holds for every history. A failing one is printed, shrunk, and kept in a file beside the
//! tests from which it is run again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_state_machine::apply::Response;
use quorate_state_machine::keys::Key;
use quorate_state_machine::query::{QueryBody, RoomChange, RoomChangeBody, RoomCursor};
use quorate_state_machine::{
    Answer, Caller, Code, Command, Envelope, Event, EventBody, MemoryView, Message, Outcome, PackedEntry, Page,
    Position, Revision, Room, RoomId, Seq,
};

use crate::random::{Entry, envelope, history, talk};
use crate::world::World;

const ROOMS: [&str; 3] = ["x", "y", "z"];

fn run(world: &mut World, entries: &[Entry]) -> Vec<Outcome> {
    entries
        .iter()
        .flat_map(|(meta, commands)| world.entry(*meta, commands))
        .collect()
}

fn room(world: &World, name: &str) -> Option<Room> {
    match world
        .query(Caller::Root, QueryBody::Room { room: name.to_owned() })
        .answer
    {
        Ok(Answer::Room(room)) => Some(room),
        Err(rejection) => {
            assert_eq!(rejection.code, Code::NotFound);
            None
        }
        other => panic!("{other:?}"),
    }
}

/// The room's messages, collected in pages of three.
fn messages(world: &World, name: &str) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    loop {
        let after = Seq(all.last().map_or(0, |message| message.seq.0));
        let body = QueryBody::Messages {
            room: name.to_owned(),
            from: Page::After(after),
            limit: 3,
        };
        let Ok(Answer::Messages {
            messages, more_after, ..
        }) = world.query(Caller::Root, body).answer
        else {
            panic!("{name} is there");
        };
        all.extend(messages);
        if !more_after {
            return all;
        }
    }
}

/// Everything after the cursor, collected by calls of at most `limit`.
fn changes(world: &World, name: &str, cursor: RoomCursor, limit: u32) -> (Vec<RoomChange>, Position) {
    let mut all = Vec::new();
    let mut after = cursor;
    loop {
        let body = QueryBody::RoomChanges {
            room: name.to_owned(),
            after,
            limit,
        };
        let Ok(Answer::RoomChanges { items, next, more, .. }) = world.query(Caller::Root, body).answer else {
            panic!("{name} is there");
        };
        assert!(items.len() <= limit as usize && (!more || items.len() == limit as usize));
        all.extend(items);
        if !more {
            return (all, next);
        }
        assert_ne!(after, RoomCursor::After(next), "the stream goes on");
        after = RoomCursor::After(next);
    }
}

fn users(world: &World) -> Vec<String> {
    match world
        .query(
            Caller::Root,
            QueryBody::Users {
                after: None,
                limit: 500,
            },
        )
        .answer
    {
        Ok(Answer::Users { users, next: None }) => users.into_iter().map(|user| user.user).collect(),
        other => panic!("{other:?}"),
    }
}

fn rooms_of(world: &World, caller: Caller) -> Vec<String> {
    match world
        .query(
            caller,
            QueryBody::Rooms {
                after: None,
                limit: 500,
            },
        )
        .answer
    {
        Ok(Answer::Rooms { rooms, next: None }) => rooms.into_iter().map(|room| room.room).collect(),
        other => panic!("{other:?}"),
    }
}

fn members_of(world: &World, name: &str) -> Vec<String> {
    let body = QueryBody::Members {
        room: name.to_owned(),
        after: None,
        limit: 500,
    };
    match world.query(Caller::Root, body).answer {
        Ok(Answer::Members { members, next: None }) => members.into_iter().map(|member| member.user).collect(),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replicas_agree_and_entry_boundaries_do_not_matter(entries in history()) {
        let (mut whole, mut single) = (World::default(), World::default());
        let outcomes = run(&mut whole, &entries);
        let mut n = 0;
        for (meta, commands) in &entries {
            for command in commands {
                prop_assert_eq!(&single.apply(*meta, command), &outcomes[n]);
                n += 1;
            }
        }
        prop_assert_eq!(whole.hash(), single.hash());
        prop_assert_eq!(whole.memory, single.memory);
    }

    #[test]
    fn a_snapshot_and_the_rest_are_all(entries in prop_oneof![history(), talk()], cut in any::<prop::sample::Index>()) {
        let cut = cut.index(entries.len() + 1);
        let mut all = World::default();
        let outcomes = run(&mut all, &entries);
        let mut first = World::default();
        let before = run(&mut first, &entries[..cut]);
        // A snapshot travels as pairs.
        let view = first.memory.snapshot();
        let pairs: Vec<_> = view.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let mut rest = World::of(pairs.into_iter().collect::<MemoryView>().restore());
        let after = run(&mut rest, &entries[cut..]);
        prop_assert_eq!(rest.hash(), all.hash());
        prop_assert_eq!(rest.memory, all.memory);
        prop_assert_eq!([before, after].concat(), outcomes);
    }

    #[test]
    fn a_duplicate_changes_nothing(entries in prop_oneof![history(), talk()]) {
        let mut world = World::default();
        let not_remembered =
            [Code::BadRequest, Code::TooLarge, Code::Unauthenticated, Code::IdempotencyMismatch, Code::RateLimited];
        for (meta, command) in entries.iter().flat_map(|(meta, commands)| commands.iter().map(move |c| (meta, c))) {
            let first = world.apply(*meta, command);
            let before = world.memory.clone();
            if command.idempotency.is_none()
                || first.response.as_ref().is_err_and(|rejection| not_remembered.contains(&rejection.code))
            {
                continue;
            }
            // Unless he deleted himself: then he is nobody.
            let caller_lives = world.query(command.caller.clone(), QueryBody::Position).answer.is_ok();
            let again = world.apply(*meta, command);
            prop_assert_eq!(&world.memory, &before, "{:?}", command);
            if caller_lives {
                prop_assert!(again.replayed && again.events.is_empty(), "{:?}", again);
                prop_assert_eq!(&again.response, &first.response);
            } else {
                prop_assert_eq!(again.response.unwrap_err().code, Code::Unauthenticated);
            }
        }
    }

    #[test]
    fn revisions_count_changes_and_seqs_are_dense(entries in prop_oneof![history(), talk()]) {
        let mut world = World::default();
        let mut revision = Revision(0);
        for (meta, command) in entries.iter().flat_map(|(meta, commands)| commands.iter().map(move |c| (meta, c))) {
            let before = world.memory.clone();
            let outcome = world.apply(*meta, command);
            if outcome.revision == revision {
                prop_assert!(outcome.events.is_empty());
                // The cluster version, and when to look for what expires, is about the store itself: clients
                // see no change.
                let unseen = matches!(command.command, Command::RaiseVersion { .. } | Command::Tick);
                prop_assert!(before == world.memory || command.idempotency.is_some() || unseen);
            } else {
                prop_assert_eq!(outcome.revision, Revision(revision.0 + 1));
                prop_assert!(outcome.response.is_ok() && !outcome.replayed);
                prop_assert!(outcome.events.iter().all(|event| event.rev == outcome.revision));
            }
            revision = outcome.revision;
        }
        for name in ROOMS {
            let Some(room) = room(&world, name) else { continue };
            let messages = messages(&world, name);
            let seqs: Vec<u64> = messages.iter().map(|message| message.seq.0).collect();
            prop_assert_eq!(seqs, (1..=room.last_seq.0).collect::<Vec<_>>());
            // A stream places each message at the change that made it, whatever has become of it since.
            let (made, _) = changes(&world, name, RoomCursor::AfterSeq(Seq(0)), 500);
            let made: Vec<Revision> = made.iter().map(|item| item.position.revision).collect();
            prop_assert_eq!(made.len(), messages.len());
            prop_assert!(made.is_sorted());
            prop_assert!(made.iter().all(|rev| *rev <= room.rev && room.rev <= revision));
            for (message, made) in messages.iter().zip(made) {
                let moved = message.edited_at_ms.is_some() || message.redacted_at_ms.is_some();
                prop_assert_eq!(message.rev > made, moved);
                prop_assert!(message.rev >= made);
                prop_assert!(message.rev <= revision);
            }
            // A client id of a sender stands at one message; a new user of the name is another sender.
            let mut ids: Vec<_> = messages
                .iter()
                .filter_map(|message| Some((&message.sender, message.client_id.as_ref()?)))
                .collect();
            ids.sort();
            let all = ids.len();
            ids.dedup();
            prop_assert!(ids.len() == all || entries.iter().any(|(_, commands)| deletes_user(commands)));
        }
    }

    #[test]
    fn both_sides_of_a_membership_agree(entries in history()) {
        let mut world = World::default();
        run(&mut world, &entries);
        let users = users(&world);
        prop_assert!(users.is_sorted() && !users.contains(&"root".to_owned()));
        let rooms = rooms_of(&world, Caller::Root);
        prop_assert!(rooms.is_sorted());
        for name in &rooms {
            let members = members_of(&world, name);
            prop_assert!(members.is_sorted());
            prop_assert!(members.iter().all(|member| users.contains(member)));
            prop_assert_eq!(room(&world, name).map(|room| room.member_count), Some(members.len() as u64));
        }
        for user in &users {
            let inside = rooms_of(&world, Caller::User(user.clone()));
            let expected: Vec<_> = rooms.iter().filter(|name| members_of(&world, name).contains(user)).cloned().collect();
            prop_assert_eq!(inside, expected);
        }
    }

    #[test]
    fn a_stream_can_be_cut_anywhere(entries in prop_oneof![history(), talk()], limit in 1..4u32) {
        let mut world = World::default();
        // Each room is followed by a reader who asks after every entry, and starts again when it is another one.
        let mut readers: Vec<Option<(u64, Vec<RoomChange>, Position)>> = vec![None; ROOMS.len()];
        // What became of messages, in the order in which it was told: rooms, and positions in them.
        let mut motions: Vec<(u64, Revision)> = Vec::new();
        for (meta, commands) in &entries {
            let told = world.entry(*meta, commands).into_iter().flat_map(|outcome| outcome.events);
            let moved = |event: &Event| matches!(event.body, EventBody::Edited { .. } | EventBody::Redacted { .. });
            motions.extend(told.filter(moved).map(|event| (event.room.0, event.rev)));
            for (name, reader) in ROOMS.iter().zip(&mut readers) {
                let Some(room) = room(&world, name) else {
                    *reader = None;
                    continue;
                };
                match reader {
                    Some((id, seen, position)) if *id == room.id.0 => {
                        let (items, next) = changes(&world, name, RoomCursor::After(*position), limit);
                        seen.extend(items);
                        *position = next;
                    }
                    _ => {
                        let (items, next) = changes(&world, name, RoomCursor::AfterSeq(Seq(0)), limit);
                        // What is replayed first are messages; events that lie between them may come too when it takes several calls.
                        let items = items.into_iter().filter(is_message).collect();
                        *reader = Some((room.id.0, items, next));
                        motions.retain(|(moved, _)| *moved != room.id.0);
                    }
                }
            }
        }
        for (name, reader) in ROOMS.iter().zip(readers) {
            let Some((id, seen, _)) = reader else { continue };
            // Each message came once, in order; and whoever follows the edits and redactions has what is stored.
            let mut streamed: Vec<&Message> = Vec::new();
            for item in &seen {
                match &item.body {
                    RoomChangeBody::Message(message) => {
                        prop_assert_eq!(message.seq.0, streamed.len() as u64 + 1);
                        streamed.push(message);
                    }
                    RoomChangeBody::Edited(message) | RoomChangeBody::Redacted(message) => {
                        streamed[message.seq.0 as usize - 1] = message;
                    }
                    RoomChangeBody::Event(_) => {}
                }
            }
            let stored = messages(&world, name);
            prop_assert_eq!(streamed, stored.iter().collect::<Vec<_>>());
            // Each edit and redaction came once.
            let came: Vec<Revision> = seen.iter().filter(|item| is_motion(item)).map(|item| item.position.revision).collect();
            let told: Vec<Revision> = motions.iter().filter(|(room, _)| *room == id).map(|(_, rev)| *rev).collect();
            prop_assert_eq!(came, told);
            prop_assert!(seen.is_sorted_by(|a, b| key(a.position) < key(b.position)));
            // From behind each item exactly the rest comes.
            let (all, end) = changes(&world, name, RoomCursor::AfterSeq(Seq(0)), 500);
            for (n, item) in all.iter().enumerate() {
                let (rest, next) = changes(&world, name, RoomCursor::After(item.position), limit);
                let rest: Vec<_> = rest.into_iter().filter(is_message).collect();
                prop_assert_eq!(&rest, &all[n + 1..]);
                prop_assert_eq!(next, end);
            }
        }
    }

    #[test]
    fn earlier_texts_and_the_present_one_are_all_that_was_said(entries in talk(), limit in 1..4u32) {
        let mut world = World::default();
        // By room and seq: each text with the change that brought it. None: the message is redacted.
        let mut said: BTreeMap<(RoomId, Seq), Option<Texts>> = BTreeMap::new();
        for (meta, command) in entries.iter().flat_map(|(meta, commands)| commands.iter().map(move |c| (meta, c))) {
            let outcome = world.apply(*meta, command);
            for Event { room, rev, body, .. } in outcome.events {
                match (body, &command.command) {
                    (EventBody::Messages { .. }, Command::Send { messages, .. }) => {
                        let seqs = match outcome.response.as_ref().unwrap() {
                            Response::Sent { seq, .. } => vec![*seq],
                            Response::SentBatch { seqs, .. } => seqs.clone(),
                            other => panic!("{other:?}"),
                        };
                        for (seq, message) in seqs.into_iter().zip(messages) {
                            // A message that was there before is answered, and says what it said.
                            said.entry((room, seq)).or_insert_with(|| Some(vec![(rev, message.text.clone())]));
                        }
                    }
                    (EventBody::Edited { seq }, Command::EditMessage { text, .. }) => {
                        let texts = said.get_mut(&(room, seq)).unwrap().as_mut().expect("it is not redacted");
                        texts.push((rev, text.clone()));
                    }
                    (EventBody::Redacted { seq }, _) => {
                        said.insert((room, seq), None);
                    }
                    _ => {}
                }
            }
        }
        for name in ROOMS {
            let Some(room) = room(&world, name) else { continue };
            for message in messages(&world, name) {
                let mut found = revisions(&world, name, message.seq, limit);
                found.extend(message.text.map(|text| (message.rev, text)));
                prop_assert_eq!(&found, &said[&(room.id, message.seq)].clone().unwrap_or_default());
                prop_assert_eq!(found.is_empty(), message.redacted_at_ms.is_some());
            }
        }
        // What is gone has left nothing behind.
        let view = world.memory.snapshot();
        for (key, _) in view.iter() {
            if let Some((_, Key::MessageRevision { room, seq, .. })) = Key::decode(key) {
                prop_assert!(said[&(room, seq)].is_some(), "the text of a redacted message");
                prop_assert!(ROOMS.iter().any(|name| self::room(&world, name).is_some_and(|found| found.id == room)));
            }
        }
    }

    #[test]
    fn what_goes_into_the_log_comes_out(entries in history(), lone in envelope()) {
        for (meta, commands) in entries {
            let encoded: Vec<Vec<u8>> = commands.iter().map(Envelope::encode).collect();
            let packed = PackedEntry { meta, commands: encoded.iter().map(Vec::as_slice).collect() };
            let bytes = packed.encode();
            let unpacked = PackedEntry::decode(&bytes).unwrap();
            prop_assert_eq!(&unpacked, &packed);
            let decoded: Vec<_> = unpacked.commands.iter().map(|bytes| Envelope::decode(bytes).unwrap()).collect();
            prop_assert_eq!(decoded, commands);
        }
        // Cut off, it is an error and no panic.
        let bytes = lone.encode();
        for end in 0..bytes.len() {
            prop_assert!(Envelope::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn outcomes_travel_without_their_events(entries in history()) {
        for outcome in run(&mut World::default(), &entries) {
            let travelled = Outcome::decode(&outcome.encode()).unwrap();
            prop_assert_eq!(travelled, Outcome { events: Vec::new(), topics: Vec::new(), ..outcome });
        }
    }
}

/// What a message said, each text with the change that brought it.
type Texts = Vec<(Revision, String)>;

/// A message's earlier texts, collected in pages.
fn revisions(world: &World, name: &str, seq: Seq, limit: u32) -> Texts {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let body = QueryBody::MessageRevisions {
            room: name.to_owned(),
            seq,
            after,
            limit,
        };
        let Ok(Answer::MessageRevisions { revisions, next }) = world.query(Caller::Root, body).answer else {
            panic!("message {seq} of {name} is there");
        };
        assert!(revisions.len() <= limit as usize);
        all.extend(revisions.into_iter().map(|revision| (revision.rev, revision.text)));
        if next.is_none() {
            return all;
        }
        after = next;
    }
}

fn deletes_user(commands: &[Envelope]) -> bool {
    commands
        .iter()
        .any(|envelope| matches!(envelope.command, Command::DeleteUser { .. }))
}

fn is_message(change: &RoomChange) -> bool {
    matches!(change.body, RoomChangeBody::Message(_))
}

fn is_motion(change: &RoomChange) -> bool {
    matches!(change.body, RoomChangeBody::Edited(_) | RoomChangeBody::Redacted(_))
}

fn key(position: Position) -> (Revision, u32) {
    (position.revision, position.index)
}
