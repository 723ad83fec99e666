//! Sessions: who has signed in, and with which token.
//!
//! - The node that is asked verifies the password, and then proposes the session together with the hash that
//!   it verified against: a password that was changed in between signs nobody in.
//! - A session lasts for its ttl on the replicated clock. An entry whose clock has reached the end refuses the
//!   token, swept or not (see [`Reader::who`](crate::read::Reader::who)).
//! - A session goes with its user, and with his password: when that changes, all of his sessions end but the
//!   one that changes it. Whoever knew the old password is out.
//! - However a session ends, [`end`] takes all of it away and wakes those who follow it: open streams.

use super::context::{Context, Done};
use super::outcome::Response;
use super::timers;
use crate::event::Topic;
use crate::ids::{Revision, TokenHash, UserId};
use crate::keys::{Expiring, Group, Key};
use crate::limits::USER_SESSIONS_MAX;
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::{Row, SessionRow, TimersRow, UserSessionRow};
use crate::view::View;

/// Signs the user in. For root: the node, which has verified the password against `password_hash`.
pub(super) fn create<V: View>(
    context: &mut Context<'_, V>,
    name: String,
    password_hash: &str,
    token: TokenHash,
    device: Option<String>,
    ttl_ms: u64,
) -> Result<Done, Stop> {
    if !context.who.is_root() {
        return Err(Stop::refused(Code::Forbidden, "only the node signs users in"));
    }
    let user = still_verified(context, &name, password_hash)?;
    context.check_conditions(None)?;
    if context.read().row::<SessionRow>(Key::Session { token })?.is_some() {
        return Err(Stop::refused(Code::Conflict, "the token is one of a session already"));
    }
    let sessions = sessions_of(context, user)?;
    // One session is added at a time, so that there is never more than one too many.
    if sessions.len() >= USER_SESSIONS_MAX
        && let Some((began, token)) = sessions.first()
    {
        end(context, user, *began, *token)?;
    }
    let began = context.rev;
    let session = SessionRow {
        user,
        began,
        device,
        created_at_ms: context.wall_ms,
        expires_ms: context.now_ms().saturating_add(ttl_ms),
    };
    context.put(Key::Session { token }, &session);
    context.put(Key::UserSession { user, began }, &UserSessionRow { token });
    timers::set(context, session.expires_ms, Expiring::Session(user, began))?;
    let timers = context.timers()?;
    let sessions = timers.sessions + 1;
    context.put(Key::Timers, &TimersRow { sessions, ..timers });
    Ok(Done::new(Response::SessionCreated {
        user: name,
        expires_at_ms: context.wall_ms.saturating_add(ttl_ms),
    }))
}

/// Ends the session that the caller asks with.
pub(super) fn end_own<V: View>(context: &mut Context<'_, V>) -> Result<Done, Stop> {
    let Some((token, began)) = context.who.session else {
        return Err(Stop::refused(
            Code::NotFound,
            "the request was not made with a session's token",
        ));
    };
    context.check_conditions(Some(began))?;
    let user = context.who.id;
    end(context, user, began, token)?;
    Ok(Done::new(Response::Deleted))
}

/// Ends all of the user's sessions, but not the one that the caller asks with if it is to be `spared`.
pub(super) fn end_all<V: View>(context: &mut Context<'_, V>, user: UserId, spared: Spared) -> Result<(), Stop> {
    let own = match spared {
        Spared::Own => context.who.session.map(|(token, _)| token),
        Spared::None => None,
    };
    for (began, token) in sessions_of(context, user)? {
        if own != Some(token) {
            end(context, user, began, token)?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spared {
    Own,
    None,
}

/// A session's time is over.
pub(super) fn expire<V: View>(context: &mut Context<'_, V>, user: UserId, began: Revision) -> Result<(), Stop> {
    let UserSessionRow { token } = context.read().must(Key::UserSession { user, began })?;
    end(context, user, began, token)
}

// ---- below: the steps ----

/// The user, if that is what his password is verified against now.
fn still_verified<V: View>(context: &Context<'_, V>, name: &str, password_hash: &str) -> Result<UserId, Stop> {
    let read = context.read();
    if let Some(user) = read.user_named(name)?
        && read.user(user)?.password_hash.as_deref() == Some(password_hash)
    {
        return Ok(user);
    }
    // Whether there is such a user is nobody's business who does not know his password.
    Err(Stop::refused(
        Code::Unauthenticated,
        "the user or the password is wrong",
    ))
}

/// The oldest first. At most [`USER_SESSIONS_MAX`], because nobody has more.
fn sessions_of<V: View>(context: &Context<'_, V>, user: UserId) -> Result<Vec<(Revision, TokenHash)>, Stop> {
    let range = Group::UserSessions { user }.range(context.space);
    let index = context.state.scan(&range.start, &range.end, false, USER_SESSIONS_MAX)?;
    let decoded = index.iter().map(|(key, value)| match Key::decode(key) {
        Some((_, Key::UserSession { began, .. })) => {
            let UserSessionRow { token } = UserSessionRow::from_bytes(value).map_err(Fatal::from)?;
            Ok((began, token))
        }
        _ => Err(Fatal::Corrupt("a key among the sessions of a user is none".to_owned()).into()),
    });
    decoded.collect()
}

/// Nobody asks with this token any more.
fn end<V: View>(context: &mut Context<'_, V>, user: UserId, began: Revision, token: TokenHash) -> Result<(), Stop> {
    let session: SessionRow = context.read().must(Key::Session { token })?;
    timers::unset(context, session.expires_ms, Expiring::Session(user, began));
    context.delete(Key::UserSession { user, began });
    context.delete(Key::Session { token });
    let timers = context.timers()?;
    let sessions = timers.sessions - 1;
    context.put(Key::Timers, &TimersRow { sessions, ..timers });
    context.wake(Topic::Session(token));
    Ok(())
}
