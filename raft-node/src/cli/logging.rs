//! What a node logs: lines on standard error, written by a thread of their own. Who should read them and does not (a full
//! pipe, a journal that hangs) would otherwise hold up requests and heartbeats; so what does not fit is dropped, and counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

use raft_node::tasks::wait_at_most;
use serde::Deserialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::exit::Failure;

/// Lines that wait to be written; beyond it they are dropped. Many more than a node logs at once by default, so that only a
/// reader who is gone, or a filter such as `debug` under load, fills it. The library bounds lines, not bytes.
const WAITING_LINES_MAX: usize = 4096;
/// How long the end of the process waits for them to be written. Above what the library gives itself.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// openraft tells of each failed heartbeat; what an operator needs of it, the node says itself.
const FILTER: &str = "info,openraft=error";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogFormat {
    Json,
    Text,
}

/// Dropped when the node has ended: then what waits is written.
pub(super) struct Logging {
    writer: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

impl Logging {
    pub(super) fn start(format: Option<LogFormat>, filter: Option<&str>) -> Result<Self, Failure> {
        let filter = EnvFilter::try_new(filter.unwrap_or(FILTER))
            .map_err(|error| Failure::Usage(format!("log-filter: {error}")))?;
        let on_terminal = std::io::stderr().is_terminal();
        let format = format.unwrap_or(if on_terminal { LogFormat::Text } else { LogFormat::Json });
        let (lines, writer) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(WAITING_LINES_MAX)
            .thread_name("log-lines")
            .finish(std::io::stderr());
        let dropped = lines.error_counter();
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
        match format {
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
            LogFormat::Text => builder.with_ansi(on_terminal).try_init(),
        }
        .map_err(|error| Failure::Local(anyhow::anyhow!("failed to start logging: {error}")))?;
        panic::set_hook(Box::new(log_panic));
        Ok(Self {
            writer: Some(writer),
            dropped,
        })
    }

    /// Says how many lines were dropped since the start.
    pub(super) fn count_dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines() as u64
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let writer = self.writer.take();
        // If the queue is full the library says so on standard output, which may be as full.
        wait_at_most(WRITTEN_WITHIN, || drop(writer));
    }
}

/// A line like the others. The hook that Rust has would write to standard error itself, and may wait there forever.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("?");
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("for a reason that is not text");
    // Only with RUST_BACKTRACE, as usual.
    let trace = Backtrace::capture();
    let backtrace = (trace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(trace));
    tracing::error!(thread, at, backtrace, "panicked: {text}");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no writer panics").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_as_a_line_of_json() {
        let written = Written::default();
        let lines = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || lines.clone())
            .finish();
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let ended = thread::Builder::new().name("unlucky".to_owned()).spawn(|| {
            tracing::subscriber::with_default(subscriber, || panic!("the sky\nfell"));
        });
        let ended = ended.expect("a thread").join();
        panic::set_hook(before);
        assert!(ended.is_err());

        let written = written.0.lock().expect("no writer panics");
        let line: serde_json::Value = serde_json::from_slice(&written).expect("one line of JSON");
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], "panicked: the sky\nfell");
        assert_eq!(line["thread"], "unlucky");
        assert!(line["at"].as_str().expect("a place").contains("logging.rs:"), "{line}");
    }
}
