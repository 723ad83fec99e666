//! The cluster version: which commands, fields and rules the nodes of a cluster may use.
//!
//! A rolling upgrade runs nodes of two builds side by side, and both must make the same state of the same
//! log. So what a build brings that older ones do not know stays unused until the state itself says that
//! all nodes know it: the version is a row of the state, raised by a command ([`crate::Command::RaiseVersion`])
//! that the leader proposes once every member's build supports the next version. It never goes down.
//!
//! | version | brings |
//! |---|---|
//! | 1 | everything that is not listed below |
//! | 2 | a member of the Raft cluster may take the place of another in one change (`replaces`), and membership entries say so |
//! | 3 | locks, sessions, edited and redacted messages |
//!
//! Whoever adds a command, a field or a rule raises [`VERSION_MAX`], adds a line above and a constant below,
//! and asks the version before using it: [`needed`] for a command, the constant for anything else.

use crate::command::{Caller, Command, Envelope};

/// The oldest cluster version that this build can be part of.
pub const VERSION_MIN: u32 = 1;
/// The newest.
pub const VERSION_MAX: u32 = 3;

/// Of a state that has never been raised.
pub const VERSION_FIRST: u32 = 1;
/// From this version on a member may take the place of another in one change of the membership.
pub const REPLACES: u32 = 2;

/// From this version on there are locks, sessions, edited and redacted messages.
pub const LOCKS_SESSIONS_EDITS: u32 = 3;

const _: () = assert!(VERSION_FIRST <= VERSION_MAX && VERSION_MIN <= VERSION_MAX);

/// The cluster version from which on a command may be applied.
pub fn needed(command: &Command) -> u32 {
    match command {
        // For the tests of the refusal.
        #[cfg(test)]
        Command::DeleteRoom { room } if room == "needs-version-2" => 2,
        Command::CreateUser { .. }
        | Command::UpdateUser { .. }
        | Command::DeleteUser { .. }
        | Command::CreateRoom { .. }
        | Command::UpdateRoom { .. }
        | Command::DeleteRoom { .. }
        | Command::PutMember { .. }
        | Command::RemoveMember { .. }
        | Command::Send { .. }
        | Command::RaiseVersion { .. } => VERSION_FIRST,
        Command::EditMessage { .. }
        | Command::RedactMessage { .. }
        | Command::CreateSession { .. }
        | Command::EndSession
        | Command::AcquireLock { .. }
        | Command::RenewLock { .. }
        | Command::ReleaseLock { .. }
        | Command::AbandonLock { .. }
        | Command::DropWaiters { .. }
        | Command::Tick => LOCKS_SESSIONS_EDITS,
    }
}

/// The cluster version that a node asks for before it proposes an envelope: an older build could not read it.
pub fn needed_by(envelope: &Envelope) -> u32 {
    let caller = match envelope.caller {
        Caller::Root | Caller::User(_) => VERSION_FIRST,
        Caller::Session(_) => LOCKS_SESSIONS_EDITS,
    };
    caller.max(needed(&envelope.command))
}
