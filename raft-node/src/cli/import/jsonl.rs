//! JSON lines as `quorate export` writes them: one message a line, as the API shows it. What a
//! message had is kept, so it gets no `client_id` that it did not have. Two things make an import
//! repeatable all the same: the room's newest messages tell how many lines are there already, and
//! each batch has an idempotency key from the file's name and its lines.
//!
//! What the store gives stays the store's: `room`, `rev`, `edited_at` and `redacted_at`. A redacted
//! message becomes one with an empty text, so that those behind it keep their seqs.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use quorate_client::wire::{BatchMessage, Message};
use quorate_state_machine::{Rejection, fields, names};

use super::format::Format;
use super::key::FileKey;
use super::lines::TextLine;

#[derive(Debug)]
pub(crate) struct JsonLines {
    key: FileKey,
    /// Of each line, to know it again in the room: 16 bytes a line are kept in memory.
    prints: Vec<u64>,
    /// Of each line, as they were where the messages come from. They ascend.
    seqs: Vec<u64>,
    base: u64,
}

impl JsonLines {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            key: FileKey::new("jsonl", name),
            prints: Vec::new(),
            seqs: Vec::new(),
            base: 0,
        }
    }

    /// The seq here of the message that had this one. None for what is not in the file.
    fn seq_here(&self, seq: u64) -> Option<u64> {
        let index = self.seqs.binary_search(&seq).ok()?;
        Some(self.base + index as u64 + 1)
    }
}

impl Format for JsonLines {
    fn check(&mut self, _number: u64, line: &TextLine) -> Result<(), String> {
        let message = parse(line)?;
        if let Some(last) = self.seqs.last()
            && message.seq <= *last
        {
            return Err(format!("has message {}, which does not follow {last}", message.seq));
        }
        self.seqs.push(message.seq);
        self.prints.push(print(&message));
        Ok(())
    }

    /// The largest number of lines whose last ones are the room's last messages.
    fn come_to(&self, newest: &[Message]) -> Option<(usize, u64)> {
        let there: Vec<u64> = newest.iter().map(print).collect();
        let fits = |lines: &usize| {
            let compared = (*lines).min(there.len());
            self.prints[lines - compared..*lines] == there[there.len() - compared..]
        };
        // A log may repeat itself within its clock's minute: a room of one message has one line of it.
        let most = usize::try_from(newest.last()?.seq).unwrap_or(usize::MAX);
        let lines = (1..=self.prints.len().min(most)).rev().find(fits)?;
        Some((newest.len() - 1, lines as u64))
    }

    fn begin(&mut self, base: u64) {
        self.base = base;
    }

    fn message(&mut self, _number: u64, line: &TextLine) -> Result<BatchMessage, String> {
        let message = parse(line)?;
        Ok(BatchMessage {
            reply_to: message.reply_to.and_then(|seq| self.seq_here(seq)),
            text: message.text.unwrap_or_default(),
            client_id: message.client_id,
            kind: Some(message.kind),
            attributes: message.attributes,
            sender: Some(message.sender),
            sent_at: Some(message.sent_at),
        })
    }

    fn batch_key(&self, room: u64, first: u64, last: u64) -> Option<String> {
        Some(self.key.of_batch(room, first, last))
    }
}

/// A message that the store will take, or why not: what is found here is found before anything is
/// sent.
fn parse(line: &TextLine) -> Result<Message, String> {
    if line.replaced_bytes > 0 {
        return Err("is not UTF-8".to_owned());
    }
    let message: Message =
        serde_json::from_str(&line.text).map_err(|error| format!("is no message: {}", without_place(&error)))?;
    let checked: Result<(), Rejection> = (|| {
        names::check("sender", &message.sender)?;
        fields::kind(&message.kind)?;
        fields::text(message.text.as_deref().unwrap_or_default())?;
        message.client_id.as_deref().map_or(Ok(()), fields::client_id)?;
        let attributes = message.attributes.as_ref().map(serde_json::Map::to_owned);
        let attributes = attributes.map(|attributes| serde_json::Value::from(attributes).to_string());
        attributes.as_deref().map_or(Ok(()), fields::attributes)
    })();
    checked.map_err(|rejection| format!("is no message: {}", rejection.detail))?;
    if message.sent_at.parse::<Timestamp>().is_err() {
        return Err("is no message: sent_at is no time as RFC 3339 writes it".to_owned());
    }
    Ok(message)
}

/// serde's words end with "at line 1 column 17", of which only the column says something here.
fn without_place(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match words.strip_suffix(&place) {
        Some(words) => format!("{words} (column {})", error.column()),
        None => words,
    }
}

/// What the message is, here and where it came from: not its seq, nor what the store gives. A reply
/// leads to another seq in another room, and attributes are written in another order.
fn print(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    let text = message.text.as_deref().unwrap_or_default();
    (
        &message.sender,
        &message.sent_at,
        &message.kind,
        text,
        &message.client_id,
    )
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
