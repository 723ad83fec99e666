//! One line of a script: `[@caller] verb word … name=value …`. Values with spaces stand in quotes,
//! with the escapes of Rust; `"x"*70000` repeats. `|` separates the messages of a batch.

use std::collections::BTreeMap;

#[derive(Debug, Default, Clone)]
pub(crate) struct Line {
    pub(crate) caller: Option<String>,
    pub(crate) verb: String,
    pub(crate) parts: Vec<Part>,
}

/// What stands between two `|`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Part {
    pub(crate) words: Vec<String>,
    pub(crate) named: BTreeMap<String, String>,
}

impl Part {
    /// Takes a named value, so that what nobody takes can be complained about.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.named.remove(name)
    }

    pub(crate) fn number(&mut self, name: &str) -> Option<u64> {
        self.take(name).map(|value| {
            value
                .parse()
                .unwrap_or_else(|_| panic!("{name}={value} is not a number"))
        })
    }
}

const OPTIONS: [&str; 9] = [
    "at",
    "wall",
    "key",
    "fingerprint",
    "if_match",
    "if_none_match",
    "if_lock",
    "events",
    "times",
];

impl Line {
    pub(crate) fn parse(text: &str) -> Line {
        let mut line = Line {
            parts: vec![Part::default()],
            ..Line::default()
        };
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, value, after) = token(rest);
            rest = after.trim_start();
            // What is said about the whole command may stand anywhere.
            let whole = name.is_some_and(|name| OPTIONS.contains(&name));
            let part = if whole {
                line.parts.first_mut()
            } else {
                line.parts.last_mut()
            };
            let part = part.expect("there is always one part");
            match name {
                Some(name) => {
                    assert!(
                        part.named.insert(name.to_owned(), value).is_none(),
                        "{name} stands twice in {text}"
                    );
                }
                None if value == "|" => line.parts.push(Part::default()),
                None if line.verb.is_empty() && line.caller.is_none() && value.starts_with('@') => {
                    line.caller = Some(value[1..].to_owned());
                }
                None if line.verb.is_empty() => line.verb = value,
                None => part.words.push(value),
            }
        }
        line
    }
}

/// The next token: its name if it has one, its value, and what follows.
fn token(text: &str) -> (Option<&str>, String, &str) {
    let name_end = text
        .find(|c: char| !c.is_ascii_lowercase() && c != '_')
        .unwrap_or(text.len());
    let (name, text) = match text[name_end..].strip_prefix('=') {
        Some(rest) if name_end > 0 => (Some(&text[..name_end]), rest),
        _ => (None, text),
    };
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return (name, text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    let end = loop {
        match chars.next().expect("a quote has an end") {
            (at, '"') => break at + 1,
            (_, '\\') => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    let digits: String = chars
                        .by_ref()
                        .map(|(_, c)| c)
                        .skip(1)
                        .take_while(|c| *c != '}')
                        .collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                }
                other => other,
            }),
            (_, c) => value.push(c),
        }
    };
    let rest = &quoted[end..];
    match rest.strip_prefix('*') {
        Some(times) => {
            let end = times.find(char::is_whitespace).unwrap_or(times.len());
            (name, value.repeat(times[..end].parse().unwrap()), &times[end..])
        }
        None => (name, value, rest),
    }
}
