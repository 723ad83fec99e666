//! The mark: how far this disk has confirmed the log, kept beside the log in a file of its own.
//!
//! RocksDB's recovery cannot tell a torn tail, which no one was promised, from a damaged log that
//! had been confirmed: it cuts both. After each synced write of the log the writer overwrites the
//! mark with the last log id and the vote. It is not synced itself: whatever version of it a crash
//! leaves is older than the log, never ahead of it. At start a log below the mark has lost what was
//! acknowledged.
//!
//! Only a truncation (or a purge across terms) may lower what the mark says. Then the mark is
//! lowered and synced first, so that a crash between the two cannot make a healthy log look lost.
//!
//! The file has two slots, each in a page of its own, written in turn: a write that a crash tears
//! leaves the other slot, which is one write older.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};
use quorate_state_machine::codec::{self, Kind};

use super::record::{seal, unseal};
use super::{LogId, Vote};
use crate::error::OpenError;
use crate::small_file;

const MARK_VERSION: u8 = 1;

/// Less than a disk's sector, so that slots are hardly ever torn at all.
const SLOT_BYTES: usize = 256;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const FILE_BYTES: u64 = 8192;

/// What the disk has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct Mark {
    pub(super) last: Option<LogId>,
    pub(super) vote: Option<Vote>,
}

impl Mark {
    /// Whether a log in this state has all that `marked` says it had.
    pub(super) fn covers(&self, marked: &Mark) -> bool {
        self.last >= marked.last && self.vote.map(|v| v.rank()) >= marked.vote.map(|v| v.rank())
    }
}

/// For messages: "log id 3-1-12 and vote 3-1".
impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.last {
            Some(id) => write!(f, "log id {id}")?,
            None => write!(f, "an empty log")?,
        }
        match self.vote {
            Some(Vote {
                term,
                leader,
                committed: true,
            }) => write!(f, " and vote {term}-{leader} (elected)"),
            Some(Vote {
                term,
                leader,
                committed: false,
            }) => write!(f, " and vote {term}-{leader}"),
            None => write!(f, " and no vote"),
        }
    }
}

/// The opened file.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    /// Of the newest slot. The next write goes to the other one.
    sequence: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Slot {
    Blank,
    Damaged,
    Written { sequence: u64, mark: Mark },
}

impl MarkFile {
    /// Beside the log's directory: `log` has `log.mark`.
    pub(super) fn path_of(log_dir: &Path) -> PathBuf {
        small_file::with_suffix(log_dir, ".mark")
    }

    /// Opens the mark, or makes it; the mark is none if nothing was ever written.
    pub(super) fn open(path: &Path) -> Result<(MarkFile, Option<Mark>), OpenError> {
        let io = |error| OpenError::io(format!("open {}", path.display()), error);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        if file.metadata().map_err(io)?.len() < FILE_BYTES {
            prepare(&file, path).map_err(io)?;
        }
        let mut slots = [Slot::Blank, Slot::Blank];
        for (slot, offset) in slots.iter_mut().zip(SLOT_OFFSETS) {
            let mut bytes = [0; SLOT_BYTES];
            file.read_exact_at(&mut bytes, offset).map_err(io)?;
            *slot = decode_slot(&bytes);
        }
        let newest = slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Written { sequence, mark } => Some((*sequence, *mark)),
                Slot::Blank | Slot::Damaged => None,
            })
            .max_by_key(|(sequence, _)| *sequence);
        let damaged = slots.contains(&Slot::Damaged);
        match newest {
            Some((sequence, mark)) => {
                if damaged {
                    tracing::warn!(path = %path.display(), %mark, "one half of the mark is torn, using the other");
                }
                Ok((MarkFile { file, sequence }, Some(mark)))
            }
            None if damaged => Err(OpenError::corrupt(
                path.display().to_string(),
                "neither half is whole, so that it cannot be told whether the log has lost anything",
            )),
            None => Ok((MarkFile { file, sequence: 0 }, None)),
        }
    }

    /// Overwrites the older slot; not synced.
    pub(super) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let offset = SLOT_OFFSETS[(sequence % 2) as usize];
        self.file.write_all_at(&encode_slot(sequence, mark), offset)?;
        self.sequence = sequence;
        Ok(())
    }

    /// Makes the mark durable; only needed where it is lowered.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Writes zeros rather than leaving a hole, so that no later write needs new space on the disk.
