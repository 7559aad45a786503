//! `holdfast score`: the scorer of the agent over tables of numbers.

mod sink;
mod table;

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read},
    path::{Path, PathBuf},
};

use holdfast_scorer::{THRESHOLD, group::Group, series::Series};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::{
    sink::Sink,
    table::{Row, Table},
};
use crate::{cli::Score, error::Error, output::Output};

/// Rows looked at to find out how far apart they are.
const ROWS_FOR_INTERVAL: usize = 16;
/// Interval of rows that do not say when they were taken.
const USUAL_INTERVAL: f64 = 60.0;
/// Files from this size on have a progress bar.
const LONG_FILE: u64 = 16 << 20;

#[derive(Serialize)]
struct Threshold {
    threshold: f64,
}

pub(crate) fn run(output: &mut Output, options: &Score) -> Result<(), Error> {
    if options.show_threshold {
        return output.show(&Threshold { threshold: THRESHOLD }, |shown, _| {
            format!("{}\n", shown.threshold)
        });
    }
    let stdin = [PathBuf::from("-")];
    let files = if options.files.is_empty() { &stdin[..] } else { &options.files };
    if files.len() > 1 && !options.out.as_ref().is_some_and(|out| out.is_dir()) {
        return Err(Error::Score("several files need --out with a folder that exists".into()));
    }
    for file in files {
        score_file(output, options, file).map_err(|error| within(&name_of(file), error))?;
    }
    Ok(())
}

/// What an error of one file is called.
fn within(name: &str, error: Failure) -> Error {
    match error {
        Failure::Input(error) => Error::Score(format!("{name} {error}")),
        Failure::Train(path, error) => Error::Score(format!("{} {error}", path.display())),
        Failure::Say(text) => Error::Score(text),
        Failure::Write(path, error) => {
            Error::Score(format!("cannot write {}: {error}", path.display()))
        }
        Failure::Output(error) => error,
    }
}

fn name_of(file: &Path) -> String {
    if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string() }
}

enum Failure {
    Input(table::Error),
    Train(PathBuf, table::Error),
    Say(String),
    Write(PathBuf, io::Error),
    Output(Error),
}

impl From<table::Error> for Failure {
    fn from(error: table::Error) -> Self {
        Self::Input(error)
    }
}

fn score_file(output: &mut Output, options: &Score, file: &Path) -> Result<(), Failure> {
    let (reader, bar) = open(file).map_err(|error| Failure::Input(error.into()))?;
    let mut table = Table::open(BufReader::with_capacity(1 << 16, reader))?;
    let mut head = Vec::new();
    let mut row = Row::default();
    while head.len() < ROWS_FOR_INTERVAL && table.read(&mut row)? {
        head.push((std::mem::take(&mut row), table.line()));
    }
    let interval = options.interval.map_or_else(|| interval_of(&head), |given| given.as_secs_f64());
    let mut scorer = Scorer::new(table.metrics().len(), interval);
    if let Some(path) = &options.train {
        train(&mut scorer, path, table.metrics())?;
    }

    let mut sink = Sink::create(output, options, file, &table)?;
    for (row, line) in &head {
        let verdict = scorer.push(row, *line);
        sink.write(row, verdict)?;
    }
    drop(head);
    while table.read(&mut row)? {
        let verdict = scorer.push(&row, table.line());
        sink.write(&row, verdict)?;
    }
    sink.finish()?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    scorer.complain(&name_of(file));
    Ok(())
}

