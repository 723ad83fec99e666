//! The contract's request headers as values. One that does not parse is an error, never ignored:
//! a lost condition would let a write through that its caller wanted refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use quorate_state_machine::limits::KEY_BYTES_MAX;
use quorate_state_machine::{Conditions, FencingToken, IfLock, Position, Revision, fields};

use crate::config::REQUEST_TIMEOUT_MAX_MS;
use crate::params::number;
use crate::problem::Problem;
use crate::{checks, percent};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const IF_LOCK: HeaderName = HeaderName::from_static("if-lock");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(crate) const REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("request-timeout-ms");
pub(crate) const X_LEADER: HeaderName = HeaderName::from_static("x-quorate-leader");
pub(crate) const X_LEVEL: HeaderName = HeaderName::from_static("x-quorate-level");
pub(crate) const X_MIN_POSITION: HeaderName = HeaderName::from_static("x-quorate-min-position");
pub(crate) const X_NODE: HeaderName = HeaderName::from_static("x-quorate-node");
pub(crate) const X_POSITION: HeaderName = HeaderName::from_static("x-quorate-position");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_TERM: HeaderName = HeaderName::from_static("x-quorate-term");
pub(crate) const X_USER: HeaderName = HeaderName::from_static("x-quorate-user");

/// The header's only value; two of them are an error.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("the header {name} is there twice")));
    }
    Ok(first)
}

/// The header's only value, if it is visible ASCII and blanks.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    single(headers, name)?
        .map(|value| value.to_str().map_err(|_| malformed(name, "visible ASCII characters")))
        .transpose()
}

pub(crate) fn malformed(name: &HeaderName, wanted: &str) -> Problem {
    Problem::bad_request(format!("the header {name} must be {wanted}"))
}

/// The caller's id for the request if it is a valid one, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    if let Ok(Some(value)) = single(headers, &X_REQUEST_ID)
        && (1..=KEY_BYTES_MAX).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return value.clone();
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let id = new_id().hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(id).expect("a uuid is visible ASCII")
}

/// A UUID of version 7. Its chance is from the thread's own generator: `Uuid::now_v7` asks the kernel each time.
fn new_id() -> uuid::Uuid {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(ms, &rand::random()).into_uuid()
}

/// `Request-Timeout-Ms`.
pub(crate) fn timeout(headers: &HeaderMap, default: Duration) -> Result<Duration, Problem> {
    let Some(text) = text(headers, &REQUEST_TIMEOUT_MS)? else {
        return Ok(default);
    };
    number(text).and_then(timeout_of_ms).ok_or_else(|| {
        malformed(
            &REQUEST_TIMEOUT_MS,
            &format!("a number from 1 to {REQUEST_TIMEOUT_MAX_MS}"),
        )
    })
}

/// None outside the contract's bounds.
pub(crate) fn timeout_of_ms(ms: u64) -> Option<Duration> {
    (1..=REQUEST_TIMEOUT_MAX_MS)
        .contains(&ms)
        .then(|| Duration::from_millis(ms))
}

/// `If-Match: "rev"`, `If-None-Match: *` and `If-Lock: NAME;token=N` of a write.
pub(crate) fn conditions(headers: &HeaderMap) -> Result<Conditions, Problem> {
    let if_match = if_match(headers)?;
    let if_none_match = match text(headers, &header::IF_NONE_MATCH)? {
        None => false,
        Some("*") => true,
        Some(_) => return Err(malformed(&header::IF_NONE_MATCH, "* on a write")),
    };
    let if_lock = if_lock(headers)?;
    Ok(Conditions {
        if_match,
        if_none_match,
        if_lock,
    })
}

fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    text(headers, &header::IF_MATCH)?
        .map(|value| entity_tag(value).ok_or_else(|| malformed(&header::IF_MATCH, "one strong tag, \"rev\"")))
        .transpose()
}

fn if_lock(headers: &HeaderMap) -> Result<Option<IfLock>, Problem> {
    text(headers, &IF_LOCK)?
        .map(|value| lock(value).ok_or_else(|| malformed(&IF_LOCK, "NAME;token=N")))
        .transpose()
}

/// A read has no use for the headers of writes, but one that does not parse is a slip all the same.
pub(crate) fn check_those_of_writes(headers: &HeaderMap) -> Result<(), Problem> {
    if_match(headers)?;
    if_lock(headers)?;
    idempotency_key(headers)?;
    Ok(())
}

/// A write has no use for the headers of reads; the same holds.
pub(crate) fn check_those_of_reads(headers: &HeaderMap) -> Result<(), Problem> {
    position(headers, &X_MIN_POSITION)?;
    Ok(())
}

