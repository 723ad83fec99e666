//! What an IRC log says, line by line, read apart from the product's own importer.
//!
//! `[HH:MM] <nick> text` is a text, `[HH:MM]  * nick action` an action, anything else a line of
//! the system from `root`. Bytes that are not UTF-8 are replaced.

/// One line of a log, as the room must show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub kind: &'static str,
    pub sender: String,
    pub text: String,
    /// Minutes since midnight as the line says, where it says any.
    pub clock: Option<u32>,
}

/// All lines of a log. The end of the file ends a line; it does not begin another.
pub fn parse(log: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(log);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        Vec::new()
    } else {
        text.split('\n').map(line).collect()
    }
}

fn line(whole: &str) -> Line {
    spoken(whole).unwrap_or_else(|| Line {
        kind: "system",
        sender: "root".to_owned(),
        text: whole.to_owned(),
        clock: None,
    })
}

/// A text or an action, if the line is one.
fn spoken(whole: &str) -> Option<Line> {
    let (stamp, rest) = whole.split_once("] ")?;
    let (hours, minutes) = stamp.strip_prefix('[')?.split_once(':')?;
    let clock = Some(two_digits(hours, 24)? * 60 + two_digits(minutes, 60)?);
    if let Some(rest) = rest.strip_prefix('<') {
        let (nick, text) = rest.split_once("> ")?;
        let sender = name(nick)?;
        return Some(Line {
            kind: "text",
            sender,
            text: text.to_owned(),
            clock,
        });
    }
    let (nick, action) = rest.strip_prefix(" * ")?.split_once(' ')?;
    Some(Line {
        kind: "action",
        sender: name(nick)?,
        text: action.to_owned(),
        clock,
    })
}

fn name(nick: &str) -> Option<String> {
    let trimmed = nick.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

fn two_digits(digits: &str, below: u32) -> Option<u32> {
    let whole = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| whole && *number < below)
}

/// For each line that shows a clock, the minutes since the midnight before the first line. A clock
/// that steps back by at most twelve hours has passed noon, by more midnight.
pub fn minutes(lines: &[Line]) -> Vec<Option<u32>> {
    let (mut passed, mut before) = (0, None);
    let mut of = |line: &Line| {
        let clock = line.clock?;
        if let Some(before) = before
            && clock < before
        {
            passed += if before - clock <= 12 * 60 { 12 * 60 } else { 24 * 60 };
        }
        before = Some(clock);
        Some(clock + passed)
    };
    lines.iter().map(&mut of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(log: &[u8]) -> (&'static str, String, String) {
        let lines = parse(log);
        assert_eq!(lines.len(), 1);
        (lines[0].kind, lines[0].sender.clone(), lines[0].text.clone())
    }

    #[test]
    fn every_line_is_one_message() {
        let own = |kind, sender: &str, text: &str| (kind, sender.to_owned(), text.to_owned());
        assert_eq!(
            one(b"[09:05] <ann> hello  there \n"),
            own("text", "ann", "hello  there ")
        );
        assert_eq!(
            one(b"[09:05] <[Nick]|away > x> y\n"),
            own("text", "[Nick]|away", "x> y")
        );
        assert_eq!(one(b"[09:05]  * ann waves twice"), own("action", "ann", "waves twice"));
        assert_eq!(one(b"[09:05] <ann> "), own("text", "ann", ""));
        assert_eq!(
            one(b"=== ann [~a@b.example] has joined"),
            own("system", "root", "=== ann [~a@b.example] has joined")
        );
        assert_eq!(one(b"[25:05] <ann> x"), own("system", "root", "[25:05] <ann> x"));
        assert_eq!(one(b"[09:05] <j\xf6rg> \xff"), own("text", "j\u{fffd}rg", "\u{fffd}"));
        assert_eq!(parse(b"a\n\nb\n").len(), 3);
        assert_eq!(parse(b"").len(), 0);
    }

    #[test]
    fn a_clock_that_steps_back_has_passed_noon_or_midnight() {
        let at = |log: &[u8]| minutes(&parse(log));
        let time = |h: u32, m: u32| Some(h * 60 + m);
        let past_noon = at(b"[11:59] <a> x\n=== b\n[12:01] <a> x\n[01:00] <a> x\n");
        assert_eq!(past_noon, [time(11, 59), None, time(12, 1), time(13, 0)]);
        let past_midnight = at(b"[23:00] <a> x\n[00:10] <a> x\n[00:10] <a> x\n");
        assert_eq!(past_midnight, [time(23, 0), time(24, 10), time(24, 10)]);
    }
}
