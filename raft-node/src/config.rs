//! What a node is told at its start, checked before anything is opened.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use quorate_api::Accounts;
use quorate_api::address::{NODE_ID_MAX, check_client_url, check_peer_addr};

use quorate_state_machine::limits::{SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN};
use quorate_state_machine::{VERSION_MAX, VERSION_MIN};

/// How often the leader is heard, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 50;
/// The shortest time without a leader's word after which a node campaigns, in milliseconds.
pub const ELECTION_TIMEOUT_MIN_MS: u64 = 300;
/// The longest such time, which is also the leader's lease, in milliseconds.
pub const ELECTION_TIMEOUT_MAX_MS: u64 = 600;
/// So many heartbeats may be lost before a node campaigns: one late packet must not end a term.
const HEARTBEATS_PER_ELECTION: u64 = 3;
/// Beyond a minute a cluster would seem dead after each failure; such a number is a slip.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// Entries of the log that are kept, in bytes: some minutes of full load, so that a node which was down
/// for a moment catches up by entries, not by a snapshot.
pub const LOG_BYTES_MAX: u64 = 512 << 20;
/// A smaller log would be cut while followers still read it.
const LOG_BYTES_LEAST: u64 = 1 << 20;
/// How old kept entries get, in seconds: a day.
pub const LOG_AGE_MAX_S: u64 = 24 * 3600;
/// Below so much free space, in bytes, writes are refused. It covers what is still written then: the log's
/// and the state's buffers, and a snapshot.
pub const DISK_FREE_MIN: u64 = 256 << 20;
/// With a smaller one the filters and indexes alone would push each other out.
const BLOCK_CACHE_BYTES_LEAST: u64 = 8 << 20;
/// No machine has more; such a number is a slip.
const BLOCK_CACHE_BYTES_MAX: u64 = 1 << 40;
/// How often the leader compares the states of all nodes, in seconds.
pub const VERIFY_INTERVAL_S: u64 = 600;
/// More requests a second than this, for one user, is no limit on any machine.
const USER_RATE_MAX: u32 = 1_000_000;

/// A node's settings. [`Config::check`] holds for every value that [`crate`]'s server is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's id, one of the initial cluster's.
    pub id: u64,
    /// Holds everything that the node keeps; made if it is missing.
    pub data_dir: PathBuf,
    /// Where clients are listened for.
    pub client_addr: SocketAddr,
    /// Where peers are listened for.
    pub peer_addr: SocketAddr,
    /// How clients reach this node: `http://host:port`.
    pub advertise_client_url: String,
    /// How peers reach this node: `host:port`.
    pub advertise_peer_addr: String,
    /// The voters of the first start, the same on each of them; empty on a node that joins later.
    pub initial_cluster: Vec<InitialMember>,
    /// Client URLs of a cluster that this node is to be added to.
    pub join: Vec<String>,
    /// Above it, or up to an eighth earlier, a snapshot is taken and the log is cut.
    pub log_bytes_max: u64,
    pub log_age_max_s: u64,
    /// The low-water mark of free disk space.
    pub disk_free_min: u64,
    /// Uncompressed blocks of the state's tables that are kept in memory.
    pub block_cache_bytes: u64,
    /// 0: never.
    pub verify_interval_s: u64,
    /// Requests a second that a user may make on this node in the long run; 0: as many as he likes, which is
    /// the rule as long as nobody proves who he is.
    pub user_rate_limit: u32,
    /// And at once; 0: as many as in a second.
    pub user_rate_burst: u32,
    /// The highest cluster version that this node admits to support: lower than the build's for tests that
    /// play an older build.
    pub cluster_version_max: u32,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_min_ms: u64,
    pub election_timeout_max_ms: u64,
    /// Permits a client address beyond loopback while no accounts are enforced.
    pub insecure_listen: bool,
    /// Whether accounts are enforced, root's token, and how long sessions last.
    pub accounts: Accounts,
}

/// A voter of the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    pub id: u64,
    /// `host:port`.
    pub peer_addr: String,
    /// `http://host:port`.
    pub client_url: String,
}

/// A setting that cannot be used, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(pub String);

macro_rules! refuse {
    ($($words:tt)*) => { return Err(InvalidConfig(format!($($words)*))) };
}

