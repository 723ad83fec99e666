//! The cluster version: what it permits, and how it is raised. It never goes down.

use super::context::{Context, Done};
use super::outcome::Response;
use crate::command::Command;
use crate::keys::Key;
use crate::rejection::{Code, Stop};
use crate::rows::VersionRow;
use crate::version::{VERSION_FIRST, needed};
use crate::view::View;

/// Refuses a command that the cluster's version does not have yet. Whether it is known to this build does
/// not matter: all nodes must decide the same.
pub(super) fn check<V: View>(context: &Context<'_, V>, command: &Command) -> Result<(), Stop> {
    let needed = needed(command);
    // What every version has costs no read.
    if needed == VERSION_FIRST {
        return Ok(());
    }
    let version = context.read().version()?;
    if version < needed {
        let detail = format!("this needs cluster version {needed}, and the cluster is at version {version}");
        return Err(Stop::refused(Code::Conflict, detail));
    }
    Ok(())
}

/// To whatever is higher, known to this build or not: a node whose build cannot follow ends by itself.
pub(super) fn raise<V: View>(context: &mut Context<'_, V>, to: u32) -> Result<Done, Stop> {
    if !context.who.is_root() {
        return Err(Stop::refused(Code::Forbidden, "only root raises the cluster version"));
    }
    context.check_conditions(None)?;
    let version = context.read().version()?;
    if to <= version {
        let detail = format!("the cluster is at version {version}, which is not raised to {to}");
        return Err(Stop::refused(Code::Conflict, detail));
    }
    context.put_unseen(Key::Version, &VersionRow { version: to });
    Ok(Done::new(Response::VersionRaised { version: to }))
}

#[cfg(test)]
mod tests {
    use crate::memory::Memory;
    use crate::{Caller, Code, Command, Conditions, EntryMeta, Envelope, Outcome, Overlay, SpaceId, apply};

    fn run(memory: &mut Memory, command: Command) -> Outcome {
        let mut state = Overlay::new(memory.snapshot());
        let envelope = Envelope {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            request_id: String::new(),
            idempotency: None,
            conditions: Conditions::default(),
            command,
        };
        let outcome = apply(&mut state, EntryMeta::default(), envelope).unwrap();
        memory.write(state.into_changes());
        outcome
    }

    #[test]
    fn a_command_waits_for_its_version() {
        let mut memory = Memory::new();
        let gated = || Command::DeleteRoom {
            room: "needs-version-2".to_owned(),
        };
        let refused = run(&mut memory, gated()).response.unwrap_err();
        assert_eq!(refused.code, Code::Conflict);
        assert!(refused.detail.contains("needs cluster version 2"), "{refused:?}");
        assert!(memory.is_empty());
        run(&mut memory, Command::RaiseVersion { to: 2 }).response.unwrap();
        // It is applied now: there is no such room.
        assert_eq!(run(&mut memory, gated()).response.unwrap_err().code, Code::NotFound);
    }
}
