//! What a node logs: lines on standard error, written by a thread of their own. Who should read them and does not (a full
//! pipe, a journal that hangs) would otherwise hold up requests and heartbeats; so what does not fit is dropped, and counted.

use std::io::IsTerminal;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::exit::Failure;

/// Lines that wait to be written; beyond it they are dropped. A second of a node that logs every request, and one or two
/// megabytes.
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
        Ok(Self {
            writer: Some(writer),
            dropped,
        })
    }

    /// Counts the lines that were dropped.
    pub(super) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines() as u64
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let writer = self.writer.take();
        let (written, wait) = mpsc::channel::<()>();
        // Aside: if the queue is full the library says so on standard output, which may be as full.
        let dropping = thread::Builder::new().spawn(move || {
            drop(writer);
            drop(written);
        });
        if dropping.is_ok() {
            // Ends when the sender is dropped, or with the time.
            let _ = wait.recv_timeout(WRITTEN_WITHIN);
        }
    }
}
