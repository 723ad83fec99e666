//! What applying an entry of sends takes without a disk: decoding, the rules, and the rows that come of it. Every node does
//! that for every message, so it is much of what a cluster costs.
//!
//! ```text
//! cargo bench --locked --profile release --workspace --bench apply
//! ```

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate_state_machine::command::NewMessage;
use quorate_state_machine::{
    Caller, Command, Conditions, EntryMeta, Envelope, Idempotency, Memory, MemoryView, Outcome, Overlay, PackedEntry,
    RoomKind, RowCache, SpaceId, apply,
};

/// As `quorate bench send` has them.
const ROOMS: usize = 10;
const MEMBERS: usize = 8;
const TEXT_BYTES: usize = 256;
/// Sends of an entry: of one client, and about those of 64 clients, 256 clients, and 1,024 in flight over WebSockets.
const ENTRIES: [usize; 4] = [1, 26, 77, 300];
const META: EntryMeta = EntryMeta {
    elapsed_ms: 1000,
    wall_ms: 1_700_000_000_000,
};

/// What makes a send safe to repeat.
#[derive(Clone, Copy)]
enum Repeated {
    No,
    ClientId,
    IdempotencyKey,
}

fn user(number: usize) -> String {
    format!("user-{}", number % MEMBERS)
}

fn room(number: usize) -> String {
    format!("room-{}", number % ROOMS)
}

fn envelope(caller: Caller, command: Command) -> Envelope {
    Envelope {
        space: SpaceId::MAIN,
        caller,
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        idempotency: None,
        conditions: Conditions::default(),
        command,
    }
}

/// Users, and rooms of which all are members.
fn rooms() -> Memory {
    let users = (0..MEMBERS).map(|number| Command::CreateUser {
        user: user(number),
        display_name: None,
        email: None,
        password_hash: None,
        attributes: None,
    });
    let rooms = (0..ROOMS).map(|number| Command::CreateRoom {
        room: room(number),
        kind: RoomKind::Group,
        title: None,
        members: (0..MEMBERS).map(user).collect(),
        attributes: None,
    });
    let mut memory = Memory::new();
    let mut state = Overlay::new(memory.snapshot());
    for command in users.chain(rooms) {
        let made = apply(&mut state, META, envelope(Caller::Root, command)).expect("the state is whole");
        assert!(made.response.is_ok(), "{:?}", made.response);
    }
    memory.write(state.into_changes());
    memory
}

fn send(number: usize, repeated: Repeated) -> Vec<u8> {
    let id = format!("01890a5d-ac96-774b-bcce-{number:012}");
    let message = NewMessage {
        text: "x".repeat(TEXT_BYTES),
        client_id: matches!(repeated, Repeated::ClientId).then(|| id.clone()),
        kind: None,
        reply_to: None,
        attributes: None,
        sender: None,
        sent_at_ms: None,
    };
    let command = Command::Send {
        room: room(number),
        messages: vec![message],
        batch: false,
    };
    let mut envelope = envelope(Caller::User(user(number)), command);
    envelope.idempotency = matches!(repeated, Repeated::IdempotencyKey).then(|| Idempotency {
        key: id,
        fingerprint: number as u128,
    });
    envelope.encode()
}

/// As a node does it, but for the write of the changes.
fn apply_entry(view: MemoryView, cache: RowCache, entry: &[u8]) -> (Vec<Outcome>, usize, RowCache) {
    let entry = PackedEntry::decode(entry).expect("it is an entry");
    let mut state = Overlay::with_cache(view, cache);
    let outcomes = entry.commands.iter().map(|command| {
        let envelope = Envelope::decode(command).expect("it is a command");
        apply(&mut state, entry.meta, envelope).expect("the state is whole")
    });
    let outcomes = outcomes.collect();
    let (changes, cache) = state.into_changes_and_cache();
    (outcomes, changes.len(), cache)
}

fn sends(criterion: &mut Criterion) {
    let memory = rooms();
    for (name, repeated) in [
        ("send", Repeated::No),
        ("send with a client id", Repeated::ClientId),
        ("send with an idempotency key", Repeated::IdempotencyKey),
    ] {
        let mut group = criterion.benchmark_group(name);
        for size in ENTRIES {
            let commands: Vec<Vec<u8>> = (0..size).map(|number| send(number, repeated)).collect();
            let entry = PackedEntry {
                meta: META,
                commands: commands.iter().map(Vec::as_slice).collect(),
            };
            let entry = entry.encode();
            // What the entries before have read is known, as it is on a node.
            let (outcomes, _, cache) = apply_entry(memory.snapshot(), RowCache::default(), &entry);
            assert!(outcomes.iter().all(|outcome| outcome.response.is_ok()));
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(format!("{size} an entry"), |bencher| {
                bencher.iter_batched(
                    || (memory.snapshot(), cache.clone()),
                    |(view, cache)| apply_entry(view, cache, &entry),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sends);
criterion_main!(benches);
