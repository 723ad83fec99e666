//! Locks: exclusive, with a ttl on the replicated clock and a fencing token for each grant.
//!
//! - A lock is held until it is given back or its ttl is over. An entry whose clock has reached the end finds
//!   it free, swept or not.
//! - Who waits is served first come, first served, in the entry in which the lock becomes free; nobody is
//!   granted anything after his deadline, or after he was given up.
//! - The token is made of the revision of the grant, so a later grant's is larger, on every lock and for ever.
//!   [`check_held`] compares it in the entry of the write that it guards.
//! - Under an idempotency key a wait is one wait, however often it is asked for. Once it was asked for twice, the end
//!   of a connection ends nothing any more: which of them its owner listens at, nobody can know.

use super::context::{Context, Done};
use super::dedup;
use super::outcome::Response;
use super::timers;
use crate::command::{Home, IfLock};
use crate::event::Topic;
use crate::ids::{FencingToken, LockId, Revision, RunId, SpaceId, UserId, WaiterId};
use crate::keys::{Expiring, Group, Key};
use crate::limits::{LOCK_KEPT_MS, LOCK_WAITERS_MAX, LOCKS_MAX, TICK_SWEPT_MAX};
use crate::planted::{Bug, is_planted};
use crate::read::Reader;
use crate::rejection::{Code, Fatal, Rejection, Stop};
use crate::rows::{Decided, HolderRow, HomeWaiterRow, LockNameRow, LockRow, Row, TimersRow, UserRow, WaiterRow};
use crate::view::{Overlay, View};

/// A request for a lock.
pub(super) struct Asked {
    pub(super) owner: String,
    pub(super) ttl_ms: u64,
    pub(super) wait_ms: u64,
    pub(super) data: Option<String>,
    pub(super) waiter: WaiterId,
    pub(super) home: Home,
}

/// `If-Lock`: the write goes through only under a lock that is held, with exactly this token.
pub(super) fn check_held<V: View>(context: &Context<'_, V>, wanted: &IfLock) -> Result<(), Stop> {
    let held = find(context, &wanted.name)?.and_then(|(_, row)| row.holder);
    if held.is_some_and(|holder| holder.token == wanted.token && holder.expires_ms > context.now_ms()) {
        return Ok(());
    }
    Err(lost(&wanted.name, wanted.token))
}

/// Takes the lock if it is free; else waits for it, if the caller wants to.
pub(super) fn acquire<V: View>(context: &mut Context<'_, V>, name: String, asked: Asked) -> Result<Done, Stop> {
    let found = find(context, &name)?;
    context.check_conditions(found.as_ref().map(|(_, row)| row.rev))?;
    let (id, mut row) = match found {
        Some(found) => found,
        None => create(context, name)?,
    };
    settle(context, id, &mut row)?;
    let since = context.rev;
    if row.holder.is_none() {
        let holder = HolderRow {
            owner: asked.owner,
            caller: context.who.id,
            token: token(context),
            since,
            waiter: asked.waiter,
            ttl_ms: asked.ttl_ms,
            expires_ms: context.now_ms().saturating_add(asked.ttl_ms),
            data: asked.data,
        };
        let response = held(context, &holder);
        grant(&mut row, holder);
        save(context, id, row)?;
        return Ok(Done::new(response));
    }
    if asked.wait_ms == 0 {
        return Err(taken(&row.name).into());
    }
    if row.waiters >= LOCK_WAITERS_MAX {
        let detail = format!("{LOCK_WAITERS_MAX} wait for the lock \"{}\" already", row.name);
        return Err(Stop::refused(Code::RateLimited, detail));
    }
    let waiter = WaiterRow {
        owner: asked.owner,
        caller: context.who.id,
        waiter: asked.waiter,
        home: asked.home,
        ttl_ms: asked.ttl_ms,
        asked_ms: context.now_ms(),
        deadline_ms: context.now_ms().saturating_add(asked.wait_ms),
        data: asked.data,
        key: context.key.clone(),
    };
    context.put(Key::Waiter { lock: id, since }, &waiter);
    put_home(context, id, since, waiter.home);
    timers::set(context, waiter.deadline_ms, Expiring::Waiter(id, since))?;
    row.waiters += 1;
    save(context, id, row)?;
    Ok(Done::new(Response::LockWaiting { lock: id, since }))
}

