//! What adding and replacing have in common: the new node, and the wait until it votes.
//!
//! The leader carries a change out, and only it knows how far it is. When it goes, the next one may
//! know nothing of it; then the change is asked for again, which for one that is under way or done
//! asks for nothing new.

use std::time::{Duration, Instant};

use quorate_api::address;
use quorate_client::wire::{Change, ChangeKind, ChangeStep, NewNode};
use quorate_client::{Client, Error};

use super::change::in_words;
use super::progress::Progress;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

/// A node that joins may have to be sent a whole snapshot.
const TIMEOUT: Duration = Duration::from_secs(600);
/// One look at the cluster, failover and retries included: after so long the wait says that nobody
/// answers, and goes on.
const LOOK: Duration = Duration::from_secs(10);
/// What one node is given for its part of it.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the new node is, and whether to wait for it.
#[derive(Debug, clap::Args)]
pub(super) struct Join {
    /// Where clients reach the new node: http://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = client_url)]
    client_url: String,
    /// Where the other nodes reach it: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", value_parser = peer_addr)]
    peer_addr: String,
    /// Return when the leader has begun, and do not wait until the node votes
    #[arg(long)]
    no_wait: bool,
}

fn client_url(text: &str) -> Result<String, String> {
    address::check_client_url(text).map(|()| text.to_owned())
}

fn peer_addr(text: &str) -> Result<String, String> {
    address::check_peer_addr(text).map(|()| text.to_owned())
}

impl Join {
    /// Returns when the node votes (and the replaced one is gone), or with `--no-wait` when the
    /// change has begun.
    pub(super) async fn run(
        self,
        id: u64,
        replaces: Option<u64>,
        client: &Client,
        timeout: Option<Duration>,
        output: &Output,
    ) -> Result<(), Failure> {
        let node = NewNode {
            id,
            client_url: self.client_url,
            peer_addr: self.peer_addr,
            replaces,
        };
        let change = if self.no_wait {
            client.add_node(&node).await?
        } else {
            let deadline = Instant::now() + timeout.unwrap_or(TIMEOUT);
            let mut progress = Progress::new(output.format());
            tokio::select! {
                change = wait(client, &node, deadline, &mut progress) => change?,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted.map_err(Failure::local)?;
                    return Err(Failure::Unsettled(format!("interrupted; {}", goes_on(&node))));
                }
            }
        };
        output.value(&change, || match (change.step, replaces) {
            (ChangeStep::Done, None) => format!("node {id} is a voter"),
            (ChangeStep::Done, Some(old)) => format!("node {id} is a voter in the place of node {old}"),
            _ => in_words(&change),
        })
    }
}

/// Asks for the node, and looks until it votes.
pub(super) async fn wait(
    client: &Client,
    node: &NewNode,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Change, Failure> {
    // The change as the cluster shows it.
    let mut shown = None;
    // A leader has begun it, or may have.
    let mut may_go_on = false;
    loop {
        let heard = match shown.take() {
            Some(change) => Ok(change),
            None => in_time(client, deadline).add_node(node).await,
        };
        // How it ends if there is no time left to look again.
        let (begun, late) = match heard {
            Ok(change) => {
                let words = in_words(&change);
                progress.say(&words);
                match change.step {
                    ChangeStep::Done => return Ok(change),
                    ChangeStep::Failed => return Err(Failure::conflict(words)),
                    ChangeStep::Contacting | ChangeStep::CatchingUp | ChangeStep::Promoting => {}
                }
                may_go_on = true;
                let late = format!("not done in time: {words}; {}", goes_on(node));
                (true, Failure::Unsettled(late))
            }
            Err(error @ (Error::Unavailable { .. } | Error::OutcomeUnknown { .. })) => {
                progress.say(&format!("{error}; still trying"));
                may_go_on |= error.outcome_unknown();
                let late = if may_go_on {
                    Failure::Unsettled(format!("{error}; {}", goes_on(node)))
                } else {
                    error.into()
                };
                (false, late)
            }
            Err(error) => return Err(error.into()),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(late);
        }
        tokio::time::sleep(PAUSE).await;
        if begun {
            let cluster = in_time(client, deadline).cluster().await;
            shown = cluster.ok().and_then(|cluster| find(cluster.changes, node));
        }
    }
}

/// The client, which gives up before the wait does.
fn in_time(client: &Client, deadline: Instant) -> Client {
    let left = deadline.saturating_duration_since(Instant::now());
    client.with_times(left.min(LOOK), ATTEMPT)
}

/// Earlier tries may be shown as well: what is under way goes before what is done, and that before
/// what failed.
fn find(changes: Vec<Change>, node: &NewNode) -> Option<Change> {
    changes
        .into_iter()
        .filter(|change| {
            change.kind != ChangeKind::Remove && change.node == node.id && change.replaces == node.replaces
        })
        .min_by_key(|change| match change.step {
            ChangeStep::Contacting | ChangeStep::CatchingUp | ChangeStep::Promoting => 0,
            ChangeStep::Done => 1,
            ChangeStep::Failed => 2,
        })
}

fn goes_on(node: &NewNode) -> String {
    format!(
        "what has begun goes on without this command: quorate status shows it, and the same command waits for node {} again",
        node.id
    )
}
