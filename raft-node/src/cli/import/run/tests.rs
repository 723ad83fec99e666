//! Imports into a store of one room that lives in this test: it knows `client_id`s as the real one
//! does, and fails where it is told to.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use quorate_client::wire::{Batch, Message, MessagePage, SentBatch};
use quorate_state_machine::limits::TEXT_BYTES_MAX;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::cli::import::irc_sources;
use crate::cli::testing::{self, Answer, refusal};

#[derive(Default)]
struct State {
    room: bool,
    users: BTreeSet<String>,
    messages: Vec<Message>,
    /// How many lines each batch had.
    batches: Vec<usize>,
    /// Breaks the connection of this batch (from 0) after having applied it.
    break_after: Option<usize>,
    /// Refuses from this batch on.
    refuse_from: Option<usize>,
}

struct Store {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Store {
    async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let url = testing::serve(move |method, path, body| {
            let mut state = shared.lock().expect("no test panics while holding it");
            answer(method, path, body, &mut state)
        })
        .await;
        Self { url, state }
    }

    /// Runs an import of the files in batches of 10 lines.
    async fn import(&self, files: &[PathBuf]) -> Result<Summary, Failure> {
        import(&testing::client(&self.url), "r", &mut irc_sources(files, None)?, 10).await
    }

    fn texts(&self) -> Vec<String> {
        let state = self.state.lock().expect("no test panics while holding it");
        state
            .messages
            .iter()
            .map(|message| message.text.clone().expect("nothing is redacted"))
            .collect()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no test panics while holding it"));
    }
}

fn answer(method: &str, path: &str, body: &[u8], state: &mut State) -> Answer {
    let room = json!({"room": "r", "id": 1, "kind": "public", "created_at": "", "created_by": "root",
                      "first_seq": 0, "last_seq": 0, "member_count": 0, "rev": 1});
    Some(match (method, path.split('?').next()?) {
        ("GET", "/v1/rooms/r") if state.room => (200, room),
        ("GET", "/v1/rooms/r") => refusal(404, "not_found"),
        ("POST", "/v1/rooms") => {
            state.room = true;
            (201, room)
        }
        ("POST", "/v1/users") => {
            let user: NewUser = serde_json::from_slice(body).expect("a user");
            if !state.users.insert(user.user.clone()) {
                return Some(refusal(409, "already_exists"));
            }
            (
                201,
                json!({"user": user.user, "id": 1, "display_name": "", "created_at": "", "rev": 1}),
            )
        }
        ("GET", "/v1/rooms/r/messages") => {
            let messages = state.messages[state.messages.len().saturating_sub(500)..].to_vec();
            let seq = |message: Option<&Message>| message.map_or(0, |message| message.seq);
            let (first_seq, last_seq) = (seq(messages.first()), seq(messages.last()));
            let page = MessagePage {
                messages,
                first_seq,
                last_seq,
                more_before: false,
                more_after: false,
            };
            (200, serde_json::to_value(page).expect("JSON"))
        }
        ("POST", "/v1/rooms/r/messages/batch") => return batch(body, state),
        other => panic!("an import does not ask for {other:?}"),
    })
}

