//! Rows of scores: as a table, or as JSON, one object a line.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use holdfast_scorer::THRESHOLD;
use serde::Serialize;

use super::{
    Failure,
    table::{Row, Table},
};
use crate::{cli::Score, error::Error, output::Output};

#[derive(Serialize)]
struct Scored<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    timestamp: &'a str,
    anomaly_score: f64,
    alarm: bool,
}

/// Where scores go.
pub(super) struct Sink<'a> {
    writer: Box<dyn Write + 'a>,
    path: Option<PathBuf>,
    json: bool,
    form: Form,
}

/// What is written beside the score.
enum Form {
    /// Time and value.
    One,
    /// The time.
    Timed,
    /// Nothing.
    Bare,
}

impl<'a> Sink<'a> {
    /// Opens the place and writes the header.
    pub(super) fn create<R: io::BufRead>(
        output: &'a mut Output,
        options: &Score,
        file: &Path,
        table: &Table<R>,
    ) -> Result<Self, Failure> {
        let path = options.out.as_ref().map(|out| match file.file_name() {
            Some(name) if out.is_dir() => out.join(name),
            _ => out.clone(),
        });
        let json = output.is_json();
        let writer: Box<dyn Write + 'a> = match &path {
            Some(path) if same_file(path, file) => {
                return Err(Failure::Say(format!("{} would overwrite its input", path.display())));
            }
            Some(path) => {
                let created = File::create(path);
                Box::new(created.map_err(|error| Failure::Write(path.clone(), error))?)
            }
            None => Box::new(output.writer()),
        };
        let form = match (table.metrics().len(), table.has_time()) {
            (1, true) => Form::One,
            (_, true) => Form::Timed,
            (_, false) => Form::Bare,
        };
        let writer = Box::new(BufWriter::with_capacity(1 << 16, writer));
        let mut sink = Self { writer, path, json, form };
        if !json {
            let head = match sink.form {
                Form::One => "timestamp,value,anomaly_score,alarm\n",
                Form::Timed => "timestamp,anomaly_score,alarm\n",
                Form::Bare => "anomaly_score,alarm\n",
            };
            sink.put(|writer| writer.write_all(head.as_bytes()))?;
        }
        Ok(sink)
    }

    pub(super) fn write(&mut self, row: &Row, score: f64) -> Result<(), Failure> {
        let alarm = score >= THRESHOLD;
        if self.json {
            let scored = Scored { timestamp: &row.time, anomaly_score: score, alarm };
            let mut line =
                serde_json::to_string(&scored).map_err(|e| Failure::Output(Error::Json(e)))?;
            line.push('\n');
            return self.put(|writer| writer.write_all(line.as_bytes()));
        }
        let (time, value, alarm) = (&row.time, &row.first, u8::from(alarm));
        match self.form {
            Form::One => self.put(|w| writeln!(w, "{time},{value},{score:.9},{alarm}")),
            Form::Timed => self.put(|w| writeln!(w, "{time},{score:.9},{alarm}")),
            Form::Bare => self.put(|w| writeln!(w, "{score:.9},{alarm}")),
        }
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.put(|writer| writer.flush())
    }

    fn put(
        &mut self,
        write: impl FnOnce(&mut (dyn Write + 'a)) -> io::Result<()>,
    ) -> Result<(), Failure> {
        write(&mut *self.writer).map_err(|error| match &self.path {
            Some(path) => Failure::Write(path.clone(), error),
            None => Failure::Output(Error::Output(error)),
        })
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
