//! Which path leads where. Paths, names and codes are those of docs/API.md.

mod cluster;
mod description;
mod edits;
mod health;
mod locks;
mod members;
mod messages;
mod metrics;
mod nodes;
mod rooms;
mod sessions;
mod socket;
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
use crate::front;
use crate::openapi::Description;
use crate::operation::Operation;
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

/// Every file of this folder adds its own routes, in the order in which the document shows them.
pub(crate) fn build(app: Arc<App>) -> Router {
    let mut table = Table::new(app);
    // The application programming interface of users is promised under both prefixes.
    for (all, one) in [("/v1/users", "/v1/users/{user}"), ("/api/users", "/api/users/{user}")] {
        table = users::routes(table, all, one);
    }
    table = sessions::routes(table);
    table = rooms::routes(table);
    table = members::routes(table);
    table = messages::routes(table);
    table = edits::routes(table);
    table = stream::routes(table);
    table = socket::routes(table);
    table = locks::routes(table);
    table = cluster::routes(table);
    table = nodes::routes(table);
    table = health::routes(table);
    table = metrics::routes(table);
    table = description::routes(table);
    table.finish()
}

/// The routes so far. A route is added together with what it promises, so that none is there that
/// `/openapi.json` does not describe.
struct Table {
    router: Router,
    app: Arc<App>,
    tag: &'static str,
    description: Arc<Description>,
    operations: Vec<Arc<Operation>>,
}

impl Table {
    fn new(app: Arc<App>) -> Self {
        Self {
            router: Router::new(),
            app,
            tag: "",
            description: Arc::default(),
            operations: Vec::new(),
        }
    }

    /// The section of the document that the routes added next belong to.
    fn section(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    fn add<F, Fut>(mut self, operation: Operation, handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let operation = Arc::new(Operation {
            tag: self.tag,
            ..operation
        });
        let method = MethodFilter::try_from(operation.method.clone()).expect("the constructors give usual methods");
        self.router = self.router.route(
            operation.path,
            on(method, endpoint(&self.app, Arc::clone(&operation), handler)),
        );
        self.operations.push(operation);
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
        let fallback = |label| Arc::new(Operation::none(label));
        self.description.set(self.operations);
        self.router
            .method_not_allowed_fallback(endpoint(&self.app, fallback("(method not allowed)"), no_method))
            .fallback(endpoint(&self.app, fallback("(no route)"), no_route))
    }
}

/// A handler with everything around it, in the form that axum takes.
fn endpoint<F, Fut>(
    app: &Arc<App>,
    operation: Arc<Operation>,
    handler: F,
) -> impl Fn(Request<axum::body::Body>) -> futures::future::BoxFuture<'static, Response> + Clone + Send + Sync + 'static
where
    F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let app = Arc::clone(app);
    move |request| {
        Box::pin(front::enter(
            Arc::clone(&app),
            Arc::clone(&operation),
            handler.clone(),
            request,
        ))
    }
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
