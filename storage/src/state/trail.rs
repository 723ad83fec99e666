//! The trail: proof that no write before the last one is missing.
//!
//! The state's own log (RocksDB's) is not synced with each write, and RocksDB begins a new file of it
//! from time to time. It checks what is in each file, but not that no file is missing or ends too
//! early: after a failed disk, and in bad luck after a power cut, writes in the middle could be missing
//! while later ones are there. Such a state would say that it has applied everything, and would answer
//! wrongly for ever. So the writes are numbered, and each leaves its number in one of many slots in turn. When
//! a state is opened, the slots must hold the last numbers without a gap, or it is cut back to before the
//! gap ([`super::hole`]). That writes are missing at the end is fine: [`super::Applied`] says so, and the Raft
//! log has them.

use quorate_state_machine::Fatal;
use rocksdb::{DB, WriteBatch};

use super::OWN_SPACE;
use super::options::WRITE_BUFFER_BYTES_MAX;

/// Numbers that are remembered. What RocksDB has not yet made durable in tables must be among them:
/// even the smallest writes are not more than these in three memtables. All slots together take 4 MB. Part of what
/// lies on disk: it never changes.
const SLOTS: u64 = 1 << 18;
/// What the smallest write takes in memory.
const WRITE_BYTES_MIN: u64 = 350;
const _: () = assert!(3 * WRITE_BUFFER_BYTES_MAX as u64 / WRITE_BYTES_MIN <= SLOTS);

/// Every key of the trail begins so.
const PREFIX: [u8; 5] = [OWN_SPACE[0], OWN_SPACE[1], OWN_SPACE[2], OWN_SPACE[3], b'w'];

/// The smallest key above them.
const END: [u8; 5] = [OWN_SPACE[0], OWN_SPACE[1], OWN_SPACE[2], OWN_SPACE[3], b'w' + 1];

/// Adds to a write that it is the one with this number; they count from 1.
pub(super) fn mark(batch: &mut WriteBatch, number: u64) {
    batch.put(key(number), number.to_be_bytes());
}

/// How many rows the trail has after so many writes.
pub(super) fn rows(last_write: u64) -> u64 {
    last_write.min(SLOTS)
}

/// The number of the last write. An error if one before it is missing.
pub(super) fn last_write(db: &DB) -> Result<u64, Fatal> {
    check(&numbers(db)?, SLOTS).map_err(Fatal::Corrupt)
}

/// Which writes before the last one are missing, in words; none if it has them all.
pub(super) fn missing(db: &DB) -> Result<Option<String>, Fatal> {
    Ok(check(&numbers(db)?, SLOTS).err())
}

/// What is in the slots.
fn numbers(db: &DB) -> Result<Vec<u64>, Fatal> {
    let mut options = super::rocks_options::read_options();
    options.set_iterate_lower_bound(PREFIX);
    options.set_iterate_upper_bound(END);
    options.fill_cache(false);
    let mut rows = db.raw_iterator_opt(options);
    let mut numbers = Vec::new();
    rows.seek_to_first();
    while let Some((found, value)) = rows.item() {
        let number = value.try_into().map(u64::from_be_bytes).unwrap_or_default();
        if found != key(number) {
            return Err(Fatal::Corrupt(format!(
                "the state holds the number of write {number} in slot {found:02x?}"
            )));
        }
        numbers.push(number);
        rows.next();
    }
    rows.status().map_err(|error| super::rocks::fatal(&error))?;
    Ok(numbers)
}

fn key(number: u64) -> Vec<u8> {
    let slot = u32::try_from(number % SLOTS).expect("less than the number of slots");
    [&PREFIX[..], &slot.to_be_bytes()].concat()
}

/// `numbers` are those in the slots, one a slot, each in its own. Gives the last one.
fn check(numbers: &[u64], slots: u64) -> Result<u64, String> {
    let last = numbers.iter().copied().max().unwrap_or(0);
    // None that is left over from before, and as many as there must be: so it is all of them.
    let oldest = last.saturating_sub(slots) + 1;
    let recent = numbers.iter().filter(|number| **number >= oldest).count() as u64;
    match recent == last.min(slots) {
        true => Ok(last),
        false => Err(format!(
            "of the last {} writes to the state, up to number {last}, {} are missing",
            last.min(slots),
            last.min(slots) - recent
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What 8 slots hold after `last` writes without those that are `missing`.
    fn slots(last: u64, missing: &[u64]) -> Vec<u64> {
        let mut slots = std::collections::BTreeMap::new();
        for number in (1..=last).filter(|number| !missing.contains(number)) {
            slots.insert(number % 8, number);
        }
        slots.into_values().collect()
    }

    #[test]
    fn a_missing_write_is_noticed_as_long_as_it_is_remembered() {
        for last in 0..40 {
            assert_eq!(check(&slots(last, &[]), 8), Ok(last));
            // That the last ones are missing is no gap.
            assert_eq!(check(&slots(last, &[last]), 8), Ok(last.saturating_sub(1)));
            for missing in 1..last {
                let remembered = missing + 8 > last;
                assert_eq!(
                    check(&slots(last, &[missing]), 8).is_err(),
                    remembered,
                    "{missing} of {last}"
                );
            }
        }
        let error = check(&slots(20, &[15, 16]), 8).unwrap_err();
        assert!(
            error.contains("last 8 writes") && error.contains("20, 2 are missing"),
            "{error}"
        );
    }

    /// What older programs have written must stay readable: this form never changes.
    #[test]
    fn golden_key() {
        assert_eq!(key(1), b"\0\0\0\0w\0\0\0\x01");
        assert_eq!(key((5 << 18) + 0x10203), b"\0\0\0\0w\0\x01\x02\x03");
        assert!(key(SLOTS - 1).as_slice() < &END[..]);
    }
}
