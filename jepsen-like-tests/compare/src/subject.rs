//! Who is compared: what each does, and what it has promised when it answers.

use clap::ValueEnum;
use serde::Serialize;

use crate::work::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// Three nodes of `quorate`
    Quorate,
    /// One process: an axum handler that syncs batches to one file, and returns bytes it holds
    Bare,
    /// Three nodes of etcd
    Etcd,
    /// Three nodes of nats-server, a stream with three replicas in files
    Nats,
}

impl Subject {
    pub(crate) const ALL: [Subject; 4] = [Subject::Quorate, Subject::Bare, Subject::Etcd, Subject::Nats];

    /// For a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Subject::Quorate => "Quorate",
            Subject::Bare => "bare handler",
            Subject::Etcd => "etcd",
            Subject::Nats => "JetStream",
        }
    }

    pub(crate) fn does(self, work: Work) -> bool {
        match self {
            Subject::Quorate => true,
            Subject::Bare => !work.is_batch() && work != Work::Write1024,
            Subject::Etcd => !work.is_batch(),
            Subject::Nats => matches!(work, Work::Write1 | Work::Write64 | Work::Write256 | Work::Write1024),
        }
    }

    /// What is so when a write is answered.
    pub(crate) fn promise(self) -> &'static str {
        match self {
            Subject::Quorate => "synced (fdatasync) by 2 of 3 nodes; ordered in its room; reads are linearizable",
            Subject::Bare => "synced (fdatasync) to one file of one process: no copy, no order, no rules",
            Subject::Etcd => "synced (fdatasync) by 2 of 3 nodes; reads are linearizable",
            Subject::Nats => {
                "in the page cache of 2 of 3 nodes: synced every 2 minutes (sync_interval), not before the answer"
            }
        }
    }

    /// How it was set up, and how it was asked.
    pub(crate) fn settings(self) -> &'static str {
        match self {
            Subject::Quorate => {
                "default settings; rooms with 8 members, who are the senders; all requests at the leader. Over HTTP/1.1 each \
                 client has a connection; 1,024 in flight are 16 on each of 64 WebSockets. Reads are of rooms whose first 100 \
                 messages were sent before"
            }
            Subject::Bare => {
                "axum on Tokio's multi-thread runtime with default threads, and the allocator of `quorate`; parses the same JSON, \
                 answers as many bytes with the same headers; reads return the bytes of Quorate's answers from memory"
            }
            Subject::Etcd => {
                "default settings; put of distinct keys, linearizable range of 1 and of 50 keys; all requests at the leader, by gRPC \
                 (tonic), each client with a connection, and at most 64 connections"
            }
            Subject::Nats => {
                "default settings; one stream, 3 replicas, file storage; publish, and wait for its acknowledgement; all connections to \
                 the server that leads the stream, each client with one, and at most 64 (async-nats)"
            }
        }
    }
}
