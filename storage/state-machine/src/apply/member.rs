//! Who is in a room, and as what. A direct room's members are fixed, and a room that has an owner
//! keeps one: what would break either is a conflict.

use super::access::InRoom;
use super::context::{Context, Done};
use super::outcome::Response;
use crate::entity::{Role, RoomKind};
use crate::event::EventBody;
use crate::ids::RoomId;
use crate::keys::Key;
use crate::read::no_user;
use crate::rejection::{Code, Rejection, Stop};
use crate::rows::{MemberRow, UserRoomRow};
use crate::view::View;

pub(super) fn put<V: View>(
    context: &mut Context<'_, V>,
    room_name: &str,
    user: String,
    role: Option<Role>,
) -> Result<Done, Stop> {
    let read = context.read();
    let found = read.room_in_path(room_name)?;
    let room = found.room;
    let id = read.user_named(&user)?.ok_or_else(|| no_user(&user))?;
    let now = read.member(room, id, &user)?;
    let now_role = now.map(|member| member.role);
    let wanted = role.or(now_role).unwrap_or(Role::Member);
    InRoom::of(&read, &context.who, room_name, &found)?.check_put(context.who.id == id, now_role, wanted)?;
    context.check_conditions(now.map(|member| member.rev))?;

    if let Some(now) = now
        && now.role == wanted
    {
        return Ok(Done::new(Response::Member {
            member: now.entity(user),
            created: false,
        }));
    }
    if found.kind == RoomKind::Direct {
        return Err(fixed(room_name).into());
    }
    let mut tail = read.tail(room)?;
    if now_role == Some(Role::Owner) {
        tail.owners -= 1;
        if tail.owners == 0 {
            return Err(last_owner(room_name, &user).into());
        }
    }
    if wanted == Role::Owner {
        tail.owners += 1;
    }
    let member = match now {
        Some(now) => MemberRow {
            role: wanted,
            rev: context.rev,
            ..now
        },
        None => {
            tail.members += 1;
            context.put(
                Key::UserRoom {
                    user: id,
                    room: room_name,
                },
                &UserRoomRow { room },
            );
            MemberRow {
                user: id,
                role: wanted,
                joined_at_ms: context.wall_ms,
                joined_seq: tail.last_seq,
                rev: context.rev,
            }
        }
    };
    tail.rev = context.rev;
    context.put(Key::Member { room, user: &user }, &member);
    context.put(Key::RoomTail { room }, &tail);
    context.tell_and_record(
        room,
        EventBody::Member {
            user: user.clone(),
            role: Some(wanted),
        },
    );
    Ok(Done::new(Response::Member {
        member: member.entity(user),
        created: now.is_none(),
    }))
}

pub(super) fn remove<V: View>(context: &mut Context<'_, V>, room_name: &str, user: &str) -> Result<Done, Stop> {
    let read = context.read();
    let found = read.room_in_path(room_name)?;
    let room = found.room;
    let id = read.user_in_path(user)?;
    let Some(member) = read.member(room, id, user)? else {
        return Err(Stop::refused(
            Code::NotFound,
            format!("\"{user}\" is not a member of the room \"{room_name}\""),
        ));
    };
    InRoom::of(&read, &context.who, room_name, &found)?.check_remove(context.who.id == id, member.role)?;
    context.check_conditions(Some(member.rev))?;
    if found.kind == RoomKind::Direct {
        return Err(fixed(room_name).into());
    }
    end(context, room, room_name, user, false)?;
    context.delete(Key::UserRoom {
        user: id,
        room: room_name,
    });
    context.tell_and_record(
        room,
        EventBody::Member {
            user: user.to_owned(),
            role: None,
        },
    );
    Ok(Done::new(Response::Deleted))
}

/// Ends a membership, but for the user's own index of rooms and the event. The last owner stays,
/// unless he may be.
pub(super) fn end<V: View>(
    context: &mut Context<'_, V>,
    room: RoomId,
    room_name: &str,
    user: &str,
    may_be_last: bool,
) -> Result<(), Stop> {
    let read = context.read();
    let member: MemberRow = read.must(Key::Member { room, user })?;
    let mut tail = read.tail(room)?;
    if member.role == Role::Owner {
        tail.owners -= 1;
        if tail.owners == 0 && !may_be_last {
            return Err(last_owner(room_name, user).into());
        }
    }
    tail.members -= 1;
    tail.rev = context.rev;
    context.put(Key::RoomTail { room }, &tail);
    context.delete(Key::Member { room, user });
    Ok(())
}

fn last_owner(room: &str, user: &str) -> Rejection {
    Rejection::new(
        Code::Conflict,
        format!("\"{user}\" is the last owner of the room \"{room}\""),
    )
}

fn fixed(room: &str) -> Rejection {
    Rejection::new(
        Code::Conflict,
        format!("the members of the direct room \"{room}\" are fixed"),
    )
}
