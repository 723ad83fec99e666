//! Members of a room.

use axum::response::Response;
use http::StatusCode;
use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Code, Command};

use super::{Table, page_of, with_next_link};
use crate::app::{unexpected_answer, unexpected_outcome};
use crate::convert;
use crate::cursor::{self, List};
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::Call;

pub(super) fn routes(table: Table) -> Table {
    const ALL: &str = "/v1/rooms/{room}/members";
    const ONE: &str = "/v1/rooms/{room}/members/{user}";
    table
        .section("Members")
        .add(
            Operation::read(ALL, "listMembers", "List the members of a room").list::<wire::MemberList>(),
            list,
        )
        .add(
            Operation::put(ONE, "putMember", "Add a member, or change the role of one")
                .about("Without a role a new member is `member`, and another one stays what he is.")
                .optional_json::<wire::PutMember>()
                .entity::<wire::Member>()
                .created::<wire::Member>()
                .errors(&[Code::Conflict, Code::Invalid]),
            put,
        )
        .add(
            Operation::delete(ONE, "removeMember", "Remove a member, or leave")
                .no_content()
                .errors(&[Code::Conflict]),
            remove,
        )
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let (after, limit) = page_of(&params, List::Members)?;
    let intent = call.read_intent(&params)?;
    let room = call.name("room")?;
    let read = call.read(intent, QueryBody::Members { room, after, limit }).await?;
    let Answer::Members { members, next } = read.answer else {
        return Err(unexpected_answer());
    };
    let list = wire::MemberList {
        members: members.into_iter().map(convert::member).collect(),
        next_cursor: next.map(|last| cursor::encode(List::Members, &last)),
    };
    let response = reply::json(StatusCode::OK, &list)?.with_position(read.position);
    Ok(with_next_link(response, &call, &params, list.next_cursor.as_deref()))
}

pub(super) async fn put(call: Call) -> Result<Response, Problem> {
    let wire::PutMember { role } = call.json_or_default()?;
    let intent = call.write_intent()?;
    let (room, user) = (call.name("room")?, call.name("user")?);
    let command = Command::PutMember {
        room,
        user,
        role: role.map(convert::role_from),
    };
    let committed = call.write(intent, command).await?;
    let Done::Member { member, created } = &committed.done else {
        return Err(unexpected_outcome());
    };
    let member = convert::member(member.clone());
    let response = if *created {
        reply::json(StatusCode::CREATED, &member)?.with_location(call.parts.uri.path())
    } else {
        reply::json(StatusCode::OK, &member)?
    };
    Ok(response.with_etag(member.rev).with_commit(&committed))
}

pub(super) async fn remove(call: Call) -> Result<Response, Problem> {
    let intent = call.write_intent()?;
    let (room, user) = (call.name("room")?, call.name("user")?);
    let committed = call.write(intent, Command::RemoveMember { room, user }).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT).with_commit(&committed))
}
