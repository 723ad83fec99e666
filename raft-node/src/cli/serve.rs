//! `quorate serve`: runs a node. A setting is a flag, an environment variable (`QUORATE_…`) or a
//! key of a TOML file, under the same name in each; the flag wins over the environment, the
//! environment over the file, the file over the default.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::Context;
use quorate_api::{Accounts, SESSION_TTL_MS};
use quorate_state_machine::VERSION_MAX;
use quorate_storage::state::BLOCK_CACHE_BYTES;
use raft_node::config::{
    self, Config, ELECTION_TIMEOUT_MAX_MS, ELECTION_TIMEOUT_MIN_MS, HEARTBEAT_INTERVAL_MS, InvalidConfig,
};
use serde::Deserialize;

use super::exit::Failure;
use super::logging::{LogFormat, Logging};
use super::root_token;

const EXAMPLES: &str = "\
Example (the first of three nodes; the others differ in id, addresses and directory):
  V=1=127.0.0.1:7201=http://127.0.0.1:7101
  V=$V,2=127.0.0.1:7202=http://127.0.0.1:7102
  V=$V,3=127.0.0.1:7203=http://127.0.0.1:7103
  quorate serve --id 1 --data-dir data/node-1 --initial-cluster $V \\
    --client-addr 127.0.0.1:7101 --peer-addr 127.0.0.1:7201

