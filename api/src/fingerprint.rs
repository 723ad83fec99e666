//! What an idempotency key stands for: a hash of everything that makes two requests the same one.
//! It is replicated, so every node and every version must compute it alike.

use bytes::Bytes;
use http::Method;
use quorate_state_machine::Conditions;
use xxhash_rust::xxh3::Xxh3;

/// Never changes: a retry may reach a node of another version. It keys the hash, so that a
/// fingerprint of this use equals none of another.
const SEED: u64 = 0x71_75_6f_72_61_74_65_31;

pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) conditions: &'a Conditions,
    pub(crate) body: &'a Bytes,
}

/// `redirect` is left out: it chooses a way, not a request.
pub(crate) fn of(request: &Request<'_>) -> u128 {
    let mut hash = Xxh3::with_seed(SEED);
    // Each part with its length, so that no two lists of parts run together to the same bytes.
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(request.method.as_str().as_bytes());
    part(request.path.as_bytes());
    for pair in request
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        if pair != "redirect" && !pair.starts_with("redirect=") {
            part(pair.as_bytes());
        }
    }
    let Conditions {
        if_match,
        if_none_match,
        if_lock,
    } = request.conditions;
    part(
        if_match
            .map_or(String::new(), |rev| format!("if-match {rev}"))
            .as_bytes(),
    );
    part(if *if_none_match { b"if-none-match" } else { b"" });
    part(
        if_lock
            .as_ref()
            .map_or(String::new(), |lock| format!("{} {}", lock.token, lock.name))
            .as_bytes(),
    );
    part(request.body);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use quorate_state_machine::{FencingToken, IfLock, Revision};

    use super::*;

    fn fingerprint(method: Method, target: &str, conditions: &Conditions, body: &'static str) -> u128 {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        of(&Request {
            method: &method,
            path,
            query,
            conditions,
            body: &Bytes::from_static(body.as_bytes()),
        })
    }

    /// Golden: another value here means that retries across versions would be refused.
    #[test]
    fn it_never_changes() {
        let given = fingerprint(
            Method::POST,
            "/v1/rooms/a/messages",
            &Conditions::default(),
            r#"{"text":"hi"}"#,
        );
        assert_eq!(given, GOLDEN);
    }

    const GOLDEN: u128 = 113_094_964_998_861_712_533_033_234_471_424_070_388;

    #[test]
    fn every_part_counts_but_redirect() {
        let none = Conditions::default();
        let base = fingerprint(Method::PUT, "/a", &none, "b");
        assert_eq!(base, fingerprint(Method::PUT, "/a?redirect=true", &none, "b"));
        let lock = |token| {
            Some(IfLock {
                name: "l".to_owned(),
                token: FencingToken(token),
            })
        };
        let all = [
            base,
            fingerprint(Method::POST, "/a", &none, "b"),
            fingerprint(Method::PUT, "/ab", &none, ""),
            fingerprint(Method::PUT, "/a?b", &none, ""),
            fingerprint(Method::PUT, "/a", &none, ""),
            fingerprint(
                Method::PUT,
                "/a",
                &Conditions {
                    if_match: Some(Revision(1)),
                    ..none.clone()
                },
                "b",
            ),
            fingerprint(
                Method::PUT,
                "/a",
                &Conditions {
                    if_none_match: true,
                    ..none.clone()
                },
                "b",
            ),
            fingerprint(
                Method::PUT,
                "/a",
                &Conditions {
                    if_lock: lock(1),
                    ..none.clone()
                },
                "b",
            ),
            fingerprint(
                Method::PUT,
                "/a",
                &Conditions {
                    if_lock: lock(2),
                    ..none.clone()
                },
                "b",
            ),
        ];
        let distinct: std::collections::BTreeSet<u128> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
