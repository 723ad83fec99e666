//! What an operation reads and writes does not grow with the room.

use std::cell::Cell;

use quorate_state_machine::command::NewMessage;
use quorate_state_machine::query::{Page, QueryBody, RoomCursor};
use quorate_state_machine::rejection::Fatal;
use quorate_state_machine::view::Visitor;
use quorate_state_machine::{
    Caller, Command, Conditions, EntryMeta, Envelope, Epoch, MemoryView, Overlay, Position, Query, Revision, RoomKind,
    Seq, SpaceId, VERSION_MAX, View, apply, query,
};

use crate::world::World;

/// Counts what is read.
struct Counting {
    view: MemoryView,
    gets: Cell<usize>,
    pairs: Cell<usize>,
}

impl Counting {
    fn new(world: &World) -> Self {
        Self {
            view: world.memory.snapshot(),
            gets: Cell::new(0),
            pairs: Cell::new(0),
        }
    }
}

impl View for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fatal> {
        self.gets.set(self.gets.get() + 1);
        self.view.get(key)
    }

    fn visit(&self, from: &[u8], to: &[u8], reverse: bool, limit: usize, visit: &mut Visitor<'_>) -> Result<(), Fatal> {
        self.view.visit(from, to, reverse, limit, &mut |key, value| {
            self.pairs.set(self.pairs.get() + 1);
            visit(key, value)
        })
    }
}

fn envelope(caller: Caller, command: Command) -> Envelope {
    Envelope {
        space: SpaceId::MAIN,
        caller,
        request_id: String::new(),
        idempotency: None,
        conditions: Conditions::default(),
        command,
    }
}

fn send(caller: Caller, messages: usize) -> Envelope {
    let message = |n: usize| NewMessage {
        text: "hello".to_owned(),
        client_id: (messages == 1).then(|| n.to_string()),
        kind: None,
        reply_to: None,
        attributes: None,
        sender: None,
        sent_at_ms: None,
    };
    let messages: Vec<_> = (0..messages).map(message).collect();
    let batch = messages.len() > 1;
    envelope(
        caller,
        Command::Send {
            room: "r".to_owned(),
            messages,
            batch,
        },
    )
}

/// A group of 300 members with so many messages.
fn world(batches: u64) -> World {
    let mut world = World::default();
    let meta = |now_ms| EntryMeta {
        elapsed_ms: now_ms,
        wall_ms: now_ms,
    };
    let names: Vec<String> = (0..300).map(|n| format!("user-{n}")).collect();
    for user in names.clone() {
        let command = Command::CreateUser {
            user,
            display_name: None,
            email: None,
            password_hash: None,
            attributes: None,
        };
        world.apply(meta(0), &envelope(Caller::Root, command));
    }
    let command = Command::CreateRoom {
        room: "r".to_owned(),
        kind: RoomKind::Group,
        title: None,
        members: names,
        attributes: None,
    };
    assert!(world.apply(meta(0), &envelope(Caller::Root, command)).response.is_ok());
    for n in 0..batches {
        assert!(world.apply(meta(n + 1), &send(Caller::Root, 1000)).response.is_ok());
    }
    world
}

#[test]
fn a_send_costs_the_same_in_a_long_room() {
    for batches in [0, 20] {
        let world = world(batches);
        let counting = Counting::new(&world);
        let mut state = Overlay::new(&counting);
        let caller = Caller::User("user-7".to_owned());
        assert!(
            apply(&mut state, EntryMeta::default(), send(caller.clone(), 1))
                .unwrap()
                .response
                .is_ok()
        );
        // Counters, caller, room, membership, tail, client id.
        assert_eq!((counting.gets.get(), counting.pairs.get()), (6, 0));
        // The next one of the same entry asks the base for nothing but its client id.
        let mut second = send(caller, 1);
        if let Command::Send { messages, .. } = &mut second.command {
            messages[0].client_id = Some("other".to_owned());
        }
        apply(&mut state, EntryMeta::default(), second).unwrap();
        assert_eq!((counting.gets.get(), counting.pairs.get()), (7, 0));
        // Counters and tail once; message and client id twice.
        assert_eq!(state.into_changes().len(), 6);
    }
}

/// The first edit of a message, one after many others, and a redaction that takes all of them away.
#[test]
fn an_edit_costs_the_same_in_a_long_room_and_after_many_edits() {
    for (batches, edits) in [(1, 0), (1, 1), (20, 1), (20, 400)] {
        let mut world = world(batches);
        let (room, seq) = ("r".to_owned(), Seq(700));
        let edit = |n: u64| {
            let (room, text) = (room.clone(), format!("text {n}"));
            envelope(Caller::Root, Command::EditMessage { room, seq, text })
        };
        let raise = Command::RaiseVersion { to: VERSION_MAX };
        world.apply(EntryMeta::default(), &envelope(Caller::Root, raise));
        for n in 0..edits {
            assert!(world.apply(EntryMeta::default(), &edit(n)).response.is_ok());
        }

        let counting = Counting::new(&world);
        let mut state = Overlay::new(&counting);
        assert!(
            apply(&mut state, EntryMeta::default(), edit(9999))
                .unwrap()
                .response
                .is_ok()
        );
        // Counters, cluster version, room, message; the text before the last, if there is one.
        assert_eq!((counting.gets.get(), counting.pairs.get()), (4, edits.min(1) as usize));
        // Counters, message, earlier text, feed.
        assert_eq!(state.into_changes().len(), 4);

        let counting = Counting::new(&world);
        let mut state = Overlay::new(&counting);
        let room = room.clone();
        let redact = envelope(Caller::Root, Command::RedactMessage { room, seq });
        assert!(
            apply(&mut state, EntryMeta::default(), redact)
                .unwrap()
                .response
                .is_ok()
        );
        assert_eq!((counting.gets.get(), counting.pairs.get()), (4, 0));
        // Counters, message, feed, and one range of earlier texts.
        assert_eq!(state.into_changes().len(), 3 + edits.min(1) as usize);
    }
}

#[test]
fn a_page_costs_the_same_in_a_long_room() {
    let world = world(20);
    let revision = |n: u64| Revision(301 + n);
    let position = |n| Position::after(Epoch::FIRST, SpaceId::MAIN, revision(n));
    let messages = |from| QueryBody::Messages {
        room: "r".to_owned(),
        from,
        limit: 50,
    };
    let changes = |after| QueryBody::RoomChanges {
        room: "r".to_owned(),
        after: RoomCursor::After(after),
        limit: 50,
    };
    // What is asked, and how many single rows it may read: four, and for a search 2·log2(20,000) more.
    for (body, gets_max, pairs_max) in [
        (messages(Page::Newest), 4, 50),
        (messages(Page::After(Seq(7000))), 4, 50),
        (messages(Page::Around(Seq(12_345))), 4, 50),
        (messages(Page::At(10)), 4 + 30, 50),
        (changes(position(20)), 4 + 1, 0),
        (changes(position(10)), 4 + 3 * 30, 2 * 51),
        (
            changes(Position {
                index: 500,
                ..position(10)
            }),
            4 + 3 * 30,
            2 * 51,
        ),
    ] {
        let counting = Counting::new(&world);
        let asked = Query {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            body,
        };
        let answered = query(&counting, &asked).unwrap();
        assert!(answered.answer.is_ok(), "{answered:?}");
        let (gets, pairs) = (counting.gets.get(), counting.pairs.get());
        assert!(
            gets <= gets_max && pairs <= pairs_max,
            "{asked:?} read {gets} rows and {pairs} pairs"
        );
    }
}
