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
    let patience = Patience::new(what, within);
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) => patience.again(reason).await?,
        }
    }
}

/// The same for a loop that is written out, where a future must be `Send`, as those of async closures are not
/// for all lifetimes.
#[derive(Debug)]
pub struct Patience<'a> {
    what: &'a str,
    within: Duration,
    end: Instant,
}

impl<'a> Patience<'a> {
    pub fn new(what: &'a str, within: Duration) -> Self {
        Self {
            what,
            within,
            end: Instant::now() + within,
        }
    }

    /// Returns when it is time to look again; an error, with the reason why the last look failed, when time is up.
    pub async fn again(&self, reason: impl Display) -> Result<()> {
        if Instant::now() >= self.end {
            bail!("{}: not within {:?}; at last: {reason}", self.what, self.within);
        }
        tokio::time::sleep(POLL).await;
        Ok(())
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
