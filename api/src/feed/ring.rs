//! The newest changes of one room, written out once for all who follow it. Decides only; who asks the
//! state, and when, is in [`super::tails`] and [`super`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use quorate_state_machine::query::{RoomChange, RoomChangeBody};
use quorate_state_machine::{Position, Revision};

use super::{CHUNK_BYTES, FIRST_ITEMS, ITEMS_MAX, QUERY_BYTES};
use crate::sse;

/// What is kept of one room, or its newest chunk if that is larger: as much as one question to the state brings.
/// Those who were woken together are behind each other by less; whoever is further behind asks the state by himself.
pub(super) const ROOM_BYTES_MAX: usize = QUERY_BYTES;

/// Frames in one allocation of about [`CHUNK_BYTES`], which a reader who holds a part of it keeps in memory.
#[derive(Debug)]
pub(super) struct Chunk {
    frames: Bytes,
    /// Of each frame: the position behind it, and where it ends.
    ends: Vec<(Position, usize)>,
    /// What it takes of memory.
    bytes: usize,
    /// Its last frame is the room's last.
    is_last: bool,
}

/// A part of a chunk, on its way to a reader.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) frames: Bytes,
    pub(super) events: usize,
    /// Behind its last frame.
    pub(super) position: Position,
    /// The room ends with it.
    pub(super) is_last: bool,
}

impl Chunk {
    fn end(&self) -> Position {
        let (end, _) = self.ends.last().expect("a chunk has a frame");
        *end
    }

    /// What a reader at the position has not got of it.
    fn after(&self, position: Position) -> Option<Piece> {
        let seen = self.ends.partition_point(|(end, _)| place(*end) <= place(position));
        let start = match seen.checked_sub(1) {
            Some(last_seen) => self.ends[last_seen].1,
            None => 0,
        };
        (seen < self.ends.len()).then(|| Piece {
            frames: self.frames.slice(start..),
            events: self.ends.len() - seen,
            position: self.end(),
            is_last: self.is_last,
        })
    }

    pub(super) fn whole(self) -> Piece {
        Piece {
            position: self.end(),
            events: self.ends.len(),
            frames: self.frames,
            is_last: self.is_last,
        }
    }
}

/// An answer of the state as it is sent.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) chunks: Vec<Chunk>,
    pub(super) events: usize,
    /// How many items the next question should ask for, by the size of these.
    pub(super) items_next: Option<u32>,
    /// What was written out before may say what is so no more: a message has another text, or none.
    rewrites: bool,
}

pub(super) fn write(room: &str, changes: Vec<RoomChange>) -> Written {
    let mut written = Written::default();
    let (mut frames, mut ends) = (BytesMut::new(), Vec::new());
    let mut bytes = 0;
    for change in changes {
        let position = change.position;
        written.rewrites |= matches!(change.body, RoomChangeBody::Edited(_) | RoomChangeBody::Redacted(_));
        let is_last = sse::change(&mut frames, room, change);
        ends.push((position, frames.len()));
        written.events += 1;
        if frames.len() >= CHUNK_BYTES || is_last {
            bytes += frames.len();
            written
                .chunks
                .push(chunk(std::mem::take(&mut frames), std::mem::take(&mut ends), is_last));
        }
        if is_last {
            break;
        }
    }
    if !ends.is_empty() {
        bytes += frames.len();
        written.chunks.push(chunk(frames, ends, false));
    }
    written.items_next = bytes.checked_div(written.events).map(|average| {
        let fit = QUERY_BYTES / average.max(1);
        u32::try_from(fit).unwrap_or(ITEMS_MAX).clamp(1, ITEMS_MAX)
    });
    written
}

fn chunk(frames: BytesMut, mut ends: Vec<(Position, usize)>, is_last: bool) -> Chunk {
    ends.shrink_to_fit();
    Chunk {
        bytes: frames.capacity() + std::mem::size_of_val(ends.as_slice()),
        frames: frames.freeze(),
        ends,
        is_last,
    }
}

/// Positions of one epoch in their order.
fn place(position: Position) -> (Revision, u32) {
    (position.revision, position.index)
}

/// All that the revision did is behind the position.
fn covers(position: Position, revision: Revision) -> bool {
    place(position) >= (revision, Position::WHOLE)
}

/// What a reader finds.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// He has all that this node was told of.
    Nothing,
    /// These, and nothing else up to `next`.
    Pieces { pieces: Vec<Piece>, next: Position },
    /// The state has to be asked what comes behind the ring.
    Ask,
    /// He is not where the ring is, and asks the state by himself.
    Elsewhere,
}

