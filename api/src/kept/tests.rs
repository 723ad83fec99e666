//! Whatever is kept, a page has the bytes that its own state gives.

use prometheus::Registry;
use quorate_state_machine::command::NewMessage;
use quorate_state_machine::query::{Page, PageSink, QueryBody};
use quorate_state_machine::{
    Answer, Caller, Code, Command, Conditions, EntryMeta, Envelope, Memory, MemoryView, Overlay, Query, RoomKind, Seq,
    SpaceId, VERSION_MAX, apply, query, query_into,
};

use super::*;
use crate::convert;

const ROOMS: [&str; 2] = ["tea", "茶"];
const USERS: [&str; 3] = ["ada", "bo", "小雨"];

/// Rooms and users, and every state that there was.
struct World {
    memory: Memory,
    states: Vec<MemoryView>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            memory: Memory::new(),
            states: Vec::new(),
        };
        // Before, nothing can be edited.
        world.root(Command::RaiseVersion { to: VERSION_MAX });
        for user in USERS {
            world.root(Command::CreateUser {
                user: user.to_owned(),
                display_name: None,
                email: None,
                password_hash: None,
                attributes: None,
            });
        }
        for room in ROOMS {
            world.create(room);
        }
        world
    }

    fn create(&mut self, room: &str) {
        self.root(Command::CreateRoom {
            room: room.to_owned(),
            kind: RoomKind::Group,
            title: None,
            members: USERS[..2].iter().map(|user| (*user).to_owned()).collect(),
            attributes: None,
        });
    }

    /// A command of root. False: it was refused.
    fn root(&mut self, command: Command) -> bool {
        let mut overlay = Overlay::new(self.memory.clone());
        let envelope = Envelope {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            request_id: String::new(),
            idempotency: None,
            conditions: Conditions::default(),
            command,
        };
        let meta = EntryMeta {
            elapsed_ms: 0,
            wall_ms: 1_767_225_600_000 + self.states.len() as u64,
        };
        let outcome = apply(&mut overlay, meta, envelope).unwrap();
        self.memory.write(overlay.into_changes());
        self.states.push(self.memory.snapshot());
        outcome.response.is_ok()
    }

    fn send(&mut self, room: &str, texts: &[String]) {
        let message = |text: &String| NewMessage {
            text: text.clone(),
            client_id: None,
            kind: None,
            reply_to: None,
            attributes: None,
            sender: None,
            sent_at_ms: None,
        };
        self.root(Command::Send {
            room: room.to_owned(),
            messages: texts.iter().map(message).collect(),
            batch: true,
        });
    }

    fn edit(&mut self, room: &str, seq: u64, text: &str) -> bool {
        self.root(Command::EditMessage {
            room: room.to_owned(),
            seq: Seq(seq),
            text: text.to_owned(),
        })
    }

    fn now(&self) -> MemoryView {
        self.memory.snapshot()
    }
}

fn kept() -> (KeptMessages, Metrics) {
    let metrics = Metrics::new(Registry::new());
    (KeptMessages::new(&metrics), metrics)
}

fn page_of(caller: Caller, room: &str, from: Page, limit: u32) -> Query {
    Query {
        space: SpaceId::MAIN,
        caller,
        body: QueryBody::Messages {
            room: room.to_owned(),
            from,
            limit,
        },
    }
}

/// The messages as an array, or why there are none.
fn written(kept: &KeptMessages, state: &MemoryView, asked: &Query) -> Result<String, Code> {
    struct Sink<'a>(&'a KeptMessages, Vec<u8>);
    impl PageSink for Sink<'_> {
        fn take(&mut self, page: &StoredPage<'_>) -> Result<(), Fatal> {
            self.0.write(page, &mut self.1)
        }
    }
    let mut sink = Sink(kept, Vec::new());
    let answered = query_into(state, asked, &mut sink).unwrap();
    let text = String::from_utf8(sink.1).unwrap();
    match answered.answer {
        Ok(Answer::Page(_)) => Ok(format!("[{text}]")),
        Ok(other) => panic!("another answer: {other:?}"),
        Err(rejection) => {
            assert_eq!(text, "", "nothing of a page that is refused");
            Err(rejection.code)
        }
    }
}

