//! What expires by the replicated clock, besides idempotency keys: one queue for locks, waiters and sessions.
//!
//! Whether something has expired is always decided by comparing its time with the entry's clock. The
//! sweep only brings about what follows: whose turn it is, which streams end, what takes no room any more.

use super::context::{Context, Done};
use super::outcome::Response;
use crate::keys::{Expiring, Group, Key};
use crate::limits::TICK_SWEPT_MAX;
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::{ExpiryRow, TimersRow};
use crate::view::View;

/// Puts something in the queue.
pub(super) fn set<V: View>(context: &mut Context<'_, V>, at_ms: u64, what: Expiring) -> Result<(), Stop> {
    context.put(Key::Expiry { at_ms, what }, &ExpiryRow {});
    let timers = context.timers()?;
    if timers.next_ms.is_none_or(|next| at_ms < next) {
        let next_ms = Some(at_ms);
        context.put(Key::Timers, &TimersRow { next_ms, ..timers });
    }
    Ok(())
}

/// Takes it out again. The queue may be looked at in vain later; that is cheaper than to search now.
pub(super) fn unset<V: View>(context: &mut Context<'_, V>, at_ms: u64, what: Expiring) {
    context.delete(Key::Expiry { at_ms, what });
}

/// Sweeps a bounded number. For root: the leader.
pub(super) fn tick<V: View>(context: &mut Context<'_, V>) -> Result<Done, Stop> {
    if !context.who.is_root() {
        return Err(Stop::refused(Code::Forbidden, "only root sweeps"));
    }
    context.check_conditions(None)?;
    let now_ms = context.now_ms();
    let Some(next_ms) = context.timers()?.next_ms.filter(|next| *next <= now_ms) else {
        return Ok(Done::new(Response::Swept { more: false }));
    };
    let due = due(context, next_ms, TICK_SWEPT_MAX)?;
    for (at_ms, what) in &due {
        if *at_ms > now_ms {
            break;
        }
        match *what {
            Expiring::Lock(lock) => super::lock::expire(context, lock)?,
            Expiring::Waiter(lock, since) => super::lock::expire_waiter(context, lock, since)?,
            Expiring::Session(user, began) => super::session::expire(context, user, began)?,
        }
    }
    // What was swept may have put something new into the queue, and waiters may have left it with a lock.
    let next_ms = due.first().map_or(next_ms, |(at_ms, _)| *at_ms);
    let next_ms = self::due(context, next_ms, 1)?.first().map(|(at_ms, _)| *at_ms);
    let timers = context.timers()?;
    context.put_unseen(Key::Timers, &TimersRow { next_ms, ..timers });
    let more = next_ms.is_some_and(|next| next <= now_ms);
    Ok(Done::new(Response::Swept { more }))
}

/// The first of the queue, from a time on before which there is nothing.
fn due<V: View>(context: &Context<'_, V>, from_ms: u64, limit: usize) -> Result<Vec<(u64, Expiring)>, Stop> {
    let from = Key::Expiry {
        at_ms: from_ms,
        what: Expiring::Lock(crate::ids::LockId(0)),
    }
    .encode(context.space);
    let to = Group::Expiries.range(context.space).end;
    let queue = context.state.scan(&from, &to, false, limit)?;
    let decoded = queue.iter().map(|(key, _)| match Key::decode(key) {
        Some((_, Key::Expiry { at_ms, what })) => Ok((at_ms, what)),
        _ => Err(Fatal::Corrupt("a key in the queue of expiry is none".to_owned()).into()),
    });
    decoded.collect()
}
