//! A cluster of real `quorate serve` processes on loopback, and everything that a test may do to it.
//!
//! Each cluster has a temporary folder and loopback addresses of its own. All that it starts is
//! gone when it is dropped, also when the test panics; then the ends of the nodes' logs are shown.

mod addresses;
mod binary;
mod clocks;
mod command;
mod diallers;
mod disks;
mod faults;
mod flow;
pub mod isolation;
mod levers;
mod loop_disk;
mod membership;
mod namespaces;
mod network;
mod panics;
mod process;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::ThreadId;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub use self::clocks::WrongClock;
use self::diallers::Diallers;
pub use self::disks::SmallDisks;
pub use self::flow::Weather;
use self::isolation::Isolation;
use self::levers::Levers;
pub use self::levers::Syncs;
use self::loop_disk::LoopDisk;
pub(crate) use self::membership::is_under_way;
pub use self::membership::{JOIN_TIMEOUT, Newcomer, node_of};
use self::namespaces::Namespaces;
pub use self::network::Network;
pub use self::process::Process;
use crate::cli;
use crate::http::{Answer, Call, Http, NoAnswer};
use crate::nemesis::Book;
use crate::wait::{Patience, eventually};

/// From the start of the processes until all are ready. Generous: machines that test are busy.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// From a fault until the cluster has settled on a leader again.
pub const LEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// From SIGKILL until the process is gone; a write to disk in progress is waited for by the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// One question about leader or readiness.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Each node's disk in an isolated cluster: four times the product's low-water mark of free space.
const DISK_BYTES: u64 = 1 << 30;
/// Where an isolated cluster keeps its other files, above all the logs of its nodes.
const WORK_DISK_BYTES: u64 = 16 << 30;
/// When this variable is set, a failed test leaves data directories and logs behind.
const KEEP: &str = "QUORATE_TEST_KEEP";
/// How much of each node's log is shown when a test fails.
const TAIL_BYTES: u64 = 4 << 10;

/// What a cluster is to be like. Starts as three nodes with the product's own settings.
#[derive(Debug)]
pub struct Options {
    nodes: u64,
    links: bool,
    serve_args: Vec<String>,
    disks: Option<SmallDisks>,
    clocks: BTreeMap<u64, WrongClock>,
    isolation: Option<Isolation>,
    levers: bool,
}

impl Options {
    /// Three or five, numbered from 1.
    pub fn nodes(mut self, nodes: u64) -> Self {
        self.nodes = nodes;
        self
    }

    /// Puts a proxy on every link between two nodes, so that [`Cluster::network`] can break it.
    pub fn breakable_links(mut self) -> Self {
        self.links = true;
        self
    }

