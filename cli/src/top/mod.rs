//! `holdfast top`: the fleet full-screen, asked again each second.
//!
//! `snapshot` asks, `state` holds what the keys change, `draw` paints; this file
//! joins them to the terminal and to time. Without a terminal there is `--once`.

mod draw;
pub(crate) mod keys;
mod plain;
mod snapshot;
mod state;

use std::{io, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    sync::{mpsc, watch},
    time::{self, MissedTickBehavior},
};

use self::{
    snapshot::Snapshot,
    state::{Next, State},
};
use crate::{catalogue::Catalogue, cli, connection::Collector, error::Error, output::Output};

/// What the collector said, or why it did not.
type Answer = Result<Snapshot, String>;

/// How often the collector is asked.
const REFRESH: Duration = Duration::from_secs(1);
/// How long the keyboard's thread waits before it looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Refuses what cannot be drawn before anything is asked.
pub(crate) fn check(output: &Output, options: &cli::Top) -> Result<(), Error> {
    let once = options.once || output.is_json();
    if once || output.look().width.is_some() { Ok(()) } else { Err(Error::NoTerminal) }
}

pub(crate) async fn run(
    mut collector: Collector,
    output: &mut Output,
    options: &cli::Top,
) -> Result<(), Error> {
    let catalogue = Catalogue::fetch(&mut collector).await?;
    if options.once || output.is_json() {
        let snapshot = Snapshot::fetch(&mut collector, &catalogue, options.host.as_deref()).await?;
        return output.show(&snapshot, plain::text);
    }
    let mut terminal = ratatui::try_init().map_err(Error::Terminal)?;
    let state = State::new(options.host.clone());
    let (wanted, wants) = watch::channel(options.host.clone());
    let (answers, answered) = mpsc::channel(1);
    let color = output.look().color;
    // Side by side, so that keys are answered while the collector is not.
    let result = tokio::select! {
        result = show(&mut terminal, state, &wanted, answered, color) => result,
        () = ask(collector, catalogue, wants, answers) => Ok(()),
    };
    ratatui::restore();
    result
}

/// Draws after each key and each answer, until the person quits.
async fn show(
    terminal: &mut DefaultTerminal,
    mut state: State,
    wanted: &watch::Sender<Option<String>>,
    mut answered: mpsc::Receiver<Answer>,
    color: bool,
) -> Result<(), Error> {
    let mut keys = keyboard();
    loop {
        terminal.draw(|frame| draw::frame(frame, &state, color)).map_err(Error::Terminal)?;
        let next = tokio::select! {
            event = keys.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    state.key(key.code, key.modifiers)
                }
                Some(Ok(_)) => Next::Draw,
                Some(Err(error)) => return Err(Error::Terminal(error)),
                None => Next::Quit,
            },
            answer = answered.recv() => match answer {
                Some(answer) => {
                    state.update(answer);
                    Next::Draw
                }
                None => Next::Quit,
            },
        };
        match next {
            Next::Quit => return Ok(()),
            Next::Draw => {}
            // Fails only when nobody asks any more, and then this ends too.
            Next::Ask => drop(wanted.send(state.host().map(str::to_owned))),
        }
    }
}

/// Asks each second, and at once when another host is wanted.
async fn ask(
    mut collector: Collector,
    mut catalogue: Catalogue,
    mut wants: watch::Receiver<Option<String>>,
    answers: mpsc::Sender<Answer>,
) {
    let mut refresh = time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = refresh.tick() => {}
            changed = wants.changed() => if changed.is_err() { return },
        }
        let host = wants.borrow_and_update().clone();
        let answer = Snapshot::fetch(&mut collector, &catalogue, host.as_deref()).await;
        // The first agent may have come, and brought the catalogue, after we did.
        if answer.as_ref().is_ok_and(|snapshot| snapshot.is_bare()) {
            catalogue = Catalogue::fetch(&mut collector).await.unwrap_or(catalogue);
        }
        if answers.send(answer.map_err(|error| error.to_string())).await.is_err() {
            return;
        }
    }
}

/// Reads the terminal on a thread of its own, for there is no other way to read
/// it that does not block. The thread ends when nobody listens any more.
fn keyboard() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        while !sender.is_closed() {
            let event = match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = event.is_err();
            if sender.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
