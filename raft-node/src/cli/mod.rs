//! The command line: one subcommand a file. Each is a thin layer over `quorate-client`; only
//! [`serve`] starts a node. Start reading at [`Command`], then [`exit`] (how a command ends) and
//! [`output`] (what it prints).

mod bench;
mod edit;
mod exit;
mod export;
mod history;
mod import;
mod lists;
mod lock;
mod logging;
mod login;
mod man;
mod node;
mod output;
mod password;
mod progress;
mod redact;
mod revisions;
mod room;
mod root_token;
mod send;
mod serve;
mod status;
mod tail;
#[cfg(test)]
mod testing;
mod user;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use quorate_client::{Client, Options};
use quorate_state_machine::names;

use exit::Failure;
use output::{Format, Output};

const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:7101,http://127.0.0.1:7102,http://127.0.0.1:7103";

const EXAMPLES: &str = "\
Examples:
  quorate status
  quorate user create alice --display-name 'Alice L.' --password-stdin <alice.txt
  export QUORATE_TOKEN=$(quorate login alice)
  quorate room create lobby --title 'The lobby'
  quorate send lobby 'hello, everyone' --as alice
  quorate edit lobby 1 'hello, all' --as alice
  quorate history lobby --limit 20
  quorate tail lobby --last 5
  quorate lock run nightly -- ./backup --all
  quorate import irc 2004-11-15.log --room ubuntu
  quorate export ubuntu > ubuntu.jsonl
  quorate node add 4 --client-url http://127.0.0.1:7104 --peer-addr 127.0.0.1:7204
  quorate bench send --clients 64
  quorate status --endpoints http://10.0.0.1:7101,http://10.0.0.2:7101

Any node answers any command; with several endpoints a command goes on when a node fails.
Exit codes:
  0  done
  1  refused, or not possible now; nothing was applied
  2  wrong usage; nothing was applied
  3  outcome unknown: the write may have been applied; to settle it, repeat the command
     with --idempotency-key and the key that the error names (node commands: as it was)";

/// Quorate: a replicated chat store. One binary: the node, and its command line.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = EXAMPLES, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that may stand anywhere on the line.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Client URLs of the nodes, separated by commas; the first that answers serves
    #[arg(long, global = true, env = "QUORATE_ENDPOINTS", value_delimiter = ',', value_name = "URLS",
          default_value = DEFAULT_ENDPOINTS)]
    endpoints: Vec<String>,
    /// `table` for people, `json` for programs
    #[arg(long, global = true, env = "QUORATE_OUTPUT", value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Act as this user (open mode; with a token he acts whose it is); without it as the administrator, root
    #[arg(
        long = "as",
        id = "acting-user",
        global = true,
        env = "QUORATE_AS",
        value_name = "USER"
    )]
    acting: Option<String>,
    /// Give up after so long, failover and retries included: 10, 2.5, 500ms or 1m [default: 30; status 5; import, export 120; node add, node replace 600]
    #[arg(long, global = true, env = "QUORATE_TIMEOUT", value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// A session's token, from `quorate login`, or the administrator's
    #[arg(
        long,
        global = true,
        env = "QUORATE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// Repeat a write whose outcome was unknown, with the key that the error named
    #[arg(long, global = true, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(Box<serve::Serve>),
    /// Show the cluster: its nodes, its leader, how far each is
    Status(status::Status),
    /// List, add, replace and remove nodes, hand leadership over, take snapshots
    #[command(subcommand)]
    Node(node::Node),
    /// Create, show, list, update and delete users
    #[command(subcommand)]
    User(user::User),
    /// Sign in with a password, and print the token for --token
    Login(login::Login),
    /// Sign out: end the session of the token
    #[command(after_help = login::LOGOUT_EXAMPLES)]
    Logout,
    /// Create, show, list, update and delete rooms, and their members
    #[command(subcommand)]
    Room(room::Room),
    /// Send a message, or each line of standard input as one
    Send(send::Send),
    /// Give a message another text
    Edit(edit::Edit),
    /// Take a message's content away
    Redact(redact::Redact),
    /// Show what a message said before it was edited
    Revisions(revisions::Revisions),
    /// Show a page of a room's messages
    History(history::History),
    /// Follow a room, across failovers, until ctrl-c
    Tail(tail::Tail),
    /// Take, renew and give back locks; run a command under one
    #[command(subcommand)]
    Lock(lock::Lock),
    /// Write a room's messages as JSON lines
    Export(export::Export),
    /// Read chats of other systems, or what export wrote, into a room
    #[command(subcommand)]
    Import(import::Import),
    /// Measure a running cluster: sends, reads, streams, locks, failover
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  quorate completions bash > /etc/bash_completion.d/quorate")]
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual, or write a page for each command
    Man(man::Man),
    /// Print the version
    Version,
}

/// Reads the arguments, runs the command, and says how it ended.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let output = Output::new(cli.global.output);
    match execute(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&output),
    }
}

