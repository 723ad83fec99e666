//! Typed reads of rows, for apply and query alike.

use crate::command::Caller;
use crate::entity::{Message, Role, RoomKind};
use crate::ids::{LockId, Revision, RoomId, Seq, SpaceId, TokenHash, UserId};
use crate::keys::{Group, Key};
use crate::names;
use crate::rejection::{Code, Fatal, Rejection, Stop};
use crate::rows::{
    LockRow, MemberRow, MessageRow, RoomNameRow, RoomRow, RoomTailRow, Row, SessionRow, SystemRow, UserNameRow,
    UserRow, VersionRow, WaiterRow,
};
use crate::version::VERSION_FIRST;
use crate::view::View;

/// The rows of one space.
pub(crate) struct Reader<'a, V: View + ?Sized> {
    pub(crate) view: &'a V,
    pub(crate) space: SpaceId,
}

/// The caller, resolved: a user that exists, or root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) id: UserId,
    pub(crate) name: String,
    /// The session that he asks with, if he signed in.
    pub(crate) session: Option<(TokenHash, Revision)>,
}

impl Who {
    /// Somebody who asks without a session.
    pub(crate) fn new(id: UserId, name: String) -> Self {
        Self {
            id,
            name,
            session: None,
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.id == UserId::ROOT
    }
}

impl<V: View + ?Sized> Reader<'_, V> {
    pub(crate) fn row<R: Row>(&self, key: Key<'_>) -> Result<Option<R>, Fatal> {
        let mut row = None;
        self.view.look(&key.encode(self.space), &mut |value| {
            row = Some(R::from_bytes(value)?);
            Ok(())
        })?;
        Ok(row)
    }

    /// A row that another row points at.
    pub(crate) fn must<R: Row>(&self, key: Key<'_>) -> Result<R, Fatal> {
        self.row(key)?
            .ok_or_else(|| Fatal::Corrupt(format!("{key:?} is missing")))
    }

    pub(crate) fn system(&self) -> Result<SystemRow, Fatal> {
        Ok(self.row(Key::System)?.unwrap_or_default())
    }

    /// The cluster version (see [`crate::version`]).
    pub(crate) fn version(&self) -> Result<u32, Fatal> {
        let row: Option<VersionRow> = self.row(Key::Version)?;
        Ok(row.map_or(VERSION_FIRST, |row| row.version))
    }

    pub(crate) fn user_named(&self, name: &str) -> Result<Option<UserId>, Fatal> {
        Ok(self.row::<UserNameRow>(Key::UserName { name })?.map(|row| row.user))
    }

    pub(crate) fn user(&self, user: UserId) -> Result<UserRow, Fatal> {
        self.must(Key::User { user })
    }

    pub(crate) fn room_named(&self, name: &str) -> Result<Option<RoomNameRow>, Fatal> {
        self.row(Key::RoomName { name })
    }

    pub(crate) fn room(&self, room: RoomId) -> Result<RoomRow, Fatal> {
        self.must(Key::Room { room })
    }

    pub(crate) fn tail(&self, room: RoomId) -> Result<RoomTailRow, Fatal> {
        self.must(Key::RoomTail { room })
    }

    /// The user's membership. A row that an earlier user of the same name left is none.
    pub(crate) fn member(&self, room: RoomId, user: UserId, name: &str) -> Result<Option<MemberRow>, Fatal> {
        let row: Option<MemberRow> = self.row(Key::Member { room, user: name })?;
        Ok(row.filter(|row| row.user == user))
    }

    /// Who asks, at a time of the replicated clock; an unknown user is refused as unauthenticated.
    pub(crate) fn who(&self, caller: &Caller, now_ms: u64) -> Result<Who, Stop> {
        match caller {
            Caller::Root => Ok(Who::new(UserId::ROOT, names::ROOT.to_owned())),
            Caller::Session(token) => self.signed_in(*token, now_ms),
            Caller::User(name) => match self.user_named(name)? {
                Some(id) => Ok(Who::new(id, name.clone())),
                None => Err(Stop::refused(
                    Code::Unauthenticated,
                    format!("there is no user \"{name}\""),
                )),
            },
        }
    }

    /// Whose session the token is.
    fn signed_in(&self, token: TokenHash, now_ms: u64) -> Result<Who, Stop> {
        let row: Option<SessionRow> = self.row(Key::Session { token })?;
        let Some(session) = row.filter(|session| session.expires_ms > now_ms) else {
            return Err(Stop::refused(
                Code::Unauthenticated,
                "the token is none of a session, or the session has ended",
            ));
        };
        // A session goes with its user.
        let user = self.user(session.user)?;
        Ok(Who {
            id: session.user,
            name: user.name,
            session: Some((token, session.began)),
        })
    }

