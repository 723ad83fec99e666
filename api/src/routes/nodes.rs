//! The nodes of the cluster: which ones there are to be.

use axum::response::Response;
use http::StatusCode;
use quorate_client::wire;

use super::Table;
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply;
use crate::request::Call;
use crate::{checks, convert};

pub(super) fn routes(table: Table) -> Table {
    table
        .section("Cluster")
        .add(
            Operation::post("/v1/cluster/nodes", "addNode", "Begin to add or replace a node")
                .about("Its progress is in `GET /v1/cluster`.")
                .json::<wire::NewNode>()
                .admin()
                .answers::<wire::Change>(202),
            add,
        )
        .add(
            Operation::delete("/v1/cluster/nodes/{id}", "removeNode", "Remove a node")
                .admin()
                .no_content(),
            remove,
        )
}

/// Begins to add a node. 202: the rest takes as long as the node needs to catch up, and is seen in
/// `GET /v1/cluster`.
pub(super) async fn add(call: Call) -> Result<Response, Problem> {
    let node: wire::NewNode = call.json()?;
    checks::new_node(&node)?;
    let intent = call.admin_intent(&call.params()?)?;
    call.check_admin(&intent, None).await?;
    call.check_redirect(&intent).await?;
    let deadline = intent.deadline;
    let asked = call.app.replica.add_node(convert::new_node(node), deadline);
    let change = call.administer(deadline, asked).await?;
    reply::json(StatusCode::ACCEPTED, &convert::change(change))
}

pub(super) async fn remove(call: Call) -> Result<Response, Problem> {
    let intent = call.admin_intent(&call.params()?)?;
    let id = call.node("id")?;
    call.check_admin(&intent, Some(id)).await?;
    call.check_redirect(&intent).await?;
    let deadline = intent.deadline;
    call.administer(deadline, call.app.replica.remove_node(id, deadline))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
