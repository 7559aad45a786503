//! `holdfast top`: the fleet full-screen, asked again each second.
//!
//! `snapshot` asks, `state` holds what the keys change, `draw` paints; this file
//! joins them to the terminal. Without a terminal there is `--once`.

mod draw;
mod plain;
mod snapshot;
mod state;

use std::{io, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    sync::mpsc,
    time::{self, MissedTickBehavior},
};

use self::{
    snapshot::Snapshot,
    state::{Next, State},
};
use crate::{catalogue::Catalogue, cli, connection::Collector, error::Error, output::Output};

/// The keys, for the help.
pub(crate) const KEYS: &str = "\
Keys:
  Up, Down       Move in the chosen pane; in the hosts pane, choose a host
  Left, Right    Choose the pane before or after; so do Tab and Shift-Tab
  s              Sort units by the next column
  ?              Show or hide the keys
  q, Escape      Quit";

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
    let result = watch(&mut terminal, collector, catalogue, state, output).await;
    ratatui::restore();
    result
}

async fn watch(
    terminal: &mut DefaultTerminal,
    mut collector: Collector,
    mut catalogue: Catalogue,
    mut state: State,
    output: &Output,
) -> Result<(), Error> {
    let mut keys = keyboard();
    let mut refresh = time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let color = output.look().color;
    loop {
        let next = tokio::select! {
            event = keys.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => state.key(key.code, key.modifiers),
                Some(Ok(_)) => Next::Draw,
                Some(Err(error)) => return Err(Error::Terminal(error)),
                None => Next::Quit,
            },
            _ = refresh.tick() => Next::Ask,
        };
        match next {
            Next::Quit => return Ok(()),
            Next::Draw => {}
            Next::Ask => {
                // A newer agent may have brought signals this catalogue lacks.
                if state.knows_nothing() {
                    catalogue = Catalogue::fetch(&mut collector).await.unwrap_or(catalogue);
                }
                let answer = Snapshot::fetch(&mut collector, &catalogue, state.host()).await;
                state.update(answer.map_err(|error| error.to_string()));
            }
        }
        terminal.draw(|frame| draw::frame(frame, &state, color)).map_err(Error::Terminal)?;
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
