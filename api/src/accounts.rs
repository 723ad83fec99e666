//! Who asks: what a request's headers say of its caller, in either mode, before the state is asked.

use http::{HeaderMap, header};
use quorate_state_machine::{Caller, Code, names};

use crate::app::latest;
use crate::headers::{X_USER, malformed, single};
use crate::problem::Problem;
use crate::replica::{Level, ReadOptions, ReplicaError};
use crate::request::Call;
use crate::token::{self, RootToken};
use crate::{checks, percent};

/// How callers are known on this node. The same on all nodes of a cluster, or they contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// Whoever has no token is refused. Else he is whom `X-Quorate-User` names, and without it root.
    pub enforced: bool,
    /// With it a request is root's. Where accounts are enforced, nothing else is.
    pub root_token: Option<RootToken>,
    /// How long a session lasts, on the replicated clock.
    pub session_ttl_ms: u64,
}

/// 30 days: a phone that is used now and then stays signed in.
pub const SESSION_TTL_MS: u64 = 30 * 24 * 60 * 60 * 1000;

impl Default for Accounts {
    fn default() -> Self {
        Self {
            enforced: false,
            root_token: None,
            session_ttl_ms: SESSION_TTL_MS,
        }
    }
}

impl Accounts {
    /// The outer error is a 400. The inner one is the 401, kept apart because a 400 of anything goes first.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Result<Caller, Problem>, Problem> {
        let user = single(headers, &X_USER)?
            .map(|value| {
                let user = percent::decode(value.as_bytes())
                    .ok_or_else(|| malformed(&X_USER, "a user's name, percent-encoded"))?;
                checks::name("X-Quorate-User", &user)?;
                Ok(user)
            })
            .transpose()?;
        if let Some(value) = single(headers, &header::AUTHORIZATION)? {
            let caller = value
                .to_str()
                .ok()
                .and_then(bearer)
                .and_then(|token| self.holder(token));
            return match caller {
                // Two answers to the question who asks: no guess which of them was meant.
                Some(_) if user.is_some() => Err(Problem::bad_request(
                    "the token says who asks: leave the header X-Quorate-User away",
                )),
                Some(caller) => Ok(Ok(caller)),
                None => Ok(Err(Problem::unauthenticated(
                    "the Authorization header holds no token of this store",
                ))),
            };
        }
        if self.enforced {
            return Ok(Err(Problem::unauthenticated(
                "accounts are enforced: sign in with POST /v1/sessions, and send the token as Authorization: Bearer",
            )));
        }
        Ok(match user {
            None => Ok(Caller::Root),
            // Nobody can have this name; who writes it means the administrator.
            Some(user) if user == names::ROOT => Err(Problem::unauthenticated(
                "root is no user: leave the header X-Quorate-User away to act as root",
            )),
            Some(user) => Ok(Caller::User(user)),
        })
    }

    /// Whose token it is, as far as this node can tell alone.
    fn holder(&self, token: &str) -> Option<Caller> {
        if self.root_token.as_ref().is_some_and(|root| root.is(token)) {
            return Some(Caller::Root);
        }
        token::has_form(token).then(|| Caller::Session(token::hash(token)))
    }
}

/// RFC 6750; the scheme's case does not count.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

impl Call {
    /// The 401 for what does not go through the log or a query of the state, where it would be found. What this
    /// node knows is enough to let somebody in, so that it works without a quorum; whom it does not know, it
    /// asks the others about, because he may have signed in at one of them a moment ago.
    pub(crate) async fn check_known(&self, caller: &Caller, deadline: std::time::Instant) -> Result<(), Problem> {
        if *caller == Caller::Root || self.is_known(caller, Level::Local, deadline).await? {
            return Ok(());
        }
        match self.is_known(caller, Level::Linearizable, deadline).await? {
            true => Ok(()),
            false => Err(Problem::unauthenticated("there is no such user or session")),
        }
    }

