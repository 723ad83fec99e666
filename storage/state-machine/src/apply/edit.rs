//! Messages in motion: edited and redacted.
//!
//! For conditions the entity is the message. The room's rev stays: neither its last_seq nor anything else that
//! the room shows changes, and a send that is conditional on the room does not fail because somebody elsewhere
//! in it mends a typo. Nor does the message's head change, by which searches find it, nor its seq.

use super::access::InRoom;
use super::context::{Context, Done};
use super::outcome::Response;
use crate::event::EventBody;
use crate::ids::{RoomId, Seq};
use crate::keys::{Group, Key};
use crate::limits::MESSAGE_REVISIONS_MAX;
use crate::rejection::{Code, Fatal, Rejection, Stop};
use crate::rows::{MessageRevisionRow, Row};
use crate::view::View;

/// Gives the message another text; the earlier one goes to its revisions.
pub(super) fn edit<V: View>(
    context: &mut Context<'_, V>,
    room_name: String,
    seq: Seq,
    text: String,
) -> Result<Done, Stop> {
    let read = context.read();
    let found = read.room_in_path(&room_name)?;
    let mut row = read.message_in_path(&found, &room_name, seq)?;
    let own = row.sender == context.who.id || context.who.is_root();
    InRoom::of(&read, &context.who, &room_name, &found)?.check_edit(own)?;
    context.check_conditions(Some(row.rev))?;
    let Some(before) = row.text.take() else {
        let detail = format!("message {seq} of \"{room_name}\" is redacted");
        return Err(Stop::refused(Code::Conflict, detail));
    };

    if before == text {
        row.text = Some(before);
    } else {
        let room = found.room;
        let number = match row.edited_at_ms {
            Some(_) => last_number(context, room, seq)? + 1,
            None => 1,
        };
        if number as usize > MESSAGE_REVISIONS_MAX {
            let detail = format!(
                "message {seq} of \"{room_name}\" has {MESSAGE_REVISIONS_MAX} earlier texts, and keeps no more"
            );
            return Err(Stop::refused(Code::Conflict, detail));
        }
        let revision = MessageRevisionRow {
            number,
            text: before,
            at_ms: row.edited_at_ms.unwrap_or(row.sent_at_ms),
        };
        let rev = row.rev;
        context.put(Key::MessageRevision { room, seq, rev }, &revision);
        row.rev = context.rev;
        row.text = Some(text);
        row.edited_at_ms = Some(context.wall_ms);
        context.put(Key::Message { room, seq }, &row);
        context.tell_and_record(room, EventBody::Edited { seq });
    }
    Ok(Done::new(Response::Message(Box::new(row.entity(room_name, seq)))))
}

/// Takes the message's content away: text and attributes, and its earlier texts. What stays says that somebody
/// said something here, and keeps its client id from being used again.
pub(super) fn redact<V: View>(context: &mut Context<'_, V>, room_name: &str, seq: Seq) -> Result<Done, Stop> {
    let read = context.read();
    let found = read.room_in_path(room_name)?;
    let mut row = read.message_in_path(&found, room_name, seq)?;
    if row.redacted_at_ms.is_some() {
        let detail = format!("message {seq} of \"{room_name}\" is redacted already");
        return Err(Rejection::new(Code::NotFound, detail).into());
    }
    let own = row.sender == context.who.id;
    InRoom::of(&read, &context.who, room_name, &found)?.check_redact(own)?;
    context.check_conditions(Some(row.rev))?;

    let room = found.room;
    // Most messages were never edited: no range is deleted where there is nothing.
    if row.edited_at_ms.is_some() {
        context.delete_group(Group::MessageRevisions { room, seq });
    }
    row.rev = context.rev;
    row.text = None;
    row.attributes = None;
    row.redacted_at_ms = Some(context.wall_ms);
    context.put(Key::Message { room, seq }, &row);
    context.tell_and_record(room, EventBody::Redacted { seq });
    Ok(Done::new(Response::Deleted))
}

/// How many earlier texts an edited message has: its last one says it, so that they need not be counted.
fn last_number<V: View>(context: &Context<'_, V>, room: RoomId, seq: Seq) -> Result<u32, Fatal> {
    let range = Group::MessageRevisions { room, seq }.range(context.space);
    let last = context.state.scan(&range.start, &range.end, true, 1)?;
    let Some((_, value)) = last.first() else {
        let detail = format!("message {seq} of room {room} was edited, and its earlier text is missing");
        return Err(Fatal::Corrupt(detail));
    };
    Ok(MessageRevisionRow::from_bytes(value)?.number)
}
