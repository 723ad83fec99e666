//! Which files a checkpoint has.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use bincode::{Decode, Encode};

/// A state of 4 TiB has so many files of 64 MiB: more is damage or malice.
const FILES_MAX: usize = 1 << 16;
/// 4 TiB.
const BYTES_MAX: u64 = 4 << 40;
/// RocksDB's names have some 20 characters.
const NAME_BYTES_MAX: usize = 100;

/// The files of a checkpoint in the order in which they travel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Manifest {
    pub files: Vec<FileEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
}

impl Manifest {
    /// What lies in `dir`, by name, sizes as they are now: the directory must not change any more.
    pub fn of(dir: &Path) -> io::Result<Manifest> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let shown = entry.path();
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| refused(format!("{name:?} in {} is no file of a checkpoint", dir.display())))?;
            if is_left_out(&name) {
                continue;
            }
            let metadata = entry.metadata()?;
            if !metadata.is_file() {
                return Err(refused(format!("{} is not a regular file", shown.display())));
            }
            files.push(FileEntry {
                name,
                bytes: metadata.len(),
            });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = Manifest { files };
        manifest.check()?;
        Ok(manifest)
    }

    pub fn total_bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |total, file| total.saturating_add(file.bytes))
    }

    /// Refuses what no sender makes: a manifest comes from the network, and its names become files.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.files.is_empty() {
            return Err(refused("the manifest names no files".to_owned()));
        }
        if self.files.len() > FILES_MAX {
            return Err(refused(format!(
                "the manifest names {} files, at most {FILES_MAX} are taken",
                self.files.len()
            )));
        }
        let mut seen = BTreeSet::new();
        for FileEntry { name, .. } in &self.files {
            if !is_plain(name) {
                return Err(refused(format!(
                    "the manifest names {name:?}, which is no plain file name"
                )));
            }
            if is_left_out(name) {
                return Err(refused(format!("the manifest names {name:?}, which does not travel")));
            }
            if !seen.insert(name.as_str()) {
                return Err(refused(format!("the manifest names {name:?} twice")));
            }
        }
        let total = self.total_bytes();
        if total > BYTES_MAX {
            return Err(refused(format!(
                "the manifest promises {total} bytes, at most {BYTES_MAX} are taken"
            )));
        }
        Ok(())
    }

    /// Tells manifests apart; part of every chunk's checksum.
    pub(super) fn sum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for FileEntry { name, bytes } in &self.files {
            hasher.update(&(name.len() as u64).to_be_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&bytes.to_be_bytes());
        }
        hasher.finalize()
    }
}

/// RocksDB makes these anew whenever it opens a directory: the lock, and the text that it writes for
/// people (LOG, and LOG.old.* of earlier openings).
fn is_left_out(name: &str) -> bool {
    name == "LOCK" || name == "LOG" || name.starts_with("LOG.old.")
}

/// Letters, digits and what RocksDB's names (`MANIFEST-000005`, `000012.sst`) and the memory twin's
/// have besides: nothing that could lead out of a directory, hide, or be a directory.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.bytes().all(plain)
}

pub(super) fn refused(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
