//! The nodes of the cluster: which ones there are to be.

use axum::response::Response;
use http::StatusCode;
use quorate_client::wire;

use crate::problem::Problem;
use crate::reply;
use crate::request::Call;
use crate::{checks, convert};

/// Begins to add a node. 202: the rest takes as long as the node needs to catch up, and is seen in
/// `GET /v1/cluster`.
pub(super) async fn add(call: Call) -> Result<Response, Problem> {
    let node: wire::NewNode = call.json()?;
    checks::new_node(&node)?;
    let intent = call.admin_intent(&call.params(&["redirect"])?)?;
    call.check_admin(&intent, None).await?;
    call.check_redirect(&intent).await?;
    let deadline = intent.deadline;
    let asked = call.app.replica.add_node(convert::new_node(node), deadline);
    let change = call.administer(deadline, asked).await?;
    reply::json(StatusCode::ACCEPTED, &convert::change(change))
}

pub(super) async fn remove(call: Call) -> Result<Response, Problem> {
    let intent = call.admin_intent(&call.params(&["redirect"])?)?;
    let id = call.node("id")?;
    call.check_admin(&intent, Some(id)).await?;
    call.check_redirect(&intent).await?;
    let deadline = intent.deadline;
    call.administer(deadline, call.app.replica.remove_node(id, deadline))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
