//! How a command ends when it does not succeed: one clear line on standard error (with
//! `--output json` a problem as the API writes it), and an exit code that scripts can branch on.

use std::process::ExitCode;

use quorate_client::Error;
use quorate_client::wire::Problem;
use raft_node::tasks::tell_last;

use super::output::{Format, Output, visible};

/// Refused by the store, or not possible now; nothing was applied.
const REFUSED: u8 = 1;
/// What the line says cannot be meant; nothing was applied.
const USAGE: u8 = 2;
/// A write may have been applied or not.
const UNKNOWN: u8 = 3;

#[derive(Debug)]
pub(crate) enum Failure {
    Client(Error),
    /// What stands on the line, or in a file that it names, cannot be meant.
    Usage(String),
    /// This machine failed: a file, a socket, a terminal.
    Local(anyhow::Error),
    /// The command answered, and the answer is no: a status and a code of the contract, and why.
    No(u16, &'static str, String),
    /// Something was begun, and the command has ended before it.
    Unsettled(String),
    /// A failure of a longer work, with what was done and how to go on.
    Midway {
        failure: Box<Failure>,
        hint: String,
    },
    /// A command that was run for the caller has ended so, and has said itself what there is to say.
    Exit(u8),
    /// Nobody reads standard output any more (`… | head`): not worth a word.
    Closed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    pub(crate) fn local(error: impl Into<anyhow::Error>) -> Self {
        Self::Local(error.into())
    }

    pub(crate) fn no_leader(why: String) -> Self {
        Self::No(503, "no_leader", why)
    }

    pub(crate) fn unavailable(why: String) -> Self {
        Self::No(503, "unavailable", why)
    }

    pub(crate) fn not_found(why: String) -> Self {
        Self::No(404, "not_found", why)
    }

    pub(crate) fn conflict(why: String) -> Self {
        Self::No(409, "conflict", why)
    }

    /// Adds what was done and how to go on.
    pub(crate) fn midway(self, hint: String) -> Self {
        match self {
            Failure::Closed => Failure::Closed,
            failure => Failure::Midway {
                failure: Box::new(failure),
                hint,
            },
        }
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Client(Error::Invalid(_)) | Failure::Usage(_) => USAGE,
            // 400: wrong in itself, such as a name with a blank. The words come from the line.
            Failure::Client(Error::Refused(problem)) if problem.status == 400 => USAGE,
            Failure::Client(error) if error.outcome_unknown() => UNKNOWN,
            Failure::Unsettled(_) => UNKNOWN,
            Failure::Client(_) | Failure::Local(_) | Failure::No(..) => REFUSED,
            Failure::Midway { failure, .. } => failure.code(),
            Failure::Exit(code) => *code,
            Failure::Closed => 0,
        }
    }

    fn text(&self) -> String {
        match self {
            Failure::Client(error) => error.to_string(),
            Failure::Usage(text) | Failure::No(_, _, text) | Failure::Unsettled(text) => text.clone(),
            Failure::Local(error) => format!("{error:#}"),
            Failure::Midway { failure, hint } => format!("{}; {hint}", failure.text()),
            Failure::Exit(_) | Failure::Closed => String::new(),
        }
    }

    /// The failure as RFC 9457 has it; the store's own words where it spoke.
    fn problem(&self) -> Problem {
        let made = |title: &str, status: u16, code: &str| Problem {
            type_: "about:blank".into(),
            title: title.into(),
            status,
            detail: self.text(),
            code: code.into(),
            request_id: String::new(),
            retryable: false,
            outcome: "not_applied".into(),
        };
        match self {
            Failure::Client(Error::Refused(problem)) => (**problem).clone(),
            Failure::Client(Error::Unavailable {
                problem: Some(problem), ..
            }) => (**problem).clone(),
            Failure::Client(Error::Unavailable { problem: None, .. }) => Problem {
                retryable: true,
                ..made("Unavailable", 503, "unavailable")
            },
            Failure::Client(Error::OutcomeUnknown { .. }) | Failure::Unsettled(_) => Problem {
                retryable: true,
                outcome: "unknown".into(),
                ..made("Outcome unknown", 504, "commit_unknown")
            },
            Failure::Client(error @ Error::BadResponse { .. }) => {
                let outcome = if error.outcome_unknown() {
                    "unknown"
                } else {
                    "not_applied"
                };
                Problem {
                    outcome: outcome.into(),
                    ..made("Bad response", 502, "bad_response")
                }
            }
            Failure::Client(Error::Invalid(_)) | Failure::Usage(_) => made("Usage", 400, "usage"),
            Failure::No(status, code, _) => made("No", *status, code),
            Failure::Local(_) | Failure::Exit(_) | Failure::Closed => made("Local failure", 500, "local"),
            Failure::Midway { failure, hint } => {
                let problem = failure.problem();
                Problem {
                    detail: format!("{}; {hint}", problem.detail),
                    ..problem
                }
            }
        }
    }

