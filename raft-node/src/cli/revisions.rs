//! `quorate revisions ROOM SEQ`: what a message said before.

use quorate_client::Client;
use quorate_client::wire::RevisionList;

use super::exit::Failure;
use super::lists;
use super::output::Output;

const EXAMPLES: &str = "Examples:
  quorate revisions lobby 17                        every earlier text, oldest first
  quorate history lobby --around 17 --limit 1       what it says now";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Revisions {
    room: String,
    /// The message
    seq: u64,
    /// At most so many, the oldest [default: all]
    #[arg(long)]
    limit: Option<u32>,
}

impl Revisions {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let page = async |limit, cursor: Option<String>| {
            let page = client.revisions(&self.room, self.seq, limit, cursor.as_deref()).await?;
            Ok((page.revisions, page.next_cursor))
        };
        let list = RevisionList {
            revisions: lists::all(self.limit, page).await?,
            next_cursor: None,
        };
        output.table(&list, &["rev", "at", "text"], || {
            list.revisions
                .iter()
                .map(|revision| vec![revision.rev.to_string(), revision.at.clone(), revision.text.clone()])
                .collect()
        })
    }
}
