//! What a stream of a room delivers: messages and the events of its feed, in the order of revisions,
//! each with the position to resume behind it.
//!
//! A revision of a room is either messages (a batch is one revision) or feed events, never both; so
//! the index inside a position counts either.

use super::history::{messages, search};
use super::{Answer, RoomChange, RoomChangeBody, RoomCursor};
use crate::entity::Message;
use crate::event::{Event, EventBody};
use crate::ids::{Position, Revision, RoomId, Seq};
use crate::keys::{Group, Key};
use crate::planted::{Bug, is_planted};
use crate::read::{Reader, Who};
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::{FeedRow, MessageRow, RoomNameRow, RoomTailRow, Row, SystemRow};
use crate::view::View;

/// The next changes after the cursor.
///
/// A position of another epoch or space, or older than the room, is refused as expired: the room
/// that it was given for may have been another one of this name. One that is ahead of this state
/// is answered with itself.
pub(super) fn room<V: View + ?Sized>(
    read: &Reader<'_, V>,
    system: &SystemRow,
    who: &Who,
    name: &str,
    after: RoomCursor,
    limit: u32,
) -> Result<Answer, Stop> {
    let found = read.room_in_path(name)?;
    read.check_inside(who, name, &found)?;
    let room = found.room;
    let tail = read.tail(room)?;
    let now = Position::after(system.epoch, read.space, system.revision);
    let limit = limit as usize;

    // One more than asked: it shows where a revision ends, and that more is there.
    let (items, next) = match after {
        RoomCursor::Now => (Vec::new(), now),
        RoomCursor::AfterSeq(seq) => {
            let next = 1 + u64::from(is_planted(Bug::StreamResumeOffByOne));
            let start = Seq(seq.0.saturating_add(next).clamp(tail.first_seq.0, tail.last_seq.0 + 1));
            (message_items(read, room, name, &tail, start, limit + 1)?, now)
        }
        RoomCursor::After(position) => {
            check_position(system, read, &found, name, position)?;
            if position.revision > system.revision {
                (Vec::new(), position)
            } else {
                let start = first_message(read, room, &tail, position)?;
                let messages = message_items(read, room, name, &tail, start, limit + 1)?;
                let events = feed_items(read, room, name, position, limit + 1)?;
                let mut items = messages;
                items.extend(events);
                items.sort_by_key(|item| (item.rev, item.index));
                (items, now)
            }
        }
    };
    let more = items.len() > limit;
    let revs: Vec<Revision> = items.iter().map(|item| item.rev).collect();
    let items: Vec<RoomChange> = items
        .into_iter()
        .take(limit)
        .enumerate()
        .map(|(n, item)| {
            let last_of_revision = revs.get(n + 1) != Some(&item.rev);
            let index = if last_of_revision {
                Position::WHOLE
            } else {
                item.index + 1
            };
            RoomChange {
                position: Position {
                    revision: item.rev,
                    index,
                    ..now
                },
                body: item.body,
            }
        })
        .collect();
    let next = match items.last() {
        Some(last) if more => last.position,
        _ => next,
    };
    Ok(Answer::RoomChanges {
        items,
        next,
        more,
        room,
    })
}

/// A change and how many of its revision come before it.
struct Item {
    rev: Revision,
    index: u32,
    body: RoomChangeBody,
}

fn check_position<V: View + ?Sized>(
    system: &SystemRow,
    read: &Reader<'_, V>,
    room: &RoomNameRow,
    name: &str,
    position: Position,
) -> Result<(), Stop> {
    if position.epoch != system.epoch || position.space != read.space {
        let detail = format!("the position {position} is of another epoch of this store");
        return Err(Stop::refused(Code::PositionExpired, detail));
    }
    if position.revision < room.created_rev {
        let oldest = Position::after(system.epoch, read.space, room.created_rev);
        let detail = format!("the room \"{name}\" began at {oldest}, after the position {position}");
        return Err(Stop::refused(Code::PositionExpired, detail));
    }
    Ok(())
}

/// The first message that the holder of the position has not seen.
fn first_message<V: View + ?Sized>(
    read: &Reader<'_, V>,
    room: RoomId,
    tail: &RoomTailRow,
    position: Position,
) -> Result<Seq, Fatal> {
    let behind = search(read, room, tail, |head| head.created_rev > position.revision)?;
    if position.index == Position::WHOLE {
        return Ok(behind);
    }
    let first = search(read, room, tail, |head| head.created_rev >= position.revision)?;
    Ok(Seq(first.0 + u64::from(position.index)).min(behind))
}

fn message_items<V: View + ?Sized>(
    read: &Reader<'_, V>,
    room: RoomId,
    name: &str,
    tail: &RoomTailRow,
    start: Seq,
    limit: usize,
) -> Result<Vec<Item>, Fatal> {
    let messages = messages(read, room, name, start, limit)?;
    let Some((first, _)) = messages.first() else {
        return Ok(Vec::new());
    };
    // The page may begin in the middle of a batch.
    let mut rev = first.created_rev;
    let mut first_of_rev = if start == tail.first_seq {
        start
    } else {
        search(read, room, tail, |head| head.created_rev >= rev)?
    };
    let mut items = Vec::with_capacity(messages.len());
    for (head, message) in messages {
        if head.created_rev != rev {
            (rev, first_of_rev) = (head.created_rev, message.seq);
        }
        let index = u32::try_from(message.seq.0 - first_of_rev.0).expect("a batch is bounded");
        items.push(Item {
            rev,
            index,
            body: RoomChangeBody::Message(Box::new(message)),
        });
    }
    Ok(items)
}

fn feed_items<V: View + ?Sized>(
    read: &Reader<'_, V>,
    room: RoomId,
    name: &str,
    after: Position,
    limit: usize,
) -> Result<Vec<Item>, Fatal> {
    let (rev, index) = match after.index {
        Position::WHOLE => (Revision(after.revision.0 + 1), 0),
        seen => (after.revision, seen),
    };
    let start = Key::Feed { room, rev, index }.encode(read.space);
    let end = Group::Feed { room }.range(read.space).end;
    let mut items = Vec::new();
    for (key, value) in read.view.scan(&start, &end, false, limit)? {
        let Some((space, Key::Feed { rev, index, .. })) = Key::decode(&key) else {
            return Err(Fatal::Corrupt(format!("a key in the feed of room {room} is none")));
        };
        let FeedRow { body } = FeedRow::from_bytes(&value)?;
        let message = |seq| -> Result<Box<Message>, Fatal> {
            let row: MessageRow = read.must(Key::Message { room, seq })?;
            Ok(Box::new(row.entity(name.to_owned(), seq)))
        };
        let body = match body {
            EventBody::Edited { seq } => RoomChangeBody::Edited(message(seq)?),
            EventBody::Redacted { seq } => RoomChangeBody::Redacted(message(seq)?),
            body => RoomChangeBody::Event(Event { space, room, rev, body }),
        };
        items.push(Item { rev, index, body });
    }
    Ok(items)
}
