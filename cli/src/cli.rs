//! The command line: every argument with its help, and nothing that acts.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use jiff::{Span, SpanRelativeTo};

use crate::{exit_codes, top::keys};

/// Shows what a fleet of Linux hosts is doing.
///
/// Asks the collector about all hosts, and the agent of this host about itself
/// (`holdfast local`). Output is a table; with `--json` it is JSON with stable
/// field names, in which times are milliseconds since 1970 and values are in the
/// signal's own unit of measure.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_long_help = exit_codes::TEXT, propagate_version = false)]
#[command(arg_required_else_help = true, disable_help_subcommand = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Address of the collector's gRPC side.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "HOLDFAST_COLLECTOR",
        hide_env_values = true
    )]
    #[arg(default_value = "http://127.0.0.1:7401", help_heading = "Global options")]
    pub(crate) collector: String,
    /// Socket of the agent on this host, for `holdfast local`.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "HOLDFAST_SOCKET",
        hide_env_values = true
    )]
    #[arg(default_value = "/run/holdfast/agent.sock", help_heading = "Global options")]
    pub(crate) socket: PathBuf,
    /// Prints JSON instead of tables.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Never colours the output; so does the environment variable `NO_COLOR`.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_color: bool,
    /// How long to wait for an answer.
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = duration, help_heading = "Global options")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists all hosts that ever reported.
    Hosts,
    /// Shows one host: its agent, its probes and its newest values.
    Host(Host),
    /// Lists systemd units with CPU time, run-queue wait, memory and pressure.
    Units(Units),
    /// Lists the catalogue of signals.
    Signals,
    /// Shows a signal over time.
    Series(Series),
    /// Shows events, oldest first.
    Events(Events),
    /// Tells which units keep a unit of this host waiting, and for how long.
    Blame(Blame),
    /// Lists what was unusual on this host, oldest first.
    ///
    /// Units, devices, interfaces and the host itself are compared with their own past.
    /// What begins within a few minutes of each other is one episode.
    Episodes,
    /// Explains an episode, or an operation of the healer.
    ///
    /// Of an episode: which signals were unusual, how far, and how it went on. Of an
    /// operation: what led to it, what was seen, what was done, and whether it helped.
    Explain(Explain),
    /// Watches hosts, units, devices and interfaces full-screen.
    #[command(after_help = keys::TEXT)]
    Top(Top),
    /// Asks the agent on this host, over its socket.
    #[command(subcommand, arg_required_else_help = true)]
    Local(Local),
    /// Scores tables of numbers (CSV) with the very scorer of the agent.
    ///
    /// The first line may name the columns. A column called timestamp, time, date, datetime
    /// or ts is the time: 2026-01-31 23:59:58 (UTC), RFC 3339, or seconds or milliseconds
    /// since 1970. All others are metrics; an empty cell is a missing value. One metric is
    /// watched for onsets, and `timestamp,value,anomaly_score,alarm` is written for each
    /// row; several are watched together, and `anomaly_score,alarm` is written. Scores are
    /// in 0..1, and 0 while there is not enough history; each depends on its row and earlier
    /// ones alone. Rows are read one at a time: files of any size can be scored.
    Score(Score),
    /// Decides again what was decided on a host, from its journal, under these services.
    ///
    /// Under the services and settings of then all is decided alike; under others it shows
    /// where another policy would have done something else.
    Replay(Replay),
    /// Prints the completion script for a shell.
    Completion(Completion),
    /// Prints the version.
    Version,
    /// Prints what each exit code means.
    #[command(after_long_help = exit_codes::TEXT)]
    ExitCodes,
}

#[derive(Debug, Args)]
pub(crate) struct Host {
    /// Name of the host, as in `holdfast hosts`.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Units {
    /// Only units of this host.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Series {
    /// Name of the host, as in `holdfast hosts`.
    pub(crate) host: String,
    /// Name of the signal, as in `holdfast signals`.
    pub(crate) signal: String,
    #[command(flatten)]
    pub(crate) instance: Instance,
    /// How far back.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) last: Duration,
}

