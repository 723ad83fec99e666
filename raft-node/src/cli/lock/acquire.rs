//! `quorate lock acquire`: prints the token, or says who holds the lock.

use std::time::Duration;

use quorate_client::wire::{AcquireLock, LockHolder};
use quorate_client::{Client, Error};
use serde_json::Value;

use super::{default_owner, ms, parse_json, parse_ttl, parse_wait};
use crate::cli::exit::Failure;
use crate::cli::output::{Output, visible};

const EXAMPLES: &str = "\
Examples:
  quorate lock acquire deploy                    now or never; prints the token
  quorate lock acquire deploy --ttl 1m --wait 30
  quorate lock acquire deploy --owner ci-7 --data '{\"build\": 512}' --output json

The lock is lost when the ttl is over, unless it is renewed. To run a command under a lock, use `quorate lock run`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Acquire {
    lock: String,
    #[command(flatten)]
    pub(super) terms: Terms,
    /// Wait for it so long, first come, first served; 0: not at all
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_wait)]
    wait: Duration,
}

/// On which terms a lock is taken.
#[derive(Debug, clap::Args)]
pub(crate) struct Terms {
    /// Who holds it, for people; user@host:pid unless given
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// How long it is held unless it is renewed: 100ms to 60m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    pub(super) ttl: Duration,
    /// What others see beside the owner: any JSON
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    data: Option<Value>,
}

impl Terms {
    pub(super) fn wanted(&self, wait: Duration) -> AcquireLock {
        AcquireLock {
            owner: self.owner.clone().unwrap_or_else(default_owner),
            ttl_ms: ms(self.ttl),
            wait_ms: (!wait.is_zero()).then(|| ms(wait)),
            mode: None,
            data: self.data.clone(),
        }
    }
}

impl Acquire {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let wanted = self.terms.wanted(self.wait);
        match client.acquire_lock(&self.lock, &wanted).await {
            Ok(held) => output.value(&held, || held.token.to_string()),
            Err(error) => Err(held_by(client, &self.lock, error).await),
        }
    }
}

/// A refusal that says who holds the lock, as far as the store can say.
pub(super) async fn held_by(client: &Client, lock: &str, error: Error) -> Failure {
    if error.code() == Some("lock_lost") {
        let hint = "what was granted under this key is over: ask anew under another".to_owned();
        return Failure::from(error).midway(hint);
    }
    if error.code() != Some("lock_held") {
        return error.into();
    }
    let failure = Failure::from(error);
    match client.lock(lock).await {
        Ok(seen) => {
            let holders: Vec<String> = seen.holders.iter().map(in_words).collect();
            let who = if holders.is_empty() {
                "by nobody any more".to_owned()
            } else {
                format!("by {}", holders.join(", "))
            };
            failure.midway(format!("{who}; waiting: {}", seen.waiters))
        }
        Err(_) => failure,
    }
}

fn in_words(holder: &LockHolder) -> String {
    let seconds = Duration::from_millis(holder.expires_in_ms).as_secs_f64();
    format!(
        "{} with token {}, {seconds:.1} s of its ttl left",
        visible(&holder.owner),
        holder.token
    )
}
