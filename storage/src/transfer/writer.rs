//! The receiver's side.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::manifest::refused;
use super::{CHUNK_BYTES, Chunk, Manifest, SnapshotDir};
use crate::small_file;

/// How much of a file may wait to be written back. The Raft log is mostly on the same disk: a sync of
/// hundreds of MiB at the end would let its small syncs wait for seconds.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;

/// Takes the chunks of a snapshot in order. Dropped before [`Self::finish`] it removes what it wrote.
#[derive(Debug)]
pub struct SnapshotWriter {
    dir: SnapshotDir,
    manifest: Manifest,
    manifest_sum: u32,
    /// The next byte belongs to this file, at this offset; its `opened` is none before its first byte.
    file: usize,
    offset: u64,
    opened: Option<File>,
    unsynced_bytes: u64,
    received_bytes: u64,
    /// After an error what lies on disk is unknown, and nothing more is taken.
    failed: bool,
}

impl SnapshotWriter {
    /// Makes `dir`, which must not exist.
    pub fn begin(dir: &Path, manifest: Manifest) -> io::Result<SnapshotWriter> {
        manifest.check()?;
        fs::create_dir(dir).map_err(|error| failed("create", dir, error))?;
        let mut writer = SnapshotWriter {
            dir: SnapshotDir::adopt(dir),
            manifest_sum: manifest.sum(),
            manifest,
            file: 0,
            offset: 0,
            opened: None,
            unsynced_bytes: 0,
            received_bytes: 0,
            failed: false,
        };
        writer.pass_complete_files()?;
        Ok(writer)
    }

    /// Takes the next chunk. A chunk that is damaged, that does not follow the one before or that
    /// exceeds its file is refused (`InvalidData`); after any error the snapshot must be given up.
    pub fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        if self.failed {
            return Err(refused("the snapshot was given up after an error".to_owned()));
        }
        let written = self.check(chunk).and_then(|()| self.store(&chunk.bytes));
        self.failed = written.is_err();
        written
    }

    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Every file must be complete. When it returns, the directory is durable under its name.
    pub fn finish(self) -> io::Result<SnapshotDir> {
        if self.failed {
            return Err(refused("the snapshot was given up after an error".to_owned()));
        }
        if let Some(entry) = self.manifest.files.get(self.file) {
            return Err(refused(format!(
                "the snapshot ends at byte {} of {} in {}, {} of {} bytes are missing",
                self.offset,
                entry.bytes,
                entry.name,
                self.manifest.total_bytes() - self.received_bytes,
                self.manifest.total_bytes()
            )));
        }
        let path = self.dir.path();
        small_file::sync_dir(path).map_err(|error| failed("sync", path, error))?;
        let parent = parent(path);
        small_file::sync_dir(parent).map_err(|error| failed("sync", parent, error))?;
        Ok(self.dir)
    }

    fn check(&self, chunk: &Chunk) -> io::Result<()> {
        if !chunk.is_whole(self.manifest_sum) {
            return Err(refused(format!(
                "the checksum of the chunk at byte {} of file {} is wrong",
                chunk.offset, chunk.file
            )));
        }
        let Some(entry) = self.manifest.files.get(self.file) else {
            return Err(refused("a chunk comes after the snapshot's last byte".to_owned()));
        };
        if (chunk.file as usize, chunk.offset) != (self.file, self.offset) {
            return Err(refused(format!(
                "a chunk of byte {} of file {} comes where byte {} of file {} ({}) should follow",
                chunk.offset, chunk.file, self.offset, self.file, entry.name
            )));
        }
        let bytes = chunk.bytes.len();
        if bytes == 0 || bytes > CHUNK_BYTES {
            return Err(refused(format!(
                "a chunk of {bytes} bytes, 1 to {CHUNK_BYTES} are taken"
            )));
        }
        if bytes as u64 > entry.bytes - self.offset {
            return Err(refused(format!(
                "{} has {} bytes, but bytes up to {} come",
                entry.name,
                entry.bytes,
                self.offset + bytes as u64
            )));
        }
        Ok(())
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.path();
        let opened = match &mut self.opened {
            Some(opened) => opened,
            none => none.insert(File::create_new(&path).map_err(|error| failed("create", &path, error))?),
        };
        opened.write_all(bytes).map_err(|error| failed("write", &path, error))?;
        self.offset += bytes.len() as u64;
        self.received_bytes += bytes.len() as u64;
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= UNSYNCED_BYTES_MAX {
            opened.sync_data().map_err(|error| failed("sync", &path, error))?;
            self.unsynced_bytes = 0;
        }
        self.pass_complete_files()
    }

    /// Goes on to the file that still lacks bytes. Empty ones are made on the way, as no chunk of
    /// them will come.
    fn pass_complete_files(&mut self) -> io::Result<()> {
        while self
            .manifest
            .files
            .get(self.file)
            .is_some_and(|entry| entry.bytes == self.offset)
        {
            let path = self.path();
            let complete = match self.opened.take() {
                Some(opened) => opened,
                None => File::create_new(&path).map_err(|error| failed("create", &path, error))?,
            };
            complete.sync_all().map_err(|error| failed("sync", &path, error))?;
            self.file += 1;
            self.offset = 0;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Of the file whose turn it is.
    fn path(&self) -> PathBuf {
        self.dir.path().join(&self.manifest.files[self.file].name)
    }
}

fn parent(path: &Path) -> &Path {
    // The parent of a bare name is the empty path, which cannot be opened.
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn failed(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