/// The same from the state alone, by serde.
fn expected(state: &MemoryView, asked: &Query) -> Result<String, Code> {
    match query(state, asked).unwrap().answer {
        Ok(Answer::Messages { messages, .. }) => {
            let messages: Vec<_> = messages.into_iter().map(convert::message).collect();
            Ok(serde_json::to_string(&messages).unwrap())
        }
        Ok(other) => panic!("another answer: {other:?}"),
        Err(rejection) => Err(rejection.code),
    }
}

/// Numbers that are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Rooms live, die and come again, people come and go, messages are edited and redacted; and all who read share what is
/// kept, each in a state of his own: on the leader, on a follower that is behind, before and after a snapshot.
#[test]
fn a_page_is_what_its_state_says_whoever_has_read_before() {
    let (mut hits, mut edits) = (0, 0);
    for seed in 1..=20 {
        let mut chance = Chance(seed);
        let mut world = World::new();
        let (kept, metrics) = kept();
        for step in 0..400 {
            let room = ROOMS[chance.below(2) as usize];
            let (seq, user) = (chance.below(40) + 1, USERS[chance.below(3) as usize].to_owned());
            match chance.below(12) {
                0..4 => {
                    let texts: Vec<String> = (0..=chance.below(5)).map(|n| format!("{step} \"{n}\"\n")).collect();
                    world.send(room, &texts);
                }
                4 => edits += u64::from(world.edit(room, seq, &format!("edited in {step}"))),
                5 => {
                    edits += u64::from(world.root(Command::RedactMessage {
                        room: room.to_owned(),
                        seq: Seq(seq),
                    }));
                }
                6 => {
                    world.root(Command::RemoveMember {
                        room: room.to_owned(),
                        user,
                    });
                }
                7 => {
                    world.root(Command::PutMember {
                        room: room.to_owned(),
                        user,
                        role: None,
                    });
                }
                8 if chance.below(8) == 0 => {
                    world.root(Command::DeleteRoom { room: room.to_owned() });
                    world.create(room);
                }
                _ => {}
            }
            for _ in 0..3 {
                // Mostly now, sometimes a little earlier, seldom long ago.
                let back = match chance.below(10) {
                    0..6 => 0,
                    6..9 => chance.below(4),
                    _ => chance.below(world.states.len() as u64),
                };
                let state = &world.states[world.states.len() - 1 - back as usize];
                let from = match chance.below(3) {
                    0 => Page::Newest,
                    1 => Page::After(Seq(chance.below(40))),
                    _ => Page::Around(Seq(chance.below(40))),
                };
                let caller = match chance.below(4) {
                    0 => Caller::Root,
                    user => Caller::User(USERS[user as usize - 1].to_owned()),
                };
                let limit = [1, 7, 50, 101][chance.below(4) as usize];
                let asked = page_of(caller, ROOMS[chance.below(2) as usize], from, limit);
                assert_eq!(
                    written(&kept, state, &asked),
                    expected(state, &asked),
                    "seed {seed} step {step} {asked:?}"
                );
            }
        }
        hits += metrics.messages_reused.get();
    }
    assert!(
        hits > 5_000 && edits > 300,
        "{hits} messages were reused, and {edits} edited"
    );
}

/// What was redacted is gone from what is kept, and what a later state has kept is not for an earlier one.
#[test]
fn an_edit_voids_what_is_kept_of_its_room_and_of_no_other() {
    let mut world = World::new();
    let (kept, metrics) = kept();
    for room in ROOMS {
        world.send(room, &["one".to_owned(), "two".to_owned()]);
    }
    let asked = ROOMS.map(|room| page_of(Caller::Root, room, Page::Newest, 50));
    let read = |state: &MemoryView| {
        let before = (metrics.messages_written.get(), metrics.messages_reused.get());
        for asked in &asked {
            assert_eq!(written(&kept, state, asked), expected(state, asked));
        }
        (
            metrics.messages_written.get() - before.0,
            metrics.messages_reused.get() - before.1,
        )
    };
    assert_eq!(read(&world.now()), (4, 0));
    assert_eq!(read(&world.now()), (0, 4));
    world.send(ROOMS[0], &["three".to_owned()]);
    assert_eq!(read(&world.now()), (1, 4), "what was there is the same");
    let before = world.now();
    assert!(world.edit(ROOMS[0], 1, "another"));
    assert_eq!(read(&world.now()), (3, 2));
    assert_eq!(read(&before), (5, 0), "a reader who is behind");
    assert_eq!(read(&world.now()), (0, 5), "has not spoilt it");
}

