//! Which of the directories below `state/` is the state.
//!
//! Each installed snapshot gets a directory of its own (`gen-N`). The file POINTER names the current
//! one and is replaced atomically: that is the moment of the installation. What it does not name is
//! left over from a crash.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::log::LogId;
use crate::small_file;

const VERSION: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) generation: u64,
    /// The end of the snapshot from which the generation began; none for the first.
    pub(super) installed: Option<LogId>,
}

impl Pointer {
    pub(super) const FIRST: Pointer = Pointer {
        generation: 1,
        installed: None,
    };

    pub(super) fn dir(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(format!("gen-{}", self.generation))
    }

    /// None if there never was a state here.
    pub(super) fn load(state_dir: &Path) -> Result<Option<Pointer>, OpenError> {
        let path = path(state_dir);
        let corrupt = |reason: String| OpenError::corrupt(path.display().to_string(), reason);
        let lines = match small_file::load(&path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(corrupt(error.to_string())),
            Err(error) => return Err(OpenError::io(format!("read {}", path.display()), error)),
            Ok(None) => return Ok(None),
            Ok(Some(lines)) => lines,
        };
        let number = |name: &str| lines.get(name).and_then(|text| text.parse::<u64>().ok());
        let version = number("version").ok_or_else(|| corrupt("it has no version".to_owned()))?;
        if version > VERSION {
            return Err(OpenError::TooNew {
                what: path.display().to_string(),
                found: version,
                supported: VERSION,
            });
        }
        let generation = number("generation").ok_or_else(|| corrupt("it names no generation".to_owned()))?;
        let installed = match lines.get("installed").map(|text| parse_log_id(text)) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(corrupt("its installed log id is none".to_owned())),
        };
        Ok(Some(Pointer { generation, installed }))
    }

    /// Whether a directory without a pointer must have had one: the first generation is made before
    /// it, all others after it.
    pub(super) fn has_been(state_dir: &Path) -> io::Result<bool> {
        for entry in std::fs::read_dir(state_dir)? {
            let path = entry?.path();
            if is_generation(&path) && path != Self::FIRST.dir(state_dir) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Durable when it returns.
    pub(super) fn save(&self, state_dir: &Path) -> io::Result<()> {
        let mut lines = vec![
            ("version", VERSION.to_string()),
            ("generation", self.generation.to_string()),
        ];
        if let Some(id) = self.installed {
            lines.push(("installed", id.to_string()));
        }
        small_file::replace(&path(state_dir), &lines)
    }

    /// Removes all other generations.
    pub(super) fn clean(&self, state_dir: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(state_dir)? {
            let path = entry?.path();
            if is_generation(&path) && path != self.dir(state_dir) {
                tracing::info!(dir = %path.display(), "removing a state that was replaced or never finished");
                small_file::remove_tree(&path)?;
            }
        }
        small_file::sync_dir(state_dir)
    }
}

fn is_generation(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("gen-"))
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("POINTER")
}

/// The form of [`LogId`]'s `Display`.
fn parse_log_id(text: &str) -> Option<LogId> {
    let mut numbers = text.split('-').map(|part| part.parse::<u64>().ok());
    let id = LogId {
        term: numbers.next()??,
        leader: numbers.next()??,
        index: numbers.next()??,
    };
    numbers.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Pointer::load(dir.path()).unwrap(), None);
        for installed in [
            None,
            Some(LogId {
                term: 3,
                leader: 1,
                index: 12,
            }),
        ] {
            let pointer = Pointer {
                generation: 7,
                installed,
            };
            pointer.save(dir.path()).unwrap();
            assert_eq!(Pointer::load(dir.path()).unwrap(), Some(pointer));
        }
        // What older programs have written must stay readable: this form never changes.
        let golden = "version 1\ngeneration 7\ninstalled 3-1-12\ncrc32 13c700cf\n";
        assert_eq!(std::fs::read_to_string(path(dir.path())).unwrap(), golden);
        std::fs::write(path(dir.path()), "generation 9").unwrap();
        assert!(matches!(Pointer::load(dir.path()), Err(OpenError::Corrupt { .. })));
    }
}
