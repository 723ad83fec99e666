//! A cluster in this process: real sockets between the nodes, stores in memory.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use quorate_api::replica::{Level, ReadOptions, Replica, ReplicaError, WriteOptions, Written};
use quorate_state_machine::query::{Answer, Answered, QueryBody};
use quorate_state_machine::{Caller, Command, Conditions, Envelope, Query, SpaceId};
use quorate_storage::log::MemoryLog;
use quorate_storage::state::MemoryState;
use raft_node::config::{Config, InitialMember};
use raft_node::metrics::Metrics;
use raft_node::node::NodeCore;
use raft_node::start::{Parts, start};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Nothing here takes longer on any machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) core: Arc<NodeCore<MemoryState>>,
    pub(crate) metrics: Metrics,
    stop_peers: CancellationToken,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    _dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut listeners = Vec::new();
        let mut initial_cluster = Vec::new();
        for id in 1..=size {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer_addr = listener.local_addr().unwrap().to_string();
            initial_cluster.push(InitialMember {
                id,
                peer_addr,
                client_url: format!("http://node-{id}"),
            });
            listeners.push(listener);
        }
        let mut nodes = Vec::new();
        for (id, listener) in (1..=size).zip(listeners) {
            let config = Config {
                id,
                data_dir: dir.path().join(id.to_string()),
                client_addr: "127.0.0.1:0".parse().unwrap(),
                peer_addr: listener.local_addr().unwrap(),
                advertise_client_url: format!("http://node-{id}"),
                advertise_peer_addr: listener.local_addr().unwrap().to_string(),
                initial_cluster: initial_cluster.clone(),
                heartbeat_interval_ms: 50,
                election_timeout_min_ms: 300,
                election_timeout_max_ms: 600,
                insecure_listen: false,
            };
            let metrics = Metrics::new(&Registry::new()).unwrap();
            let parts = Parts {
                store_id: u128::from(id) * 1000,
                cluster_id: None,
                on_cluster_id: Arc::new(|_| Ok(())),
                log: MemoryLog::new(),
                state: MemoryState::new(),
                snapshot_dir: config.data_dir.join("snapshot"),
                metrics: metrics.clone(),
                on_fatal: Arc::new(|reason| eprintln!("a node cannot go on: {reason}")),
            };
            let stop_peers = CancellationToken::new();
            let core = start(&config, listener, parts, stop_peers.clone()).await.unwrap();
            nodes.push(Node {
                core,
                metrics,
                stop_peers,
            });
        }
        Self { nodes, _dir: dir }
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
            node.core.stopping.cancel();
            node.core.raft.shutdown().await.unwrap();
            node.stop_peers.cancel();
        }
    }
}

impl Node {
    pub(crate) async fn write(&self, command: Command) -> Result<Written, ReplicaError> {
        self.core
            .write(
                envelope(command),
                WriteOptions {
                    deadline: std::time::Instant::now() + PATIENCE,
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
            deadline: std::time::Instant::now() + PATIENCE,
            level,
            min_position: None,
        };
        let Answered { answer, .. } = self.core.read(query, options).await?;
        Ok(answer.expect("the query is allowed"))
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
