//! The real command against a collector that answers what the test wants.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failure")]

use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use holdfast_proto::v1::operator_server::{Operator, OperatorServer};
use holdfast_proto::v1::{self, FleetEvent};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// One host, one unit, one series, one event; text that would move a cursor.
struct Fake;

fn signal() -> v1::SignalInfo {
    v1::SignalInfo {
        name: "cpu.load1".into(),
        kind: v1::SignalKind::Gauge.into(),
        owner: v1::Owner::Host.into(),
        measure: "count".into(),
        help: "Load\u{1b}[31m".into(),
        probe: "procfs".into(),
    }
}

fn summary() -> v1::Summary {
    v1::Summary { count: 10, min: 1.0, mean: 1.5, max: 2.0, last: 1.25, ..Default::default() }
}

fn host() -> v1::HostInfo {
    v1::HostInfo { host: "web1".into(), state: v1::HostState::Up.into(), ..Default::default() }
}

fn event() -> FleetEvent {
    let event =
        v1::Event { kind: "unit.gone".into(), message: "gone".into(), ..Default::default() };
    FleetEvent { id: 1, host: "web1".into(), event: Some(event), received_unix_ms: 1 }
}

#[tonic::async_trait]
impl Operator for Fake {
    type WatchEventsStream = tokio_stream::Iter<std::vec::IntoIter<Result<FleetEvent, Status>>>;

    async fn list_hosts(
        &self,
        _: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        Ok(Response::new(v1::ListHostsResponse { host: vec![host()] }))
    }

    async fn get_host(
        &self,
        request: Request<v1::GetHostRequest>,
    ) -> Result<Response<v1::GetHostResponse>, Status> {
        if request.get_ref().host != "web1" {
            return Err(Status::not_found("no such host\r"));
        }
        let latest = v1::LatestValue {
            signal: "cpu.load1".into(),
            owner: v1::Owner::Host.into(),
            summary: Some(summary()),
            ..Default::default()
        };
        let answer =
            v1::GetHostResponse { host: Some(host()), latest: vec![latest], probe: vec![] };
        Ok(Response::new(answer))
    }

    async fn list_units(
        &self,
        _: Request<v1::ListUnitsRequest>,
    ) -> Result<Response<v1::ListUnitsResponse>, Status> {
        let unit = v1::UnitInfo {
            host: "web1".into(),
            unit: "a.service".into(),
            live: true,
            latest: vec![],
        };
        Ok(Response::new(v1::ListUnitsResponse { unit: vec![unit] }))
    }

    async fn list_signals(
        &self,
        _: Request<v1::ListSignalsRequest>,
    ) -> Result<Response<v1::ListSignalsResponse>, Status> {
        Ok(Response::new(v1::ListSignalsResponse { signal: vec![signal()] }))
    }

    async fn get_series(
        &self,
        request: Request<v1::GetSeriesRequest>,
    ) -> Result<Response<v1::GetSeriesResponse>, Status> {
        let request = request.into_inner();
        if request.signal != "cpu.load1" {
            return Ok(Response::new(v1::GetSeriesResponse::default()));
        }
        // Lets the test see what was asked for.
        let end_unix_ms = request.last_ms;
        let point = v1::Point { end_unix_ms, window_ms: 10_000, summary: Some(summary()) };
        let series = v1::SeriesPoints {
            signal: Some(signal()),
            instance: String::new(),
            point: vec![point],
        };
        Ok(Response::new(v1::GetSeriesResponse { series: vec![series] }))
    }

    async fn list_events(
        &self,
        _: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Ok(Response::new(v1::ListEventsResponse { event: vec![event()] }))
    }

    async fn watch_events(
        &self,
        _: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let events = vec![Ok(event()), Ok(event())];
        Ok(Response::new(tokio_stream::iter(events)))
    }
}

/// Serves for as long as the test's runtime lives; returns the address.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_service(OperatorServer::new(Fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn command(collector: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_clear().env("HOLDFAST_COLLECTOR", collector).args(arguments.split(' '));
    command.stdin(Stdio::null());
    command
}

async fn run(collector: &str, arguments: &str) -> (Option<i32>, String, String) {
    let mut command = command(collector, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, stderr } = output.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn every_noun_answers() {
    let collector = serve().await;
    for (arguments, part) in [
        ("hosts", "web1  UP"),
        ("host web1", "cpu.load1"),
        ("units", "a.service"),
        ("signals", "Load\u{fffd}[31m"),
        ("series web1 cpu.load1 --last 1h", "1.25"),
        ("events", "unit.gone"),
        ("top --once", "load 1.25"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("completion bash", "complete"),
    ] {
        let (code, out, err) = run(&collector, arguments).await;
        assert_eq!(code, Some(0), "{arguments}: {err}");
        assert!(out.contains(part), "{arguments}: no {part:?} in {out}");
        assert!(!out.contains('\u{1b}'), "{arguments}: {out:?}");
    }
}

#[tokio::test]
async fn json_is_the_same_answer() {
    let collector = serve().await;
    let (_, out, _) = run(&collector, "series web1 cpu.load1 --last 1h --json").await;
    assert!(out.contains("\"end_unix_ms\": 3600000"), "{out}");
    let (_, out, _) = run(&collector, "top --json").await;
    assert!(out.contains("\"load1\": 1.25"), "{out}");
}

#[tokio::test]
async fn what_cannot_be_found_is_an_error() {
    let collector = serve().await;
    for arguments in ["host web2", "series web1 no.such"] {
        let (code, out, err) = run(&collector, arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments}");
        assert_eq!(err.lines().count(), 2, "{arguments}: {err}");
        assert!(!err.contains('\r'), "{err:?}");
    }
}

#[tokio::test]
async fn following_prints_an_object_a_line_until_the_collector_ends() {
    let collector = serve().await;
    let (code, out, err) = run(&collector, "events --follow --json").await;
    assert_eq!(code, Some(3), "{err}");
    assert_eq!(out.lines().filter(|line| line.starts_with("{\"id\":1,")).count(), 2, "{out}");
}

#[tokio::test]
async fn nobody_there_and_wrong_lines_have_their_codes() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{dead}");
    for (arguments, expected) in [
        ("hosts", 3),
        ("--socket /nonexistent local status", 3),
        ("hosts --no-such-option", 2),
        ("--collector https://x hosts", 2),
        ("top", 2),
    ] {
        let (code, out, err) = run(&dead, arguments).await;
        assert_eq!((code, out.as_str()), (Some(expected), ""), "{arguments}: {err}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_fine() {
    let collector = serve().await;
    let mut command = command(&collector, "signals");
    let (code, said) = tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    })
    .await
    .unwrap();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}
