//! `quorate lock release`.

use quorate_client::Client;

use crate::cli::exit::Failure;
use crate::cli::output::{Output, visible};

#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    lock: String,
    /// What acquire printed
    #[arg(long, value_name = "N")]
    token: u64,
}

impl Release {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        client.release_lock(&self.lock, self.token).await?;
        output.value(&serde_json::json!({ "released": self.lock }), || {
            format!("lock {} released", visible(&self.lock))
        })
    }
}
