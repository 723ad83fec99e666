//! `quorate edit ROOM SEQ TEXT`: another text for a message.

use quorate_client::Client;

use super::exit::Failure;
use super::history::line;
use super::output::Output;

const EXAMPLES: &str = "Examples:
  quorate edit lobby 17 'hello, everyone' --as alice
  quorate edit lobby 17 --as alice -- '-text that begins with a hyphen'
  quorate revisions lobby 17    what it said before

Only the sender edits a message, and the administrator.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Edit {
    room: String,
    /// The message
    seq: u64,
    /// What it says from now on
    text: String,
}

impl Edit {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let message = client.edit(&self.room, self.seq, &self.text).await?;
        output.value(&message, || line(&message))
    }
}
