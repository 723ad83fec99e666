//! Who is counted together where requests are limited by caller.

use std::time::Instant;

use http::HeaderMap;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Caller, Query, SpaceId};

use crate::app::App;
use crate::replica::{Level, ReadOptions};

/// Whose bucket a request is counted in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RateKey {
    User(Box<str>),
    /// All who name nobody properly: they are refused later, and must not get a bucket for each
    /// slip, or each token, that they invent.
    Nobody,
}

impl RateKey {
    /// The bucket of this request; none for root, who is not limited. A user has one, however he is written and
    /// however many sessions he has. Whose session it is, this node's own state says: one that was begun
    /// elsewhere a moment ago may still be nobody's here, for that moment.
    pub(crate) async fn of(app: &App, headers: &HeaderMap) -> Option<Self> {
        let name = match app.accounts.caller(headers) {
            Ok(Ok(Caller::Root)) => return None,
            Ok(Ok(Caller::User(name))) => Some(name),
            Ok(Ok(caller @ Caller::Session(_))) => name_of(app, caller).await,
            Ok(Err(_)) | Err(_) => None,
        };
        Some(name.map_or(RateKey::Nobody, |name| RateKey::User(name.into())))
    }
}

async fn name_of(app: &App, caller: Caller) -> Option<String> {
    let query = Query {
        space: SpaceId::MAIN,
        caller,
        body: QueryBody::Caller,
    };
    let options = ReadOptions {
        deadline: Instant::now() + app.limits.request_timeout,
        level: Level::Local,
        min_position: None,
    };
    match app.replica.read(query, options).await.ok()?.answer {
        Ok(Answer::Caller(name)) => Some(name),
        _ => None,
    }
}