impl Config {
    /// Checks each setting and how they stand to each other:
    /// `3 × heartbeat_interval_ms ≤ election_timeout_min_ms < election_timeout_max_ms`, so that two
    /// lost heartbeats end no term, and candidates draw different timeouts.
    ///
    /// # Errors
    /// Names the first setting that is wrong.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.id == 0 || self.id > NODE_ID_MAX {
            refuse!("id: {} is not between 1 and 2^53 - 1", self.id);
        }
        if self.join.is_empty() || !self.initial_cluster.is_empty() {
            check_initial_cluster(&self.initial_cluster)?;
        }
        if self.join.is_empty() && !self.initial_cluster.iter().any(|member| member.id == self.id) {
            refuse!(
                "initial-cluster: it does not have this node's id, {}; a node that is added later needs --join",
                self.id
            );
        }
        for url in &self.join {
            check_client_url(url).map_err(|why| InvalidConfig(format!("join: {why}")))?;
        }
        check_peer_addr(&self.advertise_peer_addr)
            .map_err(|why| InvalidConfig(format!("advertise-peer-addr: {why}")))?;
        check_client_url(&self.advertise_client_url)
            .map_err(|why| InvalidConfig(format!("advertise-client-url: {why}")))?;
        for (name, addr) in [
            ("advertise-peer-addr", self.advertise_peer_addr.as_str()),
            (
                "advertise-client-url",
                self.advertise_client_url.trim_start_matches("http://"),
            ),
        ] {
            let unspecified = addr.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().is_unspecified());
            if unspecified {
                refuse!("{name}: nobody can reach {addr}; give the address under which others know this node");
            }
        }
        // The other nodes go by their own lists: an address that only this node knows helps nobody.
        for member in self.initial_cluster.iter().filter(|member| member.id == self.id) {
            if member.peer_addr != self.advertise_peer_addr {
                refuse!(
                    "advertise-peer-addr: it is not this node's address in initial-cluster, {}",
                    member.peer_addr
                );
            }
            if member.client_url != self.advertise_client_url {
                refuse!(
                    "advertise-client-url: it is not this node's URL in initial-cluster, {}",
                    member.client_url
                );
            }
        }
        if self.client_addr == self.peer_addr && self.client_addr.port() != 0 {
            refuse!("client-addr and peer-addr are the same, {}", self.client_addr);
        }
        if self.accounts.enforced && self.accounts.root_token.is_none() {
            refuse!(
                "root-token-file: it is missing; where accounts are enforced nobody is the administrator without a token"
            );
        }
        if !(SESSION_TTL_MS_MIN..=SESSION_TTL_MS_MAX).contains(&self.accounts.session_ttl_ms) {
            refuse!(
                "session-ttl: {} ms is not between {SESSION_TTL_MS_MIN} and {SESSION_TTL_MS_MAX}",
                self.accounts.session_ttl_ms
            );
        }
        if !self.accounts.enforced && !self.insecure_listen && !self.listens_on_loopback() {
            refuse!(
                "client-addr: {} is not a loopback address; without accounts anyone who reaches it is the \
                 administrator (--auth on enforces accounts, --insecure-listen permits it)",
                self.client_addr
            );
        }
        if self.data_dir.as_os_str().is_empty() {
            refuse!("data-dir: it is empty");
        }
        if self.log_bytes_max < LOG_BYTES_LEAST {
            refuse!("log-bytes-max: {} is less than {LOG_BYTES_LEAST}", self.log_bytes_max);
        }
        if !(BLOCK_CACHE_BYTES_LEAST..=BLOCK_CACHE_BYTES_MAX).contains(&self.block_cache_bytes) {
            refuse!(
                "block-cache-bytes: {} is not between {BLOCK_CACHE_BYTES_LEAST} and {BLOCK_CACHE_BYTES_MAX}",
                self.block_cache_bytes
            );
        }
        if self.log_age_max_s == 0 {
            refuse!("log-age-max-s: it is zero");
        }
        for (name, value) in [
            ("user-rate-limit", self.user_rate_limit),
            ("user-rate-burst", self.user_rate_burst),
        ] {
            if value > USER_RATE_MAX {
                refuse!("{name}: {value} is more than {USER_RATE_MAX}");
            }
        }
        if self.user_rate_burst > 0 && self.user_rate_limit == 0 {
            refuse!("user-rate-burst: it means nothing without user-rate-limit");
        }
        let (heartbeat, min, max) = (
            self.heartbeat_interval_ms,
            self.election_timeout_min_ms,
            self.election_timeout_max_ms,
        );
        if !(VERSION_MIN..=VERSION_MAX).contains(&self.cluster_version_max) {
            refuse!(
                "cluster-version-max: {} is not between {VERSION_MIN} and {VERSION_MAX}",
                self.cluster_version_max
            );
        }
        if heartbeat == 0 {
            refuse!("heartbeat-interval-ms: it is zero");
        }
        if max > TIMEOUT_MS_MAX {
            refuse!("election-timeout-max-ms: {max} is more than {TIMEOUT_MS_MAX}");
        }
        if min >= max {
            refuse!("election-timeout-min-ms: {min} is not below election-timeout-max-ms, {max}");
        }
        if heartbeat.saturating_mul(HEARTBEATS_PER_ELECTION) > min {
            refuse!(
                "election-timeout-min-ms: {min} is less than {HEARTBEATS_PER_ELECTION} times heartbeat-interval-ms, {heartbeat}"
            );
        }
        Ok(())
    }

    fn listens_on_loopback(&self) -> bool {
        self.client_addr.ip().to_canonical().is_loopback()
    }

    /// What works and is still unwise, in words for the operator.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let voters = self.initial_cluster.len();
        if voters > 0 && voters.is_multiple_of(2) {
            advice.push(format!(
                "{voters} voters survive no more failures than {}: an odd number is better",
                voters - 1
            ));
        }
        if voters > 7 {
            advice.push(format!(
                "{voters} voters make every write wait for {}: 3 or 5 are usual",
                voters / 2 + 1
            ));
        }
        if self.accounts.enforced && !self.listens_on_loopback() {
            advice.push(format!(
                "passwords and tokens reach {} in the clear: put a proxy that speaks TLS in front of it, or keep \
                 the network private",
                self.client_addr
            ));
        }
        advice
    }
}

