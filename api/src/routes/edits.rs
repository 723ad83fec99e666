//! Messages in motion: another text, the earlier ones, none any more.

use axum::response::Response;
use http::StatusCode;
use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Code, Command, Revision};

use super::{Table, page_of, with_next_link};
use crate::app::{unexpected_answer, unexpected_outcome};
use crate::cursor::{self, List};
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;
use crate::{checks, convert};

pub(super) fn routes(table: Table) -> Table {
    const ONE: &str = "/v1/rooms/{room}/messages/{seq}";
    table
        .section("Messages")
        .add(
            Operation::patch(ONE, "editMessage", "Give a message another text")
                .about("By its sender, or root. The earlier text stays readable among the revisions.")
                .merge_patch::<wire::MessageEdit>()
                .entity::<wire::Message>()
                .errors(&[Code::Conflict]),
            edit,
        )
        .add(
            Operation::delete(ONE, "redactMessage", "Take a message's content away")
                .about("By its sender, the room's owners and moderators, or root. The seq stays, the texts go.")
                .no_content(),
            redact,
        )
        .add(
            Operation::read(
                "/v1/rooms/{room}/messages/{seq}/revisions",
                "listRevisions",
                "Read a message's earlier texts",
            )
            .list::<wire::RevisionList>(),
            revisions,
        )
}

/// A merge patch of a message has one field, and that cannot be removed: what takes a text away is DELETE.
pub(super) async fn edit(call: Call) -> Result<Response, Problem> {
    let wire::MessageEdit { text } = call.json()?;
    checks::text(&text)?;
    let intent = call.write_intent()?;
    let (room, seq) = (call.name("room")?, call.seq("seq")?);
    let committed = call.write(intent, Command::EditMessage { room, seq, text }).await?;
    let Done::Message(message) = &committed.done else {
        return Err(unexpected_outcome());
    };
    let message = message.borrowed();
    Ok(reply::message(&message)
        .with_etag(message.rev.0)
        .with_commit(&committed))
}

pub(super) async fn redact(call: Call) -> Result<Response, Problem> {
    let intent = call.write_intent()?;
    let (room, seq) = (call.name("room")?, call.seq("seq")?);
    let committed = call.write(intent, Command::RedactMessage { room, seq }).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT).with_commit(&committed))
}

pub(super) async fn revisions(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let (after, limit) = page_of(&params, List::Revisions)?;
    let after = after.map(|rev| cursor::revision(&rev)).transpose()?;
    let intent = call.read_intent(&params)?;
    let (room, seq) = (call.name("room")?, call.seq("seq")?);
    let body = QueryBody::MessageRevisions {
        room,
        seq,
        after,
        limit,
    };
    let read = call.read(intent, body).await?;
    let Answer::MessageRevisions { revisions, next } = read.answer else {
        return Err(unexpected_answer());
    };
    let list = wire::RevisionList {
        revisions: revisions.into_iter().map(convert::revision).collect(),
        next_cursor: next.map(|Revision(last)| cursor::encode(List::Revisions, &last.to_string())),
    };
    let response = reply::json(StatusCode::OK, &list)?.with_position(read.position);
    Ok(with_next_link(response, &call, &params, list.next_cursor.as_deref()))
}
