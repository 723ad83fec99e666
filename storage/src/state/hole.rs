//! A state whose own log (RocksDB's) has a hole in it: it goes back to where it was before the hole.
//!
//! That log is not synced with each write, and RocksDB begins a new file of it from time to time. A power cut
//! may leave an earlier file short, or empty, and a later one with what came afterwards. RocksDB notices a record
//! that is torn, and ends there; but a file that is cut between two records looks whole to it, so it would go on
//! with the next file, and write what it has read into tables: a state with writes missing in the middle, for
//! ever. So before RocksDB may write anything, the log is read as it would read it, and the trail ([`super::trail`])
//! tells whether a write is missing. If so, the files behind the hole are moved aside, as few of them as will do.
//! What is left is what the state was after some write, as after any crash, and the Raft log has the rest: it is
//! purged only after the state was synced. That the state was not cut back below that is checked where all such
//! losses are ([`crate::check_agreement`]).
//!
//! Where the tables themselves lack a write, nothing can be cut back to: such a state stays refused.

use std::io;
use std::path::{Path, PathBuf};

use quorate_state_machine::Fatal;
use rocksdb::{DB, Options};

use super::trail;
use crate::error::OpenError;
use crate::small_file;

/// Below a generation: the files behind the hole, for whoever wants to know why. Those of an earlier time are
/// removed, so these are never more than RocksDB keeps (a few buffers of the state).
const ASIDE: &str = "behind-a-hole";

/// Below a generation, while one looks: links to some of the files.
const TRIAL: &str = "trial";

/// Takes the files behind a hole out of the state in `dir`, so that opening it gives the state before the hole.
/// Nobody else may have the state open: the directory of the node is locked.
///
/// An error is a hole that no cut closes. What else may be wrong is left to whoever opens the state.
pub(super) fn cut_back(dir: &Path, options: &Options) -> Result<(), OpenError> {
    let during = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |error| OpenError::io(what, error)
    };
    if !dir.is_dir() {
        return Ok(());
    }
    let trial = dir.join(TRIAL);
    small_file::remove_tree(&trial).map_err(during("clean"))?;
    let logs = logs(dir).map_err(during("read"))?;
    if logs.is_empty() {
        return Ok(());
    }
    let Some(reason) = DB::open_for_read_only(options, dir, false)
        .ok()
        .and_then(|db| trail::missing(&db).ok().flatten())
    else {
        return Ok(());
    };
    for kept in (0..logs.len()).rev() {
        link(&logs[..kept], &trial).map_err(during("try the log of"))?;
        let whole = is_whole(dir, &trial, options)
            .map_err(|error| OpenError::corrupt(format!("the state in {}", dir.display()), error));
        small_file::remove_tree(&trial).map_err(during("clean"))?;
        if whole? {
            tracing::warn!(
                dir = %dir.display(),
                %reason,
                files = logs.len() - kept,
                "the state's own log has a hole, as a power cut may leave it; the state goes back to before the \
                 hole, and the Raft log has what came afterwards"
            );
            return move_aside(dir, &logs[kept..]).map_err(during("move files aside in"));
        }
    }
    Err(OpenError::corrupt(format!("the state in {}", dir.display()), reason))
}

/// The files of RocksDB's log, oldest first.
fn logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = || path.file_stem()?.to_str()?.parse::<u64>().ok();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(number) = number()
        {
            logs.push((number, path));
        }
    }
    logs.sort();
    Ok(logs.into_iter().map(|(_, path)| path).collect())
}

/// Makes a directory with links to these files.
fn link(logs: &[PathBuf], trial: &Path) -> io::Result<()> {
    std::fs::create_dir(trial)?;
    for log in logs {
        std::fs::hard_link(log, trial.join(name(log)))?;
    }
    Ok(())
}

/// Whether the state lacks no write when RocksDB's log is what lies in `trial`. Nothing is written.
fn is_whole(dir: &Path, trial: &Path, options: &Options) -> Result<bool, Fatal> {
    let mut options = options.clone();
    options.set_wal_dir(trial);
    let db = DB::open_for_read_only(&options, dir, false).map_err(|error| super::rocks::fatal(&error))?;
    Ok(trail::missing(&db)?.is_none())
}

/// The newest first: whenever a crash comes between, the next start finds the same hole, or none. Durable when it
/// returns, because the state will go on under the numbers of the writes that were cut away.
fn move_aside(dir: &Path, logs: &[PathBuf]) -> io::Result<()> {
    let aside = dir.join(ASIDE);
    small_file::remove_tree(&aside)?;
    std::fs::create_dir(&aside)?;
    for log in logs.iter().rev() {
        std::fs::rename(log, aside.join(name(log)))?;
        small_file::sync_dir(dir)?;
    }
    small_file::sync_dir(&aside)
}

fn name(log: &Path) -> &std::ffi::OsStr {
    log.file_name().expect("it was found in a directory")
}
