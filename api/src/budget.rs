//! How many bytes a node holds for its callers, counted over all of them.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::problem::{Kind, Problem};

/// The bytes that a node holds of one kind: bodies of requests, or answers.
#[derive(Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    refused: IntCounter,
    what: &'static str,
}

/// Some bytes of a [`Budget`], given back when it is dropped.
#[derive(Default)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(crate) fn of_bodies(limits: &Limits, metrics: &Metrics) -> Self {
        Self::new(limits.bodies_bytes_max, "requests' bodies", "body_bytes", metrics)
    }

    pub(crate) fn of_answers(limits: &Limits, metrics: &Metrics) -> Self {
        Self::new(limits.answers_bytes_max, "answers", "answer_bytes", metrics)
    }

    fn new(bytes_max: usize, what: &'static str, label: &str, metrics: &Metrics) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bytes_max)),
            refused: metrics.refused.with_label_values(&[label]),
            what,
        }
    }

    /// More of it for this share.
    pub(crate) fn take(&self, share: &mut Share, bytes: usize) -> Result<(), Problem> {
        let taken = u32::try_from(bytes).map(|bytes| Arc::clone(&self.bytes).try_acquire_many_owned(bytes));
        let Ok(Ok(permit)) = taken else {
            self.refused.inc();
            let detail = format!("this node holds too many bytes of {} already", self.what);
            return Err(Problem::new(Kind::Overloaded, detail));
        };
        match &mut share.0 {
            Some(held) => held.merge(permit),
            empty => *empty = Some(permit),
        }
        Ok(())
    }
}
