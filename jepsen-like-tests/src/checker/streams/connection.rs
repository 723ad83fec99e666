//! The rules over one connection.

use std::collections::BTreeSet;

use super::told::Told;
use super::{Begin, Frame};
use crate::checker::Judgement;

/// How far a connection has come.
struct Progress {
    /// The last message.
    seq: u64,
    /// The rev behind which everything has its place; none while it is not known.
    rev: Option<u64>,
    /// From where on no edit may be missing: where an id stood, or the first bookmark after a replay.
    whole_from: Option<u64>,
    edits: BTreeSet<u64>,
    bookmark: Option<u64>,
}

pub(super) fn check_connection(
    room: &str,
    index: u64,
    begin: &Begin,
    frames: &[Frame],
    told: &Told,
    judgement: &mut Judgement,
) {
    let start = match begin {
        Begin::Seq { .. } => None,
        Begin::Id { after, rev } => rev.or_else(|| told.sent_at(*after)),
    };
    let mut progress = Progress {
        seq: begin.after(),
        rev: start,
        whole_from: start,
        edits: BTreeSet::new(),
        bookmark: None,
    };
    for frame in frames {
        let place = match frame {
            Frame::Message { seq, .. } => told.sent_at(*seq),
            Frame::Edit { rev, .. } | Frame::Redact { rev, .. } => Some(*rev),
            Frame::Bookmark { .. } | Frame::Other { .. } => None,
        };
        if let Some(rev) = place {
            if progress.bookmark.is_some_and(|bookmark| rev <= bookmark) {
                judgement.violation(format_args!(
                    "behind a bookmark: the connection of event {index} to {room} delivered rev {rev} after a bookmark \
                     said that it had all of it up to rev {}",
                    progress.bookmark.unwrap_or_default()
                ));
            } else if progress.rev.is_some_and(|before| rev <= before) {
                judgement.violation(format_args!(
                    "out of order: the connection of event {index} to {room} delivered rev {rev} after rev {}",
                    progress.rev.unwrap_or_default()
                ));
            }
            progress.rev = progress.rev.max(Some(rev));
        }
        match frame {
            Frame::Message { seq, text } => message(room, index, *seq, text.as_deref(), &mut progress, told, judgement),
            Frame::Edit { seq, rev, text } => {
                progress.edits.insert(*rev);
                let is_asked = told.may_be_edited(*seq) && told.may_show(*seq, text.as_deref());
                if !is_asked {
                    judgement.violation(format_args!(
                        "phantom: the connection of event {index} to {room} delivered an edit of seq {seq} to {text:?} \
                         that nobody asked for"
                    ));
                }
            }
            Frame::Redact { seq, .. } if !told.may_be_redacted(*seq) => judgement.violation(format_args!(
                "phantom: the connection of event {index} to {room} delivered a redaction of seq {seq} that nobody asked for"
            )),
            Frame::Bookmark { rev } => {
                bookmark(room, index, *rev, &mut progress, told, judgement);
            }
            Frame::Redact { .. } | Frame::Other { .. } => {}
        }
    }
    // Everything has its place in the order of revs: what lies before the last one has been passed.
    if let (Some(from), Some(to)) = (progress.whole_from, progress.rev.max(progress.bookmark)) {
        for (rev, asked) in told.edits_between(from, to) {
            if !progress.edits.contains(&rev) {
                judgement.violation(format_args!(
                    "edit left out: the connection of event {index} to {room} passed rev {rev} without the edit of \
                     event {asked}"
                ));
            }
        }
    }
}

fn message(
    room: &str,
    index: u64,
    seq: u64,
    text: Option<&str>,
    progress: &mut Progress,
    told: &Told,
    judgement: &mut Judgement,
) {
    let after = progress.seq;
    if seq <= after {
        judgement.violation(format_args!(
            "duplicate: the connection of event {index} to {room} delivered seq {seq} after seq {after}"
        ));
    } else if seq > after + 1 {
        judgement.violation(format_args!(
            "gap: the connection of event {index} to {room} delivered seq {seq} after seq {after}"
        ));
    }
    progress.seq = after.max(seq);
    if seq > told.last_seq() {
        judgement.violation(format_args!(
            "vanished: the connection of event {index} to {room} delivered seq {seq}, and the room ends at {}",
            told.last_seq()
        ));
    } else if !told.may_show(seq, text) {
        judgement.violation(format_args!(
            "wrong text: the connection of event {index} to {room} delivered seq {seq} as {text:?}"
        ));
    }
}

fn bookmark(room: &str, index: u64, rev: u64, progress: &mut Progress, told: &Told, judgement: &mut Judgement) {
    if let Some(sent) = told.last_sent_by(rev)
        && sent > progress.seq
    {
        judgement.violation(format_args!(
            "bookmark too far: the connection of event {index} to {room} has a bookmark of rev {rev}, by which seq {sent} \
             was sent, and had delivered up to seq {}",
            progress.seq
        ));
    }
    progress.bookmark = progress.bookmark.max(Some(rev));
    progress.whole_from.get_or_insert(rev);
}
