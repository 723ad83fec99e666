//! Sending over a WebSocket: many messages in flight on one connection. It outlives its connections: what was not
//! answered on one is sent again on the next, to whichever node, under the same `client_id`, so that each message
//! is in its room once.
//!
//! A [`Socket`] is the handle, `driver` the one task behind it, `connection` the frames, and `pending` what an
//! answer means for a send, as plain functions.

mod connection;
mod driver;
mod pending;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::client::Client;
use crate::error::Error;
use crate::wire::socket::{SendConditions, SocketRequest};
use crate::wire::{NewMessage, Sent};
use driver::Driver;
use pending::Order;

/// Sends in flight on one socket: what nodes read of one before they answer. One more waits for a place.
const IN_FLIGHT_MAX: usize = 256;
/// The contract's upper bound of `timeout_ms`.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// See [`Client::socket`]. Cheap to clone; clones share the connection, which is closed when the last of them is
/// dropped and everything is answered.
#[derive(Debug, Clone)]
pub struct Socket {
    orders: mpsc::Sender<Order>,
    places: Arc<Semaphore>,
    next_id: Arc<AtomicU64>,
    deadline: Duration,
    timeout: Duration,
}

impl Client {
    /// A WebSocket to the leader, or to whichever node can be reached, for many sends in flight. It connects when
    /// something is to be sent, and again whenever the connection is lost.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn socket(&self) -> Socket {
        // Every order holds a place, so the channel is never full.
        let (orders, received) = mpsc::channel(IN_FLIGHT_MAX);
        tokio::spawn(Driver::new(self.clone(), received).run());
        Socket {
            orders,
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            next_id: Arc::default(),
            deadline: self.options.deadline,
            timeout: self.options.attempt.min(TIMEOUT_MAX),
        }
    }
}

impl Socket {
    /// Sends a message. Without a `client_id` it gets a new one: that makes it safe to send again, and it is sent
    /// again until it is answered or the client's deadline has passed. While 256 are in flight it waits for a place.
    ///
    /// Dropped before it is ready, the message may be sent all the same.
    ///
    /// # Errors
    /// Those of [`Client::send`].
    pub fn send(
        &self,
        room: &str,
        mut message: NewMessage,
    ) -> impl Future<Output = Result<Sent, Error>> + Send + 'static {
        let this = self.clone();
        let client_id = message
            .client_id
            .get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
        let client_id = client_id.clone();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = SocketRequest::Send {
            id: &id.to_string(),
            room,
            message: &message,
            conditions: SendConditions {
                timeout_ms: Some(this.timeout.as_millis().max(1) as u64),
                ..SendConditions::default()
            },
        };
        let frame = serde_json::to_string(&request).expect("wire types have no keys but strings");
        async move { this.order(id, client_id, frame).await }
    }

    async fn order(self, id: u64, client_id: String, frame: String) -> Result<Sent, Error> {
        let deadline = Instant::now() + self.deadline;
        let waited = tokio::time::timeout_at(deadline.into(), self.places.acquire_owned()).await;
        let place = match waited {
            Ok(place) => place.expect("nobody closes the semaphore"),
            Err(_) => {
                return Err(Error::Unavailable {
                    detail: "too many sends are in flight on this socket".to_owned(),
                    problem: None,
                });
            }
        };
        let (answer, answered) = oneshot::channel();
        let order = Order {
            id,
            client_id,
            frame: frame.into(),
            deadline,
            answer,
            _place: place,
        };
        let gone = || Error::Unavailable {
            detail: "the socket's task is gone".to_owned(),
            problem: None,
        };
        self.orders.try_send(order).map_err(|_| gone())?;
        // The handle is kept until the answer: without one the task would end.
        let answer = answered.await;
        drop(self.orders);
        answer.unwrap_or_else(|_| {
            Err(Error::OutcomeUnknown {
                key: None,
                detail: "the socket's task has ended".to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
