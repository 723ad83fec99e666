//! What writers were told, and what the room holds in the end: what a stream may show.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context, Result};

use super::{EDIT, Page, SEND};
use crate::checker::operation::Outcome;
use crate::checker::pairs::Pair;

#[derive(Debug, Default)]
pub(super) struct Told {
    /// Every text that a message may have shown, by seq.
    texts: HashMap<u64, HashSet<String>>,
    /// Messages that were redacted, or may have been.
    redacted: BTreeSet<u64>,
    /// Messages that were edited, or may have been.
    edited: BTreeSet<u64>,
    /// The event and rev of each acknowledged send, by seq.
    sends: BTreeMap<u64, (u64, u64)>,
    /// The revs of sends, in their order, with their seqs.
    send_revs: BTreeMap<u64, u64>,
    /// The seq and event of each acknowledged edit, by rev.
    edits: BTreeMap<u64, (u64, u64)>,
    last_seq: u64,
}

impl Told {
    pub(super) fn add(&mut self, pair: &Pair<'_>) -> Result<()> {
        let seq_of = |event: Option<&crate::history::Event>| event.and_then(|event| event.seq).context("no seq");
        let (outcome, is_done) = (pair.outcome(), pair.outcome() == Outcome::Done);
        if outcome == Outcome::Refused {
            return Ok(());
        }
        match pair.f() {
            // Where one of unknown outcome went, the room shows in the end.
            SEND if !is_done => {}
            SEND => {
                let (seq, rev) = (seq_of(pair.end)?, pair.rev()?);
                self.texts.entry(seq).or_default().insert(pair.asked()?);
                self.sends.insert(seq, (pair.index(), rev));
                self.send_revs.insert(rev, seq);
            }
            EDIT => {
                let seq = seq_of(Some(pair.begun))?;
                self.texts.entry(seq).or_default().insert(pair.asked()?);
                self.edited.insert(seq);
                if is_done {
                    self.edits.insert(pair.rev()?, (seq, pair.index()));
                }
            }
            _ => {
                self.redacted.insert(seq_of(Some(pair.begun))?);
            }
        }
        Ok(())
    }

    /// Adds what the room holds in the end.
    pub(super) fn complete(&mut self, page: &Page) {
        for (seq, text) in page {
            self.texts.entry(*seq).or_default().extend(text.clone());
        }
        self.last_seq = page.last().map_or(0, |(seq, _)| *seq);
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Seq and event of every acknowledged send.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = (u64, u64)> {
        self.sends.iter().map(|(seq, (index, _))| (*seq, *index))
    }

    /// Whether the message may have shown this text, or none, at some time.
    pub(super) fn may_show(&self, seq: u64, text: Option<&str>) -> bool {
        match text {
            Some(text) => self.texts.get(&seq).is_some_and(|texts| texts.contains(text)),
            None => self.redacted.contains(&seq),
        }
    }

    pub(super) fn may_be_edited(&self, seq: u64) -> bool {
        self.edited.contains(&seq)
    }

    pub(super) fn may_be_redacted(&self, seq: u64) -> bool {
        self.redacted.contains(&seq)
    }

    /// The rev at which the message was sent, where somebody was told.
    pub(super) fn sent_at(&self, seq: u64) -> Option<u64> {
        self.sends.get(&seq).map(|(_, rev)| *rev)
    }

    /// The last message that was certainly sent up to this rev.
    pub(super) fn last_sent_by(&self, rev: u64) -> Option<u64> {
        // Seqs and revs grow together.
        self.send_revs.range(..=rev).next_back().map(|(_, seq)| *seq)
    }

    /// Rev and event of each acknowledged edit behind `from`, up to `to`.
    pub(super) fn edits_between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let edits = (from < to).then(|| self.edits.range(from + 1..=to));
        edits.into_iter().flatten().map(|(rev, (_, index))| (*rev, *index))
    }
}
