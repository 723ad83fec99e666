//! What is driven: anything that can be asked, and can be asked afterwards whether its answer held.

use std::borrow::Cow;
use std::time::Duration;

/// The system under load. The generator shares the machine with it, so what can be prepared is prepared
/// before, and a call does no more than it must.
pub trait Target: Send + Sync + 'static {
    /// What an acknowledgement promised, enough to find it again.
    type Receipt: Send + Sync + 'static;

    /// The kinds of operations, each with percentiles of its own; [`Done::kind`] points into it.
    fn kinds(&self) -> &'static [&'static str];

    /// One operation, to its answer. The generator bounds its time and drops it then.
    fn perform(&self, call: Call) -> impl Future<Output = Result<Done<Self::Receipt>, Fault>> + Send;

    /// Asks whether what was acknowledged is so.
    fn read_back(&self, receipt: &Self::Receipt) -> impl Future<Output = Result<(), Unheld>> + Send;
}

/// Which operation of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Who asks, counted from 0. In the open loop: which of those that may be in flight.
    pub client: usize,
    /// No two operations of a run have the same.
    pub number: u64,
}

/// An operation that was answered well.
#[derive(Debug)]
pub struct Done<R> {
    /// Which of [`Target::kinds`].
    pub kind: usize,
    /// What the operation counts for: a batch of 100 messages for 100.
    pub units: u64,
    /// None: nothing to read back.
    pub receipt: Option<R>,
    /// What is to be measured, where that is not the time of the call.
    pub took: Option<Duration>,
}

impl<R> Done<R> {
    /// One unit of the first kind, timed from the call to its answer.
    pub fn one(receipt: Option<R>) -> Self {
        Self {
            kind: 0,
            units: 1,
            receipt,
            took: None,
        }
    }
}

/// An operation that was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refused, or not answered: counted by this code.
    Code(Cow<'static, str>),
    /// Answered with something that cannot be so. The run has failed.
    Wrong(String),
}

impl Fault {
    pub fn code(code: impl Into<Cow<'static, str>>) -> Self {
        Self::Code(code.into())
    }
}

/// Why a receipt was not honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unheld {
    /// What was acknowledged is not there, or is something else.
    Lie(String),
    /// It could not be asked.
    Unread(String),
}
