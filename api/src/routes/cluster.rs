//! The cluster as a whole. Which nodes there are to be is in `nodes`.

use axum::response::Response;
use http::{HeaderValue, StatusCode};
use quorate_client::wire;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Table;
use crate::headers::X_LEVEL;
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;
use crate::{checks, convert};

pub(super) fn routes(table: Table) -> Table {
    table
        .section("Cluster")
        .add(
            Operation::read("/v1/cluster", "getCluster", "Show the cluster as this node sees it")
                .about("It answers without a quorum.")
                .without_min_position()
                .answers::<wire::Cluster>(200),
            get,
        )
        .add(
            Operation::post("/v1/cluster/transfer", "transferLeadership", "Hand leadership over")
                .about("To the voter `to`, else to the one whose log is furthest. It answers when that one leads.")
                .optional_json::<wire::Transfer>()
                .admin()
                .answers::<wire::NewLeader>(200),
            transfer,
        )
        .add(
            Operation::post(
                "/v1/cluster/snapshot",
                "takeSnapshot",
                "Begin a snapshot of the asked node",
            )
            .optional_json::<Nothing>()
            .admin()
            .without_redirect()
            .answers::<Nothing>(202),
            snapshot,
        )
        .add(
            Operation::read("/v1/cluster/verify", "verifyCluster", "Compare the states of all nodes")
                .about("Each node hashes its whole state after one entry of the log: give it the time that takes.")
                .without_min_position()
                .admin()
                .answers::<wire::Verification>(200),
            verify,
        )
}

/// The cluster as this node sees it. It answers without a quorum, which is when it is asked.
pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    // `level` is taken, as by every read, but there is only one: what this node knows.
    let params = call.params()?;
    let intent = call.read_intent(&params)?.authenticated(&call).await?;
    let cluster = call.app.replica.cluster(intent.options.deadline).await;
    let response = reply::json(StatusCode::OK, &convert::cluster(cluster))?;
    Ok(response.with(X_LEVEL, HeaderValue::from_static("local")))
}

/// Hands leadership over, and answers when another node leads.
pub(super) async fn transfer(call: Call) -> Result<Response, Problem> {
    let wire::Transfer { to } = call.json_or_default()?;
    to.map_or(Ok(()), |to| checks::node_id("to", to))?;
    let intent = call.admin_intent(&call.params()?)?;
    call.check_admin(&intent, None).await?;
    call.check_redirect(&intent).await?;
    let deadline = intent.deadline;
    let leader = call
        .administer(deadline, call.app.replica.transfer(to, deadline))
        .await?;
    reply::json(StatusCode::OK, &wire::NewLeader { leader })
}

/// A body without a field, and an answer that has nothing to say yet.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Begins a snapshot of this node, whether it leads or not.
pub(super) async fn snapshot(call: Call) -> Result<Response, Problem> {
    let Nothing {} = call.json_or_default()?;
    let intent = call.admin_intent(&call.params()?)?;
    call.check_admin(&intent, None).await?;
    call.administer(intent.deadline, call.app.replica.take_snapshot())
        .await?;
    reply::json(StatusCode::ACCEPTED, &Nothing {})
}

/// Compares the states of all nodes after one entry of the log.
pub(super) async fn verify(call: Call) -> Result<Response, Problem> {
    // `level` is taken, as by every read, but there is only one: an entry that a majority has.
    let params = call.params()?;
    call.read_intent(&params)?;
    let intent = call.admin_intent(&params)?;
    call.check_admin(&intent, None).await?;
    let deadline = intent.deadline;
    let verification = call.administer(deadline, call.app.replica.verify(deadline)).await?;
    let response = reply::json(StatusCode::OK, &convert::verification(verification))?;
    Ok(response.with(X_LEVEL, HeaderValue::from_static("linearizable")))
}