    /// Further arguments for every `quorate serve`.
    pub fn serve_args(mut self, args: &[&str]) -> Self {
        self.serve_args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Every node's directory lies on a disk of its own of this size, that of the same number.
    pub fn small_disks(mut self, disks: SmallDisks) -> Self {
        self.disks = Some(disks);
        self
    }

    /// This node's wall clock is off.
    pub fn wrong_clock(mut self, id: u64, clock: WrongClock) -> Self {
        self.clocks.insert(id, clock);
        self
    }

    /// Puts each node on a machine of its own, as far as the kernel can make one: an address that only it has,
    /// with links that break and packets that get lost, and a disk that can lose power, hang and fill up.
    pub fn isolated(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self.links = true;
        self
    }

    /// Puts libraries between the nodes and the system, where they are installed, so that clocks can be moved
    /// and syncs fail while the nodes run.
    pub fn levers(mut self) -> Self {
        self.levers = true;
        self
    }

    /// All that faults need: [`Options::isolated`] where that is permitted, else [`Options::breakable_links`],
    /// and [`Options::levers`].
    pub fn for_faults(self, isolation: Option<Isolation>) -> Self {
        match isolation {
            Some(isolation) => self.isolated(isolation).levers(),
            None => self.breakable_links().levers(),
        }
    }

    /// Starts the nodes and waits until all are ready.
    pub async fn start(self) -> Result<Cluster> {
        let cluster = self.prepare().await?;
        cluster.start_all()?;
        cluster.wait_all_ready().await?;
        Ok(cluster)
    }

    async fn prepare(self) -> Result<Cluster> {
        panics::watch();
        let (block, namespaces) = match &self.isolation {
            Some(_) => {
                let block = addresses::Block::isolated();
                (block, Some(Namespaces::new(block.outside())?))
            }
            None => (addresses::Block::take(self.nodes)?, None),
        };
        let work_disk = match &self.isolation {
            Some(isolation) => Some(LoopDisk::create(isolation.folder().join("work"), WORK_DISK_BYTES)?),
            None => None,
        };
        let mut folder = tempfile::Builder::new();
        folder.prefix("quorate-torture-");
        let mut serve_args = self.serve_args;
        if namespaces.is_some() {
            // Nobody but this run is in its network.
            serve_args.push("--insecure-listen".to_owned());
        }
        let ids: Vec<u64> = (1..=self.nodes).collect();
        let diallers = Diallers::default();
        let network = self.links.then(|| Network::new(diallers.clone()));
        let cluster = Cluster {
            nodes: RwLock::new(BTreeMap::new()),
            gone: Mutex::new(Vec::new()),
            network,
            namespaces,
            diallers,
            block,
            serve_args,
            http: Http::new()?,
            binary: binary::find()?,
            folder: match &work_disk {
                Some(disk) => folder.tempdir_in(disk.mount_point())?,
                None => folder.tempdir()?,
            },
            _work_disk: work_disk,
            disks: self.disks,
            clocks: self.clocks,
            levers: self.levers,
            book: Book::default(),
            test: std::thread::current().id(),
        };
        let listed: Vec<String> = ids
            .iter()
            .map(|id| format!("{id}={}=http://{}", cluster.peer_address(*id), block.client(*id)))
            .collect();
        for id in &ids {
            cluster.link(*id, *id).await?;
            cluster.make_node(*id, *id, &["--initial-cluster".to_owned(), listed.join(",")])?;
        }
        Ok(cluster)
    }
}

/// One node of a cluster, running or not.
#[derive(Debug)]
pub struct Node {
    /// Whose addresses of the block it has: its own id's, unless it took over those of another.
    slot: u64,
    address: SocketAddr,
    data: PathBuf,
    process: Process,
    levers: Option<Levers>,
    /// Ends after the process.
    disk: Option<LoopDisk>,
}

impl Node {
    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

// The order of the fields is the order of their end: first the processes, then the proxies, then
// the folder and the disks.
#[derive(Debug)]
pub struct Cluster {
    /// Held to look up or to put in, never across an await. Who clients and the checker ask.
    nodes: RwLock<BTreeMap<u64, Arc<Node>>>,
    /// Nodes that are no part of the cluster any more, for the end of their logs.
    gone: Mutex<Vec<(u64, Arc<Node>)>>,
    network: Option<Network>,
    namespaces: Option<Namespaces>,
    diallers: Diallers,
    block: addresses::Block,
    serve_args: Vec<String>,
    http: Http,
    binary: PathBuf,
    folder: TempDir,
    /// On which the folder lies, in an isolated cluster.
    _work_disk: Option<LoopDisk>,
    disks: Option<SmallDisks>,
    clocks: BTreeMap<u64, WrongClock>,
    levers: bool,
    /// What is broken, for those who break things at the same time.
    pub(crate) book: Book,
    /// The thread that started it: that of the test.
    test: ThreadId,
}

impl Cluster {
    pub fn options() -> Options {
        Options {
            nodes: 3,
            links: false,
            serve_args: Vec::new(),
            disks: None,
            clocks: BTreeMap::new(),
            isolation: None,
            levers: false,
        }
    }

