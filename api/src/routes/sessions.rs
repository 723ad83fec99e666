//! Signing in and out.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::query::QueryBody;
use quorate_state_machine::{Answer, Code, Command, fields};

use super::Table;
use crate::app::{unexpected_answer, unexpected_outcome};
use crate::operation::Operation;
use crate::problem::Problem;
use crate::reply::{self, With};
use crate::request::{Call, SignIn};
use crate::{checks, sign_in, time, token};

pub(super) fn routes(table: Table) -> Table {
    table
        .section("Sessions")
        .add(
            Operation::post(sign_in::ROUTE, "signIn", "Sign in")
                .about("The token says who asks, on every node, until the session ends. It is not told again.")
                .without_key()
                .json::<wire::NewSession>()
                .answers::<wire::Session>(201),
            create,
        )
        .add(
            Operation::delete(
                "/v1/sessions/current",
                "signOut",
                "End the session that the request is made with",
            )
            .without_key()
            .errors(&[Code::NotFound])
            .no_content(),
            delete_current,
        )
}

/// A password becomes a token. A wrong password, a user without one and no such user are answered alike, and
/// take the same time.
pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let wire::NewSession { user, password, device } = call.json()?;
    let sign_in = call.sign_in()?;
    checks::name("user", &user)?;
    checks::password(&password)?;
    checks::optional(device.as_deref(), fields::device)?;
    let SignIn { intent, read } = call.admit_sign_in(sign_in).await?;
    call.app.sign_ins.check(&call.parts, &user)?;

    let credentials = call.read(read, QueryBody::Credentials { user: user.clone() }).await?;
    let Answer::Credentials { password_hash } = credentials.answer else {
        return Err(unexpected_answer());
    };
    let verified = call.app.hasher.verify(password, password_hash.clone()).await?;
    let Some(password_hash) = password_hash.filter(|_| verified) else {
        return Err(Problem::unauthenticated("the user or the password is wrong"));
    };

    let token = token::new();
    let command = Command::CreateSession {
        user,
        // Should it be another one by the time this is applied, nobody is signed in.
        password_hash,
        token: token::hash(&token),
        device,
        ttl_ms: call.app.accounts.session_ttl_ms,
    };
    let committed = call.write(intent, command).await?;
    let Done::SessionCreated { user, expires_at_ms } = &committed.done else {
        return Err(unexpected_outcome());
    };
    let session = wire::Session {
        token,
        expires_at: time::format_ms(*expires_at_ms),
        user: user.clone(),
    };
    Ok(reply::json(StatusCode::CREATED, &session)?
        .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with_commit(&committed))
}

/// Ends the session that the request is made with.
pub(super) async fn delete_current(call: Call) -> Result<Response, Problem> {
    // Who has signed out cannot ask again, so a key would have nothing to answer.
    let intent = call.write_intent()?.without_key();
    let committed = call.write(intent, Command::EndSession).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT).with_commit(&committed))
}