Every flag is also an environment variable (--data-dir: QUORATE_DATA_DIR) and a key of the
file that --config names (data_dir = \"data/node-1\"). A flag wins over the environment, the
environment over the file. An unknown key in the file is an error.
The times satisfy
  3 x heartbeat-interval-ms <= election-timeout-min-ms < election-timeout-max-ms";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// A TOML file with settings
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// One layer of settings: what the line and the environment say, or what the file says.
/// The names of the fields are the names of flags (with `-` for `_`) and of keys.
#[derive(Debug, Default, Clone, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// This node's id, one of the initial cluster's
    #[arg(long, env = "QUORATE_ID", value_name = "N")]
    id: Option<u64>,
    /// Holds everything that the node keeps; made if it is missing
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for clients
    #[arg(long, env = "QUORATE_CLIENT_ADDR", value_name = "IP:PORT")]
    client_addr: Option<SocketAddr>,
    /// Where to listen for peers
    #[arg(long, env = "QUORATE_PEER_ADDR", value_name = "IP:PORT")]
    peer_addr: Option<SocketAddr>,
    /// The voters of the first start, the same on each: ID=PEER=URL,…
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER", value_name = "VOTERS")]
    initial_cluster: Option<String>,
    /// Instead of the initial cluster, for a node that is added later: client URLs of the cluster
    #[arg(long, env = "QUORATE_JOIN", value_name = "URL,…")]
    join: Option<String>,
    /// How clients reach this node [default: as in the initial cluster, else the client address]
    #[arg(long, env = "QUORATE_ADVERTISE_CLIENT_URL", value_name = "URL")]
    advertise_client_url: Option<String>,
    /// How peers reach this node [default: as in the initial cluster, else the peer address]
    #[arg(long, env = "QUORATE_ADVERTISE_PEER_ADDR", value_name = "HOST:PORT")]
    advertise_peer_addr: Option<String>,
    /// How often the leader is heard [default: 50]
    #[arg(long, env = "QUORATE_HEARTBEAT_INTERVAL_MS", value_name = "MS")]
    heartbeat_interval_ms: Option<u64>,
    /// The shortest silence after which a node campaigns [default: 300]
    #[arg(long, env = "QUORATE_ELECTION_TIMEOUT_MIN_MS", value_name = "MS")]
    election_timeout_min_ms: Option<u64>,
    /// The longest such silence, and the leader's lease [default: 600]
    #[arg(long, env = "QUORATE_ELECTION_TIMEOUT_MAX_MS", value_name = "MS")]
    election_timeout_max_ms: Option<u64>,
    /// The log kept, in bytes: beyond it, or up to an eighth earlier, a snapshot is taken and half of it goes [default: 536870912]
    #[arg(long, env = "QUORATE_LOG_BYTES_MAX", value_name = "BYTES")]
    log_bytes_max: Option<u64>,
    /// How old kept entries of the log get [default: 86400]
    #[arg(long, env = "QUORATE_LOG_AGE_MAX_S", value_name = "SECONDS")]
    log_age_max_s: Option<u64>,
    /// With less free disk than this, writes are refused (507) and deletions go on [default: 268435456]
    #[arg(long, env = "QUORATE_DISK_FREE_MIN", value_name = "BYTES")]
    disk_free_min: Option<u64>,
    /// What is read often and should fit in memory: blocks of RocksDB's tables, uncompressed [default: 50331648]
    #[arg(long, env = "QUORATE_BLOCK_CACHE_BYTES", value_name = "BYTES")]
    block_cache_bytes: Option<u64>,
    /// How often the leader compares the states of all nodes; 0: never [default: 600]
    #[arg(long, env = "QUORATE_VERIFY_INTERVAL_S", value_name = "SECONDS")]
    verify_interval_s: Option<u64>,
    /// Requests a second that a user may make on this node; root is not limited; 0: no limit [default: 0]
    #[arg(long, env = "QUORATE_USER_RATE_LIMIT", value_name = "N")]
    user_rate_limit: Option<u32>,
    /// Requests that a user may make at once [default: the user rate limit]
    #[arg(long, env = "QUORATE_USER_RATE_BURST", value_name = "N")]
    user_rate_burst: Option<u32>,
    /// Threads that requests and Raft share, at most 255 [default: one less than there are cores, at least 1]
    #[arg(long, env = "QUORATE_WORKER_THREADS", value_name = "N")]
    worker_threads: Option<NonZeroU8>,
    /// Plays an older build, for tests of mixed clusters
    #[arg(long, env = "QUORATE_CLUSTER_VERSION_MAX", value_name = "N", hide = true)]
    cluster_version_max: Option<u32>,
    /// Listen for clients beyond loopback, although anyone who connects is the administrator
    #[arg(long, env = "QUORATE_INSECURE_LISTEN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    insecure_listen: Option<bool>,
    /// `on`: whoever has no token is refused. `open`: anyone is who he says, and listens on loopback [default: open]
    #[arg(long, env = "QUORATE_AUTH", value_enum)]
    auth: Option<Auth>,
    /// Holds the administrator's token, the same on all nodes; else it is taken from QUORATE_ROOT_TOKEN
    #[arg(long, env = "QUORATE_ROOT_TOKEN_FILE", value_name = "FILE")]
    root_token_file: Option<PathBuf>,
    /// How long a user stays signed in: 90s, 15m, 12h, 30d [default: 30d]
    #[arg(long, env = "QUORATE_SESSION_TTL", value_name = "TIME")]
    session_ttl: Option<String>,
    /// [default: text on a terminal, else json]
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Which events are logged, such as info or info,raft_node=debug [default: info,openraft=error]
    #[arg(long, env = "QUORATE_LOG_FILTER", value_name = "FILTER")]
    log_filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auth {
    Open,
    On,
}

impl Serve {
    /// Runs the node until it is told to stop.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let settings = match &self.config {
            Some(path) => self.settings.or(read_file(path)?),
            None => self.settings,
        };
        let (format, filter) = (settings.log_format, settings.log_filter.clone());
        let worker_threads = settings
            .worker_threads
            .map_or_else(worker_threads_default, NonZeroU8::get);
        let unguarded = settings.root_token_file.as_deref().and_then(root_token::advice);
        let config = settings
            .into_config()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let logging = Logging::start(format, filter.as_deref())?;
        for advice in unguarded.into_iter().chain(config.advice()) {
            tracing::warn!("{advice}");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(worker_threads.into())
            .enable_all()
            .build()
            .map_err(Failure::local)?;
        // The runtime is dropped before the process ends: a thread that still works in RocksDB while the
        // process's statics are taken down aborts it.
        runtime
            .block_on(raft_node::serve::run(config, logging.count_dropped()))
            .map_err(Failure::Local)
    }
}

/// One core is left to the log's writer, for whose fsync all writes wait, and to RocksDB's flushes and compactions. With
/// a thread for that core too, the threads wake each other for work that is done sooner where it is.
fn worker_threads_default() -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u8::try_from(cores.saturating_sub(1).max(1)).unwrap_or(u8::MAX)
}

