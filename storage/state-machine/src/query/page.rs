//! A page of messages where it lies in the state: for whoever writes it out without copies of its rows.

use std::ops::Range;

use crate::entity::{Message, MessageRef};
use crate::event::EventBody;
use crate::ids::{Epoch, Revision, RoomId, Seq, SpaceId};
use crate::keys::{Group, Key};
use crate::rejection::Fatal;
use crate::rows::{FeedRow, MessageRowRef, Row};
use crate::view::View;

/// [`StoredPage::edited_since`] looks at no more: people who come and go, mostly. Beyond it, it takes the messages for
/// edited.
const EVENTS_LOOKED_AT: usize = 32;

/// Takes the page of history that was asked for. Whether the caller may read it was decided before.
pub trait PageSink {
    fn take(&mut self, page: &StoredPage<'_>) -> Result<(), Fatal>;
}

/// Copies of them all.
impl PageSink for Vec<Message> {
    fn take(&mut self, page: &StoredPage<'_>) -> Result<(), Fatal> {
        self.reserve_exact(page.len());
        page.visit(page.seqs(), &mut |message| self.push(message.to_message()))
    }
}

/// What a page says of its place in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEnds {
    /// Both 0 when the page is empty.
    pub first_seq: Seq,
    pub last_seq: Seq,
    pub more_before: bool,
    pub more_after: bool,
}

/// Messages of one room in one state.
pub struct StoredPage<'a> {
    pub(super) view: &'a dyn View,
    pub(super) space: SpaceId,
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
    pub(super) room: RoomId,
    pub(super) room_name: &'a str,
    /// From (included) and to (excluded): all of them are there.
    pub(super) start: u64,
    pub(super) stop: u64,
    pub(super) ends: PageEnds,
}

impl<'a> StoredPage<'a> {
    /// The state that the page is read from.
    pub fn state(&self) -> (Epoch, Revision) {
        (self.epoch, self.revision)
    }

    pub fn room(&self) -> RoomId {
        self.room
    }

    pub fn room_name(&self) -> &'a str {
        self.room_name
    }

    /// The seqs of its messages.
    pub fn seqs(&self) -> Range<u64> {
        self.start..self.stop
    }

    pub fn ends(&self) -> PageEnds {
        self.ends
    }

    pub fn len(&self) -> usize {
        usize::try_from(self.stop - self.start).expect("a page is bounded")
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.stop
    }

    /// Whether a message of the room may have been edited or redacted after that revision. Nothing else changes a
    /// message once it is sent, and both leave an event in the room's feed, which is kept as long as the room is; so
    /// when this says no, every message that was there at the revision is the same now.
    pub fn edited_since(&self, rev: Revision) -> Result<bool, Fatal> {
        if rev >= self.revision {
            return Ok(false);
        }
        let room = self.room;
        let start = Key::Feed {
            room,
            rev: Revision(rev.0 + 1),
            index: 0,
        }
        .encode(self.space);
        let end = Group::Feed { room }.range(self.space).end;
        let (mut events, mut edited) = (0, false);
        self.view
            .visit(&start, &end, false, EVENTS_LOOKED_AT, &mut |_, value| {
                events += 1;
                edited |= match FeedRow::from_bytes(value)?.body {
                    EventBody::Edited { .. } | EventBody::Redacted { .. } => true,
                    EventBody::Messages { .. }
                    | EventBody::Member { .. }
                    | EventBody::Room
                    | EventBody::RoomDeleted => false,
                };
                Ok(())
            })?;
        // Behind so many events may be another.
        Ok(edited || events == EVENTS_LOOKED_AT)
    }

    /// Shows some of its messages, in order. One that is missing means that the state is damaged.
    pub fn visit(&self, seqs: Range<u64>, visit: &mut dyn FnMut(&MessageRef<'_>)) -> Result<(), Fatal> {
        assert!(self.start <= seqs.start && seqs.end <= self.stop, "seqs of this page");
        let Range { start, end } = seqs;
        let wanted = usize::try_from(end.saturating_sub(start)).expect("a page is bounded");
        let mut found = 0;
        each(self.view, self.space, self.room, Seq(start), wanted, &mut |seq, row| {
            found += 1;
            visit(&row.entity(self.room_name, seq));
            Ok(())
        })?;
        if found < wanted {
            let detail = format!("room {} lacks messages between {start} and {end}", self.room);
            return Err(Fatal::Corrupt(detail));
        }
        Ok(())
    }
}

/// At most `limit` messages from a seq on, where they lie. They have no gap.
pub(super) fn each(
    view: &dyn View,
    space: SpaceId,
    room: RoomId,
    from: Seq,
    limit: usize,
    visit: &mut dyn FnMut(Seq, MessageRowRef<'_>) -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    let start = Key::Message { room, seq: from }.encode(space);
    let end = Group::Messages { room }.range(space).end;
    let mut seq = from;
    view.visit(&start, &end, false, limit, &mut |key, value| {
        if Key::decode(key) != Some((space, Key::Message { room, seq })) {
            return Err(Fatal::Corrupt(format!("message {seq} of room {room} is missing")));
        }
        visit(seq, MessageRowRef::from_bytes(value)?)?;
        seq = Seq(seq.0 + 1);
        Ok(())
    })
}
