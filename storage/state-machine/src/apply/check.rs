//! What is wrong with a command in itself, whatever the state. The API refuses these before they
//! are proposed; they are checked again because a command may come from another node or version.

use std::collections::BTreeSet;

use crate::command::{Caller, Command, Envelope, NewMessage, Patch};
use crate::fields;
use crate::ids::SpaceId;
use crate::limits::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX, NEW_ROOM_MEMBERS_MAX, PASSWORD_HASH_BYTES_MAX};
use crate::names;
use crate::rejection::{Code, Rejection};

/// Checks the envelope and its command, and brings attributes into canonical form.
pub(super) fn envelope(envelope: &mut Envelope) -> Result<(), Rejection> {
    if envelope.space != SpaceId::MAIN {
        return Err(bad(format!("there is no space {}", envelope.space)));
    }
    match &envelope.caller {
        Caller::User(name) => names::check("caller", name)?,
        Caller::Root | Caller::Session(_) => {}
    }
    if let Some(idempotency) = &envelope.idempotency {
        fields::idempotency_key(&idempotency.key)?;
        if !envelope.command.takes_key() {
            return Err(bad("this command takes no Idempotency-Key"));
        }
    }
    if let Some(lock) = &envelope.conditions.if_lock {
        names::check("If-Lock", &lock.name)?;
    }
    command(&mut envelope.command)
}

fn command(command: &mut Command) -> Result<(), Rejection> {
    match command {
        Command::CreateUser {
            user,
            display_name,
            email,
            password_hash,
            attributes,
        } => {
            names::check("user", user)?;
            display_name.as_deref().map_or(Ok(()), fields::display_name)?;
            email.as_deref().map_or(Ok(()), fields::email)?;
            password_hash.as_deref().map_or(Ok(()), hash)?;
            canonical(attributes)
        }
        Command::UpdateUser {
            user,
            display_name,
            email,
            password_hash,
            attributes,
        } => {
            names::check("user", user)?;
            patched(display_name, fields::display_name)?;
            patched(email, fields::email)?;
            patched(password_hash, hash)?;
            canonical_patch(attributes)
        }
        Command::DeleteUser { user } => names::check("user", user),
        Command::CreateRoom {
            room,
            kind: _,
            title,
            members,
            attributes,
        } => {
            names::check("room", room)?;
            title.as_deref().map_or(Ok(()), fields::title)?;
            if members.len() > NEW_ROOM_MEMBERS_MAX {
                let detail = format!("a room begins with at most {NEW_ROOM_MEMBERS_MAX} members");
                return Err(Rejection::new(Code::TooLarge, detail));
            }
            members.iter().try_for_each(|name| names::check("members", name))?;
            // Naming someone twice means the same as naming him once.
            let mut seen = BTreeSet::new();
            members.retain(|name| seen.insert(name.clone()));
            canonical(attributes)
        }
        Command::UpdateRoom {
            room,
            title,
            attributes,
        } => {
            names::check("room", room)?;
            patched(title, fields::title)?;
            canonical_patch(attributes)
        }
        Command::DeleteRoom { room } => names::check("room", room),
        Command::PutMember { room, user, role: _ } | Command::RemoveMember { room, user } => {
            names::check("room", room)?;
            names::check("user", user)
        }
        // Whether it goes up is a question to the state.
        Command::RaiseVersion { to: _ } => Ok(()),
        Command::EditMessage { room, seq: _, text } => {
            names::check("room", room)?;
            fields::text(text)
        }
        Command::RedactMessage { room, seq: _ } => names::check("room", room),
        Command::CreateSession {
            user,
            password_hash,
            token: _,
            device,
            ttl_ms,
        } => {
            names::check("user", user)?;
            hash(password_hash)?;
            device.as_deref().map_or(Ok(()), fields::device)?;
            fields::session_ttl_ms(*ttl_ms)
        }
        Command::AcquireLock {
            lock,
            owner,
            ttl_ms,
            wait_ms,
            data,
            waiter: _,
            home: _,
        } => {
            names::check("lock", lock)?;
            fields::lock_owner(owner)?;
            fields::lock_ttl_ms(*ttl_ms)?;
            fields::lock_wait_ms(*wait_ms)?;
            if let Some(text) = data {
                *text = fields::canonical_lock_data(text)?;
            }
            Ok(())
        }
        Command::RenewLock { lock, token: _, ttl_ms } => {
            names::check("lock", lock)?;
            ttl_ms.map_or(Ok(()), fields::lock_ttl_ms)
        }
        Command::ReleaseLock { lock, token: _ } | Command::AbandonLock { lock, .. } => names::check("lock", lock),
        Command::EndSession | Command::DropWaiters { .. } | Command::Tick => Ok(()),
        Command::Send { room, messages, batch } => {
            names::check("room", room)?;
            if messages.is_empty() || (!*batch && messages.len() > 1) {
                return Err(bad("a batch has at least one message, and a single send exactly one"));
            }
            if messages.len() > BATCH_MESSAGES_MAX {
                let detail = format!(
                    "a batch has at most {BATCH_MESSAGES_MAX} messages, this one {}",
                    messages.len()
                );
                return Err(Rejection::new(Code::TooLarge, detail));
            }
            messages.iter_mut().try_for_each(message)?;
            if messages.iter().map(|message| message.text.len()).sum::<usize>() > BODY_BYTES_MAX {
                return Err(Rejection::new(
                    Code::TooLarge,
                    format!("a batch has at most {BODY_BYTES_MAX} bytes"),
                ));
            }
            Ok(())
        }
    }
}

fn message(message: &mut NewMessage) -> Result<(), Rejection> {
    fields::text(&message.text)?;
    message.client_id.as_deref().map_or(Ok(()), fields::client_id)?;
    message.kind.as_deref().map_or(Ok(()), fields::kind)?;
    message
        .sender
        .as_deref()
        .map_or(Ok(()), |name| names::check("sender", name))?;
    message.sent_at_ms.map_or(Ok(()), fields::sent_at_ms)?;
    if message.reply_to.is_some_and(|seq| seq.0 == 0) {
        return Err(bad("reply_to: seqs count from 1"));
    }
    canonical(&mut message.attributes)
}

fn hash(value: &str) -> Result<(), Rejection> {
    if value.is_empty() || value.len() > PASSWORD_HASH_BYTES_MAX {
        return Err(bad("password: not a hash"));
    }
    Ok(())
}

fn canonical(attributes: &mut Option<String>) -> Result<(), Rejection> {
    if let Some(text) = attributes {
        *text = fields::canonical_attributes(text)?;
    }
    Ok(())
}

fn canonical_patch(attributes: &mut Patch<String>) -> Result<(), Rejection> {
    if let Patch::Set(text) = attributes {
        *text = fields::canonical_attributes(text)?;
    }
    Ok(())
}

fn patched(patch: &Patch<String>, check: fn(&str) -> Result<(), Rejection>) -> Result<(), Rejection> {
    match patch {
        Patch::Set(value) => check(value),
        Patch::Keep | Patch::Remove => Ok(()),
    }
}

fn bad(detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::BadRequest, detail)
}
