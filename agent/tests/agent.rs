//! A whole agent in this process, without eBPF, against a collector made of this
//! test: what it says first, what it says again, and what it tells people.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::Path;
use std::time::Duration;

use holdfast_agent::config::{Config, Ebpf};
use holdfast_agent::daemon;
use holdfast_agent::host::Root;
use holdfast_proto::v1::agent_message::Body;
use holdfast_proto::v1::agent_session_server::{AgentSession, AgentSessionServer};
use holdfast_proto::v1::local_client::LocalClient;
use holdfast_proto::v1::{self, collector_message};
use holdfast_proto::{limits, negotiate};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hands every stream an agent opens to the test, or refuses it.
struct Collector {
    streams: mpsc::Sender<Stream>,
    refusal: Option<Status>,
}

struct Stream {
    messages: Streaming<v1::AgentMessage>,
    answers: mpsc::Sender<Result<v1::CollectorMessage, Status>>,
}

#[tonic::async_trait]
impl AgentSession for Collector {
    type StreamStream = ReceiverStream<Result<v1::CollectorMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let (answers, out) = mpsc::channel(8);
        let stream = Stream { messages: request.into_inner(), answers };
        self.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(out)))
    }
}

impl Stream {
    async fn next(&mut self) -> Body {
        let message = tokio::time::timeout(PATIENCE, self.messages.message());
        let message = message.await.expect("in time").expect("a sound stream");
        message.expect("not the end").body.expect("a body")
    }

    async fn say(&self, body: collector_message::Body) {
        let message = v1::CollectorMessage { body: Some(body) };
        self.answers.send(Ok(message)).await.expect("the agent listens");
    }

    async fn welcome(&mut self) -> v1::Hello {
        let Body::Hello(hello) = self.next().await else { panic!("Hello comes first") };
        let protocol = negotiate(hello.protocol_min, hello.protocol_max).expect("a common version");
        let welcome = v1::Welcome { protocol, collector_version: "test".to_owned() };
        self.say(collector_message::Body::Welcome(welcome)).await;
        hello
    }

    /// Listens until each part of what an agent says was heard once.
    async fn hear(&mut self) -> Heard {
        let mut heard = Heard::default();
        loop {
            match self.next().await {
                Body::Heartbeat(heartbeat) => heard.heartbeat = Some(heartbeat),
                Body::Event(event) => heard.events.push(event),
                Body::Probes(probes) => heard.probes = probes.probe,
                Body::Summaries(batch) => heard.batches.push(batch),
                Body::Hello(_) => panic!("Hello comes once"),
                Body::Goodbye(_) => panic!("the agent is not to stop"),
            }
            let whole = heard.heartbeat.is_some() && !heard.probes.is_empty();
            if whole && !heard.events.is_empty() && heard.batches.len() > 1 {
                return heard;
            }
        }
    }
}

#[derive(Default)]
struct Heard {
    heartbeat: Option<v1::Heartbeat>,
    events: Vec<v1::Event>,
    probes: Vec<v1::ProbeReport>,
    batches: Vec<v1::SummaryBatch>,
}

async fn collector(refusal: Option<Status>) -> (String, mpsc::Receiver<Stream>) {
    let (streams, opened) = mpsc::channel(4);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let service = AgentSessionServer::new(Collector { streams, refusal });
    let serve = Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serve);
    (url, opened)
}

/// Runs an agent in `dir` for as long as `story` takes, and checks that it stops in order.
async fn with_agent(dir: &Path, collector: String, story: impl Future<Output = ()>) {
    let config = Config {
        host_name: "test-host".to_owned(),
        collector,
        socket: dir.join("agent.sock"),
        metrics: ([127, 0, 0, 1], 0).into(),
        state_dir: dir.join("state"),
        summary_interval: Duration::from_secs(1),
        ebpf: Ebpf { enabled: false, ..Ebpf::default() },
        ..Config::default()
    };
    config.check().expect("a sound configuration");
    let shutdown = CancellationToken::new();
    let agent = daemon::run(config, Root::default(), mpsc::channel(1).1, shutdown.clone());
    tokio::pin!(agent);
    tokio::select! {
        end = &mut agent => panic!("the agent ended: {end:?}"),
        () = story => {}
    }
    shutdown.cancel();
    let end = tokio::time::timeout(Duration::from_secs(2), agent).await;
    end.expect("stops within 2 s").expect("stops in order");
    assert!(!dir.join("agent.sock").exists(), "the socket is removed");
}

/// Waits until the agent has told where it listens.
async fn started(dir: &Path) {
    while !dir.join("state/addresses.json").exists() {
        tokio::task::yield_now().await;
    }
}

async fn local(dir: &Path) -> LocalClient<Channel> {
    started(dir).await;
    let path = dir.join("agent.sock");
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://agent");
    let channel = endpoint.connect_with_connector(connect).await.expect("the socket answers");
    LocalClient::new(channel)
}

