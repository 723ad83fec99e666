//! Which path leads where. Paths, names and codes are those of docs/API.md.

mod cluster;
mod health;
mod members;
mod messages;
mod metrics;
mod nodes;
mod rooms;
mod stream;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use http::Request;

use crate::app::App;
use crate::config::ApiConfig;
use crate::cursor::{self, List};
use crate::front::{self, BodyRule, Rule};
use crate::params::Params;
use crate::percent;
use crate::problem::{Kind, Problem};
use crate::replica::SharedReplica;
use crate::reply::With;
use crate::request::Call;

/// The whole HTTP interface of a node as one function from request to answer.
///
/// # Panics
/// When `config.registry` already holds HTTP metrics: a registry serves one router.
pub fn router(replica: SharedReplica, config: ApiConfig) -> Router {
    build(App::new(replica, config))
}

pub(crate) fn build(app: Arc<App>) -> Router {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PUT: MethodFilter = MethodFilter::PUT;
    const PATCH: MethodFilter = MethodFilter::PATCH;
    const DELETE: MethodFilter = MethodFilter::DELETE;
    const READ: Rule = Rule::Read;
    const JSON: Rule = Rule::Write(BodyRule::Json);
    const OPTIONAL: Rule = Rule::Write(BodyRule::OptionalJson);
    const MERGE: Rule = Rule::Write(BodyRule::MergePatch);
    const NO_BODY: Rule = Rule::Write(BodyRule::Unused);

    let mut table = Table {
        router: Router::new(),
        app,
    };
    // The application programming interface of users is promised under both prefixes.
    for (all, one) in [("/v1/users", "/v1/users/{user}"), ("/api/users", "/api/users/{user}")] {
        table = table
            .add(POST, all, JSON, users::create)
            .add(GET, all, READ, users::list)
            .add(GET, one, READ, users::get)
            .add(PATCH, one, MERGE, users::patch)
            .add(DELETE, one, NO_BODY, users::delete);
    }
    table
        .add(POST, "/v1/rooms", JSON, rooms::create)
        .add(GET, "/v1/rooms", READ, rooms::list)
        .add(GET, "/v1/rooms/{room}", READ, rooms::get)
        .add(PATCH, "/v1/rooms/{room}", MERGE, rooms::patch)
        .add(DELETE, "/v1/rooms/{room}", NO_BODY, rooms::delete)
        .add(GET, "/v1/rooms/{room}/members", READ, members::list)
        .add(PUT, "/v1/rooms/{room}/members/{user}", OPTIONAL, members::put)
        .add(DELETE, "/v1/rooms/{room}/members/{user}", NO_BODY, members::remove)
        .add(POST, "/v1/rooms/{room}/messages", JSON, messages::send)
        .add(GET, "/v1/rooms/{room}/messages", READ, messages::page)
        .add(POST, "/v1/rooms/{room}/messages/batch", JSON, messages::send_batch)
        .add(GET, "/v1/rooms/{room}/messages/{seq}", READ, messages::get)
        .add(GET, "/v1/rooms/{room}/stream", READ, stream::open)
        .add(GET, "/v1/cluster", READ, cluster::get)
        .add(POST, "/v1/cluster/nodes", JSON, nodes::add)
        .add(DELETE, "/v1/cluster/nodes/{id}", NO_BODY, nodes::remove)
        .add(POST, "/v1/cluster/transfer", OPTIONAL, cluster::transfer)
        .add(POST, "/v1/cluster/snapshot", OPTIONAL, cluster::snapshot)
        .add(GET, "/v1/cluster/verify", READ, cluster::verify)
        .add(GET, "/livez", Rule::Probe, health::live)
        .add(GET, "/readyz", Rule::Probe, health::ready)
        .add(GET, "/leader", Rule::Probe, health::leader)
        .add(GET, "/metrics", Rule::Probe, metrics::get)
        .finish()
}

struct Table {
    router: Router,
    app: Arc<App>,
}

impl Table {
    fn add<F, Fut>(mut self, method: MethodFilter, route: &'static str, rule: Rule, handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.router = self
            .router
            .route(route, on(method, endpoint(&self.app, route, rule, handler)));
        self
    }

    /// Everything else is 404, and a known path under another method 405.
    fn finish(self) -> Router {
        let no_route = |_: Call| async { Err(Problem::new(Kind::NoRoute, "there is no such path")) };
        // axum adds `Allow`.
        let no_method = |call: Call| async move {
            Err(Problem::new(
                Kind::MethodNotAllowed,
                format!("{} is not a method of this path", call.parts.method),
            ))
        };
        self.router
            .method_not_allowed_fallback(endpoint(&self.app, "(method not allowed)", Rule::Probe, no_method))
            .fallback(endpoint(&self.app, "(no route)", Rule::Probe, no_route))
    }
}

/// A handler with everything around it, in the form that axum takes.
fn endpoint<F, Fut>(
    app: &Arc<App>,
    route: &'static str,
    rule: Rule,
    handler: F,
) -> impl Fn(Request<axum::body::Body>) -> futures::future::BoxFuture<'static, Response> + Clone + Send + Sync + 'static
where
    F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let app = Arc::clone(app);
    move |request| Box::pin(front::enter(Arc::clone(&app), route, rule, handler.clone(), request))
}

/// `limit` and `cursor` of a list.
fn page_of(params: &Params, list: List) -> Result<(Option<String>, u32), Problem> {
    let limit = params.limit()?;
    let after = params
        .get("cursor")
        .map(|cursor| cursor::decode(list, cursor))
        .transpose()?;
    Ok((after, limit))
}

/// `Link: <…>; rel="next"`: the same list with the same parameters, from the next cursor on.
fn with_next_link(response: Response, call: &Call, params: &Params, next: Option<&str>) -> Response {
    let Some(next) = next else { return response };
    let mut query: String = params
        .pairs()
        .filter(|(name, _)| *name != "cursor")
        .map(|(name, value)| format!("{name}={}&", percent::encode(value)))
        .collect();
    query.push_str("cursor=");
    query.push_str(next);
    match http::HeaderValue::try_from(format!("<{}?{query}>; rel=\"next\"", call.parts.uri.path())) {
        Ok(link) => response.with(http::header::LINK, link),
        Err(_) => response,
    }
}
