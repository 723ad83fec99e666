//! The bare handler: what one request of HTTP for each message costs at least, with the same JSON and one synced file, and
//! what a read costs whose bytes lie in memory. It speaks as much of the contract as the generator's own code for
//! Quorate needs, so that nothing differs on that side.

mod answers;
mod journal;

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use quorate_client::wire::{Message, NewMessage, Sent};
use tokio::net::TcpListener;

pub(crate) use self::answers::Answers;
use self::answers::Ready;
use self::journal::Journal;
use crate::flags;
use crate::systems::FIRST_SEQ;

/// As long as those of Quorate.
const TIME: &str = "2026-01-01T00:00:00.000Z";

struct Handler {
    answers: Ready,
    journal: Journal,
}

/// Serves until the process is ended.
pub(crate) fn serve(flags: &flags::Bare) -> Result<()> {
    let handler = Handler {
        answers: Answers::load(&flags.answers)?.ready()?,
        journal: Journal::open(&flags.journal, FIRST_SEQ)?,
    };
    // As many threads as there are cores, as `quorate` has them.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(flags.listen)
            .await
            .with_context(|| format!("failed to listen on {}", flags.listen))?;
        let listener = listener.tap_io(|socket| {
            // A socket that is gone already needs no setting.
            let _ = socket.set_nodelay(true);
        });
        axum::serve(listener, router(handler)).await.context("failed to serve")
    })
}

fn router(handler: Handler) -> Router {
    Router::new()
        .route("/v1/rooms/{room}/messages", post(send).get(read_page))
        .route("/v1/rooms/{room}/messages/{seq}", get(read_message))
        .with_state(Arc::new(handler))
}

async fn send(
    State(handler): State<Arc<Handler>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(message) = serde_json::from_slice::<NewMessage>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let seq = handler.journal.append(room.clone(), message.text).await;
    let sender = headers.get("x-quorate-user").and_then(|user| user.to_str().ok());
    let sent = Sent {
        room,
        seq,
        rev: seq,
        sent_at: TIME.to_owned(),
        sender: sender.unwrap_or("root").to_owned(),
        status: "committed".to_owned(),
    };
    let body = serde_json::to_vec(&sent).expect("wire types have no keys but strings");
    (StatusCode::CREATED, handler.answers.sent_headers.clone(), body).into_response()
}

async fn read_page(State(handler): State<Arc<Handler>>, uri: Uri) -> Response {
    match handler.answers.body(&uri) {
        Some(body) => (handler.answers.page_headers.clone(), body).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// One of those that Quorate had answered, or else one that was sent here: for the reading back.
async fn read_message(
    State(handler): State<Arc<Handler>>,
    Path((room, seq)): Path<(String, u64)>,
    uri: Uri,
) -> Response {
    if let Some(body) = handler.answers.body(&uri) {
        return (handler.answers.message_headers.clone(), body).into_response();
    }
    let text = match handler.journal.read(&room, seq) {
        Ok(Some(text)) => text,
        Ok(None) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            eprintln!("failed to read message {seq} of {room}: {error}");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let message = Message {
        room,
        seq,
        rev: seq,
        sender: "root".to_owned(),
        sent_at: TIME.to_owned(),
        kind: "text".to_owned(),
        text: Some(text),
        client_id: None,
        reply_to: None,
        edited_at: None,
        redacted_at: None,
        attributes: None,
    };
    let body = serde_json::to_vec(&message).expect("wire types have no keys but strings");
    (handler.answers.message_headers.clone(), body).into_response()
}