    /// The message that a path names, in the room that it names.
    pub(crate) fn message_in_path(&self, room: &RoomNameRow, name: &str, seq: Seq) -> Result<MessageRow, Stop> {
        let row = self.row(Key::Message { room: room.room, seq })?;
        Ok(row.ok_or_else(|| Rejection::new(Code::NotFound, format!("there is no message {seq} in \"{name}\"")))?)
    }

    /// The message that had this seq at `rev`, as it is now; none if it is gone. A later room of the name is
    /// another room, and its messages are others.
    pub(crate) fn message_named(&self, room_name: &str, seq: Seq, rev: Revision) -> Result<Option<Message>, Fatal> {
        let found = self.room_named(room_name)?.filter(|room| room.created_rev <= rev);
        let Some(found) = found else {
            return Ok(None);
        };
        let row: Option<MessageRow> = self.row(Key::Message { room: found.room, seq })?;
        Ok(row.map(|row| row.entity(room_name.to_owned(), seq)))
    }

    /// Who waits for the lock, first come first, at most `limit` of them.
    pub(crate) fn waiters(
        &self,
        lock: LockId,
        row: &LockRow,
        limit: usize,
    ) -> Result<Vec<(Revision, WaiterRow)>, Fatal> {
        if row.waiters == 0 {
            return Ok(Vec::new());
        }
        let from = Key::Waiter {
            lock,
            since: row.served,
        }
        .encode(self.space);
        let to = Group::Waiters { lock }.range(self.space).end;
        let queue = self.view.scan(&from, &to, false, limit)?;
        let decoded = queue.iter().map(|(key, value)| match Key::decode(key) {
            Some((_, Key::Waiter { since, .. })) => Ok((since, WaiterRow::from_bytes(value)?)),
            _ => Err(Fatal::Corrupt(format!(
                "a key among those who wait for the lock {lock} is none"
            ))),
        });
        decoded.collect()
    }

    /// The user that a path names.
    pub(crate) fn user_in_path(&self, name: &str) -> Result<UserId, Stop> {
        Ok(self.user_named(name)?.ok_or_else(|| no_user(name))?)
    }

    /// The room that a path names.
    pub(crate) fn room_in_path(&self, name: &str) -> Result<RoomNameRow, Stop> {
        Ok(self
            .room_named(name)?
            .ok_or_else(|| Rejection::new(Code::NotFound, format!("there is no room \"{name}\"")))?)
    }

    /// The caller's role in the room: none for a stranger, and owner for root, who passes every check.
    pub(crate) fn role(&self, who: &Who, room: RoomId) -> Result<Option<Role>, Fatal> {
        if who.is_root() {
            return Ok(Some(Role::Owner));
        }
        Ok(self.member(room, who.id, &who.name)?.map(|member| member.role))
    }

    /// Refuses who may neither read the room nor write to it: strangers, unless the room is public.
    pub(crate) fn check_inside(&self, who: &Who, name: &str, room: &RoomNameRow) -> Result<(), Stop> {
        if room.kind == RoomKind::Public || self.role(who, room.room)?.is_some() {
            return Ok(());
        }
        Err(not_a_member(name).into())
    }
}

pub(crate) fn no_user(name: &str) -> Rejection {
    Rejection::new(Code::NotFound, format!("there is no user \"{name}\""))
}

pub(crate) fn not_a_member(room: &str) -> Rejection {
    Rejection::new(Code::NotAMember, format!("the room \"{room}\" is for its members"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Revision, Seq};
    use crate::memory::Memory;
    use crate::view::Change;

    /// Whatever a deleted user may have left in a room, who takes his name is not a member.
    #[test]
    fn a_membership_belongs_to_an_id() {
        let (room, space) = (RoomId(1), SpaceId::MAIN);
        let row = MemberRow {
            user: UserId(1),
            role: Role::Owner,
            joined_at_ms: 0,
            joined_seq: Seq(0),
            rev: Revision(1),
        };
        let mut memory = Memory::new();
        let key = Key::Member { room, user: "a" }.encode(space);
        memory.write(vec![Change::Put {
            key,
            value: row.to_bytes(),
        }]);
        let read = Reader { view: &memory, space };
        assert_eq!(read.member(room, UserId(1), "a").unwrap(), Some(row));
        assert_eq!(read.member(room, UserId(2), "a").unwrap(), None);
    }
}
