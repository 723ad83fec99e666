//! Performs an import: reads the files line by line, makes the users it meets, and sends the lines
//! in batches, one after the other, so that line n becomes seq n + 1 of an empty room.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use futures::StreamExt;
use jiff::civil::Date;
use quorate_client::wire::{BatchMessage, NewRoom, NewUser, RoomKind};
use quorate_client::{Client, Error, Level, PageFrom};
use serde::Serialize;

use super::clock::Clock;
use super::irc::{self, Said};
use super::key::FileKey;
use super::lines::{Lines, failed_to_read};
use super::nick::user_name;
use super::progress::{Progress, rate};
use crate::cli::exit::Failure;

/// The contract's bound of a message's text.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// A batch's JSON is kept below the contract's 4 MiB, whatever its lines have in them.
const BATCH_BYTES_MAX: usize = 3 << 20;
/// Users made side by side: enough to share the log's fsyncs, few enough to leave room for others.
const USERS_AT_ONCE: usize = 64;
/// The administrator is not a stored user: nobody makes him.
const ROOT: &str = "root";

/// A file to import, and what its name says.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    name: String,
    key: FileKey,
    date: Date,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    room: String,
    /// Of all files.
    lines: u64,
    /// By this run; the others were there from an earlier one.
    sent: u64,
    /// Bytes that were not UTF-8.
    replaced_bytes: u64,
    /// The room's last seq after the last line that was sent; absent if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
    elapsed_ms: u64,
}

impl Summary {
    pub(crate) fn text(&self) -> String {
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let rate = rate(self.sent, std::time::Duration::from_millis(self.elapsed_ms));
        let mut text = format!(
            "{}: {} lines, {} sent in {seconds:.1} s ({rate} lines/s)",
            self.room, self.lines, self.sent
        );
        if self.lines > self.sent {
            text.push_str(&format!(", {} were there", self.lines - self.sent));
        }
        if self.replaced_bytes > 0 {
            text.push_str(&format!(", {} bytes that are not UTF-8 replaced", self.replaced_bytes));
        }
        text
    }
}

/// Checks the files' names and dates before anything is asked of the store.
pub(crate) fn sources(files: &[PathBuf], date: Option<Date>) -> Result<Vec<Source>, Failure> {
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
        let date = date
            .or_else(|| super::date_of_name(&name))
            .ok_or_else(|| Failure::Usage(format!("{name} does not begin with a date: give --date YYYY-MM-DD")))?;
        sources.push(Source {
            path: path.clone(),
            key: FileKey::new(&name),
            name,
            date,
        });
    }
    Ok(sources)
}

/// Imports the files in order. Safe to run again after any failure.
pub(crate) async fn import(
    client: &Client,
    room: &str,
    sources: &[Source],
    batch_lines: usize,
) -> Result<Summary, Failure> {
    let began = Instant::now();
    let mut totals = Vec::new();
    for source in sources {
        totals.push(count_lines(source).await?);
    }
    let done = match make_room(client, room).await? {
        Made::Now => None,
        Made::Before => how_far(client, room, sources).await?,
    };
    let mut work = Work {
        client,
        room,
        batch_lines,
        known: HashSet::from([ROOT.to_owned()]),
        summary: Summary {
            room: room.to_owned(),
            ..Summary::default()
        },
    };
    for (index, source) in sources.iter().enumerate() {
        let start = match done {
            Some((file, _)) if index < file => totals[index],
            Some((file, line)) if index == file => line,
            _ => 0,
        };
        work.file(source, start, totals[index]).await?;
    }
    let mut summary = work.summary;
    summary.elapsed_ms = began.elapsed().as_millis() as u64;
    Ok(summary)
}

enum Made {
    Now,
    Before,
}

async fn make_room(client: &Client, room: &str) -> Result<Made, Failure> {
    let new = NewRoom {
        room: room.to_owned(),
        kind: RoomKind::Public,
        title: None,
        members: Vec::new(),
        attributes: None,
    };
    match client.room(room).await {
        Ok(_) => return Ok(Made::Before),
        Err(error) if error.code() == Some("not_found") => {}
        Err(error) => return Err(error.into()),
    }
    match client.create_room(&new).await {
        Ok(_) => Ok(Made::Now),
        // Another import made it meanwhile.
        Err(error) if error.code() == Some("already_exists") => Ok(Made::Before),
        Err(error) => Err(error.into()),
    }
}

/// The file, by index, and the line in it that an earlier run has come to. Lines are sent in
/// order, so the last one that the room's newest page has is where to go on. None where that page
/// has none: then all lines are sent again, and the store knows those that it has.
async fn how_far(client: &Client, room: &str, sources: &[Source]) -> Result<Option<(usize, u64)>, Failure> {
    let page = client
        .history(room, &PageFrom::Newest, 500, Level::Linearizable)
        .await?;
    let ours = |client_id: &str| {
        sources
            .iter()
            .enumerate()
            .find_map(|(index, source)| Some((index, source.key.line(client_id)?)))
    };
    Ok(page
        .messages
        .iter()
        .rev()
        .filter_map(|message| message.client_id.as_deref())
        .find_map(ours))
}

