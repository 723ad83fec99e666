//! A password, from whoever sits at the terminal or from one line of standard input. Never from the line of the
//! command, which every user of the machine can read.

use std::io::{BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::exit::Failure;

/// More than the store takes, so that it is the store that says no.
const LINE_BYTES_MAX: u64 = 8 << 10;

pub(crate) fn read() -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let silent = match stdin.is_terminal() {
        true => Some(Silence::begin()?),
        false => None,
    };
    let line = read_line(stdin.lock());
    if silent.is_some() {
        // The line's own end was not shown either.
        eprintln!();
    }
    line
}

fn read_line(input: impl BufRead) -> Result<String, Failure> {
    let failed = |error| Failure::Local(anyhow::Error::new(error).context("failed to read the password"));
    let mut line = String::new();
    input.take(LINE_BYTES_MAX).read_line(&mut line).map_err(failed)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(Failure::Usage(
            "no password was given: it is read from one line of standard input".into(),
        ));
    }
    Ok(password.to_owned())
}

/// The terminal shows nothing of what is typed, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> Result<Self, Failure> {
        let mut stderr = std::io::stderr();
        let asked = stderr.write_all(b"Password: ").and_then(|()| stderr.flush());
        asked.map_err(Failure::local)?;
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).map_err(Failure::local)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &silent).map_err(Failure::local)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal is gone if this fails, and its echo with it.
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_without_its_end() {
        for text in ["se cret", "se cret\n", "se cret\r\n", "se cret\nmore\n"] {
            assert_eq!(read_line(text.as_bytes()).expect("a password"), "se cret");
        }
        assert_eq!(
            read_line(" x \n".as_bytes()).expect("a password"),
            " x ",
            "blanks are part of it"
        );
        for text in ["", "\n", "\r\n"] {
            assert!(matches!(read_line(text.as_bytes()), Err(Failure::Usage(_))), "{text:?}");
        }
        assert!(matches!(read_line(&b"\xff\n"[..]), Err(Failure::Local(_))));
    }
}