/// Whose series; none of them: the host's own, or else every instance's.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Instance {
    /// The series of this systemd unit.
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// The series of this block device.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// The series of this network interface.
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) interface: Option<String>,
    /// The series of this named class, such as the reason of a drop.
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Goes on with new events as they arrive; with `--json`, one object a line.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events of this host.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Only events of this systemd unit.
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// Only events of this kind, such as `process.signal`.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only events younger than this; all that are kept when not given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) last: Option<Duration>,
    /// The newest so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// Longest time that agents keep who kept whom waiting.
const LONGEST_BLAME: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
pub(crate) struct Blame {
    /// The unit that waits; `.service` may be left out.
    pub(crate) unit: String,
    /// Only waits for this resource.
    #[arg(long, value_enum)]
    pub(crate) resource: Option<Resource>,
    /// How far back, at most 5m.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = blame_duration)]
    pub(crate) last: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Number of the episode, as in `holdfast episodes`, or of the operation, as in
    /// `holdfast local services` and in events; the newest episode when not given.
    pub(crate) number: Option<u64>,
}

/// What units wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Resource {
    /// Time on a CPU.
    Cpu,
    /// Requests to a block device.
    Disk,
    /// Memory that had to be reclaimed first.
    Memory,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Host to begin with; the first one when not given.
    pub(crate) host: Option<String>,
    /// Prints one plain snapshot and ends; `--json` does so too.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Shows each probe and eBPF program: form, state, reason, cost and map memory.
    Probes(Probes),
    /// Proves each probe: provokes events of known number and compares what it saw.
    Attest(Attest),
    /// Shows the agent's own state: connection, cost and losses.
    Status,
    /// Shows how many false alarms are promised, and whether that is kept.
    Calibration,
    /// Tells the agent whether an episode was a false alarm.
    ///
    /// One like it must be ten times as rare to be told again, for some weeks.
    Feedback(Feedback),
    /// Tells the agent that something changes, such as a deployment.
    ///
    /// For 15 minutes only what is a good deal rarer than usual is told, and what is told
    /// names the change.
    Note(Note),
    /// Shows what this host gives the agent, what is missing, what that costs and how
    /// to get it; the exit code is 1 when signals are missing.
    Doctor,
    /// Lists the services that are healed: how they do, and what is done or held back.
    Services,
    /// Holds back all repairs of a service, or of this host.
    Pause(Pause),
    /// Neither tells nor does anything about what is known to be wrong with a service, for a
    /// while.
    Silence(Silence),
    /// Lets repairs go on that were paused, and ends silences.
    Resume(Resume),
    /// Does something for a service now, through the same guards as what is decided by
    /// itself.
    Run(RunAction),
    /// Forgets what was tried for a service and did not help; budgets are not forgotten.
    Clear(OneService),
    /// Agrees to what waits for a word (mode `confirm`).
    Confirm(OneService),
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The service; `.service` may be left out. The whole host when not given.
    pub(crate) unit: Option<String>,
    /// For how long, at most 30 days; until it is resumed when not given.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) length: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Silence {
    /// The service; `.service` may be left out.
    pub(crate) unit: String,
    /// What is wrong, such as leaking or unresponsive; anything when not given.
    pub(crate) trigger: Option<String>,
    /// For how long, at most 30 days.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) length: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The service; `.service` may be left out. The whole host when not given.
    pub(crate) unit: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RunAction {
    /// The service; `.service` may be left out.
    pub(crate) unit: String,
    /// What: reload, restart, kill-restart, freeze, throttle, hook:NAME, handover, escalate or reboot.
    pub(crate) action: String,
}

