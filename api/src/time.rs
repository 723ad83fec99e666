//! Times on the wire: RFC 3339, UTC, milliseconds. Inside: milliseconds since 1970.

use jiff::Timestamp;

/// `2026-01-31T12:00:00.000Z`. What lies beyond the year 9999 is shown as its last moment.
pub(crate) fn format_ms(ms: u64) -> String {
    let timestamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", timestamp.unwrap_or(Timestamp::MAX))
}

/// RFC 3339 with any offset, to milliseconds since 1970 (negative before); finer digits are cut
/// off. None for anything else: jiff alone would take more forms than the contract names.
pub(crate) fn parse_ms(text: &str) -> Option<i64> {
    if !is_rfc3339(text.as_bytes()) {
        return None;
    }
    text.parse::<Timestamp>()
        .ok()
        .map(|timestamp| timestamp.as_millisecond())
}

/// `YYYY-MM-DDTHH:MM:SS[.digits](Z|±HH:MM)`; the ranges of the numbers are jiff's to check.
fn is_rfc3339(text: &[u8]) -> bool {
    let matches = |text: &[u8], pattern: &[u8]| {
        text.len() == pattern.len()
            && text.iter().zip(pattern).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                b'+' => matches!(byte, b'+' | b'-'),
                other => byte == other,
            })
    };
    let Some((head, mut tail)) = text.split_at_checked(19) else {
        return false;
    };
    if let [b'.', rest @ ..] = tail {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return false;
        }
        tail = &rest[digits..];
    }
    matches(head, b"0000-00-00T00:00:00") && (matches!(tail, [b'Z' | b'z']) || matches(tail, b"+00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        assert_eq!(format_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_ms(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(parse_ms("2026-01-01T00:00:00.123Z"), Some(1_767_225_600_123));
        assert_eq!(parse_ms("2026-01-01T02:00:00.1239+02:00"), Some(1_767_225_600_123));
        assert_eq!(parse_ms("1969-12-31T23:59:59Z"), Some(-1000));
        assert!(format_ms(u64::MAX).starts_with("9999-12-31T") || format_ms(u64::MAX).starts_with("9999-12-30T"));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "now",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "20260101T000000Z",
            "2026-01-01T00:00:00.Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00+0200",
            "2026-01-01T00:00:00Z[UTC]",
            "1767225600123",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
