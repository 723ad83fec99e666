//! Users.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::command::Patch;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Code, Command, fields};

use super::{Table, page_of, with_next_link};
use crate::app::{unexpected_answer, unexpected_outcome};
use crate::cursor::{self, List};
use crate::json::{UserPatch, patch as field};
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::{Call, WriteIntent};
use crate::{checks, convert, headers};

pub(super) fn routes(table: Table, all: &'static str, one: &'static str) -> Table {
    table
        .section("Users")
        .add(
            Operation::post(all, "createUser", "Create a user")
                .about("Only root makes users. A password is hashed before anything is written.")
                .json::<wire::NewUser>()
                .created::<wire::User>()
                .errors(&[Code::Forbidden, Code::AlreadyExists]),
            create,
        )
        .add(
            Operation::read(all, "listUsers", "List the users").list::<wire::UserList>(),
            list,
        )
        .add(
            Operation::read(one, "getUser", "Show a user").entity::<wire::User>(),
            get,
        )
        .add(
            Operation::patch(one, "updateUser", "Change a user")
                .merge_patch::<UserPatch>()
                .entity::<wire::User>()
                .errors(&[Code::Forbidden, Code::Invalid]),
            patch,
        )
        .add(
            Operation::delete(one, "deleteUser", "Delete a user")
                .about("His memberships end; his messages stay. The last owner of a room cannot go.")
                .no_content()
                .errors(&[Code::Forbidden, Code::Conflict]),
            delete,
        )
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let wire::NewUser {
        user,
        display_name,
        email,
        password,
        attributes,
    } = call.json()?;
    let attributes = attributes.as_ref().map(checks::attributes).transpose()?;
    let intent = call.write_intent()?;
    checks::name("user", &user)?;
    checks::optional(display_name.as_deref(), fields::display_name)?;
    checks::optional(email.as_deref(), fields::email)?;
    password.as_deref().map(checks::password).transpose()?;

    let (intent, password_hash) = hashed(&call, intent, password, &user).await?;
    let location = call.location_of(&user);
    let command = Command::CreateUser {
        user,
        display_name,
        email,
        password_hash,
        attributes,
    };
    let committed = call.write(intent, command).await?;
    let Done::User(user) = &committed.done else {
        return Err(unexpected_outcome());
    };
    let user = convert::user(user.clone());
    let response = reply::json(StatusCode::CREATED, &user)?;
    Ok(response
        .with_etag(user.rev)
        .with_location(&location)
        .with_commit(&committed))
}

pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let (after, limit) = page_of(&params, List::Users)?;
    let intent = call.read_intent(&params)?;
    let read = call.read(intent, QueryBody::Users { after, limit }).await?;
    let Answer::Users { users, next } = read.answer else {
        return Err(unexpected_answer());
    };
    let list = wire::UserList {
        users: users.into_iter().map(convert::user).collect(),
        next_cursor: next.map(|last| cursor::encode(List::Users, &last)),
    };
    let response = reply::json(StatusCode::OK, &list)?.with_position(read.position);
    Ok(with_next_link(response, &call, &params, list.next_cursor.as_deref()))
}

pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    let params = call.params()?;
    let intent = call.read_intent(&params)?;
    let user = call.name("user")?;
    let read = call.read(intent, QueryBody::User { user }).await?;
    let Answer::User(user) = read.answer else {
        return Err(unexpected_answer());
    };
    let user = convert::user(user);
    let response = if headers::has_revision(&call.parts.headers, user.rev) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        reply::json(StatusCode::OK, &user)?
    };
    Ok(response.with_etag(user.rev).with_position(read.position))
}

pub(super) async fn patch(call: Call) -> Result<Response, Problem> {
    let UserPatch {
        display_name,
        email,
        password,
        attributes,
    } = call.json()?;
    let attributes = match field(attributes) {
        Patch::Set(attributes) => Patch::Set(checks::attributes(&attributes)?),
        Patch::Remove => Patch::Remove,
        Patch::Keep => Patch::Keep,
    };
    let intent = call.write_intent()?;
    let user = call.name("user")?;
    checks::optional(
        display_name.as_ref().and_then(|name| name.as_deref()),
        fields::display_name,
    )?;
    checks::optional(email.as_ref().and_then(|email| email.as_deref()), fields::email)?;
    let (password, removed) = (password.clone().flatten(), password == Some(None));
    password.as_deref().map(checks::password).transpose()?;

    let (intent, hash) = hashed(&call, intent, password, &user).await?;
    let password_hash = match hash {
        Some(hash) => Patch::Set(hash),
        None if removed => Patch::Remove,
        None => Patch::Keep,
    };
    let command = Command::UpdateUser {
        user,
        display_name: field(display_name),
        email: field(email),
        password_hash,
        attributes,
    };
    let committed = call.write(intent, command).await?;
    let Done::User(user) = &committed.done else {
        return Err(unexpected_outcome());
    };
    let user = convert::user(user.clone());
    Ok(reply::json(StatusCode::OK, &user)?
        .with_etag(user.rev)
        .with_commit(&committed))
}

pub(super) async fn delete(call: Call) -> Result<Response, Problem> {
    let intent = call.write_intent()?;
    let user = call.name("user")?;
    let committed = call.write(intent, Command::DeleteUser { user }).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT).with_commit(&committed))
}

/// The password's hash, and an intent whose fingerprint does not give the password away.
async fn hashed(
    call: &Call,
    intent: WriteIntent,
    password: Option<String>,
    user: &str,
) -> Result<(WriteIntent, Option<String>), Problem> {
    let Some(password) = password else {
        return Ok((intent, None));
    };
    // A hash is dear: nobody gets one who is not even a user.
    let mut intent = intent.authenticated(call).await?;
    if intent.has_key() {
        let stand_in = call.app.hasher.stand_in(password.clone(), user).await?;
        intent.set_body_stand_in(without_password(call, &stand_in)?);
    }
    let hash = call.app.hasher.hash(password).await?;
    Ok((intent, Some(hash)))
}

/// The rest of the body, and what stands for the password.
fn without_password(call: &Call, stand_in: &[u8]) -> Result<Bytes, Problem> {
    let mut body: wire::Attributes = call.json()?;
    body.remove("password");
    body.sort_keys();
    let mut bytes = serde_json::to_vec(&body).map_err(|error| Problem::internal(error.to_string(), false))?;
    bytes.extend_from_slice(stand_in);
    Ok(bytes.into())
}
