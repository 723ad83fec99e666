//! Waiting for a lock, on the node that was asked: the wait itself is in the log, and the leader ends it;
//! here somebody watches what becomes of it, and gives it up when nobody wants to hear of it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{
    Answer, Caller, Command, Conditions, Envelope, LockId, LockWait, Position, Query, Revision, SpaceId, Topic,
    WaiterId,
};

use crate::app::{App, latest, position_of};
use crate::feed;
use crate::replica::{Level, ReadOptions, ReplicaError, WriteOptions};
use crate::request::Call;
use crate::revocation::revoked;

/// A node that cannot say just now what became of a wait is asked again after this.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long the node tries to give a waiter up. There is a leader again long before; without one the wait
/// ends at its deadline, and what is granted meanwhile by its ttl.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(10);
/// How long one proposal of that may take.
const GIVE_UP_ATTEMPT: Duration = Duration::from_secs(2);
/// Who has heard "unknown" and has a key comes back under it, and then the request is that attempt's. So long
/// he has for it.
const KEY_GRACE: Duration = Duration::from_secs(2);

/// A request that was forwarded is proposed at the leader within its own time, or a little later if it lay in
/// a buffer; a leader that stands still for longer than this leads no more.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Whoever asks for a lock on this node. Dropped before he has an answer, because his connection was closed,
/// he is given up. That never hurts somebody else: a wait that was asked for again under the same key is nobody's
/// to give up.
pub(crate) struct Waiter {
    app: Arc<App>,
    lock: String,
    id: WaiterId,
    request_id: String,
    has_key: bool,
    /// Since when he waits, once that is known.
    since: Option<Revision>,
    /// Until then his request may still be on its way to the log.
    on_its_way_until: Instant,
    /// He has no answer yet.
    waits: bool,
}

impl Waiter {
    pub(crate) fn new(call: &Call, lock: &str, has_key: bool, deadline: Instant) -> Self {
        Self {
            app: Arc::clone(&call.app),
            lock: lock.to_owned(),
            id: WaiterId(rand::random()),
            request_id: call.request_id.clone(),
            has_key,
            since: None,
            on_its_way_until: deadline + ON_ITS_WAY,
            waits: true,
        }
    }

    pub(crate) fn id(&self) -> WaiterId {
        self.id
    }

    /// The log has him.
    pub(crate) fn waits_since(&mut self, since: Revision) {
        self.since = Some(since);
    }

    /// He hears what was decided.
    pub(crate) fn answered(mut self) {
        self.waits = false;
    }

    /// He hears that the outcome is unknown.
    pub(crate) fn unsettled(mut self) {
        self.waits = false;
        self.give_up_after(if self.has_key { KEY_GRACE } else { Duration::ZERO });
    }

    /// He hears that the node goes down. With a key he can go on waiting at another node, in his place of the
    /// queue, so he is left to the leader, which drops those who waited at a node that is gone.
    pub(crate) fn node_goes(mut self) {
        self.waits = false;
        if !self.has_key {
            self.give_up_after(Duration::ZERO);
        }
    }

    /// In a task of its own, at most one for each request, which ends within some seconds.
    fn give_up_after(&self, grace: Duration) {
        // Without a runtime the process is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let envelope = Envelope {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            request_id: self.request_id.clone(),
            idempotency: None,
            conditions: Conditions::default(),
            command: Command::AbandonLock {
                lock: self.lock.clone(),
                waiter: self.id,
                since: self.since,
            },
        };
        // What was not known to be in the log may come there later than this, by another connection's way.
        let again_at = self.since.is_none().then_some(self.on_its_way_until);
        let app = Arc::clone(&self.app);
        runtime.spawn(async move {
            if !grace.is_zero() {
                tokio::time::sleep(grace).await;
            }
            give_up(&app, envelope.clone()).await;
            if let Some(until) = again_at {
                tokio::time::sleep_until(until.into()).await;
                give_up(&app, envelope).await;
            }
        });
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.waits {
            self.give_up_after(Duration::ZERO);
        }
    }
}

