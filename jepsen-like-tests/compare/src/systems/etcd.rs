//! Three nodes of etcd with its default settings: the leader's kv store, over gRPC.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use quorate_bench::quorate::{Texts, scatter};
use quorate_bench::{Call, Done, Fault, Target, Unheld};
use quorate_torture::wait::Patience;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::etcd_wire::{Put, Range, put, range, standing};
use super::{How, Program, System, measure};
use crate::figures::Sample;
use crate::servers::{READY_WITHIN, Servers, free_ports};
use crate::work::{PAGE, SOCKETS, VALUE_BYTES, Work};

/// Values below each prefix before any work: those are read. As many as Quorate's messages of a room.
const VALUES: u64 = super::quorate::MESSAGES;
/// One answer of so many is compared with what was put, as with the others.
const CHECKED: u64 = 16;

pub(crate) struct Etcd {
    servers: Servers,
    leader: Endpoint,
    /// Work that was done: writes of each have keys of their own.
    works: u64,
}

impl Etcd {
    pub(crate) async fn start(program: &Program, rooms: usize) -> Result<Self> {
        let mut servers = program.servers("etcd")?;
        let ports = free_ports(6)?;
        let ids = [0_usize, 1, 2];
        let client = |id: usize| format!("http://127.0.0.1:{}", ports[id]);
        let peer = |id: usize| format!("http://127.0.0.1:{}", ports[id + 3]);
        let cluster = ids.map(|id| format!("etcd-{id}={}", peer(id)));
        for id in ids {
            let name = format!("etcd-{id}");
            let data = servers.path(&name).display().to_string();
            let args = [
                ("name", name.clone()),
                ("data-dir", data),
                ("listen-client-urls", client(id)),
                ("advertise-client-urls", client(id)),
                ("listen-peer-urls", peer(id)),
                ("initial-advertise-peer-urls", peer(id)),
                ("initial-cluster", cluster.join(",")),
                ("initial-cluster-state", "new".to_owned()),
            ];
            let args = args.map(|(flag, value)| format!("--{flag}={value}"));
            servers.start(&name, program.binary(), args.into())?;
        }
        let leader = wait_leader(&servers, &ids.map(client)).await?;
        let this = Self {
            servers,
            leader,
            works: 0,
        };
        this.fill(rooms).await?;
        Ok(this)
    }

    async fn connect(&self, clients: usize) -> Result<Vec<Channel>> {
        // Each handshake is short; all at once they are as many as the clients' later.
        let connections = (0..clients.min(SOCKETS)).map(|_| self.leader.connect());
        try_join_all(connections).await.context("failed to connect to etcd")
    }

