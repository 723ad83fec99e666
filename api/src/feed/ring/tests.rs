use quorate_state_machine::Message;

use super::testing::{at, change, room_changes};
use super::*;

fn text(pieces: &[Piece]) -> String {
    let frames: Vec<&[u8]> = pieces.iter().map(|piece| piece.frames.as_ref()).collect();
    String::from_utf8(frames.concat()).unwrap()
}

fn text_of(changes: &[RoomChange]) -> String {
    let chunks = write("hall", changes.to_vec()).chunks;
    text(&chunks.into_iter().map(Chunk::whole).collect::<Vec<_>>())
}

/// Whatever was asked when, and wherever a reader stands, he gets what is behind him, once and in order.
#[test]
fn every_reader_gets_what_is_behind_him() {
    let inside = |revision, index| Position { index, ..at(revision) };
    // A batch of three at 20; nothing of the room happens in between.
    let ends = [at(5), at(6), inside(20, 1), inside(20, 2), at(20), at(30)];
    let all: Vec<RoomChange> = ends.into_iter().map(change).collect();
    let changes = |after: Position, next: Position| -> Vec<RoomChange> {
        let is_in =
            |change: &&RoomChange| place(after) < place(change.position) && place(change.position) <= place(next);
        all.iter().filter(is_in).cloned().collect()
    };
    let mut places: Vec<Position> = ends.into();
    places.extend([at(4), at(7), at(19), at(25), at(31)]);
    places.sort_by_key(|position| place(*position));
    for (n, from) in places.iter().enumerate() {
        for middle in &places[n..] {
            for to in places.iter().filter(|to| place(**to) >= place(*middle)) {
                let mut ring = Ring::default();
                for (after, next) in [(*from, *middle), (*middle, *to)] {
                    let given = ring.extend(after, write("hall", changes(after, next)), next, false, after);
                    let (pieces, end) = given.expect("he was at its end");
                    assert_eq!((text(&pieces), end), (text_of(&changes(after, next)), next));
                }
                for reader in &places {
                    let expected = changes(*reader, *to);
                    match ring.look(*reader, Revision(0)) {
                        Look::Pieces { pieces, next } => {
                            assert_eq!((text(&pieces), next), (text_of(&expected), *to));
                            let events: usize = pieces.iter().map(|piece| piece.events).sum();
                            assert_eq!(events, expected.len());
                        }
                        Look::Nothing => assert!(place(*reader) >= place(*to)),
                        Look::Elsewhere => assert!(place(*reader) < place(*from)),
                        Look::Ask => unreachable!("nothing newer is known"),
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_handed_out_while_something_newer_is_known() {
    let mut ring = Ring::default();
    assert_eq!(ring.look(at(1), Revision(0)), Look::Ask);
    ring.extend(at(0), write("hall", room_changes(1..=3)), at(3), false, at(0))
        .unwrap();
    assert!(matches!(ring.look(at(1), Revision(3)), Look::Pieces { .. }));
    assert_eq!(ring.look(at(1), Revision(4)), Look::Ask);
    assert_eq!(ring.look(at(3), Revision(3)), Look::Nothing);
    assert_eq!(ring.look(at(9), Revision(8)), Look::Nothing, "he asked by himself");
    // In the middle of a batch not all of its revision is there.
    let (half, whole) = (Position { index: 2, ..at(4) }, at(4));
    ring.extend(at(3), write("hall", vec![change(half)]), half, true, at(3))
        .unwrap();
    assert_eq!(ring.look(at(3), Revision(4)), Look::Ask);
    ring.extend(half, write("hall", vec![change(whole)]), whole, false, at(3))
        .unwrap();
    assert!(matches!(ring.look(at(3), Revision(4)), Look::Pieces { .. }));
    // Nor is all there when an answer was cut, whatever this node was told of.
    let more = write("hall", room_changes(5..=6));
    ring.extend(whole, more, at(6), true, whole).unwrap();
    assert_eq!(
        [at(3), at(6)].map(|reader| ring.look(reader, Revision(0))),
        [Look::Ask, Look::Ask]
    );
    ring.extend(at(6), write("hall", Vec::new()), at(7), false, at(6))
        .unwrap();
    assert_eq!(ring.look(at(7), Revision(0)), Look::Nothing);
    // An answer that does not reach the reader who asked.
    assert_eq!(
        ring.extend(at(7), write("hall", room_changes(8..=9)), at(9), true, at(12)),
        None
    );
    assert_eq!((ring.question(at(12)).0, ring.bytes()), (at(12), 0));
}

#[test]
fn a_text_that_has_changed_takes_what_was_written_with_it() {
    let message = || Message {
        room: "hall".to_owned(),
        seq: quorate_state_machine::Seq(1),
        rev: Revision(1),
        sender: "ann".to_owned(),
        sent_at_ms: 0,
        kind: String::new(),
        text: None,
        client_id: None,
        reply_to: None,
        edited_at_ms: None,
        redacted_at_ms: None,
        attributes: None,
    };
    for body in [
        RoomChangeBody::Edited(Box::new(message())),
        RoomChangeBody::Redacted(Box::new(message())),
    ] {
        let mut ring = Ring::default();
        ring.extend(at(0), write("hall", room_changes(1..=3)), at(3), false, at(0))
            .unwrap();
        let changed = RoomChange { position: at(4), body };
        let written = write("hall", vec![changed]);
        assert_eq!(
            ring.extend(at(3), written, at(4), false, at(1)),
            None,
            "he asks the state again"
        );
        assert_eq!(ring.look(at(1), Revision(4)), Look::Elsewhere);
        assert!(matches!(ring.look(at(3), Revision(4)), Look::Pieces { .. }));
    }
}

#[test]
fn what_is_kept_and_what_a_reader_can_hold_of_it_is_bounded() {
    let mut ring = Ring::default();
    let mut most = 0;
    for revision in (0..20_000).step_by(50) {
        let written = write("hall", room_changes(revision + 1..=revision + 50));
        ring.extend(at(revision), written, at(revision + 50), false, at(revision))
            .unwrap();
        most = most.max(ring.bytes());
        let frames: usize = ring.chunks.iter().map(|chunk| chunk.frames.len()).sum();
        assert!(frames <= ring.bytes() && ring.bytes() <= ROOM_BYTES_MAX);
        assert!(ring.chunks.iter().all(|chunk| chunk.bytes <= 4 * CHUNK_BYTES));
    }
    assert!(most > ROOM_BYTES_MAX / 2, "{most}");
    assert_eq!(ring.look(at(0), Revision(0)), Look::Elsewhere);
    let Look::Pieces { pieces, next } = ring.look(at(19_990), Revision(20_000)) else {
        unreachable!("the newest are there");
    };
    assert_eq!(
        (pieces.iter().map(|piece| piece.events).sum::<usize>(), next),
        (10, at(20_000))
    );
    let oldest = ring.span.unwrap().0;
    assert!(matches!(ring.look(oldest, Revision(0)), Look::Pieces { .. }));
    ring.forget();
    assert_eq!(
        (ring.bytes(), ring.look(at(20_000), Revision(20_000))),
        (0, Look::Nothing)
    );
}
