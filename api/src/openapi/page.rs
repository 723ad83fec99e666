//! The document as a page for people: no scripts, nothing from elsewhere.

use serde_json::Value;

/// Nothing but this page's own style.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                                 frame-ancestors 'none'";

pub(super) fn of(document: &Value) -> String {
    document["info"]["title"].to_string()
}
