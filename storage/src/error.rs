//! Why a store cannot be opened. The arms are what an operator does something different about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Called once, with a sentence, when a disk has failed in a way after which nothing can be
/// promised any more (an fsync error above all). The node ends its process: what the kernel has
/// kept of the failed write is unknown, so trying again could acknowledge what is not on disk.
pub type FatalHook = Arc<dyn Fn(String) + Send + Sync>;

/// A data directory, a log or a state that must not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{dir} is in use by another process", dir = .dir.display())]
    Locked { dir: PathBuf },

    /// The directory was made for another node.
    #[error("{dir} belongs to node {found}, not to node {expected}", dir = .dir.display())]
    OtherNode { dir: PathBuf, found: u64, expected: u64 },

    /// The directory was made in another cluster.
    #[error("{dir} belongs to cluster {found}, not to cluster {expected}", dir = .dir.display())]
    OtherCluster {
        dir: PathBuf,
        found: String,
        expected: String,
    },

    /// Written by a newer program.
    #[error("{what} has version {found}, this program reads up to version {supported}")]
    TooNew { what: String, found: u64, supported: u64 },

    /// The disk has forgotten what it had confirmed: a node that votes on top of it could elect a
    /// leader that lacks committed entries, or vote twice in one term (Raft, section 5.4 and 5.2).
    #[error(
        "{log} has lost acknowledged data: {marked} was on disk, {found} is found; this node must not vote again, \
         replace it by a node with a new id and an empty directory",
        log = .log.display()
    )]
    LostAcknowledgedData {
        log: PathBuf,
        marked: String,
        found: String,
    },

    /// The state lacks entries that cannot be applied again, because the log no longer has them.
    #[error(
        "{state} has lost data: it has {applied}, and the log no longer has the entries up to {purged}; \
         replace this node by a node with a new id and an empty directory",
        state = .state.display()
    )]
    StateBehindLog {
        state: PathBuf,
        applied: String,
        purged: String,
    },

    /// Damaged where nothing but the disk can have done it.
    #[error("{what} is damaged: {reason}")]
    Corrupt { what: String, reason: String },

    #[error("failed to {what}: {source}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

impl OpenError {
    /// `what` completes "failed to …".
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Corrupt {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    /// An error of RocksDB while it opened `dir`, by what can be done about it.
    pub(crate) fn rocks(dir: &Path, error: rocksdb::Error) -> Self {
        let text = error.to_string();
        // RocksDB reports its held LOCK file as an IO error; only the text tells it apart.
        if text.contains("lock hold by current process") || text.contains("While lock file") {
            return Self::Locked { dir: dir.to_owned() };
        }
        match error.kind() {
            // A missing file that the manifest names is reported as an IO error or as
            // "Invalid argument: … does not exist": all of these are damage, not a failing call.
            rocksdb::ErrorKind::IOError if !text.contains("No such file") => {
                Self::io(format!("open {}", dir.display()), std::io::Error::other(text))
            }
            _ => Self::corrupt(dir.display().to_string(), text),
        }
    }
}