    /// A node on the addresses of `slot`, with these arguments besides those of all; not started.
    fn make_node(&self, id: u64, slot: u64, args: &[String]) -> Result<()> {
        let disk = match &self.namespaces {
            Some(_) => Some(LoopDisk::create(
                self.folder.path().join(format!("disk-{id}")),
                DISK_BYTES,
            )?),
            None => None,
        };
        let data = match (&disk, &self.disks) {
            (Some(disk), _) => disk.mount_point().join(format!("node-{id}")),
            (None, Some(disks)) => disks.folder(id)?,
            (None, None) => self.folder.path().join(format!("node-{id}")),
        };
        let mut all: Vec<String> = vec!["serve".to_owned()];
        for (flag, value) in [
            ("--id", id.to_string()),
            ("--data-dir", data.display().to_string()),
            ("--client-addr", self.block.client(slot).to_string()),
            ("--peer-addr", self.block.peer(slot).to_string()),
        ] {
            all.extend([flag.to_owned(), value]);
        }
        all.extend(args.iter().chain(&self.serve_args).cloned());
        let log = self.folder.path().join(format!("node-{id}.log"));
        let mut process = Process::new(self.binary.clone(), all, log);
        if let Some(disks) = &self.disks {
            process = process.inside(disks.enter());
        }
        if self.namespaces.is_some() {
            process = process.inside(Namespaces::enter(slot));
        }
        let levers = match self.levers {
            true => Some(Levers::installed(self.folder.path(), id)?),
            false => None,
        };
        if let Some(levers) = &levers {
            process = process.inside(levers.wrapper());
        }
        if let Some(clock) = self.clocks.get(&id) {
            process = process.inside(clock.wrapper());
        }
        let node = Node {
            slot,
            address: self.block.client(slot),
            data,
            process,
            levers,
            disk,
        };
        let before = self.write_nodes().insert(id, Arc::new(node));
        ensure!(before.is_none(), "node {id} exists already");
        Ok(())
    }

    /// Where the other nodes find one with the addresses of `slot`.
    fn peer_address(&self, slot: u64) -> SocketAddr {
        match &self.network {
            Some(_) => self.block.front(slot),
            None => self.block.peer(slot),
        }
    }

    /// Puts a proxy before the node, if links are to be breakable.
    async fn link(&self, id: u64, slot: u64) -> Result<()> {
        match (&self.network, &self.namespaces) {
            (Some(network), Some(namespaces)) => {
                namespaces.make(slot, self.block.peer(slot).ip())?;
                network.add_isolated(id, slot, namespaces, &self.block)
            }
            (Some(network), None) => {
                let (entry, exit) = (self.block.front(slot), self.block.peer(slot));
                network.add(id, slot, entry, exit).await
            }
            (None, _) => Ok(()),
        }
    }

