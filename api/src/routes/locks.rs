//! Locks: acquire (and wait), renew, release, look.

use std::time::{Duration, Instant};

use axum::response::Response;
use http::{HeaderValue, StatusCode};
use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Caller, Code, Command, FencingToken, Query, Rejection, SpaceId, fields};

use super::{Table, page_of, with_next_link};
use crate::app::{Committed, header, latest, unexpected_answer, unexpected_outcome};
use crate::cursor::{self, List};
use crate::headers::{IDEMPOTENCY_REPLAYED, X_POSITION};
use crate::operation::Operation;
use crate::params::{Params, number};
use crate::problem::{HeldBy, Kind, Problem};
use crate::replica::{Level, ReadOptions};
use crate::reply::{self, With};
use crate::request::Call;
use crate::waiting::{self, Decided, Ended, Waiter};
use crate::{checks, convert};

pub(super) fn routes(table: Table) -> Table {
    const ONE: &str = "/v1/locks/{lock}";
    table
        .section("Locks")
        .add(
            Operation::read("/v1/locks", "listLocks", "List the locks").list::<wire::LockList>(),
            list,
        )
        .add(
            Operation::put(ONE, "acquireLock", "Take a lock, or wait for it")
                .about(
                    "Who waits is served first come, first served; `wait_ms` is added to the request's time. \
                     `expires_in_ms` is to be counted from before the request was sent. A write with \
                     `If-Lock: NAME;token=N` is applied only while the lock is held with that token.",
                )
                .json::<wire::AcquireLock>()
                .answers::<wire::HeldLock>(200)
                .errors(&[Code::LockHeld]),
            acquire,
        )
        .add(
            Operation::read(ONE, "getLock", "Show who holds a lock, and who waits for it")
                .moving_entity::<wire::Lock>(),
            get,
        )
        .add(
            Operation::delete(ONE, "releaseLock", "Give a lock back")
                .query(&["token"])
                .errors(&[Code::Forbidden])
                .no_content(),
            release,
        )
        .add(
            Operation::post("/v1/locks/{lock}/renew", "renewLock", "Hold a lock for longer")
                .json::<wire::RenewLock>()
                .errors(&[Code::Forbidden])
                .answers::<wire::HeldLock>(200),
            renew,
        )
}

pub(super) async fn acquire(call: Call) -> Result<Response, Problem> {
    let wire::AcquireLock {
        owner,
        ttl_ms,
        wait_ms,
        mode,
        data,
    } = call.json()?;
    let wait_ms = wait_ms.unwrap_or(0);
    let data = data.as_ref().map(checks::lock_data).transpose()?;
    fields::lock_owner(&owner)
        .and_then(|()| fields::lock_ttl_ms(ttl_ms))
        .and_then(|()| fields::lock_wait_ms(wait_ms))
        .map_err(Problem::refused)?;
    if mode == Some(wire::LockMode::Shared) {
        return Err(Problem::bad_request("mode: shared locks are not built yet"));
    }
    let intent = call.write_intent()?;
    let lock = call.name("lock")?;
    let intent = intent.authenticated(&call).await?;
    if wait_ms > 0 {
        call.waiting()?;
    }

    let deadline = intent.deadline() + Duration::from_millis(wait_ms);
    let caller = intent.caller()?;
    let mut waiter = Waiter::new(&call, &lock, intent.has_key(), intent.deadline());
    let command = Command::AcquireLock {
        lock: lock.clone(),
        owner: owner.clone(),
        ttl_ms,
        wait_ms,
        data,
        waiter: waiter.id(),
        home: call.app.replica.status().home,
    };
    let committed = match call.write(intent, command).await {
        Ok(committed) => committed,
        Err(problem) if problem.is_outcome_unknown() => {
            waiter.unsettled();
            return Err(problem);
        }
        Err(problem) => {
            waiter.answered();
            return Err(with_held_by(&call, &lock, problem, deadline).await);
        }
    };
    let (id, since) = match &committed.done {
        Done::LockWaiting { lock, since } => {
            waiter.waits_since(*since);
            (*lock, *since)
        }
        _ => {
            waiter.answered();
            return held(&lock, &committed);
        }
    };
    match waiting::follow(&call.app, &caller, id, since, committed.position, deadline).await {
        Ended::Decided { wait, position } => {
            waiter.answered();
            let committed = Committed { position, ..committed };
            match wait {
                Decided::Granted { token, expires_ms } => {
                    // Counted by the client from before it asked, which was before the grant: what this node
                    // reckons too long for being behind cannot make it longer than the ttl from there.
                    let expires_in_ms = expires_ms.saturating_sub(call.app.replica.status().elapsed_ms);
                    let done = Done::LockHeld {
                        owner,
                        token: FencingToken(token),
                        expires_in_ms,
                    };
                    held(&lock, &Committed { done, ..committed })
                }
                Decided::Over => Err(over(&call, &lock, &committed, deadline).await),
            }
        }
        Ended::OutOfTime => {
            waiter.unsettled();
            Err(Problem::new(
                Kind::CommitUnknown,
                "nobody has said in time what became of the wait",
            ))
        }
        // Dropped, he is given up.
        Ended::Revoked => Err(Problem::unauthenticated("the session has ended while it waited")),
        Ended::ShuttingDown => {
            waiter.node_goes();
            // It was proposed: under its key the wait may still come to something.
            Err(Problem::new(Kind::ShuttingDown, "this node is shutting down").with_outcome_unknown())
        }
    }
}

