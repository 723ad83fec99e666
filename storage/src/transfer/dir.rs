//! Who removes a snapshot's directory.

use std::path::{Path, PathBuf};

use crate::aside::aside;
use crate::small_file;

/// Owns the directory of a checkpoint and removes it when it is dropped. Whoever still reads it keeps
/// it in an `Arc`. That it was renamed away meanwhile (an installation uses it up) is fine.
#[derive(Debug)]
pub struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotDir {
    pub fn adopt(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if let Err(error) = aside(|| small_file::remove_tree(&self.path)) {
            tracing::warn!(dir = %self.path.display(), %error, "failed to remove a snapshot, the next start will");
        }
    }
}
