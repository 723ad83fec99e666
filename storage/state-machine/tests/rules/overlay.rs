//! An overlay is the same as writing at once: whatever is put, deleted and taken back, it reads as
//! a state does that was written directly, and leaves the changes that make its base that state.

use proptest::prelude::*;
use quorate_state_machine::view::Pair;
use quorate_state_machine::{Change, Memory, Overlay, RowCache, View};

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Savepoint,
    Rollback,
    Release,
    Get(Vec<u8>),
    Scan {
        from: Vec<u8>,
        to: Vec<u8>,
        reverse: bool,
        limit: usize,
    },
}

/// Few and short keys, so that everything meets everything.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0..4u8, 0..3)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (key(), proptest::collection::vec(any::<u8>(), 0..2)).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        2 => (key(), key()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        1 => Just(Step::Savepoint),
        1 => Just(Step::Rollback),
        1 => Just(Step::Release),
        2 => key().prop_map(Step::Get),
        4 => (key(), key(), any::<bool>(), 0..12usize)
            .prop_map(|(from, to, reverse, limit)| Step::Scan { from, to, reverse, limit }),
    ]
}

/// What an overlay leaves, and the model of it.
struct Left {
    changes: Vec<Change>,
    cache: RowCache,
    model: Memory,
}

/// Runs the steps over both; the overlay lies on `base`, which holds what `model` does.
fn same<V: View>(base: V, cache: RowCache, mut model: Memory, steps: Vec<Step>) -> Result<Left, TestCaseError> {
    let mut overlay = Overlay::with_cache(base, cache);
    let mut savepoints = Vec::new();
    for step in steps {
        match step {
            Step::Put(key, value) => {
                overlay.put(key.clone(), value.clone());
                model.write(vec![Change::Put { key, value }]);
            }
            Step::Delete(key) => {
                overlay.delete(key.clone());
                model.write(vec![Change::Delete { key }]);
            }
            Step::DeleteRange(from, to) => {
                overlay.delete_range(from.clone(), to.clone());
                model.write(vec![Change::DeleteRange { from, to }]);
            }
            Step::Savepoint => savepoints.push((overlay.savepoint(), model.clone())),
            Step::Rollback => {
                if let Some((savepoint, before)) = savepoints.pop() {
                    overlay.rollback(savepoint);
                    model = before;
                }
            }
            Step::Release => {
                if let Some((savepoint, _)) = savepoints.pop() {
                    overlay.release(savepoint);
                }
            }
            Step::Get(key) => {
                let expected = model.get(&key).unwrap();
                for view in [&overlay as &dyn View, &model] {
                    let mut looked_at = None;
                    let is_there = view.look(&key, &mut |value| {
                        looked_at = Some(value.to_vec());
                        Ok(())
                    });
                    prop_assert_eq!((is_there.unwrap(), looked_at), (expected.is_some(), expected.clone()));
                }
                prop_assert_eq!(&overlay.get_once(&key).unwrap(), &expected);
                prop_assert_eq!(&overlay.get(&key).unwrap(), &expected);
                prop_assert_eq!(&overlay.get(&key).unwrap(), &expected, "remembered");
            }
            Step::Scan {
                from,
                to,
                reverse,
                limit,
            } => {
                let expected = model.scan(&from, &to, reverse, limit).unwrap();
                prop_assert_eq!(&overlay.scan(&from, &to, reverse, limit).unwrap(), &expected);
                prop_assert_eq!(&visited(&overlay, &from, &to, reverse, limit), &expected);
                prop_assert_eq!(&visited(&model, &from, &to, reverse, limit), &expected);
            }
        }
    }
    let (changes, cache) = overlay.into_changes_and_cache();
    Ok(Left { changes, cache, model })
}

/// What is shown of a range, one after the other.
fn visited(view: &dyn View, from: &[u8], to: &[u8], reverse: bool, limit: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    view.visit(from, to, reverse, limit, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        Ok(())
    })
    .unwrap();
    pairs
}

fn memory(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Memory {
    let mut memory = Memory::new();
    memory.write(
        pairs
            .into_iter()
            .map(|(key, value)| Change::Put { key, value })
            .collect(),
    );
    memory
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn an_overlay_is_the_same_as_writing_at_once(
        pairs in proptest::collection::vec((key(), proptest::collection::vec(any::<u8>(), 0..2)), 0..20),
        entries in proptest::collection::vec(proptest::collection::vec(step(), 0..30), 1..4),
    ) {
        let mut base = memory(pairs);
        let mut remembered = RowCache::default();
        for steps in entries {
            let Left { changes, cache, model } = same(base.snapshot(), remembered, base.clone(), steps)?;
            // One change for each key, and ranges before what is written into them.
            let written: Vec<&Vec<u8>> = changes
                .iter()
                .filter_map(|change| match change {
                    Change::Put { key, .. } | Change::Delete { key } => Some(key),
                    Change::DeleteRange { .. } => None,
                })
                .collect();
            prop_assert!(written.is_sorted_by(|a, b| a < b));
            base.write(changes);
            prop_assert_eq!(&base, &model);
            // What was read in this entry is known in the next.
            remembered = cache;
        }
    }

    /// Also what is too large to be remembered any more, and what is more than is remembered.
    #[test]
    fn what_is_remembered_is_what_is_there(
        writes in proptest::collection::vec((0..6000u16, prop_oneof![Just(0), Just(10), Just(2000)]), 0..40),
    ) {
        let mut base = Memory::new();
        let mut remembered = RowCache::default();
        for (number, bytes) in writes {
            let key = |number: u16| number.to_be_bytes().to_vec();
            let mut overlay = Overlay::with_cache(base.snapshot(), remembered);
            for other in (0..6000u16).step_by(97).chain([number]) {
                prop_assert_eq!(overlay.get(&key(other)).unwrap(), base.get(&key(other)).unwrap());
            }
            match bytes {
                0 => overlay.delete(key(number)),
                bytes => overlay.put(key(number), vec![7; bytes]),
            }
            let (changes, cache) = overlay.into_changes_and_cache();
            base.write(changes);
            remembered = cache;
        }
    }

    #[test]
    fn an_overlay_lies_on_an_overlay(
        pairs in proptest::collection::vec((key(), proptest::collection::vec(any::<u8>(), 0..2)), 0..20),
        below in proptest::collection::vec(step(), 0..20),
        above in proptest::collection::vec(step(), 0..20),
    ) {
        let base = memory(pairs);
        let mut overlay = Overlay::new(base.snapshot());
        let mut model = base.clone();
        for step in below {
            match step {
                Step::Put(key, value) => {
                    overlay.put(key.clone(), value.clone());
                    model.write(vec![Change::Put { key, value }]);
                }
                Step::DeleteRange(from, to) => {
                    overlay.delete_range(from.clone(), to.clone());
                    model.write(vec![Change::DeleteRange { from, to }]);
                }
                _ => {}
            }
        }
        // Also as a trait object: the state may be RocksDB or memory.
        let view: &dyn View = &overlay;
        same(view, RowCache::default(), model, above)?;
    }
}
