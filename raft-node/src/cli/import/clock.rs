//! From a log's clock, which shows hours and minutes only, to times.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

use super::irc::Minutes;

const HALF_DAY: i64 = 12 * 60;

/// Follows the clock of a log from its first line.
#[derive(Debug)]
pub(crate) struct Clock {
    midnight: DateTime,
    /// What the last clock showed.
    shown: i64,
    /// Minutes to add to what is shown: half a day for each noon passed, a day for each midnight.
    ahead: i64,
}

impl Clock {
    pub(crate) fn new(date: Date) -> Self {
        Self {
            midnight: date.to_datetime(jiff::civil::Time::midnight()),
            shown: 0,
            ahead: 0,
        }
    }

    /// The time of the next line, as RFC 3339. A clock that steps back by at most 12 hours has
    /// passed noon (it counts to 12), by more midnight. A line without a clock has the time of the
    /// one before it; at the beginning, that is midnight.
    pub(crate) fn next(&mut self, shown: Option<Minutes>) -> String {
        if let Some(shown) = shown.map(i64::from) {
            let back = self.shown - shown;
            if back > HALF_DAY {
                self.ahead += 2 * HALF_DAY;
            } else if back > 0 {
                self.ahead += HALF_DAY;
            }
            self.shown = shown;
        }
        let time = self.midnight.saturating_add((self.ahead + self.shown).minutes());
        time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of lines that show these clocks, from 31 December 2004 on.
    fn times(shown: &[Option<Minutes>]) -> Vec<String> {
        let mut clock = Clock::new("2004-12-31".parse().expect("a date"));
        shown.iter().map(|shown| clock.next(*shown)).collect()
    }

    fn at(hours: Minutes, minutes: Minutes) -> Option<Minutes> {
        Some(hours * 60 + minutes)
    }

    #[test]
    fn a_clock_of_24_hours_passes_midnight() {
        assert_eq!(
            times(&[at(12, 1), at(13, 0), at(23, 59), at(0, 0), at(12, 0)]),
            [
                "2004-12-31T12:01:00.000Z",
                "2004-12-31T13:00:00.000Z",
                "2004-12-31T23:59:00.000Z",
                "2005-01-01T00:00:00.000Z",
                "2005-01-01T12:00:00.000Z",
            ]
        );
    }

    #[test]
    fn a_clock_of_12_hours_passes_noon() {
        assert_eq!(
            times(&[at(11, 30), at(12, 59), at(1, 0), at(11, 59), at(12, 0), at(1, 0)]),
            [
                "2004-12-31T11:30:00.000Z",
                "2004-12-31T12:59:00.000Z",
                "2004-12-31T13:00:00.000Z",
                "2004-12-31T23:59:00.000Z",
                "2005-01-01T00:00:00.000Z",
                "2005-01-01T01:00:00.000Z",
            ]
        );
    }

    #[test]
    fn a_step_back_of_exactly_12_hours_is_noon_and_one_minute_more_is_midnight() {
        assert_eq!(times(&[at(13, 0), at(1, 0)])[1], "2004-12-31T13:00:00.000Z");
        assert_eq!(times(&[at(13, 1), at(1, 0)])[1], "2005-01-01T01:00:00.000Z");
    }

    #[test]
    fn lines_without_a_clock_take_the_last_one() {
        assert_eq!(
            times(&[None, at(9, 5), None, at(9, 5)]),
            [
                "2004-12-31T00:00:00.000Z",
                "2004-12-31T09:05:00.000Z",
                "2004-12-31T09:05:00.000Z",
                "2004-12-31T09:05:00.000Z",
            ]
        );
    }
}
