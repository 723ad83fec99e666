//! A node of one in memory: the real rules over the memory view, without a log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_api::replica::{
    AdminError, Change, ChangeKind, ChangeStep, ClusterNode, ClusterStatus, NewNode, NodeStatus, RaftState,
    ReadOptions, Replica, ReplicaError, Verification, WriteOptions, Written,
};
use quorate_state_machine::query::{Answered, PageSink, QueryBody};
use quorate_state_machine::{
    Answer, Caller, Command, Conditions, EntryMeta, Envelope, Epoch, Home, Lock, Memory, MemoryView, Outcome, Overlay,
    Position, Query, Revision, RunId, SpaceId, Topic, VERSION_MAX, apply, query, query_into,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) struct MemoryReplica {
    state: Mutex<Memory>,
    topics: Mutex<BTreeMap<Topic, watch::Sender<u64>>>,
    /// The replicated clock: stands still until a test moves it.
    elapsed_ms: AtomicU64,
    status: Mutex<NodeStatus>,
    /// Each request takes one of them instead of an answer.
    faults: Mutex<VecDeque<ReplicaError>>,
    /// The same, for writes alone.
    write_faults: Mutex<VecDeque<ReplicaError>>,
    /// Requests wait while it is true.
    held: watch::Sender<bool>,
    /// Answers of reads, taken from the state already, wait while it is true.
    answers_held: watch::Sender<bool>,
    /// Outcomes of writes, applied already, wait while it is true.
    outcomes_held: watch::Sender<bool>,
    /// How many answers wait.
    pub(crate) answers_waiting: AtomicUsize,
    /// The options of every write and read, as the replica got them.
    pub(crate) writes: Mutex<Vec<(Envelope, WriteOptions)>>,
    pub(crate) reads: Mutex<Vec<ReadOptions>>,
    pub(crate) admin: Mutex<Admin>,
    pub(crate) shutting_down: CancellationToken,
}

/// The administrator's side: nothing happens, but what is asked is kept, and answers are scripted.
#[derive(Default)]
pub(crate) struct Admin {
    /// With the deadline, where the question has one.
    pub(crate) asked: Vec<(Asked, Option<Instant>)>,
    /// Each question takes one of them instead of an answer.
    pub(crate) faults: VecDeque<AdminError>,
    /// The next verification.
    pub(crate) verification: Option<Verification>,
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Add(NewNode),
    Remove(u64),
    Transfer(Option<u64>),
    Snapshot,
    Verify,
}

impl MemoryReplica {
    pub(crate) fn new() -> Arc<Self> {
        let replica = Self::with(Memory::new(), 1);
        replica.apply_at_once([Command::RaiseVersion { to: VERSION_MAX }]);
        replica
    }

    /// Another one, which goes on from the state and the clock of this one.
    pub(crate) fn twin(&self) -> Arc<Self> {
        Self::with(self.state().restore(), self.elapsed_ms.load(Ordering::Relaxed))
    }

    fn with(state: Memory, elapsed_ms: u64) -> Arc<Self> {
        let status = NodeStatus {
            node: 1,
            leader: Some(1),
            term: 7,
            state: RaftState::Leader,
            // Set for each answer from the state.
            position: Position::after(Epoch::FIRST, SpaceId::MAIN, Revision(0)),
            elapsed_ms: 0,
            home: Home { node: 1, run: RunId(1) },
        };
        Arc::new(Self {
            state: Mutex::new(state),
            topics: Mutex::default(),
            elapsed_ms: AtomicU64::new(elapsed_ms),
            status: Mutex::new(status),
            faults: Mutex::default(),
            write_faults: Mutex::default(),
            held: watch::channel(false).0,
            outcomes_held: watch::channel(false).0,
            answers_held: watch::channel(false).0,
            answers_waiting: AtomicUsize::new(0),
            writes: Mutex::default(),
            reads: Mutex::default(),
            admin: Mutex::default(),
            shutting_down: CancellationToken::new(),
        })
    }

    /// All that the log has brought about so far.
    pub(crate) fn state(&self) -> MemoryView {
        self.state.lock().unwrap().snapshot()
    }

    /// Moves the replicated clock on, and sweeps what has expired.
    pub(crate) fn advance(&self, ms: u64) {
        self.elapsed_ms.fetch_add(ms, Ordering::Relaxed);
        self.apply_at_once([Command::Tick]);
    }

    pub(crate) fn fail_next(&self, error: ReplicaError) {
        self.faults.lock().unwrap().push_back(error);
    }

    pub(crate) fn fail_next_write(&self, error: ReplicaError) {
        self.write_faults.lock().unwrap().push_back(error);
    }

