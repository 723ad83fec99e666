//! The bare handler: this program, started as a process of its own.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use quorate_bench::quorate::Stage;
use quorate_torture::wait::Patience;
use tokio::net::TcpStream;

use super::quorate::{client, http, over_http, wanted};
use super::{How, Program, System};
use crate::bare::Answers;
use crate::figures::Sample;
use crate::servers::{READY_WITHIN, Servers, free_ports};
use crate::work::Work;

pub(crate) struct Bare {
    servers: Servers,
    url: String,
    stage: Arc<Stage>,
}

impl Bare {
    /// With the answers that Quorate gave to the same requests.
    pub(crate) async fn start(program: &Program, answers: &Answers) -> Result<Self> {
        let mut servers = program.servers("bare")?;
        let file = servers.path("answers.json");
        answers.save(&file)?;
        let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
        let args = [
            "bare".to_owned(),
            format!("--listen={address}"),
            format!("--journal={}", servers.path("journal").display()),
            format!("--answers={}", file.display()),
        ];
        servers.start("bare", program.binary(), args.into())?;
        let patience = Patience::new("the bare handler listens", READY_WITHIN);
        while let Err(error) = TcpStream::connect(&address).await {
            servers.check()?;
            patience.again(error).await?;
        }
        let url = format!("http://{address}");
        let stage = Stage::made_before(&client(&[&url])?, answers.tag(), wanted(answers.rooms()));
        Ok(Self {
            servers,
            url,
            stage: Arc::new(stage),
        })
    }
}

#[async_trait(?Send)]
impl System for Bare {
    async fn work(&mut self, work: Work, how: &How) -> Result<Sample> {
        let http = http(&self.url, work.clients())?;
        over_http(work, how, http, self.stage.clone(), &self.servers).await
    }
}
