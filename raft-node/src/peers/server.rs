//! The accepting side: checks who dialled, then serves frames.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use openraft::raft::TransferLeaderRequest;
use quorate_storage::state::StateStore;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::append_server::AppendServer;
use super::book::{PeerBook, Stranger};
use super::frame::{AppendOutcome, Blob, Frame, Purpose, Reply, Request, VoteAnswer, decode_frame, encode_frame};
use super::handshake::{HandshakeError, Hello, Wiped, Wire, welcome};
use super::snapshot::Receiver;
use super::transport::{BoxLink, BoxListener};
use crate::failover::Cause;
use crate::node::NodeCore;
use crate::types::{TypeConfig, to_raft_log_id, to_raft_vote};

/// Peer connections at once: five purposes for each of some ten nodes, one of each that watches whether the leader
/// lives, with room for those that are being replaced. Beyond it new ones are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// Requests of one connection in progress. Beyond it the connection is not read on: the peer waits.
const REQUESTS_MAX: usize = 4096;
/// Replies waiting for the socket. Beyond it the handlers wait.
const REPLY_QUEUE_FRAMES: usize = 256;
/// The longest that a change of the cluster is waited for, as in the contract of the API.
const ADMIN_MS_MAX: u64 = 60_000;

/// Accepts until the token is cancelled. `wiped` is called when a peer knows this node with another
/// store than the one in its data directory.
pub async fn serve<S: StateStore>(
    mut listener: BoxListener,
    core: Arc<NodeCore<S>>,
    shutdown: CancellationToken,
    wiped: impl Fn(Wiped) + Send + Sync + Clone + 'static,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let link = match accepted {
            Ok(link) => link,
            Err(error) => {
                // Out of descriptors, most likely: the connections at hand go on, new ones wait.
                tracing::warn!(%error, "failed to accept a peer");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(max = CONNECTIONS_MAX, "too many peer connections: one was closed");
            continue;
        };
        let (core, shutdown, wiped) = (core.clone(), shutdown.clone(), wiped.clone());
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = serve_connection(link, core, wiped) => {}
            }
        });
    }
}

async fn serve_connection<S: StateStore>(link: BoxLink, core: Arc<NodeCore<S>>, wiped: impl Fn(Wiped)) {
    let (wire, hello) = match welcome(link, &core.book, core.is_empty(), core.run.0).await {
        Ok(accepted) => accepted,
        Err((error, told)) => {
            match error {
                HandshakeError::Refused { reason, .. } => tracing::warn!(%reason, "refused a peer"),
                error => tracing::debug!(%error, "a peer's handshake failed"),
            }
            if let Some(told) = told {
                wiped(told);
            }
            return;
        }
    };
    tracing::debug!(peer = hello.from, purpose = ?hello.purpose, "a peer connected");
    let unwelcome = no_longer_welcome(&core.book, &hello);
    // What was received and is not in the log yet keeps the peer linked.
    let _linked = core.failover.inbound.enter(hello.from);
    let peer = hello.from;
    match hello.purpose {
        Purpose::Append => {
            let mut appends = AppendServer::new(wire, core.clone());
            while_welcome(peer, appends.run(), unwelcome).await;
            appends.finish().await;
        }
        Purpose::Snapshot => while_welcome(peer, serve_snapshots(wire, core.clone()), unwelcome).await,
        Purpose::Control | Purpose::Forward | Purpose::Bootstrap => {
            while_welcome(peer, serve_requests(wire, core.clone()), unwelcome).await;
        }
    }
}

async fn while_welcome(peer: u64, served: impl Future<Output = ()>, unwelcome: impl Future<Output = Stranger>) {
    tokio::select! {
        () = served => {}
        reason = unwelcome => tracing::info!(peer, %reason, "a peer's connection was ended"),
    }
}

