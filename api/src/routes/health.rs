//! What load balancers and scripts ask. Answered even when the node is overloaded.

use std::fmt::Write;

use axum::response::Response;
use http::StatusCode;

use super::Table;
use crate::convert::raft_state;
use crate::operation::Operation;
use crate::problem::{Kind, Problem};
use crate::reply;
use crate::request::Call;

/// The media type of the answers.
const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) fn routes(table: Table) -> Table {
    table
        .section("Health")
        .add(
            Operation::probe("/livez", "livez", "Does the process answer?").text(PLAIN),
            live,
        )
        .add(
            Operation::probe("/readyz", "readyz", "Is the leader known, and has this node caught up?")
                .query(&["verbose"])
                .text(PLAIN)
                .errors(&[Kind::NotReady, Kind::ShuttingDown]),
            ready,
        )
        .add(
            Operation::probe("/leader", "leader", "Does this node lead?")
                .about("200 on the leader, 503 elsewhere: for load balancers that send all writes to one node.")
                .text(PLAIN)
                .errors(&[Kind::NotReady, Kind::NoLeader]),
            leader,
        )
}

/// The process answers.
pub(super) async fn live(call: Call) -> Result<Response, Problem> {
    call.params()?;
    Ok(reply::plain(StatusCode::OK, "alive\n"))
}

/// The leader is known and this node has caught up. `?verbose` says more.
pub(super) async fn ready(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let verbose = match params.get("verbose") {
        Some("") => true,
        _ => params.flag("verbose")?,
    };
    if call.app.closing.is_cancelled() {
        return Err(Problem::new(Kind::ShuttingDown, "this node is shutting down"));
    }
    if let Err(reason) = call.app.replica.readiness() {
        return Err(Problem::new(Kind::NotReady, reason));
    }
    let status = call.app.replica.status();
    let mut text = "ready\n".to_owned();
    if verbose {
        let leader = status
            .leader
            .map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        write!(
            text,
            "node {}\nstate {}\nleader {leader}\nterm {}\n",
            status.node,
            raft_state(status.state),
            status.term
        )
        .expect("writing to a string cannot fail");
    }
    Ok(reply::plain(StatusCode::OK, text))
}

/// 200 on the leader, 503 elsewhere: for load balancers that send all writes to one node.
pub(super) async fn leader(call: Call) -> Result<Response, Problem> {
    call.params()?;
    let status = call.app.replica.status();
    match status.leader {
        Some(leader) if leader == status.node => Ok(reply::plain(StatusCode::OK, "leader\n")),
        Some(leader) => Err(Problem::new(Kind::NotReady, format!("the leader is node {leader}"))),
        // A leader that has lost its majority is none: it can write no more than the others.
        None => Err(Problem::new(Kind::NoLeader, "no leader is known")),
    }
}
