//! `quorate tail ROOM`: follows a room across failovers, each message, edit and redaction once.

use std::io::Write;

use quorate_client::wire::{Edited, Redacted};
use quorate_client::{Client, Error, EventBody, Level, PageFrom, StreamFrom};
use serde::Serialize;

use super::exit::Failure;
use super::history::{line, time};
use super::output::{Format, Output, visible};

const EXAMPLES: &str = "Examples:
  quorate tail lobby                         the last 10 messages, then what comes
  quorate tail lobby --from 1 --output json  the whole room as JSON lines, then what comes
  quorate tail lobby --last 0                only what comes

Edits and redactions are shown as they come, by the seq of their message; as JSON they have \"event\":
\"edit\" or \"redact\", and messages have none. Goes on when nodes fail, from the last message it has shown, until ctrl-c.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tail {
    room: String,
    /// Begin with this message
    #[arg(long, value_name = "SEQ", conflicts_with = "last", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Begin with the last so many messages
    #[arg(long, value_name = "N", default_value_t = 10)]
    last: u64,
}

impl Tail {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        tokio::select! {
            ended = self.follow(client, output) => ended,
            // Nothing is half done: what was printed was printed whole.
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::local),
        }
    }

    async fn follow(&self, client: Client, output: &Output) -> Result<(), Failure> {
        let mut outage = Outage {
            json: output.format() == Format::Json,
            lasts: false,
        };
        let after = match self.from {
            Some(seq) => seq - 1,
            None => loop {
                match client
                    .history(&self.room, &PageFrom::Newest, 1, Level::Linearizable)
                    .await
                {
                    Ok(page) => break page.last_seq.saturating_sub(self.last),
                    Err(error) => outage.bear(error)?,
                }
            },
        };
        let mut stream = client.stream(&self.room, StreamFrom::AfterSeq(after))?;
        loop {
            match stream.next().await {
                Ok(event) => {
                    outage.lasts = false;
                    show(&event.body, output)?;
                }
                Err(error) => outage.bear(error)?,
            }
        }
    }
}

/// Messages, and what becomes of them, whichever messages that is: those from before may be edited too.
fn show(event: &EventBody, output: &Output) -> Result<(), Failure> {
    match event {
        EventBody::Message(message) => output.value(message, || line(message)),
        EventBody::Edited(edited) => output.value(
            &Told {
                event: "edit",
                data: edited,
            },
            || edited_line(edited),
        ),
        EventBody::Redacted(redacted) => output.value(
            &Told {
                event: "redact",
                data: redacted,
            },
            || redacted_line(redacted),
        ),
        EventBody::Change { .. } | EventBody::Bookmark => Ok(()),
    }
}

/// What is no message says so: a program that reads messages only passes over what has `event`.
#[derive(Serialize)]
struct Told<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    data: &'a T,
}

fn edited_line(edited: &Edited) -> String {
    let text = match &edited.text {
        Some(text) => visible(text),
        None => "(redacted since)".to_owned(),
    };
    let at = edited.edited_at.as_deref().map(time).unwrap_or_default();
    format!("{:>6}  {at}  ** edited: {text}", edited.seq)
}

fn redacted_line(redacted: &Redacted) -> String {
    let at = redacted.redacted_at.as_deref().map(time).unwrap_or_default();
    format!("{:>6}  {at}  ** redacted", redacted.seq)
}

/// A time without any node.
struct Outage {
    json: bool,
    lasts: bool,
}

impl Outage {
    /// A tail waits for the cluster, and says so once; other errors end it.
    fn bear(&mut self, error: Error) -> Result<(), Failure> {
        if !matches!(error, Error::Unavailable { .. }) {
            return Err(error.into());
        }
        if !self.lasts && !self.json {
            let _ = writeln!(std::io::stderr(), "quorate: {error}; still trying");
        }
        self.lasts = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_one_line_whatever_it_says() {
        let mut edited = Edited {
            room: "r".into(),
            seq: 7,
            rev: 9,
            text: Some("a\n\u{1b}b".into()),
            edited_at: Some("2026-01-02T03:04:05.678Z".into()),
        };
        assert_eq!(
            edited_line(&edited),
            "     7  2026-01-02 03:04:05  ** edited: a⏎\\u{1b}b"
        );
        let told = serde_json::to_value(Told {
            event: "edit",
            data: &edited,
        })
        .expect("strings and numbers");
        let expected = serde_json::json!({"event": "edit", "room": "r", "seq": 7, "rev": 9, "text": "a\n\u{1b}b",
                                          "edited_at": "2026-01-02T03:04:05.678Z"});
        assert_eq!(told, expected);
        edited.text = None;
        assert_eq!(
            edited_line(&edited),
            "     7  2026-01-02 03:04:05  ** edited: (redacted since)"
        );
        let redacted = Redacted {
            room: "r".into(),
            seq: 7,
            rev: 9,
            redacted_at: Some("2026-01-02T03:04:05.678Z".into()),
        };
        assert_eq!(redacted_line(&redacted), "     7  2026-01-02 03:04:05  ** redacted");
    }
}
