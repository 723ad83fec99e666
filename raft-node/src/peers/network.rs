//! openraft's network, on top of the pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{CallError, DialError};
use super::frame::{Append, PROTOCOL_FAILOVER, Purpose, Reply, Request, VoteAsk, transfer_from_raft};
use super::pool::Pool;
use super::snapshot::{self, SendError};
use crate::snapshots::{Snapshot, SnapshotFiles};
use crate::types::{AppendRequest, Member, TypeConfig, Vote, to_raft_vote, to_stored_vote};

/// Appends sent to one peer and not answered. With 2 MiB at most in each, a peer that stops reading
/// makes us hold 64 MiB; at 1 ms a round trip it is far more than the link can use.
pub const IN_FLIGHT_APPENDS_MAX: usize = 32;

/// A peer that has appends in flight and answers none for this long has stopped: the stream ends,
/// and openraft starts it anew. Well above an fsync on a busy disk.
const APPEND_STALL: Duration = Duration::from_secs(3);

/// How long a stream waits for its connection. The dial itself goes on in the pool.
const APPEND_DIAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Network {
    pool: Arc<Pool>,
}

impl Network {
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, _node: &Member) -> PeerClient {
        PeerClient {
            pool: self.pool.clone(),
            target,
            heartbeats: false,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &Member) -> PeerClient {
        PeerClient {
            pool: self.pool.clone(),
            target,
            heartbeats: true,
        }
    }
}

pub struct PeerClient {
    pool: Arc<Pool>,
    target: u64,
    /// Heartbeats come as streams of one append; they go over the control connection.
    heartbeats: bool,
}

impl PeerClient {
    /// Calls on the control connection, which data cannot block.
    async fn control(
        &self,
        request: Request,
        action: RPCTypes,
        within: Duration,
    ) -> Result<Reply, RPCError<TypeConfig>> {
        let reply = self.pool.call(self.target, Purpose::Control, request, within).await;
        match reply {
            Ok(Reply::Stopped(reason)) => Err(unreachable(reason)),
            Ok(reply) => Ok(reply),
            Err(CallError::Timeout(_)) => Err(Timeout {
                action,
                id: self.pool.book.id,
                target: self.target,
                timeout: within,
            }
            .into()),
            // A peer that cannot be reached makes openraft back off.
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Whether the peer knows what a failover is. It is asked by a handshake, which the vote needs anyway.
    async fn knows_failover(&self, within: Duration) -> Result<bool, RPCError<TypeConfig>> {
        let connection = self.pool.connection(self.target, Purpose::Control, within).await;
        Ok(connection.map_err(unreachable)?.greeted.protocol >= PROTOCOL_FAILOVER)
    }

    async fn ask_vote(
        &self,
        request: Request,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.control(request, RPCTypes::Vote, option.hard_ttl()).await? {
            Reply::Vote(answer) => Ok(answer.into_raft()),
            other => Err(unexpected(&other)),
        }
    }
}

fn unreachable(error: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error.to_string()))
}

