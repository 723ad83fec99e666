//! The command's process group: what a signal to it comes to, and what is left of it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// To the whole group, also to those of it that are stopped. The number is the group's own until its first process
/// has been waited for.
pub(super) fn signal(group: Pid, signal: Signal) {
    if killpg(group, signal) == Err(Errno::EPERM) {
        eprintln!("quorate: {signal} may not be sent to the command: it runs as another user");
    }
    let _ = killpg(group, Signal::SIGCONT);
}

/// What is left of a group that was sent KILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nobody,
    /// Whom this process may send nothing.
    Others,
    /// Who has not died yet.
    Dying,
}

impl Left {
    pub(super) fn of(group: Pid) -> Self {
        Self::by(killpg(group, None))
    }

    /// `asked`: what became of a signal that only asks. It comes to EPERM if there are processes, all of them others'.
    fn by(asked: nix::Result<()>) -> Self {
        match asked {
            Err(Errno::ESRCH) => Left::Nobody,
            Err(Errno::EPERM) => Left::Others,
            Ok(()) | Err(_) => Left::Dying,
        }
    }

    pub(super) fn in_words(self) -> Option<&'static str> {
        match self {
            Left::Nobody => None,
            Left::Others => Some("processes of another user are left of the command, which may not be killed"),
            Left::Dying => Some("processes are left of the command, which were killed and do not end"),
        }
    }
}

/// Whether all that is left of the group is dead, and only not waited for: in a container nobody may ever do that.
/// Where that cannot be seen, it is not so.
pub(super) fn is_dead(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    let mut dead = 0;
    for process in processes.flatten() {
        let stat = std::fs::read(process.path().join("stat")).unwrap_or_default();
        match state_and_group(&String::from_utf8_lossy(&stat)) {
            Some((state, of)) if of == group.as_raw() => match state {
                'Z' | 'X' => dead += 1,
                _ => return false,
            },
            _ => {}
        }
    }
    dead > 0
}

/// Of a line as proc(5) has it: `pid (name) state parent group …`; the name may hold anything.
fn state_and_group(stat: &str) -> Option<(char, i32)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_that_is_not_there_is_gone() {
        assert_eq!(Left::by(Err(Errno::ESRCH)), Left::Nobody);
        assert_eq!(Left::by(Err(Errno::EPERM)), Left::Others);
        assert_eq!(Left::by(Ok(())), Left::Dying);
        assert_eq!(Left::by(Err(Errno::EINVAL)), Left::Dying);
        assert_eq!(Left::of(nix::unistd::getpgrp()), Left::Dying);
        assert!(Left::Nobody.in_words().is_none() && Left::Others.in_words().is_some());
    }

    #[test]
    fn the_living_are_told_from_the_dead() {
        assert_eq!(state_and_group("7 (a) Z (b) S 1 42 42 0 -1"), Some(('S', 42)));
        assert_eq!(state_and_group("7 (sh) Z 1 -1 42"), Some(('Z', -1)));
        for line in ["", "7 (sh", "7 (sh) Z", "7 (sh) Z 1", "7 (sh) Z 1 x"] {
            assert_eq!(state_and_group(line), None, "{line}");
        }
        assert!(!is_dead(nix::unistd::getpgrp()));
    }
}
