//! Who may do what. Root passes every check. Users may read each other, and change or delete only
//! themselves; only root makes users. In a room:
//!
//! | | owner | moderator | member | stranger |
//! |---|---|---|---|---|
//! | read, send | yes | yes | yes | in a public room |
//! | change title and attributes | yes | yes | no | no |
//! | delete the room | yes | no | no | no |
//! | add a member | yes | yes | no | himself, in a public room |
//! | give another role, or add with one | yes | no | a lesser one to himself | no |
//! | remove a member | yes | plain members | himself | no |
//! | edit a message | his own | his own | his own | his own, in a public room |
//! | redact a message | yes | yes | his own | his own, in a public room |

use crate::entity::{Role, RoomKind};
use crate::read::{Reader, Who, not_a_member};
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::RoomNameRow;
use crate::view::View;

/// The caller and the room that he wants to do something in.
pub(super) struct InRoom<'a> {
    name: &'a str,
    kind: RoomKind,
    /// None: a stranger. Root counts as an owner.
    role: Option<Role>,
}

impl<'a> InRoom<'a> {
    pub(super) fn of<V: View + ?Sized>(
        read: &Reader<'_, V>,
        who: &Who,
        name: &'a str,
        room: &RoomNameRow,
    ) -> Result<Self, Fatal> {
        Ok(Self {
            name,
            kind: room.kind,
            role: read.role(who, room.room)?,
        })
    }

    pub(super) fn check_update(&self) -> Result<(), Stop> {
        self.check(
            self.role >= Some(Role::Moderator),
            "only its owners and moderators change",
        )
    }

    pub(super) fn check_delete(&self) -> Result<(), Stop> {
        self.check(self.role == Some(Role::Owner), "only its owners delete")
    }

    /// May the caller make someone, who is `now`, `wanted`?
    pub(super) fn check_put(&self, himself: bool, now: Option<Role>, wanted: Role) -> Result<(), Stop> {
        let allowed = match (self.role, now) {
            (Some(Role::Owner), _) => true,
            // Whoever is in may step down, or say again what he is.
            (Some(_), Some(now)) if himself => wanted <= now,
            (Some(Role::Moderator), None | Some(Role::Member)) => wanted == Role::Member,
            (None, None) if himself => self.kind == RoomKind::Public && wanted == Role::Member,
            _ => false,
        };
        self.check(allowed, "not every member decides who is in")
    }

    /// May the caller remove someone who is `now`?
    pub(super) fn check_remove(&self, himself: bool, now: Role) -> Result<(), Stop> {
        let allowed = match self.role {
            Some(Role::Owner) => true,
            Some(_) if himself => true,
            Some(Role::Moderator) => now == Role::Member,
            _ => false,
        };
        self.check(allowed, "not every member decides who is in")
    }

    /// May the caller give a message another text? `own`: he sent it, or is root: nobody else puts words into
    /// somebody's mouth.
    pub(super) fn check_edit(&self, own: bool) -> Result<(), Stop> {
        self.check(own && self.inside(), "only its sender edits a message of")
    }

    /// May the caller take a message's content away?
    pub(super) fn check_redact(&self, own: bool) -> Result<(), Stop> {
        self.check(
            self.role >= Some(Role::Moderator) || (own && self.inside()),
            "only its sender, the owners and the moderators redact a message of",
        )
    }

    /// May he read the room and write to it?
    fn inside(&self) -> bool {
        self.kind == RoomKind::Public || self.role.is_some()
    }

    /// A stranger to a room that is for members is told so; everybody else, that it is forbidden.
    fn check(&self, allowed: bool, rule: &str) -> Result<(), Stop> {
        if allowed {
            Ok(())
        } else if self.role.is_none() && self.kind != RoomKind::Public {
            Err(not_a_member(self.name).into())
        } else {
            Err(Stop::refused(
                Code::Forbidden,
                format!("{rule} the room \"{}\"", self.name),
            ))
        }
    }
}
