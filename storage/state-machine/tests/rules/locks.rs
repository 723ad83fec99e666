//! Locks over random histories: what stands in the queue of expiry, the counters and the indexes is what a scan
//! would find; a lock has one holder at a time and larger and larger tokens; nobody overtakes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_state_machine::apply::Response;
use quorate_state_machine::keys::{Expiring, Key};
use quorate_state_machine::limits::{LOCK_WAITERS_MAX, LOCK_WAITERS_SHOWN_MAX, TICK_SWEPT_MAX};
use quorate_state_machine::query::{QueryBody, standing};
use quorate_state_machine::{
    Answer, Caller, Code, Command, EntryMeta, Envelope, FencingToken, Home, Lock, LockId, Revision, RunId, SpaceId,
    VERSION_MAX, WaiterId,
};

use crate::random::history;
use crate::world::{World, root};

fn locks(world: &World) -> Vec<Lock> {
    let body = QueryBody::Locks {
        after: None,
        limit: 500,
    };
    match world.query(Caller::Root, body).answer {
        Ok(Answer::Locks { locks, .. }) => locks,
        other => panic!("{other:?}"),
    }
}

/// The rows of locks, by what their keys say.
#[derive(Default, Debug)]
struct Rows {
    locks: BTreeSet<LockId>,
    names: usize,
    waiters: BTreeSet<(LockId, Revision)>,
    homes: BTreeSet<(LockId, Revision)>,
    /// In the queue of expiry: one place for each lock, and one for each who waits.
    lock_timers: Vec<LockId>,
    waiter_timers: Vec<(LockId, Revision)>,
    first_timer_ms: Option<u64>,
}

fn rows(world: &World) -> Rows {
    let mut rows = Rows::default();
    for (key, _) in world.memory.snapshot().iter() {
        match Key::decode(key).expect("every key is one").1 {
            Key::Lock { lock } => drop(rows.locks.insert(lock)),
            Key::LockName { .. } => rows.names += 1,
            Key::Waiter { lock, since } => drop(rows.waiters.insert((lock, since))),
            Key::HomeWaiter { lock, since, .. } => {
                assert!(rows.homes.insert((lock, since)), "somebody waits at one node");
            }
            Key::Expiry { at_ms, what } => {
                rows.first_timer_ms.get_or_insert(at_ms);
                match what {
                    Expiring::Lock(lock) => rows.lock_timers.push(lock),
                    Expiring::Waiter(lock, since) => rows.waiter_timers.push((lock, since)),
                    Expiring::Session(..) => {}
                }
            }
            _ => {}
        }
    }
    rows.lock_timers.sort();
    rows.waiter_timers.sort();
    rows
}

fn ask(lock: String, wait_ms: u64) -> Envelope {
    root(Command::AcquireLock {
        lock,
        owner: "o".to_owned(),
        ttl_ms: 1000,
        wait_ms,
        data: None,
        waiter: WaiterId(0),
        home: Home { node: 1, run: RunId(1) },
    })
}

/// What is due is swept in portions, so that no entry takes long, and nothing of it is passed over.
#[test]
fn a_sweep_is_bounded_and_goes_on() {
    let mut world = World::default();
    let at = |elapsed_ms| EntryMeta { elapsed_ms, wall_ms: 0 };
    world.apply(at(0), &root(Command::RaiseVersion { to: VERSION_MAX }));
    let many = TICK_SWEPT_MAX + 10;
    for n in 0..many {
        world.apply(at(0), &ask(format!("l{n}"), 0)).response.unwrap();
    }
    world.apply(at(0), &ask("kept".to_owned(), 0)).response.unwrap();
    for _ in 0..many {
        world.apply(at(500), &ask("kept".to_owned(), 1500)).response.unwrap();
    }
    let held = |world: &World| locks(world).iter().filter(|lock| lock.holder.is_some()).count();
    let swept = |more| Ok(Response::Swept { more });
    let tick = root(Command::Tick);
    assert_eq!(world.apply(at(1000), &tick).response, swept(true));
    // The queue's clock has reached them: they are shown as what they are, swept or not.
    assert_eq!(held(&world), 0);
    assert_eq!(world.apply(at(1000), &tick).response, swept(false));
    assert_eq!(held(&world), 1, "somebody has waited for one of them");
    assert_eq!(world.apply(at(1000), &tick).response, swept(false));

    let gone = root(Command::DropWaiters { node: 1, except: None });
    let waiting = |world: &World| rows(world).waiters.len();
    assert_eq!(waiting(&world), many - 1);
    assert_eq!(world.apply(at(1000), &gone).response, swept(true));
    assert_eq!(waiting(&world), many - 1 - TICK_SWEPT_MAX);
    assert_eq!(world.apply(at(1000), &gone).response, swept(false));
    assert_eq!(waiting(&world), 0);
}

