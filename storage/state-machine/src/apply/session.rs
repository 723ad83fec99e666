//! Sessions: who has signed in.

use super::context::{Context, Done};
use crate::ids::{Revision, TokenHash, UserId};
use crate::rejection::{Code, Stop};
use crate::view::View;

pub(super) fn create<V: View>(
    _context: &mut Context<'_, V>,
    _user: String,
    _password_hash: &str,
    _token: TokenHash,
    _device: Option<String>,
    _ttl_ms: u64,
) -> Result<Done, Stop> {
    Err(Stop::refused(Code::Conflict, "sessions are not built yet"))
}

/// Ends the session that the caller asks with.
pub(super) fn end_own<V: View>(_context: &mut Context<'_, V>) -> Result<Done, Stop> {
    Err(Stop::refused(Code::Conflict, "sessions are not built yet"))
}

/// A session's time is over.
pub(super) fn expire<V: View>(_context: &mut Context<'_, V>, _user: UserId, _began: Revision) -> Result<(), Stop> {
    Ok(())
}
