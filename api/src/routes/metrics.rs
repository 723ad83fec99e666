//! Prometheus.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::Table;
use crate::metrics::Metrics;
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;

pub(super) fn routes(table: Table) -> Table {
    table.section("Health").add(
        Operation::probe("/metrics", "metrics", "What Prometheus reads").text("text/plain; version=0.0.4"),
        get,
    )
}

pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    call.params()?;
    let text = call.app.metrics.text();
    let text = text.map_err(|error| Problem::internal(format!("failed to write the metrics: {error}"), false))?;
    let response = reply::plain(StatusCode::OK, text);
    match HeaderValue::try_from(Metrics::content_type()) {
        Ok(content_type) => Ok(response.with(header::CONTENT_TYPE, content_type)),
        Err(_) => Ok(response),
    }
}
