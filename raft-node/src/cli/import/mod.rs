//! `quorate import …`: chats of other systems, one file of code each system.

mod clock;
mod irc;
mod key;
mod lines;
mod nick;
mod progress;
mod run;

use std::path::PathBuf;

use clap::Subcommand;
use jiff::civil::Date;
use quorate_client::Client;

use super::exit::Failure;
use super::output::Output;

const IRC_HELP: &str = "\
Every line becomes one message, in order:
  [HH:MM] <nick> text      kind text, from nick
  [HH:MM]  * nick action   kind action, from nick, the text without the nick
  anything else            kind system, from root, the whole line
The room is created (public) if it is missing, and so are the users. A nick that cannot be a
name has its white space, control characters and slashes written as %XX. The date is --date,
or the YYYY-MM-DD that the file's name begins with; a clock that steps back by at most 12
hours has passed noon, by more midnight.

Lines are keyed by file name and line number: an import that was interrupted is simply run
again, and goes on where it stopped without duplicating a line.

Examples:
  quorate import irc 2004-11-15.log --room ubuntu
  quorate import irc channel.txt --room ubuntu --date 2004-11-15
  quorate import irc logs/*.txt --room ubuntu";

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Logs of an IRC channel
    #[command(after_help = IRC_HELP)]
    Irc {
        /// The logs, in the order of their messages
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[arg(long)]
        room: String,
        /// The day of the first line, for every file [default: from each file's name]
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = parse_date)]
        date: Option<Date>,
        /// Lines that are sent at once, 1 to 1000
        #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        batch_lines: u16,
    },
}

impl Import {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        match self {
            Import::Irc {
                files,
                room,
                date,
                batch_lines,
            } => {
                let sources = run::sources(&files, date)?;
                let summary = run::import(&client, &room, &sources, usize::from(batch_lines)).await?;
                output.value(&summary, || summary.text())
            }
        }
    }
}

/// `YYYY-MM-DD` and nothing else.
fn parse_date(text: &str) -> Result<Date, String> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| {
            if matches!(at, 4 | 7) {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        });
    let date = if shape { text.parse().ok() } else { None };
    date.ok_or_else(|| format!("{text:?} is not a date YYYY-MM-DD"))
}

/// The date that a file's name begins with.
fn date_of_name(name: &str) -> Option<Date> {
    parse_date(name.get(..10)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_strict() {
        assert_eq!(parse_date("2004-02-29").expect("a leap day").to_string(), "2004-02-29");
        for text in [
            "",
            "2004-2-29",
            "2005-02-29",
            "2004-02-29T00:00",
            "20040229",
            "+004-02-29",
            "2004/02/29",
        ] {
            assert!(parse_date(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_name_may_begin_with_its_date() {
        assert_eq!(
            date_of_name("2004-11-15_03.raw.txt").expect("a date").to_string(),
            "2004-11-15"
        );
        for name in ["", "ubuntu.txt", "04-11-15.txt", "2004-13-15.txt", "日日日日.txt"] {
            assert_eq!(date_of_name(name), None, "{name:?}");
        }
    }
}
