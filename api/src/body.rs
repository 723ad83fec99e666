//! A request's body: bounded in bytes, in time, in its pace, and together with all others that this
//! node holds.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::budget::{Budget, Share};
use crate::config::Limits;
use crate::places::{Class, Place, Places};
use crate::problem::{Kind, Problem};

/// A body in memory, and its share of what all bodies may take.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) share: Share,
}

/// Reads the whole body. Its share of the budget grows with what has arrived, not with what was
/// announced: announcing costs nothing, and would keep others out.
pub(crate) async fn read(
    body: &mut Body,
    declared_bytes: Option<u64>,
    limits: &Limits,
    budget: &Budget,
    places: &Places,
) -> Result<Received, Problem> {
    let bytes_max = limits.body_bytes_max;
    let too_large = || Problem::too_large(format!("a body has at most {bytes_max} bytes"));
    if declared_bytes.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut share = Share::default();
    let mut pace = Pace::begin(limits);
    let mut place: Option<Place> = None;
    loop {
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                // Most bodies come with their heads, and need no place to wait in.
                if place.is_none() {
                    place = Some(places.take(Class::Body)?);
                }
                match tokio::time::timeout_at(pace.look_at(), body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        pace.check(first.len() + all.len())?;
                        continue;
                    }
                }
            }
        };
        let Some(part) = frame else { break };
        let part = part.map_err(|error| Problem::bad_request(format!("failed to read the body: {error}")))?;
        let Ok(data) = part.into_data() else { continue };
        if first.len() + all.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        budget.take(&mut share, data.len())?;
        // Most bodies come in one piece, which is then not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Received { bytes, share })
}

/// Whether a body goes on fast enough: looked at whenever nothing has come at a window's end.
pub(crate) struct Pace {
    deadline: Instant,
    window: Duration,
    window_bytes_min: usize,
    window_ends: Instant,
    bytes_before: usize,
}

impl Pace {
    pub(crate) fn begin(limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            deadline: now + limits.body_read_timeout,
            window: limits.body_window,
            window_bytes_min: limits.body_window_bytes_min,
            window_ends: now + limits.body_window,
            bytes_before: 0,
        }
    }

    pub(crate) fn look_at(&self) -> Instant {
        self.window_ends.min(self.deadline)
    }

    /// `bytes`: all that have come so far.
    pub(crate) fn check(&mut self, bytes: usize) -> Result<(), Problem> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Problem::new(Kind::BodyTimeout, "the body took too long"));
        }
        if now < self.window_ends {
            return Ok(());
        }
        if bytes - self.bytes_before < self.window_bytes_min {
            return Err(Problem::new(Kind::BodyTimeout, "the body came too slowly"));
        }
        (self.window_ends, self.bytes_before) = (now + self.window, bytes);
        Ok(())
    }
}

/// What is read and thrown away of a refused request's body: enough that a client which writes
/// first and reads then finds the answer instead of a reset connection.
const DRAIN_BYTES_MAX: u64 = 16 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

pub(crate) async fn drain(mut body: Body, declared_bytes: Option<u64>, expects_continue: bool) {
    // A client that waits for "100 Continue" has sent nothing, and reading would call for it.
    if expects_continue || declared_bytes.is_some_and(|bytes| bytes > DRAIN_BYTES_MAX) {
        return;
    }
    let drained = async {
        let mut bytes = 0;
        while bytes <= DRAIN_BYTES_MAX {
            match body.frame().await {
                Some(Ok(part)) => bytes += part.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) | None => return,
            }
        }
    };
    // Cut short, the connection is closed after the answer.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, drained).await;
}
