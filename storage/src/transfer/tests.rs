//! A snapshot's way from one directory to another, and what must not arrive.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use quorate_state_machine::Change;

use super::*;
use crate::log::LogId;
use crate::state::{Applied, MemoryState, RocksState, StateOptions, StateStore};

/// Files of all sizes that matter, in the order in which they travel: 3 MiB + 5 bytes in all.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let pattern = |bytes: usize| (0..bytes).map(|at| (at * 7 % 251) as u8).collect::<Vec<u8>>();
    vec![
        ("a", vec![]),
        ("b", pattern(CHUNK_BYTES)),
        ("c", pattern(2 * CHUNK_BYTES + 1)),
        ("d", pattern(4)),
        ("e", vec![]),
    ]
}

fn write_files(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for (name, bytes) in files() {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn chunks_of(reader: &mut SnapshotReader) -> Vec<Chunk> {
    std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
}

fn read(dir: &Path) -> (Manifest, Vec<Chunk>) {
    let mut reader = SnapshotReader::open(Arc::new(SnapshotDir::adopt(dir))).unwrap();
    let chunks = chunks_of(&mut reader);
    (reader.manifest().clone(), chunks)
}

fn receive(dir: &Path, manifest: Manifest, chunks: &[Chunk]) -> io::Result<SnapshotDir> {
    let mut writer = SnapshotWriter::begin(dir, manifest)?;
    for chunk in chunks {
        writer.write(chunk)?;
    }
    writer.finish()
}

fn entry(name: &str, bytes: u64) -> FileEntry {
    FileEntry {
        name: name.to_owned(),
        bytes,
    }
}

#[test]
fn what_was_sent_arrives() {
    let tmp = tempfile::tempdir().unwrap();
    write_files(&tmp.path().join("out"));
    let (manifest, chunks) = read(&tmp.path().join("out"));
    assert_eq!(manifest.total_bytes(), 3 * CHUNK_BYTES as u64 + 5);
    assert_eq!(
        chunks
            .iter()
            .map(|chunk| (chunk.file, chunk.offset, chunk.bytes.len()))
            .collect::<Vec<_>>(),
        [
            (1, 0, CHUNK_BYTES),
            (2, 0, CHUNK_BYTES),
            (2, CHUNK_BYTES as u64, CHUNK_BYTES),
            (2, 2 * CHUNK_BYTES as u64, 1),
            (3, 0, 4),
        ]
    );
    assert!(!tmp.path().join("out").exists(), "removed with its last owner");

    let mut writer = SnapshotWriter::begin(&tmp.path().join("in"), manifest).unwrap();
    for chunk in &chunks {
        writer.write(chunk).unwrap();
    }
    assert_eq!(writer.received_bytes(), 3 * CHUNK_BYTES as u64 + 5);
    let arrived = writer.finish().unwrap();
    for (name, bytes) in files() {
        assert_eq!(fs::read(arrived.path().join(name)).unwrap(), bytes, "{name}");
    }
    drop(arrived);
    assert!(!tmp.path().join("in").exists());
}

/// The manifest is sent, so it is encoded; that it comes back the same is what its sum relies on.
#[test]
fn manifest_and_chunk_survive_their_encoding() {
    let tmp = tempfile::tempdir().unwrap();
    write_files(&tmp.path().join("out"));
    let (manifest, chunks) = read(&tmp.path().join("out"));
    let config = bincode::config::standard();
    let bytes = bincode::encode_to_vec(&manifest, config).unwrap();
    assert_eq!(
        bincode::decode_from_slice::<Manifest, _>(&bytes, config).unwrap().0,
        manifest
    );
    let bytes = bincode::encode_to_vec(&chunks[4], config).unwrap();
    assert_eq!(
        bincode::decode_from_slice::<Chunk, _>(&bytes, config).unwrap().0,
        chunks[4]
    );
}

fn id(index: u64) -> LogId {
    LogId {
        term: 1,
        leader: 1,
        index,
    }
}

/// Some 3 MiB of rows that do not compress.
fn fill(state: &impl StateStore) {
    for batch in 1..=30u64 {
        let row = |n: u64| Change::Put {
            key: format!("row {batch} {n}").into_bytes(),
            value: (0..125u64)
                .flat_map(|at| xxhash_rust::xxh3::xxh3_64_with_seed(&at.to_be_bytes(), batch << 32 | n).to_be_bytes())
                .collect(),
        };
        let applied = Applied {
            last: Some(id(batch)),
            membership: b"members".to_vec(),
        };
        state.write((0..100).map(row).collect(), &applied).unwrap();
    }
}

fn travel(from: &impl StateStore, to: &impl StateStore, tmp: &Path) {
    fill(from);
    let applied = from.checkpoint(&tmp.join("out")).unwrap();
    let (manifest, chunks) = read(&tmp.join("out"));
    let arrived = receive(&tmp.join("in"), manifest, &chunks).unwrap();
    assert_eq!(to.install(arrived.path()).unwrap(), applied);
    // The installation has used it up, which must not matter to its owner.
    drop(arrived);
    assert_eq!(to.applied().unwrap().last, Some(id(30)));
    assert_eq!(to.installed(), Some(id(30)));
    assert_eq!(to.state_hash().unwrap(), from.state_hash().unwrap());
}

fn open(dir: &Path) -> RocksState {
    let options = StateOptions {
        write_buffer_bytes: 512 << 10,
        ..StateOptions::default()
    };
    RocksState::open(
        dir,
        options,
        Arc::new(|reason| panic!("the state has failed: {reason}")),
    )
    .unwrap()
}

#[test]
fn a_state_on_disk_travels() {
    let tmp = tempfile::tempdir().unwrap();
    let (from, to) = (open(&tmp.path().join("from")), open(&tmp.path().join("to")));
    travel(&from, &to, tmp.path());
    // What was left out is nothing that a restart needs.
    drop(to);
    let to = open(&tmp.path().join("to"));
    assert_eq!(to.state_hash().unwrap(), from.state_hash().unwrap());
}

#[test]
fn a_state_in_memory_travels() {
    let tmp = tempfile::tempdir().unwrap();
    travel(&MemoryState::new(), &MemoryState::new(), tmp.path());
}

#[test]
fn locks_and_texts_for_people_stay_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let state = open(&tmp.path().join("from"));
    fill(&state);
    let dir = tmp.path().join("out");
    state.checkpoint(&dir).unwrap();
    // What RocksDB leaves where it opens a database to write.
    for name in ["LOCK", "LOG", "LOG.old.1"] {
        std::fs::write(dir.join(name), "x").unwrap();
    }
    let names: Vec<String> = Manifest::of(&dir)
        .unwrap()
        .files
        .into_iter()
        .map(|file| file.name)
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    assert!(
        !names.iter().any(|name| name == "LOCK" || name.starts_with("LOG")),
        "{names:?}"
    );
    for needed in ["CURRENT", "MANIFEST-", ".sst"] {
        assert!(
            names.iter().any(|name| name.contains(needed)),
            "{needed} is not in {names:?}"
        );
    }
}

/// What may happen on the way, and what is said about it.
#[test]
fn what_is_not_the_snapshot_is_refused_and_leaves_nothing_behind() {
    type Damage = fn(&mut Manifest, &mut Vec<Chunk>);
    let cases: &[(&str, &str, Damage)] = &[
        (
            "a flipped bit",
            "checksum of the chunk at byte 1048576 of file 2 is wrong",
            |_, chunks| {
                chunks[2].bytes[77] ^= 4;
            },
        ),
        ("a flipped bit in a checksum", "checksum", |_, chunks| {
            chunks[0].crc32 ^= 1
        }),
        ("a moved chunk", "checksum", |_, chunks| chunks[1].offset = 1),
        ("a chunk of another file", "checksum", |_, chunks| chunks[4].file = 2),
        (
            "a missing chunk",
            "byte 2097152 of file 2 comes where byte 1048576 of file 2 (c)",
            |_, chunks| {
                chunks.remove(2);
            },
        ),
        (
            "chunks out of order",
            "comes where byte 0 of file 2 (c)",
            |_, chunks| chunks.swap(1, 2),
        ),
        ("a chunk twice", "comes where", |_, chunks| {
            chunks.insert(1, chunks[0].clone())
        }),
        (
            "an end too early",
            "the snapshot ends at byte 0 of 4 in d, 4 of 3145733 bytes are missing",
            |_, chunks| {
                chunks.pop();
            },
        ),
        (
            "no chunk at all",
            "3145733 of 3145733 bytes are missing",
            |_, chunks| chunks.clear(),
        ),
        ("a chunk too many", "after the snapshot's last byte", |_, chunks| {
            chunks.push(chunks[4].clone());
        }),
        ("the manifest of another snapshot", "checksum", |manifest, _| {
            manifest.files[3].bytes = 5
        }),
        ("another name", "checksum", |manifest, _| {
            manifest.files[3].name = "x".to_owned()
        }),
        (
            "too many bytes",
            "d has 4 bytes, but bytes up to 5 come",
            |manifest, chunks| {
                chunks[4] = Chunk::seal(manifest.sum(), 3, 0, vec![0; 5]);
            },
        ),
        (
            "a chunk that is too large",
            "a chunk of 1048577 bytes",
            |manifest, chunks| {
                chunks[1] = Chunk::seal(manifest.sum(), 2, 0, vec![0; CHUNK_BYTES + 1]);
            },
        ),
        ("an empty chunk", "a chunk of 0 bytes", |manifest, chunks| {
            chunks[1] = Chunk::seal(manifest.sum(), 2, 0, vec![]);
        }),
        ("a name with a slash", "\"../b\", which is no plain", |manifest, _| {
            manifest.files[1].name = "../b".to_owned();
        }),
        ("the parent", "\"..\", which is no plain", |manifest, _| {
            manifest.files[1].name = "..".to_owned()
        }),
        ("a hidden file", "\".b\", which is no plain", |manifest, _| {
            manifest.files[1].name = ".b".to_owned()
        }),
        ("an empty name", "\"\", which is no plain", |manifest, _| {
            manifest.files[1].name = String::new()
        }),
        ("a name with a zero", "which is no plain", |manifest, _| {
            manifest.files[1].name = "b\0".to_owned()
        }),
        ("a long name", "which is no plain", |manifest, _| {
            manifest.files[1].name = "b".repeat(101)
        }),
        ("a lock", "\"LOCK\", which does not travel", |manifest, _| {
            manifest.files[1].name = "LOCK".to_owned();
        }),
        ("a name twice", "\"c\" twice", |manifest, _| {
            manifest.files[1].name = "c".to_owned()
        }),
        ("no files", "names no files", |manifest, _| manifest.files.clear()),
        ("too many files", "names 65537 files", |manifest, _| {
            manifest.files = (0..=1 << 16).map(|n| entry(&n.to_string(), 1)).collect();
        }),
        ("too much", "promises 4398046511105 bytes", |manifest, _| {
            manifest.files = vec![entry("a", 1), entry("b", 4 << 40)];
        }),
        (
            "more than can be counted",
            "promises 18446744073709551615 bytes",
            |manifest, _| {
                manifest.files = vec![entry("a", u64::MAX), entry("b", u64::MAX)];
            },
        ),
    ];
    let tmp = tempfile::tempdir().unwrap();
    for (name, said, damage) in cases {
        write_files(&tmp.path().join("out"));
        let (mut manifest, mut chunks) = read(&tmp.path().join("out"));
        damage(&mut manifest, &mut chunks);
        let error = receive(&tmp.path().join("in"), manifest, &chunks).expect_err(name);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
        assert!(error.to_string().contains(said), "{name}: {error}");
        assert_eq!(
            fs::read_dir(tmp.path()).unwrap().count(),
            0,
            "{name} leaves something behind"
        );
    }
}

/// One who goes on after an error must not end up with a snapshot that lacks a chunk.
#[test]
fn nothing_is_taken_after_an_error() {
    let tmp = tempfile::tempdir().unwrap();
    write_files(&tmp.path().join("out"));
    let (manifest, chunks) = read(&tmp.path().join("out"));
    let mut writer = SnapshotWriter::begin(&tmp.path().join("in"), manifest).unwrap();
    writer.write(&chunks[1]).unwrap_err();
    for chunk in &chunks {
        writer.write(chunk).unwrap_err();
    }
    assert_eq!(writer.received_bytes(), 0);
    writer.finish().unwrap_err();
    assert!(!tmp.path().join("in").exists());
}

#[test]
fn a_directory_that_exists_is_not_touched() {
    let tmp = tempfile::tempdir().unwrap();
    write_files(&tmp.path().join("out"));
    write_files(&tmp.path().join("in"));
    let (manifest, _) = read(&tmp.path().join("out"));
    let error = SnapshotWriter::begin(&tmp.path().join("in"), manifest).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_dir(tmp.path().join("in")).unwrap().count(), files().len());
}

#[test]
fn what_is_no_checkpoint_is_not_sent() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("out");
    assert_eq!(Manifest::of(&dir).unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::create_dir(&dir).unwrap();
    Manifest::of(&dir).unwrap_err();
    fs::write(dir.join("file"), "x").unwrap();
    fs::create_dir(dir.join("directory")).unwrap();
    let error = Manifest::of(&dir).unwrap_err().to_string();
    assert!(error.contains("directory is not a regular file"), "{error}");
}

#[test]
fn a_file_that_shrinks_or_goes_while_it_is_sent_ends_the_stream() {
    for remove in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("out");
        write_files(&dir);
        let mut reader = SnapshotReader::open(Arc::new(SnapshotDir::adopt(&dir))).unwrap();
        match remove {
            false => fs::write(dir.join("d"), "123").unwrap(),
            true => fs::remove_file(dir.join("d")).unwrap(),
        }
        (0..4).for_each(|_| drop(reader.next_chunk().unwrap()));
        let error = reader.next_chunk().unwrap_err().to_string();
        assert!(error.contains("out/d"), "{error}");
    }
}
