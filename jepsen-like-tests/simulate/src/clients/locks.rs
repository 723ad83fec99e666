//! Locks taken, renewed, given back or left to expire, and a resource outside that they guard.

use std::time::Duration;

use quorate_api::replica::{Level, Replica};
use quorate_state_machine::apply::Response;
use quorate_state_machine::query::{Answer, QueryBody};
use quorate_state_machine::rejection::Code;
use quorate_state_machine::{Command, FencingToken, LockId, LockWait, Revision, WaiterId};
use quorate_torture::checker::locks::{ACQUIRE, Acquire, FENCE, Granted, LOST, RELEASE, RENEW, Under};
use quorate_torture::history::Entry;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::time::Instant;

use super::stage::Stage;
use crate::node::{Core, lock};

const LOCKS: [&str; 2] = ["deploy", "leader"];
const TTL_MS: std::ops::Range<u64> = 200..2000;
const WAIT_MS_MAX: u64 = 1500;
/// While it waits for a lock, a client looks this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A wait that is over is decided by the leader, once there is one, and then known at this node.
const DECIDED_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn step(stage: &Stage, core: &Core, dice: &mut ChaCha8Rng) {
    let name = LOCKS[dice.random_range(0..LOCKS.len())];
    let ttl_ms = dice.random_range(TTL_MS);
    let wait_ms = if dice.random_bool(0.5) {
        0
    } else {
        dice.random_range(1..WAIT_MS_MAX)
    };
    let waiter = WaiterId(dice.random());
    let Some(token) = acquire(stage, core, name, ttl_ms, wait_ms, waiter).await else {
        return;
    };
    // Some hold it for longer than they may, and do not know.
    for _ in 0..dice.random_range(0..4) {
        tokio::time::sleep(Duration::from_millis(dice.random_range(1..ttl_ms))).await;
        write_outside(stage, core, name, token);
        if dice.random_bool(0.5) {
            renew(stage, core, name, token, ttl_ms).await;
        }
    }
    if dice.random_bool(0.7) {
        release(stage, core, name, token).await;
    }
}

fn entry(core: &Core, name: &str, value: serde_json::Value) -> Entry {
    Entry {
        key: Some(name.to_owned()),
        value: Some(value),
        node: Some(core.book.id),
        ..Entry::default()
    }
}

fn value(value: serde_json::Value) -> Entry {
    Entry {
        value: Some(value),
        ..Entry::default()
    }
}

async fn acquire(stage: &Stage, core: &Core, name: &str, ttl_ms: u64, wait_ms: u64, waiter: WaiterId) -> Option<u64> {
    let owner = stage.new_name();
    let asked = json!(Acquire {
        owner: owner.clone(),
        ttl_ms,
        wait_ms,
    });
    let operation = stage.begin(ACQUIRE, entry(core, name, asked));
    let command = Command::AcquireLock {
        lock: name.to_owned(),
        owner,
        ttl_ms,
        wait_ms,
        data: None,
        waiter,
        home: core.status().home,
    };
    let granted = match super::write(stage, core, command, None).await.ok()?.response {
        Ok(Response::LockHeld {
            token, expires_in_ms, ..
        }) => Some(Granted {
            token: token.0,
            expires_in_ms,
        }),
        Ok(Response::LockWaiting { lock, since }) => match wait(stage, core, lock, since, wait_ms).await {
            // Unknown: nobody says how it ended.
            Err(Undecided) => return None,
            Ok(granted) => granted,
        },
        Ok(other) => {
            stage.violation(format!("a lock was answered by {other:?}"));
            None
        }
        Err(refused) if refused.code == Code::LockHeld => None,
        Err(refused) => {
            stage.violation(format!("a lock was refused: {refused}"));
            None
        }
    };
    match granted {
        Some(granted) => {
            operation.ok(value(json!(granted)));
            Some(granted.token)
        }
        None => {
            operation.fail(Entry::default());
            None
        }
    }
}

/// The node did not say how a wait ended.
struct Undecided;

/// Until the wait is decided, as the node knows it.
async fn wait(
    stage: &Stage,
    core: &Core,
    lock: LockId,
    since: Revision,
    wait_ms: u64,
) -> Result<Option<Granted>, Undecided> {
    let patience = Duration::from_millis(wait_ms) + DECIDED_WITHIN;
    let end = Instant::now() + patience;
    while Instant::now() < end {
        // As a handler does: what the node has not applied yet it takes for over.
        if core.applied.borrow().revision < since {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let body = QueryBody::LockWait { lock, since };
        match super::read(stage, core, body, Level::Local).await {
            Ok(Ok(Answer::LockWait(LockWait::Granted { token, expires_ms }))) => {
                return Ok(Some(Granted {
                    token: token.0,
                    expires_in_ms: expires_ms.saturating_sub(core.status().elapsed_ms),
                }));
            }
            Ok(Ok(Answer::LockWait(LockWait::Over))) => return Ok(None),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    Err(Undecided)
}

async fn renew(stage: &Stage, core: &Core, name: &str, token: u64, ttl_ms: u64) {
    let asked = json!(Under {
        token,
        ttl_ms: Some(ttl_ms),
    });
    let operation = stage.begin(RENEW, entry(core, name, asked));
    let command = Command::RenewLock {
        lock: name.to_owned(),
        token: FencingToken(token),
        ttl_ms: Some(ttl_ms),
    };
    match super::write(stage, core, command, None)
        .await
        .map(|outcome| outcome.response)
    {
        Ok(Ok(_)) => operation.ok(Entry::default()),
        Ok(Err(refused)) if refused.code == Code::LockLost => operation.fail(value(json!(LOST))),
        Ok(Err(refused)) => stage.violation(format!("a renewal was refused: {refused}")),
        Err(_) => {}
    }
}

async fn release(stage: &Stage, core: &Core, name: &str, token: u64) {
    let operation = stage.begin(RELEASE, entry(core, name, json!(Under { token, ttl_ms: None })));
    let command = Command::ReleaseLock {
        lock: name.to_owned(),
        token: FencingToken(token),
    };
    match super::write(stage, core, command, None)
        .await
        .map(|outcome| outcome.response)
    {
        Ok(Ok(_)) => operation.ok(Entry::default()),
        Ok(Err(refused)) if refused.code == Code::LockLost => operation.fail(value(json!(LOST))),
        Ok(Err(refused)) => stage.violation(format!("a release was refused: {refused}")),
        Err(_) => {}
    }
}

/// The resource that the lock guards takes no token that is smaller than one it has seen.
fn write_outside(stage: &Stage, core: &Core, name: &'static str, token: u64) {
    let operation = stage.begin(FENCE, entry(core, name, json!(Under { token, ttl_ms: None })));
    let mut fences = lock(&stage.fences);
    let (greatest, writes) = fences.entry(name).or_default();
    if token < *greatest {
        return operation.fail(Entry::default());
    }
    *greatest = token;
    *writes += 1;
    operation.ok(Entry {
        seq: Some(*writes),
        ..Entry::default()
    });
}
