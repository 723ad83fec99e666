//! How a request becomes a socket (RFC 6455, section 4.2), and how a page in a browser says who asks.

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use quorate_client::wire::socket::{BEARER_SUBPROTOCOL, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::headers::single;
use crate::problem::Problem;

/// The only version there is.
const VERSION: &str = "13";

/// A page cannot send headers of its own when it opens a socket, but it can offer subprotocols. A token among them
/// is put where those of all other requests are, before anybody looks; one beside it is then the second, and a 400.
pub(crate) fn reveal_token(headers: &mut HeaderMap) {
    let offered = subprotocols(headers).find_map(|name| name.strip_prefix(BEARER_SUBPROTOCOL));
    let Some(token) = offered else { return };
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).expect("a part of a header can stand in one");
    value.set_sensitive(true);
    headers.append(header::AUTHORIZATION, value);
}

/// Whichever page asks, a browser lets it open a socket to any host, this machine's own ports among them, and says
/// in `Origin` which page that was. Where no token proves who asks, as in open mode, that page would be root.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::ORIGIN) && !headers.contains_key(header::AUTHORIZATION) {
        return Err(Problem::unauthenticated(
            "a page (there is an Origin header) opens a socket with a token only: offer the subprotocols quorate.v1 \
             and bearer.TOKEN",
        ));
    }
    Ok(())
}

/// A request to become a socket in which nothing is wrong.
pub(crate) struct Handshake {
    accept: HeaderValue,
    /// Which one the client speaks, if it says.
    subprotocol: Option<HeaderValue>,
}

impl Handshake {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if !has_word(headers, &header::CONNECTION, "upgrade") || !has_word(headers, &header::UPGRADE, "websocket") {
            return Err(Problem::bad_request(
                "this is a WebSocket, over HTTP/1.1: send Connection: Upgrade and Upgrade: websocket",
            ));
        }
        let version = single(headers, &header::SEC_WEBSOCKET_VERSION)?;
        if version.is_none_or(|version| version != VERSION) {
            let problem = Problem::bad_request("Sec-WebSocket-Version must be 13");
            return Err(problem.with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION)));
        }
        let key = single(headers, &header::SEC_WEBSOCKET_KEY)?
            .filter(|key| is_key(key.as_bytes()))
            .ok_or_else(|| Problem::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"))?;
        let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        if offers && !subprotocols(headers).any(|name| name == SUBPROTOCOL) {
            return Err(Problem::bad_request(
                "of subprotocols this node speaks quorate.v1: offer it, or none",
            ));
        }
        Ok(Self {
            accept: HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is visible ASCII"),
            subprotocol: offers.then(|| HeaderValue::from_static(SUBPROTOCOL)),
        })
    }

    /// After it the connection speaks frames.
    pub(crate) fn response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(subprotocol) = self.subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        response
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_word(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    words(headers, &header::SEC_WEBSOCKET_PROTOCOL)
}

/// Base64 of 16 bytes has 22 digits and is filled up to 24.
fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|digit| digit.is_ascii_alphanumeric() || matches!(digit, b'+' | b'/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn sound(more: &[(&str, &str)]) -> HeaderMap {
        let all = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        headers(&[&all, more].concat())
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let answer = Handshake::of(&sound(&[]))
            .unwrap_or_else(|_| panic!("it is sound"))
            .response();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            answer.headers()[header::SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(!answer.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
        let offered = sound(&[("sec-websocket-protocol", "bearer.t, quorate.v1")]);
        let answer = Handshake::of(&offered)
            .unwrap_or_else(|_| panic!("it is sound"))
            .response();
        assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], SUBPROTOCOL);
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        for (name, value) in [
            ("connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("sec-websocket-version", "8"),
            ("sec-websocket-key", "short"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=*"),
        ] {
            let mut changed = sound(&[]);
            changed.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert!(Handshake::of(&changed).is_err(), "{name}: {value}");
            changed.remove(name);
            assert!(Handshake::of(&changed).is_err(), "no {name}");
        }
        assert!(Handshake::of(&sound(&[("sec-websocket-protocol", "chat")])).is_err());
        assert!(Handshake::of(&sound(&[("sec-websocket-key", KEY)])).is_err(), "twice");
    }

    #[test]
    fn a_token_among_the_subprotocols_is_a_bearer_token() {
        let mut offered = sound(&[("sec-websocket-protocol", "quorate.v1, bearer.secret")]);
        reveal_token(&mut offered);
        assert_eq!(offered[header::AUTHORIZATION], "Bearer secret");
        assert!(offered[header::AUTHORIZATION].is_sensitive());
        let mut none = sound(&[("sec-websocket-protocol", "quorate.v1")]);
        reveal_token(&mut none);
        assert!(!none.contains_key(header::AUTHORIZATION));
    }

    #[test]
    fn a_page_needs_a_token() {
        let page = ("origin", "http://evil.example");
        assert!(check_origin(&sound(&[page])).is_err());
        assert!(check_origin(&sound(&[page, ("authorization", "Bearer t")])).is_ok());
        assert!(check_origin(&sound(&[])).is_ok());
    }
}
