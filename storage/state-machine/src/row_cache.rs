//! Rows that apply reads again and again: the callers, the rooms, their tails, the memberships, the clock. They are
//! remembered beyond one write of the state, because the next entries mostly want the same ones.

#[expect(
    clippy::disallowed_types,
    reason = "it is only asked for keys: its order decides nothing"
)]
use std::collections::HashMap;

use crate::view::Change;
#[cfg(doc)]
use crate::view::Overlay;

/// The working set of some hundred rooms and their senders; at most 5 MiB with keys. When it is full it is emptied:
/// what is still wanted is back after one entry, and what is not is gone.
const ROWS_MAX: usize = 4096;
/// Larger values are not remembered: what apply reads again and again is small.
const VALUE_BYTES_MAX: usize = 1024;

/// What a state answers for some of its keys; none is that there is no such row. Whoever writes the state must tell it
/// (see [`Overlay::into_changes_and_cache`]), or forget it.
#[derive(Debug, Clone, Default)]
pub struct RowCache {
    /// Found by hash: most reads of apply end here. It must never be gone through: its order is another one on each node.
    #[expect(
        clippy::disallowed_types,
        reason = "it is only asked for keys: its order decides nothing"
    )]
    rows: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl RowCache {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.rows.get(key)
    }

    pub(crate) fn remember(&mut self, key: &[u8], value: &Option<Vec<u8>>) {
        if value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return;
        }
        if self.rows.len() >= ROWS_MAX {
            self.rows.clear();
        }
        self.rows.insert(key.to_vec(), value.clone());
    }

    /// The state changes like this. New rows are not remembered before somebody reads them: most are messages.
    pub(crate) fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put { key, value } if value.len() > VALUE_BYTES_MAX => {
                    self.rows.remove(key);
                }
                Change::Put { key, value } => {
                    if let Some(row) = self.rows.get_mut(key) {
                        *row = Some(value.clone());
                    }
                }
                Change::Delete { key } => {
                    if let Some(row) = self.rows.get_mut(key) {
                        *row = None;
                    }
                }
                // Rare: rooms that are deleted.
                Change::DeleteRange { .. } => self.rows.clear(),
            }
        }
    }
}
