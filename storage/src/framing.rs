//! A look at the frames of records before RocksDB reads them, because one kind of damage keeps it reading for ever.
//!
//! RocksDB's MANIFEST and its log are files of records, in frames of which each begins with a checksum, a length
//! and a kind. Where a file is used a second time (`recycle_log_file_num`), its frames are of kinds of their own.
//! RocksDB sees that such a frame has no place in a file that began without, but before it has looked at the
//! checksum, and then reads the same frame again without end: one flipped bit of one byte of a frame is enough
//! (1, a whole record, becomes 5). The node would neither start nor end. No file is used twice here, so every frame
//! of these kinds is damage, and is told as such. All other damage is left to RocksDB.
//!
//! That costs a start hardly anything: RocksDB reads the same files right afterwards, and does more with them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::OpenError;

/// Frames do not cross these.
const BLOCK_BYTES: usize = 32 << 10;

/// Checksum (4), length (2), kind.
const HEADER_BYTES: usize = 7;
/// The checksum is that of the kind and what follows it.
const KIND_AT: usize = 6;

/// An error if a file in RocksDB's directory `dir` would keep it reading for ever. A directory or a file that is
/// missing is none.
pub(crate) fn check(dir: &Path) -> Result<(), OpenError> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|error| OpenError::io(format!("read {}", dir.display()), error))?,
    };
    for entry in entries {
        let path = entry
            .map_err(|error| OpenError::io(format!("read {}", dir.display()), error))?
            .path();
        if !has_frames(&path) {
            continue;
        }
        let found = File::open(&path)
            .and_then(second_use)
            .map_err(|error| OpenError::io(format!("read {}", path.display()), error))?;
        if let Some((at, kind)) = found {
            return Err(OpenError::corrupt(
                path.display().to_string(),
                format!("the record at byte {at} is of kind {kind}, and no such record is ever written"),
            ));
        }
    }
    Ok(())
}

fn has_frames(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("MANIFEST-") || name.ends_with(".log")
}

/// Where the first frame of a second use begins, and its kind.
///
/// It goes as far as RocksDB does. A head of zeros (a power cut may leave whole pages of them) is the end of its
/// block; a frame with another defect is the end of all that RocksDB takes from the file, and behind it anything may
/// look like a frame.
fn second_use(mut file: impl Read) -> io::Result<Option<(usize, u8)>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for begin in (0..).step_by(BLOCK_BYTES) {
        block.clear();
        if file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            break;
        }
        let mut at = 0;
        while let Some(header) = block.get(at..at + HEADER_BYTES) {
            let (length, kind) = (u16::from_le_bytes([header[4], header[5]]), header[6]);
            if is_of_second_use(kind) {
                return Ok(Some((begin + at, kind)));
            }
            if (length, kind) == (0, 0) {
                break;
            }
            let end = at + HEADER_BYTES + usize::from(length);
            let sum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            match block.get(at + KIND_AT..end) {
                Some(summed) if masked(crc32c::crc32c(summed)) == sum => at = end,
                _ => return Ok(None),
            }
        }
    }
    Ok(None)
}

/// RocksDB does not keep checksums as they are, so that sums of data that has sums in it mean something.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Whole, first, middle and last; the size of timestamps; what is known of the log before this one.
fn is_of_second_use(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

#[cfg(test)]
mod tests {
    use rocksdb::{DB, Options};

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![5; HEADER_BYTES + length];
        frame[4..6].copy_from_slice(&u16::try_from(length).unwrap().to_le_bytes());
        frame[6] = kind;
        let sum = masked(crc32c::crc32c(&frame[KIND_AT..]));
        frame[..4].copy_from_slice(&sum.to_le_bytes());
        frame
    }

    #[test]
    fn frames_of_a_second_use_are_found_in_every_block() {
        // Ends 3 bytes before the block does, which is too little for a header.
        let first = [frame(1, 100), frame(2, BLOCK_BYTES - 2 * HEADER_BYTES - 103)].concat();
        assert_eq!(first.len(), BLOCK_BYTES - 3);
        let bytes = [first, vec![5; 3], frame(4, 9), frame(1, 0)].concat();
        assert_eq!(second_use(&bytes[..]).unwrap(), None);
        for at in [0, 107, BLOCK_BYTES, BLOCK_BYTES + 16] {
            for kind in [5, 6, 7, 8, 11, 131] {
                let mut bytes = bytes.clone();
                bytes[at + 6] = kind;
                assert_eq!(second_use(&bytes[..]).unwrap(), Some((at, kind)));
            }
        }
        assert_eq!(second_use(&bytes[..BLOCK_BYTES + 6]).unwrap(), None, "a torn header");
    }

    /// What a power cut leaves of writes that were not synced is RocksDB's to judge, whatever it looks like.
    #[test]
    fn nothing_behind_zeros_or_a_torn_frame_is_taken_for_a_frame() {
        let whole = frame(1, 200);
        for cut in 0..whole.len() {
            let torn = [frame(1, 10), whole[..cut].to_vec(), vec![0; 100], vec![5; 300]].concat();
            let found = second_use(&torn[..]).unwrap();
            assert_eq!(found, None, "cut after {cut} bytes");
        }
        let page_of_zeros = [vec![0; BLOCK_BYTES], frame(1, 10), frame(5, 10)].concat();
        assert_eq!(second_use(&page_of_zeros[..]).unwrap(), Some((BLOCK_BYTES + 17, 5)));
    }

    /// Whatever RocksDB writes passes, of any length and as often as it is opened.
    #[test]
    fn healthy_files_have_none() {
        let dir = tempfile::tempdir().unwrap();
        check(&dir.path().join("missing")).unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        for life in 0..3 {
            let db = DB::open(&options, dir.path()).unwrap();
            for length in (0..70_000).step_by(701) {
                db.put(format!("{life} {length}"), vec![7; length]).unwrap();
            }
            drop(db);
            check(dir.path()).unwrap();
        }
    }
}
