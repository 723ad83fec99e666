//! Readers of rooms' streams, who see when each message reaches them and whether one is missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BytesMut};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::http::{Http, encode, lost};
use super::stage::Stage;
use super::text::Texts;
use crate::plan::CLIENTS_MAX;
use crate::target::Fault;
use crate::times::{Percentiles, Times};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// All streams are open within this time, or the run does not begin.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// After the load, the last messages may be on their way for so long.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// A stream that ended, or could not be opened, is opened again after so long.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// Nodes send a bookmark every 15 s at the latest: what is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A frame that grows beyond this is none of ours.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What was delivered of what was sent within the measured time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deliveries {
    pub subscribers: usize,
    pub delivered: u64,
    pub delivered_per_second: f64,
    /// From the moment at which the message was sent.
    pub times: Percentiles,
    /// Streams that ended or could not be opened, and why; each was opened again where it stopped.
    pub interruptions: BTreeMap<String, u64>,
    /// Messages that a subscriber was not given, though later ones or the end came.
    pub missing: u64,
}

/// When a message was sent, as its text says it: nanoseconds since the run was prepared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now() }
    }

    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).expect("a run does not take centuries")
    }
}

#[derive(Debug)]
struct Shared {
    http: Arc<Http>,
    texts: Texts,
    clock: Clock,
    over: AtomicBool,
    open: AtomicU64,
    /// Held for one record, never across an await.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    times: Times,
    interruptions: BTreeMap<String, u64>,
    missing: u64,
    /// Of messages sent from then to then, in nanoseconds of the clock.
    window: (u64, u64),
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }
}

/// One reader's place; its number is its client's.
#[derive(Debug)]
struct Reader {
    number: usize,
    room: usize,
    /// The last message that came; 0: none yet.
    last_seq: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Subscribers {
    shared: Arc<Shared>,
    readers: Vec<Arc<Reader>>,
    tasks: JoinSet<()>,
}

impl Subscribers {
    /// So many streams, spread over rooms and nodes, each from now on; returns when all are open.
    ///
    /// # Errors
    /// If they are not within a minute, with what the last one was told.
    pub(crate) async fn open(http: Arc<Http>, stage: &Stage, count: usize, clock: Clock) -> Result<Self> {
        ensure!(count <= CLIENTS_MAX, "subscribers: at most {CLIENTS_MAX}");
        let shared = Arc::new(Shared {
            texts: stage.texts(),
            clock,
            over: AtomicBool::new(false),
            open: AtomicU64::new(0),
            seen: Mutex::default(),
            http,
        });
        let (mut readers, mut tasks) = (Vec::new(), JoinSet::new());
        for number in 0..count {
            let room = number % stage.rooms();
            let reader = Arc::new(Reader {
                number,
                room,
                last_seq: AtomicU64::new(0),
            });
            let path = format!("/v1/rooms/{}/stream", encode(&stage.room(room)));
            let url = shared.http.url(number / stage.rooms(), &path);
            let headers = shared.http.headers(stage.user_of(number).as_deref());
            tasks.spawn(follow(shared.clone(), reader.clone(), url, headers));
            readers.push(reader);
        }
        let subscribers = Self { shared, readers, tasks };
        let all_open = async {
            while subscribers.shared.open.load(Ordering::Relaxed) < count as u64 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(OPEN_WITHIN, all_open).await.is_err() {
            let open = subscribers.shared.open.load(Ordering::Relaxed);
            let why = subscribers.shared.seen().interruptions.clone();
            bail!("only {open} of {count} streams were opened within {OPEN_WITHIN:?}: {why:?}");
        }
        // What ended on the way has been opened again, and is no part of the measurement.
        subscribers.shared.seen().interruptions.clear();
        Ok(subscribers)
    }

    /// Only what is sent from then on, for so long, is timed.
    pub(crate) fn measure(&self, after: Duration, during: Duration) {
        let begin = self.shared.clock.now() + after.as_nanos() as u64;
        self.shared.seen().window = (begin, begin + during.as_nanos() as u64);
    }

    /// Waits for what is under way; `acknowledged` has the last seq of each room.
    pub(crate) async fn finish(mut self, acknowledged: &[AtomicU64]) -> Deliveries {
        let is_behind = |reader: &Arc<Reader>| {
            let last = acknowledged[reader.room].load(Ordering::Relaxed);
            last.saturating_sub(reader.last_seq.load(Ordering::Relaxed))
        };
        let drained = async {
            while self.readers.iter().any(|reader| is_behind(reader) > 0) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let behind = match timeout(DRAIN_WITHIN, drained).await {
            Ok(()) => 0,
            Err(_) => self.readers.iter().map(is_behind).sum(),
        };
        self.shared.over.store(true, Ordering::Relaxed);
        self.tasks.shutdown().await;
        let seen = self.shared.seen();
        let times = seen.times.percentiles();
        let seconds = (seen.window.1 - seen.window.0) as f64 / 1e9;
        Deliveries {
            subscribers: self.readers.len(),
            delivered: times.count,
            delivered_per_second: times.count as f64 / seconds,
            times,
            interruptions: seen.interruptions.clone(),
            missing: seen.missing + behind,
        }
    }
}

/// Reads until it is aborted, and resumes what ends.
async fn follow(shared: Arc<Shared>, reader: Arc<Reader>, url: Url, mut headers: HeaderMap) {
    let mut was_open = false;
    loop {
        let why = match shared.http.open(reader.number, url.clone(), &headers).await {
            Ok(response) => {
                if !std::mem::replace(&mut was_open, true) {
                    shared.open.fetch_add(1, Ordering::Relaxed);
                }
                read(&shared, &reader, response, &mut headers).await
            }
            Err(fault) => fault,
        };
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let code = match why {
            Fault::Code(code) => code.into_owned(),
            Fault::Wrong(what) => what,
        };
        *shared.seen().interruptions.entry(code).or_default() += 1;
        sleep(REOPEN_PAUSE).await;
    }
}

/// One connection, to its end.
async fn read(shared: &Shared, reader: &Reader, mut response: reqwest::Response, headers: &mut HeaderMap) -> Fault {
    let mut buffer = BytesMut::new();
    loop {
        let chunk = match timeout(SILENCE_MAX, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Fault::code("stream_ended"),
            Ok(Err(error)) => return lost(&error),
            Err(_) => return Fault::code("stream_silent"),
        };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
            let frame = Frame::of(&buffer[..end]);
            if let Some(id) = frame.id.and_then(|id| HeaderValue::from_bytes(id).ok()) {
                headers.insert(LAST_EVENT_ID, id);
            }
            match frame.event {
                b"message" => {
                    if let Err(fault) = message(shared, reader, frame.data) {
                        return fault;
                    }
                }
                b"slow_consumer" => return Fault::code("slow_consumer"),
                b"expired" => return Fault::code("position_expired"),
                _ => {}
            }
            buffer.advance(end + 2);
        }
        if buffer.len() > FRAME_BYTES_MAX {
            return Fault::code("endless_frame");
        }
    }
}

fn message(shared: &Shared, reader: &Reader, data: &[u8]) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Message {
        seq: u64,
        text: String,
    }
    let now = shared.clock.now();
    let message: Message = super::http::parse(data)?;
    let last = reader.last_seq.swap(message.seq, Ordering::Relaxed);
    let sent = shared.texts.number(&message.text);
    let mut seen = shared.seen();
    if last > 0 && message.seq != last + 1 {
        // One that comes again counts as well: nobody is to be given a message twice.
        seen.missing += message.seq.abs_diff(last + 1);
    }
    if let Some(sent) = sent
        && (seen.window.0..seen.window.1).contains(&sent)
    {
        seen.times.record(Duration::from_nanos(now.saturating_sub(sent)));
    }
    Ok(())
}

/// A frame as nodes write it: one line each, ended by LF.
#[derive(Debug, Default, PartialEq)]
struct Frame<'a> {
    event: &'a [u8],
    id: Option<&'a [u8]>,
    data: &'a [u8],
}

