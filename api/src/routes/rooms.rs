//! Rooms.

use axum::response::Response;
use http::StatusCode;
use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::command::Patch;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Code, Command, fields};

use super::{Table, page_of, with_next_link};
use crate::app::{unexpected_answer, unexpected_outcome};
use crate::cursor::{self, List};
use crate::json::{RoomPatch, patch as field};
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;
use crate::{checks, convert, headers};

pub(super) fn routes(table: Table) -> Table {
    const ALL: &str = "/v1/rooms";
    const ONE: &str = "/v1/rooms/{room}";
    table
        .section("Rooms")
        .add(
            Operation::post(ALL, "createRoom", "Create a room")
                .about("The creator is its owner, except root, who is never a member.")
                .json::<wire::NewRoom>()
                .created::<wire::Room>()
                .errors(&[Code::AlreadyExists, Code::Invalid]),
            create,
        )
        .add(
            Operation::read(ALL, "listRooms", "List the caller's rooms")
                .about("To root it gives all rooms.")
                .list::<wire::RoomList>(),
            list,
        )
        .add(
            Operation::read(ONE, "getRoom", "Show a room").entity::<wire::Room>(),
            get,
        )
        .add(
            Operation::patch(ONE, "updateRoom", "Change a room")
                .merge_patch::<RoomPatch>()
                .entity::<wire::Room>()
                .errors(&[Code::Invalid]),
            patch,
        )
        .add(
            Operation::delete(ONE, "deleteRoom", "Delete a room with its messages").no_content(),
            delete,
        )
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let wire::NewRoom {
        room,
        kind,
        title,
        members,
        attributes,
    } = call.json()?;
    checks::new_room_members(&members)?;
    let attributes = attributes.as_ref().map(checks::attributes).transpose()?;
    let intent = call.write_intent()?;
    checks::name("room", &room)?;
    checks::optional(title.as_deref(), fields::title)?;

    let location = call.location_of(&room);
    let command = Command::CreateRoom {
        room,
        kind: convert::room_kind(kind),
        title,
        members,
        attributes,
    };
    let committed = call.write(intent, command).await?;
    let Done::Room(room) = &committed.done else {
        return Err(unexpected_outcome());
    };
    let room = convert::room(room.clone());
    let response = reply::json(StatusCode::CREATED, &room)?;
    Ok(response
        .with_etag(room.rev)
        .with_location(&location)
        .with_commit(&committed))
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let (after, limit) = page_of(&params, List::Rooms)?;
    let intent = call.read_intent(&params)?;
    let read = call.read(intent, QueryBody::Rooms { after, limit }).await?;
    let Answer::Rooms { rooms, next } = read.answer else {
        return Err(unexpected_answer());
    };
    let list = wire::RoomList {
        rooms: rooms.into_iter().map(convert::room).collect(),
        next_cursor: next.map(|last| cursor::encode(List::Rooms, &last)),
    };
    let response = reply::json(StatusCode::OK, &list)?.with_position(read.position);
    Ok(with_next_link(response, &call, &params, list.next_cursor.as_deref()))
}

pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let intent = call.read_intent(&params)?;
    let room = call.name("room")?;
    let read = call.read(intent, QueryBody::Room { room }).await?;
    let Answer::Room(room) = read.answer else {
        return Err(unexpected_answer());
    };
    let room = convert::room(room);
    let response = if headers::has_revision(&call.parts.headers, room.rev) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        reply::json(StatusCode::OK, &room)?
    };
    Ok(response.with_etag(room.rev).with_position(read.position))
}

pub(super) async fn patch(call: Call) -> Result<Response, Problem> {
    let RoomPatch { title, attributes } = call.json()?;
    let attributes = match field(attributes) {
        Patch::Set(attributes) => Patch::Set(checks::attributes(&attributes)?),
        Patch::Remove => Patch::Remove,
        Patch::Keep => Patch::Keep,
    };
    let intent = call.write_intent()?;
    let room = call.name("room")?;
    checks::optional(title.as_ref().and_then(|title| title.as_deref()), fields::title)?;

    let committed = call
        .write(
            intent,
            Command::UpdateRoom {
                room,
                title: field(title),
                attributes,
            },
        )
        .await?;
    let Done::Room(room) = &committed.done else {
        return Err(unexpected_outcome());
    };
    let room = convert::room(room.clone());
    Ok(reply::json(StatusCode::OK, &room)?
        .with_etag(room.rev)
        .with_commit(&committed))
}

pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    let intent = call.write_intent()?;
    let room = call.name("room")?;
    let committed = call.write(intent, Command::DeleteRoom { room }).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT).with_commit(&committed))
}
