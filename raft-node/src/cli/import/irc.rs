//! What one line of an IRC log says. Pure: the caller reads files and sends messages.

/// Minutes since midnight, as the line's clock shows them.
pub(crate) type Minutes = u16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// None where the line shows no clock.
    pub(crate) clock: Option<Minutes>,
    pub(crate) said: Said<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// `[HH:MM] <nick> text`
    Text { nick: &'a str, text: &'a str },
    /// `[HH:MM]  * nick action`; the text without the nick.
    Action { nick: &'a str, text: &'a str },
    /// Anything else: the whole line, from the server.
    System { text: &'a str },
}

/// Parses a line without its end. Every line is something: there is no error. Nicks are trimmed,
/// texts are not: one space ends the nick, and what follows is the text.
pub(crate) fn parse(line: &str) -> Line<'_> {
    let system = |clock| Line {
        clock,
        said: Said::System { text: line },
    };
    let Some((clock, rest)) = split_clock(line) else {
        return system(None);
    };
    let said = text(rest).or_else(|| action(rest));
    said.map_or_else(
        || system(Some(clock)),
        |said| Line {
            clock: Some(clock),
            said,
        },
    )
}

/// `[HH:MM]` and what follows it.
fn split_clock(line: &str) -> Option<(Minutes, &str)> {
    let (hours, rest) = two_digits(line.strip_prefix('[')?)?;
    let (minutes, rest) = two_digits(rest.strip_prefix(':')?)?;
    let rest = rest.strip_prefix(']')?;
    (hours < 24 && minutes < 60).then_some((hours * 60 + minutes, rest))
}

fn two_digits(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(2)?;
    // `parse` alone would also take "+1".
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

/// ` <nick> text`. Without the space that ends the nick it is no such line: there is no text.
fn text(rest: &str) -> Option<Said<'_>> {
    let (nick, text) = rest.strip_prefix(" <")?.split_once('>')?;
    let text = text.strip_prefix(' ')?;
    let nick = nick.trim();
    (!nick.is_empty()).then_some(Said::Text { nick, text })
}

/// `  * nick action`
fn action(rest: &str) -> Option<Said<'_>> {
    let rest = rest.strip_prefix("  * ")?;
    let (nick, text) = rest.split_once(' ')?;
    let nick = nick.trim();
    (!nick.is_empty()).then_some(Said::Action { nick, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(clock: Minutes, nick: &'static str, text: &'static str) -> Line<'static> {
        Line {
            clock: Some(clock),
            said: Said::Text { nick, text },
        }
    }

    fn action(clock: Minutes, nick: &'static str, text: &'static str) -> Line<'static> {
        Line {
            clock: Some(clock),
            said: Said::Action { nick, text },
        }
    }

    #[test]
    fn what_people_say() {
        for (line, parsed) in [
            ("[12:18] <ann> good morning", text(738, "ann", "good morning")),
            ("[00:00] <a> b", text(0, "a", "b")),
            ("[23:59] <|b|> x", text(1439, "|b|", "x")),
            // Spaces of the text are its own; spaces of the nick are padding.
            ("[12:18] <ann>  two spaces ", text(738, "ann", " two spaces ")),
            ("[12:18] <bob[] > padded", text(738, "bob[]", "padded")),
            ("[12:18] <ann> ", text(738, "ann", "")),
            // Only the first bracket ends the nick.
            ("[12:18] <ann> a > b", text(738, "ann", "a > b")),
            (
                "[12:18] <ann> [12:19] <bob> quoted",
                text(738, "ann", "[12:19] <bob> quoted"),
            ),
            ("[12:18] <ann> * bob waves", text(738, "ann", "* bob waves")),
            ("[12:18] <张三> 你好", text(738, "张三", "你好")),
            (
                "[12:18] <a b> a nick with a space",
                text(738, "a b", "a nick with a space"),
            ),
        ] {
            assert_eq!(parse(line), parsed, "{line:?}");
        }
    }

    #[test]
    fn what_people_do() {
        for (line, parsed) in [
            ("[09:02]  * ann waves at bob", action(542, "ann", "waves at bob")),
            ("[09:02]  * ann  waves", action(542, "ann", " waves")),
            ("[09:02]  * ann ", action(542, "ann", "")),
        ] {
            assert_eq!(parse(line), parsed, "{line:?}");
        }
    }

    #[test]
    fn anything_else_is_the_servers_and_whole() {
        for (line, clock) in [
            ("=== ann [~ann@example.org]  has joined #chat []", None),
            ("=== ann is now known as ann|away", None),
            ("", None),
            (" ", None),
            ("[12:18]", Some(738)),
            ("[12:18] ", Some(738)),
            ("[12:18] * ann waves", Some(738)),
            ("[12:18]  *ann waves", Some(738)),
            ("[12:18]  * ", Some(738)),
            ("[12:18]  * ann", Some(738)),
            ("[12:18] <ann>", Some(738)),
            ("[12:18] <> nobody", Some(738)),
            ("[12:18] < > nobody", Some(738)),
            ("[12:18] <ann>text", Some(738)),
            ("[12:18] <ann text", Some(738)),
            ("[12:18]  <ann> text", Some(738)),
            ("[12:18] ann joined", Some(738)),
            ("[24:00] <ann> text", None),
            ("[12:60] <ann> text", None),
            ("[1:18] <ann> text", None),
            ("[+1:18] <ann> text", None),
            ("[12:18 <ann> text", None),
            (" [12:18] <ann> text", None),
            ("[12:1é] <ann> text", None),
            ("<ann> text", None),
        ] {
            assert_eq!(
                parse(line),
                Line {
                    clock,
                    said: Said::System { text: line }
                },
                "{line:?}"
            );
        }
    }
}