/// For what is no entity and no command of the log, so that nothing could hold the condition against it.
pub(crate) fn no_conditions(headers: &HeaderMap) -> Result<(), Problem> {
    for name in [&header::IF_MATCH, &header::IF_NONE_MATCH, &IF_LOCK] {
        if headers.contains_key(name) {
            return Err(Problem::bad_request(format!(
                "the header {name} has no meaning here: the cluster's nodes have no revision, and no lock guards them"
            )));
        }
    }
    Ok(())
}

fn entity_tag(value: &str) -> Option<Revision> {
    let digits = value.strip_prefix('"')?.strip_suffix('"')?;
    number(digits).map(Revision)
}

/// `NAME;token=N`
pub(crate) fn lock(value: &str) -> Option<IfLock> {
    let (name, token) = value.split_once(';')?;
    let token = token.trim_start().strip_prefix("token=")?;
    let name = percent::decode(name.as_bytes())?;
    checks::name("If-Lock", &name).ok()?;
    // Not saturating: a token above u64 was never given, and must not equal one that was.
    if !token.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(IfLock {
        name,
        token: FencingToken(token.parse().ok()?),
    })
}

/// `If-None-Match` of a read: does the caller already have this revision? Compared weakly, over a
/// list, as RFC 9110 says; what is no tag matches nothing.
pub(crate) fn has_revision(headers: &HeaderMap, rev: u64) -> bool {
    let tag = format!("\"{rev}\"");
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .map(str::trim)
                .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
        })
}

pub(crate) fn position(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Position>, Problem> {
    text(headers, name)?
        .map(|value| {
            value
                .parse()
                .map_err(|_| malformed(name, "a position that a node gave"))
        })
        .transpose()
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = text(headers, &IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    fields::idempotency_key(key).map_err(Problem::refused)?;
    Ok(Some(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    #[test]
    fn conditions_parse_or_are_refused() {
        let given = conditions(&headers(&[
            (&header::IF_MATCH, "\"7\""),
            (&IF_LOCK, "%E5%BC%A0;token=12"),
        ]))
        .unwrap();
        assert_eq!(given.if_match, Some(Revision(7)));
        assert_eq!(
            given.if_lock,
            Some(IfLock {
                name: "张".to_owned(),
                token: FencingToken(12)
            })
        );
        assert!(
            conditions(&headers(&[(&header::IF_NONE_MATCH, "*")]))
                .unwrap()
                .if_none_match
        );
        for tag in ["7", "\"x\"", "W/\"7\"", "*", "\"7\", \"8\"", "\"\"", "\"", ""] {
            assert!(conditions(&headers(&[(&header::IF_MATCH, tag)])).is_err(), "{tag}");
        }
        for tag in ["\"7\"", "x", ""] {
            assert!(conditions(&headers(&[(&header::IF_NONE_MATCH, tag)])).is_err(), "{tag}");
        }
        for lock in [
            "",
            "a",
            "a;token=",
            "a;token=x",
            "a;token=-1",
            ";token=1",
            "a b;token=1",
            "a;token=99999999999999999999",
            "%zz;token=1",
        ] {
            assert!(conditions(&headers(&[(&IF_LOCK, lock)])).is_err(), "{lock}");
        }
        assert!(conditions(&headers(&[(&header::IF_MATCH, "\"7\""), (&header::IF_MATCH, "\"7\"")])).is_err());
    }

    #[test]
    fn reads_compare_tags_weakly() {
        for tag in ["\"7\"", "W/\"7\"", "\"6\", \"7\"", "*"] {
            assert!(has_revision(&headers(&[(&header::IF_NONE_MATCH, tag)]), 7), "{tag}");
        }
        for tag in ["\"70\"", "7", "\"6\""] {
            assert!(!has_revision(&headers(&[(&header::IF_NONE_MATCH, tag)]), 7), "{tag}");
        }
    }

    #[test]
    fn timeouts_are_1_to_60000() {
        let parse = |text: &str| timeout(&headers(&[(&REQUEST_TIMEOUT_MS, text)]), Duration::from_secs(5));
        assert_eq!(parse("1").unwrap(), Duration::from_millis(1));
        assert_eq!(parse("60000").unwrap(), Duration::from_secs(60));
        for text in ["0", "60001", "-1", "1.5", "", "soon"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn request_ids_are_kept_if_valid() {
        let kept = |value: &str| request_id(&headers(&[(&X_REQUEST_ID, value)])) == value;
        assert!(kept("r-1") && kept(&"x".repeat(128)));
        assert!(!kept("") && !kept("a b") && !kept("é") && !kept(&"x".repeat(129)));
    }
}
