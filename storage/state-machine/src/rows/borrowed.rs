//! A message's row as a page reads it: its texts stay where they lie.

use bincode::BorrowDecode;

use super::{MessageHead, MessageRow, Row};
use crate::codec::{self, DecodeError};
use crate::entity::MessageRef;
use crate::ids::{Revision, Seq, UserId};

/// The fields of [`MessageRow`], in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorrowDecode)]
pub(crate) struct MessageRowRef<'a> {
    pub(crate) head: MessageHead,
    pub(crate) rev: Revision,
    pub(crate) sent_at_ms: u64,
    pub(crate) sender: UserId,
    pub(crate) sender_name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) client_id: Option<&'a str>,
    pub(crate) reply_to: Option<Seq>,
    pub(crate) attributes: Option<&'a str>,
    pub(crate) text: Option<&'a str>,
    pub(crate) edited_at_ms: Option<u64>,
    pub(crate) redacted_at_ms: Option<u64>,
}

impl<'a> MessageRowRef<'a> {
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        codec::borrow_decode(MessageRow::KIND, MessageRow::VERSION, bytes)
    }

    pub(crate) fn entity(self, room: &'a str, seq: Seq) -> MessageRef<'a> {
        MessageRef {
            room,
            seq,
            rev: self.rev,
            sender: self.sender_name,
            sent_at_ms: self.sent_at_ms,
            kind: self.kind,
            text: self.text,
            client_id: self.client_id,
            reply_to: self.reply_to,
            attributes: self.attributes,
            edited_at_ms: self.edited_at_ms,
            redacted_at_ms: self.redacted_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z\"\\\\é刚😀\u{0}\n]{0,40}", Just("x".repeat(70_000))]
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, any::<u64>()]
    }

    prop_compose! {
        fn row()(
            (created, sent_at_max_ms, rev, sent_at_ms, sender) in (number(), number(), number(), number(), number()),
            (sender_name, kind) in (text(), text()),
            (client_id, attributes, text) in proptest::option::of((text(), text(), text())).prop_map(|texts| match texts {
                Some((a, b, c)) => (Some(a), Some(b), Some(c)),
                None => (None, None, None),
            }),
            (reply_to, edited_at_ms, redacted_at_ms) in (
                proptest::option::of(number()),
                proptest::option::of(number()),
                proptest::option::of(number()),
            ),
        ) -> MessageRow {
            MessageRow {
                head: MessageHead { created_rev: Revision(created), sent_at_max_ms },
                rev: Revision(rev),
                sent_at_ms,
                sender: UserId(sender),
                sender_name,
                kind,
                client_id,
                reply_to: reply_to.map(Seq),
                attributes,
                text,
                edited_at_ms,
                redacted_at_ms,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_row_is_read_alike_in_both_ways(row in row(), damage in any::<(usize, u8)>(), cut in any::<usize>()) {
            let bytes = row.to_bytes();
            let borrowed = MessageRowRef::from_bytes(&bytes).unwrap();
            prop_assert_eq!((borrowed.head, borrowed.sender), (row.head, row.sender));
            let message = row.entity("r".to_owned(), Seq(1));
            prop_assert_eq!(message.borrowed(), borrowed.entity("r", Seq(1)));
            prop_assert_eq!(borrowed.entity("r", Seq(1)).to_message(), message);

            // Damaged bytes are refused by both, or are the same other row to both.
            let mut damaged = bytes.clone();
            let place = damage.0 % damaged.len();
            damaged[place] ^= damage.1;
            for bytes in [&damaged[..], &bytes[..cut % bytes.len()], &[&bytes[..], &[0]].concat()] {
                let owned = MessageRow::from_bytes(bytes).map(|row| row.entity("r".to_owned(), Seq(1)));
                let borrowed = MessageRowRef::from_bytes(bytes).map(|row| row.entity("r", Seq(1)).to_message());
                prop_assert_eq!(owned.ok(), borrowed.ok());
            }
        }
    }
}
