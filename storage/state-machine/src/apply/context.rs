//! What a command sees while it runs: who asks, on which conditions, and the state with what it
//! has written so far.

use super::outcome::Response;
use crate::command::Conditions;
use crate::event::{Event, EventBody, Topic};
use crate::ids::{Revision, RoomId, SpaceId};
use crate::keys::{Group, Key};
use crate::read::{Reader, Who};
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::{FeedRow, Row, SystemRow, TimersRow};
use crate::view::{Overlay, View};

pub(super) struct Context<'a, V: View> {
    pub(super) state: &'a mut Overlay<V>,
    pub(super) space: SpaceId,
    pub(super) who: Who,
    /// The revision that this command's change will have, if it changes anything.
    pub(super) rev: Revision,
    /// For showing.
    pub(super) wall_ms: u64,
    pub(super) system: SystemRow,
    /// The caller's idempotency key, for what is decided later than the command.
    pub(super) key: Option<String>,
    conditions: Conditions,
    changed: bool,
    told: Told,
}

/// What a command tells the watchers.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) events: Vec<Event>,
    pub(super) topics: Vec<Topic>,
}

/// A command that was not refused.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) response: Response,
    pub(super) replayed: bool,
}

impl Done {
    pub(super) fn new(response: Response) -> Self {
        Self {
            response,
            replayed: false,
        }
    }
}

impl<'a, V: View> Context<'a, V> {
    pub(super) fn new(
        state: &'a mut Overlay<V>,
        space: SpaceId,
        who: Who,
        conditions: Conditions,
        key: Option<String>,
        system: SystemRow,
        wall_ms: u64,
    ) -> Self {
        let rev = Revision(system.revision.0 + 1);
        Self {
            state,
            space,
            who,
            rev,
            wall_ms,
            system,
            key,
            conditions,
            changed: false,
            told: Told::default(),
        }
    }

    /// The counters after the command, whether it changed anything, and what it tells the watchers.
    pub(super) fn finish(mut self) -> (SystemRow, bool, Told) {
        if self.changed {
            self.system.revision = self.rev;
        }
        (self.system, self.changed, self.told)
    }

    pub(super) fn read(&self) -> Reader<'_, Overlay<V>> {
        Reader {
            view: &*self.state,
            space: self.space,
        }
    }

    /// A row that no other command of the entry will want.
    pub(super) fn read_once<R: Row>(&self, key: Key<'_>) -> Result<Option<R>, Stop> {
        let value = self.state.get_once(&key.encode(self.space))?;
        Ok(value
            .map(|bytes| R::from_bytes(&bytes))
            .transpose()
            .map_err(Fatal::from)?)
    }

    pub(super) fn put<R: Row>(&mut self, key: Key<'_>, row: &R) {
        self.changed = true;
        self.state.put(key.encode(self.space), row.to_bytes());
    }

    /// A row about the store itself: nothing that clients see has changed, so it costs no revision.
    pub(super) fn put_unseen<R: Row>(&mut self, key: Key<'_>, row: &R) {
        self.state.put(key.encode(self.space), row.to_bytes());
    }

    pub(super) fn delete(&mut self, key: Key<'_>) {
        self.changed = true;
        self.state.delete(key.encode(self.space));
    }

    pub(super) fn delete_group(&mut self, group: Group) {
        self.changed = true;
        let range = group.range(self.space);
        self.state.delete_range(range.start, range.end);
    }

    /// Tells the watchers, and no one later.
    pub(super) fn tell(&mut self, room: RoomId, body: EventBody) {
        self.told.events.push(Event {
            space: self.space,
            room,
            rev: self.rev,
            body,
        });
    }

    /// Wakes those who wait for this.
    pub(super) fn wake(&mut self, topic: Topic) {
        self.told.topics.push(topic);
    }

    /// The replicated clock, as this entry has it.
    pub(super) fn now_ms(&self) -> u64 {
        self.system.elapsed_ms
    }

    pub(super) fn timers(&self) -> Result<TimersRow, Fatal> {
        Ok(self.read().row(Key::Timers)?.unwrap_or_default())
    }

    /// Tells the watchers, and writes the event to the room's feed for those who come later. One
    /// command tells one thing about a room, and no command tells a room's feed something and sends
    /// messages to it too: a position inside a revision counts either feed events or messages.
    pub(super) fn tell_and_record(&mut self, room: RoomId, body: EventBody) {
        debug_assert!(
            self.told.events.last().is_none_or(|event| event.room != room),
            "one event a room and command"
        );
        self.put(
            Key::Feed {
                room,
                rev: self.rev,
                index: 0,
            },
            &FeedRow { body: body.clone() },
        );
        self.tell(room, body);
    }

    /// The conditions (412) against the entity as it is: its revision, or none if it does not exist.
    /// Called after the checks of 404 and 403 and before those of 409 and 422.
    pub(super) fn check_conditions(&self, entity: Option<Revision>) -> Result<(), Stop> {
        if let Some(lock) = &self.conditions.if_lock {
            super::lock::check_held(self, lock)?;
        }
        if let Some(wanted) = self.conditions.if_match
            && entity != Some(wanted)
        {
            let detail = match entity {
                Some(found) => format!("If-Match asks for revision {wanted}, this is revision {found}"),
                None => format!("If-Match asks for revision {wanted}, there is none"),
            };
            return Err(Stop::refused(Code::PreconditionFailed, detail));
        }
        if let Some(found) = entity
            && self.conditions.if_none_match
        {
            let detail = format!("If-None-Match asks that there be none, this is revision {found}");
            return Err(Stop::refused(Code::PreconditionFailed, detail));
        }
        Ok(())
    }
}
