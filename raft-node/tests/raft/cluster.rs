//! A cluster in this process: real sockets between the nodes, stores in memory.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use quorate_api::replica::{Level, ReadOptions, Replica, ReplicaError, WriteOptions, Written};
use quorate_state_machine::command::NewMessage;
use quorate_state_machine::query::{Answer, Answered, QueryBody};
use quorate_state_machine::{
    Caller, Command, Conditions, Envelope, Query, RoomKind, RunId, SpaceId, VERSION_MAX, VERSION_MIN,
};
use quorate_storage::log::MemoryLog;
use quorate_storage::state::MemoryState;
use raft_node::config::{Config, InitialMember};
use raft_node::metrics::Metrics;
use raft_node::node::NodeCore;
use raft_node::start::{Parts, start};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::gates::Gates;

/// Nothing here takes longer on any machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) core: Arc<NodeCore<MemoryState>>,
    pub(crate) metrics: Metrics,
    /// What its disk says is free.
    pub(crate) free: Arc<AtomicU64>,
    /// Whether its disk takes for ever over a write.
    pub(crate) disk_hangs: Arc<AtomicBool>,
    /// Why it would have ended its process.
    pub(crate) ended: Arc<Mutex<Option<String>>>,
    stop_peers: CancellationToken,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    members: Vec<InitialMember>,
    /// Those whose build supports the first cluster version only.
    older: BTreeSet<u64>,
    /// Through which all connections go.
    pub(crate) gates: Gates,
    /// The shortest election time-out; the longest is twice that.
    election_timeout_ms: u64,
    dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        Self::start_mixed(size, &[]).await
    }

    /// With nodes that run an older build.
    pub(crate) async fn start_mixed(size: u64, older: &[u64]) -> Self {
        Self::start_with(size, older, 300).await
    }

    /// No election time-out ends while a test runs: whoever is elected was not elected by it.
    pub(crate) async fn start_patient(size: u64) -> Self {
        Self::start_with(size, &[], 60_000).await
    }

    async fn start_with(size: u64, older: &[u64], election_timeout_ms: u64) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            members: Vec::new(),
            older: older.iter().copied().collect(),
            gates: Gates::default(),
            election_timeout_ms,
            dir: tempfile::tempdir().unwrap(),
        };
        let mut listeners = Vec::new();
        for id in 1..=size {
            listeners.push((id, cluster.listen(id).await));
        }
        for (id, listener) in listeners {
            cluster.start_node(id, listener).await;
        }
        cluster
    }

    async fn listen(&mut self, id: u64) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.members.push(InitialMember {
            id,
            peer_addr: listener.local_addr().unwrap().to_string(),
            client_url: format!("http://node-{id}"),
        });
        listener
    }

    /// Starts a node that knows the others and belongs to no cluster yet.
    pub(crate) async fn start_stranger(&mut self, id: u64) -> InitialMember {
        let listener = self.listen(id).await;
        self.start_node(id, listener).await;
        self.members.last().unwrap().clone()
    }

    /// The same, with an older build.
    pub(crate) async fn start_older_stranger(&mut self, id: u64) -> InitialMember {
        self.older.insert(id);
        self.start_stranger(id).await
    }

    async fn start_node(&mut self, id: u64, listener: TcpListener) {
        let config = Config {
            id,
            data_dir: self.dir.path().join(id.to_string()),
            client_addr: "127.0.0.1:0".parse().unwrap(),
            peer_addr: listener.local_addr().unwrap(),
            advertise_client_url: format!("http://node-{id}"),
            advertise_peer_addr: listener.local_addr().unwrap().to_string(),
            initial_cluster: self.members.clone(),
            join: Vec::new(),
            log_bytes_max: 1 << 20,
            log_age_max_s: 3600,
            disk_free_min: 1 << 20,
            block_cache_bytes: 8 << 20,
            verify_interval_s: 0,
            user_rate_limit: 0,
            user_rate_burst: 0,
            cluster_version_max: if self.older.contains(&id) {
                VERSION_MIN
            } else {
                VERSION_MAX
            },
            heartbeat_interval_ms: 50,
            election_timeout_min_ms: self.election_timeout_ms,
            election_timeout_max_ms: 2 * self.election_timeout_ms,
            insecure_listen: false,
            accounts: quorate_api::Accounts::default(),
        };
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let free = Arc::new(AtomicU64::new(1 << 30));
        let ended = Arc::new(Mutex::new(None));
        let disk_hangs = Arc::new(AtomicBool::new(false));
        let (asked, told, hangs) = (free.clone(), ended.clone(), disk_hangs.clone());
        let parts = Parts {
            store_id: u128::from(id) * 1000,
            run: RunId(u128::from(id)),
            wall: Arc::new(raft_node::clock::wall_ms),
            transport: Arc::new(self.gates.of(id, &config.advertise_peer_addr)),
            cluster_id: None,
            on_cluster_id: Arc::new(|_| Ok(())),
            log: MemoryLog::new(),
            state: MemoryState::new(),
            snapshot_dir: config.data_dir.join("snapshot"),
            free_bytes: Arc::new(move || Ok(asked.load(Ordering::Relaxed))),
            oldest_unsynced: Arc::new(move || hangs.load(Ordering::Relaxed).then_some(Duration::from_secs(1))),
            metrics: metrics.clone(),
            on_fatal: Arc::new(move |reason| {
                told.lock().unwrap().get_or_insert(reason);
            }),
        };
        let stop_peers = CancellationToken::new();
        let core = start(&config, Box::new(listener), parts, stop_peers.clone())
            .await
            .unwrap();
        self.nodes.push(Node {
            core,
            metrics,
            free,
            disk_hangs,
            ended,
            stop_peers,
        });
    }

    /// The index of the leading node, once a node leads and all others know it.
    pub(crate) async fn leader(&self) -> usize {
        until("one leader is known everywhere", || {
            let leaders: Vec<_> = self.nodes.iter().map(|node| node.core.live_leader()).collect();
            let first = leaders[0]?;
            leaders
                .iter()
                .all(|leader| *leader == Some(first))
                .then_some(first as usize - 1)
        })
        .await
    }

    /// Waits until all nodes have applied the rise to the version, which the leader sees to.
    pub(crate) async fn at_version(&self, version: u32) {
        until("the cluster is at that version", || {
            let at = |node: &Node| node.core.applied.borrow().version;
            self.nodes.iter().all(|node| at(node) == version).then_some(())
        })
        .await;
    }

    /// Waits until all nodes have applied the same, then compares every byte of their states.
    pub(crate) async fn assert_equal_states(&self) {
        use quorate_storage::state::StateStore;
        until("all nodes have applied the same", || {
            let first = self.nodes[0].core.applied.borrow().log_id;
            self.nodes
                .iter()
                .all(|node| node.core.applied.borrow().log_id == first)
                .then_some(())
        })
        .await;
        let hashes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.core.state.state_hash().unwrap())
            .collect();
        assert!(
            hashes.iter().all(|hash| *hash == hashes[0]),
            "the states differ: {hashes:x?}"
        );
    }

    pub(crate) async fn stop(self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

impl Node {
    /// As a process that goes away.
    pub(crate) async fn stop(&self) {
        self.core.stopping.cancel();
        self.core.raft.shutdown().await.unwrap();
        self.stop_peers.cancel();
    }

    pub(crate) async fn write(&self, command: Command) -> Result<Written, ReplicaError> {
        self.core
            .write(
                envelope(command),
                WriteOptions {
                    deadline: soon(),
                    redirect: false,
                },
            )
            .await
    }

    pub(crate) async fn read(&self, body: QueryBody, level: Level) -> Result<Answer, ReplicaError> {
        let query = Query {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            body,
        };
        let options = ReadOptions {
            deadline: soon(),
            level,
            min_position: None,
        };
        let Answered { answer, .. } = self.core.read(query, options).await?;
        Ok(answer.expect("the query is allowed"))
    }

    pub(crate) async fn last_seq(&self, room: &str) -> u64 {
        let body = QueryBody::Room { room: room.into() };
        match self.read(body, Level::Linearizable).await.unwrap() {
            Answer::Room(room) => room.last_seq.0,
            other => panic!("another answer: {other:?}"),
        }
    }
}

/// When anything that works at all has worked.
pub(crate) fn soon() -> std::time::Instant {
    std::time::Instant::now() + PATIENCE
}

pub(crate) fn create_room(room: &str) -> Command {
    Command::CreateRoom {
        room: room.into(),
        kind: RoomKind::Public,
        title: None,
        members: vec![],
        attributes: None,
    }
}

pub(crate) fn send(room: &str, text: String) -> Command {
    let message = NewMessage {
        text,
        client_id: None,
        kind: None,
        reply_to: None,
        attributes: None,
        sender: None,
        sent_at_ms: None,
    };
    Command::Send {
        room: room.into(),
        messages: vec![message],
        batch: false,
    }
}

pub(crate) fn envelope(command: Command) -> Envelope {
    Envelope {
        space: SpaceId::MAIN,
        caller: Caller::Root,
        request_id: "test".to_owned(),
        idempotency: None,
        conditions: Conditions::default(),
        command,
    }
}

/// Waits for a condition by looking again and again; fails when patience ends.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}