#[tokio::test]
async fn what_is_not_acknowledged_is_said_again_on_the_next_stream() {
    let dir = tempfile::tempdir().expect("a folder");
    let (url, mut opened) = collector(None).await;
    let story = async {
        let mut first = opened.recv().await.expect("a stream");
        let hello = first.welcome().await;
        assert_eq!(hello.host, "test-host");
        assert!(hello.catalogue.iter().all(|signal| limits::is_signal_name(&signal.name)));
        let heard = first.hear().await;

        let started = &heard.events[0];
        assert_eq!((started.sequence, started.kind.as_str()), (1, "agent.started"));
        assert!(
            heard.heartbeat.is_some_and(|beat| beat.uptime_seconds > 0.0 && beat.vitals.is_some())
        );
        let state = |name: &str| {
            heard.probes.iter().find(|probe| probe.name == name).map(|probe| probe.state())
        };
        assert_eq!(state("procfs"), Some(v1::ProbeState::Active));
        assert_eq!(state("sched"), Some(v1::ProbeState::Off));
        check_batches(&hello, &heard.batches);

        // Events are acknowledged, summaries are not, then the stream breaks.
        let newest = heard.events.iter().map(|event| event.sequence).max().expect("an event");
        let ack = v1::Ack { event_sequence: newest, summary_sequence: 0 };
        first.say(collector_message::Body::Ack(ack)).await;
        // The ack is read before the next tick: two heartbeats on, it was.
        let mut beats = 0;
        while beats < 2 {
            beats += u32::from(matches!(first.next().await, Body::Heartbeat(_)));
        }
        drop(first);

        let mut second = opened.recv().await.expect("the agent comes back");
        let again = second.welcome().await;
        assert_eq!((again.incarnation, &again.boot_id), (hello.incarnation, &hello.boot_id));
        loop {
            match second.next().await {
                Body::Event(event) => assert!(event.sequence > newest, "acknowledged already"),
                Body::Summaries(batch) => {
                    assert_eq!(batch.sequence, 1, "the oldest window first");
                    check_batches(&again, &[batch]);
                    break;
                }
                _ => {}
            }
        }
    };
    with_agent(dir.path(), url, story).await;
}

/// Every summary is of a series defined before, and holds what can be.
fn check_batches(hello: &v1::Hello, batches: &[v1::SummaryBatch]) {
    let mut defined = std::collections::BTreeMap::new();
    for batch in batches {
        for define in &batch.define {
            assert!((define.signal as usize) < hello.catalogue.len());
            assert!(defined.insert(define.series, define.clone()).is_none(), "a number twice");
        }
        assert!(limits::WINDOW_MS.contains(&batch.window_ms));
        for summary in &batch.summary {
            assert!(defined.contains_key(&summary.series), "never defined");
            let ordered = summary.min <= summary.mean && summary.mean <= summary.max;
            assert!(summary.count > 0 && (ordered || summary.histogram.is_some()), "{summary:?}");
        }
    }
    let signals: Vec<_> = defined
        .values()
        .map(|define| hello.catalogue[define.signal as usize].name.as_str())
        .collect();
    for expected in ["cpu.load1", "memory.available", "agent.memory.rss"] {
        assert!(signals.contains(&expected), "{expected} is missing");
    }
}

#[tokio::test]
async fn a_refusal_is_told_to_people_on_the_host() {
    let dir = tempfile::tempdir().expect("a folder");
    let (url, _opened) = collector(Some(Status::invalid_argument("no such name here"))).await;
    let story = async {
        let mut client = local(dir.path()).await;
        let status = loop {
            let answer = client.get_status(v1::GetStatusRequest {}).await.expect("an answer");
            let status = answer.into_inner();
            if !status.last_error.is_empty() && !status.value.is_empty() {
                break status;
            }
        };
        assert!(status.last_error.contains("no such name here"), "{}", status.last_error);
        assert_eq!((status.host.as_str(), status.connected), ("test-host", false));
        assert!(status.value.iter().any(|v| v.signal == "cpu.load1" && v.samples > 0));

        let request = v1::GetProbesRequest { measure_ms: 0 };
        let probes = client.get_probes(request).await.expect("an answer").into_inner().probe;
        let off: Vec<_> = probes.iter().filter(|p| p.state() == v1::ProbeState::Off).collect();
        assert!(off.iter().all(|probe| !probe.reason.is_empty()), "each says why");
        assert!(off.iter().any(|probe| probe.reason.contains("--no-ebpf")));
        let request = v1::GetProbesRequest { measure_ms: 60_000 };
        let refused = client.get_probes(request).await.expect_err("too long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    };
    with_agent(dir.path(), url, story).await;
}

#[tokio::test]
async fn a_second_agent_with_the_same_state_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let story = async {
        started(dir.path()).await;
        let config = Config {
            socket: dir.path().join("other.sock"),
            metrics: ([127, 0, 0, 1], 0).into(),
            state_dir: dir.path().join("state"),
            ..Config::default()
        };
        let second =
            daemon::run(config, Root::default(), mpsc::channel(1).1, CancellationToken::new())
                .await;
        assert!(matches!(second, Err(daemon::Error::Running(_))), "{second:?}");
    };
    with_agent(dir.path(), String::new(), story).await;
}
