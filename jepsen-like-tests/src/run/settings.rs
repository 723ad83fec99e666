//! What a run is to be like, as the command line says it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Seconds, unless the command line says otherwise.
pub const SECONDS: u64 = 60;
/// From one fault to the next, on average, where those that are open leave room: some 240 faults in ten minutes.
pub const EVERY_MS: u64 = 1200;
/// Faults that overlap, unless the command line says otherwise.
pub const FAULTS_AT_ONCE: usize = 2;

#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub nodes: u64,
    /// Their names.
    pub workloads: Vec<String>,
    /// Kinds of faults. Empty: nothing is broken.
    pub nemeses: Vec<String>,
    pub seconds: u64,
    pub seed: u64,
    /// Of each workload.
    pub clients: u64,
    pub faults_at_once: usize,
    pub every_ms: u64,
    /// The `quorate` that was named, if one was.
    pub binary: Option<PathBuf>,
    /// Where the history, the report and the logs go.
    #[serde(skip)]
    pub out: PathBuf,
}

impl Settings {
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The command that makes the same run again, as far as real time lets it be the same.
    pub fn replay(&self) -> String {
        let list = |names: &[String]| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(","),
        };
        let binary = self.binary.as_ref().map(|path| format!(" --binary {}", path.display()));
        format!(
            "torture run --nodes {} --workload {} --nemesis {} --seconds {} --seed {} --clients {} \
             --faults-at-once {} --every-ms {}{}",
            self.nodes,
            list(&self.workloads),
            list(&self.nemeses),
            self.seconds,
            self.seed,
            self.clients,
            self.faults_at_once,
            self.every_ms,
            binary.unwrap_or_default()
        )
    }
}
