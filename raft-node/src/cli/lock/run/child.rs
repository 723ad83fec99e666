//! What becomes the command: a process of this binary that makes sure of its end before it is the command.
//!
//! The kernel kills it when its parent dies (`PR_SET_PDEATHSIG`), which stays so over `exec`, but has to be asked for
//! by the process itself. (A program that changes its user loses it: the watchdog remains.)

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cli::exit::Failure;

/// As shells say it: not found, and found but not to be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

#[derive(Debug, clap::Args)]
pub(crate) struct RunChild {
    /// The process that must be alive
    #[arg(long)]
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl RunChild {
    pub(crate) fn run(self) -> Result<(), Failure> {
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Failure::local)?;
        // It may have died before that was said.
        if nix::unistd::getppid().as_raw() != self.parent {
            return Err(Failure::Exit(1));
        }
        let (program, arguments) = self.command.split_first().expect("the line has a command");
        let error = Command::new(program).args(arguments).exec();
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_RUNNABLE,
        };
        eprintln!("quorate: failed to run {}: {error}", program.display());
        Err(Failure::Exit(code))
    }
}