/// Its ttl begins anew.
pub(super) fn renew<V: View>(
    context: &mut Context<'_, V>,
    name: &str,
    token: FencingToken,
    ttl_ms: Option<u64>,
) -> Result<Done, Stop> {
    let (id, mut row, mut holder) = own(context, name, token)?;
    holder.expires_ms = context.now_ms().saturating_add(ttl_ms.unwrap_or(holder.ttl_ms));
    let response = held(context, &holder);
    row.holder = Some(holder);
    save(context, id, row)?;
    Ok(Done::new(response))
}

/// Gives the lock back; whoever's turn it is has it from this entry on.
pub(super) fn release<V: View>(context: &mut Context<'_, V>, name: &str, token: FencingToken) -> Result<Done, Stop> {
    let (id, mut row, _) = own(context, name, token)?;
    end(context, id, &mut row)?;
    save(context, id, row)?;
    Ok(Done::new(Response::Deleted))
}

/// Who asked is gone: he waits no more, and what he was granted is given back. Nothing, if somebody else has
/// asked under the same key since, or if it was over anyway.
pub(super) fn abandon<V: View>(
    context: &mut Context<'_, V>,
    name: &str,
    gone: WaiterId,
    since: Option<Revision>,
) -> Result<Done, Stop> {
    if !context.who.is_root() {
        return Err(Stop::refused(
            Code::Forbidden,
            "only the node gives up who waited at it",
        ));
    }
    context.check_conditions(None)?;
    let done = Done::new(Response::Swept { more: false });
    let Some((id, mut row)) = find(context, name)? else {
        return Ok(done);
    };
    if row.holder.as_ref().is_some_and(|holder| holder.waiter == gone) {
        end(context, id, &mut row)?;
        save(context, id, row)?;
        return Ok(done);
    }
    // Many connections may close at once: each of these costs one row, not a walk over all who wait.
    let waiting = match since {
        Some(since) => context
            .read()
            .row(Key::Waiter { lock: id, since })?
            .map(|waiter| vec![(since, waiter)])
            .unwrap_or_default(),
        None => waiters(context, id, &row, LOCK_WAITERS_MAX as usize)?,
    };
    if let Some((since, waiter)) = waiting.into_iter().find(|(_, waiter)| waiter.waiter == gone) {
        leave(context, id, &mut row, since, &waiter)?;
        save(context, id, row)?;
    }
    Ok(done)
}

/// The node, or an earlier run of it, is gone, and with it everybody who waited there: a bounded number.
pub(super) fn drop_waiters<V: View>(
    context: &mut Context<'_, V>,
    node: u64,
    except: Option<RunId>,
) -> Result<Done, Stop> {
    if !context.who.is_root() {
        return Err(Stop::refused(
            Code::Forbidden,
            "only root gives up who waited at a node",
        ));
    }
    context.check_conditions(None)?;
    let range = Group::HomeWaiters { node }.range(context.space);
    let homes = context.state.scan(&range.start, &range.end, false, usize::MAX)?;
    let mut dropped = 0;
    for (key, value) in homes {
        let Some((_, Key::HomeWaiter { lock, since, .. })) = Key::decode(&key) else {
            return Err(Fatal::Corrupt("a key among the waiters of a node is none".to_owned()).into());
        };
        let HomeWaiterRow { run } = HomeWaiterRow::from_bytes(&value).map_err(Fatal::from)?;
        if except == Some(run) {
            continue;
        }
        if dropped == TICK_SWEPT_MAX {
            return Ok(Done::new(Response::Swept { more: true }));
        }
        dropped += 1;
        let mut row = must_lock(context, lock)?;
        let waiter: WaiterRow = context.read().must(Key::Waiter { lock, since })?;
        leave(context, lock, &mut row, since, &waiter)?;
        save(context, lock, row)?;
    }
    Ok(Done::new(Response::Swept { more: false }))
}

