//! Whole states on their way to another node: the checkpoint's files, in chunks that are checked on
//! arrival, one at a time, over a connection of their own.
//!
//! Nothing is resumed: when either end dies or the connection breaks, the receiver drops what it has and
//! the sender begins anew, with the newest snapshot there is by then. Until the last chunk has come and
//! everything is on disk, the receiver's state and log are what they were.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::StoredMembership;
use quorate_storage::log::{LogId, Vote};
use quorate_storage::state::StateStore;
use quorate_storage::transfer::{Chunk, Manifest, SnapshotReader, SnapshotWriter};

use super::connection::CallError;
use super::frame::{Blob, Purpose, Reply, Request};
use super::pool::Pool;
use crate::membership::MembershipRecord;
use crate::node::Raft;
use crate::snapshots::{Snapshot, SnapshotMeta};
use crate::tasks::run_blocking;
use crate::types::{to_raft_log_id, to_raft_vote, to_stored_log_id, to_stored_vote};

/// For one chunk to be written on the other side, or for the files to be made ready here.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// For the files to be synced, opened and put in the place of the state.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// What a node has sent and received, for its metrics, and so that the log which a receiver will need
/// next is not purged meanwhile.
#[derive(Debug, Default)]
pub struct Transfers {
    sending: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
}

impl Transfers {
    pub fn sending(&self) -> u64 {
        self.sending.load(Ordering::Relaxed)
    }
}

struct Sending<'a>(&'a Transfers);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a snapshot did not arrive.
pub enum SendError {
    /// The peer could not be reached, or went away.
    Unreachable(String),
    /// It refused a chunk or could not install it: worth another try from the beginning.
    Failed(String),
}

impl From<CallError> for SendError {
    fn from(error: CallError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Sends a snapshot and waits until it is installed. Returns the receiver's vote.
pub async fn send(pool: &Arc<Pool>, to: u64, vote: Vote, snapshot: Snapshot) -> Result<Vote, SendError> {
    let transfers = &pool.transfers;
    transfers.sending.fetch_add(1, Ordering::Relaxed);
    let _sending = Sending(transfers);
    let Snapshot { meta, snapshot: files } = snapshot;
    let mut reader = reading(move || SnapshotReader::open(files)).await?;
    let record = MembershipRecord {
        stored: meta.last_membership,
        ..MembershipRecord::default()
    };
    let begin = Request::SnapshotBegin {
        vote,
        last_log_id: meta.last_log_id.map(to_stored_log_id),
        membership: Blob(record.encode().into()),
        manifest: reader.manifest().clone(),
    };
    let bytes = reader.manifest().total_bytes();
    tracing::info!(peer = to, bytes, last_log_id = ?meta.last_log_id, "sending a snapshot");
    taken(pool, to, begin).await?;
    loop {
        let (back, chunk) = reading(move || {
            let chunk = reader.next_chunk()?;
            Ok((reader, chunk))
        })
        .await?;
        reader = back;
        let Some(chunk) = chunk else { break };
        let sent = chunk.bytes.len() as u64;
        taken(pool, to, Request::SnapshotChunk(chunk)).await?;
        transfers.sent_bytes.fetch_add(sent, Ordering::Relaxed);
    }
    match pool
        .call(to, Purpose::Snapshot, Request::SnapshotEnd, INSTALL_TIMEOUT)
        .await?
    {
        Reply::SnapshotInstalled(Ok(vote)) => {
            tracing::info!(peer = to, bytes, "a snapshot was installed");
            Ok(vote)
        }
        Reply::SnapshotInstalled(Err(reason)) | Reply::Stopped(reason) => Err(SendError::Failed(reason)),
        other => Err(SendError::Failed(format!("unexpected reply {other:?}"))),
    }
}

async fn taken(pool: &Arc<Pool>, to: u64, request: Request) -> Result<(), SendError> {
    match pool.call(to, Purpose::Snapshot, request, CHUNK_TIMEOUT).await? {
        Reply::SnapshotTaken(Ok(())) => Ok(()),
        Reply::SnapshotTaken(Err(reason)) | Reply::Stopped(reason) => Err(SendError::Failed(reason)),
        other => Err(SendError::Failed(format!("unexpected reply {other:?}"))),
    }
}

async fn reading<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, SendError> {
    let done = run_blocking(work).await;
    done.map_err(|error| SendError::Failed(format!("failed to read the snapshot: {error}")))
}

/// The receiving side of one connection: at most one snapshot is on its way on it.
pub struct Receiver {
    dir: PathBuf,
    transfers: Arc<Transfers>,
    incoming: Option<Incoming>,
}

struct Incoming {
    vote: Vote,
    meta: SnapshotMeta,
    writer: SnapshotWriter,
}

impl Receiver {
    /// `dir` is on the state's file system; it is made when the first snapshot comes.
    pub fn new(dir: PathBuf, transfers: Arc<Transfers>) -> Self {
        Self {
            dir,
            transfers,
            incoming: None,
        }
    }

    pub async fn begin(
        &mut self,
        vote: Vote,
        last_log_id: Option<LogId>,
        membership: &[u8],
        manifest: Manifest,
    ) -> Result<(), String> {
        // Dropping an unfinished one removes its files.
        drop(self.incoming.take());
        let last_membership: StoredMembership<_, _, _> = MembershipRecord::decode(membership)
            .map_err(|error| error.to_string())?
            .stored;
        let meta = SnapshotMeta {
            last_log_id: last_log_id.map(to_raft_log_id),
            last_membership,
        };
        tracing::info!(bytes = manifest.total_bytes(), ?last_log_id, "receiving a snapshot");
        let dir = self.dir.clone();
        let writer = storing(move || {
            std::fs::create_dir_all(&dir)?;
            let unique = uuid::Uuid::new_v4();
            SnapshotWriter::begin(&dir.join(format!("incoming-{unique}")), manifest)
        })
        .await?;
        self.incoming = Some(Incoming { vote, meta, writer });
        Ok(())
    }

    pub async fn chunk(&mut self, chunk: Chunk) -> Result<(), String> {
        let Some(Incoming { vote, meta, mut writer }) = self.incoming.take() else {
            return Err("no snapshot was begun on this connection".to_owned());
        };
        let bytes = chunk.bytes.len() as u64;
        let writer = storing(move || {
            writer.write(&chunk)?;
            Ok(writer)
        })
        .await?;
        self.transfers.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.incoming = Some(Incoming { vote, meta, writer });
        Ok(())
    }

    pub async fn end<S: StateStore>(&mut self, raft: &Raft<S>) -> Result<Vote, String> {
        let Some(Incoming { vote, meta, writer }) = self.incoming.take() else {
            return Err("no snapshot was begun on this connection".to_owned());
        };
        let files = storing(move || writer.finish()).await?;
        let snapshot = Snapshot {
            meta,
            snapshot: Arc::new(files),
        };
        let response = raft
            .install_full_snapshot(to_raft_vote(vote), snapshot)
            .await
            .map_err(|error| error.to_string())?;
        Ok(to_stored_vote(response.vote))
    }
}

async fn storing<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    let done = run_blocking(work).await;
    done.map_err(|error| format!("failed to store the snapshot: {error}"))
}
