//! A target that lives in a test.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{Load, Plan};
use crate::target::{Call, Done, Fault, Target, Unheld};

/// Answers what the test's function answers. A receipt is the operation's number.
pub(crate) struct Fake<F> {
    pub(crate) answer: F,
    /// Acknowledged, and not so.
    pub(crate) lies: BTreeSet<u64>,
}

impl<F> Fake<F> {
    pub(crate) fn new(answer: F) -> Self {
        Self {
            answer,
            lies: BTreeSet::new(),
        }
    }
}

impl<F, A> Target for Fake<F>
where
    F: Fn(Call) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), Fault>> + Send,
{
    type Receipt = u64;

    fn kinds(&self) -> &'static [&'static str] {
        &["fake"]
    }

    async fn perform(&self, call: Call) -> Result<Done<u64>, Fault> {
        (self.answer)(call).await?;
        Ok(Done::one(Some(call.number)))
    }

    async fn read_back(&self, receipt: &u64) -> Result<(), Unheld> {
        match self.lies.contains(receipt) {
            true => Err(Unheld::Lie(format!("{receipt} is not there"))),
            false => Ok(()),
        }
    }
}

/// Ten seconds, all receipts kept.
pub(crate) fn plan(load: Load) -> Plan {
    Plan {
        load,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(10),
        answer_within: Duration::from_secs(60),
        sample: 1_000_000,
    }
}