/// The time of a lock is over: a held one goes on to whoever's turn it is, a free one is forgotten.
pub(super) fn expire<V: View>(context: &mut Context<'_, V>, id: LockId) -> Result<(), Stop> {
    let mut row = must_lock(context, id)?;
    if row.holder.is_some() {
        settle(context, id, &mut row)?;
        return save(context, id, row);
    }
    timers::unset(context, row.timer_ms, Expiring::Lock(id));
    context.delete(Key::Lock { lock: id });
    context.delete(Key::LockName { name: &row.name });
    let timers = context.timers()?;
    let locks = timers.locks - 1;
    context.put(Key::Timers, &TimersRow { locks, ..timers });
    Ok(())
}

/// The time of somebody who waits is over. He may have been served, or have left, in the same sweep.
pub(super) fn expire_waiter<V: View>(context: &mut Context<'_, V>, id: LockId, since: Revision) -> Result<(), Stop> {
    let Some(waiter) = context.read().row::<WaiterRow>(Key::Waiter { lock: id, since })? else {
        return Ok(());
    };
    let mut row = must_lock(context, id)?;
    leave(context, id, &mut row, since, &waiter)?;
    save(context, id, row)
}

/// No request has this id: they are drawn by chance from 128 bits.
const NOBODY: WaiterId = WaiterId(0);