    async fn is_known(&self, caller: &Caller, level: Level, deadline: std::time::Instant) -> Result<bool, Problem> {
        let query = quorate_state_machine::Query {
            space: quorate_state_machine::SpaceId::MAIN,
            caller: caller.clone(),
            body: quorate_state_machine::query::QueryBody::Position,
        };
        let options = ReadOptions {
            deadline,
            level,
            min_position: None,
        };
        let answered = tokio::time::timeout_at(latest(deadline), self.app.replica.read(query, options))
            .await
            .unwrap_or_else(|_| Err(ReplicaError::NotReady("no answer in time".to_owned())))
            .map_err(|error| Problem::from_replica(error, true, self.path_and_query()))?;
        match answered.answer {
            Ok(_) => Ok(true),
            Err(rejection) if rejection.code == Code::Unauthenticated => Ok(false),
            Err(rejection) => Err(Problem::refused(rejection)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    const ROOT: &str = "root-0123456789-0123456789-0123456789";

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    /// `400`, `401`, or who it is.
    fn caller(enforced: bool, pairs: &[(&HeaderName, &str)]) -> String {
        let accounts = Accounts {
            enforced,
            root_token: Some(RootToken::new(ROOT).unwrap()),
            ..Accounts::default()
        };
        match accounts.caller(&headers(pairs)) {
            Err(_) => "400".to_owned(),
            Ok(Err(_)) => "401".to_owned(),
            Ok(Ok(Caller::Root)) => "root".to_owned(),
            Ok(Ok(Caller::User(user))) => user,
            Ok(Ok(Caller::Session(hash))) => {
                assert_eq!(hash, token::hash(&format!("qst_{}", "ab".repeat(32))));
                "session".to_owned()
            }
        }
    }

    #[test]
    fn in_open_mode_the_header_says_who_asks() {
        assert_eq!(caller(false, &[]), "root");
        assert_eq!(caller(false, &[(&X_USER, "%E5%BC%A0%E4%B8%89")]), "张三");
        assert_eq!(caller(false, &[(&X_USER, "root")]), "401");
        for value in ["", "a%20b", "%ff", "%2", "a%2Fb"] {
            assert_eq!(caller(false, &[(&X_USER, value)]), "400", "{value}");
            assert_eq!(caller(true, &[(&X_USER, value)]), "400", "{value}");
        }
        assert_eq!(caller(false, &[(&X_USER, "a"), (&X_USER, "a")]), "400");
    }

    #[test]
    fn where_accounts_are_enforced_only_a_token_says_who_asks() {
        assert_eq!(caller(true, &[]), "401");
        assert_eq!(caller(true, &[(&X_USER, "ann")]), "401");
        assert_eq!(caller(true, &[(&X_USER, "root")]), "401");
    }

    #[test]
    fn a_token_is_read_alike_in_both_modes() {
        let token = format!("qst_{}", "ab".repeat(32));
        let auth = &header::AUTHORIZATION;
        for enforced in [false, true] {
            for value in [
                format!("Bearer {token}"),
                format!("bearer {token}"),
                format!("BEARER  {token} "),
            ] {
                assert_eq!(caller(enforced, &[(auth, &value)]), "session", "{value}");
                assert_eq!(caller(enforced, &[(auth, &value), (&X_USER, "ann")]), "400", "{value}");
            }
            assert_eq!(caller(enforced, &[(auth, &format!("Bearer {ROOT}"))]), "root");
            assert_eq!(
                caller(enforced, &[(auth, &format!("Bearer {ROOT}")), (&X_USER, "ann")]),
                "400"
            );
            for value in [
                "",
                "Bearer",
                "Bearer ",
                "Bearer x",
                "Basic cm9vdDp4",
                token.as_str(),
                &format!("Token {token}"),
                &format!("Bearer {token}x"),
                &format!("Bearer {token} {token}"),
                &format!("Bearer {ROOT}x"),
                "Bearer é",
            ] {
                assert_eq!(caller(enforced, &[(auth, value)]), "401", "{value}");
                assert_eq!(caller(enforced, &[(auth, value), (&X_USER, "ann")]), "401", "{value}");
            }
            let twice = format!("Bearer {token}");
            assert_eq!(caller(enforced, &[(auth, &twice), (auth, &twice)]), "400");
        }
    }

    /// Whoever knows no root token is not root by an empty one.
    #[test]
    fn without_a_root_token_nobody_is_root_by_token() {
        let accounts = Accounts {
            enforced: true,
            ..Accounts::default()
        };
        for value in ["Bearer ", "Bearer", &format!("Bearer {ROOT}")] {
            assert!(
                accounts
                    .caller(&headers(&[(&header::AUTHORIZATION, value)]))
                    .unwrap()
                    .is_err()
            );
        }
    }
}