    async fn fill(&self, rooms: usize) -> Result<()> {
        let channels = self.connect(SOCKETS).await?;
        let texts = Texts::new(VALUE_BYTES);
        for room in 0..rooms {
            let (channels, texts) = (&channels, &texts);
            let puts = (0..VALUES).map(|place| async move {
                let request = Put {
                    key: read_key(room, place),
                    value: texts.text(place).into(),
                };
                put(&channels[place as usize % channels.len()], &request).await
            });
            try_join_all(puts).await?;
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl System for Etcd {
    async fn work(&mut self, work: Work, how: &How) -> Result<Sample> {
        let channels = self.connect(work.clients()).await?;
        let texts = Texts::new(VALUE_BYTES);
        let rooms = how.rooms as u64;
        self.works += 1;
        match work {
            Work::Write1 | Work::Write64 | Work::Write256 | Work::Write1024 => {
                let puts = Puts {
                    channels,
                    texts,
                    rooms,
                    work: self.works,
                };
                measure(puts, work, how, &self.servers).await
            }
            Work::ReadOne | Work::ReadPage => {
                let gets = Gets {
                    channels,
                    texts,
                    rooms,
                    count: if work == Work::ReadOne { 1 } else { u64::from(PAGE) },
                };
                measure(gets, work, how, &self.servers).await
            }
            Work::Batch8 | Work::Batch16 | Work::BatchWs16 => bail!("etcd has no {}", work.title()),
        }
    }
}

/// Values under keys that nobody had.
struct Puts {
    channels: Vec<Channel>,
    texts: Texts,
    rooms: u64,
    work: u64,
}

impl Puts {
    fn key(&self, number: u64) -> Bytes {
        format!("w{}/{}/{number:016x}", scatter(number) % self.rooms, self.work).into()
    }
}

impl Target for Puts {
    type Receipt = u64;

    fn kinds(&self) -> &'static [&'static str] {
        &["put"]
    }

    async fn perform(&self, call: Call) -> Result<Done<u64>, Fault> {
        let request = Put {
            key: self.key(call.number),
            value: self.texts.text(call.number).into(),
        };
        let channel = &self.channels[call.client % self.channels.len()];
        put(channel, &request).await.map_err(|status| fault(&status))?;
        Ok(Done::one(Some(call.number)))
    }

    async fn read_back(&self, number: &u64) -> Result<(), Unheld> {
        let request = Range {
            key: self.key(*number),
            end: Bytes::new(),
            limit: 1,
        };
        let found = range(&self.channels[0], &request).await;
        let found = found.map_err(|status| Unheld::Unread(status.to_string()))?;
        match &found[..] {
            [value] if holds(&self.texts, value, *number) => Ok(()),
            other => Err(Unheld::Lie(format!(
                "key {number:x} was acknowledged, and there is {other:?}"
            ))),
        }
    }
}

/// Linearizable reads of what was put before: one value, or a range.
struct Gets {
    channels: Vec<Channel>,
    texts: Texts,
    rooms: u64,
    count: u64,
}

impl Target for Gets {
    type Receipt = std::convert::Infallible;

    fn kinds(&self) -> &'static [&'static str] {
        &["get"]
    }

    async fn perform(&self, call: Call) -> Result<Done<Self::Receipt>, Fault> {
        let chance = scatter(call.number);
        let (room, first) = (chance % self.rooms, chance / self.rooms % (VALUES - self.count + 1));
        let room = usize::try_from(room).expect("there are few rooms");
        let request = Range {
            key: read_key(room, first),
            end: match self.count {
                1 => Bytes::new(),
                count => read_key(room, first + count),
            },
            limit: self.count,
        };
        let channel = &self.channels[call.client % self.channels.len()];
        let found = range(channel, &request).await.map_err(|status| fault(&status))?;
        if call.number.is_multiple_of(CHECKED) {
            let right = found.len() as u64 == self.count
                && (first..)
                    .zip(&found)
                    .all(|(place, value)| holds(&self.texts, value, place));
            if !right {
                let words = format!("{} values from {first} in {room}, of {}", found.len(), self.count);
                return Err(Fault::Wrong(words));
            }
        }
        Ok(Done::one(None))
    }

    async fn read_back(&self, receipt: &Self::Receipt) -> Result<(), Unheld> {
        match *receipt {}
    }
}

/// Keys of a room are in order, and one after the last would follow them.
fn read_key(room: usize, place: u64) -> Bytes {
    format!("r{room}/{place:016x}").into()
}

fn holds(texts: &Texts, value: &[u8], number: u64) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| texts.is(text, number))
}

fn fault(status: &Status) -> Fault {
    Fault::code(match status.code() {
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        _ => "refused",
    })
}

/// Waits until all members know the same leader, and says where it is.
async fn wait_leader(servers: &Servers, urls: &[String; 3]) -> Result<Endpoint> {
    let patience = Patience::new("etcd has a leader", READY_WITHIN);
    loop {
        servers.check()?;
        match leader(urls).await {
            Ok(leader) => return Ok(leader),
            Err(error) => patience.again(format!("{error:#}")).await?,
        }
    }
}

async fn leader(urls: &[String; 3]) -> Result<Endpoint> {
    let mut known = Vec::new();
    let mut found = None;
    for url in urls {
        let endpoint = Endpoint::from_shared(url.clone())?.connect_timeout(std::time::Duration::from_secs(1));
        let answer = standing(&endpoint.connect().await?).await?;
        if answer.leader == answer.member {
            found = Some(endpoint);
        }
        known.push(answer.leader);
    }
    known.dedup();
    match (&known[..], found) {
        ([leader], Some(endpoint)) if *leader != 0 => Ok(endpoint),
        _ => bail!("the members know these leaders: {known:?}"),
    }
}
