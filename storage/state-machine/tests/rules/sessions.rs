//! What holds for sessions in every history, and at their bound. The rules are in `tests/scripts/sessions.txt`.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_state_machine::codec::{Kind, decode};
use quorate_state_machine::keys::{Expiring, Key};
use quorate_state_machine::limits::{TICK_SWEPT_MAX, USER_SESSIONS_MAX};
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{
    Caller, Code, Command, EntryMeta, Envelope, Outcome, Revision, TokenHash, Topic, UserId, VERSION_MAX,
};

use crate::random::{Entry, history};
use crate::world::{PASSWORD_HASH, World, create_user, root};

fn token(n: usize) -> TokenHash {
    let mut token = [0; 32];
    token[..8].copy_from_slice(&n.to_be_bytes());
    TokenHash(token)
}

fn sign_in(user: &str, n: usize, ttl_ms: u64) -> Envelope {
    root(Command::CreateSession {
        user: user.to_owned(),
        password_hash: PASSWORD_HASH.to_owned(),
        token: token(n),
        device: None,
        ttl_ms,
    })
}

fn is_signed_in(world: &World, token: TokenHash) -> bool {
    match world.query(Caller::Session(token), QueryBody::Position).answer {
        Ok(_) => true,
        Err(rejection) => {
            assert_eq!(rejection.code, Code::Unauthenticated);
            false
        }
    }
}

/// A history with more about sessions than others have.
fn busy_history() -> impl Strategy<Value = Vec<Entry>> {
    let busy = vec((0..3usize, 0..4usize, 1000..4000u64, 0..500u64), 0..40);
    (history(), busy).prop_map(|(mut entries, busy)| {
        let mut now_ms = 0;
        for (user, n, ttl_ms, later_ms) in busy {
            now_ms += later_ms;
            let meta = EntryMeta {
                elapsed_ms: now_ms,
                wall_ms: now_ms,
            };
            entries.insert(
                entries.len().min(1 + now_ms as usize % 7),
                (
                    meta,
                    vec![root(Command::Tick), sign_in(["a", "b", "c"][user], n, ttl_ms)],
                ),
            );
        }
        entries
    })
}

/// All that the state says about sessions, and that it says the same everywhere.
fn sessions(world: &World) -> BTreeMap<TokenHash, (UserId, Revision)> {
    let view = world.memory.snapshot();
    let (mut rows, mut index, mut queue) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut users = Vec::new();
    let mut timers = (None, 0, 0);
    let mut first_ms = None;
    for (key, value) in view.iter() {
        match Key::decode(key).unwrap().1 {
            Key::User { user } => users.push(user),
            Key::Session { token } => {
                let (user, began, _, _, expires_ms): (u64, u64, Option<String>, u64, u64) =
                    decode(Kind::SessionRow, 1, value).unwrap();
                rows.insert(token, (UserId(user), Revision(began), expires_ms));
            }
            Key::UserSession { user, began } => {
                let token: [u8; 32] = decode(Kind::UserSessionRow, 1, value).unwrap();
                index.insert((user, began), TokenHash(token));
            }
            Key::Expiry { at_ms, what } => {
                first_ms.get_or_insert(at_ms);
                if let Expiring::Session(user, began) = what {
                    assert!(queue.insert((user, began), at_ms).is_none(), "twice in the queue");
                }
            }
            Key::Timers => timers = decode::<(Option<u64>, u64, u64)>(Kind::TimersRow, 1, value).unwrap(),
            _ => {}
        }
    }
    assert_eq!(timers.2, rows.len() as u64, "the counter");
    assert_eq!(index.len(), rows.len(), "the index by user");
    assert_eq!(queue.len(), rows.len(), "the queue of expiry");
    // Who sweeps begins there: what lies before would never be found.
    if let Some(first_ms) = first_ms {
        assert!(
            timers.0.is_some_and(|next_ms| next_ms <= first_ms),
            "{timers:?} {first_ms}"
        );
    }
    for (token, (user, began, expires_ms)) in &rows {
        assert_eq!(index.get(&(*user, *began)), Some(token));
        assert_eq!(queue.get(&(*user, *began)), Some(expires_ms));
        assert!(users.contains(user), "a session of nobody");
    }
    rows.into_iter()
        .map(|(token, (user, began, _))| (token, (user, began)))
        .collect()
}

