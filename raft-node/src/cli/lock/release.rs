//! `quorate lock release`.

use quorate_client::Client;

use super::TOKEN_HELP;
use crate::cli::exit::Failure;
use crate::cli::output::{Output, visible};

#[derive(Debug, clap::Args)]
#[command(override_usage = "quorate lock release [OPTIONS] --token <N> <LOCK>", after_help = TOKEN_HELP)]
pub(crate) struct Release {
    lock: String,
}

impl Release {
    pub(crate) async fn run(self, client: &Client, token: u64, output: &Output) -> Result<(), Failure> {
        client.release_lock(&self.lock, token).await?;
        output.value(&serde_json::json!({ "released": self.lock }), || {
            format!("lock {} released", visible(&self.lock))
        })
    }
}
