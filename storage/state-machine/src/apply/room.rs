//! Rooms. Whoever makes one is its owner, unless it is root.

use super::access::InRoom;
use super::context::{Context, Done};
use super::outcome::Response;
use super::user::{patch, patch_attributes};
use crate::command::Patch;
use crate::entity::{Role, RoomKind};
use crate::event::EventBody;
use crate::ids::{RoomId, Seq, UserId};
use crate::keys::{Group, Key};
use crate::limits::MEMBERSHIPS_ENDED_MAX;
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::{MemberRow, RoomNameRow, RoomRow, RoomTailRow, Row, UserRoomRow};
use crate::view::View;

pub(super) fn create<V: View>(
    context: &mut Context<'_, V>,
    name: String,
    kind: RoomKind,
    title: Option<String>,
    others: Vec<String>,
    attributes: Option<String>,
) -> Result<Done, Stop> {
    let existing = context.read().room_named(&name)?;
    let existing_rev = existing
        .map(|row| context.read().tail(row.room))
        .transpose()?
        .map(|tail| tail.rev);
    context.check_conditions(existing_rev)?;
    if existing.is_some() {
        return Err(Stop::refused(
            Code::AlreadyExists,
            format!("there is a room \"{name}\" already"),
        ));
    }
    let members = first_members(context, kind, others)?;

    let room = context.system.next_room;
    context.system.next_room = RoomId(room.0 + 1);
    let row = RoomRow {
        name,
        kind,
        title,
        attributes,
        created_at_ms: context.wall_ms,
        created_by: context.who.id,
        created_by_name: context.who.name.clone(),
    };
    let tail = RoomTailRow {
        first_seq: Seq(1),
        last_seq: Seq(0),
        sent_at_max_ms: 0,
        members: members.len() as u64,
        owners: members.iter().filter(|(_, _, role)| *role == Role::Owner).count() as u64,
        rev: context.rev,
    };
    context.put(
        Key::RoomName { name: &row.name },
        &RoomNameRow {
            room,
            kind,
            created_rev: context.rev,
        },
    );
    context.put(Key::Room { room }, &row);
    context.put(Key::RoomTail { room }, &tail);
    for (user_name, user, role) in &members {
        let member = MemberRow {
            user: *user,
            role: *role,
            joined_at_ms: context.wall_ms,
            joined_seq: Seq(0),
            rev: context.rev,
        };
        context.put(Key::Member { room, user: user_name }, &member);
        context.put(
            Key::UserRoom {
                user: *user,
                room: &row.name,
            },
            &UserRoomRow { room },
        );
    }
    context.tell_and_record(room, EventBody::Room);
    Ok(Done::new(Response::Room(row.entity(room, &tail))))
}

/// The creator as owner, and the others, each once.
fn first_members<V: View>(
    context: &Context<'_, V>,
    kind: RoomKind,
    others: Vec<String>,
) -> Result<Vec<(String, UserId, Role)>, Stop> {
    let mut members = Vec::with_capacity(others.len() + 1);
    if !context.who.is_root() {
        members.push((context.who.name.clone(), context.who.id, Role::Owner));
    }
    for name in others {
        let Some(id) = context.read().user_named(&name)? else {
            return Err(Stop::refused(
                Code::Invalid,
                format!("members: there is no user \"{name}\""),
            ));
        };
        if id != context.who.id {
            members.push((name, id, Role::Member));
        }
    }
    if kind == RoomKind::Direct && members.len() != 2 {
        let detail = format!(
            "a direct room has exactly two members, this one would have {}",
            members.len()
        );
        return Err(Stop::refused(Code::Invalid, detail));
    }
    Ok(members)
}

pub(super) fn update<V: View>(
    context: &mut Context<'_, V>,
    name: &str,
    title: Patch<String>,
    attributes: Patch<String>,
) -> Result<Done, Stop> {
    let RoomNameRow { room, .. } = allowed(context, name, |caller| caller.check_update())?;
    let before = context.read().room(room)?;
    let mut tail = context.read().tail(room)?;
    let mut row = before.clone();
    patch(&mut row.title, title);
    patch_attributes(&mut row.attributes, attributes)?;
    if row != before {
        tail.rev = context.rev;
        context.put(Key::Room { room }, &row);
        context.put(Key::RoomTail { room }, &tail);
        context.tell_and_record(room, EventBody::Room);
    }
    Ok(Done::new(Response::Room(row.entity(room, &tail))))
}

/// Deletes the room and all that is in it: messages and their earlier texts, client ids, feed and members as ranges, so that
/// its cost does not grow with the history.
pub(super) fn delete<V: View>(context: &mut Context<'_, V>, name: &str) -> Result<Done, Stop> {
    let RoomNameRow { room, .. } = allowed(context, name, |caller| caller.check_delete())?;
    // Of more members the rows stay; they name a room id that is gone, and are skipped.
    let members = Group::Members { room }.range(context.space);
    for (key, value) in context
        .state
        .scan(&members.start, &members.end, false, MEMBERSHIPS_ENDED_MAX)?
    {
        debug_assert!(matches!(Key::decode(&key), Some((_, Key::Member { .. }))));
        let member = MemberRow::from_bytes(&value).map_err(Fatal::from)?;
        context.delete(Key::UserRoom {
            user: member.user,
            room: name,
        });
    }
    for group in [
        Group::Members { room },
        Group::Messages { room },
        Group::RoomRevisions { room },
        Group::ClientIds { room },
        Group::Feed { room },
    ] {
        context.delete_group(group);
    }
    context.delete(Key::RoomTail { room });
    context.delete(Key::Room { room });
    context.delete(Key::RoomName { name });
    context.tell(room, EventBody::RoomDeleted);
    Ok(Done::new(Response::Deleted))
}

/// The room that the path names, if the caller may and the conditions hold.
fn allowed<V: View>(
    context: &Context<'_, V>,
    name: &str,
    check: impl FnOnce(&InRoom<'_>) -> Result<(), Stop>,
) -> Result<RoomNameRow, Stop> {
    let read = context.read();
    let room = read.room_in_path(name)?;
    check(&InRoom::of(&read, &context.who, name, &room)?)?;
    context.check_conditions(Some(read.tail(room.room)?.rev))?;
    Ok(room)
}
