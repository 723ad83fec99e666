//! `quorate lock …`: take, renew, give back and look at locks, and run a command under one.

mod acquire;
mod release;
mod renew;
mod run;
mod show;

use std::time::Duration;

use clap::Subcommand;
use quorate_client::Client;
use quorate_state_machine::limits::{LOCK_OWNER_BYTES_MAX, LOCK_TTL_MS_MAX, LOCK_TTL_MS_MIN, LOCK_WAIT_MS_MAX};
use serde_json::Value;

use super::exit::Failure;
use super::output::Output;
use super::parse_time;

const EXAMPLES: &str = "\
Examples:
  token=$(quorate lock acquire deploy --ttl 1m --wait 30)
  quorate lock renew deploy --token $token
  quorate lock release deploy --token $token
  quorate lock show deploy
  quorate lock list
  quorate lock run nightly --ttl 10s -- ./backup --all

A lock is lost when its ttl is over, whatever its holder is doing then. The token grows with every grant: a store
that refuses writes with an older one is safe from a holder who is late (for Quorate itself: the header If-Lock).";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Lock {
    /// Take a lock, and print its token; 1 if it is held, and who holds it
    Acquire(acquire::Acquire),
    /// Have the ttl of a held lock begin anew
    Renew(renew::Renew),
    /// Give a lock back
    Release(release::Release),
    /// Show who holds a lock, and who waits for it
    Show(show::Show),
    /// List locks by name
    List(show::List),
    /// Run a command while holding a lock
    Run(run::Run),
    /// Becomes the command of `run`
    #[command(hide = true)]
    RunChild(run::RunChild),
    /// Ends the command of `run` when `run` cannot
    #[command(hide = true)]
    RunWatchdog(run::RunWatchdog),
}

/// `--token` stands for two things, and a line names one of them.
const TOKEN_HELP: &str = "\
Here --token is the lock's: the number that acquire printed. A session's token comes from QUORATE_TOKEN.";

impl Lock {
    /// Of `renew` and `release` the flag `--token` names the lock's token, and the session's is left to the
    /// environment; which of the two was on the line shows in that only the lock's is a number.
    pub(crate) fn take_token(&self, session: &mut Option<String>) -> Option<u64> {
        if !matches!(self, Lock::Renew(_) | Lock::Release(_)) {
            return None;
        }
        let token = session.as_ref()?.parse().ok()?;
        *session = std::env::var("QUORATE_TOKEN").ok();
        Some(token)
    }

    /// `token`: what [`Lock::take_token`] has found.
    pub(crate) async fn run(
        self,
        client: Client,
        token: Option<u64>,
        keyed: bool,
        output: &Output,
    ) -> Result<(), Failure> {
        match self {
            Lock::Acquire(acquire) => acquire.run(&client, output).await,
            Lock::Renew(renew) => renew.run(&client, token_of(token)?, output).await,
            Lock::Release(release) => release.run(&client, token_of(token)?, output).await,
            Lock::Show(show) => show.run(&client, output).await,
            Lock::List(list) => list.run(&client, output).await,
            Lock::Run(_) if keyed => Err(Failure::Usage(
                "run makes its own keys: leave --idempotency-key out".into(),
            )),
            Lock::Run(run) => run.run(&client).await,
            Lock::RunChild(child) => child.run(),
            Lock::RunWatchdog(watchdog) => watchdog.run(),
        }
    }
}

fn token_of(token: Option<u64>) -> Result<u64, Failure> {
    token.ok_or_else(|| Failure::Usage("--token N is needed: the number that acquire printed".into()))
}

/// A ttl as the contract takes it.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(LOCK_TTL_MS_MIN)..=Duration::from_millis(LOCK_TTL_MS_MAX);
    parse_time(text)
        .ok()
        .filter(|ttl| range.contains(ttl))
        .ok_or_else(|| "expected a time from 100ms to 60m, such as 10, 2.5 or 500ms".to_owned())
}

/// How long to wait: 0 is not at all.
fn parse_wait(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    parse_time(text)
        .ok()
        .filter(|wait| *wait <= Duration::from_millis(LOCK_WAIT_MS_MAX))
        .ok_or_else(|| "expected 0, or a time up to 60m, such as 10, 2.5 or 500ms".to_owned())
}

fn parse_json(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(Value::Null) => Err("null is no value".to_owned()),
        Ok(value) => Ok(value),
        Err(error) => Err(format!("expected JSON: {error}")),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// user@host:pid, which tells people where to look for a holder.
fn default_owner() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| nix::unistd::getuid().to_string());
    let host = nix::sys::utsname::uname()
        .ok()
        .and_then(|names| Some(names.nodename().to_str()?.to_owned()))
        .unwrap_or_else(|| "unknown".to_owned());
    let mut owner = format!("{user}@{host}:{}", std::process::id());
    owner.retain(|c| !c.is_control());
    // The end, with the process, says more than the beginning.
    let from = owner.ceil_char_boundary(owner.len().saturating_sub(LOCK_OWNER_BYTES_MAX));
    owner.split_off(from)
}

#[cfg(test)]
mod tests;
