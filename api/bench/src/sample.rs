//! A sample of what was acknowledged, in which everything has the same chance to be (Vitter's algorithm R).

/// At most `size` of all that were offered.
#[derive(Debug)]
pub(crate) struct Sample<R> {
    kept: Vec<R>,
    size: usize,
    offered: u64,
}

impl<R> Sample<R> {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            kept: Vec::new(),
            size,
            offered: 0,
        }
    }

    pub(crate) fn offer(&mut self, receipt: R) {
        self.offered += 1;
        if self.kept.len() < self.size {
            self.kept.push(receipt);
            return;
        }
        let place = rand::random_range(0..self.offered);
        if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.kept.get_mut(place)) {
            *kept = receipt;
        }
    }

    pub(crate) fn into_kept(self) -> Vec<R> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_has_early_and_late_ones() {
        let mut sample = Sample::new(100);
        for number in 0..100_000 {
            sample.offer(number);
        }
        let kept = sample.into_kept();
        assert_eq!(kept.len(), 100);
        // The chance that one half has none of them is 2^-99.
        assert!(kept.iter().any(|number| *number < 50_000) && kept.iter().any(|number| *number >= 50_000));
    }

    #[test]
    fn few_are_kept_all_and_none_are_kept_of_no_size() {
        let mut sample = Sample::new(3);
        (0..2).for_each(|number| sample.offer(number));
        assert_eq!(sample.into_kept(), [0, 1]);
        let mut sample = Sample::new(0);
        sample.offer(1);
        assert_eq!(sample.into_kept(), [] as [i32; 0]);
    }
}
