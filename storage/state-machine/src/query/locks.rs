//! Locks: who holds them and who waits. A holder whose time is over at the state's clock is none, swept or not.

use super::Answer;
use crate::apply::no_lock;
use crate::entity::{Lock, LockHolder, LockWait, LockWaiter};
use crate::ids::{LockId, Revision};
use crate::keys::{Group, Key};
use crate::limits::LOCK_WAITERS_SHOWN_MAX;
use crate::read::Reader;
use crate::rejection::{Fatal, Stop};
use crate::rows::{HolderRow, LockNameRow, LockRow, Row, SystemRow, WaiterRow};
use crate::view::{View, successor};

pub(super) fn lock<V: View + ?Sized>(read: &Reader<'_, V>, system: &SystemRow, name: &str) -> Result<Answer, Stop> {
    let Some(LockNameRow { lock }) = read.row(Key::LockName { name })? else {
        return Err(no_lock(name).into());
    };
    Ok(Answer::Lock(shown(read, system, lock)?))
}

pub(super) fn locks<V: View + ?Sized>(
    read: &Reader<'_, V>,
    system: &SystemRow,
    after: Option<&str>,
    limit: u32,
) -> Result<Answer, Stop> {
    let range = Group::LockNames.range(read.space);
    let from = after.map_or(range.start, |name| {
        successor(&Key::LockName { name }.encode(read.space))
    });
    let limit = limit as usize;
    let names = read.view.scan(&from, &range.end, false, limit + 1)?;
    let mut locks = Vec::with_capacity(limit.min(names.len()));
    for (_, value) in names.iter().take(limit) {
        let LockNameRow { lock } = LockNameRow::from_bytes(value).map_err(Fatal::from)?;
        locks.push(shown(read, system, lock)?);
    }
    let next = (names.len() > limit)
        .then(|| locks.last().map(|lock: &Lock| lock.lock.clone()))
        .flatten();
    Ok(Answer::Locks { locks, next })
}

pub(super) fn wait<V: View + ?Sized>(
    read: &Reader<'_, V>,
    system: &SystemRow,
    lock: LockId,
    since: Revision,
) -> Result<Answer, Stop> {
    let waiting: Option<WaiterRow> = read.row(Key::Waiter { lock, since })?;
    if waiting.is_some() {
        return Ok(Answer::LockWait(LockWait::Waiting));
    }
    let row: Option<LockRow> = read.row(Key::Lock { lock })?;
    let held = row
        .and_then(|row| held(&row, system))
        .filter(|holder| holder.since == since);
    Ok(Answer::LockWait(match held {
        Some(holder) => LockWait::Granted {
            token: holder.token,
            expires_ms: holder.expires_ms,
        },
        None => LockWait::Over,
    }))
}

fn held(row: &LockRow, system: &SystemRow) -> Option<HolderRow> {
    row.holder
        .clone()
        .filter(|holder| holder.expires_ms > system.elapsed_ms)
}

fn shown<V: View + ?Sized>(read: &Reader<'_, V>, system: &SystemRow, id: LockId) -> Result<Lock, Fatal> {
    let row: LockRow = read.must(Key::Lock { lock: id })?;
    let queue = read.waiters(id, &row, LOCK_WAITERS_SHOWN_MAX)?;
    let holder = held(&row, system).map(|holder| LockHolder {
        owner: holder.owner,
        token: holder.token,
        expires_ms: holder.expires_ms,
        data: holder.data,
    });
    Ok(Lock {
        lock: row.name,
        holder,
        queue: queue
            .into_iter()
            .map(|(_, waiter)| LockWaiter {
                owner: waiter.owner,
                asked_ms: waiter.asked_ms,
            })
            .collect(),
        waiters: row.waiters,
        last_token: row.last_token,
        rev: row.rev,
    })
}