impl<'a> Frame<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut frame = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some(event) = line.strip_prefix(b"event: ") {
                frame.event = event;
            } else if let Some(id) = line.strip_prefix(b"id: ") {
                frame.id = Some(id);
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                frame.data = data;
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_line_by_line() {
        let frame = Frame::of(b"event: message\nid: 1.2.3\ndata: {\"seq\":4}");
        let expected = Frame {
            event: b"message",
            id: Some(b"1.2.3"),
            data: b"{\"seq\":4}",
        };
        assert_eq!(frame, expected);
        assert_eq!(Frame::of(b": a comment"), Frame::default());
    }

    #[tokio::test]
    async fn what_a_reader_was_not_given_is_missing() {
        let wiring = super::super::Wiring {
            nodes: vec!["http://127.0.0.1:1".into()],
            token: None,
            user: None,
            protocol: super::super::Protocol::Http1,
            connections: 1,
        };
        let shared = Shared {
            http: Arc::new(Http::new(&wiring).unwrap()),
            texts: Texts::new(16),
            clock: Clock::new(),
            over: AtomicBool::new(false),
            open: AtomicU64::new(0),
            seen: Mutex::default(),
        };
        shared.seen().window = (10, 20);
        let reader = Reader {
            number: 0,
            room: 0,
            last_seq: AtomicU64::new(0),
        };
        let give = |seq: u64, sent: u64| {
            let data = format!(r#"{{"seq":{seq},"text":"{}"}}"#, shared.texts.text(sent));
            message(&shared, &reader, data.as_bytes()).unwrap();
            let seen = shared.seen();
            (seen.missing, seen.times.count())
        };
        assert_eq!(
            give(7, 5),
            (0, 0),
            "it begins anywhere, and what was sent before is not timed"
        );
        assert_eq!(give(8, 15), (0, 1));
        assert_eq!(give(11, 16), (2, 2), "9 and 10 did not come");
        assert_eq!(give(11, 16).0, 3, "11 came twice");
    }
}
