//! Waiting for a condition instead of sleeping for luck.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at: short against an election, long against one request.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `probe` answers `Ok`, at most `within`; then fails and says why the last look did.
///
/// The error of the probe is a reason for people, for example "node 2 answers 503".
pub async fn eventually<T, E: Display>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => bail!("{what}: not within {within:?}; at last: {reason}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_told_when_time_is_up() {
        let mut looks = 0;
        let failed = eventually("three looks", Duration::from_millis(1), async || {
            looks += 1;
            Err::<(), _>(format!("look {looks}"))
        })
        .await;
        let text = failed.expect_err("the probe never succeeds").to_string();
        assert!(text.starts_with("three looks: not within 1ms; at last: look"), "{text}");
    }

    #[tokio::test]
    async fn the_first_success_ends_the_waiting() {
        let mut looks = 0;
        let value = eventually("third look", Duration::from_secs(60), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("too early") }
        })
        .await;
        assert_eq!(value.expect("the third look succeeds"), 3);
    }
}
