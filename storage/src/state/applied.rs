//! How [`Applied`] lies in the state: under a key of the store's own, with kind and version.

use quorate_state_machine::Fatal;
use quorate_state_machine::codec::{self, Kind};

use super::{Applied, OWN_SPACE};

const VERSION: u8 = 1;

pub(super) const KEY: &[u8] = &[OWN_SPACE[0], OWN_SPACE[1], OWN_SPACE[2], OWN_SPACE[3], b'a'];

pub(super) fn encode(applied: &Applied) -> Vec<u8> {
    codec::encode(Kind::Applied, VERSION, applied)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Applied, Fatal> {
    codec::decode(Kind::Applied, VERSION, bytes).map_err(|error| Fatal::Corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogId;

    /// What older programs have written must stay readable: these bytes never change.
    #[test]
    fn golden_bytes() {
        let last = Some(LogId {
            term: 300,
            leader: 2,
            index: 70_000,
        });
        let applied = Applied {
            last,
            membership: b"opaque".to_vec(),
        };
        let text: String = encode(&applied).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "430101fb2c0102fc70110100066f7061717565");
        assert_eq!(decode(&encode(&applied)).unwrap(), applied);
        assert_eq!(KEY, b"\0\0\0\0a");
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = encode(&Applied::default());
        bytes[1] = 9;
        assert!(matches!(decode(&bytes), Err(Fatal::Corrupt(_))));
    }
}
