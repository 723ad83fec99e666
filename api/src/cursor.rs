//! The opaque cursor of a list: the last name of the page before, in hex behind a letter that names
//! the list, so that a cursor of another list, or an invented one, is refused.

use quorate_state_machine::Revision;

use crate::problem::Problem;

#[derive(Debug, Clone, Copy)]
pub(crate) enum List {
    Users,
    Rooms,
    Members,
    /// Of a message's earlier texts: the last one's rev stands for the name.
    Revisions,
    Locks,
}

impl List {
    fn letter(self) -> char {
        match self {
            List::Users => 'u',
            List::Rooms => 'r',
            List::Members => 'm',
            List::Revisions => 'v',
            List::Locks => 'l',
        }
    }
}

pub(crate) fn encode(list: List, last: &str) -> String {
    use std::fmt::Write;
    let mut cursor = String::with_capacity(1 + 2 * last.len());
    cursor.push(list.letter());
    for byte in last.bytes() {
        write!(cursor, "{byte:02x}").expect("writing to a string cannot fail");
    }
    cursor
}

pub(crate) fn decode(list: List, cursor: &str) -> Result<String, Problem> {
    let bad = || Problem::bad_request("the cursor is not one of this list");
    let hex = cursor.strip_prefix(list.letter()).ok_or_else(bad)?;
    if hex.is_empty() || hex.len() % 2 != 0 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let bytes = hex.as_bytes().chunks_exact(2).map(|pair| {
        let digits = std::str::from_utf8(pair).expect("hex digits are ASCII");
        u8::from_str_radix(digits, 16).expect("two hex digits are a byte")
    });
    let name = String::from_utf8(bytes.collect()).map_err(|_| bad())?;
    crate::checks::name("cursor", &name).map_err(|_| bad())?;
    Ok(name)
}

/// What a decoded cursor of [`List::Revisions`] says.
pub(crate) fn revision(last: &str) -> Result<Revision, Problem> {
    let rev = last
        .parse()
        .map_err(|_| Problem::bad_request("the cursor is not one of this list"))?;
    Ok(Revision(rev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_revisions_is_a_number() {
        let last = decode(List::Revisions, &encode(List::Revisions, "17")).unwrap();
        assert_eq!(revision(&last).unwrap(), Revision(17));
        for bad in ["a", "-1", "18446744073709551616"] {
            assert!(revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_cursor_of_this_list_is_taken() {
        assert_eq!(decode(List::Users, &encode(List::Users, "张三")).unwrap(), "张三");
        for bad in [
            "",
            "u",
            "u6",
            "uzz",
            "u+1",
            "uff",
            "u20",
            "61",
            &encode(List::Rooms, "a"),
            "x61",
        ] {
            assert!(decode(List::Users, bad).is_err(), "{bad}");
        }
    }
}
