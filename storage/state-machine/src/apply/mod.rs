//! What a command does to the state.
//!
//! [`apply`] is the one way in: it checks in the order of the contract, runs the command on a
//! savepoint, and decides what stays. The files beside this one hold one concept each.
//!
//! Three rules hold for every command:
//! - What changes something takes the next revision, once, however much it changes.
//! - What changes nothing (a refusal, a replay, a member who joins again, a patch that says what is
//!   already so) takes no revision and writes nothing. Under an idempotency key, what was decided
//!   is written down all the same.
//! - A refusal tells the first thing that is wrong, in the contract's order: 400, 401, replay,
//!   404, 403, 412, 409, 422.

mod access;
mod check;
mod context;
mod dedup;
mod edit;
mod lock;
mod member;
mod message;
mod outcome;
mod room;
mod session;
mod timers;
mod user;
mod version;

pub(crate) use lock::no_lock;
pub use outcome::{Outcome, Response};

use crate::command::{Command, EntryMeta, Envelope};
use crate::ids::SpaceId;
use crate::keys::Key;
use crate::planted::{Bug, is_planted};
use crate::read::Reader;
use crate::rejection::{Fatal, Rejection, Stop, settle};
use crate::rows::{Row, SystemRow};
use crate::view::{Overlay, View};
use context::{Context, Done, Told};

/// Applies one command. A refusal leaves nothing behind but its dedup record.
///
/// An error means that the state is damaged or cannot be read; the overlay must not be written then.
pub fn apply<V: View>(state: &mut Overlay<V>, meta: EntryMeta, mut envelope: Envelope) -> Result<Outcome, Fatal> {
    let space = envelope.space;
    let mut system = Reader { view: &*state, space }.system()?;
    let stamped_ms = match is_planted(Bug::ExpiryByLocalClock) {
        true => meta.wall_ms,
        false => meta.elapsed_ms,
    };
    // The log's clock never goes back, whatever the leaders stamped.
    system.elapsed_ms = system.elapsed_ms.max(stamped_ms);
    let outcome = |response: Result<Done, Rejection>, system: &SystemRow, told: Told| {
        let replayed = response.as_ref().is_ok_and(|done| done.replayed);
        let response = response.map(|done| done.response);
        Outcome {
            response,
            replayed,
            epoch: system.epoch,
            revision: system.revision,
            events: told.events,
            topics: told.topics,
        }
    };

    if let Err(rejection) = check::envelope(&mut envelope) {
        return Ok(outcome(Err(rejection), &system, Told::default()));
    }
    let who = match settle(Reader { view: &*state, space }.who(&envelope.caller, system.elapsed_ms))? {
        Ok(who) => who,
        Err(rejection) => return Ok(outcome(Err(rejection), &system, Told::default())),
    };
    let ticket = match &envelope.idempotency {
        None => None,
        Some(idempotency) => match dedup::look_up(state, space, &system, &who, idempotency, &envelope.command)? {
            dedup::Found::New(ticket) => Some(ticket),
            dedup::Found::Refused(rejection) => return Ok(outcome(Err(rejection), &system, Told::default())),
            dedup::Found::Before(response) => {
                if let (Ok(before), Command::AcquireLock { lock, waiter, home, .. }) = (&response, &envelope.command) {
                    lock::ask_again(state, space, lock, before, *waiter, *home)?;
                }
                let outcome = outcome(response.map(Done::new), &system, Told::default());
                return Ok(Outcome {
                    replayed: true,
                    ..outcome
                });
            }
        },
    };

    let kept = dedup::Kept::of(&envelope.command);
    let savepoint = state.savepoint();
    let key = envelope.idempotency.map(|idempotency| idempotency.key);
    let mut context = Context::new(
        state,
        space,
        who,
        envelope.conditions,
        key,
        system.clone(),
        meta.wall_ms,
    );
    let result = settle(run(&mut context, envelope.command))?;
    let (after, changed, told) = context.finish();
    let (changed, told) = match &result {
        Ok(_) => {
            state.release(savepoint);
            system = after;
            (changed, told)
        }
        Err(_) => {
            state.rollback(savepoint);
            (false, Told::default())
        }
    };

    let keyed = ticket.is_some();
    if changed || keyed {
        dedup::sweep(state, space, &mut system)?;
    }
    if let Some(ticket) = ticket {
        let decided = dedup::decided(result.as_ref().map(|done| &done.response), kept, system.elapsed_ms);
        dedup::remember(state, space, &mut system, ticket, decided)?;
    }
    if changed || keyed {
        state.put(Key::System.encode(space), system.to_bytes());
    }
    Ok(outcome(result, &system, told))
}

fn run<V: View>(context: &mut Context<'_, V>, command: Command) -> Result<Done, Stop> {
    version::check(context, &command)?;
    match command {
        Command::CreateUser {
            user,
            display_name,
            email,
            password_hash,
            attributes,
        } => user::create(context, user, display_name, email, password_hash, attributes),
        Command::UpdateUser {
            user,
            display_name,
            email,
            password_hash,
            attributes,
        } => user::update(context, &user, display_name, email, password_hash, attributes),
        Command::DeleteUser { user } => user::delete(context, &user),
        Command::CreateRoom {
            room,
            kind,
            title,
            members,
            attributes,
        } => room::create(context, room, kind, title, members, attributes),
        Command::UpdateRoom {
            room,
            title,
            attributes,
        } => room::update(context, &room, title, attributes),
        Command::DeleteRoom { room } => room::delete(context, &room),
        Command::PutMember { room, user, role } => member::put(context, &room, user, role),
        Command::RemoveMember { room, user } => member::remove(context, &room, &user),
        Command::Send { room, messages, batch } => message::send(context, room, messages, batch),
        Command::RaiseVersion { to } => version::raise(context, to),
        Command::EditMessage { room, seq, text } => edit::edit(context, room, seq, text),
        Command::RedactMessage { room, seq } => edit::redact(context, &room, seq),
        Command::CreateSession {
            user,
            password_hash,
            token,
            device,
            ttl_ms,
        } => session::create(context, user, &password_hash, token, device, ttl_ms),
        Command::EndSession => session::end_own(context),
        Command::AcquireLock {
            lock,
            owner,
            ttl_ms,
            wait_ms,
            data,
            waiter,
            home,
        } => {
            let asked = lock::Asked {
                owner,
                ttl_ms,
                wait_ms,
                data,
                waiter,
                home,
            };
            lock::acquire(context, lock, asked)
        }
        Command::RenewLock { lock, token, ttl_ms } => lock::renew(context, &lock, token, ttl_ms),
        Command::ReleaseLock { lock, token } => lock::release(context, &lock, token),
        Command::AbandonLock { lock, waiter, since } => lock::abandon(context, &lock, waiter, since),
        Command::DropWaiters { node, except } => lock::drop_waiters(context, node, except),
        Command::Tick => timers::tick(context),
    }
}

/// The space's replicated clock: where a new leader's own monotonic time is added.
pub fn elapsed_ms<V: View + ?Sized>(view: &V, space: SpaceId) -> Result<u64, Fatal> {
    Ok(Reader { view, space }.system()?.elapsed_ms)
}
