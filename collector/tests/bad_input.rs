//! What a collector does with peers that are broken or hostile: each gets a clear
//! status or a closed connection, is counted by reason, and disturbs nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{Collector, PATIENCE, Peer, batch, check, event, heartbeat, hello};
use holdfast_proto::{
    limits,
    v1::{self, agent_message::Body},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{self, timeout},
};
use tonic::{Code, Request, codegen::http::uri::PathAndQuery};

/// A good agent that keeps talking beside the bad ones.
struct Witness {
    talking: JoinHandle<u64>,
    stop: tokio_util::sync::CancellationToken,
}

impl Witness {
    async fn start(collector: &Collector) -> Self {
        let mut peer = Peer::greeted(collector, hello("witness", 1)).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let talking = tokio::spawn(async move {
            let mut sequence = 0;
            while !stopped.is_cancelled() {
                sequence += 1;
                peer.send(heartbeat(sequence)).await;
                peer.send(Body::Summaries(batch(sequence, sequence == 1))).await;
                peer.send(Body::Event(event(sequence))).await;
                let held = |ack: &v1::Ack| {
                    ack.event_sequence == sequence && ack.summary_sequence == sequence
                };
                timeout(Duration::from_secs(5), peer.acked(held)).await.unwrap().unwrap();
            }
            sequence
        });
        Self { talking, stop }
    }

    /// Everything it said was taken, on one stream.
    async fn finish(self, collector: &Collector) {
        self.stop.cancel();
        let said = self.talking.await.unwrap();
        let mut operator = collector.operator().await;
        let request = v1::ListEventsRequest {
            host: "witness".to_owned(),
            kind: "process.exit".to_owned(),
            limit: 10_000,
            ..v1::ListEventsRequest::default()
        };
        let events = operator.list_events(request).await.unwrap().into_inner().event;
        let sequences = events.iter().map(|e| e.event.as_ref().unwrap().sequence);
        assert!(sequences.eq(1..=said));
        let hosts = operator.list_hosts(v1::ListHostsRequest {}).await.unwrap().into_inner().host;
        let witness = hosts.iter().find(|host| host.host == "witness").unwrap();
        assert_eq!((witness.series, witness.units), (3, 1));
        assert_eq!(collector.metric("holdfast_collector_batches_repeated_total").await, 0.0);
    }
}