    /// The key with which a write whose outcome is unknown can be repeated.
    fn key(&self) -> Option<&str> {
        match self {
            Failure::Client(Error::OutcomeUnknown { key, .. }) => key.as_deref(),
            Failure::Midway { failure, .. } => failure.key(),
            _ => None,
        }
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(&self, output: &Output) -> ExitCode {
        if !matches!(self, Failure::Exit(_) | Failure::Closed) {
            let line = match output.format() {
                Format::Table => format!("quorate: {}", visible(&self.text())),
                Format::Json => {
                    let mut problem = serde_json::to_value(self.problem()).expect("a problem is plain JSON");
                    if let Some(key) = self.key() {
                        problem["idempotency_key"] = key.into();
                    }
                    problem.to_string()
                }
            };
            // Whoever does not read it has the exit code.
            tell_last(line);
        }
        ExitCode::from(self.code())
    }
}

/// `--help` and `--version` are answers; everything else that clap says is wrong usage.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if wants_json(std::env::args(), std::env::var("QUORATE_OUTPUT").ok()) {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return Failure::Usage(first.to_owned()).report(&Output::new(Format::Json));
    }
    let _ = error.print();
    ExitCode::from(USAGE)
}

/// Whether a line that could not be parsed asked for JSON.
fn wants_json(args: impl Iterator<Item = String>, env: Option<String>) -> bool {
    let mut format = env;
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        if arg == "--output" {
            format = args.peek().cloned();
        } else if let Some(value) = arg.strip_prefix("--output=") {
            format = Some(value.to_owned());
        }
    }
    format.as_deref() == Some("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Failure {
        refused_with(404)
    }

    fn refused_with(status: u16) -> Failure {
        let problem = serde_json::json!({
            "type": "about:blank", "title": "Not found", "status": status, "detail": "no room x", "code": "not_found",
            "request_id": "q", "retryable": false, "outcome": "not_applied",
        });
        Failure::Client(Error::Refused(serde_json::from_value(problem).expect("a problem")))
    }

    #[test]
    fn each_ending_has_its_code() {
        let unknown = || {
            Failure::Client(Error::OutcomeUnknown {
                key: Some("k".into()),
                detail: "d".into(),
            })
        };
        let unavailable = Failure::Client(Error::Unavailable {
            detail: "d".into(),
            problem: None,
        });
        for (failure, code) in [
            (refused(), 1),
            (unavailable, 1),
            (Failure::no_leader("no leader".into()), 1),
            (Failure::conflict("they differ".into()), 1),
            (refused_with(400), 2),
            (refused_with(422), 1),
            (Failure::Unsettled("it goes on".into()), 3),
            (Failure::Usage("u".into()), 2),
            (Failure::Client(Error::Invalid("i".into())), 2),
            (unknown(), 3),
            (unknown().midway("run it again".into()), 3),
            (
                Failure::Client(Error::BadResponse {
                    detail: "d".into(),
                    write: true,
                }),
                3,
            ),
            (
                Failure::Client(Error::BadResponse {
                    detail: "d".into(),
                    write: false,
                }),
                1,
            ),
            (Failure::Closed, 0),
            (Failure::Exit(143), 143),
        ] {
            assert_eq!(failure.code(), code, "{failure:?}");
        }
    }

    #[test]
    fn a_problem_keeps_the_stores_words_and_names_the_key() {
        let failure = refused().midway("3 lines sent".into());
        assert_eq!(failure.text(), "no room x (404 not_found); 3 lines sent");
        let problem = failure.problem();
        assert_eq!(
            (problem.code.as_str(), problem.status, problem.request_id.as_str()),
            ("not_found", 404, "q")
        );
        assert_eq!(problem.detail, "no room x; 3 lines sent");
        let unknown = Failure::Client(Error::OutcomeUnknown {
            key: Some("k".into()),
            detail: "d".into(),
        });
        assert_eq!(unknown.problem().outcome, "unknown");
        assert_eq!(unknown.midway(String::new()).key(), Some("k"));
        let unsettled = Failure::Unsettled("it goes on".into());
        assert_eq!(
            (unsettled.problem().outcome.as_str(), unsettled.key()),
            ("unknown", None)
        );
        let no = Failure::conflict("they differ".into()).problem();
        assert_eq!(
            (no.status, no.code.as_str(), no.detail.as_str()),
            (409, "conflict", "they differ")
        );
    }

    #[test]
    fn a_line_that_does_not_parse_may_still_ask_for_json() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        assert!(wants_json(args("quorate frob --output json"), None));
        assert!(wants_json(args("quorate --output=json frob"), None));
        assert!(!wants_json(args("quorate frob --output"), None));
        assert!(wants_json(args("quorate frob"), Some("json".into())));
        assert!(!wants_json(args("quorate --output table"), Some("json".into())));
    }
}
