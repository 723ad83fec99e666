//! Messages: one, or a page. A page is a range of seqs, so it is found by arithmetic; `at` searches
//! for its first one.

use super::page::{PageEnds, PageSink, StoredPage, each};
use super::{Answer, Page};
use crate::entity::Message;
use crate::ids::{RoomId, Seq};
use crate::keys::Key;
use crate::read::{Reader, Who};
use crate::rejection::{Fatal, Stop};
use crate::rows::{MessageHead, RoomTailRow, SystemRow};
use crate::view::View;

pub(super) fn message<V: View + ?Sized>(read: &Reader<'_, V>, who: &Who, name: &str, seq: Seq) -> Result<Answer, Stop> {
    let found = read.room_in_path(name)?;
    let row = read.message_in_path(&found, name, seq)?;
    read.check_inside(who, name, &found)?;
    Ok(Answer::Message(row.entity(name.to_owned(), seq)))
}

pub(super) fn page<V: View + ?Sized>(
    read: &Reader<'_, V>,
    system: &SystemRow,
    who: &Who,
    name: &str,
    (from, limit): (Page, u32),
    sink: &mut dyn PageSink,
) -> Result<PageEnds, Stop> {
    let found = read.room_in_path(name)?;
    read.check_inside(who, name, &found)?;
    let tail = read.tail(found.room)?;
    let (first, end) = (tail.first_seq.0, tail.last_seq.0 + 1);
    let limit = u64::from(limit);
    // The page begins here, or shows up to `limit` messages that end here.
    let from_start = |start: u64| (start, start.saturating_add(limit).min(end));
    let from_end = |end: u64| (end.saturating_sub(limit).max(first), end);
    let (start, stop) = match from {
        Page::Newest => from_end(end),
        Page::After(seq) => from_start(seq.0.saturating_add(1).clamp(first, end)),
        Page::Before(seq) => from_end(seq.0.clamp(first, end)),
        Page::Around(seq) => {
            // Near an end of the room the page is as full as elsewhere.
            let (_, stop) = from_start(seq.0.clamp(first, end).saturating_sub(limit / 2).max(first));
            from_end(stop)
        }
        Page::At(time_ms) => from_start(search(read, found.room, &tail, |head| head.sent_at_max_ms >= time_ms)?.0),
    };

    let is_empty = start == stop;
    let ends = PageEnds {
        first_seq: Seq(if is_empty { 0 } else { start }),
        last_seq: Seq(if is_empty { 0 } else { stop - 1 }),
        more_before: start > first,
        more_after: stop < end,
    };
    sink.take(&StoredPage {
        view: &read.view,
        space: read.space,
        epoch: system.epoch,
        revision: system.revision,
        room: found.room,
        room_name: name,
        start,
        stop,
        ends,
    })?;
    Ok(ends)
}

/// At most `limit` messages from a seq on.
pub(super) fn messages<V: View + ?Sized>(
    read: &Reader<'_, V>,
    room: RoomId,
    name: &str,
    from: Seq,
    limit: usize,
) -> Result<Vec<(MessageHead, Message)>, Fatal> {
    let mut messages = Vec::new();
    each(&read.view, read.space, room, from, limit, &mut |seq, row| {
        messages.push((row.head, row.entity(name, seq).to_message()));
        Ok(())
    })?;
    Ok(messages)
}

/// The first message that has reached something, which all after it have reached too; the seq
/// behind the last one if none has. Mostly it is asked for near the end, so the search begins
/// there and doubles its steps: it reads about 2·log2 of the distance from the end.
pub(super) fn search<V: View + ?Sized>(
    read: &Reader<'_, V>,
    room: RoomId,
    tail: &RoomTailRow,
    reached: impl Fn(&MessageHead) -> bool,
) -> Result<Seq, Fatal> {
    let probe = |seq: u64| -> Result<bool, Fatal> {
        let key = Key::Message { room, seq: Seq(seq) }.encode(read.space);
        let mut has_reached = false;
        let is_there = read.view.look(&key, &mut |value| {
            has_reached = reached(&MessageHead::decode(value)?);
            Ok(())
        })?;
        if !is_there {
            return Err(Fatal::Corrupt(format!("message {seq} of room {room} is missing")));
        }
        Ok(has_reached)
    };
    // What is sought lies in low..=high.
    let (mut low, mut high) = (tail.first_seq.0, tail.last_seq.0 + 1);
    let mut step = 1;
    while low < high {
        let seq = high.saturating_sub(step).max(low);
        if !probe(seq)? {
            low = seq + 1;
            break;
        }
        high = seq;
        step *= 2;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if probe(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Seq(low))
}