fn batch(body: &[u8], state: &mut State) -> Answer {
    if state.refuse_from.is_some_and(|from| state.batches.len() >= from) {
        return Some(refusal(403, "forbidden"));
    }
    let batch: Batch = serde_json::from_slice(body).expect("a batch");
    let breaks = state.break_after == Some(state.batches.len());
    state.batches.push(batch.messages.len());
    let mut seqs = Vec::new();
    for message in batch.messages {
        let sender = message.sender.expect("an import names the sender");
        assert!(sender == "root" || state.users.contains(&sender), "{sender} must exist");
        let known = state.messages.iter().find(|known| known.client_id == message.client_id);
        seqs.push(known.map_or(state.messages.len() as u64 + 1, |known| known.seq));
        if known.is_none() {
            state.messages.push(Message {
                room: "r".into(),
                seq: state.messages.len() as u64 + 1,
                rev: 1,
                sender,
                sent_at: message.sent_at.expect("an import names the time"),
                kind: message.kind.unwrap_or_else(|| "text".into()),
                text: Some(message.text),
                client_id: message.client_id,
                reply_to: None,
                edited_at: None,
                redacted_at: None,
                attributes: None,
            });
        }
    }
    let sent = SentBatch {
        room: "r".into(),
        first_seq: seqs[0],
        last_seq: *seqs.last()?,
        seqs,
        rev: 1,
    };
    if breaks {
        None
    } else {
        Some((201, serde_json::to_value(sent).expect("JSON")))
    }
}

fn file(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(bytes).expect("room on the disk");
    path
}

/// `count` lines that say their number, from 1.
fn log(count: usize) -> (Vec<u8>, Vec<String>) {
    let texts: Vec<String> = (1..=count).map(|number| format!("line {number}")).collect();
    let lines = texts
        .iter()
        .enumerate()
        .map(|(at, text)| format!("[12:{:02}] <nick{}> {text}\n", at % 60, at % 7));
    (lines.collect::<String>().into_bytes(), texts)
}

