//! What every workload has: the nodes that it asks, the rooms that it makes, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use quorate_bench::Report;
use quorate_bench::quorate::{Http, Protocol, Stage, Wanted, Wiring};
use quorate_bench::report::HEADER;
use quorate_client::Client;
use serde::Serialize;
use serde_json::{Value, json};

use super::flags::{Aim, Nodes, Rooms};
use super::progress;
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

/// For what is made before and read after the load.
const STAGE_DEADLINE: Duration = Duration::from_secs(60);
/// Users that are made where nothing is said of them.
const MEMBERS: usize = 8;

pub(super) struct Setting {
    pub(super) client: Client,
    pub(super) http: Arc<Http>,
    prefix: String,
    one_user: bool,
    nodes: Vec<String>,
}

impl Setting {
    /// `at_once`: so many requests may be under way.
    pub(super) async fn new(aim: &Aim, at_once: usize, global: &Global) -> Result<Self, Failure> {
        let stage_time = Global {
            timeout: None,
            ..global.clone()
        };
        let client = stage_time.client(STAGE_DEADLINE)?;
        let given = client.endpoints();
        let cluster = client.cluster().await?;
        let url_of = |leads: bool| {
            let nodes = cluster
                .nodes
                .iter()
                .filter(move |node| (Some(node.id) == cluster.leader) == leads);
            nodes.map(|node| node.client_url.clone()).collect::<Vec<_>>()
        };
        let nodes = match aim.nodes {
            Nodes::All => given,
            Nodes::Leader => url_of(true),
            Nodes::Followers => url_of(false),
        };
        if nodes.is_empty() {
            return Err(Failure::no_leader("no node is what --nodes asks for".into()));
        }
        let protocol = aim.http.into();
        let connections = aim.connections.map(|connections| connections as usize);
        let wiring = Wiring {
            nodes: nodes.clone(),
            token: global.token.clone(),
            user: global.acting.clone(),
            protocol,
            connections: connections.unwrap_or(match protocol {
                Protocol::Http1 => at_once,
                Protocol::Http2 => 1,
            }),
        };
        Ok(Self {
            http: Arc::new(Http::new(&wiring).map_err(Failure::Local)?),
            client,
            prefix: aim.prefix.clone(),
            one_user: global.acts_as_one(),
            nodes,
        })
    }

    /// Makes the rooms, each with so many messages.
    pub(super) async fn stage(&self, rooms: &Rooms, messages: u64) -> Result<Arc<Stage>, Failure> {
        let members = match self.one_user {
            true => 0,
            false => rooms.members.map_or(MEMBERS, |members| members as usize),
        };
        let wanted = Wanted {
            prefix: self.prefix.clone(),
            rooms: rooms.rooms as usize,
            members,
            messages,
            text_bytes: rooms.message_bytes as usize,
        };
        let stage = Stage::build(&self.client, wanted, progress::say).await;
        Ok(Arc::new(stage.map_err(client_failure)?))
    }

    /// For a workload that needs no rooms.
    pub(super) fn nothing(&self) -> Stage {
        Stage::empty(&self.client, &self.prefix)
    }

    /// Deletes what was made, or says what is left.
    pub(super) async fn leave(&self, stage: &Stage, cleanup: bool) -> Result<Option<String>, Failure> {
        if !cleanup {
            return Ok(Some(stage.left()));
        }
        progress::say("deleting rooms and users");
        stage.clean_up().await.map_err(client_failure)?;
        Ok(None)
    }

    /// The flags as they were, with the nodes that were asked.
    pub(super) fn settings(&self, flags: &impl Serialize) -> Value {
        let mut settings = serde_json::to_value(flags).expect("flags have no keys but strings");
        settings["asked"] = json!(self.nodes);
        settings["quorate"] = json!(env!("CARGO_PKG_VERSION"));
        settings
    }
}

/// What the cluster refused keeps its own words and exit code.
pub(super) fn client_failure(error: anyhow::Error) -> Failure {
    match error.downcast_ref::<quorate_client::Error>() {
        Some(client) => Failure::Client(client.clone()),
        None => Failure::Local(error),
    }
}

/// What is printed: the workload, how it was set up, and what it came to.
#[derive(Serialize)]
pub(super) struct Printed<'a, R> {
    pub(super) workload: &'a str,
    pub(super) settings: Value,
    #[serde(flatten)]
    pub(super) report: &'a R,
    /// What the cluster has more than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<String>,
}

impl<R: Serialize> Printed<'_, R> {
    /// A table with remarks below it, or JSON.
    pub(super) fn print(
        &self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        remarks: &[String],
        output: &Output,
    ) -> Result<(), Failure> {
        output.table(self, header, || rows)?;
        if output.format() == crate::cli::output::Format::Table {
            let left = self
                .left
                .iter()
                .map(|left| format!("left: {left} (--cleanup deletes them)"));
            for line in remarks.iter().cloned().chain(left) {
                output.raw(format!("{line}\n").as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Prints what came of a plan, and fails if anything of it cannot be trusted.
pub(super) fn conclude<R: Serialize>(
    printed: &Printed<'_, R>,
    report: &Report,
    units: &str,
    more: Vec<String>,
    output: &Output,
) -> Result<(), Failure> {
    let mut remarks = report.remarks(units);
    remarks.extend(more);
    printed.print(&HEADER, report.rows(), &remarks, output)?;
    if report.read_back.lies > 0 {
        return Err(Failure::No(
            500,
            "not_as_acknowledged",
            format!("{} answers did not hold: see above", report.read_back.lies),
        ));
    }
    if report.times.iter().all(|times| times.percentiles.count == 0) && report.operations == 0 {
        return Err(Failure::unavailable("not one operation succeeded".into()));
    }
    if report.read_back.unread > 0 {
        return Err(Failure::unavailable(format!(
            "{} of what was acknowledged could not be read back",
            report.read_back.unread
        )));
    }
    Ok(())
}
