//! The sender's side.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::{CHUNK_BYTES, Chunk, Manifest, SnapshotDir};

/// Gives the chunks of a checkpoint in order. It keeps the directory alive.
#[derive(Debug)]
pub struct SnapshotReader {
    dir: Arc<SnapshotDir>,
    manifest: Manifest,
    manifest_sum: u32,
    /// The file that is being read; empty files give no chunks.
    file: usize,
    opened: Option<File>,
    offset: u64,
}

impl SnapshotReader {
    pub fn open(dir: Arc<SnapshotDir>) -> io::Result<SnapshotReader> {
        let manifest = Manifest::of(dir.path())?;
        Ok(SnapshotReader {
            manifest_sum: manifest.sum(),
            dir,
            manifest,
            file: 0,
            opened: None,
            offset: 0,
        })
    }

    /// To be sent before the first chunk.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// None after the last one. After an error the stream must be given up: a checkpoint does not
    /// change, so a file that is shorter than it was, or gone, is damage.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            let Some(entry) = self.manifest.files.get(self.file) else {
                return Ok(None);
            };
            if self.offset == entry.bytes {
                self.file += 1;
                self.offset = 0;
                self.opened = None;
                continue;
            }
            let path = self.dir.path().join(&entry.name);
            let failed = |error: io::Error| io::Error::new(error.kind(), format!("read {}: {error}", path.display()));
            let opened = match &mut self.opened {
                Some(opened) => opened,
                none => none.insert(File::open(&path).map_err(failed)?),
            };
            let left = entry.bytes - self.offset;
            let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES)];
            opened.read_exact(&mut bytes).map_err(failed)?;
            let file = u32::try_from(self.file).expect("a checked manifest names fewer files");
            let chunk = Chunk::seal(self.manifest_sum, file, self.offset, bytes);
            self.offset += chunk.bytes.len() as u64;
            return Ok(Some(chunk));
        }
    }
}