/// Proposes until it is decided: to give up twice, or somebody who never waited, changes nothing.
async fn give_up(app: &App, envelope: Envelope) {
    let until = Instant::now() + GIVE_UP_WITHIN;
    loop {
        let options = WriteOptions {
            deadline: until.min(Instant::now() + GIVE_UP_ATTEMPT),
            redirect: false,
        };
        let proposed = app.replica.write(envelope.clone(), options);
        let error = match tokio::time::timeout_at(latest(options.deadline), proposed).await {
            Ok(Ok(_)) => return,
            // The leader drops whoever waited at a node that is gone.
            Ok(Err(ReplicaError::ShuttingDown)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if Instant::now() + RETRY_AFTER >= until {
            let request_id = &envelope.request_id;
            tracing::warn!(%error, request_id, "failed to give up somebody who waited for a lock");
            return;
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// How a wait ended.
pub(crate) enum Ended {
    Decided {
        wait: Decided,
        /// The state that says so.
        position: Position,
    },
    /// Nobody has said in time.
    OutOfTime,
    ShuttingDown,
    /// The session with which he asked has ended.
    Revoked,
}

pub(crate) enum Decided {
    Granted {
        token: u64,
        /// On the replicated clock.
        expires_ms: u64,
    },
    Over,
}

/// Follows a wait that the state has had since `position`, until it has ended.
pub(crate) async fn follow(
    app: &Arc<App>,
    caller: &Caller,
    lock: LockId,
    since: Revision,
    position: Position,
    deadline: Instant,
) -> Ended {
    let mut shutdown = feed::shutdown(app);
    let mut revoked = revoked(app, caller);
    let mut hints = app.replica.watch(Topic::Lock(lock));
    let query = Query {
        space: SpaceId::MAIN,
        caller: Caller::Root,
        body: QueryBody::LockWait { lock, since },
    };
    loop {
        // Before the query: what happens after it wakes us, what happened before is found by it.
        hints.mark_unchanged();
        let options = ReadOptions {
            deadline: deadline.min(Instant::now() + app.limits.request_timeout),
            // A waiter is granted or given up in one entry, so this node's own state is enough once it has
            // seen him wait.
            level: Level::Local,
            min_position: Some(position),
        };
        let answered = tokio::select! {
            answered = app.replica.read(query.clone(), options) => answered,
            () = &mut shutdown => return Ended::ShuttingDown,
            () = &mut revoked => return Ended::Revoked,
            () = tokio::time::sleep_until(deadline.into()) => return Ended::OutOfTime,
        };
        let again = match answered {
            Ok(answered) => {
                let position = position_of(&answered);
                let wait = match answered.answer {
                    Ok(Answer::LockWait(LockWait::Waiting)) => None,
                    Ok(Answer::LockWait(LockWait::Granted { token, expires_ms })) => Some(Decided::Granted {
                        token: token.0,
                        expires_ms,
                    }),
                    Ok(Answer::LockWait(LockWait::Over)) => Some(Decided::Over),
                    // Root asked what any state can answer.
                    Ok(_) | Err(_) => return Ended::OutOfTime,
                };
                if let Some(wait) = wait {
                    return Ended::Decided { wait, position };
                }
                deadline
            }
            Err(ReplicaError::ShuttingDown) => return Ended::ShuttingDown,
            Err(ReplicaError::PositionExpired) => return Ended::OutOfTime,
            Err(_) => deadline.min(Instant::now() + RETRY_AFTER),
        };
        tokio::select! {
            hint = hints.changed() => if hint.is_err() { return Ended::ShuttingDown },
            () = tokio::time::sleep_until(again.into()) => if again >= deadline { return Ended::OutOfTime },
            () = &mut shutdown => return Ended::ShuttingDown,
            () = &mut revoked => return Ended::Revoked,
        }
    }
}
