//! The handle: which nodes, who asks, and within what time.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::error::Error;
use crate::path;
use crate::route::Route;

/// How a client behaves. `Options::default()` is open mode's administrator with the usual times.
#[derive(Clone)]
pub struct Options {
    /// The acting user in open mode (`X-Quorate-User`); none: `root`.
    pub user: Option<String>,
    /// A bearer token.
    pub token: Option<String>,
    /// Bounds a call with all its attempts and pauses. Default 30 s.
    pub deadline: Duration,
    /// What one attempt asks of a node (`Request-Timeout-Ms`, at most 60 s). Default 5 s.
    pub attempt: Duration,
    /// Bounds the opening of a connection. Default 1 s.
    pub connect: Duration,
    /// A stream that gives nothing for so long is taken for dead. Default 20 s: nodes send a
    /// bookmark every 15 s at the latest.
    pub stream_idle: Duration,
}

/// Without the token.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("user", &self.user)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("deadline", &self.deadline)
            .field("attempt", &self.attempt)
            .field("connect", &self.connect)
            .field("stream_idle", &self.stream_idle)
            .finish()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user: None,
            token: None,
            deadline: Duration::from_secs(30),
            attempt: Duration::from_secs(5),
            connect: Duration::from_secs(1),
            stream_idle: Duration::from_secs(20),
        }
    }
}

/// Talks to a cluster through any of its nodes. Cheap to clone; clones share connections and what
/// they learn about the cluster.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: Arc<Options>,
    /// Who asks.
    pub(crate) identity: HeaderMap,
    /// The key of the next write, where the caller chose it.
    pub(crate) key: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) http: reqwest::Client,
    /// Held for a few comparisons, never across an await.
    route: Mutex<Route>,
    /// When `/v1/cluster` was last asked for the leader's URL.
    learnt: Mutex<Option<Instant>>,
}

/// The cluster is asked for URLs at most so often, and by one task at a time.
const LEARN_PAUSE: Duration = Duration::from_secs(2);

impl Client {
    /// `endpoints` are client URLs of one or more nodes (`http://host:port`; the scheme may be
    /// left out). The first is asked first; the others, and those that the cluster names, when it
    /// fails.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no endpoint, one that is not such a URL (https is not spoken), a
    /// user or token that cannot stand in a header, or a time of zero.
    pub fn new<E: AsRef<str>>(endpoints: &[E], options: Options) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::Invalid("no endpoint was given".into()));
        }
        let mut urls = Vec::new();
        for endpoint in endpoints {
            let url = parse_endpoint(endpoint.as_ref())?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        for (name, time) in [
            ("deadline", options.deadline),
            ("attempt", options.attempt),
            ("connect", options.connect),
        ] {
            if time.is_zero() {
                return Err(Error::Invalid(format!("the {name} time is zero")));
            }
        }
        let http = reqwest::Client::builder()
            .connect_timeout(options.connect)
            .tcp_nodelay(true)
            // A cluster is asked directly: a proxy for the web says nothing about it.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("quorate-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Invalid(format!("failed to set up HTTP: {error}")))?;
        let identity = identity(options.user.as_deref(), options.token.as_deref())?;
        Ok(Self {
            shared: Arc::new(Shared {
                http,
                route: Mutex::new(Route::new(urls)),
                learnt: Mutex::new(None),
            }),
            options: Arc::new(options),
            identity,
            key: None,
        })
    }

    /// The same client acting as another user (open mode); none: `root`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty name.
    pub fn acting_as(&self, user: Option<&str>) -> Result<Self, Error> {
        let identity = identity(user, self.options.token.as_deref())?;
        Ok(Self {
            identity,
            ..self.clone()
        })
    }

    /// The same client with a session's or root's token, which alone says who asks; none: without any.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a token that cannot stand in a header.
    pub fn with_token(&self, token: Option<&str>) -> Result<Self, Error> {
        let options = Options {
            user: None,
            token: token.map(str::to_owned),
            ..(*self.options).clone()
        };
        Ok(Self {
            identity: identity(None, token)?,
            options: Arc::new(options),
            ..self.clone()
        })
    }

    /// The same client with the caller's own idempotency key, for one write and its repetitions:
    /// a second, different write with it is refused. Without it each call makes a new key.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it has 1 to 128 visible ASCII characters.
    pub fn with_key(&self, key: &str) -> Result<Self, Error> {
        if key.is_empty() || key.len() > 128 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Invalid(
                "an idempotency key has 1 to 128 visible ASCII characters".into(),
            ));
        }
        Ok(Self {
            key: Some(key.to_owned()),
            ..self.clone()
        })
    }

    /// The same client for what is to be done beside the one write that the caller's key is for.
    pub(crate) fn without_key(&self) -> Self {
        Self {
            key: None,
            ..self.clone()
        }
    }

    /// The same client with other bounds of a call and of one attempt (see [`Options`]).
    pub fn with_times(&self, deadline: Duration, attempt: Duration) -> Self {
        let options = Options {
            deadline,
            attempt,
            ..(*self.options).clone()
        };
        Self {
            options: Arc::new(options),
            ..self.clone()
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The nodes that calls may go to: the configured ones, then those learnt from the cluster.
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.route().urls()
    }
}