#[derive(Debug, Args)]
pub(crate) struct OneService {
    /// The service; `.service` may be left out.
    pub(crate) unit: String,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The journal, such as /var/lib/holdfast/agent/healing.journal.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
    /// Folder of the services' files to decide by.
    #[arg(long, value_name = "DIR", default_value = "/etc/holdfast/services.d")]
    pub(crate) services: PathBuf,
    /// `healing.per_10m` of the agent, where that is not the default.
    #[arg(long, value_name = "N")]
    pub(crate) per_10m: Option<u32>,
    /// `healing.per_24h` of the agent, where that is not the default.
    #[arg(long, value_name = "N")]
    pub(crate) per_24h: Option<u32>,
    /// `healing.grace` of the agent, where that is not the default.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// A unit of `healing.protected` of the agent; can be given more than once.
    #[arg(long, value_name = "UNIT")]
    pub(crate) protected: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Probes {
    /// Measures events and cost of each program for this long, at most 10 s.
    #[arg(long, value_name = "DURATION", value_parser = measure_duration)]
    #[arg(num_args = 0..=1, default_missing_value = "1s")]
    pub(crate) measure: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Attest {
    /// Provokes also what leaves traces: a kill for want of memory, which is written to
    /// the kernel's log.
    #[arg(long)]
    pub(crate) disruptive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Feedback {
    /// Number of the episode, as in `holdfast episodes`.
    pub(crate) episode: u64,
    /// What it was.
    #[arg(value_enum)]
    pub(crate) judgement: Judgement,
}

/// What an episode was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Judgement {
    /// Nothing was wrong.
    False,
    /// Something was.
    Real,
}

#[derive(Debug, Args)]
pub(crate) struct Note {
    /// What changes, in one line.
    pub(crate) text: String,
    /// The systemd unit that changes; the whole host when not given.
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Score {
    /// Tables to score, each by itself; `-`, or none, is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Learns from this table first, without output: what came before.
    #[arg(long, value_name = "FILE")]
    pub(crate) train: Option<PathBuf>,
    /// Where scores are written: a file, or a folder for files of the same names.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How far apart rows are; by default as far as the first ones say, or a minute.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Prints the score from which on a row is an alarm, and ends.
    #[arg(long)]
    pub(crate) show_threshold: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell to write for.
    pub(crate) shell: clap_complete::Shell,
}

/// A positive duration in words such as `90s`, `5m`, `1h 30m`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let example = "write a positive duration such as 90s, 5m or 1h";
    let span: Span = text.parse().map_err(|_| example.to_owned())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .ok()
        .and_then(|signed| Duration::try_from(signed).ok())
        .filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| example.to_owned())
}

fn measure_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > Duration::from_secs(10) {
        return Err("measure for at most 10s: the kernel's accounting costs every program".into());
    }
    Ok(duration)
}

fn blame_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > LONGEST_BLAME {
        return Err("agents keep who kept whom waiting for 5m".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for bad in ["", "5", "0s", "-5m", "1mo", "soon"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(measure_duration("11s").is_err());
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        let cli = parse("holdfast series web1 cpu.load1 --json --last 1h --timeout 2s").unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.timeout, Duration::from_secs(2));
        let Command::Series(series) = cli.command else { panic!("not series") };
        assert_eq!((series.host.as_str(), series.last), ("web1", Duration::from_secs(3600)));
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            "holdfast",
            "holdfast series web1",
            "holdfast series web1 cpu.load1 --unit a.service --device vda",
            "holdfast events --limit 0",
            "holdfast local",
            "holdfast local probes --measure 1m",
            "holdfast blame",
            "holdfast blame a.service --last 6m",
            "holdfast explain yesterday",
            "holdfast local feedback 7 perhaps",
            "holdfast local note",
            "holdfast blame a.service --resource network",
            "holdfast nonsense",
        ] {
            assert_eq!(parse(line).map(|_| ()).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn measure_defaults_to_a_second() {
        let cli = parse("holdfast local probes --measure").unwrap();
        let Command::Local(Local::Probes(probes)) = cli.command else { panic!("not probes") };
        assert_eq!(probes.measure, Some(Duration::from_secs(1)));
    }
}
