//! The stream of a room: Server-Sent Events, resumed on any node from any position.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use quorate_state_machine::Seq;
use quorate_state_machine::planted::{Bug, is_planted};
use quorate_state_machine::query::{QueryBody, RoomCursor};

use super::Table;
use crate::app::unexpected_answer;
use crate::feed::{FIRST_ITEMS, Feed, Page};
use crate::headers::{self, LAST_EVENT_ID};
use crate::operation::Operation;
use crate::places::Class;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;

pub(super) fn routes(table: Table) -> Table {
    table.section("Streams").add(
        Operation::read("/v1/rooms/{room}/stream", "streamRoom", "Follow a room")
            .about(
                "Server-Sent Events. With `after` the messages behind that seq come first; with `Last-Event-ID` the \
                 stream goes on behind that event, on any node; with neither it begins now.",
            )
            .query(&["after"])
            .header(LAST_EVENT_ID)
            .events(),
        open,
    )
}

pub(super) async fn open(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let after = params.seq("after")?.map(Seq);
    let resumed = headers::position(&call.parts.headers, &LAST_EVENT_ID)?;
    let mut intent = call.read_intent(&params)?;
    let room = call.name("room")?;
    let caller = intent.caller()?;

    // A browser sends `Last-Event-ID` with the URL it began with, so it wins over `after`.
    let cursor = match (resumed, after) {
        (Some(position), _) => {
            // This node may be behind the one that gave it.
            intent.wait_for(position);
            RoomCursor::After(position)
        }
        (None, Some(seq)) => RoomCursor::AfterSeq(seq),
        (None, None) => RoomCursor::Now,
    };
    let place = call.app.places.take(Class::Stream)?;
    let read = call
        .read(
            intent,
            QueryBody::RoomChanges {
                room: room.clone(),
                after: cursor,
                limit: FIRST_ITEMS,
            },
        )
        .await?;
    let mut first = Page::from(read.answer).ok_or_else(unexpected_answer)?;
    if is_planted(Bug::StreamResumeOffByOne) && resumed.is_some() {
        first.items.drain(..first.items.len().min(1));
    }

    // What a bookmark promises is that all before it was delivered. Behind `after` that is so only
    // once the replay is through.
    let start = match cursor {
        RoomCursor::After(position) => Some(position),
        RoomCursor::Now => Some(first.next),
        RoomCursor::AfterSeq(_) => None,
    };
    let body = Feed {
        app: Arc::clone(&call.app),
        room,
        caller,
        start,
        place,
    }
    .start(first);
    Ok(reply::plain(StatusCode::OK, body)
        .with(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        )
        .with_position(read.position))
}
