//! Three nodes of nats-server with its default settings: a stream of JetStream with three replicas, in files.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use quorate_bench::quorate::{Texts, scatter};
use quorate_bench::{Call, Done, Fault, Target, Unheld};
use quorate_torture::wait::Patience;

use super::{How, Program, System, measure};
use crate::figures::Sample;
use crate::servers::{READY_WITHIN, Servers, free_ports};
use crate::work::{SOCKETS, VALUE_BYTES, Work};

const STREAM: &str = "compare";
/// One attempt to make the stream, which fails until the servers have found each other.
const MAKE_WITHIN: Duration = Duration::from_secs(2);

pub(crate) struct Nats {
    servers: Servers,
    /// The address of the server that leads the stream.
    leader: String,
}

impl Nats {
    pub(crate) async fn start(program: &Program) -> Result<Self> {
        let mut servers = program.servers("nats")?;
        let ports = free_ports(6)?;
        let routes: Vec<String> = ports[3..]
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        for (id, (client, route)) in ports[..3].iter().zip(&ports[3..]).enumerate() {
            let name = format!("nats-{id}");
            let file = servers.path(&format!("{name}.conf"));
            std::fs::write(&file, config(&name, *client, *route, &routes, &servers.path(&name))?)?;
            let args = vec!["--config".to_owned(), file.display().to_string()];
            servers.start(&name, program.binary(), args)?;
        }
        let addresses: Vec<String> = ports[..3].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let leader = make_stream(&servers, &addresses).await?;
        Ok(Self {
            leader: addresses[leader].clone(),
            servers,
        })
    }
}

#[async_trait(?Send)]
impl System for Nats {
    async fn work(&mut self, work: Work, how: &How) -> Result<Sample> {
        if !matches!(work, Work::Write1 | Work::Write64 | Work::Write256 | Work::Write1024) {
            bail!("JetStream has no {}", work.title());
        }
        let connections = (0..work.clients().min(SOCKETS)).map(|_| async_nats::connect(&self.leader));
        let clients = try_join_all(connections).await.context("failed to connect to NATS")?;
        let publishes = Publishes {
            streams: clients.into_iter().map(jetstream::new).collect(),
            subjects: (0..how.rooms).map(|room| format!("{STREAM}.r{room}")).collect(),
            texts: Texts::new(VALUE_BYTES),
        };
        measure(publishes, work, how, &self.servers).await
    }
}

/// Messages, each with its acknowledgement.
struct Publishes {
    /// One a connection.
    streams: Vec<Context>,
    subjects: Vec<String>,
    texts: Texts,
}

impl Target for Publishes {
    /// The number of the text, and its place in the stream.
    type Receipt = (u64, u64);

    fn kinds(&self) -> &'static [&'static str] {
        &["publish"]
    }

    async fn perform(&self, call: Call) -> Result<Done<(u64, u64)>, Fault> {
        let stream = &self.streams[call.client % self.streams.len()];
        let subject = &self.subjects[(scatter(call.number) % self.subjects.len() as u64) as usize];
        let payload = Bytes::from(self.texts.text(call.number));
        let sent = stream.publish(subject.clone(), payload).await;
        let acknowledged = sent
            .map_err(|error| fault(&error))?
            .await
            .map_err(|error| fault(&error))?;
        Ok(Done::one(Some((call.number, acknowledged.sequence))))
    }

    async fn read_back(&self, (number, sequence): &(u64, u64)) -> Result<(), Unheld> {
        let unread = |error: &dyn std::fmt::Display| Unheld::Unread(error.to_string());
        let stream = self.streams[0]
            .get_stream(STREAM)
            .await
            .map_err(|error| unread(&error))?;
        let found = stream
            .get_raw_message(*sequence)
            .await
            .map_err(|error| unread(&error))?;
        let text = String::from_utf8_lossy(&found.payload);
        match self.texts.is(&text, *number) {
            true => Ok(()),
            false => Err(Unheld::Lie(format!(
                "message {sequence} was acknowledged as number {number:x}, and reads {:?}",
                text.chars().take(40).collect::<String>()
            ))),
        }
    }
}

fn fault(error: &PublishError) -> Fault {
    Fault::code(match error.kind() {
        PublishErrorKind::TimedOut => "timed_out",
        PublishErrorKind::BrokenPipe => "connection_lost",
        PublishErrorKind::MaxAckPending => "overloaded",
        _ => "refused",
    })
}

/// What is not said here is as nats-server has it.
fn config(name: &str, client: u16, route: u16, routes: &[String], store: &Path) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "server_name: {name}")?;
    writeln!(text, "listen: \"127.0.0.1:{client}\"")?;
    writeln!(text, "jetstream {{ store_dir: {:?} }}", store.display().to_string())?;
    writeln!(text, "cluster {{")?;
    writeln!(text, "  name: {STREAM}")?;
    writeln!(text, "  listen: \"127.0.0.1:{route}\"")?;
    writeln!(text, "  routes: {routes:?}")?;
    writeln!(text, "}}")?;
    Ok(text)
}

/// Makes the stream as soon as that is possible, and says which server leads it.
async fn make_stream(servers: &Servers, addresses: &[String]) -> Result<usize> {
    let patience = Patience::new("JetStream has a stream with three replicas", READY_WITHIN);
    loop {
        servers.check()?;
        match tokio::time::timeout(MAKE_WITHIN, try_to_make_stream(addresses)).await {
            Ok(Ok(leader)) => return Ok(leader),
            Ok(Err(error)) => patience.again(format!("{error:#}")).await?,
            Err(_) => patience.again("no answer in time").await?,
        }
    }
}

async fn try_to_make_stream(addresses: &[String]) -> Result<usize> {
    let client = async_nats::connect(&addresses[0]).await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{STREAM}.>")],
        storage: StorageType::File,
        num_replicas: addresses.len(),
        ..Config::default()
    };
    let stream = jetstream::new(client).get_or_create_stream(config).await?;
    let info = stream.get_info().await?;
    let cluster = info.cluster.context("the stream is in no cluster")?;
    if cluster.replicas.len() + 1 != addresses.len() || cluster.replicas.iter().any(|replica| !replica.current) {
        bail!("not all replicas are there yet");
    }
    let leader = cluster.leader.context("the stream has no leader")?;
    let id = leader.strip_prefix("nats-").and_then(|id| id.parse().ok());
    id.filter(|id| *id < addresses.len())
        .with_context(|| format!("the stream's leader has a foreign name: {leader}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_what_differs_and_nothing_else() {
        let routes = ["nats://127.0.0.1:3".to_owned(), "nats://127.0.0.1:4".to_owned()];
        let text = config("nats-0", 1, 3, &routes, Path::new("/var/tmp/a b")).expect("memory takes it");
        let expected = "server_name: nats-0\nlisten: \"127.0.0.1:1\"\njetstream { store_dir: \"/var/tmp/a b\" }\ncluster {\n  \
                        name: compare\n  listen: \"127.0.0.1:3\"\n  routes: [\"nats://127.0.0.1:3\", \"nats://127.0.0.1:4\"]\n}\n";
        assert_eq!(text, expected);
    }
}
