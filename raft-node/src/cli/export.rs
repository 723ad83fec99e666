//! `quorate export ROOM`: the messages of a room as JSON lines, one message a line as the API shows
//! it. `quorate import jsonl` reads them back.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use quorate_client::wire::Message;
use quorate_client::{Client, Level, PageFrom};
use serde::Serialize;

use super::exit::Failure;
use super::output::Output;
use super::progress::Progress;

const EXAMPLES: &str = "\
What is in the room when the export begins is written; what is said meanwhile is not. With --file
the file is there once it is whole. `quorate import jsonl` reads it back to the same messages.

Examples:
  quorate export lobby > lobby.jsonl
  quorate export lobby --file lobby.jsonl
  quorate export lobby --after 1000 --limit 500 | jq -r .text";

/// The contract's largest page.
const PAGE: u32 = 500;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    room: String,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only the messages behind this seq
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// At most so many messages [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// What was written to a file.
#[derive(Debug, Serialize)]
struct Summary {
    room: String,
    file: String,
    messages: u64,
    /// Of the last message; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
}

impl Export {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let Some(file) = self.file.clone() else {
            // On a terminal the messages themselves are to be seen.
            let progress = !std::io::stdout().is_terminal();
            self.write(&client, progress, |lines| output.raw(lines)).await?;
            return Ok(());
        };
        let mut target = Target::create(&file)?;
        let (messages, last_seq) = self.write(&client, true, |lines| target.write(lines)).await?;
        target.finish()?;
        let summary = Summary {
            room: self.room,
            file: file.display().to_string(),
            messages,
            last_seq,
        };
        output.value(&summary, || {
            format!(
                "{}: {} messages written to {}",
                summary.room, summary.messages, summary.file
            )
        })
    }

    /// Gives page by page to `write`; returns how many messages there were, and the last one's seq.
    async fn write(
        &self,
        client: &Client,
        show: bool,
        mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(u64, Option<u64>), Failure> {
        let end = client.room(&self.room).await?.last_seq;
        let wanted = end.saturating_sub(self.after).min(self.limit.unwrap_or(u64::MAX));
        let mut progress = show.then(|| Progress::new(&self.room, wanted, 0));
        let (mut written, mut last) = (0, None);
        while written < wanted {
            let from = PageFrom::After(last.unwrap_or(self.after));
            let limit = u32::try_from(wanted - written).unwrap_or(PAGE).min(PAGE);
            let page = client.history(&self.room, &from, limit, Level::Linearizable).await?;
            let messages: Vec<&Message> = page.messages.iter().filter(|message| message.seq <= end).collect();
            // The room was made again meanwhile, and has fewer.
            let Some(newest) = messages.last() else { break };
            let mut lines = Vec::new();
            for message in &messages {
                serde_json::to_writer(&mut lines, message).expect("a message is plain JSON");
                lines.push(b'\n');
            }
            write(&lines)?;
            written += messages.len() as u64;
            last = Some(newest.seq);
            if let Some(progress) = &mut progress {
                progress.at(written);
            }
        }
        Ok((written, last))
    }
}

/// A file that takes its name when it is whole: one that was cut off looks as well as a whole one.
struct Target<'a> {
    path: &'a Path,
    part: PathBuf,
    file: BufWriter<File>,
    is_whole: bool,
}

impl<'a> Target<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // A directory that is not there, or not ours, is a slip on the line.
        let file = File::create(&part)
            .map_err(|error| Failure::Usage(format!("failed to write {}: {error}", part.display())))?;
        Ok(Self {
            path,
            part,
            file: BufWriter::new(file),
            is_whole: false,
        })
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(lines);
        written
            .with_context(|| format!("failed to write {}", self.part.display()))
            .map_err(Failure::Local)
    }

    fn finish(mut self) -> Result<(), Failure> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced
            .and_then(|()| std::fs::rename(&self.part, self.path))
            .with_context(|| format!("failed to write {}", self.path.display()))
            .map_err(Failure::Local)?;
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}
