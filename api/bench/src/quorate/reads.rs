//! Reads of what was sent before the load: one message, or a page.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use quorate_client::Level;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::http::{Http, encode, parse};
use super::scatter;
use super::stage::Stage;
use super::text::Texts;
use crate::target::{Call, Done, Fault, Target, Unheld};

/// One answer of so many is compared with what was sent; of the others the status is looked at.
const CHECKED: u64 = 16;

/// What is the same for both: whom is asked, as whom, and what the rooms hold.
#[derive(Debug)]
pub(crate) struct Readers {
    pub(crate) http: Arc<Http>,
    pub(crate) stage: Arc<Stage>,
    texts: Texts,
    level: &'static str,
    /// By room: the path of its messages.
    paths: Vec<String>,
    /// By user.
    headers: Vec<HeaderMap>,
}

#[derive(Deserialize)]
struct Read {
    seq: u64,
    text: String,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Read>,
}

impl Readers {
    pub(crate) fn new(http: Arc<Http>, stage: Arc<Stage>, level: Level) -> Self {
        let paths = (0..stage.rooms()).map(|room| format!("/v1/rooms/{}/messages", encode(&stage.room(room))));
        Self {
            texts: stage.texts(),
            level: match level {
                Level::Linearizable => "linearizable",
                Level::Local => "local",
            },
            paths: paths.collect(),
            headers: http.headers_by_user(&stage),
            http,
            stage,
        }
    }

    /// A room for this operation, and a number for the place in it.
    pub(crate) fn place(&self, number: u64) -> (usize, u64) {
        let chance = scatter(number);
        let rooms = self.paths.len() as u64;
        ((chance % rooms) as usize, chance / rooms)
    }

    /// `rest` follows the path of the room's messages.
    async fn get(&self, call: Call, room: usize, rest: &str) -> Result<Bytes, Fault> {
        self.get_path(call, &format!("{}{rest}", self.paths[room])).await
    }

    pub(crate) async fn get_path(&self, call: Call, path: &str) -> Result<Bytes, Fault> {
        let url: Url = self.http.url(call.client, path);
        let headers = &self.headers[call.client % self.headers.len()];
        self.http
            .ask(call.client, Method::GET, url, headers, Bytes::new())
            .await
    }

    /// One message of those that were there before.
    pub(crate) async fn read(&self, call: Call) -> Result<(), Fault> {
        let (room, place) = self.place(call.number);
        let seq = place % self.stage.messages() + 1;
        let body = self.get(call, room, &format!("/{seq}?level={}", self.level)).await?;
        match call.number.is_multiple_of(CHECKED) {
            true => self.check(room, seq, &parse::<Read>(&body)?),
            false => Ok(()),
        }
    }

    /// A page of `limit`, the newest or any.
    pub(crate) async fn page(&self, call: Call, place: PagePlace, limit: u32) -> Result<(), Fault> {
        let (room, chance) = self.place(call.number);
        let level = self.level;
        match place {
            PagePlace::Newest => {
                let body = self.get(call, room, &format!("?limit={limit}&level={level}")).await?;
                // What was sent meanwhile is no part of what is known.
                match call.number.is_multiple_of(CHECKED) {
                    true => parse::<Page>(&body).map(drop),
                    false => Ok(()),
                }
            }
            PagePlace::Any => {
                let messages = self.stage.messages();
                let full = messages.saturating_sub(u64::from(limit)) + 1;
                let after = chance % full;
                let query = format!("?after={after}&limit={limit}&level={level}");
                let body = self.get(call, room, &query).await?;
                match call.number.is_multiple_of(CHECKED) {
                    true => self.check_page(room, after, messages.min(u64::from(limit)), &body),
                    false => Ok(()),
                }
            }
        }
    }

    /// What is new after what was there before: a client that asks whether there is news.
    pub(crate) async fn poll(&self, call: Call) -> Result<(), Fault> {
        let (room, _) = self.place(call.number);
        let query = format!("?after={}&limit=1&level={}", self.stage.messages(), self.level);
        self.get(call, room, &query).await.map(drop)
    }

    fn check_page(&self, room: usize, after: u64, count: u64, body: &[u8]) -> Result<(), Fault> {
        let page: Page = parse(body)?;
        if (page.messages.len() as u64) < count {
            let room = self.stage.room(room);
            return Err(Fault::Wrong(format!(
                "the page of {room} after {after} has {} messages of {count}",
                page.messages.len()
            )));
        }
        for (seq, message) in (after + 1..).zip(&page.messages) {
            // What follows was sent by others meanwhile.
            if seq <= self.stage.messages() {
                self.check(room, seq, message)?;
            }
        }
        Ok(())
    }

    fn check(&self, room: usize, seq: u64, found: &Read) -> Result<(), Fault> {
        match found.seq == seq && self.texts.is(&found.text, seq) {
            true => Ok(()),
            false => Err(Fault::Wrong(format!(
                "message {seq} of {} is answered as {} {:?}",
                self.stage.room(room),
                found.seq,
                found.text.chars().take(40).collect::<String>()
            ))),
        }
    }
}

/// `read`: one message.
#[derive(Debug)]
pub struct Reads(Readers);

impl Reads {
    /// # Panics
    /// If the stage has no messages.
    pub fn new(http: Arc<Http>, stage: Arc<Stage>, level: Level) -> Self {
        assert!(stage.messages() > 0, "there is something to read");
        Self(Readers::new(http, stage, level))
    }
}

impl Target for Reads {
    type Receipt = Infallible;

    fn kinds(&self) -> &'static [&'static str] {
        &["read"]
    }

    async fn perform(&self, call: Call) -> Result<Done<Infallible>, Fault> {
        self.0.read(call).await.map(|()| Done::one(None))
    }

    async fn read_back(&self, receipt: &Infallible) -> Result<(), Unheld> {
        match *receipt {}
    }
}

/// Which page of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagePlace {
    Newest,
    /// Anywhere, a full one.
    Any,
}

/// `history`: a page.
#[derive(Debug)]
pub struct Pages {
    readers: Readers,
    place: PagePlace,
    limit: u32,
}

impl Pages {
    /// # Panics
    /// If the stage has no messages.
    pub fn new(http: Arc<Http>, stage: Arc<Stage>, level: Level, place: PagePlace, limit: u32) -> Self {
        assert!(stage.messages() > 0, "there is something to read");
        Self {
            readers: Readers::new(http, stage, level),
            place,
            limit,
        }
    }
}

impl Target for Pages {
    type Receipt = Infallible;

    fn kinds(&self) -> &'static [&'static str] {
        &["page"]
    }

    async fn perform(&self, call: Call) -> Result<Done<Infallible>, Fault> {
        let done = self.readers.page(call, self.place, self.limit).await;
        done.map(|()| Done::one(None))
    }

    async fn read_back(&self, receipt: &Infallible) -> Result<(), Unheld> {
        match *receipt {}
    }
}
