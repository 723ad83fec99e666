//! How a checkpoint directory travels from one node to another: as a [`Manifest`], then as
//! [`Chunk`]s in order, into a directory that is made durable and can be installed.
//!
//! The manifest has names and sizes only, and each chunk a checksum of its own. Checksums of whole
//! files in the manifest would cost a full read of the state before the first byte leaves, and find
//! nothing more: chunks are taken in order only, without a gap, up to exactly the promised size, so that
//! the chunks' checksums cover every byte of every file. A chunk's checksum also covers the manifest, the
//! file's number and the offset: a whole chunk of another snapshot, or of another place, is refused.
//!
//! This protects the way. What lies on the sender's disk is protected by RocksDB's own checksums, which
//! travel inside the files and are checked wherever the state is read.
//!
//! Nothing here waits for a network: [`SnapshotReader`] is asked for chunks, [`SnapshotWriter`] is given
//! them. Both do blocking IO, so they belong on a thread that may block.

mod dir;
mod manifest;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use bincode::{Decode, Encode};

pub use dir::SnapshotDir;
pub use manifest::{FileEntry, Manifest};
pub use reader::SnapshotReader;
pub use writer::SnapshotWriter;

/// What a chunk holds at most. Large enough that the disk reads in long runs, small enough that a
/// frame of it does not hold up anything else for long, and that a few in flight take little memory.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A piece of one file.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Chunk {
    /// Which file of the manifest, from 0.
    pub file: u32,
    /// Where in the file the bytes begin.
    pub offset: u64,
    pub bytes: Vec<u8>,
    /// Over the manifest, `file`, `offset` and `bytes`.
    pub crc32: u32,
}

impl Chunk {
    /// `manifest_sum` is [`Manifest::sum`].
    fn seal(manifest_sum: u32, file: u32, offset: u64, bytes: Vec<u8>) -> Self {
        let crc32 = checksum(manifest_sum, file, offset, &bytes);
        Self {
            file,
            offset,
            bytes,
            crc32,
        }
    }

    fn is_whole(&self, manifest_sum: u32) -> bool {
        self.crc32 == checksum(manifest_sum, self.file, self.offset, &self.bytes)
    }
}

/// Without the bytes, which nobody wants to see in a message.
impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("file", &self.file)
            .field("offset", &self.offset)
            .field("bytes", &self.bytes.len())
            .field("crc32", &self.crc32)
            .finish()
    }
}

fn checksum(manifest_sum: u32, file: u32, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&manifest_sum.to_be_bytes());
    hasher.update(&file.to_be_bytes());
    hasher.update(&offset.to_be_bytes());
    hasher.update(bytes);
    hasher.finalize()
}