/// So many people come and go that whether somebody edited among them is not looked for.
#[test]
fn many_events_void_what_is_kept_and_a_few_do_not() {
    let mut world = World::new();
    let (kept, metrics) = kept();
    world.send("tea", &["one".to_owned()]);
    let asked = page_of(Caller::Root, "tea", Page::Newest, 50);
    let mut reused_after = |comings: usize| {
        for _ in 0..comings {
            for command in [
                Command::PutMember {
                    room: "tea".to_owned(),
                    user: "小雨".to_owned(),
                    role: None,
                },
                Command::RemoveMember {
                    room: "tea".to_owned(),
                    user: "小雨".to_owned(),
                },
            ] {
                world.root(command);
            }
        }
        let before = metrics.messages_reused.get();
        let state = world.now();
        assert_eq!(written(&kept, &state, &asked), expected(&state, &asked));
        metrics.messages_reused.get() - before
    };
    assert_eq!(reused_after(0), 0);
    assert_eq!(reused_after(10), 1);
    assert_eq!(reused_after(20), 0);
    assert_eq!(reused_after(0), 1);
}

#[test]
fn what_is_kept_has_a_bound_and_what_is_read_stays() {
    let mut world = World::new();
    let (kept, metrics) = kept();
    let long = "x".repeat(20_000);
    // Twice as much as fits into the shard of the room.
    let messages = (2 * SHARD_BYTES_MAX / long.len()) as u64;
    for _ in 0..messages.div_ceil(100) {
        world.send("tea", &vec![long.clone(); 100]);
    }
    let state = world.now();
    let read = |seq: u64| {
        let before = metrics.messages_reused.get();
        let asked = page_of(Caller::Root, "tea", Page::After(Seq(seq - 1)), 1);
        assert_eq!(written(&kept, &state, &asked), expected(&state, &asked));
        let bytes = usize::try_from(metrics.messages_kept_bytes.get()).unwrap();
        assert!(bytes <= SHARD_BYTES_MAX, "{bytes}");
        metrics.messages_reused.get() > before
    };
    for seq in 1..=messages {
        read(seq);
        assert!(seq == 1 || read(1), "the first is read all the time, and stays");
    }
    assert!(read(messages), "the last is kept");
    assert!(!read(2), "one that was read long ago is not");
    let bytes = usize::try_from(metrics.messages_kept_bytes.get()).unwrap();
    assert!(bytes > SHARD_BYTES_MAX / 3, "{bytes}");
}

/// A key that is put again, or taken up from the old generation, is there once.
#[test]
fn generations_count_what_they_hold() {
    let mut chance = Chance(1);
    let mut map = Generations::new(2000);
    let mut last: HashMap<u64, u64> = HashMap::new();
    for step in 0..20_000 {
        let key = chance.below(60);
        if chance.below(3) == 0 {
            map.put(key, step, 20 + chance.below(60) as usize);
            last.insert(key, step);
        } else if let Some(value) = map.get(&key) {
            assert_eq!(Some(value), last.get(&key), "never an earlier value");
        }
        let sum = |held: &HashMap<u64, Held<u64>>| held.values().map(|held| held.bytes).sum::<usize>();
        assert_eq!((map.young_bytes, map.old_bytes), (sum(&map.young), sum(&map.old)));
        assert!(map.young_bytes <= 1000 && map.old_bytes <= 1000);
        assert!(map.young.keys().all(|key| !map.old.contains_key(key)));
    }
    map.put(1, 0, 5000);
    assert_eq!(map.get(&1), None, "too large to be held");
}
