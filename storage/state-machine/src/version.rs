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
//!
//! Whoever adds a command, a field or a rule raises [`VERSION_MAX`], adds a line above and a constant below,
//! and asks the version before using it: [`needed`] for a command, the constant for anything else.

use crate::command::Command;

/// The oldest cluster version that this build can be part of.
pub const VERSION_MIN: u32 = 1;
/// The newest.
pub const VERSION_MAX: u32 = 2;

/// Of a state that has never been raised.
pub const VERSION_FIRST: u32 = 1;
/// From this version on a member may take the place of another in one change of the membership.
pub const REPLACES: u32 = 2;

const _: () = assert!(VERSION_FIRST <= VERSION_MAX && VERSION_MIN <= VERSION_MAX);

/// The cluster version from which on a command may be applied.
pub fn needed(command: &Command) -> u32 {
    match command {
        // No command that is in use needs more than the first version yet. This one is for the tests of
        // the refusal.
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
    }
}
