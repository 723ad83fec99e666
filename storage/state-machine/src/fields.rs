//! What the other fields of requests may hold. The API checks them before anything is proposed;
//! apply checks them again, because a command may come from another node or another version.
//! What is wrong in itself is a `BadRequest`; what is too long is `TooLarge` where it is content
//! (text, attributes) and `BadRequest` where it is a label.

use crate::limits::{
    ATTRIBUTES_BYTES_MAX, DEVICE_BYTES_MAX, DISPLAY_NAME_BYTES_MAX, EMAIL_BYTES_MAX, KEY_BYTES_MAX, KIND_BYTES_MAX,
    LOCK_DATA_BYTES_MAX, LOCK_OWNER_BYTES_MAX, LOCK_TTL_MS_MAX, LOCK_TTL_MS_MIN, LOCK_WAIT_MS_MAX, SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN, TEXT_BYTES_MAX, TIME_MS_MAX, TITLE_BYTES_MAX,
};
use crate::names;
use crate::rejection::{Code, Rejection};

fn bad(detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::BadRequest, detail)
}

fn label(what: &str, value: &str, bytes_max: usize) -> Result<(), Rejection> {
    if value.len() > bytes_max {
        return Err(bad(format!(
            "{what} has at most {bytes_max} bytes, this one has {}",
            value.len()
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(format!("{what} has no control characters")));
    }
    Ok(())
}

/// 1–256 bytes without control characters.
pub fn display_name(value: &str) -> Result<(), Rejection> {
    if value.is_empty() {
        return Err(bad("display_name must not be empty"));
    }
    label("display_name", value, DISPLAY_NAME_BYTES_MAX)
}

/// Something on both sides of an `@`, without white space: whether mail arrives, only mail can tell.
pub fn email(value: &str) -> Result<(), Rejection> {
    label("email", value, EMAIL_BYTES_MAX)?;
    let parts = value
        .rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if !parts || value.chars().any(char::is_whitespace) {
        return Err(bad("email is not an address"));
    }
    Ok(())
}

/// At most 1024 bytes without control characters.
pub fn title(value: &str) -> Result<(), Rejection> {
    label("title", value, TITLE_BYTES_MAX)
}

/// A name of at most 64 bytes.
pub fn kind(value: &str) -> Result<(), Rejection> {
    names::check_length("kind", value, KIND_BYTES_MAX)
}

/// 1–128 bytes of any UTF-8.
pub fn client_id(value: &str) -> Result<(), Rejection> {
    if value.is_empty() || value.len() > KEY_BYTES_MAX {
        return Err(bad(format!(
            "client_id has 1 to {KEY_BYTES_MAX} bytes, this one has {}",
            value.len()
        )));
    }
    Ok(())
}

/// 1–128 visible ASCII characters.
pub fn idempotency_key(value: &str) -> Result<(), Rejection> {
    if value.is_empty() || value.len() > KEY_BYTES_MAX || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad(format!(
            "Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters"
        )));
    }
    Ok(())
}

/// At most 64 KiB; control characters are allowed.
pub fn text(value: &str) -> Result<(), Rejection> {
    if value.len() > TEXT_BYTES_MAX {
        let detail = format!("text has at most {TEXT_BYTES_MAX} bytes, this one has {}", value.len());
        return Err(Rejection::new(Code::TooLarge, detail));
    }
    Ok(())
}

/// A time that RFC 3339 can write.
pub fn sent_at_ms(value: u64) -> Result<(), Rejection> {
    if value > TIME_MS_MAX {
        return Err(bad("sent_at is after the year 9999"));
    }
    Ok(())
}

/// 1–128 bytes without control characters.
pub fn lock_owner(value: &str) -> Result<(), Rejection> {
    if value.is_empty() {
        return Err(bad("owner must not be empty"));
    }
    label("owner", value, LOCK_OWNER_BYTES_MAX)
}

pub fn lock_ttl_ms(value: u64) -> Result<(), Rejection> {
    range("ttl_ms", value, LOCK_TTL_MS_MIN, LOCK_TTL_MS_MAX)
}

