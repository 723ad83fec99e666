//! Server-Sent Events, read as the standard says: fields until an empty line, comments skipped.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{Answer, Call, Http};

/// How long a node may take to begin a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// One event as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

/// An open stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    frames: Frames,
}

impl Stream {
    /// Opens the stream, or hands back the answer that refused it.
    pub async fn open(http: &Http, url: &str, call: Call) -> Result<Result<Self, Answer>> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, http.open(url, call)).await;
        let response = opened.context("the stream did not begin in time")??;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if status == 200 {
            return Ok(Ok(Self {
                response,
                frames: Frames::default(),
            }));
        }
        let body = tokio::time::timeout(OPEN_TIMEOUT, response.bytes()).await??.to_vec();
        Ok(Err(Answer {
            status,
            headers,
            body,
            took: Duration::ZERO,
        }))
    }

    /// The next event, at most `within` from now; none when the node ended the stream.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Event>> {
        let arrival = async {
            loop {
                if let Some(event) = self.frames.next()? {
                    return Ok(Some(event));
                }
                match self.response.chunk().await? {
                    Some(chunk) => self.frames.take(&chunk),
                    None => return Ok(None),
                }
            }
        };
        match tokio::time::timeout(within, arrival).await {
            Ok(arrived) => arrived,
            Err(_) => bail!("no event within {within:?}"),
        }
    }

    /// The next event of this name; others are passed over.
    pub async fn next_named(&mut self, name: &str, within: Duration) -> Result<Option<Event>> {
        loop {
            match self.next(within).await? {
                Some(event) if event.name != name => continue,
                other => return Ok(other),
            }
        }
    }
}

/// Bytes that have arrived and are not yet an event.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    fn take(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// The first whole event, if one has arrived. A frame without data is a comment: none.
    fn next(&mut self) -> Result<Option<Event>> {
        while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
            let frame: Vec<u8> = self.bytes.drain(..end + 2).collect();
            if let Some(event) = parse(&String::from_utf8(frame).context("a stream must be UTF-8")?)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

fn parse(frame: &str) -> Result<Option<Event>> {
    let (mut name, mut id, mut data) = (None, None, Vec::new());
    for line in frame.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = Some(value.to_owned()),
            "id" => id = Some(value.to_owned()),
            "data" => data.push(value),
            // An empty field is a comment; others are ignored, as the standard says.
            _ => {}
        }
    }
    if data.is_empty() {
        return Ok(None);
    }
    let data = serde_json::from_str(&data.join("\n")).with_context(|| format!("data is not JSON: {frame}"))?;
    Ok(Some(Event {
        name: name.unwrap_or_else(|| "message".to_owned()),
        id,
        data,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_whole_however_the_bytes_arrive() {
        let sent = ": hello\n\nevent: message\nid: 1.1.7\ndata: {\"seq\":1}\n\nevent:bookmark\nid:1.1.8\ndata:{}\n\n";
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for byte in sent.as_bytes() {
            frames.take(&[*byte]);
            seen.extend(frames.next().expect("the frames are well-formed"));
        }
        let expected = [
            Event {
                name: "message".into(),
                id: Some("1.1.7".into()),
                data: json!({"seq": 1}),
            },
            Event {
                name: "bookmark".into(),
                id: Some("1.1.8".into()),
                data: json!({}),
            },
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn data_that_is_not_json_is_an_error() {
        let mut frames = Frames::default();
        frames.take(b"data: {\n\n");
        assert!(frames.next().is_err());
    }
}