fn unexpected(reply: &Reply) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(format!("unexpected reply {reply:?}")))
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotFiles;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::Append {
            append: Append::from_raft(&rpc),
            confirmed: self.pool.leads_with_majority(),
        };
        // Ends before openraft drops it, so that a silent connection is noticed (see `Pool::call`).
        let within = option.hard_ttl() * 9 / 10;
        match self.control(request, RPCTypes::AppendEntries, within).await? {
            Reply::Append(outcome) => Ok(outcome.into_raft()),
            other => Err(unexpected(&other)),
        }
    }

    /// Many appends in flight: a task takes them from openraft and sends them, while the returned
    /// stream hands back the answers in order.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        if self.heartbeats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let (pool, target) = (self.pool.clone(), self.target);
            let window = Arc::new(Semaphore::new(IN_FLIGHT_APPENDS_MAX));
            // One `()` for each append sent; it ends when openraft has no more. Bounded by the window.
            let (sent_tx, sent_rx) = mpsc::channel(IN_FLIGHT_APPENDS_MAX);
            let (started_tx, started) = oneshot::channel();

            let (send_pool, send_window) = (pool.clone(), window.clone());
            let sender = AbortOnDropHandle::new(tokio::spawn(async move {
                let mut input = input;
                // Before the first append openraft waits out its back-off, if the peer was lost a
                // moment ago: dialling before that would make a dead peer a busy loop.
                let mut next = input.next().await;
                if next.is_none() {
                    return;
                }
                let connection = match send_pool.connection(target, Purpose::Append, APPEND_DIAL).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        let _ = started_tx.send(Err(error));
                        return;
                    }
                };
                let (session, replies) = connection.open_session();
                let _ = started_tx.send(Ok(replies));
                while let Some(append) = next {
                    let Ok(permit) = send_window.acquire().await else { break };
                    permit.forget();
                    let in_flight = IN_FLIGHT_APPENDS_MAX - send_window.available_permits();
                    send_pool.metrics.appends_in_flight(target, in_flight);
                    let request = Request::StreamAppend {
                        session,
                        append: Append::from_raft(&append),
                    };
                    // A failure shows as the end of the replies.
                    if sent_tx.send(()).await.is_err() || connection.send_in_session(request).await.is_err() {
                        break;
                    }
                    next = input.next().await;
                }
            }));

            let answers = Answers {
                pool,
                target,
                window,
                sent_rx,
                started: Some(started),
                replies: None,
                _sender: sender,
            };
            let answers: BoxStream<'s, _> = Box::pin(stream::unfold(Some(answers), |answers| async move {
                let mut answers = answers?;
                let result = answers.next().await?;
                let goes_on = matches!(result, Ok(Ok(_)));
                Some((result, goes_on.then_some(answers)))
            }));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        // openraft marks it as if the leader had handed over; but the leader never gave its leave.
        let failover = rpc.leadership_transfer && self.pool.is_failover(rpc.vote.leader_id.term);
        let request = match failover {
            false => Request::Vote(VoteAsk::from_raft(&rpc)),
            true if self.knows_failover(option.hard_ttl()).await? => {
                Request::FailoverVote(VoteAsk::without_leave(&rpc))
            }
            true => Request::Vote(VoteAsk::without_leave(&rpc)),
        };
        self.ask_vote(request, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Request::PreVote(VoteAsk::from_raft(&rpc)), option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = snapshot::send(&self.pool, self.target, to_stored_vote(vote), snapshot);
        let sent = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = sent => sent,
        };
        match sent {
            Ok(vote) => Ok(SnapshotResponse::new(to_raft_vote(vote))),
            Err(SendError::Unreachable(reason)) => Err(StreamingError::Unreachable(Unreachable::from_string(reason))),
            // openraft waits before the next try only for what is unreachable; a receiver that fails at
            // once (a full disk) must not be sent gigabytes in a loop.
            Err(SendError::Failed(reason)) => {
                tracing::warn!(peer = self.target, %reason, "a snapshot was not taken");
                Err(StreamingError::Unreachable(Unreachable::from_string(reason)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self
            .control(transfer_from_raft(&req), RPCTypes::TransferLeader, option.hard_ttl())
            .await?
        {
            Reply::TransferLeader(Ok(())) => Ok(Ok(())),
            Reply::TransferLeader(Err(reason)) => Err(RPCError::Network(NetworkError::from_string(reason))),
            other => Err(unexpected(&other)),
        }
    }
}

/// The answering half of a stream of appends.
struct Answers {
    pool: Arc<Pool>,
    target: u64,
    window: Arc<Semaphore>,
    sent_rx: mpsc::Receiver<()>,
    /// Until the sending half has reached the peer.
    started: Option<oneshot::Receiver<Result<mpsc::UnboundedReceiver<Reply>, DialError>>>,
    replies: Option<mpsc::UnboundedReceiver<Reply>>,
    /// The sending half ends with this one.
    _sender: AbortOnDropHandle<()>,
}

impl Answers {
    /// The answer to the next append that was sent; none when there are no more appends.
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        if let Some(started) = self.started.take() {
            match started.await.ok()? {
                Ok(replies) => self.replies = Some(replies),
                Err(error) => return Some(Err(unreachable(error))),
            }
        }
        self.sent_rx.recv().await?;
        Some(self.reply().await)
    }

    async fn reply(&mut self) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let replies = self.replies.as_mut().expect("set before the first append is sent");
        let reply = match tokio::time::timeout(APPEND_STALL, replies.recv()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(unreachable("the connection ended")),
            Err(_) => {
                return Err(Timeout {
                    action: RPCTypes::AppendEntries,
                    id: self.pool.book.id,
                    target: self.target,
                    timeout: APPEND_STALL,
                }
                .into());
            }
        };
        self.window.add_permits(1);
        match reply {
            Reply::StreamAppend { outcome, .. } => outcome.into_raft().map_err(unreachable),
            other => Err(unexpected(&other)),
        }
    }
}