impl Settings {
    /// These settings, and where they say nothing, the others'.
    fn or(self, other: Settings) -> Settings {
        Settings {
            id: self.id.or(other.id),
            data_dir: self.data_dir.or(other.data_dir),
            client_addr: self.client_addr.or(other.client_addr),
            peer_addr: self.peer_addr.or(other.peer_addr),
            initial_cluster: self.initial_cluster.or(other.initial_cluster),
            join: self.join.or(other.join),
            log_bytes_max: self.log_bytes_max.or(other.log_bytes_max),
            log_age_max_s: self.log_age_max_s.or(other.log_age_max_s),
            disk_free_min: self.disk_free_min.or(other.disk_free_min),
            block_cache_bytes: self.block_cache_bytes.or(other.block_cache_bytes),
            verify_interval_s: self.verify_interval_s.or(other.verify_interval_s),
            user_rate_limit: self.user_rate_limit.or(other.user_rate_limit),
            user_rate_burst: self.user_rate_burst.or(other.user_rate_burst),
            advertise_client_url: self.advertise_client_url.or(other.advertise_client_url),
            advertise_peer_addr: self.advertise_peer_addr.or(other.advertise_peer_addr),
            heartbeat_interval_ms: self.heartbeat_interval_ms.or(other.heartbeat_interval_ms),
            election_timeout_min_ms: self.election_timeout_min_ms.or(other.election_timeout_min_ms),
            election_timeout_max_ms: self.election_timeout_max_ms.or(other.election_timeout_max_ms),
            worker_threads: self.worker_threads.or(other.worker_threads),
            cluster_version_max: self.cluster_version_max.or(other.cluster_version_max),
            insecure_listen: self.insecure_listen.or(other.insecure_listen),
            auth: self.auth.or(other.auth),
            root_token_file: self.root_token_file.or(other.root_token_file),
            session_ttl: self.session_ttl.or(other.session_ttl),
            log_format: self.log_format.or(other.log_format),
            log_filter: self.log_filter.or(other.log_filter),
        }
    }

    /// Fills in the defaults and checks the whole.
    fn into_config(self) -> Result<Config, InvalidConfig> {
        let id = required(self.id, "id")?;
        let join: Vec<String> = self
            .join
            .iter()
            .flat_map(|urls| urls.split(','))
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        let initial_cluster = match self.initial_cluster {
            None if !join.is_empty() => Vec::new(),
            listed => config::parse_initial_cluster(&required(listed, "initial-cluster")?)?,
        };
        let (client_addr, peer_addr) = (
            required(self.client_addr, "client-addr")?,
            required(self.peer_addr, "peer-addr")?,
        );
        // An id that is not in the initial cluster is refused by the check below, in its words.
        let own = initial_cluster.iter().find(|member| member.id == id).cloned();
        let (own_url, own_peer) = match own {
            Some(member) => (member.client_url, member.peer_addr),
            None => (format!("http://{client_addr}"), peer_addr.to_string()),
        };
        let advertise_client_url = self.advertise_client_url.unwrap_or(own_url);
        let root_token = root_token::find(
            self.root_token_file.as_deref(),
            std::env::var(root_token::VARIABLE).ok(),
        )?;
        let session_ttl_ms = self.session_ttl.map_or(Ok(SESSION_TTL_MS), |text| parse_ttl(&text))?;
        let config = Config {
            id,
            data_dir: required(self.data_dir, "data-dir")?,
            client_addr,
            peer_addr,
            advertise_client_url: advertise_client_url.trim_end_matches('/').to_owned(),
            advertise_peer_addr: self.advertise_peer_addr.unwrap_or(own_peer),
            initial_cluster,
            join,
            log_bytes_max: self.log_bytes_max.unwrap_or(config::LOG_BYTES_MAX),
            log_age_max_s: self.log_age_max_s.unwrap_or(config::LOG_AGE_MAX_S),
            disk_free_min: self.disk_free_min.unwrap_or(config::DISK_FREE_MIN),
            block_cache_bytes: self.block_cache_bytes.unwrap_or(BLOCK_CACHE_BYTES as u64),
            verify_interval_s: self.verify_interval_s.unwrap_or(config::VERIFY_INTERVAL_S),
            user_rate_limit: self.user_rate_limit.unwrap_or(0),
            user_rate_burst: self.user_rate_burst.unwrap_or(0),
            heartbeat_interval_ms: self.heartbeat_interval_ms.unwrap_or(HEARTBEAT_INTERVAL_MS),
            election_timeout_min_ms: self.election_timeout_min_ms.unwrap_or(ELECTION_TIMEOUT_MIN_MS),
            election_timeout_max_ms: self.election_timeout_max_ms.unwrap_or(ELECTION_TIMEOUT_MAX_MS),
            cluster_version_max: self.cluster_version_max.unwrap_or(VERSION_MAX),
            insecure_listen: self.insecure_listen.unwrap_or(false),
            accounts: Accounts {
                enforced: self.auth == Some(Auth::On),
                root_token,
                session_ttl_ms,
            },
        };
        config.check()?;
        Ok(config)
    }
}

