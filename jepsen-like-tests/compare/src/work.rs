//! The work that systems are given.

use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// Bytes of each message or value.
pub(crate) const VALUE_BYTES: usize = 256;
/// Messages of a batch.
pub(crate) const BATCH: u64 = 100;
/// Messages or values of a page.
pub(crate) const PAGE: u32 = 50;
/// WebSockets that 1,024 sends in flight are spread over; where other systems have connections that carry many
/// requests, there are at most as many.
pub(crate) const SOCKETS: usize = 64;

/// In the order in which it is done: batches last, because they leave most to be tidied up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Work {
    /// One client writes, one message or value at a time
    #[value(name = "write-1")]
    Write1,
    /// 64 clients do
    #[value(name = "write-64")]
    Write64,
    /// 256 clients do
    #[value(name = "write-256")]
    Write256,
    /// 1,024 writes are in flight, over at most 64 connections
    #[value(name = "write-1024")]
    Write1024,
    /// 64 clients read one message or value, linearizably
    #[value(name = "read-one")]
    ReadOne,
    /// 64 clients read a page of 50, linearizably
    #[value(name = "read-page")]
    ReadPage,
    /// 8 clients write batches of 100 messages
    #[value(name = "batch-8")]
    Batch8,
    /// 16 clients do
    #[value(name = "batch-16")]
    Batch16,
    /// 16 batches of 100 messages are in flight over 8 WebSockets
    #[value(name = "batch-ws-16")]
    BatchWs16,
}

impl Work {
    pub(crate) const ALL: [Work; 9] = [
        Work::Write1,
        Work::Write64,
        Work::Write256,
        Work::Write1024,
        Work::ReadOne,
        Work::ReadPage,
        Work::Batch8,
        Work::Batch16,
        Work::BatchWs16,
    ];

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no work is hidden");
        value.get_name().to_owned()
    }

    /// For a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Work::Write1 => "writes, 1 client",
            Work::Write64 => "writes, 64 clients",
            Work::Write256 => "writes, 256 clients",
            Work::Write1024 => "writes, 1,024 in flight",
            Work::ReadOne => "reads of one, 64 clients",
            Work::ReadPage => "reads of 50, 64 clients",
            Work::Batch8 => "batches of 100, 8 clients",
            Work::Batch16 => "batches of 100, 16 clients",
            Work::BatchWs16 => "batches of 100, 16 in flight on WebSockets",
        }
    }

    /// Operations under way.
    pub(crate) fn clients(self) -> usize {
        match self {
            Work::Write1 => 1,
            Work::Write64 | Work::ReadOne | Work::ReadPage => 64,
            Work::Write256 => 256,
            Work::Write1024 => 1024,
            Work::Batch8 => 8,
            Work::Batch16 | Work::BatchWs16 => 16,
        }
    }

    pub(crate) fn is_batch(self) -> bool {
        matches!(self, Work::Batch8 | Work::Batch16 | Work::BatchWs16)
    }
}

impl Serialize for Work {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}
