//! Times on the wire: RFC 3339, UTC, milliseconds. Inside: milliseconds since 1970.

use jiff::Timestamp;
use jiff::tz::Offset;

/// `2026-01-31T12:00:00.000Z`. What lies beyond the year 9999 is shown as its last moment.
pub(crate) struct Rfc3339([u8; 24]);

impl Rfc3339 {
    pub(crate) fn of_ms(ms: u64) -> Self {
        let timestamp = i64::try_from(ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or(Timestamp::MAX);
        let time = Offset::UTC.to_datetime(timestamp);
        // jiff finds the numbers; its text would take four times as long as that.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut number = |place: usize, digits: usize, mut number: i16| {
            for digit in text[place..place + digits].iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).expect("a time after 1970 has no negative numbers");
                number /= 10;
            }
        };
        number(0, 4, time.year());
        number(5, 2, time.month().into());
        number(8, 2, time.day().into());
        number(11, 2, time.hour().into());
        number(14, 2, time.minute().into());
        number(17, 2, time.second().into());
        number(20, 3, time.millisecond());
        Self(text)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and signs are ASCII")
    }
}

/// The same as a string of its own.
pub(crate) fn format_ms(ms: u64) -> String {
    Rfc3339::of_ms(ms).as_str().to_owned()
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

    /// jiff's own text is what it has to be.
    #[test]
    fn any_time_is_written_as_the_library_writes_it() {
        let by_jiff = |ms: u64| {
            let timestamp = i64::try_from(ms)
                .ok()
                .and_then(|ms| Timestamp::from_millisecond(ms).ok());
            format!("{:.3}", timestamp.unwrap_or(Timestamp::MAX))
        };
        let day = 86_400_000;
        // Every day of four centuries, and moments around its ends; then ever larger steps up to the end of time.
        let days = (0..400 * 366).flat_map(|n| [0, 1, 999, 59_999, 3_599_999, day - 1].map(|ms| n * day + ms));
        let steps = (0..64).flat_map(|bit| (0..50).map(move |n: u64| (1_u64 << bit).wrapping_mul(2 * n + 1)));
        let last = u64::try_from(Timestamp::MAX.as_millisecond()).unwrap();
        let ends = [last - 1, last, last + 1, u64::MAX >> 1, (u64::MAX >> 1) + 1, u64::MAX];
        for ms in days.chain(steps).chain(ends) {
            assert_eq!(format_ms(ms), by_jiff(ms), "{ms}");
        }
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