/// Parses `ID=PEER=URL,ID=PEER=URL,…`, such as `1=127.0.0.1:7201=http://127.0.0.1:7101`. Nothing
/// is trimmed or guessed.
///
/// # Errors
/// Says which entry is wrong, and why.
pub fn parse_initial_cluster(text: &str) -> Result<Vec<InitialMember>, InvalidConfig> {
    let mut members = Vec::new();
    for entry in text.split(',') {
        let [id, peer_addr, client_url] = entry.split('=').collect::<Vec<_>>()[..] else {
            refuse!("initial-cluster: {entry:?} is not ID=PEER=URL");
        };
        let plain = !id.is_empty() && !id.starts_with('0') && id.bytes().all(|byte| byte.is_ascii_digit());
        let id = match id.parse::<u64>() {
            Ok(id) if plain => id,
            _ => refuse!("initial-cluster: {id:?} is not an id (1, 2, 3 …)"),
        };
        members.push(InitialMember {
            id,
            peer_addr: peer_addr.to_owned(),
            client_url: client_url.trim_end_matches('/').to_owned(),
        });
    }
    check_initial_cluster(&members)?;
    Ok(members)
}

fn check_initial_cluster(members: &[InitialMember]) -> Result<(), InvalidConfig> {
    if members.is_empty() {
        refuse!("initial-cluster: it is empty");
    }
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for member in members {
        let InitialMember {
            id,
            peer_addr,
            client_url,
        } = member;
        if *id == 0 || *id > NODE_ID_MAX {
            refuse!("initial-cluster: id {id} is not between 1 and 2^53 - 1");
        }
        let of_node = |why: String| InvalidConfig(format!("initial-cluster: node {id}: {why}"));
        check_peer_addr(peer_addr).map_err(of_node)?;
        check_client_url(client_url).map_err(of_node)?;
        if !ids.insert(*id) {
            refuse!("initial-cluster: id {id} stands there twice");
        }
        // Clients and peers have separate listeners, so even a node's own two differ.
        let client_addr = client_url.trim_start_matches("http://");
        if !addresses.insert(peer_addr.as_str()) || !addresses.insert(client_addr) {
            refuse!("initial-cluster: node {id} has an address that stands there twice");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_api::RootToken;
    use quorate_storage::state::BLOCK_CACHE_BYTES;

    use super::*;

    const THREE: &str = "1=127.0.0.1:7201=http://127.0.0.1:7101,2=127.0.0.1:7202=http://127.0.0.1:7102,\
                         3=node-3.example:7203=http://[::1]:7103";

    fn config() -> Config {
        Config {
            id: 1,
            data_dir: "data".into(),
            client_addr: "127.0.0.1:7101".parse().expect("an address"),
            peer_addr: "127.0.0.1:7201".parse().expect("an address"),
            advertise_client_url: "http://127.0.0.1:7101".into(),
            advertise_peer_addr: "127.0.0.1:7201".into(),
            initial_cluster: parse_initial_cluster(THREE).expect("three nodes"),
            join: Vec::new(),
            log_bytes_max: LOG_BYTES_MAX,
            log_age_max_s: LOG_AGE_MAX_S,
            disk_free_min: DISK_FREE_MIN,
            block_cache_bytes: BLOCK_CACHE_BYTES as u64,
            verify_interval_s: VERIFY_INTERVAL_S,
            user_rate_limit: 0,
            user_rate_burst: 0,
            cluster_version_max: VERSION_MAX,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            election_timeout_min_ms: ELECTION_TIMEOUT_MIN_MS,
            election_timeout_max_ms: ELECTION_TIMEOUT_MAX_MS,
            insecure_listen: false,
            accounts: Accounts::default(),
        }
    }

    /// What `check` says about the usual configuration with one thing changed.
    fn said(change: impl FnOnce(&mut Config)) -> String {
        let mut config = config();
        change(&mut config);
        config
            .check()
            .map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn an_initial_cluster_is_read_as_it_stands() {
        let members = parse_initial_cluster(THREE).expect("three nodes");
        assert_eq!(members.len(), 3);
        assert_eq!(members[2].id, 3);
        assert_eq!(members[2].peer_addr, "node-3.example:7203");
        assert_eq!(members[2].client_url, "http://[::1]:7103");
    }

    #[test]
    fn a_slip_in_the_initial_cluster_is_named() {
        for (text, word) in [
            ("", "ID=PEER=URL"),
            ("1=a:1", "ID=PEER=URL"),
            ("1=a:1=http://a:2=x", "ID=PEER=URL"),
            ("1=a:1=http://a:2,", "ID=PEER=URL"),
            ("1=a:1=http://a:2, 2=b:1=http://b:2", "\" 2\" is not an id"),
            ("0=a:1=http://a:2", "not an id"),
            ("+1=a:1=http://a:2", "not an id"),
            ("99999999999999999999=a:1=http://a:2", "not an id"),
            ("9007199254740992=a:1=http://a:2", "2^53"),
            ("1=a=http://a:2", "HOST:PORT"),
            ("1=a:0=http://a:2", "HOST:PORT"),
            ("1=a:65536=http://a:2", "HOST:PORT"),
            ("1=a b:1=http://a:2", "HOST:PORT"),
            ("1=a:1=a:2", "http://HOST:PORT"),
            ("1=a:1=https://a:2", "http://HOST:PORT"),
            ("1=a:1=http://a:2/x", "http://HOST:PORT"),
            ("1=a:1=http://a:2,1=b:1=http://b:2", "id 1 stands there twice"),
            ("1=a:1=http://a:2,2=a:1=http://b:2", "node 2 has an address"),
            ("1=a:1=http://a:2,2=b:1=http://a:2", "node 2 has an address"),
            ("1=a:1=http://a:1", "node 1 has an address"),
        ] {
            let error = parse_initial_cluster(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn settings_are_checked_against_each_other() {
        assert_eq!(said(|_| ()), "fine");
        for (change, word) in [
            ((|c| c.id = 4) as fn(&mut Config), "this node's id, 4"),
            (|c| c.id = 0, "id: 0"),
            (|c| c.join = vec!["nowhere".into()], "join"),
            (|c| c.log_bytes_max = 1, "log-bytes-max"),
            (|c| c.log_age_max_s = 0, "log-age-max-s"),
            (|c| c.block_cache_bytes = (8 << 20) - 1, "block-cache-bytes"),
            (|c| c.block_cache_bytes = (1 << 40) + 1, "block-cache-bytes"),
            (|c| c.user_rate_limit = 1_000_001, "user-rate-limit"),
            (|c| c.user_rate_burst = 1, "user-rate-burst"),
            (|c| c.cluster_version_max = 0, "cluster-version-max"),
            (|c| c.cluster_version_max = VERSION_MAX + 1, "cluster-version-max"),
            (|c| c.peer_addr = c.client_addr, "the same"),
            (
                |c| c.client_addr = "0.0.0.0:7101".parse().expect("an address"),
                "--insecure-listen",
            ),
            (|c| c.advertise_client_url = "nowhere".into(), "advertise-client-url"),
            (|c| c.advertise_peer_addr = "nowhere".into(), "advertise-peer-addr"),
            (
                |c| c.advertise_client_url = "http://elsewhere:1".into(),
                "URL in initial-cluster",
            ),
            (
                |c| c.advertise_peer_addr = "elsewhere:1".into(),
                "address in initial-cluster",
            ),
            (|c| c.advertise_peer_addr = "0.0.0.0:7201".into(), "nobody can reach"),
            (
                |c| c.advertise_client_url = "http://[::]:7101".into(),
                "nobody can reach",
            ),
            (|c| c.data_dir = PathBuf::new(), "data-dir"),
            (|c| c.heartbeat_interval_ms = 0, "heartbeat-interval-ms"),
            (|c| c.heartbeat_interval_ms = 101, "3 times"),
            (|c| c.election_timeout_max_ms = 300, "not below"),
            (|c| c.election_timeout_max_ms = 60_001, "more than"),
            (|c| c.initial_cluster.clear(), "empty"),
        ] {
            let said = said(change);
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(
            said(|c| c.heartbeat_interval_ms = 100),
            "fine",
            "exactly three heartbeats"
        );
        let open = said(|c| {
            c.client_addr = "0.0.0.0:7101".parse().expect("an address");
            c.insecure_listen = true;
        });
        assert_eq!(open, "fine");
    }

    #[test]
    fn where_accounts_are_enforced_root_has_a_token_and_any_address_is_listened_on() {
        let enforce = |c: &mut Config| {
            c.accounts.enforced = true;
            c.accounts.root_token = Some(RootToken::new(&"t".repeat(32)).expect("a token"));
        };
        assert_eq!(said(enforce), "fine");
        let beyond = |c: &mut Config| {
            enforce(c);
            c.client_addr = "0.0.0.0:7101".parse().expect("an address");
        };
        assert_eq!(said(beyond), "fine");
        let mut config = config();
        enforce(&mut config);
        assert_eq!(config.advice(), Vec::<String>::new());
        beyond(&mut config);
        assert!(config.advice()[0].contains("TLS"));

        assert!(said(|c| c.accounts.enforced = true).contains("root-token-file"));
        // A root token alone does not close the door.
        let open = said(|c| {
            beyond(c);
            c.accounts.enforced = false;
        });
        assert!(open.contains("--auth on"), "{open}");
        for ttl_ms in [0, SESSION_TTL_MS_MIN - 1, SESSION_TTL_MS_MAX + 1] {
            assert!(
                said(|c| c.accounts.session_ttl_ms = ttl_ms).contains("session-ttl"),
                "{ttl_ms}"
            );
        }
    }

    #[test]
    fn a_node_that_joins_needs_no_initial_cluster_and_may_have_one() {
        let join = |c: &mut Config| {
            c.id = 4;
            c.join = vec!["http://127.0.0.1:7101".into()];
        };
        assert_eq!(said(join), "fine");
        let alone = said(|c| {
            join(c);
            c.initial_cluster.clear();
        });
        assert_eq!(alone, "fine");
    }

    #[test]
    fn an_even_number_of_voters_works_but_is_advised_against() {
        let mut config = config();
        assert_eq!(config.advice(), Vec::<String>::new());
        config.initial_cluster.pop();
        assert_eq!(config.check(), Ok(()));
        assert!(config.advice()[0].contains("odd number"));
    }
}
