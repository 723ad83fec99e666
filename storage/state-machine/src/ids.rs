//! Newtypes for everything that is counted or given an id by the log.

use bincode::{Decode, Encode};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The unit of placement: it holds its rooms, users and locks. There is one now, [`SpaceId::MAIN`].
    SpaceId(u32)
);
id!(
    /// Given by the log when a room is created; never used again.
    RoomId(u64)
);
id!(
    /// Given by the log when a user is created; never used again. [`UserId::ROOT`] is not stored.
    UserId(u64)
);
id!(
    /// The revision that made the lock; never used again.
    LockId(u64)
);
id!(
    /// Names a request for a lock: made by the node that took it in, so that the node can ask what became of it.
    WaiterId(u128)
);
id!(
    /// One run of a node's process, made when it starts: whoever waited at an earlier run is gone.
    RunId(u128)
);
id!(
    /// A fencing token: `epoch·2^44 + revision` of the grant, so that it only grows, also over a restore.
    FencingToken(u64)
);
id!(
    /// A message's place in its room: 1, 2, 3 … with no gap. 0 means "none".
    Seq(u64)
);
id!(
    /// A change's place in the whole store: 1, 2, 3 …
    Revision(u64)
);
id!(
    /// Counts restores: a restored backup starts a new one, so that positions of the old are refused.
    Epoch(u32)
);

/// A session's token by its hash (256 bits): the token itself is known to nobody but its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TokenHash(pub [u8; 32]);

impl FencingToken {
    /// Revisions of one epoch fill these bits: 17 million million changes.
    const REVISION_BITS: u32 = 44;

    pub fn new(epoch: Epoch, revision: Revision) -> Self {
        Self((u64::from(epoch.0) << Self::REVISION_BITS) + revision.0)
    }
}

impl SpaceId {
    pub const MAIN: SpaceId = SpaceId(1);
}

impl UserId {
    /// The administrator. Real users start at 1.
    pub const ROOT: UserId = UserId(0);
}

impl Epoch {
    /// The epoch of a store that was never restored.
    pub const FIRST: Epoch = Epoch(1);
}

/// What a client holds as an opaque position: the state it has seen. `index` counts the events of
/// one revision that were already delivered (a batch has one revision and many messages);
/// [`Position::WHOLE`] means all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Position {
    pub epoch: Epoch,
    pub space: SpaceId,
    pub revision: Revision,
    pub index: u32,
}

impl Position {
    /// Every event of the revision was delivered.
    pub const WHOLE: u32 = u32::MAX;

    /// The position after everything that `revision` did.
    pub fn after(epoch: Epoch, space: SpaceId, revision: Revision) -> Self {
        Self {
            epoch,
            space,
            revision,
            index: Self::WHOLE,
        }
    }
}

/// Written `epoch.space.revision`, or `epoch.space.revision.index` inside a revision.
impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.space, self.revision)?;
        if self.index != Self::WHOLE {
            write!(f, ".{}", self.index)?;
        }
        Ok(())
    }
}

/// The text is not a position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position of this store")]
pub struct InvalidPosition;

impl std::str::FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(s: &str) -> Result<Self, InvalidPosition> {
        fn number<T: std::str::FromStr>(part: &str) -> Result<T, InvalidPosition> {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidPosition);
            }
            part.parse().map_err(|_| InvalidPosition)
        }
        let parts: Vec<&str> = s.split('.').collect();
        let (fields, index) = match parts.as_slice() {
            [e, s, r] => ([*e, *s, *r], Position::WHOLE),
            [e, s, r, i] => ([*e, *s, *r], number(i)?),
            _ => return Err(InvalidPosition),
        };
        Ok(Position {
            epoch: Epoch(number(fields[0])?),
            space: SpaceId(number(fields[1])?),
            revision: Revision(number(fields[2])?),
            index,
        })
    }
}
