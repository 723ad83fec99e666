//! `quorate import …`: chats of other systems and exports of this one. Each format is a file of code
//! that makes messages of lines (`irc_log`, `jsonl`); `run` does the rest for all of them.

mod clock;
mod format;
mod irc;
mod irc_log;
mod jsonl;
mod key;
mod lines;
mod nick;
mod run;

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Subcommand;
use jiff::civil::Date;
use quorate_client::Client;

use super::exit::Failure;
use super::output::Output;
use format::{Format, Source};
use irc_log::IrcLog;
use jsonl::JsonLines;

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

const JSONL_HELP: &str = "\
Reads what `quorate export` wrote: one message a line, as the API shows it. Sender, time, kind,
text, client_id, reply_to and attributes are kept; into an empty room also the seqs, if the export
began with the first message. The room is created (public) if it is missing, and so are the users.
A redacted message becomes one with an empty text, so that those behind it keep their seqs.

The whole file is checked first: a line that is no message is named, and nothing is imported. An
import that was interrupted is simply run again: it looks how far the room is and goes on there.

Examples:
  quorate import jsonl lobby.jsonl --room lobby
  quorate export lobby > lobby.jsonl && quorate import jsonl lobby.jsonl --room lobby-2";

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
    /// What `quorate export` wrote
    #[command(after_help = JSONL_HELP)]
    Jsonl {
        /// JSON lines, one message each
        file: PathBuf,
        #[arg(long)]
        room: String,
        /// Lines that are sent at once, 1 to 1000
        #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        batch_lines: u16,
    },
}

impl Import {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let (mut sources, room, batch_lines) = match self {
            Import::Irc {
                files,
                room,
                date,
                batch_lines,
            } => (irc_sources(&files, date)?, room, batch_lines),
            Import::Jsonl {
                file,
                room,
                batch_lines,
            } => (jsonl_sources(&file)?, room, batch_lines),
        };
        let summary = run::import(&client, &room, &mut sources, usize::from(batch_lines)).await?;
        output.value(&summary, || summary.text())
    }
}

/// The files and their dates.
fn irc_sources(files: &[PathBuf], date: Option<Date>) -> Result<Vec<Source>, Failure> {
    sources(files, |name| {
        let date = date
            .or_else(|| date_of_name(name))
            .ok_or_else(|| Failure::Usage(format!("{name} does not begin with a date: give --date YYYY-MM-DD")))?;
        Ok(Box::new(IrcLog::new(name, date)))
    })
}

fn jsonl_sources(file: &PathBuf) -> Result<Vec<Source>, Failure> {
    sources(std::slice::from_ref(file), |name| Ok(Box::new(JsonLines::new(name))))
}

/// Checks the files' names before anything is asked of the store.
fn sources(
    files: &[PathBuf],
    format: impl Fn(&str) -> Result<Box<dyn Format>, Failure>,
) -> Result<Vec<Source>, Failure> {
    let mut names = HashSet::new();
    let mut sources = Vec::new();
    for path in files {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            return Err(Failure::Usage(format!("{} is not a file", path.display())));
        };
        // Their lines would have the same keys, and the second file's would be taken for the first's.
        if !names.insert(name.clone()) {
            return Err(Failure::Usage(format!(
                "two files are called {name}; lines are keyed by file name"
            )));
        }
        sources.push(Source {
            path: path.clone(),
            format: format(&name)?,
            name,
        });
    }
    Ok(sources)
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