    /// Faults that no request has met.
    pub(crate) fn faults_left(&self) -> usize {
        let admin = self.admin.lock().unwrap().faults.len();
        self.faults.lock().unwrap().len() + self.write_faults.lock().unwrap().len() + admin
    }

    /// Moves the clock as this node reckons it, without an entry.
    pub(crate) fn set_clock_ahead(&self, ms: u64) {
        self.elapsed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// None: never used.
    fn lock(&self, lock: &str) -> Option<Lock> {
        let answered = self.ask(&Query {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            body: QueryBody::Lock { lock: lock.to_owned() },
        });
        match answered.answer {
            Ok(Answer::Lock(lock)) => Some(lock),
            _ => None,
        }
    }

    /// How many wait for the lock.
    pub(crate) fn waiters(&self, lock: &str) -> u32 {
        self.lock(lock).map_or(0, |lock| lock.waiters)
    }

    pub(crate) fn first_waiter(&self, lock: &str) -> Option<String> {
        Some(self.lock(lock)?.queue.first()?.owner.clone())
    }

    pub(crate) fn holder(&self, lock: &str) -> Option<String> {
        Some(self.lock(lock)?.holder?.owner)
    }

    pub(crate) fn set_status(&self, change: impl FnOnce(&mut NodeStatus)) {
        change(&mut self.status.lock().unwrap());
    }

    /// Makes every request wait, until called with false.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Keeps writes from returning what they have done, until called with false.
    pub(crate) fn hold_outcomes(&self, held: bool) {
        self.outcomes_held.send_replace(held);
    }

    /// Keeps reads from returning what they have read, until called with false.
    pub(crate) fn hold_answers(&self, held: bool) {
        self.answers_held.send_replace(held);
    }

    fn fault(&self) -> Result<(), ReplicaError> {
        self.faults.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    /// Notes the question, and takes its fault if there is one.
    async fn administer(&self, asked: Asked, deadline: Option<Instant>) -> Result<(), AdminError> {
        let fault = {
            let mut admin = self.admin.lock().unwrap();
            admin.asked.push((asked, deadline));
            admin.faults.pop_front()
        };
        Self::released(&self.held).await;
        fault.map_or(Ok(()), Err)
    }

    async fn released(held: &watch::Sender<bool>) {
        held.subscribe().wait_for(|held| !held).await.unwrap();
    }

    /// Applies the envelopes as one entry, and hints at what they changed.
    fn apply(&self, envelopes: Vec<Envelope>) -> Vec<Outcome> {
        let mut state = self.state.lock().unwrap();
        let mut overlay = Overlay::new(state.clone());
        let meta = EntryMeta {
            elapsed_ms: self.elapsed_ms.load(Ordering::Relaxed),
            wall_ms: 1_767_225_600_123,
        };
        let applied = envelopes
            .into_iter()
            .map(|envelope| apply(&mut overlay, meta, envelope).unwrap());
        let outcomes: Vec<Outcome> = applied.collect();
        state.write(overlay.into_changes());
        for outcome in &outcomes {
            for topic in outcome.topics() {
                if let Some(hint) = self.topics.lock().unwrap().get(&topic) {
                    hint.send_replace(outcome.revision.0);
                }
            }
        }
        outcomes
    }

    /// Commands of root, with nothing in between.
    pub(crate) fn apply_at_once(&self, commands: impl IntoIterator<Item = Command>) {
        let envelope = |command| Envelope {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            request_id: "at once".to_owned(),
            idempotency: None,
            conditions: Conditions::default(),
            command,
        };
        for outcome in self.apply(commands.into_iter().map(envelope).collect()) {
            outcome.response.unwrap();
        }
    }

    fn ask(&self, query_: &Query) -> Answered {
        query(&*self.state.lock().unwrap(), query_).unwrap()
    }

    /// What happens around every read.
    async fn answer(
        &self,
        options: ReadOptions,
        ask: impl FnOnce(&Self) -> Answered,
    ) -> Result<Answered, ReplicaError> {
        self.reads.lock().unwrap().push(options);
        self.fault()?;
        Self::released(&self.held).await;
        let answered = ask(self);
        self.answers_waiting.fetch_add(1, Ordering::Relaxed);
        Self::released(&self.answers_held).await;
        self.answers_waiting.fetch_sub(1, Ordering::Relaxed);
        match options.min_position {
            Some(position) if position.epoch != answered.epoch => Err(ReplicaError::PositionExpired),
            Some(position) if position.revision > answered.revision => {
                tokio::time::sleep_until(options.deadline.into()).await;
                Err(ReplicaError::NotReady("behind the asked position".to_owned()))
            }
            _ => Ok(answered),
        }
    }
}

impl Replica for MemoryReplica {
    fn write(&self, envelope: Envelope, options: WriteOptions) -> BoxFuture<'_, Result<Written, ReplicaError>> {
        async move {
            self.writes.lock().unwrap().push((envelope.clone(), options));
            self.fault()?;
            Self::released(&self.held).await;
            assert!(!envelope.request_id.ends_with("panic"), "a defect, on purpose");
            let write_fault = self.write_faults.lock().unwrap().pop_front();
            write_fault.map_or(Ok(()), Err)?;
            let outcome = self.apply(vec![envelope]).pop().unwrap();
            Self::released(&self.outcomes_held).await;
            let position = Position::after(outcome.epoch, SpaceId::MAIN, outcome.revision);
            Ok(Written { outcome, position })
        }
        .boxed()
    }

    fn read(&self, query: Query, options: ReadOptions) -> BoxFuture<'_, Result<Answered, ReplicaError>> {
        self.answer(options, move |replica| replica.ask(&query)).boxed()
    }

