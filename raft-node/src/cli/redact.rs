//! `quorate redact ROOM SEQ`: takes a message's content away.

use quorate_client::Client;
use serde_json::json;

use super::exit::Failure;
use super::output::Output;

const EXAMPLES: &str = "Example:
  quorate redact lobby 17 --as alice

The text goes, with all earlier ones; that there was a message, and by whom, stays. The sender may, the room's
owners and moderators, and the administrator.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Redact {
    room: String,
    /// The message
    seq: u64,
}

impl Redact {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let Self { room, seq } = self;
        client.redact(&room, seq).await?;
        output.value(&json!({ "room": room, "redacted": seq }), || {
            format!("message {seq} of {room} redacted")
        })
    }
}