#[derive(Debug)]
pub(super) struct Ring {
    /// From where to where `chunks` have everything. None: nothing was asked yet.
    span: Option<(Position, Position)>,
    /// As the state showed them when it was asked what comes behind the last one.
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The last answer was cut: there was more behind it already.
    more: bool,
    /// How many items the next question asks for.
    items: u32,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            span: None,
            chunks: VecDeque::new(),
            bytes: 0,
            more: false,
            items: FIRST_ITEMS,
        }
    }
}

impl Ring {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// For a reader at the position, who is there because there was nothing behind it, when `told` is the last change of the room that watchers heard of. What is in
    /// the ring is handed out only while nothing newer is known: else a text could be told that was taken away since.
    pub(super) fn look(&self, position: Position, told: Revision) -> Look {
        let Some((from, to)) = self.span else {
            return Look::Ask;
        };
        if (position.epoch, position.space) != (to.epoch, to.space) || place(position) < place(from) {
            return Look::Elsewhere;
        }
        if place(position) > place(to) && covers(position, told) {
            return Look::Nothing;
        }
        if self.more || !covers(to, told) {
            return Look::Ask;
        }
        if place(position) >= place(to) {
            return Look::Nothing;
        }
        Look::Pieces {
            pieces: self.after(position),
            next: to,
        }
    }

    /// What comes behind the position, which is within the span.
    fn after(&self, position: Position) -> Vec<Piece> {
        let seen = self
            .chunks
            .partition_point(|chunk| place(chunk.end()) <= place(position));
        self.chunks
            .range(seen..)
            .filter_map(|chunk| chunk.after(position))
            .collect()
    }

    /// Behind which position, and how much, a reader at `position` asks on behalf of all.
    pub(super) fn question(&self, position: Position) -> (Position, u32) {
        (self.span.map_or(position, |(_, to)| to), self.items)
    }

    /// Takes in what the state answered to a question behind `after`, and gives the reader at `position` his part of
    /// what there is then. None: he looks again. Where it does not reach him, it begins anew where he is; where it
    /// now begins behind him, because a text has changed, the state tells him what he has not got.
    pub(super) fn extend(
        &mut self,
        after: Position,
        written: Written,
        next: Position,
        more: bool,
        position: Position,
    ) -> Option<(Vec<Piece>, Position)> {
        let continues = self.span.is_some_and(|(_, to)| to == after);
        if !continues || written.rewrites {
            self.clear(after);
        }
        let (from, _) = self.span.unwrap_or((after, after));
        self.items = written.items_next.unwrap_or(self.items);
        self.bytes += written.chunks.iter().map(|chunk| chunk.bytes).sum::<usize>();
        self.chunks.extend(written.chunks);
        self.span = Some((from, next));
        self.more = more;
        let mine = (place(from)..=place(next)).contains(&place(position));
        let mine = mine.then(|| (self.after(position), next));
        if place(position) > place(next) {
            self.clear(position);
            self.more = false;
        }
        while self.bytes > ROOM_BYTES_MAX
            && self.chunks.len() > 1
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.span = Some((oldest.end(), next));
        }
        mine
    }

    /// Nothing is kept, and what comes behind the position is to come.
    fn clear(&mut self, position: Position) {
        self.chunks.clear();
        self.bytes = 0;
        self.span = Some((position, position));
    }

    /// Gives its memory back. Who is not at its end asks the state.
    pub(super) fn forget(&mut self) {
        if let Some((_, to)) = self.span {
            self.clear(to);
        }
        self.chunks.shrink_to_fit();
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::ops::RangeInclusive;

    use quorate_state_machine::{Epoch, Event, EventBody, RoomId, SpaceId};

    use super::*;

    pub(in super::super) fn at(revision: u64) -> Position {
        Position::after(Epoch::FIRST, SpaceId::MAIN, Revision(revision))
    }

    pub(in super::super) fn change(position: Position) -> RoomChange {
        let body = RoomChangeBody::Event(Event {
            space: SpaceId::MAIN,
            room: RoomId(1),
            rev: position.revision,
            body: EventBody::Room,
        });
        RoomChange { position, body }
    }

    /// One change a revision.
    pub(in super::super) fn room_changes(revisions: RangeInclusive<u64>) -> Vec<RoomChange> {
        revisions.map(|revision| change(at(revision))).collect()
    }
}

#[cfg(test)]
mod tests;
