//! Paths and headers: names percent-encoded, so that any name of the contract can stand in them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::Error;

/// Everything outside RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A path below `/v1` with each segment encoded.
///
/// # Errors
/// `.` and `..` are names, but RFC 3986 removes them from a path even when they are encoded, so
/// they would name something else; so would an empty one.
pub(crate) fn path(segments: &[&str]) -> Result<String, Error> {
    let mut path = String::from("/v1");
    for segment in segments {
        if matches!(*segment, "" | "." | "..") {
            return Err(Error::Invalid(format!("{segment:?} cannot stand in a path")));
        }
        path.push('/');
        path.push_str(&encode(segment));
    }
    Ok(path)
}

/// Appends `?a=b&c=d` for the parameters that are there.
pub(crate) fn with_query(mut path: String, parameters: &[(&str, Option<String>)]) -> String {
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(name);
            path.push('=');
            path.push_str(&encode(value));
            separator = '&';
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_outside_unreserved_is_encoded() {
        assert_eq!(path(&["users", "[Nick]|away"]).unwrap(), "/v1/users/%5BNick%5D%7Caway");
        assert_eq!(
            path(&["rooms", "张三", "members"]).unwrap(),
            "/v1/rooms/%E5%BC%A0%E4%B8%89/members"
        );
        assert_eq!(
            path(&["rooms", "a-b_c.d~e%?#&"]).unwrap(),
            "/v1/rooms/a-b_c.d~e%25%3F%23%26"
        );
    }

    #[test]
    fn segments_that_would_change_the_path_are_refused() {
        for name in ["", ".", ".."] {
            assert!(matches!(path(&["users", name]), Err(Error::Invalid(_))), "{name:?}");
        }
    }

    #[test]
    fn absent_parameters_leave_nothing() {
        let none: Option<String> = None;
        assert_eq!(with_query("/v1/users".into(), &[("limit", none.clone())]), "/v1/users");
        let some = [
            ("limit", none),
            ("at", Some("2004-11-15T12:18:00Z".into())),
            ("x", Some("1".into())),
        ];
        assert_eq!(with_query("/m".into(), &some), "/m?at=2004-11-15T12%3A18%3A00Z&x=1");
    }
}
