//! Users. Only root makes them; a user may change and delete himself.
//!
//! The name `root` counts as taken. A deleted user's name can be used again, by a new user with a
//! new id: memberships go with the deleted one, and client ids and idempotency keys are looked up
//! by id. His messages keep his name. His sessions go with him, and with his password.

use super::context::{Context, Done};
use super::outcome::Response;
use super::session::{self, Spared};
use crate::attributes;
use crate::command::Patch;
use crate::entity::RoomKind;
use crate::event::EventBody;
use crate::fields;
use crate::ids::UserId;
use crate::keys::{Group, Key};
use crate::limits::MEMBERSHIPS_ENDED_MAX;
use crate::names;
use crate::rejection::{Code, Fatal, Rejection, Stop};
use crate::rows::{Row, UserNameRow, UserRoomRow, UserRow};
use crate::view::View;

pub(super) fn create<V: View>(
    context: &mut Context<'_, V>,
    name: String,
    display_name: Option<String>,
    email: Option<String>,
    password_hash: Option<String>,
    attributes: Option<String>,
) -> Result<Done, Stop> {
    if !context.who.is_root() {
        return Err(Stop::refused(Code::Forbidden, "only root makes users"));
    }
    let existing = context.read().user_named(&name)?;
    let existing_rev = existing
        .map(|id| context.read().user(id))
        .transpose()?
        .map(|row| row.rev);
    context.check_conditions(existing_rev)?;
    if existing.is_some() || name == names::ROOT {
        return Err(Stop::refused(
            Code::AlreadyExists,
            format!("there is a user \"{name}\" already"),
        ));
    }

    let id = context.system.next_user;
    context.system.next_user = UserId(id.0 + 1);
    let row = UserRow {
        display_name: display_name.unwrap_or_else(|| name.clone()),
        name,
        email,
        password_hash,
        attributes,
        created_at_ms: context.wall_ms,
        rev: context.rev,
    };
    context.put(Key::UserName { name: &row.name }, &UserNameRow { user: id });
    context.put(Key::User { user: id }, &row);
    Ok(Done::new(Response::User(row.entity(id))))
}

pub(super) fn update<V: View>(
    context: &mut Context<'_, V>,
    name: &str,
    display_name: Patch<String>,
    email: Patch<String>,
    password_hash: Patch<String>,
    attributes: Patch<String>,
) -> Result<Done, Stop> {
    let (id, before) = own(context, name)?;
    let mut row = before.clone();
    match display_name {
        Patch::Keep => {}
        Patch::Remove => row.display_name = name.to_owned(),
        Patch::Set(value) => row.display_name = value,
    }
    patch(&mut row.email, email);
    patch(&mut row.password_hash, password_hash);
    patch_attributes(&mut row.attributes, attributes)?;
    if row != before {
        row.rev = context.rev;
        context.put(Key::User { user: id }, &row);
        if row.password_hash != before.password_hash {
            session::end_all(context, id, Spared::Own)?;
        }
    }
    Ok(Done::new(Response::User(row.entity(id))))
}

/// Deletes the user and ends his memberships and sessions. Refused (409) while he is the last owner of a room
/// that is not direct, or in more rooms than one command may leave.
pub(super) fn delete<V: View>(context: &mut Context<'_, V>, name: &str) -> Result<Done, Stop> {
    let (id, _) = own(context, name)?;
    let rooms = Group::UserRooms { user: id };
    let range = rooms.range(context.space);
    let index = context
        .state
        .scan(&range.start, &range.end, false, MEMBERSHIPS_ENDED_MAX + 1)?;
    if index.len() > MEMBERSHIPS_ENDED_MAX {
        let detail = format!("\"{name}\" is in more than {MEMBERSHIPS_ENDED_MAX} rooms and must leave some first");
        return Err(Stop::refused(Code::Conflict, detail));
    }
    for (key, value) in index {
        let Some((_, Key::UserRoom { room: room_name, .. })) = Key::decode(&key) else {
            return Err(Fatal::Corrupt("a key among the rooms of a user is none".to_owned()).into());
        };
        let UserRoomRow { room } = UserRoomRow::from_bytes(&value).map_err(Fatal::from)?;
        // A very large room that was deleted may have left this row behind.
        let Some(found) = context.read().room_named(room_name)?.filter(|found| found.room == room) else {
            continue;
        };
        // A direct room lives on with one member, even if it was made by the other.
        let may_be_last = found.kind == RoomKind::Direct;
        super::member::end(context, room, room_name, name, may_be_last)?;
        context.tell_and_record(
            room,
            EventBody::Member {
                user: name.to_owned(),
                role: None,
            },
        );
    }
    context.delete_group(rooms);
    session::end_all(context, id, Spared::None)?;
    context.delete(Key::UserName { name });
    context.delete(Key::User { user: id });
    Ok(Done::new(Response::Deleted))
}

/// The user that the path names, if the caller is he, or root, and the conditions hold.
fn own<V: View>(context: &Context<'_, V>, name: &str) -> Result<(UserId, UserRow), Stop> {
    let id = context.read().user_in_path(name)?;
    if !context.who.is_root() && context.who.id != id {
        return Err(Stop::refused(
            Code::Forbidden,
            format!("only \"{name}\" and root change this user"),
        ));
    }
    let row = context.read().user(id)?;
    context.check_conditions(Some(row.rev))?;
    Ok((id, row))
}

pub(super) fn patch(field: &mut Option<String>, patch: Patch<String>) {
    match patch {
        Patch::Keep => {}
        Patch::Remove => *field = None,
        Patch::Set(value) => *field = Some(value),
    }
}

/// Merges into the attributes. What becomes too large is refused (422): the patch alone was not.
pub(super) fn patch_attributes(field: &mut Option<String>, patch: Patch<String>) -> Result<(), Stop> {
    match patch {
        Patch::Keep => {}
        Patch::Remove => *field = None,
        Patch::Set(patch) => {
            // Both texts were canonical when they were stored or checked.
            let merged = attributes::merge(field.as_deref(), &patch).map_err(Fatal::Corrupt)?;
            fields::attributes(&merged)
                .map_err(|rejection| Rejection::new(Code::Invalid, format!("after the patch {}", rejection.detail)))?;
            *field = Some(merged);
        }
    }
    Ok(())
}
