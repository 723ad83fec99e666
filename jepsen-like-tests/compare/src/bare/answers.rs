//! What the bare handler answers: bytes and headers that Quorate has given to the same requests.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::systems::{MESSAGES, Quorate};
use crate::work::PAGE;

/// Asked at once, and for how long.
const AT_ONCE: usize = 16;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What every server sets by itself.
const SERVERS_OWN: [HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::DATE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
];

/// As they are handed to the process of the handler, in a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answers {
    tag: String,
    rooms: usize,
    sent_headers: Vec<(String, String)>,
    message_headers: Vec<(String, String)>,
    page_headers: Vec<(String, String)>,
    /// By path and query.
    bodies: BTreeMap<String, String>,
}

/// As the handler uses them.
pub(super) struct Ready {
    pub(super) sent_headers: HeaderMap,
    pub(super) message_headers: HeaderMap,
    pub(super) page_headers: HeaderMap,
    bodies: HashMap<String, Bytes>,
}

impl Answers {
    /// Asks the leader for every message and every page that the generator will ask for, and sends a message.
    pub(crate) async fn fetch(quorate: &Quorate) -> Result<Self> {
        let asked = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        let url = |path: &str| format!("{}{path}", quorate.leader());
        let get = async |path: String| {
            let answer = asked.get(url(&path)).send().await?.error_for_status()?;
            let headers = kept(answer.headers());
            anyhow::Ok((path, headers, answer.text().await?))
        };
        let stage = quorate.stage();
        let room = |index| format!("/v1/rooms/{}/messages", stage.room(index));
        let mut paths = Vec::new();
        for path in (0..stage.rooms()).map(room) {
            paths.extend((1..=MESSAGES).map(|seq| format!("{path}/{seq}?level=linearizable")));
            let starts = 0..=MESSAGES - u64::from(PAGE);
            paths.extend(starts.map(|after| format!("{path}?after={after}&limit={PAGE}&level=linearizable")));
        }
        let (one, page) = (paths[0].clone(), paths[paths.len() - 1].clone());
        let found: Vec<(String, String)> = stream::iter(paths)
            .map(&get)
            .buffer_unordered(AT_ONCE)
            .map_ok(|(path, _, body)| (path, body))
            .try_collect()
            .await
            .context("failed to fetch the answers of Quorate")?;
        let sent = asked
            .post(url(&room(0)))
            .header(header::CONTENT_TYPE, "application/json")
            .body(r#"{"text":"what is answered?"}"#)
            .send()
            .await?
            .error_for_status()?;
        Ok(Self {
            tag: stage.tag().to_owned(),
            rooms: stage.rooms(),
            sent_headers: kept(sent.headers()),
            message_headers: get(one).await?.1,
            page_headers: get(page).await?.1,
            bodies: found.into_iter().collect(),
        })
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    pub(crate) fn rooms(&self) -> usize {
        self.rooms
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let mut file =
            BufWriter::new(File::create(file).with_context(|| format!("failed to create {}", file.display()))?);
        serde_json::to_writer(&mut file, self)?;
        Ok(file.flush()?)
    }

    pub(super) fn load(file: &Path) -> Result<Self> {
        let opened = File::open(file).with_context(|| format!("failed to open {}", file.display()))?;
        serde_json::from_reader(BufReader::new(opened)).with_context(|| format!("{} is not of compare", file.display()))
    }

    pub(super) fn ready(self) -> Result<Ready> {
        ensure!(!self.bodies.is_empty(), "there is nothing to answer");
        Ok(Ready {
            sent_headers: headers(&self.sent_headers)?,
            message_headers: headers(&self.message_headers)?,
            page_headers: headers(&self.page_headers)?,
            bodies: self
                .bodies
                .into_iter()
                .map(|(path, body)| (path, body.into()))
                .collect(),
        })
    }
}

impl Ready {
    pub(super) fn body(&self, uri: &Uri) -> Option<Bytes> {
        self.bodies.get(uri.path_and_query()?.as_str()).cloned()
    }
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| !SERVERS_OWN.contains(name));
    kept.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

fn headers(list: &[(String, String)]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(headers)
}
