//! `quorate tail ROOM`: follows a room across failovers, each message once.

use std::io::Write;

use quorate_client::{Client, Error, EventBody, Level, PageFrom, StreamFrom};

use super::exit::Failure;
use super::history::line;
use super::output::{Format, Output};

const EXAMPLES: &str = "Examples:
  quorate tail lobby                         the last 10 messages, then what comes
  quorate tail lobby --from 1 --output json  the whole room as JSON lines, then what comes
  quorate tail lobby --last 0                only what comes

Goes on when nodes fail, from the last message it has shown, until ctrl-c.";

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
                    if let EventBody::Message(message) = event.body {
                        output.value(&message, || line(&message))?;
                    }
                }
                Err(error) => outage.bear(error)?,
            }
        }
    }
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
