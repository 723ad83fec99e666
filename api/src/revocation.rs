//! The end of a session while something of it is still open: a stream.

use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Caller, Code, Query, SpaceId, Topic};

use crate::app::App;
use crate::replica::{Level, ReadOptions};

/// Ends when the caller's session has ended, as far as this node knows: at once when the node applies that.
/// Never for a caller without a session.
pub(crate) fn revoked(app: &Arc<App>, caller: &Caller) -> BoxFuture<'static, ()> {
    let Caller::Session(token) = *caller else {
        return Box::pin(std::future::pending());
    };
    let app = Arc::clone(app);
    Box::pin(async move {
        let mut hints = app.replica.watch(Topic::Session(token));
        loop {
            // Before the question: what happens after it wakes us, what happened before is found by it.
            hints.mark_unchanged();
            if is_over(&app, Caller::Session(token)).await || hints.changed().await.is_err() {
                return;
            }
        }
    })
}

/// Where the node cannot tell, its own state cannot be read at all: streams find that out for themselves.
async fn is_over(app: &App, caller: Caller) -> bool {
    let query = Query {
        space: SpaceId::MAIN,
        caller,
        body: QueryBody::Position,
    };
    let options = ReadOptions {
        deadline: std::time::Instant::now() + app.limits.request_timeout,
        level: Level::Local,
        min_position: None,
    };
    let answered = app.replica.read(query, options).await;
    answered.is_ok_and(|answered| {
        answered
            .answer
            .is_err_and(|rejection| rejection.code == Code::Unauthenticated)
    })
}
