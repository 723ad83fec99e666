//! One row of the table: a request, what is wrong with the node when it comes, and the refusal.

use std::fmt;

use axum::body::Body;
use http::Request;
use quorate_api::Limits;
use quorate_api::replica::{AdminError, NodeStatus, ReplicaError};

use super::world::World;
use crate::caller::request;

#[derive(Clone)]
pub(super) struct Case {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) ask: Ask,
    pub(super) fault: Fault,
    /// A word that the detail has in it, in small letters.
    pub(super) says: String,
}

/// A request, before it is one.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<Vec<u8>>,
}

/// What is wrong with the node, and not with the request.
#[derive(Clone)]
pub(super) enum Fault {
    Nothing,
    /// Accounts are enforced.
    Enforced,
    /// One of its bounds is reached: which one, and how.
    Bound(&'static str, fn(&mut Limits)),
    /// The caller has used up his rate.
    Limited,
    /// The rest of the body does not come.
    SlowBody,
    Read(ReplicaError),
    Write(ReplicaError),
    Admin(AdminError),
    Status(fn(&mut NodeStatus)),
}

impl Case {
    pub(super) fn new(status: u16, code: &'static str, ask: Ask) -> Self {
        Self {
            status,
            code,
            ask,
            fault: Fault::Nothing,
            says: String::new(),
        }
    }

    pub(super) fn saying(self, says: &str) -> Self {
        let says = says.to_owned();
        Self { says, ..self }
    }

    pub(super) fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
}

impl Ask {
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn without(mut self, header: &str) -> Self {
        self.headers.retain(|(name, _)| name != header);
        self
    }

    pub(super) fn instead(self, header: &str, value: &str) -> Self {
        self.without(header).header(header, value)
    }

    /// The same, asked by somebody of this name, who may be nobody.
    pub(super) fn by(self, user: &str) -> Self {
        self.without("authorization").instead("x-quorate-user", user)
    }

    pub(super) fn with_token(self, authorization: &str) -> Self {
        self.without("x-quorate-user").instead("authorization", authorization)
    }

    pub(super) fn to(self, target: String) -> Self {
        Self { target, ..self }
    }

    /// With one more pair in its query.
    pub(super) fn query(self, pair: &str) -> Self {
        let sign = if self.target.contains('?') { '&' } else { '?' };
        let target = format!("{}{sign}{pair}", self.target);
        self.to(target)
    }

    pub(super) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = Some(body.into());
        Self { body, ..self }.instead("content-type", "application/json")
    }

    pub(super) fn to_request(&self, slow: bool) -> Request<Body> {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut headers: Vec<_> = headers.collect();
        headers.push(("x-request-id", "row"));
        let body = match &self.body {
            _ if slow => Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>()),
            Some(body) => body.clone().into(),
            None => Body::empty(),
        };
        request(&self.method, &self.target, &headers, body)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ask {
            method,
            target,
            headers,
            body,
        } = &self.ask;
        write!(
            f,
            "{} {} for {method} {target:.200} {headers:?}",
            self.status, self.code
        )?;
        if let Some(body) = body {
            write!(f, " {:.200}", String::from_utf8_lossy(body))?;
        }
        match &self.fault {
            Fault::Nothing => Ok(()),
            Fault::Enforced => f.write_str(", accounts enforced"),
            Fault::Bound(bound, _) => write!(f, ", {bound} at their bound"),
            Fault::Limited => f.write_str(", rate used up"),
            Fault::SlowBody => f.write_str(", a slow body"),
            Fault::Read(error) | Fault::Write(error) => write!(f, ", {error:?}"),
            Fault::Admin(error) => write!(f, ", {error:?}"),
            Fault::Status(_) => f.write_str(", another status"),
        }
    }
}

/// The lines of a text: `STATUS [CODE] CALLER[,HEADER:VALUE]… METHOD TARGET [BODY]`.
pub(super) fn parse(text: &'static str, with_code: bool, world: &World) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases = lines.flat_map(|line| {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after.trim_start();
            word
        };
        let status = word().parse().unwrap();
        let code = if with_code { word() } else { "" };
        let (who, method, target) = (word(), word(), word());
        let mut ask = Ask {
            method: method.to_owned(),
            target: filled(target, world),
            headers: Vec::new(),
            body: None,
        };
        let mut headers = who.split(',');
        ask = match headers.next().unwrap() {
            "root" => ask,
            "session" => ask.with_token(&format!("Bearer {}", world.session)),
            user => ask.by(user),
        };
        for header in headers {
            let (name, value) = header.split_once(':').unwrap();
            ask = ask.header(name, value);
        }
        if !rest.is_empty() {
            ask = ask.body(filled(rest, world));
        }
        // The routes of users are there twice.
        let again = ask
            .target
            .strip_prefix("/v1/users")
            .map(|rest| format!("/api/users{rest}"));
        let again = again.map(|target| ask.clone().to(target));
        [Some(ask), again]
            .into_iter()
            .flatten()
            .map(move |ask| Case::new(status, code, ask))
    });
    cases.collect()
}

/// What would be too long to write, or is not known before.
fn filled(text: &str, world: &World) -> String {
    let mut text = text
        .replace("TOKEN", &world.held.to_string())
        .replace("LATE", &world.late.to_string());
    if text.contains("MEMBERS1001") {
        let names: Vec<_> = (0..1001).map(|n| format!("\"u{n}\"")).collect();
        text = text.replace("MEMBERS1001", &names.join(","));
    }
    text = text.replace("MESSAGES1001", &[r#"{"text":"t"}"#; 1001].join(","));
    while let Some((before, after)) = text.split_once('X') {
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, after) = after.split_at(digits);
        text = format!("{before}{}{after}", "x".repeat(count.parse().unwrap()));
    }
    text
}
