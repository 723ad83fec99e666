//! `quorate lock renew`.

use std::time::Duration;

use quorate_client::Client;

use super::{TOKEN_HELP, ms, parse_ttl};
use crate::cli::exit::Failure;
use crate::cli::output::Output;

#[derive(Debug, clap::Args)]
#[command(override_usage = "quorate lock renew [OPTIONS] --token <N> <LOCK>", after_help = TOKEN_HELP)]
pub(crate) struct Renew {
    lock: String,
    /// From now on [default: the one that it was taken with]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
}

impl Renew {
    pub(crate) async fn run(self, client: &Client, token: u64, output: &Output) -> Result<(), Failure> {
        let held = client.renew_lock(&self.lock, token, self.ttl.map(ms)).await?;
        output.value(&held, || {
            format!("{} is held for {} ms more", held.lock, held.expires_in_ms)
        })
    }
}