#[test]
fn a_queue_is_bounded() {
    let mut world = World::default();
    let at = EntryMeta::default();
    world.apply(at, &root(Command::RaiseVersion { to: VERSION_MAX }));
    for _ in 0..=LOCK_WAITERS_MAX {
        world.apply(at, &ask("l".to_owned(), 1000)).response.unwrap();
    }
    let refused = world.apply(at, &ask("l".to_owned(), 1000)).response.unwrap_err();
    assert_eq!(refused.code, Code::RateLimited);
    let lock = locks(&world).remove(0);
    assert_eq!(
        (lock.waiters, lock.queue.len()),
        (LOCK_WAITERS_MAX, LOCK_WAITERS_SHOWN_MAX)
    );
}

proptest! {
    #[test]
    fn queues_and_counters_are_what_is_there(entries in history()) {
        let mut world = World::default();
        for (meta, commands) in &entries {
            world.entry(*meta, commands);
            let rows = rows(&world);
            let shown = locks(&world);
            prop_assert_eq!(rows.locks.len(), shown.len());
            prop_assert_eq!(rows.names, shown.len());
            prop_assert_eq!(&rows.homes, &rows.waiters);
            prop_assert_eq!(&rows.lock_timers, &rows.locks.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&rows.waiter_timers, &rows.waiters.iter().copied().collect::<Vec<_>>());
            let waiters: usize = shown.iter().map(|lock| lock.waiters as usize).sum();
            prop_assert_eq!(rows.waiters.len(), waiters);
            for lock in &shown {
                prop_assert_eq!(lock.queue.len(), lock.waiters as usize);
                prop_assert!(lock.queue.is_sorted_by_key(|waiter| waiter.asked_ms));
                if let Some(holder) = &lock.holder {
                    prop_assert_eq!(holder.token, lock.last_token);
                }
            }
            let view = world.memory.snapshot();
            let next_ms = standing(&view, SpaceId::MAIN).unwrap().next_expiry_ms;
            match (next_ms, rows.first_timer_ms) {
                (Some(next), Some(first)) => prop_assert!(next <= first, "{} {}", next, first),
                (None, first) => prop_assert_eq!(first, None),
                (Some(_), None) => {}
            }
        }
    }

    /// A holder loses a lock only by giving it back, by the end of his time, or because he is gone; and who
    /// comes next has waited longest.
    #[test]
    fn one_holder_and_larger_tokens(entries in history()) {
        let mut world = World::default();
        // By name: the holder's token and when his time is over, as the answers said.
        let mut held: BTreeMap<String, (FencingToken, u64)> = BTreeMap::new();
        let mut last: BTreeMap<String, FencingToken> = BTreeMap::new();
        for (meta, command) in entries.iter().flat_map(|(meta, commands)| commands.iter().map(move |c| (meta, c))) {
            // What changed nothing has not moved the clock.
            let clock_ms = standing(&world.memory.snapshot(), SpaceId::MAIN).unwrap().elapsed_ms.max(meta.elapsed_ms);
            let waiting_before: BTreeMap<String, Vec<String>> = locks(&world)
                .into_iter()
                .map(|lock| (lock.lock, lock.queue.into_iter().map(|waiter| waiter.owner).collect()))
                .collect();
            let outcome = world.apply(*meta, command);
            match (&command.command, &outcome.response) {
                (Command::AcquireLock { lock, ttl_ms, .. }, Ok(Response::LockHeld { token, .. })) if !outcome.replayed => {
                    let before = held.insert(lock.clone(), (*token, clock_ms + ttl_ms));
                    prop_assert!(before.is_none_or(|(_, until)| until <= clock_ms), "{:?} at {}", before, clock_ms);
                    prop_assert!(last.insert(lock.clone(), *token) < Some(*token));
                }
                (Command::RenewLock { lock, token, .. }, Ok(Response::LockHeld { expires_in_ms, .. })) if !outcome.replayed => {
                    prop_assert_eq!(held[lock].0, *token);
                    prop_assert!(held[lock].1 > clock_ms);
                    held.insert(lock.clone(), (*token, clock_ms + expires_in_ms));
                }
                (Command::ReleaseLock { lock, token }, Ok(Response::Deleted)) if !outcome.replayed => {
                    prop_assert_eq!(held.remove(lock).map(|(held, _)| held), Some(*token));
                }
                (Command::AbandonLock { lock, .. }, Ok(_)) => {
                    // The holder may have been the one who is gone.
                    let shown = locks(&world).into_iter().find(|shown| shown.lock == *lock);
                    let holder = shown.and_then(|shown| shown.holder).map(|holder| holder.token);
                    if held.get(lock).map(|(token, _)| *token) != holder {
                        held.remove(lock);
                    }
                }
                _ => {}
            }
            // Who waited and holds it now.
            for lock in locks(&world) {
                let Some(holder) = lock.holder else { continue };
                let known = held.get(&lock.lock).copied();
                if known.map(|(token, _)| token) == Some(holder.token) {
                    continue;
                }
                prop_assert!(known.is_none_or(|(_, until)| until <= clock_ms), "{:?} at {}: {:?}", known, clock_ms, holder);
                prop_assert!(last.insert(lock.lock.clone(), holder.token) < Some(holder.token));
                let before = waiting_before.get(&lock.lock).cloned().unwrap_or_default();
                prop_assert!(before.contains(&holder.owner), "{:?} {:?}", before, holder);
                held.insert(lock.lock, (holder.token, holder.expires_ms));
            }
        }
    }
}
