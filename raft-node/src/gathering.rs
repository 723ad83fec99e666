//! Letting more work come together before it is begun, where a hundred pieces cost hardly more than one: commands in an
//! entry, reads in a round of heartbeats.

/// How often whoever gathers lets others run, while each time brings more.
const YIELDS_MAX: u32 = 4;

/// The runtime runs whoever was woken last first: whoever gathers would come right after the first of many requests that
/// lie read in their sockets, and begin with that one alone. So he lets go of his thread first (`yield_now`): whatever can
/// run runs, and what it brings goes along. No timer: where nobody else has work this takes microseconds.
#[derive(Debug, Default)]
pub struct Gathering {
    yields: u32,
    seen: usize,
}

impl Gathering {
    /// After a yield, with so many waiting: whether another may bring more. `enough` is what fits.
    pub fn goes_on(&mut self, waiting: usize, enough: usize) -> bool {
        let grew = waiting > self.seen;
        self.yields += 1;
        self.seen = waiting;
        grew && self.yields < YIELDS_MAX && waiting < enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_while_more_come_and_not_for_ever() {
        assert!(!Gathering::default().goes_on(0, 10), "nobody else has work");
        let mut gathering = Gathering::default();
        assert!(gathering.goes_on(3, 10));
        assert!(!gathering.goes_on(3, 10), "no more came");
        assert!(!Gathering::default().goes_on(10, 10), "no more fit");
        let mut gathering = Gathering::default();
        let yields = (1..).take_while(|more| gathering.goes_on(*more, usize::MAX)).count();
        assert_eq!(yields, 3, "they come without end");
    }
}