/// An import on its way.
struct Work<'a> {
    client: &'a Client,
    room: &'a str,
    batch_lines: usize,
    /// Users that exist.
    known: HashSet<String>,
    summary: Summary,
}

/// Lines that go out together.
#[derive(Default)]
struct Batch {
    messages: Vec<BatchMessage>,
    bytes: usize,
}

impl Work<'_> {
    /// Sends the lines after the first `start`.
    async fn file(&mut self, source: &Source, start: u64, total: u64) -> Result<(), Failure> {
        let mut lines = Lines::open(&source.path).await?;
        let mut clock = Clock::new(source.date);
        let mut progress = Progress::new(&source.name, total, start.min(total));
        let mut batch = Batch::default();
        let mut last = 0;
        while let Some(line) = lines.next().await? {
            last = lines.number;
            self.summary.lines += 1;
            self.summary.replaced_bytes += line.replaced_bytes;
            let message = message(source, lines.number, &line.text, &mut clock)?;
            if lines.number <= start {
                continue;
            }
            let bytes = serde_json::to_string(&message).expect("a message is plain JSON").len() + 1;
            if batch.messages.len() >= self.batch_lines || batch.bytes + bytes > BATCH_BYTES_MAX {
                self.send(std::mem::take(&mut batch))
                    .await
                    .map_err(|failure| self.midway(failure))?;
                progress.at(lines.number - 1);
            }
            batch.bytes += bytes;
            batch.messages.push(message);
        }
        if !batch.messages.is_empty() {
            self.send(batch).await.map_err(|failure| self.midway(failure))?;
            progress.at(last);
        }
        Ok(())
    }

    fn midway(&self, failure: Failure) -> Failure {
        failure.midway(format!(
            "{} lines were sent; run the same import again to go on",
            self.summary.sent
        ))
    }

    async fn send(&mut self, batch: Batch) -> Result<(), Failure> {
        self.make_users(&batch).await?;
        let count = batch.messages.len() as u64;
        let sent = self.client.send_batch(self.room, batch.messages).await?;
        self.summary.sent += count;
        self.summary.last_seq = Some(sent.last_seq);
        Ok(())
    }

    /// Makes the users of the batch that are not known yet, side by side.
    async fn make_users(&mut self, batch: &Batch) -> Result<(), Failure> {
        let senders = batch.messages.iter().filter_map(|message| message.sender.as_ref());
        let mut new: Vec<&String> = senders.filter(|sender| !self.known.contains(*sender)).collect();
        new.sort();
        new.dedup();
        let client = self.client;
        let made = futures::stream::iter(new).map(async |user| {
            let new = NewUser {
                user: user.clone(),
                ..NewUser::default()
            };
            match client.create_user(&new).await {
                Ok(_) => Ok(user.clone()),
                Err(error) if error.code() == Some("already_exists") => Ok(user.clone()),
                Err(error) => Err(error),
            }
        });
        let made: Vec<Result<String, Error>> = made.buffer_unordered(USERS_AT_ONCE).collect().await;
        for user in made {
            self.known.insert(user?);
        }
        Ok(())
    }
}

/// The message that a line becomes. Moves the clock.
fn message(source: &Source, number: u64, line: &str, clock: &mut Clock) -> Result<BatchMessage, Failure> {
    let parsed = irc::parse(line);
    let sent_at = clock.next(parsed.clock);
    let (kind, sender, text) = match parsed.said {
        Said::Text { nick, text } => (None, user_name(nick), text),
        Said::Action { nick, text } => (Some("action"), user_name(nick), text),
        Said::System { text } => (Some("system"), ROOT.to_owned(), text),
    };
    if text.len() > TEXT_BYTES_MAX {
        let (path, bytes) = (source.path.display(), text.len());
        return Err(Failure::Usage(format!(
            "{path}: line {number} has {bytes} bytes; a message has at most {TEXT_BYTES_MAX}"
        )));
    }
    Ok(BatchMessage {
        text: text.to_owned(),
        client_id: Some(source.key.client_id(number)),
        kind: kind.map(str::to_owned),
        sender: Some(sender),
        sent_at: Some(sent_at),
        ..BatchMessage::default()
    })
}

/// Reads the file once for the progress to have an end, and to refuse a line that is too long
/// before anything is sent. A file that cannot be read then is a slip on the line.
async fn count_lines(source: &Source) -> Result<u64, Failure> {
    read_through(source).await.map_err(|failure| match failure {
        Failure::Local(error) => Failure::Usage(format!("{error:#}")),
        failure => failure,
    })
}

async fn read_through(source: &Source) -> Result<u64, Failure> {
    let path = &source.path;
    let metadata = tokio::fs::metadata(path)
        .await
        .map_err(|error| failed_to_read(path, error))?;
    if !metadata.is_file() {
        return Err(Failure::Usage(format!(
            "{} is not a regular file, which can be read again",
            path.display()
        )));
    }
    let mut lines = Lines::open(&source.path).await?;
    let mut clock = Clock::new(source.date);
    while let Some(line) = lines.next().await? {
        message(source, lines.number, &line.text, &mut clock)?;
    }
    Ok(lines.number)
}

#[cfg(test)]
mod tests;