fn execute(cli: Cli, output: &Output) -> Result<(), Failure> {
    let Cli { mut global, command } = cli;
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Status(status) => {
            let timeout = global.timeout;
            block_on(status.run(global.client(Duration::from_secs(5))?, timeout, output))
        }
        Command::Node(node) => {
            if global.idempotency_key.is_some() {
                return Err(Failure::Usage(
                    "node commands ask for the same each time: repeat them without --idempotency-key".into(),
                ));
            }
            let timeout = global.timeout;
            block_on(node.run(global.client(USUAL_DEADLINE)?, timeout, output))
        }
        Command::User(user) => block_on(user.run(global.client(USUAL_DEADLINE)?, output)),
        Command::Login(login) => {
            if global.acting.is_some() || global.idempotency_key.is_some() {
                return Err(Failure::Usage(
                    "login takes the user as its argument, and no key: leave --as and --idempotency-key out".into(),
                ));
            }
            // A token that has ended is what somebody comes with who signs in again.
            let global = Global { token: None, ..global };
            block_on(login.run(global.client(USUAL_DEADLINE)?, output))
        }
        Command::Logout => {
            if global.token.is_none() {
                return Err(Failure::Usage(
                    "logout ends the session of a token: give --token, or QUORATE_TOKEN".into(),
                ));
            }
            block_on(login::logout(global.client(USUAL_DEADLINE)?, output))
        }
        Command::Room(room) => {
            let acting = global.acting.clone();
            block_on(room.run(global.client(USUAL_DEADLINE)?, acting, output))
        }
        Command::Send(send) => {
            let keyed = global.idempotency_key.is_some();
            block_on(send.run(global.client(USUAL_DEADLINE)?, keyed, output))
        }
        Command::Edit(edit) => block_on(edit.run(global.client(USUAL_DEADLINE)?, output)),
        Command::Redact(redact) => block_on(redact.run(global.client(USUAL_DEADLINE)?, output)),
        Command::Revisions(revisions) => block_on(revisions.run(global.client(USUAL_DEADLINE)?, output)),
        Command::History(history) => block_on(history.run(global.client(USUAL_DEADLINE)?, output)),
        Command::Tail(tail) => block_on(tail.run(global.client(USUAL_DEADLINE)?, output)),
        Command::Lock(lock) => {
            let keyed = global.idempotency_key.is_some();
            let token = lock.take_token(&mut global.token);
            block_on(lock.run(global.client(USUAL_DEADLINE)?, token, keyed, output))
        }
        Command::Import(import) => {
            if global.acting.is_some() || global.idempotency_key.is_some() {
                return Err(Failure::Usage(
                    "import acts as root and makes its own keys: leave --as and --idempotency-key out".into(),
                ));
            }
            // An import is long and runs unattended: it waits for a failover, and for a restart.
            block_on(import.run(global.client(Duration::from_secs(120))?, output))
        }
        // As long as an import: it waits for a failover, and for a restart.
        Command::Export(export) => block_on(export.run(global.client(Duration::from_secs(120))?, output)),
        Command::Bench(bench) => bench.run(global, output),
        Command::Man(man) => man.run(Cli::command(), output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut script);
            output.raw(&script)
        }
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            output.value(&serde_json::json!({ "version": version }), || {
                format!("quorate {version}")
            })
        }
    }
}

/// For calls that a person waits for.
const USUAL_DEADLINE: Duration = Duration::from_secs(30);

impl Global {
    fn client(self, deadline: Duration) -> Result<Client, Failure> {
        if self.acting.as_deref() == Some(names::ROOT) {
            return Err(Failure::Usage(
                "root is the administrator and no user: leave --as away to act as root".into(),
            ));
        }
        let deadline = self.timeout.unwrap_or(deadline);
        let options = Options {
            user: self.acting,
            token: self.token,
            deadline,
            ..Options::default()
        };
        let client = Client::new(&self.endpoints, options)?;
        match &self.idempotency_key {
            Some(key) => Ok(client.with_key(key)?),
            None => Ok(client),
        }
    }
}

/// A command is one conversation: it needs no second thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::local)?;
    runtime.block_on(future)
}

/// `10`, `2.5`, `10s`, `500ms`, `1m`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit() && c != '.') {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("expected a time such as 10, 2.5, 500ms or 1m".into()),
    };
    let seconds = number
        .parse::<f64>()
        .map_err(|_| "expected a time such as 10, 2.5, 500ms or 1m".to_owned())?
        * scale;
    if (0.001..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("expected between 1 ms and a day".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in [
            "quorate --endpoints a:1,b:2 --output json --as eve send r hi",
            "quorate send --endpoints a:1,b:2 r --output json hi --as eve",
            "quorate send r hi --endpoints=a:1,b:2 --output=json --as=eve",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.global.endpoints, ["a:1", "b:2"], "{line}");
            assert_eq!(cli.global.output, Format::Json, "{line}");
            assert_eq!(cli.global.acting.as_deref(), Some("eve"), "{line}");
        }
    }

    #[test]
    fn the_administrator_is_not_acted_as_by_name() {
        let client = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            cli.global.client(USUAL_DEADLINE)
        };
        assert!(matches!(client("quorate status --as root"), Err(Failure::Usage(_))));
        assert!(client("quorate status --as ann").is_ok());
        assert!(client("quorate status").is_ok());
    }

    #[test]
    fn times_have_a_unit_and_bounds() {
        assert_eq!(parse_time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_time("2.5s"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "0", "-1", "5h", "1.2.3", "s", "90000", "1e3"] {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }
}
