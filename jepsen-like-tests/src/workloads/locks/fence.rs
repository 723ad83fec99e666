//! A resource outside the cluster that is guarded by tokens: it keeps the greatest one it has seen of each lock and
//! refuses smaller ones.

use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Debug, Default)]
pub(super) struct Fence {
    /// Held for one comparison. By lock: the greatest token, and how many writes were accepted.
    seen: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Fence {
    /// The place of this write among those accepted; none where a greater token was seen.
    pub(super) fn write(&self, lock: &str, token: u64) -> Option<u64> {
        let mut seen = self.seen.lock().expect("no holder of this lock panics");
        let (greatest, accepted) = seen.entry(lock.to_owned()).or_default();
        if token < *greatest {
            return None;
        }
        *greatest = token;
        *accepted += 1;
        Some(*accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_token_is_refused() {
        let fence = Fence::default();
        let written: Vec<Option<u64>> = [3, 3, 7, 5, 7].map(|token| fence.write("l", token)).into();
        assert_eq!(written, [Some(1), Some(2), Some(3), None, Some(4)]);
        assert_eq!(fence.write("other", 1), Some(1));
    }
}
