//! One simulated node: the product's own node over a simulated network, clock and disk, and the clients that
//! ask it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use quorate_api::Accounts;
use quorate_api::replica::{NewNode, Replica};
use quorate_state_machine::{RunId, VERSION_MAX};
use quorate_storage::node_dir::NodeDir;
use quorate_storage::state::MemoryState;
use raft_node::config::{Config, InitialMember};
use raft_node::metrics::Metrics;
use raft_node::node::NodeCore;
use raft_node::start::{Parts, start};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clients::{self, CLIENTS, Stage};
use crate::disk::{Disk, Identity, Speed, keep_syncing, snapshot_dir};
use crate::transport::{SimulatedListener, SimulatedTcp};
use crate::wall::WallClock;

pub(crate) type Core = Arc<NodeCore<MemoryState>>;

const PEER_PORT: u16 = 7200;
/// What a simulated disk has free. No simulation comes near it.
const FREE_BYTES: u64 = 1 << 40;
/// Small enough that a simulation purges its log by itself now and then.
const LOG_BYTES_MAX: u64 = 16 << 10;
/// For an order to be carried out; the driver gives the next one anyhow.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// As in the product's defaults.
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 500;
const ELECTION_MAX_MS: u64 = 1000;

/// What an operator asks of a node.
#[derive(Debug)]
pub(crate) enum Order {
    Snapshot,
    Transfer,
    Add { id: u64, replaces: Option<u64> },
    Remove { id: u64 },
}

/// A node, running or not: what is left of it when it crashes, and how to get at it while it runs.
pub(crate) struct Node {
    pub(crate) id: u64,
    seed: u64,
    dir: PathBuf,
    members: Vec<InitialMember>,
    stage: Arc<Stage>,
    pub(crate) speed: Arc<Speed>,
    pub(crate) wall: WallClock,
    identity: Arc<Identity>,
    /// Counts the starts of the process.
    runs: AtomicU64,
    /// All of them held for a look or a change, never across an await.
    disk: Mutex<Disk>,
    core: Mutex<Option<Core>>,
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
    /// Why the process has ended by itself.
    ended: Arc<Mutex<Option<String>>>,
}

impl Node {
    pub(crate) fn new(id: u64, seed: u64, dir: PathBuf, members: Vec<InitialMember>, stage: Arc<Stage>) -> Arc<Self> {
        Arc::new(Self {
            id,
            seed,
            dir,
            members,
            stage,
            speed: Arc::default(),
            wall: WallClock::of(id, seed),
            identity: Arc::default(),
            runs: AtomicU64::new(0),
            disk: Mutex::new(Disk::empty()),
            core: Mutex::new(None),
            orders: Mutex::new(None),
            ended: Arc::default(),
        })
    }

    pub(crate) fn host(&self) -> String {
        host(self.id)
    }

    pub(crate) fn disk(&self) -> Disk {
        lock(&self.disk).clone()
    }

    pub(crate) fn core(&self) -> Option<Core> {
        lock(&self.core).clone()
    }

    /// Counts the starts of its process.
    pub(crate) fn run_number(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    pub(crate) fn order(&self, order: Order) {
        if let Some(orders) = &*lock(&self.orders) {
            // A node that is going down does nothing more.
            let _ = orders.send(order);
        }
    }

    /// Why its process has ended by itself; asked once.
    pub(crate) fn take_ended(&self) -> Option<String> {
        lock(&self.ended).take()
    }

    /// Lets go of what belonged to the process that is gone.
    pub(crate) fn forget_process(&self) {
        *lock(&self.core) = None;
        *lock(&self.orders) = None;
    }

    /// The process, from its start on.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed ^ (self.id << 32) ^ (run << 40));
        let dir = NodeDir::open(&self.dir, self.id)?;
        let disk = {
            let mut disk = lock(&self.disk);
            if run > 0 {
                *disk = disk.after_crash(&mut dice);
            }
            disk.clone()
        };
        disk.check(&dir)?;
        let syncing = keep_syncing(disk.log.clone(), self.speed.clone(), ChaCha8Rng::from_rng(&mut dice));
        tokio::spawn(syncing);
        let core = self.start(&dir, &disk, run).await?;
        *lock(&self.core) = Some(core.clone());
        let (orders, mut given) = mpsc::unbounded_channel();
        *lock(&self.orders) = Some(orders);
        for number in 0..CLIENTS {
            let dice = ChaCha8Rng::from_rng(&mut dice);
            tokio::spawn(clients::work(self.stage.clone(), core.clone(), dice, number));
        }
        while let Some(order) = given.recv().await {
            tokio::spawn(carry_out(core.clone(), order));
        }
        // The driver holds the other end for as long as the node runs.
        let _dir = dir;
        Ok(())
    }

