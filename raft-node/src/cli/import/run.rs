//! Performs an import, whatever the files' format: reads them line by line, makes the users that it
//! meets, and sends the lines in batches, one after the other, so that line n (from 0) becomes seq
//! n + 1 of an empty room.

use std::collections::HashSet;
use std::time::Instant;

use futures::StreamExt;
use quorate_client::wire::{BatchMessage, NewRoom, NewUser, Room, RoomKind};
use quorate_client::{Client, Error, Level, PageFrom};
use quorate_state_machine::names::ROOT;
use serde::Serialize;

use super::format::Source;
use super::lines::{Lines, failed_to_read};
use crate::cli::exit::Failure;
use crate::cli::progress::{Progress, rate};

/// A batch's JSON is kept below the contract's 4 MiB, whatever its lines have in them.
const BATCH_BYTES_MAX: usize = 3 << 20;
/// Users made side by side: enough to share the log's fsyncs, few enough to leave room for others.
const USERS_AT_ONCE: usize = 64;

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

/// Imports the files in order. Safe to run again after any failure.
pub(crate) async fn import(
    client: &Client,
    room: &str,
    sources: &mut [Source],
    batch_lines: usize,
) -> Result<Summary, Failure> {
    let began = Instant::now();
    let mut totals = Vec::new();
    for source in &mut *sources {
        totals.push(check_lines(source).await?);
    }
    let (found, made) = make_room(client, room).await?;
    let done = match made {
        Made::Now => None,
        Made::Before => how_far(client, room, sources).await?,
    };
    let mut work = Work {
        client,
        room,
        room_id: found.id,
        batch_lines,
        // The administrator is not a stored user: nobody makes him.
        known: HashSet::from([ROOT.to_owned()]),
        summary: Summary {
            room: room.to_owned(),
            ..Summary::default()
        },
    };
    // The seq before the next file's first line.
    let mut base = match done {
        Some((file, line)) => found.last_seq.saturating_sub(totals[..file].iter().sum::<u64>() + line),
        None => found.last_seq,
    };
    for (index, source) in sources.iter_mut().enumerate() {
        let start = match done {
            Some((file, _)) if index < file => totals[index],
            Some((file, line)) if index == file => line,
            _ => 0,
        };
        source.format.begin(base);
        base += totals[index];
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

async fn make_room(client: &Client, room: &str) -> Result<(Room, Made), Failure> {
    let new = NewRoom {
        room: room.to_owned(),
        kind: RoomKind::Public,
        title: None,
        members: Vec::new(),
        attributes: None,
    };
    match client.room(room).await {
        Ok(room) => return Ok((room, Made::Before)),
        Err(error) if error.code() == Some("not_found") => {}
        Err(error) => return Err(error.into()),
    }
    match client.create_room(&new).await {
        Ok(room) => Ok((room, Made::Now)),
        // Another import made it meanwhile.
        Err(error) if error.code() == Some("already_exists") => Ok((client.room(room).await?, Made::Before)),
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
    let come_to = |(index, source): (usize, &Source)| {
        let (at, line) = source.format.come_to(&page.messages)?;
        Some((at, (index, line)))
    };
    let found = sources.iter().enumerate().filter_map(come_to);
    Ok(found.max_by_key(|(at, _)| *at).map(|(_, place)| place))
}

/// An import on its way.
struct Work<'a> {
    client: &'a Client,
    room: &'a str,
    room_id: u64,
    batch_lines: usize,
    /// Users that exist.
    known: HashSet<String>,
    summary: Summary,
}

/// Lines that go out together.
#[derive(Default)]
struct Batch {
    /// Of its first message.
    line: u64,
    messages: Vec<BatchMessage>,
    bytes: usize,
}

impl Work<'_> {
    /// Sends the lines after the first `start`.
    async fn file(&mut self, source: &mut Source, start: u64, total: u64) -> Result<(), Failure> {
        let mut lines = Lines::open(&source.path).await?;
        let mut progress = Progress::new(&source.name, total, start.min(total));
        let mut batch = Batch::default();
        let mut last = 0;
        while let Some(line) = lines.next().await? {
            last = lines.number;
            self.summary.lines += 1;
            self.summary.replaced_bytes += line.replaced_bytes;
            let message = source.format.message(lines.number, &line);
            let message = message.map_err(|why| lines.wrong(&why))?;
            if lines.number <= start {
                continue;
            }
            let bytes = serde_json::to_string(&message).expect("a message is plain JSON").len() + 1;
            if batch.messages.len() >= self.batch_lines || batch.bytes + bytes > BATCH_BYTES_MAX {
                self.send(source, std::mem::take(&mut batch))
                    .await
                    .map_err(|failure| self.midway(failure))?;
                progress.at(lines.number - 1);
            }
            if batch.messages.is_empty() {
                batch.line = lines.number;
            }
            batch.bytes += bytes;
            batch.messages.push(message);
        }
        if !batch.messages.is_empty() {
            self.send(source, batch).await.map_err(|failure| self.midway(failure))?;
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

    async fn send(&mut self, source: &Source, batch: Batch) -> Result<(), Failure> {
        self.make_users(&batch).await?;
        let count = batch.messages.len() as u64;
        let key = source
            .format
            .batch_key(self.room_id, batch.line, batch.line + count - 1);
        let sent = match key {
            Some(key) => {
                self.client
                    .with_key(&key)?
                    .send_batch(self.room, batch.messages)
                    .await?
            }
            None => self.client.send_batch(self.room, batch.messages).await?,
        };
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

/// Reads the file once for the progress to have an end, and to refuse what is wrong in it before
/// anything is sent. A file that cannot be read then is a slip on the line.
async fn check_lines(source: &mut Source) -> Result<u64, Failure> {
    read_through(source).await.map_err(|failure| match failure {
        Failure::Local(error) => Failure::Usage(format!("{error:#}")),
        failure => failure,
    })
}

async fn read_through(source: &mut Source) -> Result<u64, Failure> {
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
    while let Some(line) = lines.next().await? {
        let checked = source.format.check(lines.number, &line);
        checked.map_err(|why| lines.wrong(&why))?;
    }
    Ok(lines.number)
}

#[cfg(test)]
mod tests;