/// The wait has ended, and he does not have the lock.
async fn over(call: &Call, lock: &str, committed: &Committed, deadline: Instant) -> Problem {
    let detail = format!("the lock \"{lock}\" is held, and the wait is over");
    let problem =
        Problem::refused(Rejection::new(Code::LockHeld, detail)).with_header(X_POSITION, header(committed.position));
    let problem = if committed.replayed {
        problem.with_header(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))
    } else {
        problem
    };
    with_held_by(call, lock, problem, deadline).await
}

/// A refusal because somebody holds the lock says who does, in the state of the refusal or a later one. It
/// does without where this node does not get there in time.
async fn with_held_by(call: &Call, lock: &str, problem: Problem, deadline: Instant) -> Problem {
    if !problem.is_lock_held() {
        return problem;
    }
    let query = Query {
        space: SpaceId::MAIN,
        // Whoever may ask for a lock may look at it.
        caller: Caller::Root,
        body: QueryBody::Lock { lock: lock.to_owned() },
    };
    let options = ReadOptions {
        deadline,
        level: Level::Local,
        min_position: problem.position(),
    };
    let asked = call.app.replica.read(query, options);
    match tokio::time::timeout_at(latest(deadline), asked)
        .await
        .map(|read| read.map(|read| read.answer))
    {
        Ok(Ok(Ok(Answer::Lock(lock)))) => {
            let wire::Lock { holders, queue, .. } = convert::lock(lock, call.app.replica.status().elapsed_ms);
            problem.with_held_by(HeldBy { holders, queue })
        }
        _ => problem,
    }
}

pub(super) async fn renew(call: Call) -> Result<Response, Problem> {
    let wire::RenewLock { token, ttl_ms } = call.json()?;
    ttl_ms.map_or(Ok(()), fields::lock_ttl_ms).map_err(Problem::refused)?;
    let intent = call.write_intent()?;
    let lock = call.name("lock")?;
    let command = Command::RenewLock {
        lock: lock.clone(),
        token: FencingToken(token),
        ttl_ms,
    };
    held(&lock, &call.write(intent, command).await?)
}

/// The answer to whoever holds the lock now.
fn held(lock: &str, committed: &Committed) -> Result<Response, Problem> {
    let Done::LockHeld {
        owner,
        token,
        expires_in_ms,
    } = &committed.done
    else {
        return Err(unexpected_outcome());
    };
    let held = wire::HeldLock {
        lock: lock.to_owned(),
        owner: owner.clone(),
        token: token.0,
        mode: wire::LockMode::Exclusive,
        expires_in_ms: *expires_in_ms,
    };
    Ok(reply::json(StatusCode::OK, &held)?.with_commit(committed))
}

pub(super) async fn release(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let token = token_of(&params)?;
    let intent = call.write_intent_of(&params)?;
    let lock = call.name("lock")?;
    let committed = call.write(intent, Command::ReleaseLock { lock, token }).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT).with_commit(&committed))
}

fn token_of(params: &Params) -> Result<FencingToken, Problem> {
    // A number beyond all tokens is a token that was never given: 412 like any other.
    params
        .get("token")
        .and_then(number)
        .map(FencingToken)
        .ok_or_else(|| Problem::bad_request("token must be there, a number"))
}

/// No 304: what is shown changes with time, under the same revision.
pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let intent = call.read_intent(&params)?;
    let lock = call.name("lock")?;
    let read = call.read(intent, QueryBody::Lock { lock }).await?;
    let Answer::Lock(lock) = read.answer else {
        return Err(unexpected_answer());
    };
    let lock = convert::lock(lock, call.app.replica.status().elapsed_ms);
    Ok(reply::json(StatusCode::OK, &lock)?
        .with_etag(lock.rev)
        .with_position(read.position))
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let (after, limit) = page_of(&params, List::Locks)?;
    let intent = call.read_intent(&params)?;
    let read = call.read(intent, QueryBody::Locks { after, limit }).await?;
    let Answer::Locks { locks, next } = read.answer else {
        return Err(unexpected_answer());
    };
    let now_ms = call.app.replica.status().elapsed_ms;
    let list = wire::LockList {
        locks: locks.into_iter().map(|lock| convert::lock(lock, now_ms)).collect(),
        next_cursor: next.map(|last| cursor::encode(List::Locks, &last)),
    };
    let response = reply::json(StatusCode::OK, &list)?.with_position(read.position);
    Ok(with_next_link(response, &call, &params, list.next_cursor.as_deref()))
}
