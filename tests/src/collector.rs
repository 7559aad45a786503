//! A collector under test, and questions to it.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_proto::v1::operator_client::OperatorClient;
use holdfast_proto::v1::{
    FleetEvent, GetSeriesRequest, HostInfo, HostState, ListEventsRequest, ListHostsRequest,
    SeriesPoints,
};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::process::{self, Answer, Process};
use crate::{programs, wait};

/// A running collector with temporary state.
pub struct Collector {
    process: Process,
    /// Where its gRPC side listens.
    pub grpc: String,
    /// Where its HTTP side listens.
    pub http: String,
    folder: TempDir,
}

impl Collector {
    /// Starts one on free ports.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start() -> Result<Self> {
        let folder = TempDir::with_prefix("holdfast-collector-")?;
        fs::create_dir(folder.path().join("state"))?;
        fs::write(folder.path().join("collector.toml"), "")?;
        let process = spawn(&folder, "127.0.0.1:0", "127.0.0.1:0")?;
        let mut collector = Self { process, grpc: String::new(), http: String::new(), folder };
        collector.listen().await?;
        Ok(collector)
    }

    /// Ends it in an orderly way, in under two seconds.
    ///
    /// # Errors
    ///
    /// When it does not end so.
    pub async fn stop(&mut self) -> Result<()> {
        let status = tokio::time::timeout(Duration::from_secs(2), self.process.stop())
            .await
            .context("the collector takes more than two seconds to stop")??;
        ensure!(status.success(), "{status}; it said:\n{}", self.process.log());
        Ok(())
    }

    /// Starts it again after [`Self::stop`], with the same state and addresses.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        fs::remove_file(self.folder.path().join("state/addresses.json")).ok();
        self.process = spawn(&self.folder, &self.grpc, &self.http)?;
        self.listen().await
    }

    async fn listen(&mut self) -> Result<()> {
        let addresses = self.process.addresses(&self.folder.path().join("state")).await?;
        let field = |name: &str| {
            let text = addresses.get(name).and_then(Value::as_str).map(str::to_owned);
            text.with_context(|| format!("addresses.json has no {name}"))
        };
        (self.grpc, self.http) = (field("grpc")?, field("http")?);
        Ok(())
    }

    /// Its gRPC address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A client for its operators' side.
    ///
    /// # Errors
    ///
    /// When it cannot be reached.
    pub async fn client(&self) -> Result<OperatorClient<Channel>> {
        let channel = Channel::from_shared(self.url())?.connect().await;
        Ok(OperatorClient::new(channel.context("the collector cannot be reached")?))
    }

    /// All hosts.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn hosts(&self) -> Result<Vec<HostInfo>> {
        Ok(self.client().await?.list_hosts(ListHostsRequest {}).await?.into_inner().host)
    }

    /// Waits until `host` is up.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub async fn host_up(&self, host: &str) -> Result<HostInfo> {
        wait::until(&format!("{host} is up"), async || {
            let up = |info: &HostInfo| info.host == host && info.state() == HostState::Up;
            Ok(self.hosts().await?.into_iter().find(up))
        })
        .await
    }

    /// All points of a signal of a host; of one instance, or of all for "".
    ///
    /// # Errors
    ///
    /// When it does not answer, or does not know the host or the signal.
    pub async fn series(&self, host: &str, signal: &str, of: &str) -> Result<Vec<SeriesPoints>> {
        let request = GetSeriesRequest {
            host: host.into(),
            signal: signal.into(),
            instance: of.into(),
            last_ms: 0,
        };
        Ok(self.client().await?.get_series(request).await?.into_inner().series)
    }

    /// All events of a unit, oldest first; of all units for "".
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn events(&self, unit: &str) -> Result<Vec<FleetEvent>> {
        let request = ListEventsRequest { unit: unit.into(), limit: 1000, ..Default::default() };
        Ok(self.client().await?.list_events(request).await?.into_inner().event)
    }

    /// What `holdfast ARGUMENTS` answers when it asks this collector.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn holdfast(&self, arguments: &[&str]) -> Result<Answer> {
        let url = self.url();
        process::answer("holdfast", &[&["--collector", &url], arguments].concat())
    }
}

fn spawn(folder: &TempDir, grpc: &str, http: &str) -> Result<Process> {
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let options: [(&str, OsString); 4] = [
        ("--config", path("collector.toml").into()),
        ("--state-dir", path("state").into()),
        ("--grpc", grpc.into()),
        ("--http", http.into()),
    ];
    let mut command = process::leashed(&programs::path("holdfast-collector")?);
    command.arg("run");
    for (name, value) in options {
        command.arg(name).arg(value);
    }
    Process::start(&mut command, path("log"))
}