/// A number and a unit, in milliseconds.
fn parse_ttl(text: &str) -> Result<u64, InvalidConfig> {
    let unit_ms = |unit| match unit {
        "s" => Some(1000_u64),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        "d" => Some(24 * 60 * 60 * 1000),
        _ => None,
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse::<u64>().ok();
    number
        .zip(unit_ms(&text[digits..]))
        .and_then(|(number, unit_ms)| number.checked_mul(unit_ms))
        .ok_or_else(|| {
            InvalidConfig(format!(
                "session-ttl: {text:?} is not a time such as 90s, 15m, 12h or 30d"
            ))
        })
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, InvalidConfig> {
    value.ok_or_else(|| {
        let upper = name.to_uppercase().replace('-', "_");
        InvalidConfig(format!(
            "{name} is missing: give --{name}, QUORATE_{upper}, or {} in the file",
            upper.to_lowercase()
        ))
    })
}

fn read_file(path: &Path) -> Result<Settings, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read {}", path.display()))
        .map_err(|error| Failure::Usage(format!("{error:#}")))?;
    parse_file(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn parse_file(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().replace('\n', " ");
        line.map_or(message.clone(), |line| format!("line {line}: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;

    /// The settings as a command of their own.
    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    const CLUSTER: &str = "1=127.0.0.1:7201=http://127.0.0.1:7101";

    /// Enough to start, as a file has it.
    fn file() -> Settings {
        let text = format!(
            "id = 1\ndata_dir = \"file\"\nclient_addr = \"127.0.0.1:7101\"\npeer_addr = \"127.0.0.1:7201\"\n\
             initial_cluster = \"{CLUSTER}\"\n"
        );
        parse_file(&text).expect("a good file")
    }

    fn line(flags: &[&str]) -> Settings {
        Line::try_parse_from([&["serve"], flags].concat())
            .expect("a good line")
            .settings
    }

    #[test]
    fn the_line_wins_over_the_file_and_the_file_over_the_defaults() {
        let config = file().into_config().expect("a good configuration");
        assert_eq!(config.data_dir, Path::new("file"));
        assert_eq!(
            (config.heartbeat_interval_ms, config.election_timeout_max_ms),
            (50, 600)
        );
        assert_eq!(config.advertise_client_url, "http://127.0.0.1:7101");
        assert_eq!(config.advertise_peer_addr, "127.0.0.1:7201");
        assert!(!config.insecure_listen);

        let flags = [
            "--data-dir",
            "line",
            "--advertise-peer-addr",
            "127.0.0.1:7201",
            "--insecure-listen",
        ];
        let config = line(&flags).or(file()).into_config().expect("a good configuration");
        assert_eq!(config.data_dir, Path::new("line"));
        assert!(config.insecure_listen);

        let open = Settings {
            insecure_listen: Some(true),
            ..file()
        };
        let closed = line(&["--insecure-listen=false"])
            .or(open)
            .into_config()
            .expect("a good configuration");
        assert!(
            !closed.insecure_listen,
            "a flag can also take back what the file permits"
        );
    }

    #[test]
    fn each_setting_is_a_flag_a_variable_and_a_key_under_one_name() {
        for [flag, variable, key] in settings(|_| true) {
            assert_eq!(key, flag.replace('-', "_"));
            assert_eq!(variable, format!("QUORATE_{}", key.to_uppercase()));
            // A value of a wrong type: the key is known if the complaint is not that it is unknown.
            let error = parse_file(&format!("{key} = [[1]]")).expect_err("no setting is a list of lists");
            assert!(!error.contains("unknown field"), "{key}: {error}");
        }
    }

    /// Flag, variable and key of each setting of a kind.
    fn settings(of_kind: fn(&clap::Arg) -> bool) -> BTreeSet<[String; 3]> {
        Line::command()
            .get_arguments()
            .filter(|argument| of_kind(argument))
            .map(|argument| {
                let flag = argument.get_long().expect("every setting has a flag");
                let variable = argument
                    .get_env()
                    .and_then(|name| name.to_str())
                    .expect("every setting has a variable");
                [flag, variable, argument.get_id().as_str()].map(str::to_owned)
            })
            .collect()
    }

    #[test]
    fn the_documented_settings_are_those_that_there_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLI.md");
        let text = std::fs::read_to_string(path).expect("the page of the commands");
        let (_, section) = text.split_once("## Settings of a node").expect("the section");
        let section = section.split("\n## ").next().expect("the section");
        let documented: BTreeSet<[String; 3]> = section
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `--")?.split("` | `");
                let [flag, variable, key] = [cells.next()?, cells.next()?, cells.next()?];
                // Its value, and the default behind the last of the three, are for readers.
                let flag = flag.split([' ', '[']).next()?;
                let key = key.split('`').next()?;
                Some([flag, variable, key].map(str::to_owned))
            })
            .collect();
        assert_eq!(documented, settings(|argument| !argument.is_hide_set()));
    }

    #[test]
    fn the_layers_lose_no_setting() {
        let text = format!(
            "id = 1\ndata_dir = \"d\"\nclient_addr = \"127.0.0.1:1\"\npeer_addr = \"127.0.0.1:2\"\n\
             initial_cluster = \"{CLUSTER}\"\nadvertise_client_url = \"u\"\nadvertise_peer_addr = \"p\"\n\
             heartbeat_interval_ms = 1\nelection_timeout_min_ms = 2\nelection_timeout_max_ms = 3\n\
             user_rate_limit = 4\nuser_rate_burst = 5\n\
             cluster_version_max = 1\ninsecure_listen = true\nlog_format = \"json\"\nauth = \"on\"\n\
             root_token_file = \"t\"\nsession_ttl = \"1d\"\nlog_filter = \"debug\"\nworker_threads = 6\n\
             block_cache_bytes = 7\njoin = \"j\"\nlog_bytes_max = 8\nlog_age_max_s = 9\ndisk_free_min = 10\n\
             verify_interval_s = 11\n"
        );
        assert_eq!(text.lines().count(), settings(|_| true).len());
        let full = parse_file(&text).expect("every key");
        assert_eq!(Settings::default().or(full.clone()), full);
        assert_eq!(full.clone().or(Settings::default()), full);
        assert_eq!(full.clone().or(file()), full);
    }

    #[test]
    fn threads_are_a_number_from_1_to_255() {
        for good in ["1", "255"] {
            let set = line(&["--worker-threads", good]).worker_threads.expect("a number");
            assert_eq!(set.to_string(), good);
        }
        for bad in ["0", "256", "-1"] {
            assert!(
                Line::try_parse_from(["serve", "--worker-threads", bad]).is_err(),
                "{bad}"
            );
            assert!(parse_file(&format!("worker_threads = {bad}")).is_err(), "{bad}");
        }
        assert!(worker_threads_default() >= 1);
    }

    #[test]
    fn accounts_are_enforced_with_a_root_token_from_a_file() {
        let config = file().into_config().expect("a good configuration");
        assert!(!config.accounts.enforced && config.accounts.root_token.is_none());
        assert_eq!(config.accounts.session_ttl_ms, 30 * 24 * 3600 * 1000);

        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").expect("a file");
        let flags = [
            "--auth",
            "on",
            "--session-ttl",
            "12h",
            "--root-token-file",
            path.to_str().expect("UTF-8"),
        ];
        let config = line(&flags).or(file()).into_config().expect("a good configuration");
        assert!(config.accounts.enforced);
        assert_eq!(config.accounts.session_ttl_ms, 12 * 3600 * 1000);
        assert_eq!(
            config.accounts.root_token.expect("it was read").text(),
            "0123456789abcdef0123456789abcdef"
        );
        let without = line(&["--auth", "on"]).or(file()).into_config();
        assert!(without.expect_err("no token").to_string().contains("root-token-file"));
    }

    #[test]
    fn a_sessions_time_has_a_unit_and_bounds() {
        for (text, ms) in [
            ("1s", 1000),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse_ttl(text), Ok(ms));
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1.5h",
            "1w",
            "1 d",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(parse_ttl(text).is_err(), "{text:?}");
        }
        let said = |ttl: &str| {
            line(&["--session-ttl", ttl])
                .or(file())
                .into_config()
                .expect_err(ttl)
                .to_string()
        };
        assert!(said("0s").contains("session-ttl") && said("400d").contains("session-ttl"));
    }

    #[test]
    fn slips_are_named() {
        let said = |settings: Settings| settings.into_config().expect_err("a slip").to_string();
        assert_eq!(
            said(Settings {
                data_dir: None,
                ..file()
            }),
            "data-dir is missing: give --data-dir, QUORATE_DATA_DIR, or data_dir in the file"
        );
        assert!(said(Settings { id: Some(2), ..file() }).contains("this node's id, 2"));
        assert!(
            said(Settings {
                heartbeat_interval_ms: Some(200),
                ..file()
            })
            .contains("3 times")
        );
        assert!(
            said(Settings {
                initial_cluster: Some("1=a".into()),
                ..file()
            })
            .contains("ID=PEER=URL")
        );

        let error = parse_file("id = 1\n\ndata-dir = \"x\"\n").expect_err("an unknown key");
        assert!(error.starts_with("line 3: unknown field `data-dir`"), "{error}");
        assert!(parse_file("id = 1\nid = 2\n").is_err());
        assert!(parse_file("id = \"one\"\n").is_err());
        assert!(parse_file("log_format = \"xml\"\n").is_err());
    }
}
