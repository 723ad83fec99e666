//! `quorate send ROOM TEXT`: one message, or each line of standard input as one.

use quorate_client::Client;
use quorate_client::wire::{NewMessage, Sent};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::exit::Failure;
use super::output::Output;

const EXAMPLES: &str = "Examples:
  quorate send lobby 'hello, everyone' --as alice
  quorate send lobby 'I agree' --reply-to 17 --as bob
  quorate send lobby --as alice -- '-text that begins with a hyphen'
  seq 1 100 | quorate send lobby - --client-id job-7 --as alice

With --client-id the same message is never sent twice, also by a second run: the first seq is
answered again.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Send {
    room: String,
    /// The text; - reads lines from standard input and sends each as a message
    text: String,
    /// The sender's own id of the message, 1 to 128 bytes; with -, line n (from 1) has ID:n
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The seq that is answered
    #[arg(long, value_name = "SEQ")]
    reply_to: Option<u64>,
    /// text, action, notice … [default: text]
    #[arg(long)]
    kind: Option<String>,
}

impl Send {
    pub(crate) async fn run(self, client: Client, keyed: bool, output: &Output) -> Result<(), Failure> {
        if self.text != "-" {
            let message = self.message(self.text.clone(), self.client_id.clone());
            return show(&client.send(&self.room, &message).await?, output);
        }
        if keyed {
            return Err(Failure::Usage(
                "--idempotency-key is for one message; with - use --client-id".into(),
            ));
        }
        let mut lines = BufReader::new(tokio::io::stdin());
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let read = lines.read_until(b'\n', &mut line).await;
            if read
                .map_err(|error| Failure::Local(anyhow::Error::new(error).context("failed to read standard input")))?
                == 0
            {
                break;
            }
            let hint = || format!("this was line {number} of standard input");
            let text = std::str::from_utf8(without_line_end(&line))
                .map_err(|_| Failure::Usage("the line is not UTF-8".into()).midway(hint()))?;
            let client_id = self.client_id.as_ref().map(|id| format!("{id}:{number}"));
            let sent = client.send(&self.room, &self.message(text.to_owned(), client_id)).await;
            show(&sent.map_err(|error| Failure::from(error).midway(hint()))?, output)?;
        }
        Ok(())
    }

    fn message(&self, text: String, client_id: Option<String>) -> NewMessage {
        NewMessage {
            text,
            client_id,
            kind: self.kind.clone(),
            reply_to: self.reply_to,
            attributes: None,
        }
    }
}

fn show(sent: &Sent, output: &Output) -> Result<(), Failure> {
    output.value(sent, || format!("{} {}", sent.room, sent.seq))
}

/// The line without LF or CRLF.
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
