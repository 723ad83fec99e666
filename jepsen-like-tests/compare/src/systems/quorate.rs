//! Three nodes of `quorate`, asked through the same code as that of `quorate bench`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use quorate_bench::quorate::{
    Batches, Door, Http, PagePlace, Pages, Protocol, Reads, Sends, Sockets, Stage, Wanted, Wiring,
};
use quorate_client::{Client, Level, Options};
use quorate_torture::wait::Patience;

use super::{How, Program, System, measure};
use crate::figures::Sample;
use crate::servers::{READY_WITHIN, Servers, free_ports};
use crate::work::{BATCH, PAGE, SOCKETS, VALUE_BYTES, Work};

/// Users that are made, members of every room: the senders.
pub(crate) const MEMBERS: usize = 8;
/// Messages of each room before any work: those are read.
pub(crate) const MESSAGES: u64 = 100;
/// WebSockets that batches go over.
const BATCH_SOCKETS: usize = 8;
/// For what is made before the work and read back after it.
const STAGE_DEADLINE: Duration = Duration::from_secs(60);
/// A name that tells runs apart begins with this.
const PREFIX: &str = "compare";

pub(crate) struct Quorate {
    servers: Servers,
    leader: String,
    stage: Arc<Stage>,
}

impl Quorate {
    pub(crate) async fn start(program: &Program, rooms: usize) -> Result<Self> {
        let mut servers = program.servers("quorate")?;
        let ports = free_ports(6)?;
        let ids = [1_usize, 2, 3];
        let client_addr = |id: usize| format!("127.0.0.1:{}", ports[id - 1]);
        let peer_addr = |id: usize| format!("127.0.0.1:{}", ports[id + 2]);
        let cluster = ids.map(|id| format!("{id}={}=http://{}", peer_addr(id), client_addr(id)));
        for id in ids {
            let name = format!("node-{id}");
            let args = [
                ("--id", id.to_string()),
                ("--data-dir", servers.path(&name).display().to_string()),
                ("--client-addr", client_addr(id)),
                ("--peer-addr", peer_addr(id)),
                ("--initial-cluster", cluster.join(",")),
            ];
            let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
            let args = ["serve".to_owned()].into_iter().chain(args).collect();
            servers.start(&name, program.binary(), args)?;
        }
        let urls = ids.map(|id| format!("http://{}", client_addr(id)));
        let leader = wait_ready(&servers, &urls).await?;
        let stage = Stage::build(&client(&urls)?, wanted(rooms), |_| ()).await?;
        Ok(Self {
            servers,
            leader,
            stage: Arc::new(stage),
        })
    }

    /// The client URL of the node that led when all were ready.
    pub(crate) fn leader(&self) -> &str {
        &self.leader
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }
}

#[async_trait(?Send)]
impl System for Quorate {
    async fn work(&mut self, work: Work, how: &How) -> Result<Sample> {
        let http = http(&self.leader, work.clients())?;
        let stage = self.stage.clone();
        let sockets = |count| Door::Sockets(Arc::new(Sockets::new(&http, &stage, count)));
        let servers = &self.servers;
        match work {
            Work::Write1024 => {
                let sends = Sends::new(sockets(SOCKETS), stage.clone(), false);
                measure(sends, work, how, servers).await
            }
            Work::Batch8 | Work::Batch16 => {
                let batches = Batches::new(Door::Http(http), stage.clone(), false, BATCH);
                measure(batches, work, how, servers).await
            }
            Work::BatchWs16 => {
                let batches = Batches::new(sockets(BATCH_SOCKETS), stage.clone(), false, BATCH);
                measure(batches, work, how, servers).await
            }
            Work::Write1 | Work::Write64 | Work::Write256 | Work::ReadOne | Work::ReadPage => {
                over_http(work, how, http, stage, servers).await
            }
        }
    }
}

/// Work that is one request of HTTP after the other: the same for Quorate and for the bare handler.
pub(super) async fn over_http(
    work: Work,
    how: &How,
    http: Arc<Http>,
    stage: Arc<Stage>,
    servers: &Servers,
) -> Result<Sample> {
    match work {
        Work::Write1 | Work::Write64 | Work::Write256 => {
            measure(Sends::new(Door::Http(http), stage, false), work, how, servers).await
        }
        Work::ReadOne => measure(Reads::new(http, stage, Level::Linearizable), work, how, servers).await,
        Work::ReadPage => {
            let pages = Pages::new(http, stage, Level::Linearizable, PagePlace::Any, PAGE);
            measure(pages, work, how, servers).await
        }
        Work::Write1024 | Work::Batch8 | Work::Batch16 | Work::BatchWs16 => bail!("{} is no such work", work.title()),
    }
}

/// All requests to this node, each client with a connection.
pub(super) fn http(node: &str, clients: usize) -> Result<Arc<Http>> {
    let wiring = Wiring {
        nodes: vec![node.to_owned()],
        token: None,
        user: None,
        protocol: Protocol::Http1,
        connections: clients,
    };
    Ok(Arc::new(Http::new(&wiring)?))
}

/// For what is made before the work and read back after it.
pub(super) fn client(urls: &[impl AsRef<str>]) -> Result<Client> {
    let options = Options {
        deadline: STAGE_DEADLINE,
        ..Options::default()
    };
    Ok(Client::new(urls, options)?)
}

pub(super) fn wanted(rooms: usize) -> Wanted {
    Wanted {
        prefix: PREFIX.to_owned(),
        rooms,
        members: MEMBERS,
        messages: MESSAGES,
        text_bytes: VALUE_BYTES,
    }
}

/// Waits until every node is ready, and says which leads.
async fn wait_ready(servers: &Servers, urls: &[String]) -> Result<String> {
    let patience = Patience::new("all nodes of Quorate are ready", READY_WITHIN);
    let probe = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1))
        .build()?;
    'again: loop {
        servers.check()?;
        let mut leader = None;
        for url in urls {
            for (path, must) in [("readyz", true), ("leader", false)] {
                let answer = probe.get(format!("{url}/{path}")).send().await;
                let good = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
                match (must, good) {
                    (true, false) => {
                        patience.again(format!("{url}/{path}: {answer:?}")).await?;
                        continue 'again;
                    }
                    (false, true) => leader = Some(url.clone()),
                    _ => {}
                }
            }
        }
        match leader {
            Some(leader) => return Ok(leader),
            None => patience.again("nobody leads").await?,
        }
    }
}

/// The program that was built with this one.
pub(crate) fn beside_this_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program has no path")?;
    Ok(own.with_file_name("quorate"))
}