impl Shared {
    pub(crate) fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().expect("no holder of the route panics")
    }

    /// Whether the caller shall ask the cluster for its URLs now.
    pub(crate) fn may_learn(&self, now: Instant) -> bool {
        let mut learnt = self.learnt.lock().expect("no holder of the time panics");
        let due = learnt.is_none_or(|at| now.saturating_duration_since(at) >= LEARN_PAUSE);
        if due {
            *learnt = Some(now);
        }
        due
    }
}

fn identity(user: Option<&str>, token: Option<&str>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if let Some(user) = user {
        if user.is_empty() {
            return Err(Error::Invalid("the acting user's name is empty".into()));
        }
        let value = HeaderValue::from_str(&path::encode(user)).expect("percent-encoded text is ASCII");
        headers.insert("x-quorate-user", value);
    }
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::Invalid("the token cannot stand in a header".into()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// `http://host:port` without a trailing slash.
fn parse_endpoint(text: &str) -> Result<String, Error> {
    let invalid = |why: &str| Error::Invalid(format!("endpoint {text:?}: {why}"));
    let text_with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&text_with_scheme).map_err(|error| invalid(&error.to_string()))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(invalid("https is not supported; put a TLS proxy beside the client")),
        _ => return Err(invalid("only http is supported")),
    }
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if !bare {
        return Err(invalid("expected http://host:port and nothing more"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_parsed_strictly() {
        for (text, url) in [
            ("http://127.0.0.1:7101", "http://127.0.0.1:7101"),
            ("http://127.0.0.1:7101/", "http://127.0.0.1:7101"),
            ("localhost:7101", "http://localhost:7101"),
            ("[::1]:7101", "http://[::1]:7101"),
        ] {
            assert_eq!(parse_endpoint(text).unwrap(), url);
        }
        for text in [
            "",
            "https://a:1",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "a:b:c",
        ] {
            assert!(matches!(parse_endpoint(text), Err(Error::Invalid(_))), "{text:?}");
        }
        let https = parse_endpoint("https://a:1").unwrap_err().to_string();
        assert!(https.contains("https is not supported"), "{https}");
    }

    #[test]
    fn the_acting_user_is_percent_encoded_and_the_token_is_a_bearer() {
        let headers = identity(Some("张三"), Some("secret")).unwrap();
        assert_eq!(headers["x-quorate-user"], "%E5%BC%A0%E4%B8%89");
        assert_eq!(headers[AUTHORIZATION], "Bearer secret");
        assert!(!format!("{headers:?}").contains("secret"), "a token is not for logs");
        assert!(identity(Some(""), None).is_err());
        assert!(identity(None, Some("a\nb")).is_err());
    }

    #[test]
    fn a_token_takes_the_place_of_the_acting_user() {
        let options = Options {
            user: Some("ann".to_owned()),
            ..Options::default()
        };
        let client = Client::new(&["a:1"], options).unwrap();
        let signed_in = client.with_token(Some("secret")).unwrap();
        assert!(!signed_in.identity.contains_key("x-quorate-user"));
        assert_eq!(signed_in.identity[AUTHORIZATION], "Bearer secret");
        assert!(!format!("{signed_in:?}").contains("secret"));
        assert!(signed_in.with_token(None).unwrap().identity.is_empty());
        assert!(client.with_token(Some("a\nb")).is_err());
    }

    #[test]
    fn bad_options_and_keys_are_refused() {
        let none: [&str; 0] = [];
        assert!(Client::new(&none, Options::default()).is_err());
        let zero = Options {
            attempt: Duration::ZERO,
            ..Options::default()
        };
        assert!(Client::new(&["a:1"], zero).is_err());
        let client = Client::new(&["a:1", "http://a:1/", "b:1"], Options::default()).unwrap();
        assert_eq!(client.endpoints(), ["http://a:1", "http://b:1"]);
        for key in ["", "a b", "ä", &"x".repeat(129)] {
            assert!(client.with_key(key).is_err(), "{key:?}");
        }
        assert!(client.with_key(&"x".repeat(128)).is_ok());
    }
}