pub fn lock_wait_ms(value: u64) -> Result<(), Rejection> {
    range("wait_ms", value, 0, LOCK_WAIT_MS_MAX)
}

pub fn session_ttl_ms(value: u64) -> Result<(), Rejection> {
    range("ttl_ms", value, SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX)
}

fn range(what: &str, value: u64, min: u64, max: u64) -> Result<(), Rejection> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(bad(format!("{what} is from {min} to {max}, this one is {value}")))
}

/// 1–128 bytes without control characters.
pub fn device(value: &str) -> Result<(), Rejection> {
    if value.is_empty() {
        return Err(bad("device must not be empty"));
    }
    label("device", value, DEVICE_BYTES_MAX)
}

/// The canonical text of a JSON value of at most 4 KiB that is not null.
pub(crate) fn canonical_lock_data(value: &str) -> Result<String, Rejection> {
    let text = crate::attributes::canonical_value(value).map_err(|reason| bad(format!("data: {reason}")))?;
    if text.len() > LOCK_DATA_BYTES_MAX {
        let detail = format!("data has at most {LOCK_DATA_BYTES_MAX} bytes, this has {}", text.len());
        return Err(Rejection::new(Code::TooLarge, detail));
    }
    Ok(text)
}

/// What a holder says of himself.
pub fn lock_data(value: &str) -> Result<(), Rejection> {
    canonical_lock_data(value).map(drop)
}

/// A JSON object of at most 16 KiB in canonical form.
pub fn attributes(value: &str) -> Result<(), Rejection> {
    canonical_attributes(value).map(drop)
}

/// The canonical text of the same object: keys sorted, no white space.
pub(crate) fn canonical_attributes(value: &str) -> Result<String, Rejection> {
    let mut object = crate::attributes::parse(value).map_err(|reason| bad(format!("attributes: {reason}")))?;
    let text = crate::attributes::write(&mut object);
    if text.len() > ATTRIBUTES_BYTES_MAX {
        let detail = format!(
            "attributes have at most {ATTRIBUTES_BYTES_MAX} bytes, these have {}",
            text.len()
        );
        return Err(Rejection::new(Code::TooLarge, detail));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert!(email("a@b").is_ok());
        for value in ["", "a", "@b", "a@", "a b@c", "a@b\n", &format!("a@{}", "b".repeat(253))] {
            assert_eq!(email(value).unwrap_err().code, Code::BadRequest, "{value:?}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        assert!(text(&"x".repeat(TEXT_BYTES_MAX)).is_ok());
        assert_eq!(text(&"x".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().code, Code::TooLarge);
        assert!(client_id(&"x".repeat(128)).is_ok());
        assert!(client_id(&"x".repeat(129)).is_err());
        assert!(client_id("").is_err());
        assert!(idempotency_key("a~!").is_ok());
        for key in ["", "a b", "é", "a\n", &"k".repeat(129)] {
            assert!(idempotency_key(key).is_err(), "{key:?}");
        }
        assert!(kind(&"k".repeat(64)).is_ok());
        assert!(kind(&"k".repeat(65)).is_err());
        assert!(title("").is_ok());
        assert!(title("a\tb").is_err());
        assert!(display_name("").is_err());
        assert!(sent_at_ms(TIME_MS_MAX + 1).is_err());
    }

    #[test]
    fn attributes_are_bounded_in_canonical_form() {
        let fits = format!(r#"{{ "a" : "{}" }}"#, "x".repeat(ATTRIBUTES_BYTES_MAX - 8));
        assert!(attributes(&fits).is_ok());
        let over = format!(r#"{{"a":"{}"}}"#, "x".repeat(ATTRIBUTES_BYTES_MAX - 7));
        assert_eq!(attributes(&over).unwrap_err().code, Code::TooLarge);
        for value in ["", "[]", "1", "null", "{", "{} x"] {
            assert_eq!(attributes(value).unwrap_err().code, Code::BadRequest, "{value:?}");
        }
    }
}
