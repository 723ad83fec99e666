//! The earlier texts of a message, oldest first. The present one is in the message.

use super::Answer;
use super::lists::{behind, page};
use crate::entity::MessageRevision;
use crate::ids::{Revision, Seq};
use crate::keys::{Group, Key};
use crate::read::{Reader, Who};
use crate::rejection::{Fatal, Stop};
use crate::rows::{MessageRevisionRow, Row};
use crate::view::View;

/// Readable by whoever may read the message.
pub(super) fn of_message<V: View + ?Sized>(
    read: &Reader<'_, V>,
    who: &Who,
    name: &str,
    seq: Seq,
    after: Option<Revision>,
    limit: u32,
) -> Result<Answer, Stop> {
    let found = read.room_in_path(name)?;
    read.message_in_path(&found, name, seq)?;
    read.check_inside(who, name, &found)?;
    let room = found.room;
    let range = behind(
        Group::MessageRevisions { room, seq },
        read,
        after.map(|rev| Key::MessageRevision { room, seq, rev }),
    );
    let (revisions, next) = page(read, range, limit, |key, value| match Key::decode(key) {
        Some((_, Key::MessageRevision { rev, .. })) => {
            let MessageRevisionRow { text, at_ms, .. } = MessageRevisionRow::from_bytes(value)?;
            Ok(Some(MessageRevision { rev, text, at_ms }))
        }
        _ => Err(Fatal::Corrupt(format!(
            "a key among the earlier texts of message {seq} of room {room} is none"
        ))),
    })?;
    Ok(Answer::MessageRevisions {
        revisions,
        next: next.map(|last: MessageRevision| last.rev),
    })
}
