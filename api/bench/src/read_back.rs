//! After the load: is what was acknowledged so?

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::tally::WRONG_TOLD_MAX;
use crate::target::{Target, Unheld};

/// Asked at once: the load is over, and this is no measurement.
const AT_ONCE: usize = 16;

/// What became of the sample.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    pub asked: u64,
    pub held: u64,
    /// Acknowledged, and not so; with the wrong answers of the run itself.
    pub lies: u64,
    /// Could not be asked. They are no lies, and no proof either.
    pub unread: u64,
    /// The first few of what did not hold, in words.
    pub told: Vec<String>,
}

impl ReadBack {
    pub fn is_good(&self) -> bool {
        self.lies == 0 && self.unread == 0
    }

    /// Adds what came of another run.
    pub fn add(&mut self, other: &ReadBack) {
        self.asked += other.asked;
        self.held += other.held;
        self.unread += other.unread;
        self.add_lies(other.lies, other.told.clone());
    }

    /// Adds what is known to be wrong from elsewhere.
    pub fn add_lies(&mut self, count: u64, told: Vec<String>) {
        self.lies += count;
        for what in told {
            self.tell(what);
        }
    }

    fn tell(&mut self, what: String) {
        if self.told.len() < WRONG_TOLD_MAX {
            self.told.push(what);
        }
    }
}

pub(crate) async fn read_back<T: Target>(target: &T, receipts: &[T::Receipt]) -> ReadBack {
    let mut found = ReadBack::default();
    let mut answers = futures::stream::iter(receipts)
        .map(|receipt| target.read_back(receipt))
        .buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        found.asked += 1;
        match answer {
            Ok(()) => found.held += 1,
            Err(Unheld::Lie(what)) => {
                found.lies += 1;
                found.tell(what);
            }
            Err(Unheld::Unread(what)) => {
                found.unread += 1;
                found.tell(format!("could not be read back: {what}"));
            }
        }
    }
    found
}
