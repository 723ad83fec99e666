//! What is wrong with a query in itself.

use super::{Query, QueryBody};
use crate::command::Caller;
use crate::ids::{Seq, SpaceId};
use crate::limits::LIMIT_MAX;
use crate::names;
use crate::rejection::{Code, Rejection};

pub(super) fn query(query: &Query) -> Result<(), Rejection> {
    if query.space != SpaceId::MAIN {
        return Err(bad(format!("there is no space {}", query.space)));
    }
    match &query.caller {
        Caller::User(name) => names::check("caller", name)?,
        Caller::Root | Caller::Session(_) => {}
    }
    match &query.body {
        QueryBody::User { user } => names::check("user", user),
        QueryBody::Users { after: _, limit: n }
        | QueryBody::Rooms { after: _, limit: n }
        | QueryBody::Locks { after: _, limit: n } => limit(*n),
        QueryBody::Room { room } => names::check("room", room),
        QueryBody::Members {
            room,
            after: _,
            limit: n,
        }
        | QueryBody::Messages {
            room,
            from: _,
            limit: n,
        }
        | QueryBody::RoomChanges {
            room,
            after: _,
            limit: n,
        }
        | QueryBody::MessageRevisions {
            room,
            seq: _,
            after: _,
            limit: n,
        } => {
            names::check("room", room)?;
            limit(*n)
        }
        QueryBody::Message { room, seq: Seq(_) } => names::check("room", room),
        QueryBody::Credentials { user } => names::check("user", user),
        QueryBody::Lock { lock } => names::check("lock", lock),
        QueryBody::Position | QueryBody::Caller | QueryBody::LockWait { .. } => Ok(()),
    }
}

fn limit(limit: u32) -> Result<(), Rejection> {
    if (1..=LIMIT_MAX).contains(&limit) {
        Ok(())
    } else {
        Err(bad(format!("limit is 1 to {LIMIT_MAX}")))
    }
}

fn bad(detail: String) -> Rejection {
    Rejection::new(Code::BadRequest, detail)
}
