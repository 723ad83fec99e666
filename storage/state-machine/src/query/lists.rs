//! Users, rooms and members: one, or a page by name. A page ends with the name that the next one
//! begins after, so a list that changes between pages repeats nothing that stayed.

use std::ops::Range;

use super::Answer;
use crate::entity::{Member, Room, User};
use crate::ids::RoomId;
use crate::keys::{Group, Key};
use crate::read::{Reader, Who};
use crate::rejection::{Fatal, Stop};
use crate::rows::{MemberRow, RoomNameRow, Row, UserNameRow, UserRoomRow};
use crate::view::{Pair, View, successor};

pub(super) fn user<V: View + ?Sized>(read: &Reader<'_, V>, name: &str) -> Result<Answer, Stop> {
    let id = read.user_in_path(name)?;
    Ok(Answer::User(read.user(id)?.entity(id)))
}

pub(super) fn users<V: View + ?Sized>(read: &Reader<'_, V>, after: Option<&str>, limit: u32) -> Result<Answer, Stop> {
    let range = behind(Group::UserNames, read, after.map(|name| Key::UserName { name }));
    let (users, next) = page(read, range, limit, |_, value| {
        let UserNameRow { user: id } = UserNameRow::from_bytes(value)?;
        Ok(Some(read.user(id)?.entity(id)))
    })?;
    Ok(Answer::Users {
        users,
        next: next.map(|last: User| last.user),
    })
}

pub(super) fn room<V: View + ?Sized>(read: &Reader<'_, V>, who: &Who, name: &str) -> Result<Answer, Stop> {
    let found = read.room_in_path(name)?;
    read.check_inside(who, name, &found)?;
    Ok(Answer::Room(whole_room(read, found.room)?))
}

pub(super) fn rooms<V: View + ?Sized>(
    read: &Reader<'_, V>,
    who: &Who,
    after: Option<&str>,
    limit: u32,
) -> Result<Answer, Stop> {
    let (rooms, next) = if who.is_root() {
        let range = behind(Group::RoomNames, read, after.map(|name| Key::RoomName { name }));
        page(read, range, limit, |_, value| {
            let RoomNameRow { room, .. } = RoomNameRow::from_bytes(value)?;
            Ok(Some(whole_room(read, room)?))
        })?
    } else {
        let range = behind(
            Group::UserRooms { user: who.id },
            read,
            after.map(|room| Key::UserRoom { user: who.id, room }),
        );
        page(read, range, limit, |_, value| {
            let UserRoomRow { room } = UserRoomRow::from_bytes(value)?;
            // Of a very large room that was deleted, such rows may have stayed.
            match read.row(Key::Room { room })? {
                Some(row) => Ok(Some(crate::rows::RoomRow::entity(row, room, &read.tail(room)?))),
                None => Ok(None),
            }
        })?
    };
    Ok(Answer::Rooms {
        rooms,
        next: next.map(|last: Room| last.room),
    })
}

pub(super) fn members<V: View + ?Sized>(
    read: &Reader<'_, V>,
    who: &Who,
    name: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Answer, Stop> {
    let found = read.room_in_path(name)?;
    read.check_inside(who, name, &found)?;
    let room = found.room;
    let range = behind(
        Group::Members { room },
        read,
        after.map(|user| Key::Member { room, user }),
    );
    let (members, next) = page(read, range, limit, |key, value| match Key::decode(key) {
        Some((_, Key::Member { user, .. })) => Ok(Some(MemberRow::from_bytes(value)?.entity(user.to_owned()))),
        _ => Err(Fatal::Corrupt("a key among the members of a room is none".to_owned())),
    })?;
    Ok(Answer::Members {
        members,
        next: next.map(|last: Member| last.user),
    })
}

fn whole_room<V: View + ?Sized>(read: &Reader<'_, V>, room: RoomId) -> Result<Room, Fatal> {
    Ok(read.room(room)?.entity(room, &read.tail(room)?))
}

/// The part of a group that lies behind a key.
pub(super) fn behind<V: View + ?Sized>(group: Group, read: &Reader<'_, V>, after: Option<Key<'_>>) -> Range<Vec<u8>> {
    let all = group.range(read.space);
    match after {
        Some(key) => successor(&key.encode(read.space))..all.end,
        None => all,
    }
}

/// The first `limit` items of the range, and the last of them once more if others follow. `item`
/// answers none for what is to be skipped.
pub(super) fn page<V: View + ?Sized, T: Clone>(
    read: &Reader<'_, V>,
    mut range: Range<Vec<u8>>,
    limit: u32,
    item: impl Fn(&[u8], &[u8]) -> Result<Option<T>, Fatal>,
) -> Result<(Vec<T>, Option<T>), Fatal> {
    let limit = limit as usize;
    let mut items: Vec<T> = Vec::new();
    loop {
        let wanted = limit + 1 - items.len();
        let pairs: Vec<Pair> = read.view.scan(&range.start, &range.end, false, wanted)?;
        for (key, value) in &pairs {
            items.extend(item(key, value)?);
        }
        if items.len() > limit {
            items.truncate(limit);
            let last = items.last().cloned();
            return Ok((items, last));
        }
        match pairs.last() {
            // Some were skipped: there may be more behind.
            Some((last, _)) if pairs.len() == wanted => range.start = successor(last),
            _ => return Ok((items, None)),
        }
    }
}
