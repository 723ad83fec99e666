//! What clients do to a cluster while it is broken: each workload writes the operations of its clients
//! into the history and names the checkers that judge them.

mod append;
mod asking;
mod batches;
pub mod locks;
pub mod register;
mod rooms;
mod sends;
pub mod sessions;
mod shared_rooms;
pub mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use async_trait::async_trait;
use futures::future::BoxFuture;

use self::shared_rooms::SharedRooms;
use crate::checker::Checker;
use crate::cluster::Cluster;
use crate::history::History;

/// Clients of each workload, unless the run says otherwise: with all workloads at once they keep two cores busy.
pub const CLIENTS: u64 = 6;

/// What clients have to work with.
#[derive(Debug)]
pub struct Stage {
    pub cluster: Arc<Cluster>,
    pub history: Arc<History>,
    /// Of the run; a client mixes its own number in.
    pub seed: u64,
    /// How many clients each workload is to have.
    pub clients: u64,
    stopping: AtomicBool,
}

impl Stage {
    /// With [`CLIENTS`] clients a workload.
    pub fn new(cluster: Arc<Cluster>, history: Arc<History>, seed: u64) -> Arc<Self> {
        Self::with_clients(cluster, history, seed, CLIENTS)
    }

    pub fn with_clients(cluster: Arc<Cluster>, history: Arc<History>, seed: u64, clients: u64) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            history,
            seed,
            clients,
            stopping: AtomicBool::new(false),
        })
    }

    /// Whether clients are to end after what they have begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
pub trait Workload: Send + Sync {
    /// As it is named on the command line, for example `register`.
    fn name(&self) -> &'static str;

    /// One line: what its clients do.
    fn about(&self) -> &'static str;

    /// Makes the rooms, users and locks that its clients use, on a cluster that is well.
    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()>;

    /// Its clients. Each works until the stage is stopping, whatever the cluster does meanwhile; an error
    /// is a defect of the workload or an answer that breaks the contract, and fails the run.
    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>>;

    /// After the faults, when all nodes are well again: writes down what each node shows in the end.
    async fn drain(&self, stage: &Arc<Stage>) -> Result<()>;

    fn checkers(&self) -> Vec<Box<dyn Checker>>;
}

/// Workloads that a cluster cannot withstand, and which fail a run: with them the faults and the checkers are seen to
/// bite. They run only where they are named.
pub fn controls() -> Vec<Box<dyn Workload>> {
    vec![Box::new(locks::UnfencedLocks)]
}

/// All workloads that a cluster must withstand.
pub fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(SharedRooms::new(append::Append)),
        Box::new(SharedRooms::new(sends::Sends)),
        Box::new(SharedRooms::new(batches::Batches)),
        Box::new(register::Registers),
        Box::new(locks::Locks),
        Box::new(streams::Streams),
        Box::new(sessions::Sessions),
    ]
}