fn prepare(file: &File, path: &Path) -> io::Result<()> {
    let from = file.metadata()?.len();
    let zeros = vec![0; (FILE_BYTES - from) as usize];
    file.write_all_at(&zeros, from)?;
    file.sync_all()?;
    small_file::sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Length of the value (u16), value, checksum over both; zeros up to the slot's size.
fn encode_slot(sequence: u64, mark: &Mark) -> [u8; SLOT_BYTES] {
    let value = codec::encode(Kind::Mark, MARK_VERSION, &(sequence, *mark));
    let mut bytes = (value.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(&value);
    seal(&[], &mut bytes);
    let mut slot = [0; SLOT_BYTES];
    slot[..bytes.len()].copy_from_slice(&bytes);
    slot
}

fn decode_slot(slot: &[u8; SLOT_BYTES]) -> Slot {
    if slot.iter().all(|b| *b == 0) {
        return Slot::Blank;
    }
    let sealed_bytes = 2 + usize::from(u16::from_be_bytes([slot[0], slot[1]])) + 4;
    let decoded = slot
        .get(..sealed_bytes)
        .ok_or_else(|| "too long".to_owned())
        .and_then(|sealed| unseal(&[], sealed))
        .and_then(|body| codec::decode(Kind::Mark, MARK_VERSION, &body[2..]).map_err(|error| error.to_string()));
    match decoded {
        Ok((sequence, mark)) => Slot::Written { sequence, mark },
        Err(_) => Slot::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(index: u64) -> Mark {
        let last = Some(LogId {
            term: 300,
            leader: 2,
            index,
        });
        Mark {
            last,
            vote: Some(Vote {
                term: 300,
                leader: 2,
                committed: true,
            }),
        }
    }

    fn damage(path: &Path, offset: u64) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }

    #[test]
    fn golden_bytes() {
        let slot = encode_slot(9, &mark(70_000));
        let text: String = slot[..40].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            "001344010901fb2c0102fc7011010001fb2c01020192baffd6000000000000000000000000000000"
        );
        assert_eq!(
            decode_slot(&slot),
            Slot::Written {
                sequence: 9,
                mark: mark(70_000)
            }
        );
    }

    #[test]
    fn the_largest_mark_fits_its_slot() {
        let id = LogId {
            term: u64::MAX,
            leader: u64::MAX,
            index: u64::MAX,
        };
        let vote = Vote {
            term: u64::MAX,
            leader: u64::MAX,
            committed: true,
        };
        let largest = Mark {
            last: Some(id),
            vote: Some(vote),
        };
        assert_eq!(
            decode_slot(&encode_slot(1, &largest)),
            Slot::Written {
                sequence: 1,
                mark: largest
            }
        );
    }

    #[test]
    fn the_newest_write_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let (mut file, found) = MarkFile::open(&path).unwrap();
        assert_eq!(found, None);
        for index in 1..6 {
            file.write(&mark(index)).unwrap();
            let (again, found) = MarkFile::open(&path).unwrap();
            assert_eq!(found, Some(mark(index)));
            file = again;
        }
    }

    #[test]
    fn a_torn_write_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let (mut file, _) = MarkFile::open(&path).unwrap();
        file.write(&mark(1)).unwrap();
        file.write(&mark(2)).unwrap();
        damage(&path, SLOT_OFFSETS[0] + 5);
        let (mut file, found) = MarkFile::open(&path).unwrap();
        assert_eq!(found, Some(mark(1)));
        file.write(&mark(3)).unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().1, Some(mark(3)));
    }

    #[test]
    fn two_damaged_halves_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let (mut file, _) = MarkFile::open(&path).unwrap();
        file.write(&mark(1)).unwrap();
        file.write(&mark(2)).unwrap();
        damage(&path, SLOT_OFFSETS[0] + 5);
        damage(&path, SLOT_OFFSETS[1] + 5);
        assert!(matches!(MarkFile::open(&path), Err(OpenError::Corrupt { .. })));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let slot = encode_slot(1, &mark(5));
        for bit in 0..30 * 8 {
            let mut bad = slot;
            bad[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode_slot(&bad);
            let harmless = bit / 8 >= 2 + usize::from(u16::from_be_bytes([slot[0], slot[1]])) + 4;
            assert_eq!(decoded == Slot::Damaged, !harmless, "bit {bit}");
        }
    }

    #[test]
    fn a_mark_covers_what_it_has_reached() {
        let lower_vote = Mark {
            vote: Some(Vote {
                term: 300,
                leader: 2,
                committed: false,
            }),
            ..mark(5)
        };
        assert!(mark(5).covers(&mark(5)) && mark(6).covers(&mark(5)) && mark(5).covers(&Mark::default()));
        assert!(!mark(4).covers(&mark(5)) && !Mark::default().covers(&mark(5)) && !lower_vote.covers(&mark(5)));
        // An entry of a later term replaces a longer log of an earlier one.
        let later = Mark {
            last: Some(LogId {
                term: 301,
                leader: 1,
                index: 2,
            }),
            ..mark(0)
        };
        assert!(later.covers(&mark(5)));
    }
}
