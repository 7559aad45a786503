//! A real collector in this process on free ports, and a peer that speaks its wire.

// Each test binary uses its own part of this.
#![allow(dead_code, reason = "shared by several test binaries")]

use std::{path::Path, time::Duration};

use holdfast_collector::{
    config::Config,
    daemon::{Addresses, Daemon},
};
use holdfast_proto::v1::{
    self, agent_message::Body, agent_session_client::AgentSessionClient,
    operator_client::OperatorClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Collector {
    pub(crate) addresses: Addresses,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::with(config(folder)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let daemon = Daemon::start(config).await.unwrap();
        let addresses = daemon.addresses();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            daemon.run(async { drop(stopped.await) }).await.unwrap();
        });
        Self { addresses, stop, running }
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        timeout(Duration::from_secs(2), self.running).await.expect("stops in 2 s").unwrap();
    }

    pub(crate) async fn operator(&self) -> OperatorClient<Channel> {
        OperatorClient::new(self.channel().await)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addresses.grpc)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Status line and body of a page.
    pub(crate) async fn page(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.addresses.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: collector\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Value of a row of /metrics.
    pub(crate) async fn metric(&self, row: &str) -> f64 {
        let (_, page) = self.page("/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {row} in {page}")).parse().unwrap()
    }

    pub(crate) async fn rejects(&self, reason: &str) -> f64 {
        self.metric(&format!("holdfast_collector_rejects_total{{reason=\"{reason}\"}}")).await
    }

    /// Waits until a row of /metrics fits.
    pub(crate) async fn wait_metric(&self, row: &str, fits: impl Fn(f64) -> bool) {
        let waiting = async {
            while !fits(self.metric(row).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{row} never fitted"));
    }
}

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        grpc: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        state_dir: folder.to_owned(),
        ..Config::default()
    }
}

/// The agent's end of a stream.
pub(crate) struct Peer {
    out: mpsc::Sender<v1::AgentMessage>,
    answers: Streaming<v1::CollectorMessage>,
}

impl Peer {
    /// Opens a stream and says nothing.
    pub(crate) async fn silent(collector: &Collector) -> Self {
        Self::on(AgentSessionClient::new(collector.channel().await)).await.unwrap()
    }

    pub(crate) async fn on(mut client: AgentSessionClient<Channel>) -> Result<Self, Status> {
        let (out, messages) = mpsc::channel(64);
        let answers = client.stream(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { out, answers })
    }

    /// Says Hello and is welcome.
    pub(crate) async fn greeted(collector: &Collector, hello: v1::Hello) -> Self {
        let mut peer = Self::silent(collector).await;
        peer.send(Body::Hello(hello)).await;
        let welcome = peer.next().await.unwrap();
        assert!(matches!(welcome, v1::collector_message::Body::Welcome(_)), "{welcome:?}");
        peer
    }

    pub(crate) async fn send(&self, body: Body) {
        self.send_raw(v1::AgentMessage { body: Some(body) }).await;
    }

    pub(crate) async fn send_raw(&self, message: v1::AgentMessage) {
        // A stream that was ended does not take more; its status tells.
        let _ended = timeout(PATIENCE, self.out.send(message)).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<v1::collector_message::Body, Status> {
        let message = timeout(PATIENCE, self.answers.message()).await.expect("an answer")?;
        message
            .and_then(|m| m.body)
            .ok_or_else(|| Status::cancelled("the stream ended without status"))
    }

    /// Waits for an acknowledgement that fits.
    pub(crate) async fn acked(
        &mut self,
        fits: impl Fn(&v1::Ack) -> bool,
    ) -> Result<v1::Ack, Status> {
        loop {
            if let v1::collector_message::Body::Ack(ack) = self.next().await?
                && fits(&ack)
            {
                return Ok(ack);
            }
        }
    }

    /// The status that ends the stream.
    pub(crate) async fn ended(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

pub(crate) fn hello(host: &str, incarnation: u64) -> v1::Hello {
    let signal = |name: &str, kind: v1::SignalKind, owner: v1::Owner| v1::SignalInfo {
        name: name.to_owned(),
        kind: kind.into(),
        owner: owner.into(),
        measure: "ns".to_owned(),
        help: "Help".to_owned(),
        probe: "sched".to_owned(),
    };
    v1::Hello {
        protocol_min: 1,
        protocol_max: 1,
        host: host.to_owned(),
        boot_id: "0b1f0e6e-7a39-4a3e-9f0a-0123456789ab".to_owned(),
        incarnation,
        agent_version: "0.1.0".to_owned(),
        kernel_release: "6.18.0".to_owned(),
        os_name: "Linux".to_owned(),
        cpus: 2,
        memory_bytes: 1 << 30,
        catalogue: vec![
            signal("cpu.load1", v1::SignalKind::Gauge, v1::Owner::Host),
            signal("cpu.run_queue.latency", v1::SignalKind::Histogram, v1::Owner::Unit),
            signal("cpu.on_cpu.time", v1::SignalKind::Counter, v1::Owner::Unit),
        ],
        summary_window_ms: 10_000,
    }
}

pub(crate) fn heartbeat(sequence: u64) -> Body {
    let vitals = Some(v1::AgentVitals::default());
    Body::Heartbeat(v1::Heartbeat { sequence, uptime_seconds: 5.0, vitals })
}

pub(crate) fn event(sequence: u64) -> v1::Event {
    v1::Event {
        sequence,
        unix_ms: 1_700_000_000_000,
        kind: "process.exit".to_owned(),
        severity: v1::Severity::Warning.into(),
        unit: "a.service".to_owned(),
        message: "it ended with code 7".to_owned(),
        field: vec![v1::Field { name: "code".to_owned(), value: "7".to_owned() }],
    }
}

/// A batch with one series of each kind.
pub(crate) fn batch(sequence: u64, define: bool) -> v1::SummaryBatch {
    let series = |series, signal, instance: &str| v1::SeriesDef {
        series,
        signal,
        instance: instance.to_owned(),
    };
    let summary = |series, histogram| v1::Summary {
        series,
        count: 10,
        min: 1.0,
        mean: 2.0,
        max: 3.0,
        last: 2.5,
        histogram,
    };
    let histogram = v1::Histogram { bucket: vec![3, 9], count: vec![7, 1], sum: 12_345 };
    let define = if define {
        vec![series(0, 0, ""), series(1, 1, "a.service"), series(2, 2, "a.service")]
    } else {
        Vec::new()
    };
    v1::SummaryBatch {
        sequence,
        end_unix_ms: 1_700_000_000_000 + sequence * 10_000,
        window_ms: 10_000,
        define,
        summary: vec![summary(0, None), summary(1, Some(histogram)), summary(2, None)],
    }
}

/// What is expected of a refused stream.
pub(crate) fn check(status: &Status, code: Code, text: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{:?} does not say {text:?}", status.message());
}
