//! This interface's description of itself, for programs and for people.

use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::Table;
use crate::openapi::DOCS_POLICY;
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;

pub(super) fn routes(table: Table) -> Table {
    let (document, page) = (Arc::clone(&table.description), Arc::clone(&table.description));
    table
        .section("Description")
        .add(
            Operation::probe("/openapi.json", "openapi", "This interface as an OpenAPI 3.1 document").any_json(),
            move |call: Call| {
                let document = Arc::clone(&document);
                async move {
                    call.params()?;
                    Ok::<_, Problem>(
                        reply::plain(StatusCode::OK, document.json())
                            .with(header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                    )
                }
            },
        )
        .add(
            Operation::probe("/docs", "docs", "The same for people").text("text/html; charset=utf-8"),
            move |call: Call| {
                let page = Arc::clone(&page);
                async move {
                    call.params()?;
                    Ok::<_, Problem>(
                        reply::plain(StatusCode::OK, page.html())
                            .with(
                                header::CONTENT_TYPE,
                                HeaderValue::from_static("text/html; charset=utf-8"),
                            )
                            .with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_POLICY)),
                    )
                }
            },
        )
}