    fn read_page<'a>(
        &'a self,
        query: Query,
        options: ReadOptions,
        sink: &'a mut (dyn PageSink + Send),
    ) -> BoxFuture<'a, Result<Answered, ReplicaError>> {
        self.answer(options, move |replica| {
            query_into(&*replica.state.lock().unwrap(), &query, sink).unwrap()
        })
        .boxed()
    }

    fn watch(&self, topic: Topic) -> watch::Receiver<u64> {
        self.topics
            .lock()
            .unwrap()
            .entry(topic)
            .or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    fn status(&self) -> NodeStatus {
        let answered = self.ask(&Query {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            body: QueryBody::Position,
        });
        NodeStatus {
            position: Position::after(answered.epoch, SpaceId::MAIN, answered.revision),
            elapsed_ms: self.elapsed_ms.load(Ordering::Relaxed),
            ..self.status.lock().unwrap().clone()
        }
    }

    fn readiness(&self) -> Result<(), String> {
        let leader = self.status.lock().unwrap().leader;
        leader.map(|_| ()).ok_or_else(|| "no leader is known".to_owned())
    }

    fn cluster(&self, _deadline: Instant) -> BoxFuture<'_, ClusterStatus> {
        let node = ClusterNode {
            id: 1,
            client_url: "http://127.0.0.1:7101".to_owned(),
            peer_addr: "127.0.0.1:7201".to_owned(),
            voter: true,
            state: RaftState::Leader,
            last_log: 3,
            applied: 3,
            lag: 0,
        };
        let second = ClusterNode {
            id: 2,
            client_url: "http://127.0.0.1:7102".to_owned(),
            peer_addr: "127.0.0.1:7202".to_owned(),
            voter: false,
            state: RaftState::Learner,
            ..node.clone()
        };
        let status = self.status();
        let changes = self.admin.lock().unwrap().changes.clone();
        async move {
            ClusterStatus {
                cluster_id: "c".to_owned(),
                version: 1,
                nodes: vec![node, second],
                leader: status.leader,
                term: status.term,
                failures_tolerated: 0,
                changes,
            }
        }
        .boxed()
    }

    fn add_node(&self, node: NewNode, deadline: Instant) -> BoxFuture<'_, Result<Change, AdminError>> {
        async move {
            let change = Change {
                kind: if node.replaces.is_some() {
                    ChangeKind::Replace
                } else {
                    ChangeKind::Add
                },
                node: node.id,
                replaces: node.replaces,
                step: ChangeStep::CatchingUp,
                detail: "applied 3 of 9 entries".to_owned(),
            };
            self.administer(Asked::Add(node), Some(deadline)).await?;
            Ok(change)
        }
        .boxed()
    }

    fn remove_node(&self, id: u64, deadline: Instant) -> BoxFuture<'_, Result<(), AdminError>> {
        self.administer(Asked::Remove(id), Some(deadline)).boxed()
    }

    fn transfer(&self, to: Option<u64>, deadline: Instant) -> BoxFuture<'_, Result<u64, AdminError>> {
        async move {
            self.administer(Asked::Transfer(to), Some(deadline)).await?;
            Ok(to.unwrap_or(3))
        }
        .boxed()
    }

    fn take_snapshot(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        self.administer(Asked::Snapshot, None).boxed()
    }

    fn verify(&self, deadline: Instant) -> BoxFuture<'_, Result<Verification, AdminError>> {
        async move {
            self.administer(Asked::Verify, Some(deadline)).await?;
            Ok(self.admin.lock().unwrap().verification.take().unwrap())
        }
        .boxed()
    }

    fn shutting_down(&self) -> BoxFuture<'static, ()> {
        let token = self.shutting_down.clone();
        async move { token.cancelled().await }.boxed()
    }
}
