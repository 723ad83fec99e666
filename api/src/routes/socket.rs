//! The door of a WebSocket: a read that says who asks, after which the connection carries frames.

use std::sync::Arc;

use axum::response::Response;
use http::{Method, header};
use hyper::upgrade::OnUpgrade;
use quorate_client::wire::socket::{SocketAnswer, SocketRequest};

use super::Table;
use crate::operation::Operation;
use crate::places::Class;
use crate::problem::Problem;
use crate::rate_key::RateKey;
use crate::request::Call;
use crate::server::Upgrade;
use crate::socket::{self, Handshake, Session, check_origin};

pub(super) fn routes(table: Table) -> Table {
    table.section("Sockets").add(
        Operation::read(socket::ROUTE, "openSocket", "Send many messages over one WebSocket")
            .about(
                "RFC 6455 over HTTP/1.1; frames are JSON objects in text frames, `x-quorate-frames` says which. Many \
                 requests may be in flight; each is answered under the `id` that the client gave it, in any order, by \
                 the same rules and with the same problems as over HTTP. A page in a browser offers the subprotocols \
                 `quorate.v1` and `bearer.TOKEN`.",
            )
            .without_min_position()
            .socket::<SocketRequest<'_>, SocketAnswer>(),
        open,
    )
}

pub(super) async fn open(mut call: Call) -> Result<Response, Problem> {
    // `level` is taken, as by every read, but there is only one: whoever is known is let in.
    let params = call.params()?;
    let intent = call.read_intent(&params)?;
    let handshake = Handshake::of(&call.parts.headers)?;
    check_origin(&call.parts.headers)?;
    let caller = intent.authenticated(&call).await?.caller()?;
    let place = call.app.places.take(Class::Socket)?;
    let rate_key = match call.app.user_rate {
        // From now on this node knows the session, if it is one.
        Some(_) => RateKey::of(&call.app, &call.parts.headers).await,
        None => None,
    };
    if call.parts.method != Method::GET {
        // axum answers HEAD like GET; but this GET is more than its answer.
        return Err(Problem::bad_request("a WebSocket is opened with GET"));
    }
    let session = Session {
        app: Arc::clone(&call.app),
        caller,
        rate_key,
        request_id: call.request_id.clone(),
    };
    // Both are there on every connection of HTTP/1.1; a router without sockets has neither.
    let extensions = &mut call.parts.extensions;
    if let (Some(connection), Some(upgrade)) = (extensions.get::<Upgrade>().cloned(), extensions.remove::<OnUpgrade>())
    {
        connection.go_on_with(session.serve(upgrade, place));
    }
    let mut response = handshake.response();
    // Whatever stands between takes no answer of another connection for this one's.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(response)
}
