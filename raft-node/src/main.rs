//! `quorate`: one binary, the node and its command line.

#[cfg(all(feature = "testing", not(test)))]
compile_error!(
    "quorate is never built with planted bugs: build `--bin quorate-planted`, or leave the feature `testing` out"
);

// Nor may a feature of another package have brought them in: only without it this is a constant.
#[cfg(not(feature = "testing"))]
const _: () = {
    use quorate_state_machine::planted::{Bug, is_planted};
    assert!(
        !is_planted(Bug::AckBeforeFsync),
        "the ordinary program has no planted bugs"
    );
};

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