/// Says `bodies` after a good Hello; expects the stream to end so.
async fn refused(collector: &Collector, bodies: Vec<Body>, code: Code, text: &str, reason: &str) {
    let before = collector.rejects(reason).await;
    let peer = Peer::greeted(collector, hello("bad", 7)).await;
    for body in bodies {
        peer.send(body).await;
    }
    check(&peer.ended().await, code, text);
    assert_eq!(collector.rejects(reason).await, before + 1.0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http2() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let witness = Witness::start(&collector).await;

    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let noise: Vec<u8> =
        (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let late = [b"PRI * HTTP/2.0\r\n\r\nXX".to_vec(), vec![0; 100]].concat();
    for (n, bytes) in [request, noise, late].into_iter().enumerate() {
        let mut stream = TcpStream::connect(collector.addresses.grpc).await.unwrap();
        // The collector may close before all is written.
        let _closed = stream.write_all(&bytes).await;
        let mut rest = Vec::new();
        let _reset = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("is closed");
        let row = "holdfast_collector_rejects_total{reason=\"not_http2\"}";
        collector.wait_metric(row, |count| count == (n + 1) as f64).await;
    }
    // A good preface and then noise: HTTP/2's own rules end it.
    let mut stream = TcpStream::connect(collector.addresses.grpc).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let _closed = stream.write_all(&[0xAA; 5000]).await;
    let mut rest = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("is closed");

    witness.finish(&collector).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hellos_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let witness = Witness::start(&collector).await;
    let invalid = Code::InvalidArgument;

    let not_hello = [heartbeat(1), Body::Event(event(1)), Body::Summaries(batch(1, true))];
    for body in not_hello {
        let before = collector.rejects("not_hello").await;
        let peer = Peer::silent(&collector).await;
        peer.send(body).await;
        check(&peer.ended().await, invalid, "must be Hello");
        assert_eq!(collector.rejects("not_hello").await, before + 1.0);
    }

    type Spoil = fn(&mut v1::Hello);
    let spoilt: [(Spoil, Code, &str, &str); 17] = [
        (
            |h| (h.protocol_min, h.protocol_max) = (2, 9),
            Code::FailedPrecondition,
            "speaks 2 to 9",
            "protocol",
        ),
        (
            |h| (h.protocol_min, h.protocol_max) = (1, 0),
            Code::FailedPrecondition,
            "version",
            "protocol",
        ),
        (
            |h| (h.protocol_min, h.protocol_max) = (0, 0),
            Code::FailedPrecondition,
            "version",
            "protocol",
        ),
        (|h| h.host.clear(), invalid, "host name", "name"),
        (|h| h.host = "x".repeat(254), invalid, "host name", "name"),
        (|h| h.host = "../../etc".to_owned(), invalid, "host name", "name"),
        (|h| h.host = "a\u{1b}[2J".to_owned(), invalid, "host name", "name"),
        (|h| h.boot_id = "today".to_owned(), invalid, "boot_id", "name"),
        (|h| h.os_name = "y".repeat(100_000), invalid, "os_name", "name"),
        (|h| h.kernel_release = "6\n7".to_owned(), invalid, "kernel_release", "name"),
        (|h| h.cpus = u32::MAX, invalid, "CPUs", "number"),
        (|h| h.memory_bytes = u64::MAX, invalid, "memory", "number"),
        (|h| h.summary_window_ms = 1, invalid, "summary_window_ms", "number"),
        (|h| h.incarnation = 0, invalid, "incarnation", "number"),
        (|h| h.catalogue[0].kind = 99, invalid, "kind", "number"),
        (|h| h.catalogue[0].name = "Über".to_owned(), invalid, "signal's name", "name"),
        (|h| h.catalogue = vec![h.catalogue[0].clone(); 1025], invalid, "1025 signals", "size"),
    ];
    for (spoil, code, text, reason) in spoilt {
        let before = collector.rejects(reason).await;
        let mut hello = hello("bad", 7);
        spoil(&mut hello);
        let peer = Peer::silent(&collector).await;
        peer.send(Body::Hello(hello)).await;
        check(&peer.ended().await, code, text);
        assert_eq!(collector.rejects(reason).await, before + 1.0, "{text}");
    }
    // None of them became a host.
    let hosts = collector.operator().await.list_hosts(v1::ListHostsRequest {}).await.unwrap();
    assert_eq!(hosts.into_inner().host.len(), 1);

    witness.finish(&collector).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_oversized_or_undecodable() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let witness = Witness::start(&collector).await;

    let mut large = event(1);
    large.message = "z".repeat(limits::MESSAGE_BYTES + 1);
    let text = "larger than 4194304 bytes";
    refused(&collector, vec![Body::Event(large)], Code::InvalidArgument, text, "oversized").await;
    let twice = vec![Body::Hello(hello("bad", 7))];
    refused(&collector, twice, Code::InvalidArgument, "Hello once", "not_hello").await;

    // A Hello where a message that holds one is expected: the wire types differ.
    let mut raw = tonic::client::Grpc::new(collector.channel().await);
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::Hello, v1::CollectorMessage>::default();
    let path = PathAndQuery::from_static("/holdfast.v1.AgentSession/Stream");
    let messages = Request::new(tokio_stream::iter([hello("bad", 7)]));
    let mut answers = raw.streaming(messages, path, codec).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    check(&status, Code::InvalidArgument, "cannot be decoded");
    assert_eq!(collector.rejects("malformed").await, 1.0);

    let before = collector.rejects("malformed").await;
    let peer = Peer::greeted(&collector, hello("bad", 7)).await;
    peer.send_raw(v1::AgentMessage { body: None }).await;
    check(&peer.ended().await, Code::InvalidArgument, "without a body");
    assert_eq!(collector.rejects("malformed").await, before + 1.0);

    witness.finish(&collector).await;
    collector.stop().await;
}

fn spoilt_batch(spoil: fn(&mut v1::SummaryBatch)) -> Vec<Body> {
    let mut batch = batch(1, true);
    spoil(&mut batch);
    vec![Body::Summaries(batch)]
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let witness = Witness::start(&collector).await;
    let invalid = Code::InvalidArgument;

    type Spoil = fn(&mut v1::SummaryBatch);
    let batches: [(Spoil, &str, &str); 18] = [
        (|b| b.summary[0].series = 99, "not defined", "series"),
        (|b| b.summary[0].series = u32::MAX, "not defined", "series"),
        (|b| b.define[1].series = 0, "defined twice", "series"),
        (|b| b.define[0].signal = 3, "not in the catalogue", "series"),
        (|b| b.define[0].instance = "x".to_owned(), "instance", "name"),
        (|b| b.define[1].instance.clear(), "instance", "name"),
        (|b| b.define[1].instance = "a\0b".to_owned(), "instance", "name"),
        (|b| b.summary[0].mean = f64::NAN, "not finite", "number"),
        (|b| b.summary[0].max = f64::INFINITY, "not finite", "number"),
        (|b| b.summary[0].last = 1e9, "outside", "number"),
        (|b| b.summary[0].count = 0, "0 samples", "number"),
        (|b| b.summary[0].count = 4_000_000_000, "4000000000 samples", "number"),
        (|b| b.window_ms = 0, "window_ms", "number"),
        (|b| b.end_unix_ms = u64::MAX, "wall time", "number"),
        (|b| b.sequence = 0, "sequence 0", "number"),
        (|b| b.summary[1].histogram = None, "lacks its histogram", "histogram"),
        (
            |b| b.summary[0].histogram = b.summary[1].histogram.clone(),
            "no distribution",
            "histogram",
        ),
        (|b| b.summary[1].histogram.as_mut().unwrap().bucket[1] = 128, "buckets", "histogram"),
    ];
    for (spoil, text, reason) in batches {
        refused(&collector, spoilt_batch(spoil), invalid, text, reason).await;
    }
    let counts: Spoil = |b| b.summary[1].histogram.as_mut().unwrap().count[1] = 1 << 60;
    refused(&collector, spoilt_batch(counts), invalid, "than can happen", "histogram").await;
    let many: Spoil = |b| b.summary = vec![b.summary[0].clone(); limits::SUMMARIES_PER_BATCH + 1];
    refused(&collector, spoilt_batch(many), invalid, "more than 32768", "size").await;
    let define: Spoil = |b| b.define[0].series = limits::SERIES_PER_HOST as u32 + 1;
    let exhausted = Code::ResourceExhausted;
    refused(&collector, spoilt_batch(define), exhausted, "at most 32768", "series_limit").await;

    type SpoilEvent = fn(&mut v1::Event);
    let events: [(SpoilEvent, &str, &str); 7] = [
        (|e| e.sequence = 0, "sequence 0", "number"),
        (|e| e.kind = "Bad Kind".to_owned(), "kind", "name"),
        (|e| e.severity = 0, "severity", "number"),
        (|e| e.unit = "u".repeat(256), "unit", "name"),
        (|e| e.message = "m".repeat(1025), "message", "name"),
        (|e| e.field = vec![e.field[0].clone(); 33], "33 fields", "size"),
        (|e| e.unix_ms = u64::MAX, "wall time", "number"),
    ];
    for (spoil, text, reason) in events {
        let mut event = event(1);
        spoil(&mut event);
        refused(&collector, vec![Body::Event(event)], invalid, text, reason).await;
    }

    let probe = v1::ProbeReport { name: "sched".to_owned(), state: 1, ..Default::default() };
    let stateless = v1::Probes { probe: vec![v1::ProbeReport { state: 0, ..probe.clone() }] };
    refused(&collector, vec![Body::Probes(stateless)], invalid, "state", "number").await;
    let many = v1::Probes { probe: vec![probe; 257] };
    refused(&collector, vec![Body::Probes(many)], invalid, "257 probes", "size").await;
    let nan = v1::Heartbeat { sequence: 1, uptime_seconds: f64::NAN, vitals: None };
    refused(&collector, vec![Body::Heartbeat(nan)], invalid, "uptime", "number").await;

    // Nothing of all this is in the history.
    let request = v1::GetHostRequest { host: "bad".to_owned() };
    let bad = collector.operator().await.get_host(request).await.unwrap().into_inner();
    assert!(bad.latest.is_empty() && bad.probe.is_empty());
    witness.finish(&collector).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let witness = Witness::start(&collector).await;

    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(collector.addresses.grpc).await.unwrap());
    }
    let mut slow = TcpStream::connect(collector.addresses.http).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    // A stream that says Hello and nothing more, and one that never says it.
    let quiet = Peer::greeted(&collector, hello("quiet", 1)).await;
    let mute = Peer::silent(&collector).await;
    check(&mute.ended().await, Code::DeadlineExceeded, "no Hello");
    assert_eq!(collector.rejects("no_hello").await, 1.0);

    check(&quiet.ended().await, Code::DeadlineExceeded, "no heartbeat");
    assert_eq!(collector.rejects("silent").await, 1.0);

    let closed = async {
        for stream in &mut silent {
            let mut rest = Vec::new();
            let _reset = stream.read_to_end(&mut rest).await;
        }
    };
    time::timeout(PATIENCE, closed).await.expect("silent connections are closed");
    let row = "holdfast_collector_connections{listener=\"grpc\"}";
    collector.wait_metric(row, |open| open < 10.0).await;
    assert!(collector.rejects("idle").await >= 1000.0);

    witness.finish(&collector).await;
    collector.stop().await;
}