#[tokio::test]
async fn every_line_becomes_one_message_in_order() {
    let (store, directory) = (Store::start().await, TempDir::new().expect("a directory"));
    let bytes = b"=== ann joined\r\n[12:59] <ann > hi \r\n\n[01:00]  * bob waves\n[01:00] <root> x\xff\xfey\xe2\x82\n[01:01] <a b> last";
    let summary = store
        .import(&[file(&directory, "2004-11-15_x.txt", bytes)])
        .await
        .expect("an import");
    assert_eq!(
        (summary.lines, summary.sent, summary.replaced_bytes, summary.last_seq),
        (6, 6, 4, Some(6))
    );
    let state = store.state.lock().expect("no test panics while holding it");
    let messages: Vec<(&str, &str, &str, &str)> = state
        .messages
        .iter()
        .map(|m| {
            (
                m.kind.as_str(),
                m.sender.as_str(),
                m.text.as_deref().expect("a text"),
                &m.sent_at[..16],
            )
        })
        .collect();
    assert_eq!(
        messages,
        [
            ("system", "root", "=== ann joined", "2004-11-15T00:00"),
            ("text", "ann", "hi ", "2004-11-15T12:59"),
            ("system", "root", "", "2004-11-15T12:59"),
            ("action", "bob", "waves", "2004-11-15T13:00"),
            ("text", "root", "x\u{fffd}\u{fffd}y\u{fffd}", "2004-11-15T13:00"),
            ("text", "a%20b", "last", "2004-11-15T13:01"),
        ]
    );
    assert_eq!(state.messages[5].client_id.as_deref(), Some("irc:2004-11-15_x.txt:6"));
    assert_eq!(
        state.users.iter().collect::<Vec<_>>(),
        ["a%20b", "ann", "bob"],
        "root is nobody's to make"
    );
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_not_sent_twice() {
    let (store, directory) = (Store::start().await, TempDir::new().expect("a directory"));
    store.set(|state| state.break_after = Some(1));
    let (bytes, texts) = log(35);
    store
        .import(&[file(&directory, "2004-11-15.txt", &bytes)])
        .await
        .expect("an import");
    assert_eq!(store.texts(), texts);
}

#[tokio::test]
async fn an_interrupted_import_goes_on_where_it_stopped() {
    let (store, directory) = (Store::start().await, TempDir::new().expect("a directory"));
    let (bytes, texts) = log(95);
    let files = [
        file(&directory, "2004-11-15.txt", &bytes),
        file(&directory, "2004-11-16.txt", &bytes),
    ];
    store.set(|state| state.refuse_from = Some(12));
    let failure = store.import(&files).await.expect_err("refused on its way");
    assert!(
        matches!(&failure, Failure::Midway { hint, .. } if hint.contains("115 lines were sent")),
        "{failure:?}"
    );

    store.set(|state| state.refuse_from = None);
    let summary = store.import(&files).await.expect("an import");
    assert_eq!((summary.lines, summary.sent), (190, 75), "115 lines were there");
    assert_eq!(store.texts(), [texts.clone(), texts].concat());

    let summary = store.import(&files).await.expect("an import");
    assert_eq!((summary.sent, summary.last_seq), (0, None), "nothing is left to do");
}

#[tokio::test]
async fn an_import_whose_last_line_is_out_of_sight_sends_again_what_the_store_knows() {
    let (store, directory) = (Store::start().await, TempDir::new().expect("a directory"));
    let (bytes, texts) = log(20);
    let files = [file(&directory, "2004-11-15.txt", &bytes)];
    store.import(&files).await.expect("an import");
    let (other, others) = log(600);
    store
        .import(&[file(&directory, "2004-11-16.txt", &other)])
        .await
        .expect("an import");
    let summary = store.import(&files).await.expect("an import");
    assert_eq!(summary.sent, 20);
    assert_eq!(store.texts(), [texts, others].concat(), "and keeps each once");
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_before_anything_is_sent() {
    let (store, directory) = (Store::start().await, TempDir::new().expect("a directory"));
    let long = [
        b"[12:00] <ann> short\n[12:00] <ann> ".to_vec(),
        vec![b'x'; TEXT_BYTES_MAX + 1],
    ]
    .concat();
    let endless = vec![b'x'; 2 << 20];
    let fits = [b"[12:00] <ann> ".to_vec(), vec![b'x'; TEXT_BYTES_MAX]].concat();
    for (name, bytes, word) in [
        ("2004-11-15_long.txt", long, "line 2 has 65537 bytes"),
        ("2004-11-15_endless.txt", endless, "line 1 has more than"),
        ("undated.txt", Vec::new(), "--date"),
    ] {
        let failure = store.import(&[file(&directory, name, &bytes)]).await.expect_err(name);
        assert!(
            matches!(&failure, Failure::Usage(text) if text.contains(word)),
            "{failure:?}"
        );
    }
    let twice = [
        directory.path().join("2004-11-15.txt"),
        directory.path().join("x/2004-11-15.txt"),
    ];
    assert!(matches!(store.import(&twice).await, Err(Failure::Usage(_))));
    assert!(
        matches!(store.import(&twice[..1]).await, Err(Failure::Usage(text)) if text.contains("failed to read")),
        "it is not there"
    );
    let folder = directory.path().join("2004-11-15_folder");
    std::fs::create_dir(&folder).expect("a folder");
    assert!(matches!(store.import(&[folder]).await, Err(Failure::Usage(_))));
    assert!(
        !store.state.lock().expect("no test panics while holding it").room,
        "not even the room was made"
    );
    store
        .import(&[file(&directory, "2004-11-15_fits.txt", &fits)])
        .await
        .expect("exactly the bound");
}

#[tokio::test]
async fn batches_stay_below_the_bound_of_a_body() {
    let (store, directory) = (Store::start().await, TempDir::new().expect("a directory"));
    // Control characters take six bytes each in JSON.
    let line = [b"[12:00] <ann> ".to_vec(), vec![1; TEXT_BYTES_MAX], b"\n".to_vec()].concat();
    store
        .import(&[file(&directory, "2004-11-15.txt", &line.repeat(20))])
        .await
        .expect("an import");
    let state = store.state.lock().expect("no test panics while holding it");
    assert_eq!(state.batches.iter().sum::<usize>(), 20);
    assert!(
        state.batches.iter().all(|lines| lines * TEXT_BYTES_MAX * 6 < 4 << 20),
        "{:?}",
        state.batches
    );
}
