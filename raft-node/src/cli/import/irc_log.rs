//! IRC logs: each line is a message with a `client_id` of its own, from file name and line number.

use jiff::civil::Date;
use quorate_client::wire::{BatchMessage, Message};
use quorate_state_machine::limits::TEXT_BYTES_MAX;
use quorate_state_machine::names::ROOT;

use super::clock::Clock;
use super::format::Format;
use super::irc::{self, Said};
use super::key::FileKey;
use super::lines::TextLine;
use super::nick::user_name;

#[derive(Debug)]
pub(crate) struct IrcLog {
    key: FileKey,
    date: Date,
    clock: Clock,
}

impl IrcLog {
    /// The log that the file of this name holds, and the day of its first line.
    pub(crate) fn new(name: &str, date: Date) -> Self {
        Self {
            key: FileKey::new("irc", name),
            date,
            clock: Clock::new(date),
        }
    }
}

impl Format for IrcLog {
    fn check(&mut self, number: u64, line: &TextLine) -> Result<(), String> {
        self.message(number, line).map(drop)
    }

    fn come_to(&self, newest: &[Message]) -> Option<(usize, u64)> {
        let ids = newest.iter().enumerate().rev();
        ids.filter_map(|(at, message)| Some((at, message.client_id.as_deref()?)))
            .find_map(|(at, client_id)| Some((at, self.key.line(client_id)?)))
    }

    fn begin(&mut self, _base: u64) {
        self.clock = Clock::new(self.date);
    }

    /// Moves the clock.
    fn message(&mut self, number: u64, line: &TextLine) -> Result<BatchMessage, String> {
        let parsed = irc::parse(&line.text);
        let sent_at = self.clock.next(parsed.clock);
        let (kind, sender, text) = match parsed.said {
            Said::Text { nick, text } => (None, user_name(nick), text),
            Said::Action { nick, text } => (Some("action"), user_name(nick), text),
            Said::System { text } => (Some("system"), ROOT.to_owned(), text),
        };
        if text.len() > TEXT_BYTES_MAX {
            let bytes = text.len();
            return Err(format!("has {bytes} bytes; a message has at most {TEXT_BYTES_MAX}"));
        }
        Ok(BatchMessage {
            text: text.to_owned(),
            client_id: Some(self.key.client_id(number)),
            kind: kind.map(str::to_owned),
            sender: Some(sender),
            sent_at: Some(sent_at),
            ..BatchMessage::default()
        })
    }

    fn batch_key(&self, _room: u64, _first: u64, _last: u64) -> Option<String> {
        None
    }
}
