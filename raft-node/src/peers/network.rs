//! openraft's network, on top of the pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::poll_fn;
use futures::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use tokio::time::Instant;

use super::append_stream::{APPEND_STALL, AppendLink, Broken, Exchange};
use super::connection::CallError;
use super::followed::Sent;
use super::frame::{
    Append, AppendOutcome, PROTOCOL_FAILOVER, Purpose, Reply, Request, StreamOutcome, VoteAsk, transfer_from_raft,
};
use super::pool::Pool;
use super::snapshot::{self, SendError};
use crate::snapshots::{Snapshot, SnapshotFiles};
use crate::types::{AppendRequest, Member, TypeConfig, Vote, to_raft_vote, to_stored_vote};

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
            link: None,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &Member) -> PeerClient {
        PeerClient {
            pool: self.pool.clone(),
            target,
            heartbeats: true,
            link: None,
        }
    }
}

pub struct PeerClient {
    pool: Arc<Pool>,
    target: u64,
    /// Heartbeats come as streams of one append; they go over the control connection.
    heartbeats: bool,
    /// For streams of appends, of which there is one at a time.
    link: Option<AppendLink>,
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

    /// The connection for appends, dialled if there is none.
    async fn reach(&mut self) -> Result<&mut AppendLink, RPCError<TypeConfig>> {
        let at_hand = self.link.take_if(|link| link.is_open());
        let link = match at_hand {
            Some(link) => link,
            None => self.pool.dial_for_appends(self.target).await.map_err(unreachable)?,
        };
        Ok(self.link.insert(link))
    }

    /// What openraft is told of a stream that has broken; nothing if it has lost nothing by it.
    fn give_up(&mut self, broken: Broken) -> Option<RPCError<TypeConfig>> {
        match broken {
            Broken::Connection(reason) => {
                self.link = None;
                Some(unreachable(reason))
            }
            Broken::Idle => {
                self.link = None;
                None
            }
            // What it answers yet belongs to a stream that is over.
            Broken::Stalled => Some(
                Timeout {
                    action: RPCTypes::AppendEntries,
                    id: self.pool.book.id,
                    target: self.target,
                    timeout: APPEND_STALL,
                }
                .into(),
            ),
        }
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
        let sent = Sent {
            term: rpc.vote.leader_id.term,
            at: Instant::now(),
        };
        match self.control(request, RPCTypes::AppendEntries, within).await? {
            Reply::Append(outcome) => {
                if !matches!(outcome, AppendOutcome::HigherVote(_)) {
                    self.pool.followed.answered(self.target, sent);
                }
                Ok(outcome.into_raft())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Many appends in flight (see [`super::append_stream`]).
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
            let answers = Answers {
                client: self,
                input: Some(input),
                exchange: None,
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

/// A stream of appends under way.
struct Answers<'s, S> {
    client: &'s mut PeerClient,
    /// Until its first request has come.
    input: Option<S>,
    exchange: Option<Exchange<S>>,
}

impl<S: Stream<Item = AppendRequest> + Unpin> Answers<'_, S> {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        if self.exchange.is_none() {
            // Before the first append openraft waits out its back-off, if the peer was lost a
            // moment ago: dialling before that would make a dead peer a busy loop.
            let mut input = self.input.take()?;
            let first = input.next().await?;
            let metrics = self.client.pool.metrics.in_flight_to(self.client.target);
            let link = match self.client.reach().await {
                Ok(link) => link,
                Err(error) => return Some(Err(error)),
            };
            match Exchange::begin(link, first, input, metrics) {
                Ok(exchange) => self.exchange = Some(exchange),
                Err(broken) => return self.client.give_up(broken).map(Err),
            }
        }
        let (link, exchange) = (self.client.link.as_mut()?, self.exchange.as_mut()?);
        match poll_fn(|cx| exchange.poll_next(link, cx)).await? {
            Ok((outcome, sent)) => {
                if matches!(outcome, StreamOutcome::Matching(_) | StreamOutcome::Conflict(_)) {
                    self.client.pool.followed.answered(self.client.target, sent);
                }
                Some(outcome.into_raft().map_err(unreachable))
            }
            Err(broken) => self.client.give_up(broken).map(Err),
        }
    }
}
