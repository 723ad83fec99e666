//! CPU time of processes within a window of time, from `/proc/PID/stat`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What the kernel tells user space of its clock: 100 ticks a second on every architecture that Debian has.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds, of the system and of user code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Used {
    pub(crate) servers: f64,
    pub(crate) generator: f64,
}

/// Looks at the beginning of a window and at its end, from a thread of its own: the generator's may be busy.
#[derive(Debug)]
pub(crate) struct Watch {
    thread: std::thread::JoinHandle<Result<Used>>,
}

impl Watch {
    /// The window opens after `warm_up` and has this length.
    pub(crate) fn start(servers: Vec<u32>, warm_up: Duration, length: Duration) -> Self {
        let begin = Instant::now() + warm_up;
        let thread = std::thread::spawn(move || {
            let own = [std::process::id()];
            sleep_until(begin);
            let before = (seconds(&servers)?, seconds(&own)?);
            sleep_until(begin + length);
            Ok(Used {
                servers: seconds(&servers)? - before.0,
                generator: seconds(&own)? - before.1,
            })
        });
        Self { thread }
    }

    /// # Errors
    /// When a server has ended within the window.
    pub(crate) fn end(self) -> Result<Used> {
        self.thread.join().expect("the watch does not panic")
    }
}

fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Used until now by all of them together.
fn seconds(processes: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for process in processes {
        let path = format!("/proc/{process}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| format!("process {process} has ended"))?;
        ticks += ticks_of(&stat).with_context(|| format!("{path} is not as expected"))?;
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// `utime` and `stime`, the 14th and 15th field. The second is a name that may hold anything, in parentheses.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 10";
        assert_eq!(ticks_of(stat), Some(300));
        assert_eq!(ticks_of("7 (a) R 1"), None);
        assert_eq!(ticks_of(""), None);
    }

    #[test]
    fn own_work_is_seen() {
        let own = [std::process::id()];
        let before = seconds(&own).expect("this process is there");
        let begun = Instant::now();
        let mut x = 0_u64;
        while seconds(&own).expect("this process is there") < before + 0.05 {
            assert!(begun.elapsed() < Duration::from_secs(60), "work costs time");
            x = std::hint::black_box(x + 1);
        }
    }
}
