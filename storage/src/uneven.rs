//! Nodes of a cluster write the same, so memtables of one size would be full on all of them at the same moment, and all
//! nodes would write tables at once: so they seldom do.

use rand::{Rng, RngExt};

/// The size of a memtable: up to a quarter less than what was asked for, by lot.
pub(crate) fn uneven(bytes: usize, dice: &mut impl Rng) -> usize {
    dice.random_range(bytes - bytes / 4..=bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memtables_are_uneven_and_never_larger_than_asked_for() {
        let mut dice = rand::rng();
        let drawn: Vec<usize> = (0..1000).map(|_| uneven(28 << 20, &mut dice)).collect();
        assert!(
            drawn.iter().all(|bytes| (21 << 20..=28 << 20).contains(bytes)),
            "{drawn:?}"
        );
        assert!(drawn.iter().any(|bytes| *bytes != drawn[0]));
        assert_eq!(uneven(0, &mut dice), 0);
    }
}
