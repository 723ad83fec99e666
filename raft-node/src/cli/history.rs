//! `quorate history ROOM`: a page of a room's messages.

use clap::ValueEnum;
use quorate_client::wire::Message;
use quorate_client::{Client, PageFrom};

use super::exit::Failure;
use super::output::{Output, visible};

const EXAMPLES: &str = "Examples:
  quorate history lobby                            the newest page
  quorate history lobby --after 100 --limit 20     the 20 messages that follow message 100
  quorate history lobby --at 2004-11-15T12:30:00Z  what was said then
  quorate history lobby --around 17 --limit 1      one message; what it said before: quorate revisions
  quorate history lobby --level local --endpoints http://127.0.0.1:7102";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("position").multiple(false))]
pub(crate) struct History {
    room: String,
    /// At most so many messages, 1 to 500
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// The messages that follow this seq
    #[arg(long, value_name = "SEQ", group = "position")]
    after: Option<u64>,
    /// The messages that precede this seq
    #[arg(long, value_name = "SEQ", group = "position")]
    before: Option<u64>,
    /// The page with this seq in its middle
    #[arg(long, value_name = "SEQ", group = "position")]
    around: Option<u64>,
    /// From the first message at this time (RFC 3339) on
    #[arg(long, value_name = "TIME", group = "position")]
    at: Option<String>,
    /// linearizable: reflects every acknowledged write; local: what the asked node has
    #[arg(long, value_enum, default_value_t = Level::Linearizable)]
    level: Level,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    Linearizable,
    Local,
}

impl History {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let from = match (self.after, self.before, self.around, self.at) {
            (Some(seq), ..) => PageFrom::After(seq),
            (_, Some(seq), ..) => PageFrom::Before(seq),
            (_, _, Some(seq), _) => PageFrom::Around(seq),
            (_, _, _, Some(time)) => PageFrom::At(time),
            _ => PageFrom::Newest,
        };
        let level = match self.level {
            Level::Linearizable => quorate_client::Level::Linearizable,
            Level::Local => quorate_client::Level::Local,
        };
        let page = client.history(&self.room, &from, self.limit, level).await?;
        output.value(&page, || page.messages.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// A message on one line, as people read a chat.
pub(crate) fn line(message: &Message) -> String {
    let sender = visible(&message.sender);
    let text = match &message.text {
        Some(text) => visible(text),
        None => "(redacted)".to_owned(),
    };
    let said = match message.kind.as_str() {
        "text" => format!("<{sender}> {text}"),
        "action" => format!("* {sender} {text}"),
        "system" => format!("-- {text}"),
        kind => format!("<{sender}> [{}] {text}", visible(kind)),
    };
    let reply = message.reply_to.map(|seq| format!("(re {seq}) ")).unwrap_or_default();
    // Of a redacted message nobody asks whether it had been edited.
    let edited = if message.edited_at.is_some() && message.text.is_some() {
        " (edited)"
    } else {
        ""
    };
    format!("{:>6}  {}  {reply}{said}{edited}", message.seq, time(&message.sent_at))
}

/// To the second: what is finer only stands in the way of reading.
pub(crate) fn time(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_says() {
        let mut message = Message {
            room: "r".into(),
            seq: 7,
            rev: 9,
            sender: "alice".into(),
            sent_at: "2026-01-02T03:04:05.678Z".into(),
            kind: "text".into(),
            text: Some("a\n\u{1b}b".into()),
            client_id: None,
            reply_to: Some(3),
            edited_at: None,
            redacted_at: None,
            attributes: None,
        };
        assert_eq!(line(&message), "     7  2026-01-02 03:04:05  (re 3) <alice> a⏎\\u{1b}b");
        message.kind = "action".into();
        message.reply_to = None;
        message.text = Some("waves".into());
        assert_eq!(line(&message), "     7  2026-01-02 03:04:05  * alice waves");
        message.kind = "system".into();
        assert_eq!(line(&message), "     7  2026-01-02 03:04:05  -- waves");
        message.edited_at = Some("2026-01-02T03:05:05.678Z".into());
        assert_eq!(line(&message), "     7  2026-01-02 03:04:05  -- waves (edited)");
        message.kind = "text".into();
        message.text = None;
        assert_eq!(line(&message), "     7  2026-01-02 03:04:05  <alice> (redacted)");
    }
}
