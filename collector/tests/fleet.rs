//! What agents report is what operators are told, and what must outlive a restart
//! does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Collector, PATIENCE, Peer, batch, check, config, event, heartbeat, hello};
use holdfast_collector::{
    config::Config,
    daemon::{Daemon, Error},
};
use holdfast_proto::v1::{self, agent_message::Body};
use tokio::time::timeout;
use tonic::Code;

fn events(host: &str, kind: &str) -> v1::ListEventsRequest {
    let (host, kind) = (host.to_owned(), kind.to_owned());
    v1::ListEventsRequest { host, kind, ..v1::ListEventsRequest::default() }
}

fn series(host: &str, signal: &str, instance: &str) -> v1::GetSeriesRequest {
    let (host, signal, instance) = (host.to_owned(), signal.to_owned(), instance.to_owned());
    v1::GetSeriesRequest { host, signal, instance, ..v1::GetSeriesRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_agents_report() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let mut operator = collector.operator().await;
    let mut peer = Peer::greeted(&collector, hello("web-1", 1)).await;
    let program =
        v1::ProgramReport { name: "sched_switch".to_owned(), state: 1, ..Default::default() };
    let probe = v1::ProbeReport {
        name: "sched".to_owned(),
        state: 2,
        program: vec![program],
        ..Default::default()
    };
    peer.send(heartbeat(1)).await;
    peer.send(Body::Probes(v1::Probes { probe: vec![probe.clone()] })).await;
    peer.send(Body::Summaries(batch(1, true))).await;
    peer.send(Body::Summaries(batch(2, false))).await;
    peer.acked(|ack| ack.summary_sequence == 2).await.unwrap();

    let hosts = operator.list_hosts(v1::ListHostsRequest {}).await.unwrap().into_inner().host;
    assert_eq!(hosts.len(), 1);
    let host = &hosts[0];
    assert_eq!((host.state(), host.series, host.units), (v1::HostState::Up, 3, 1));
    assert_eq!((host.probes_active, host.probes_degraded, host.latest.len()), (0, 1, 1));

    let request = v1::GetHostRequest { host: "web-1".to_owned() };
    let host = operator.get_host(request).await.unwrap().into_inner();
    assert_eq!((host.probe, host.latest.len()), (vec![probe], 3));

    let units = operator.list_units(v1::ListUnitsRequest::default()).await.unwrap().into_inner();
    assert_eq!((units.unit[0].unit.as_str(), units.unit[0].live), ("a.service", true));
    let signals = operator.list_signals(v1::ListSignalsRequest {}).await.unwrap().into_inner();
    assert_eq!(signals.signal.len(), 3);

    let answer = operator.get_series(series("web-1", "cpu.run_queue.latency", "")).await.unwrap();
    let answer = answer.into_inner().series;
    assert_eq!((answer.len(), answer[0].point.len()), (1, 2));
    let sent = batch(1, true).summary[1].histogram.clone();
    assert_eq!(answer[0].point[0].summary.as_ref().unwrap().histogram, sent);

    let ask = async |request| operator.clone().get_series(request).await.unwrap_err();
    let status = ask(series("web-2", "cpu.load1", "")).await;
    check(&status, Code::NotFound, "no host `web-2`; the nearest is `web-1`");
    let status = ask(series("web-1", "cpu.laod1", "")).await;
    check(&status, Code::NotFound, "no signal `cpu.laod1`; the nearest is `cpu.load1`");
    let status = ask(series("web-1", "cpu.on_cpu.time", "b.service")).await;
    check(&status, Code::NotFound, "the nearest is `a.service`");
    let status = operator.list_events(events("nobody", "")).await.unwrap_err();
    check(&status, Code::NotFound, "no host `nobody`");

    for (path, status, text) in [
        ("/", "HTTP/1.1 200 OK", "Holdfast collector"),
        ("/healthz", "HTTP/1.1 200 OK", "alive"),
        ("/readyz", "HTTP/1.1 200 OK", "ready"),
        ("/nothing", "HTTP/1.1 404 Not Found", "nothing at /nothing"),
    ] {
        let (line, body) = collector.page(path).await;
        assert!(line == status && body.contains(text), "{path}: {line}\n{body}");
    }
    assert_eq!(collector.metric("holdfast_collector_hosts{state=\"up\"}").await, 1.0);
    assert_eq!(collector.metric("holdfast_collector_summaries_total").await, 6.0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_hosts_and_events_and_repeated_events_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let mut peer = Peer::greeted(&collector, hello("web-1", 42)).await;
    for sequence in 1..=3 {
        peer.send(Body::Event(event(sequence))).await;
    }
    peer.acked(|ack| ack.event_sequence == 3).await.unwrap();
    collector.stop().await;
    check(&peer.ended().await, Code::Unavailable, "the collector stops");

    let collector = Collector::start(folder.path()).await;
    let mut operator = collector.operator().await;
    let hosts = operator.list_hosts(v1::ListHostsRequest {}).await.unwrap().into_inner().host;
    assert_eq!((hosts.len(), hosts[0].cpus, hosts[0].state()), (1, 2, v1::HostState::Late));

    let mut peer = Peer::greeted(&collector, hello("web-1", 42)).await;
    for sequence in 2..=4 {
        peer.send(Body::Event(event(sequence))).await;
    }
    peer.acked(|ack| ack.event_sequence == 4).await.unwrap();
    let stored = operator.list_events(events("web-1", "process.exit")).await.unwrap().into_inner();
    let sequences: Vec<_> =
        stored.event.iter().map(|e| e.event.as_ref().unwrap().sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert!(stored.event.is_sorted_by(|a, b| a.id < b.id));
    // Coming back in time is no loss.
    let lost = operator.list_events(events("web-1", "host.lost")).await.unwrap().into_inner();
    assert_eq!(lost.event, []);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_stream_is_told_to_those_who_watch() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let peer = Peer::greeted(&collector, hello("web-1", 1)).await;
    let mut operator = collector.operator().await;
    let mut watched = operator.watch_events(events("web-1", "")).await.unwrap().into_inner();
    let mut next = async || {
        let event = timeout(PATIENCE, watched.message()).await.unwrap().unwrap().unwrap();
        event.event.unwrap().kind
    };
    assert_eq!(next().await, "host.up");
    drop(peer);
    assert_eq!(next().await, "host.lost");
    let peer = Peer::greeted(&collector, hello("web-1", 1)).await;
    assert_eq!(next().await, "host.up");
    peer.send(Body::Goodbye(v1::Goodbye {})).await;
    assert_eq!(next().await, "host.stopped");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_of_one_name() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let first = Peer::greeted(&collector, hello("twin", 1)).await;
    let _second = Peer::greeted(&collector, hello("twin", 2)).await;
    check(&first.ended().await, Code::Aborted, "another stream");
    let again = Peer::silent(&collector).await;
    again.send(Body::Hello(hello("twin", 1))).await;
    check(&again.ended().await, Code::Aborted, "a second agent calls itself twin");
    assert_eq!(collector.rejects("duplicate").await, 1.0);

    let mut operator = collector.operator().await;
    let mut watched = operator.watch_events(events("twin", "host.duplicate")).await.unwrap();
    timeout(PATIENCE, watched.get_mut().message()).await.unwrap().unwrap().unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_beyond_the_limit_and_a_second_collector_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::with(Config { max_hosts: 1, ..config(folder.path()) }).await;
    let _first = Peer::greeted(&collector, hello("a", 1)).await;
    let second = Peer::silent(&collector).await;
    second.send(Body::Hello(hello("b", 1))).await;
    check(&second.ended().await, Code::ResourceExhausted, "max_hosts");
    assert_eq!(collector.rejects("hosts").await, 1.0);

    let error = Daemon::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::Running { .. }), "{error:?}");
    collector.stop().await;
}