fn ended(outcome: &Outcome) -> Vec<TokenHash> {
    let ended = outcome.topics.iter().filter_map(|topic| match topic {
        Topic::Session(token) => Some(*token),
        _ => None,
    });
    ended.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_index_queue_and_counter_agree_and_every_end_wakes(entries in busy_history()) {
        let mut world = World::default();
        let mut before = BTreeMap::new();
        for (meta, commands) in &entries {
            for command in commands {
                let outcome = world.apply(*meta, command);
                let after = sessions(&world);
                let mut woken = ended(&outcome);
                woken.sort();
                let gone: Vec<_> = before
                    .iter()
                    .filter(|(token, session)| after.get(token) != Some(session))
                    .map(|(token, _)| *token)
                    .collect();
                prop_assert_eq!(woken, gone, "{:?}", command);
                for token in before.keys().filter(|token| !after.contains_key(token)) {
                    prop_assert!(!is_signed_in(&world, *token));
                }
                before = after;
            }
        }
        // Once all of it is over, a few sweeps leave nothing.
        let end = EntryMeta { elapsed_ms: u64::from(u32::MAX) * 2, wall_ms: 0 };
        for _ in 0..2 {
            world.apply(end, &root(Command::Tick));
        }
        prop_assert!(sessions(&world).is_empty());
    }
}

/// Nobody is locked out by devices that he has forgotten: the new session pushes out the oldest, only his own,
/// and only once it is certain that there will be a new one.
#[test]
fn at_the_bound_the_oldest_ends() {
    let mut world = World::default();
    let meta = EntryMeta::default();
    let raise = root(Command::RaiseVersion { to: VERSION_MAX });
    let mut commands = vec![raise, create_user("a"), create_user("b"), sign_in("b", 1000, 9000)];
    commands.extend((0..USER_SESSIONS_MAX).map(|n| sign_in("a", n, 9000 - n as u64)));
    for outcome in world.entry(meta, &commands) {
        outcome.response.unwrap();
        assert!(outcome.topics.is_empty());
    }
    assert!(
        world.apply(meta, &sign_in("a", 0, 9000)).response.is_err(),
        "that token is taken"
    );
    assert!(is_signed_in(&world, token(0)));

    for n in 0..3 {
        let outcome = world.apply(meta, &sign_in("a", USER_SESSIONS_MAX + n, 9000));
        assert!(outcome.response.is_ok());
        assert_eq!(ended(&outcome), [token(n)]);
        assert_eq!(sessions(&world).len(), 1 + USER_SESSIONS_MAX);
    }
    assert!(!is_signed_in(&world, token(2)) && is_signed_in(&world, token(3)) && is_signed_in(&world, token(1000)));

    // All of them at once: a deletion takes them whole.
    let outcome = world.apply(meta, &root(Command::DeleteUser { user: "a".to_owned() }));
    assert_eq!(ended(&outcome).len(), USER_SESSIONS_MAX);
    assert_eq!(sessions(&world).into_keys().collect::<Vec<_>>(), [token(1000)]);
}

/// One entry sweeps a bounded number; the leader is told that there is more.
#[test]
fn many_that_expire_together_take_several_sweeps() {
    let mut world = World::default();
    let users: Vec<String> = (0..=TICK_SWEPT_MAX / USER_SESSIONS_MAX)
        .map(|n| format!("u{n}"))
        .collect();
    let mut commands = vec![root(Command::RaiseVersion { to: VERSION_MAX })];
    commands.extend(users.iter().map(|user| create_user(user)));
    commands.extend((0..TICK_SWEPT_MAX + 7).map(|n| sign_in(&users[n / USER_SESSIONS_MAX], n, 1000)));
    for outcome in world.entry(EntryMeta::default(), &commands) {
        outcome.response.unwrap();
    }
    let later = EntryMeta {
        elapsed_ms: 1000,
        wall_ms: 0,
    };
    for left in [7, 0] {
        world.apply(later, &root(Command::Tick)).response.unwrap();
        assert_eq!(sessions(&world).len(), left);
    }
}