/// Streams through `path` without output.
fn train(scorer: &mut Scorer, path: &Path, metrics: &[String]) -> Result<(), Failure> {
    let of_train = |error| Failure::Train(path.to_owned(), error);
    let (reader, bar) = open(path).map_err(|error| of_train(error.into()))?;
    let mut table = Table::open(BufReader::new(reader)).map_err(of_train)?;
    if table.metrics().len() != metrics.len() {
        return Err(Failure::Say(format!(
            "{} has {} metrics, and what is to be scored has {}: they must be the same",
            path.display(),
            table.metrics().len(),
            metrics.len()
        )));
    }
    let mut row = Row::default();
    while table.read(&mut row).map_err(of_train)? {
        scorer.push(&row, table.line());
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    scorer.complain(&path.display().to_string());
    Ok(())
}

/// A file or standard input, with a bar when it is long and somebody looks.
fn open(file: &Path) -> io::Result<(Box<dyn Read>, Option<ProgressBar>)> {
    if file.as_os_str() == "-" {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let opened = File::open(file)?;
    let size = opened.metadata()?.len();
    if size < LONG_FILE || !io::stderr().is_terminal() {
        return Ok((Box::new(opened), None));
    }
    let bar = ProgressBar::new(size);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    Ok((Box::new(bar.wrap_read(opened)), Some(bar)))
}

/// The median distance of the first rows; what is usual when they do not say.
fn interval_of(head: &[(Row, u64)]) -> f64 {
    let times: Vec<f64> = head.iter().filter_map(|(row, _)| row.seconds).collect();
    let mut apart: Vec<f64> =
        times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a).filter(|d| *d > 0.0).collect();
    apart.sort_by(f64::total_cmp);
    apart.get(apart.len() / 2).copied().unwrap_or(USUAL_INTERVAL)
}

/// One metric or several, and what was odd about their times.
struct Scorer {
    kind: Kind,
    interval: f64,
    /// Rows so far; stands for the time where rows do not tell it.
    rows: u64,
    last: Option<f64>,
    odd: Odd,
}

enum Kind {
    One(Box<Series>),
    Many(Box<Group>),
}

/// Rows that came in an odd order, the first one's line, and what was odd about it.
#[derive(Default)]
struct Odd {
    backwards: u64,
    twice: u64,
    first: Option<(u64, &'static str)>,
}

impl Scorer {
    fn new(metrics: usize, interval: f64) -> Self {
        let kind = match metrics {
            1 => Kind::One(Box::default()),
            metrics => Kind::Many(Box::new(Group::new(metrics, interval))),
        };
        Self { kind, interval, rows: 0, last: None, odd: Odd::default() }
    }

    /// The row's score.
    fn push(&mut self, row: &Row, line: u64) -> f64 {
        let seconds = row.seconds.unwrap_or(self.rows as f64 * self.interval);
        if row.seconds.is_some() {
            let odd = match self.last {
                Some(last) if seconds < last => Some((&mut self.odd.backwards, "before the last")),
                Some(last) if seconds == last => {
                    Some((&mut self.odd.twice, "the last one's again"))
                }
                _ => None,
            };
            if let Some((count, what)) = odd {
                *count += 1;
                self.odd.first.get_or_insert((line, what));
            }
            self.last = Some(seconds);
        }
        self.rows += 1;
        match &mut self.kind {
            Kind::One(series) => series.push(row.values.first().copied().unwrap_or(f64::NAN)).score,
            Kind::Many(group) => {
                let verdict = group.push(seconds, &row.values);
                group.grow_when_due();
                verdict.score
            }
        }
    }

    /// Says what was odd: rows are scored in the order they come.
    fn complain(&mut self, name: &str) {
        let Odd { backwards, twice, first } = std::mem::take(&mut self.odd);
        if let Some((line, what)) = first {
            eprintln!(
                "holdfast: warning: {name}: {backwards} rows go back in time and {twice} repeat \
                 the time before; line {line} is the first, its time is {what}. All were scored \
                 in the order of the file"
            );
        }
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::output::capture;

    /// A table with a jump at row 1,500.
    fn table() -> String {
        let mut text = "timestamp,value\n".to_owned();
        for n in 0..2_000_u64 {
            let noise = (n.wrapping_mul(2_654_435_761) >> 8) % 100;
            let value = noise + if n >= 1_500 { 5_000 } else { 0 };
            text += &format!("{},{value}\n", 1_700_000_000 + n * 60);
        }
        text
    }

    fn options(files: Vec<PathBuf>) -> Score {
        Score { files, train: None, out: None, interval: None, show_threshold: false }
    }

    fn scored(options: &Score, json: bool) -> Result<String, Error> {
        let mut result = Ok(());
        let text = capture(json, |output| result = run(output, options));
        result.map(|()| text)
    }

    #[test]
    fn one_metric_gets_its_row_back_with_score_and_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        fs::write(&file, table()).unwrap();
        let text = scored(&options(vec![file.clone()]), false).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("timestamp,value,anomaly_score,alarm"));
        let alarms: Vec<&str> = lines.filter(|line| line.ends_with(",1")).collect();
        let jump = 1_700_000_000 + 1_500 * 60;
        assert!(alarms.iter().any(|line| line.starts_with(&jump.to_string())), "{alarms:?}");
        let json = scored(&options(vec![file]), true).unwrap();
        assert!(json.lines().all(|line| line.starts_with("{\"timestamp\":\"17")), "{json}");
    }

    #[test]
    fn many_metrics_are_scored_together_after_those_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let (train, test) = (folder.path().join("train.csv"), folder.path().join("test.csv"));
        let row = |n: u64| format!("{},{}\n", n % 7, n % 11);
        fs::write(&train, format!("a,b\n{}", (0..5_000).map(row).collect::<String>())).unwrap();
        fs::write(&test, "a,b\n3,4\n9000,9000\n9000,9000\n").unwrap();
        let mut options = options(vec![test]);
        options.train = Some(train);
        let text = scored(&options, false).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("anomaly_score,alarm", 4));
        assert!(lines[1].ends_with(",0") && lines[3].ends_with(",1"), "{lines:?}");
    }

    #[test]
    fn bad_requests_are_refused_and_overwrite_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, wide) = (folder.path().join("a.csv"), folder.path().join("wide.csv"));
        fs::write(&file, "a\n1\n").unwrap();
        fs::write(&wide, "a,b\n1,2\n").unwrap();
        let message = |options: &Score| scored(options, false).unwrap_err().to_string();
        let mut onto = options(vec![file.clone()]);
        onto.out = Some(file.clone());
        assert!(message(&onto).contains("would overwrite its input"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "a\n1\n");
        assert!(message(&options(vec![file.clone(), wide.clone()])).contains("--out"));
        let mut other = options(vec![file]);
        other.train = Some(wide);
        assert!(message(&other).contains("has 2 metrics"));
        let gone = folder.path().join("gone.csv");
        assert!(message(&options(vec![gone])).contains("gone.csv cannot be read"));
    }

    #[test]
    fn the_threshold_is_shown() {
        let mut options = options(Vec::new());
        options.show_threshold = true;
        assert_eq!(scored(&options, false).unwrap().trim(), THRESHOLD.to_string());
    }
}