    fn read_nodes(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u64, Arc<Node>>> {
        self.nodes.read().expect("no holder of this lock panics")
    }

    fn write_nodes(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u64, Arc<Node>>> {
        self.nodes.write().expect("no holder of this lock panics")
    }

    /// The nodes of the cluster, running or not.
    pub fn ids(&self) -> Vec<u64> {
        self.read_nodes().keys().copied().collect()
    }

    /// All nodes but this one.
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    pub fn node(&self, id: u64) -> Arc<Node> {
        let node = self.read_nodes().get(&id).cloned();
        node.unwrap_or_else(|| panic!("the test names node {id}, which is not of the cluster"))
    }

    /// None: it has ceased to be of the cluster.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Node>> {
        self.read_nodes().get(&id).cloned()
    }

    /// A node that is or was of the cluster.
    fn known(&self, id: u64) -> Arc<Node> {
        let node = self.read_nodes().get(&id).cloned();
        let known = node.or_else(|| {
            let gone = self.gone.lock().expect("no holder of this lock panics");
            gone.iter().find(|(old, _)| *old == id).map(|(_, node)| node.clone())
        });
        known.unwrap_or_else(|| panic!("the test names node {id}, which never was"))
    }

    /// The links between the nodes. The cluster must have been started with breakable ones.
    pub fn network(&self) -> &Network {
        self.network
            .as_ref()
            .expect("the cluster was started with breakable links")
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    /// A place for a test's own files, gone with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends the call to this node, whatever its state; also to where one was that is gone.
    pub async fn send(&self, id: u64, call: Call) -> Result<Answer, NoAnswer> {
        self.http.send(&self.known(id).url(), call).await
    }

    /// Sends the call and insists on the status.
    pub async fn expect(&self, id: u64, call: Call, status: u16) -> Result<Answer> {
        let asked = format!("{} {} on node {id}", call.method, call.path);
        let answer = self.send(id, call).await.with_context(|| asked.clone())?;
        answer.expect_status(status).with_context(|| asked)
    }

    /// `quorate ARGS --endpoints` all nodes.
    pub fn cli(&self, args: &[&str]) -> tokio::process::Command {
        let endpoints = self.endpoints();
        self.bare_cli(&[args, &["--endpoints", &endpoints]].concat())
    }

    /// `quorate ARGS` and nothing else.
    pub fn bare_cli(&self, args: &[&str]) -> tokio::process::Command {
        cli::command(&self.binary, args)
    }

    pub fn endpoints(&self) -> String {
        let urls: Vec<String> = self.read_nodes().values().map(|node| node.url()).collect();
        urls.join(",")
    }

    pub fn start_all(&self) -> Result<()> {
        self.ids().into_iter().try_for_each(|id| self.restart(id))
    }

    /// Starts an ended node again, over what its data directory holds. Does not wait for it.
    pub fn restart(&self, id: u64) -> Result<()> {
        let node = self.node(id);
        node.process.start()?;
        let pid = node.process.id().context("it was just started")?;
        self.diallers.enter(id, pid);
        Ok(())
    }

    /// kill -9; returns when the process is gone.
    pub async fn kill(&self, id: u64) -> Result<()> {
        self.kill_together(&[id]).await
    }

    /// kill -9 to all of them before any is waited for.
    pub async fn kill_together(&self, ids: &[u64]) -> Result<()> {
        for id in ids {
            self.node(*id).process.signal(Signal::SIGKILL)?;
        }
        for id in ids {
            self.node(*id).process.wait_end(KILL_TIMEOUT).await?;
        }
        Ok(())
    }

    /// SIGTERM; returns how the process ended.
    pub async fn terminate(&self, id: u64, within: Duration) -> Result<ExitStatus> {
        self.node(id).process.signal(Signal::SIGTERM)?;
        self.node(id).process.wait_end(within).await
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn pause(&self, id: u64) -> Result<()> {
        self.node(id).process.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&self, id: u64) -> Result<()> {
        self.node(id).process.signal(Signal::SIGCONT)
    }

    pub async fn wait_all_ready(&self) -> Result<()> {
        self.wait_ready(&self.ids()).await
    }

    /// Waits until each of them answers 200 to `/readyz`; fails at once when a process has ended.
    pub async fn wait_ready(&self, ids: &[u64]) -> Result<()> {
        let each = ids.iter().map(|id| async move {
            let waited = eventually("the node is ready", READY_TIMEOUT, async || self.is_ready(*id).await);
            let node = self.node(*id);
            // A node that has ended will not become ready: say so without waiting.
            tokio::select! {
                ready = waited => ready.with_context(|| format!("node {id}")),
                ended = node.process.wait_end(READY_TIMEOUT * 2) => {
                    bail!("node {id} ended ({}); its log: {}", ended?, node.process.log_tail(TAIL_BYTES))
                }
            }
        });
        join_all(each).await.into_iter().collect()
    }

    pub(crate) async fn is_ready(&self, id: u64) -> Result<(), String> {
        let answer = self.probe(id, "/readyz").await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    }

    async fn probe(&self, id: u64, path: &str) -> Result<Answer, String> {
        let asked = tokio::time::timeout(PROBE_TIMEOUT, self.send(id, Call::get(path))).await;
        match asked {
            Ok(answer) => answer.map_err(|error| format!("node {id}: {error}")),
            Err(_) => Err(format!("node {id} does not answer {path}")),
        }
    }

    /// Waits for a leader among all nodes that run.
    pub async fn leader(&self) -> Result<u64> {
        self.leader_among(&self.ids()).await
    }

    /// Waits until one of these nodes says that it leads and holds the greatest term of them all:
    /// one that was cut off or paused may still believe in itself.
    pub async fn leader_among(&self, ids: &[u64]) -> Result<u64> {
        let patience = Patience::new("one of the nodes leads", LEADER_TIMEOUT);
        loop {
            match self.claims(ids).await {
                Ok(claims) => match claims.iter().max() {
                    Some((_, true, id)) => return Ok(*id),
                    _ => patience.again(format!("(term, leads, node): {claims:?}")).await?,
                },
                Err(why) => patience.again(why).await?,
            }
        }
    }

    /// Term, whether it says that it leads, and node, of those of these that answer.
    pub(crate) async fn claims(&self, ids: &[u64]) -> Result<Vec<(u64, bool, u64)>, String> {
        let probes: Vec<_> = ids.iter().map(|id| self.probe(*id, "/leader")).collect();
        let mut claims = Vec::new();
        for (id, answer) in ids.iter().zip(join_all(probes).await) {
            let Ok(answer) = answer else { continue };
            let term = answer
                .header("X-Quorate-Term")
                .and_then(|term| term.parse::<u64>().ok());
            let term = term.ok_or_else(|| format!("node {id} answers /leader without X-Quorate-Term: {answer}"))?;
            claims.push((term, answer.status == 200, *id));
        }
        Ok(claims)
    }

    /// Waits until a node other than `old` leads.
    pub async fn leader_after(&self, old: u64) -> Result<u64> {
        self.leader_among(&self.others(old)).await
    }

    /// Writes until one write is committed: the cluster works. Answers with the position.
    pub async fn wait_writable(&self, id: u64, room: &str) -> Result<String> {
        let path = format!("/v1/rooms/{}/messages", crate::http::encoded(room));
        let mut attempt = 0;
        let answer = eventually("a write is committed", LEADER_TIMEOUT, async || {
            attempt += 1;
            let text = format!("probe {attempt}");
            let call = Call::post(&path, &serde_json::json!({ "text": text })).timeout(Duration::from_secs(2));
            match self.send(id, call).await {
                Ok(answer) if answer.status == 201 => Ok(answer),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        answer.await?.position()
    }

    /// Makes a public room.
    pub async fn create_room(&self, id: u64, room: &str) -> Result<Answer> {
        let body = serde_json::json!({ "room": room, "kind": "public" });
        self.expect(id, Call::post("/v1/rooms", &body), 201).await
    }

    /// Makes a user.
    pub async fn create_user(&self, id: u64, user: &str) -> Result<Answer> {
        self.expect(id, Call::post("/v1/users", &serde_json::json!({ "user": user })), 201)
            .await
    }

    /// One sample of a metric with these labels, as they stand in the exposition, for example
    /// `quorate_is_leader` or `quorate_peer_appends_in_flight_max{peer="2"}`.
    pub async fn metric(&self, id: u64, sample: &str) -> Result<f64> {
        let answer = self.expect(id, Call::get("/metrics"), 200).await?;
        let text = String::from_utf8(answer.body)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        let value = line.with_context(|| format!("node {id} has no metric {sample}"))?;
        Ok(value.trim().parse()?)
    }

    /// Empties the data directory of an ended node.
    pub fn wipe(&self, id: u64) -> Result<()> {
        let node = self.node(id);
        ensure!(!node.process.runs(), "node {id} still runs");
        std::fs::remove_dir_all(&node.data)?;
        Ok(std::fs::create_dir(&node.data)?)
    }

    fn show_logs(&self) {
        let nodes: Vec<(u64, Arc<Node>)> = self.read_nodes().iter().map(|(id, node)| (*id, node.clone())).collect();
        let gone = self.gone.lock().expect("no holder of this lock panics").clone();
        for (id, node) in nodes.iter().chain(&gone) {
            let state = match node.process.ended() {
                Some(status) => format!("ended: {status}"),
                None => "running".to_owned(),
            };
            eprintln!(
                "--- node {id} ({state}), the end of its log ---\n{}",
                node.process.log_tail(TAIL_BYTES)
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if panics::in_thread(self.test) {
            self.show_logs();
            if std::env::var_os(KEEP).is_some() {
                self.folder.disable_cleanup(true);
                eprintln!("--- data and logs are kept in {} ---", self.folder.path().display());
            }
        }
    }
}