/// The same request comes again under its key, perhaps at another node. The order in which two attempts come to the
/// log is not that in which they were made: the first may have lain in a node that was paused, whose connection its
/// owner has long left. If the going of either could end what was granted, it would end what the other was told. So
/// neither can; what nobody gives back ends by its ttl, and who waits for nobody by his deadline, or with his node.
pub(super) fn ask_again<V: View>(
    state: &mut Overlay<V>,
    space: SpaceId,
    name: &str,
    before: &Response,
    waiter: WaiterId,
    home: Home,
) -> Result<(), Fatal> {
    let read = Reader { view: &*state, space };
    match *before {
        Response::LockWaiting { lock, since } => {
            let key = Key::Waiter { lock, since };
            let mut row: WaiterRow = read.must(key)?;
            let old = Key::HomeWaiter {
                node: row.home.node,
                lock,
                since,
            };
            let new = Key::HomeWaiter {
                node: home.node,
                lock,
                since,
            };
            row.waiter = of_either(row.waiter, waiter);
            row.home = home;
            state.delete(old.encode(space));
            state.put(new.encode(space), HomeWaiterRow { run: home.run }.to_bytes());
            state.put(key.encode(space), row.to_bytes());
        }
        Response::LockHeld { token, .. } => {
            let Some(LockNameRow { lock }) = read.row(Key::LockName { name })? else {
                return Ok(());
            };
            let mut row: LockRow = read.must(Key::Lock { lock })?;
            if let Some(holder) = row.holder.as_mut().filter(|holder| holder.token == token) {
                holder.waiter = of_either(holder.waiter, waiter);
                state.put(Key::Lock { lock }.encode(space), row.to_bytes());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whose going away ends it, after both have asked.
fn of_either(before: WaiterId, now: WaiterId) -> WaiterId {
    if before == now { now } else { NOBODY }
}

// ---- below: the steps ----

fn find<V: View>(context: &Context<'_, V>, name: &str) -> Result<Option<(LockId, LockRow)>, Stop> {
    match context.read().row(Key::LockName { name })? {
        Some(LockNameRow { lock }) => Ok(Some((lock, must_lock(context, lock)?))),
        None => Ok(None),
    }
}

fn must_lock<V: View>(context: &Context<'_, V>, lock: LockId) -> Result<LockRow, Stop> {
    Ok(context.read().must(Key::Lock { lock })?)
}

/// The lock that a path names, its row and its holder: the caller, or else root, with this token.
fn own<V: View>(
    context: &Context<'_, V>,
    name: &str,
    token: FencingToken,
) -> Result<(LockId, LockRow, HolderRow), Stop> {
    let Some((id, row)) = find(context, name)? else {
        return Err(no_lock(name).into());
    };
    let live = row.holder.clone().filter(|holder| holder.expires_ms > context.now_ms());
    if live
        .as_ref()
        .is_some_and(|holder| !context.who.is_root() && holder.caller != context.who.id)
    {
        let detail = format!("the lock \"{name}\" is held by another user");
        return Err(Stop::refused(Code::Forbidden, detail));
    }
    context.check_conditions(Some(row.rev))?;
    match live.filter(|holder| holder.token == token) {
        Some(holder) => Ok((id, row, holder)),
        None => Err(lost(name, token)),
    }
}

/// A lock that was never used, or is forgotten.
fn create<V: View>(context: &mut Context<'_, V>, name: String) -> Result<(LockId, LockRow), Stop> {
    let timers = context.timers()?;
    if timers.locks >= LOCKS_MAX {
        let detail = format!("there are {LOCKS_MAX} locks already");
        return Err(Stop::refused(Code::RateLimited, detail));
    }
    let locks = timers.locks + 1;
    context.put(Key::Timers, &TimersRow { locks, ..timers });
    let id = LockId(context.rev.0);
    context.put(Key::LockName { name: &name }, &LockNameRow { lock: id });
    let row = LockRow {
        name,
        rev: context.rev,
        last_token: FencingToken(0),
        holder: None,
        waiters: 0,
        served: Revision(0),
        timer_ms: 0,
    };
    Ok((id, row))
}

/// Brings about what has happened by now: a holder whose time is over has lost the lock, and it is
/// whoever's turn it is.
fn settle<V: View>(context: &mut Context<'_, V>, id: LockId, row: &mut LockRow) -> Result<(), Stop> {
    if row
        .holder
        .as_ref()
        .is_some_and(|holder| holder.expires_ms <= context.now_ms())
    {
        end(context, id, row)?;
    }
    Ok(())
}

/// The holder has it no longer; the first who still waits has it now.
fn end<V: View>(context: &mut Context<'_, V>, id: LockId, row: &mut LockRow) -> Result<(), Stop> {
    row.holder = None;
    context.wake(Topic::Lock(id));
    while row.waiters > 0 && row.holder.is_none() {
        let first = waiters(context, id, row, 1)?.pop();
        let (since, waiter) = first.ok_or_else(|| Fatal::Corrupt(format!("who waits for the lock {id} is missing")))?;
        row.served = since;
        // Who was deleted meanwhile would hold it for a ttl, and nobody but root could give it back.
        let lives = waiter.caller == UserId::ROOT
            || context
                .read()
                .row::<UserRow>(Key::User { user: waiter.caller })?
                .is_some();
        if waiter.deadline_ms <= context.now_ms() || !lives {
            leave(context, id, row, since, &waiter)?;
            continue;
        }
        take_out(context, id, row, since, &waiter);
        let holder = HolderRow {
            owner: waiter.owner.clone(),
            caller: waiter.caller,
            token: token(context),
            since,
            waiter: waiter.waiter,
            ttl_ms: waiter.ttl_ms,
            expires_ms: context.now_ms().saturating_add(waiter.ttl_ms),
            data: waiter.data.clone(),
        };
        let decided = Decided::LockGranted {
            token: holder.token,
            expires_ms: holder.expires_ms,
        };
        decide(context, id, since, &waiter, decided)?;
        grant(row, holder);
    }
    Ok(())
}

/// Of a grant in this entry.
fn token<V: View>(context: &Context<'_, V>) -> FencingToken {
    let rev = match is_planted(Bug::TokenResetOnRestart) {
        // Grows with the time and, within a millisecond, with the revision.
        true => Revision((context.wall_ms << 20) + (context.rev.0 & 0xf_ffff)),
        false => context.rev,
    };
    FencingToken::new(context.system.epoch, rev)
}

fn grant(row: &mut LockRow, holder: HolderRow) {
    assert!(
        holder.token > row.last_token || is_planted(Bug::TokenResetOnRestart),
        "tokens only grow"
    );
    row.last_token = holder.token;
    row.holder = Some(holder);
}

/// Somebody waits no more, without having been granted anything.
fn leave<V: View>(
    context: &mut Context<'_, V>,
    id: LockId,
    row: &mut LockRow,
    since: Revision,
    waiter: &WaiterRow,
) -> Result<(), Stop> {
    take_out(context, id, row, since, waiter);
    context.wake(Topic::Lock(id));
    let refused = Decided::Refused(taken(&row.name));
    decide(context, id, since, waiter, refused)
}

fn take_out<V: View>(context: &mut Context<'_, V>, id: LockId, row: &mut LockRow, since: Revision, waiter: &WaiterRow) {
    context.delete(Key::Waiter { lock: id, since });
    context.delete(Key::HomeWaiter {
        node: waiter.home.node,
        lock: id,
        since,
    });
    timers::unset(context, waiter.deadline_ms, Expiring::Waiter(id, since));
    row.waiters -= 1;
}

/// What is answered from now on under the key with which he asked.
fn decide<V: View>(
    context: &mut Context<'_, V>,
    lock: LockId,
    since: Revision,
    waiter: &WaiterRow,
    decided: Decided,
) -> Result<(), Stop> {
    match &waiter.key {
        Some(key) => {
            let waiting = Decided::LockWaiting { lock, since };
            Ok(dedup::decide_later(
                context.state,
                context.space,
                waiter.caller,
                key,
                &waiting,
                decided,
            )?)
        }
        None => Ok(()),
    }
}

fn put_home<V: View>(context: &mut Context<'_, V>, lock: LockId, since: Revision, home: Home) {
    let key = Key::HomeWaiter {
        node: home.node,
        lock,
        since,
    };
    context.put(key, &HomeWaiterRow { run: home.run });
}

/// Who waits, first come first, at most `limit` of them.
fn waiters<V: View>(
    context: &Context<'_, V>,
    lock: LockId,
    row: &LockRow,
    limit: usize,
) -> Result<Vec<(Revision, WaiterRow)>, Stop> {
    Ok(context.read().waiters(lock, row, limit)?)
}

/// Writes the lock, and its place in the queue of expiry if that has changed.
fn save<V: View>(context: &mut Context<'_, V>, id: LockId, mut row: LockRow) -> Result<(), Stop> {
    let before: Option<LockRow> = context.read().row(Key::Lock { lock: id })?;
    let timer_ms = match &row.holder {
        Some(holder) => holder.expires_ms,
        None => context.now_ms().saturating_add(LOCK_KEPT_MS),
    };
    if before.as_ref().is_none_or(|before| before.timer_ms != timer_ms) {
        if let Some(before) = before {
            timers::unset(context, before.timer_ms, Expiring::Lock(id));
        }
        timers::set(context, timer_ms, Expiring::Lock(id))?;
        row.timer_ms = timer_ms;
    }
    row.rev = context.rev;
    context.put(Key::Lock { lock: id }, &row);
    Ok(())
}

fn held<V: View>(context: &Context<'_, V>, holder: &HolderRow) -> Response {
    Response::LockHeld {
        owner: holder.owner.clone(),
        token: holder.token,
        expires_in_ms: holder.expires_ms.saturating_sub(context.now_ms()),
    }
}

fn taken(name: &str) -> Rejection {
    Rejection::new(Code::LockHeld, format!("the lock \"{name}\" is held"))
}

fn lost(name: &str, token: FencingToken) -> Stop {
    let detail = format!("the lock \"{name}\" is not held with token {token}");
    Stop::refused(Code::LockLost, detail)
}

pub(crate) fn no_lock(name: &str) -> Rejection {
    Rejection::new(Code::NotFound, format!("the lock \"{name}\" has never been used"))
}
