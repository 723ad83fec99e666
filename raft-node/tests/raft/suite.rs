//! openraft's storage suite, over RocksDB and over the twins in memory.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use prometheus::Registry;
use quorate_state_machine::VERSION_MAX;
use quorate_storage::FatalHook;
use quorate_storage::log::{LogOptions, MemoryLog, RocksLog};
use quorate_storage::state::{MemoryState, RocksState, StateOptions, StateStore};
use raft_node::log_store::RaftLog;
use raft_node::metrics::Metrics;
use raft_node::snapshots::Snapshots;
use raft_node::state_machine::Machine;
use raft_node::types::TypeConfig;
use raft_node::versions::Supported;
use raft_node::watchers::Watchers;
use tempfile::TempDir;

fn machine<S: StateStore>(dir: &Path, state: S) -> Machine<S> {
    let metrics = Metrics::new(&Registry::new()).unwrap();
    // The suite applies entries that it never appended, so the log is said to be on disk as far as
    // anybody could ask.
    let far = quorate_storage::log::LogId {
        term: u64::MAX,
        leader: u64::MAX,
        index: u64::MAX,
    };
    let (_, flushed) = tokio::sync::watch::channel(Some(far));
    let snapshots = Snapshots::open(state.clone(), &dir.join("tmp/snapshot")).unwrap();
    let watchers = Arc::new(Watchers::default());
    let versions = Supported::up_to(VERSION_MAX);
    Machine::open(
        state,
        snapshots,
        flushed,
        watchers,
        metrics.apply,
        versions,
        panic_on_fatal(),
    )
    .unwrap()
}

fn panic_on_fatal() -> FatalHook {
    Arc::new(|reason| panic!("{reason}"))
}

struct OnRocks;

impl StoreBuilder<TypeConfig, RaftLog<RocksLog>, Machine<RocksState>, TempDir> for OnRocks {
    async fn build(&self) -> Result<(TempDir, RaftLog<RocksLog>, Machine<RocksState>), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = RocksLog::open(&dir.path().join("log"), LogOptions::default(), panic_on_fatal()).unwrap();
        let state = RocksState::open(&dir.path().join("state"), StateOptions::default(), panic_on_fatal()).unwrap();
        let machine = machine(dir.path(), state);
        Ok((dir, RaftLog::new(log, Arc::new(|_| Ok(()))), machine))
    }
}

struct InMemory;

impl StoreBuilder<TypeConfig, RaftLog<MemoryLog>, Machine<MemoryState>, TempDir> for InMemory {
    async fn build(&self) -> Result<(TempDir, RaftLog<MemoryLog>, Machine<MemoryState>), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = MemoryLog::new();
        let machine = machine(dir.path(), MemoryState::new());
        Ok((dir, RaftLog::new(log, Arc::new(|_| Ok(()))), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rocksdb_passes_openrafts_suite() {
    Suite::<TypeConfig, _, _, OnRocks, _>::test_all(OnRocks).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_twins_pass_openrafts_suite() {
    Suite::<TypeConfig, _, _, InMemory, _>::test_all(InMemory)
        .await
        .unwrap();
}
