//! The cluster as this node sees it. It answers without a quorum, which is when it is asked.

use axum::response::Response;
use http::{HeaderValue, StatusCode};

use crate::convert;
use crate::headers::X_LEVEL;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;

pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    // `level` is taken, as by every read, but there is only one: what this node knows.
    let params = call.params(&["level"])?;
    let intent = call.read_intent(&params)?.authenticated()?;
    let cluster = call.app.replica.cluster(intent.options.deadline).await;
    let response = reply::json(StatusCode::OK, &convert::cluster(cluster))?;
    Ok(response.with(X_LEVEL, HeaderValue::from_static("local")))
}
