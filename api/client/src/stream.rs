//! A room's stream that outlives its connections: it resumes on any node from the position of the
//! last event that it gave, so that each event comes exactly once.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

use crate::attempt::Request;
use crate::client::Client;
use crate::error::Error;
use crate::path::{path, with_query};
use crate::route::backoff;
use crate::sse::{Decoder, Frame};
use crate::wire::{Edited, Message, Problem, Redacted};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where a stream begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StreamFrom {
    /// What happens from now on.
    #[default]
    Now,
    /// First the messages after this seq, then what happens from now on.
    AfterSeq(u64),
    /// Everything after an earlier stream's position.
    Position(String),
}

/// Something that happened in the room.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Resumes after this event, on any node; see [`StreamFrom::Position`].
    pub position: Option<String>,
    pub body: EventBody,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    Message(Box<Message>),
    /// A message was given another text.
    Edited(Box<Edited>),
    /// A message's content was taken away.
    Redacted(Box<Redacted>),
    /// `member`, `room` and whatever later versions add.
    Change {
        event: String,
        data: serde_json::Value,
    },
    /// Nothing happened; everything before the position was given.
    Bookmark,
}

/// See [`Client::stream`].
#[derive(Debug)]
pub struct RoomStream {
    client: Client,
    path: String,
    from: StreamFrom,
    position: Option<String>,
    connection: Option<Connection>,
    /// Connections in a row that ended without giving anything.
    barren: u32,
}

#[derive(Debug)]
struct Connection {
    response: reqwest::Response,
    decoder: Decoder,
    node: usize,
    gave: bool,
}

impl Client {
    /// Follows a room. Nothing is asked before the first [`RoomStream::next`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or a position that cannot be sent.
    pub fn stream(&self, room: &str, from: StreamFrom) -> Result<RoomStream, Error> {
        let position = match &from {
            StreamFrom::Position(position) => {
                HeaderValue::from_str(position).map_err(|_| Error::Invalid(format!("position {position:?}")))?;
                Some(position.clone())
            }
            _ => None,
        };
        let path = path(&["rooms", room, "stream"])?;
        Ok(RoomStream {
            client: self.clone(),
            path,
            from,
            position,
            connection: None,
            barren: 0,
        })
    }
}

impl RoomStream {
    /// The next event; each is given once, across reconnections and nodes. Dropping the future
    /// before it is ready loses nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no node has opened the stream within the client's deadline: the
    /// next call tries again from the same position. [`Error::Refused`] ends the stream: the room
    /// is gone or closed to the caller, or (410 `position_expired`) the position is older than
    /// what is kept.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let connection = match &mut self.connection {
                Some(connection) => connection,
                None => {
                    let opened = self.connect().await?;
                    self.connection.insert(opened)
                }
            };
            let frame = connection.decoder.next().map_err(|error| bad(error.to_string()))?;
            if let Some(frame) = frame {
                connection.gave = true;
                self.barren = 0;
                if let Some(event) = self.accept(frame)? {
                    return Ok(event);
                }
                continue;
            }
            let idle = self.client.options.stream_idle;
            match tokio::time::timeout(idle, connection.response.chunk()).await {
                Ok(Ok(Some(bytes))) => connection.decoder.push(&bytes),
                // The end, an error or silence: half a frame is dropped with the connection, and
                // comes again whole on the next one.
                Ok(Ok(None) | Err(_)) | Err(_) => self.disconnect(),
            }
        }
    }

    /// Where the stream stands: everything up to here was given. None before the first event.
    pub fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    async fn connect(&mut self) -> Result<Connection, Error> {
        if self.barren > 0 {
            // A node that accepts streams only to drop them must not be asked in a tight loop.
            tokio::time::sleep(backoff(self.barren, rand::random_range(0.0..=1.0))).await;
        }
        let after = match (&self.position, &self.from) {
            (None, StreamFrom::AfterSeq(seq)) => Some(seq.to_string()),
            _ => None,
        };
        let mut request = Request::read(with_query(self.path.clone(), &[("after", after)]))
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(position) = &self.position {
            let value = HeaderValue::from_str(position).map_err(|_| bad(format!("position {position:?}")))?;
            request = request.header(LAST_EVENT_ID, value);
        }
        let opened = self.client.open(&request).await?;
        if self.position.is_none() && self.from == StreamFrom::Now {
            // "Now" is when the first connection began, also if it breaks before its first event.
            let began = opened.response.headers().get("x-quorate-position");
            self.position = began.and_then(|value| value.to_str().ok()).map(str::to_owned);
        }
        Ok(Connection {
            response: opened.response,
            decoder: Decoder::default(),
            node: opened.node,
            gave: false,
        })
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            if !connection.gave {
                self.barren = self.barren.saturating_add(1);
            }
            tracing::debug!(path = self.path, position = self.position, "stream ended; resuming");
            self.client
                .shared
                .route()
                .failed(connection.node, Instant::now(), Some(Duration::ZERO), 1.0);
        }
    }

    /// Turns a frame into an event; none where the frame only moves the stream.
    fn accept(&mut self, frame: Frame) -> Result<Option<Event>, Error> {
        let body = match frame.event.as_str() {
            "message" => EventBody::Message(data(&frame)?),
            "edit" => EventBody::Edited(data(&frame)?),
            "redact" => EventBody::Redacted(data(&frame)?),
            "bookmark" => EventBody::Bookmark,
            "expired" => {
                self.connection = None;
                return Err(Error::Refused(Box::new(expired(&frame.data))));
            }
            // The node dropped us because we read too slowly, and says so: resume.
            "slow_consumer" => {
                self.disconnect();
                return Ok(None);
            }
            event => EventBody::Change {
                event: event.to_owned(),
                data: data(&frame)?,
            },
        };
        if frame.id.is_some() {
            self.position = frame.id;
        }
        Ok(Some(Event {
            position: self.position.clone(),
            body,
        }))
    }
}

fn data<T: DeserializeOwned>(frame: &Frame) -> Result<T, Error> {
    serde_json::from_str(&frame.data).map_err(|error| bad(format!("{} event: {error}", frame.event)))
}

fn bad(detail: String) -> Error {
    Error::BadResponse { detail, write: false }
}

/// An `expired` event in the words of the 410 that a new connection would get.
fn expired(data: &str) -> Problem {
    Problem {
        type_: "about:blank".into(),
        title: "Gone".into(),
        status: 410,
        detail: format!("the stream's position is older than what is kept: {data}"),
        code: "position_expired".into(),
        request_id: String::new(),
        retryable: false,
        outcome: "not_applied".into(),
    }
}

#[cfg(test)]
mod tests;
