//! Messages: one, a batch, a page of history, one again.

use axum::response::Response;
use http::StatusCode;
use quorate_client::wire;
use quorate_state_machine::query::{Page, QueryBody};
use quorate_state_machine::{Answer, Code, Seq};

use super::Table;
use crate::app::unexpected_answer;
use crate::headers;
use crate::json::Batch;
use crate::message::PageBody;
use crate::operation::Operation;
use crate::params::Params;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;
use crate::sending::{self, Outgoing};
use crate::time::parse_ms;

pub(super) fn routes(table: Table) -> Table {
    const ALL: &str = "/v1/rooms/{room}/messages";
    table
        .section("Messages")
        .add(
            Operation::post(ALL, "sendMessage", "Send a message")
                .about("With a `client_id` it may be repeated safely for as long as the message lives.")
                .json::<wire::NewMessage>()
                .created::<wire::Sent>()
                .errors(&[Code::Invalid]),
            send,
        )
        .add(
            Operation::read(ALL, "listMessages", "Read a page of the history")
                .about("Oldest first. Without a position it is the newest page; with two it is a 400.")
                .query(&["limit", "after", "before", "around", "at"])
                .answers::<wire::MessagePage>(200),
            page,
        )
        .add(
            Operation::post(
                "/v1/rooms/{room}/messages/batch",
                "sendBatch",
                "Send up to 1000 messages, all or none",
            )
            .about("`sender` and `sent_at` are root's, for imports; the sender must exist.")
            .json::<wire::Batch>()
            .answers::<wire::SentBatch>(201)
            .errors(&[Code::Invalid]),
            send_batch,
        )
        .add(
            Operation::read("/v1/rooms/{room}/messages/{seq}", "getMessage", "Show a message")
                .entity::<wire::Message>(),
            get,
        )
}

pub(super) async fn send(call: Call) -> Result<Response, Problem> {
    let outgoing = Outgoing::one(call.json()?)?;
    let intent = call.write_intent()?;
    let room = call.name("room")?;
    let committed = call.write(intent, outgoing.into_command(room)?).await?;
    let sent = sending::sent(&committed.done)?;
    Ok(reply::json(StatusCode::CREATED, &sent)?
        .with_etag(sent.rev)
        .with_location(&call.location_of(&sent.seq.to_string()))
        .with_commit(&committed))
}

pub(super) async fn send_batch(call: Call) -> Result<Response, Problem> {
    let Batch { messages } = call.json()?;
    let outgoing = Outgoing::batch(messages)?;
    let intent = call.write_intent()?;
    let room = call.name("room")?;
    let committed = call.write(intent, outgoing.into_command(room)?).await?;
    let sent = sending::sent_batch(&committed.done)?;
    Ok(reply::json(StatusCode::CREATED, &sent)?.with_commit(&committed))
}

pub(super) async fn page(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let limit = params.limit()?;
    let from = page_start(&params)?;
    let intent = call.read_intent(&params)?;
    let room = call.name("room")?;
    let mut page = PageBody::new(&call.app.kept);
    let body = QueryBody::Messages { room, from, limit };
    let read = call.read_page(intent, body, &mut page).await?;
    let Answer::Page(_) = read.answer else {
        return Err(unexpected_answer());
    };
    Ok(reply::json_bytes(StatusCode::OK, page.into_bytes()).with_position(read.position))
}

fn page_start(params: &Params) -> Result<Page, Problem> {
    let seq = |name| Ok::<_, Problem>(params.seq(name)?.map(Seq));
    let at = params
        .get("at")
        .map(|text| parse_ms(text).ok_or_else(|| Problem::bad_request("at must be a time as RFC 3339 writes it")))
        .transpose()?;
    match (seq("after")?, seq("before")?, seq("around")?, at) {
        (None, None, None, None) => Ok(Page::Newest),
        (Some(seq), None, None, None) => Ok(Page::After(seq)),
        (None, Some(seq), None, None) => Ok(Page::Before(seq)),
        (None, None, Some(seq), None) => Ok(Page::Around(seq)),
        // No message is older than 1970.
        (None, None, None, Some(ms)) => Ok(Page::At(u64::try_from(ms).unwrap_or(0))),
        _ => Err(Problem::bad_request("a page has one of after, before, around and at")),
    }
}

pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let intent = call.read_intent(&params)?;
    let (room, seq) = (call.name("room")?, call.seq("seq")?);
    let read = call.read(intent, QueryBody::Message { room, seq }).await?;
    let Answer::Message(message) = read.answer else {
        return Err(unexpected_answer());
    };
    let rev = message.rev.0;
    let response = if headers::has_revision(&call.parts.headers, rev) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        reply::message(&message.borrowed())
    };
    Ok(response.with_etag(rev).with_position(read.position))
}