    async fn start(&self, dir: &NodeDir, disk: &Disk, run: u64) -> anyhow::Result<Core> {
        let listener = SimulatedListener::bind(PEER_PORT).await.context("failed to listen")?;
        let (ended, identity, wall) = (self.ended.clone(), self.identity.clone(), self.wall.clone());
        let parts = Parts {
            store_id: u128::from(self.id) * 1000,
            run: RunId(u128::from(self.id) << 64 | u128::from(run)),
            wall: Arc::new(move || wall.now_ms()),
            transport: Arc::new(SimulatedTcp),
            cluster_id: lock(&self.identity.cluster_id).clone(),
            on_cluster_id: Arc::new(move |id| {
                *lock(&identity.cluster_id) = Some(id.to_owned());
                Ok(())
            }),
            log: disk.log.clone(),
            state: disk.state.clone(),
            snapshot_dir: snapshot_dir(dir),
            free_bytes: Arc::new(|| Ok(FREE_BYTES)),
            oldest_unsynced: Arc::new(|| None),
            metrics: Metrics::new(&Registry::new())?,
            on_fatal: Arc::new(move |reason| {
                lock(&ended).get_or_insert(reason);
            }),
        };
        start(&self.config(), Box::new(listener), parts, CancellationToken::new()).await
    }

    fn config(&self) -> Config {
        let unused = "127.0.0.1:0".parse().expect("it is an address");
        let own = member(self.id);
        Config {
            id: self.id,
            data_dir: self.dir.clone(),
            client_addr: unused,
            peer_addr: unused,
            advertise_client_url: own.client_url,
            advertise_peer_addr: own.peer_addr,
            initial_cluster: self.members.clone(),
            join: Vec::new(),
            log_bytes_max: LOG_BYTES_MAX,
            log_age_max_s: 3600,
            disk_free_min: 1,
            // Its state is in memory.
            block_cache_bytes: 8 << 20,
            verify_interval_s: 0,
            user_rate_limit: 0,
            user_rate_burst: 0,
            cluster_version_max: VERSION_MAX,
            heartbeat_interval_ms: HEARTBEAT_MS,
            election_timeout_min_ms: ELECTION_MIN_MS,
            election_timeout_max_ms: ELECTION_MAX_MS,
            insecure_listen: false,
            accounts: Accounts::default(),
        }
    }
}

pub(crate) fn host(id: u64) -> String {
    format!("node-{id}")
}

pub(crate) fn member(id: u64) -> InitialMember {
    InitialMember {
        id,
        peer_addr: format!("{}:{PEER_PORT}", host(id)),
        client_url: format!("http://{}", host(id)),
    }
}

async fn carry_out(core: Core, order: Order) {
    let deadline = (tokio::time::Instant::now() + ORDER_TIMEOUT).into_std();
    let done = match order {
        Order::Snapshot => core.take_snapshot().await,
        Order::Transfer => core.transfer(None, deadline).await.map(|_| ()),
        Order::Add { id, replaces } => {
            let InitialMember {
                id,
                peer_addr,
                client_url,
            } = member(id);
            let node = NewNode {
                id,
                client_url,
                peer_addr,
                replaces,
            };
            core.add_node(node, deadline).await.map(|_| ())
        }
        Order::Remove { id } => core.remove_node(id, deadline).await,
    };
    if let Err(error) = done {
        tracing::debug!(%error, "an order was not carried out");
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a simulation has one thread, and a panic ends it")
}
