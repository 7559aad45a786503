//! How much one core of a collector takes: many agents report as fast as it
//! acknowledges, and its CPU time is read from the kernel.
//!
//!     cargo build --release -p holdfast-collector
//!     cargo run --release -p holdfast-collector --example load -- [AGENTS] [SERIES] [SECONDS]
//!
//! A round is what an agent says in ten seconds: ten heartbeats and one batch of
//! summaries, a fifth of them histograms. The client side runs in this process
//! and is not counted.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use holdfast_core::clock::BootTime;
use holdfast_proto::v1::{
    self, agent_message::Body, agent_session_client::AgentSessionClient, collector_message,
};
use nix::unistd::{SysconfVar, sysconf};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// Heartbeats in one window of ten seconds.
const HEARTBEATS: u64 = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let numbers: Vec<u64> = env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let number = |i: usize, default| numbers.get(i).copied().unwrap_or(default);
    let (agents, series, seconds) = (number(0, 200), number(1, 500), number(2, 10));

    let folder = tempfile::tempdir()?;
    let (child, address) = start(folder.path()).await?;
    let rounds = Arc::new(AtomicU64::new(0));
    for agent in 0..agents {
        let (address, rounds) = (address.clone(), rounds.clone());
        tokio::spawn(async move { report(agent, series, &address, &rounds).await });
    }
    // The first round of each agent also defines its series.
    while rounds.load(Ordering::Relaxed) < agents {
        time::sleep(Duration::from_millis(50)).await;
    }
    let before = (rounds.load(Ordering::Relaxed), cpu(child.id())?, BootTime::now());
    time::sleep(Duration::from_secs(seconds)).await;
    let rounds = rounds.load(Ordering::Relaxed) - before.0;
    let cpu = cpu(child.id())?.saturating_sub(before.1).as_secs_f64();
    let wall = BootTime::now().since(before.2).as_secs_f64();

    let (rounds, series) = (rounds as f64, series as f64);
    let text = format!(
        "{agents} streams with {series} series: {:.0} summaries/s in {wall:.1} s\n\
         one core takes {:.0} summaries/s, or {:.0} such agents (one batch in 10 s, one heartbeat \
         in 1 s)\n\
         resident: {:.1} MiB\n",
        rounds * series / wall,
        rounds * series / cpu,
        rounds * 10.0 / cpu,
        resident(child.id())? as f64 / 1024.0,
    );
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    stop(child)
}

/// Starts the collector that lies beside this program's folder.
async fn start(folder: &Path) -> Result<(Child, String)> {
    let example = env::current_exe()?;
    let profile = example.parent().and_then(Path::parent).context("no target folder")?;
    let program = profile.join("holdfast-collector");
    let child = Command::new(&program)
        .args(["run", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state-dir"])
        .arg(folder)
        .env("HOLDFAST_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}; build it first", program.display()))?;
    let file: PathBuf = folder.join("addresses.json");
    for _ in 0..200 {
        if let Ok(text) = fs::read_to_string(&file) {
            let addresses: serde_json::Value = serde_json::from_str(&text)?;
            let grpc = addresses.get("grpc").and_then(|a| a.as_str()).context("no address")?;
            return Ok((child, format!("http://{grpc}")));
        }
        time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the collector did not start");
}

fn stop(mut child: Child) -> Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// CPU time of a process, user and system.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("no command in stat")?.1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).map(|f| f.parse().unwrap_or(0)).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second))
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(row.trim().trim_end_matches(" kB").parse()?)
}

/// One agent: rounds without end, each acknowledged before the next.
async fn report(agent: u64, series: u64, address: &str, rounds: &AtomicU64) -> Result<()> {
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
    let (out, messages) = mpsc::channel(32);
    let send = async |body| out.send(v1::AgentMessage { body: Some(body) }).await;
    send(Body::Hello(hello(agent))).await?;
    let stream = AgentSessionClient::new(channel).stream(ReceiverStream::new(messages)).await;
    let mut answers = stream?.into_inner();
    for sequence in 1.. {
        for _ in 0..HEARTBEATS {
            let (uptime_seconds, vitals) = (1.0, Some(v1::AgentVitals::default()));
            send(Body::Heartbeat(v1::Heartbeat { sequence, uptime_seconds, vitals })).await?;
        }
        send(Body::Summaries(batch(sequence, series))).await?;
        loop {
            let answer = answers.message().await?.context("the stream ended")?;
            match answer.body {
                Some(collector_message::Body::Ack(a)) if a.summary_sequence == sequence => break,
                _ => {}
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn hello(agent: u64) -> v1::Hello {
    let signal = |name: &str, kind: v1::SignalKind| v1::SignalInfo {
        name: name.to_owned(),
        kind: kind.into(),
        owner: v1::Owner::Unit.into(),
        measure: "ns".to_owned(),
        help: String::new(),
        probe: "load".to_owned(),
    };
    v1::Hello {
        protocol_min: 1,
        protocol_max: 1,
        host: format!("host-{agent}"),
        boot_id: "0b1f0e6e-7a39-4a3e-9f0a-0123456789ab".to_owned(),
        incarnation: 1,
        cpus: 2,
        summary_window_ms: 10_000,
        catalogue: vec![
            signal("load.scalar", v1::SignalKind::Gauge),
            signal("load.histogram", v1::SignalKind::Histogram),
        ],
        ..v1::Hello::default()
    }
}

fn batch(sequence: u64, series: u64) -> v1::SummaryBatch {
    let is_histogram = |series: u32| series.is_multiple_of(5);
    let define = |series: u32| v1::SeriesDef {
        series,
        signal: u32::from(is_histogram(series)),
        instance: format!("unit-{series}.service"),
    };
    let summary = |series: u32| {
        let (min, mean, max, last) = (1.0, 2.0 + sequence as f64 % 7.0, 9.0, 3.0);
        let histogram = is_histogram(series).then(|| v1::Histogram {
            bucket: (20..32).collect(),
            count: (1..13).map(|n| n * 10 + sequence % 100).collect(),
            sum: 123_456_789,
        });
        v1::Summary { series, count: 10, min, mean, max, last, histogram }
    };
    v1::SummaryBatch {
        sequence,
        end_unix_ms: 1_700_000_000_000 + sequence * 10_000,
        window_ms: 10_000,
        define: if sequence == 1 { (0..series as u32).map(define).collect() } else { Vec::new() },
        summary: (0..series as u32).map(summary).collect(),
    }
}