/// Ends when the one at the other end may not be a peer any more: a membership that was not known when
/// it was let in, or one that it has left.
async fn no_longer_welcome(book: &PeerBook, hello: &Hello) -> Stranger {
    let mut news = book.news();
    loop {
        news.borrow_and_update();
        if let Err(stranger) = book.check(hello.from, hello.from_store, hello.cluster_id.as_deref()) {
            return stranger;
        }
        if news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes frames for the socket from a bounded queue. Ends with the connection.
fn spawn_writer(mut sink: futures::stream::SplitSink<Wire, Bytes>) -> mpsc::Sender<Bytes> {
    let (tx, mut rx) = mpsc::channel::<Bytes>(REPLY_QUEUE_FRAMES);
    tokio::spawn(async move {
        while let Some(frame) = rx.recv().await {
            let sent = async {
                sink.feed(frame).await?;
                while let Ok(frame) = rx.try_recv() {
                    sink.feed(frame).await?;
                }
                sink.flush().await
            };
            if let Err(error) = sent.await {
                tracing::debug!(%error, "writing to a peer failed");
                return;
            }
        }
    });
    tx
}

/// None at the end of the connection, or of what can be read from it.
pub(super) async fn next_request(
    stream: &mut (impl Stream<Item = io::Result<BytesMut>> + Unpin),
) -> Option<Frame<Request>> {
    match stream.next().await?.and_then(|bytes| decode_frame(&bytes)) {
        Ok(frame) => Some(frame),
        Err(error) => {
            if error.kind() == std::io::ErrorKind::InvalidData {
                tracing::warn!(%error, "a peer sent what cannot be read; its connection ends");
            } else {
                tracing::debug!(%error, "a peer's connection ended");
            }
            None
        }
    }
}

/// Requests side by side, each answered when it is done.
async fn serve_requests<S: StateStore>(wire: Wire, core: Arc<NodeCore<S>>) {
    let (sink, mut stream) = wire.split();
    let replies = spawn_writer(sink);
    let in_progress = Arc::new(Semaphore::new(REQUESTS_MAX));
    while let Some(frame) = next_request(&mut stream).await {
        let Ok(permit) = in_progress.clone().acquire_owned().await else {
            return;
        };
        let (core, replies) = (core.clone(), replies.clone());
        tokio::spawn(async move {
            let body = answer(&core, frame.body).await;
            // A peer that has gone needs no reply.
            let _ = replies.send(encode_frame(&Frame { id: frame.id, body })).await;
            drop(permit);
        });
    }
}

async fn answer<S: StateStore>(core: &NodeCore<S>, request: Request) -> Reply {
    match request {
        Request::Append { append, confirmed } => match append.into_raft() {
            Ok(append) => {
                if confirmed {
                    core.heard_from_leader(&append.vote);
                }
                match core.raft.append_entries(append).await {
                    Ok(response) => Reply::Append(AppendOutcome::from_raft(response)),
                    Err(error) => Reply::Stopped(error.to_string()),
                }
            }
            Err(error) => Reply::Stopped(error.to_string()),
        },
        Request::PreVote(ask) => match core.raft.pre_vote(ask.into_raft()).await {
            Ok(response) => Reply::Vote(VoteAnswer::from_raft(response)),
            Err(error) => Reply::Stopped(error.to_string()),
        },
        Request::Vote(ask) => match core.raft.vote(ask.into_raft()).await {
            Ok(response) => Reply::Vote(VoteAnswer::from_raft(response)),
            Err(error) => Reply::Stopped(error.to_string()),
        },
        Request::FailoverVote(ask) => {
            let vote = match core.has_lost_leader().await {
                true => ask.into_raft_past_lease(),
                // Then it is an election like any other: the lease decides.
                false => ask.into_raft(),
            };
            match core.raft.vote(vote).await {
                Ok(response) => Reply::Vote(VoteAnswer::from_raft(response)),
                Err(error) => Reply::Stopped(error.to_string()),
            }
        }
        Request::LostLeader { leader, timeout_ms } => {
            Reply::LostLeader(core.answer_lost_leader(leader, Duration::from_millis(timeout_ms)).await)
        }
        Request::TransferLeader { from, to, last_log_id } => {
            if to == core.book.id {
                core.failover.begin(Cause::Transfer, from.term + 1);
            }
            let request =
                TransferLeaderRequest::<TypeConfig>::new(to_raft_vote(from), to, last_log_id.map(to_raft_log_id));
            match core.raft.handle_transfer_leader(request).await {
                Ok(response) => Reply::TransferLeader(response.map_err(|error| error.to_string())),
                Err(error) => Reply::Stopped(error.to_string()),
            }
        }
        Request::ReadIndex => Reply::ReadIndex(core.local_read_index().await),
        Request::Forward { command, timeout_ms } => {
            let outcome = core.propose_forwarded(command.0, timeout_ms).await;
            Reply::Forward(outcome.map(|mut outcome| {
                // The asking node has its own watchers and its own apply.
                outcome.events.clear();
                Blob(outcome.encode().into())
            }))
        }
        Request::Status => Reply::Status(core.status_answer()),
        Request::Admin { request, timeout_ms } => {
            let deadline = Instant::now() + Duration::from_millis(timeout_ms.min(ADMIN_MS_MAX));
            Reply::Admin(core.admin_here(request, deadline).await)
        }
        Request::StateHash { index, timeout_ms } => {
            let until = Instant::now() + Duration::from_millis(timeout_ms.min(ADMIN_MS_MAX));
            let hash = core.hash_here(index, until).await;
            Reply::StateHash(hash.map(|hash| (hash.revision, hash.hash)))
        }
        Request::StreamAppend { .. }
        | Request::SnapshotBegin { .. }
        | Request::SnapshotChunk(_)
        | Request::SnapshotEnd => Reply::Stopped("this has a connection of its own".to_owned()),
    }
}

/// Snapshots, one piece after the other.
async fn serve_snapshots<S: StateStore>(wire: Wire, core: Arc<NodeCore<S>>) {
    let (sink, mut stream) = wire.split();
    let replies = spawn_writer(sink);
    let mut receiver = Receiver::new(core.incoming_dir.clone(), core.pool.transfers.clone());
    while let Some(frame) = next_request(&mut stream).await {
        let body = match frame.body {
            Request::SnapshotBegin {
                vote,
                last_log_id,
                membership,
                manifest,
            } if core.disk.has_room_for(manifest.total_bytes()) => {
                Reply::SnapshotTaken(receiver.begin(vote, last_log_id, &membership.0, manifest).await)
            }
            Request::SnapshotBegin { manifest, .. } => Reply::SnapshotTaken(Err(format!(
                "there is no room on the disk for {} bytes",
                manifest.total_bytes()
            ))),
            Request::SnapshotChunk(chunk) => Reply::SnapshotTaken(receiver.chunk(chunk).await),
            Request::SnapshotEnd => Reply::SnapshotInstalled(receiver.end(&core.raft).await),
            _ => {
                tracing::warn!("a peer sent something else than snapshots on their connection; it ends");
                return;
            }
        };
        if let Reply::SnapshotTaken(Err(reason)) | Reply::SnapshotInstalled(Err(reason)) = &body {
            tracing::warn!(%reason, "a snapshot was not taken");
        }
        if replies.send(encode_frame(&Frame { id: frame.id, body })).await.is_err() {
            return;
        }
    }
}
