//! Who is counted together where requests are limited by caller.

use http::HeaderMap;
use http::header;
use quorate_state_machine::limits::NAME_BYTES_MAX;

use crate::headers::X_USER;
use crate::percent;

/// Whose bucket a request is counted in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RateKey {
    User(Box<str>),
    /// All who name nobody properly: they are refused later, and must not get a bucket for each
    /// slip that they invent.
    Nobody,
}

/// The bucket of this request; none for root, who is not limited. A session's token must be looked
/// up here and give its user: the token itself is no key, because anybody can invent tokens.
pub(crate) fn rate_key(headers: &HeaderMap) -> Option<RateKey> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Some(RateKey::Nobody);
    }
    // Decoded: `%61nn` and `ann` are one user. Two values are refused later.
    let user = percent::decode(headers.get(X_USER)?.as_bytes());
    Some(match user {
        Some(user) if (1..=NAME_BYTES_MAX).contains(&user.len()) => RateKey::User(user.into()),
        _ => RateKey::Nobody,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &header::HeaderName, value: &str) -> Option<RateKey> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        rate_key(&headers)
    }

    #[test]
    fn a_user_has_one_bucket_however_he_is_written_and_root_none() {
        assert_eq!(rate_key(&HeaderMap::new()), None);
        assert_eq!(key(&X_USER, "ann"), Some(RateKey::User("ann".into())));
        assert_eq!(key(&X_USER, "%61n%6E"), Some(RateKey::User("ann".into())));
    }

    #[test]
    fn whoever_names_nobody_shares_one_bucket() {
        for slip in ["", "%", "%zz", "%ff", &"x".repeat(129)] {
            assert_eq!(key(&X_USER, slip), Some(RateKey::Nobody), "{slip}");
        }
        assert_eq!(key(&header::AUTHORIZATION, "Bearer x"), Some(RateKey::Nobody));
    }
}
