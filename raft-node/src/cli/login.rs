//! `quorate login` and `quorate logout`.

use quorate_client::Client;
use quorate_client::wire::NewSession;

use super::exit::Failure;
use super::output::Output;
use super::password;

const EXAMPLES: &str = "Examples:
  export QUORATE_TOKEN=$(quorate login alice)
  quorate login alice --device laptop --output json <password.txt

The password is asked for on a terminal, and read from one line of standard input else. The token is
good on every node until it expires, until `quorate logout`, or until the password changes.";

pub(super) const LOGOUT_EXAMPLES: &str = "Example:
  quorate logout --token \"$QUORATE_TOKEN\"

Every node refuses the token from then on, and its open streams end.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Login {
    user: String,
    /// What the session is for, in words
    #[arg(long)]
    device: Option<String>,
}

impl Login {
    /// Prints the token, or the whole answer as JSON.
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        let session = NewSession {
            user: self.user,
            password: password::read()?,
            device: self.device,
        };
        let session = client.sign_in(&session).await?;
        output.value(&session, || session.token.clone())
    }
}

pub(crate) async fn logout(client: Client, output: &Output) -> Result<(), Failure> {
    client.sign_out().await?;
    output.value(&serde_json::json!({ "signed_out": true }), || "signed out".to_owned())
}
