//! A service that serves HTTP until it is told to be ill: what the healer's tests heal.
//!
//! It writes a line for each of its starts, so that starts can be counted without asking
//! anybody who may be wrong. What it suffers from is in a file; an illness that is written
//! there while it runs is over with its next start, unless it is one that stays.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use holdfast_core::clock;
use nix::sys::signal::{Signal, raise};

use super::pause;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What leaks with each look, in bytes.
const LEAK: usize = 64 << 10;
/// What is slow takes so long.
const SLOW: Duration = Duration::from_secs(5);

/// What to be.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to serve
    #[arg(long)]
    port: u16,
    /// Folder of the files `illness` and `starts`
    #[arg(long)]
    folder: PathBuf,
}

/// What it can suffer from, by the word in the file. A word that begins with `always-` stays
/// over starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Illness {
    /// It serves.
    None,
    /// It takes connections and never answers.
    Hang,
    /// It answers too late.
    Slow,
    /// It ends by a signal, at once.
    Crash,
    /// It ends with an error, at once.
    Exit,
    /// It uses more and more memory.
    Leak,
}

impl Illness {
    /// What the file says to a process that started `started` after 1970.
    fn read(file: &Path, started: Duration) -> Self {
        let Ok(text) = fs::read_to_string(file) else { return Self::None };
        let (word, stays) = match text.trim().strip_prefix("always-") {
            Some(word) => (word, true),
            None => (text.trim(), false),
        };
        let written = fs::metadata(file).and_then(|of| of.modified()).ok();
        let written = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok());
        if !stays && written.is_some_and(|written| written < started) {
            return Self::None;
        }
        match word {
            "hang" => Self::Hang,
            "slow" => Self::Slow,
            "crash" => Self::Crash,
            "exit" => Self::Exit,
            "leak" => Self::Leak,
            _ => Self::None,
        }
    }
}

/// Serves until it is killed, or dies of what it suffers from.
pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Duration::from_millis(clock::unix_ms());
    let (illness, starts) = (args.folder.join("illness"), args.folder.join("starts"));
    let mut file = OpenOptions::new().create(true).append(true).open(&starts)?;
    writeln!(file, "{}", std::process::id())?;
    die_of(Illness::read(&illness, started));
    let listener = TcpListener::bind(("127.0.0.1", args.port)).context("cannot serve")?;
    let of = illness.clone();
    thread::spawn(move || {
        // Whoever waits for an answer keeps the connection.
        let mut waiting = Vec::new();
        for stream in listener.incoming().flatten() {
            match Illness::read(&of, started) {
                Illness::Hang => waiting.push(stream),
                Illness::Slow => drop(thread::spawn(move || answer(stream, SLOW))),
                _ => drop(thread::spawn(move || answer(stream, Duration::ZERO))),
            }
        }
    });
    let mut leaked: Vec<Vec<u8>> = Vec::new();
    loop {
        match Illness::read(&illness, started) {
            Illness::Leak => leaked.push(vec![1; LEAK]),
            illness => die_of(illness),
        }
        pause(LOOK);
    }
}

fn die_of(illness: Illness) {
    match illness {
        Illness::Crash => {
            // It has no handler: this is the end.
            let _ = raise(Signal::SIGSEGV);
        }
        Illness::Exit => std::process::exit(3),
        _ => {}
    }
}

fn answer(mut stream: TcpStream, after: Duration) {
    pause(after);
    let mut asked = [0; 1_024];
    // Whoever asked may have gone.
    let _ = stream.read(&mut asked);
    let _ =
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
}
