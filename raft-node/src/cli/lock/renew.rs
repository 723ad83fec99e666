//! `quorate lock renew`.

use std::time::Duration;

use quorate_client::Client;

use super::{ms, parse_ttl};
use crate::cli::exit::Failure;
use crate::cli::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    lock: String,
    /// What acquire printed
    #[arg(long, value_name = "N")]
    token: u64,
    /// From now on [default: the one that it was taken with]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
}

impl Renew {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let held = client.renew_lock(&self.lock, self.token, self.ttl.map(ms)).await?;
        output.value(&held, || {
            format!("{} is held for {} ms more", held.lock, held.expires_in_ms)
        })
    }
}
