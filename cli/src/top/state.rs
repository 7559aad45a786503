//! What the keys change: the chosen pane, host, row and order. Pure.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::snapshot::Snapshot;
use crate::rows::UnitRow;

/// A part of the screen that can be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pane {
    #[default]
    Hosts,
    Units,
    Devices,
    Interfaces,
}

impl Pane {
    const ALL: [Self; 4] = [Self::Hosts, Self::Units, Self::Devices, Self::Interfaces];

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or_default();
        Self::ALL.get((at + by) % Self::ALL.len()).copied().unwrap_or_default()
    }
}

/// The order of the units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    OnCpu,
    Wait,
    Memory,
    Pressure,
    Name,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::OnCpu => Self::Wait,
            Self::Wait => Self::Memory,
            Self::Memory => Self::Pressure,
            Self::Pressure => Self::Name,
            Self::Name => Self::OnCpu,
        }
    }

    /// For the pane's title.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OnCpu => "on CPU",
            Self::Wait => "wait p99",
            Self::Memory => "memory",
            Self::Pressure => "pressure",
            Self::Name => "name",
        }
    }

    /// Sorts; the highest value first, equal ones by name.
    pub(crate) fn apply(self, units: &mut [UnitRow]) {
        let key = |unit: &UnitRow| match self {
            Self::OnCpu => unit.on_cpu_ratio,
            Self::Wait => unit.run_queue_p99_ns,
            Self::Memory => unit.memory_bytes,
            Self::Pressure => {
                [unit.cpu_pressure_ratio, unit.memory_pressure_ratio, unit.io_pressure_ratio]
                    .into_iter()
                    .flatten()
                    .reduce(f64::max)
            }
            Self::Name => None,
        };
        let value = |unit: &UnitRow| key(unit).unwrap_or(f64::NEG_INFINITY);
        units.sort_by(|a, b| value(b).total_cmp(&value(a)).then_with(|| a.unit.cmp(&b.unit)));
    }
}

/// What has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Quit,
    Draw,
    /// The answer at hand is of another host.
    Ask,
}

/// Everything on the screen.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) snapshot: Snapshot,
    /// Why there was no answer the last time.
    pub(crate) trouble: Option<String>,
    pub(crate) pane: Pane,
    pub(crate) sort: Sort,
    pub(crate) help: bool,
    /// Row in each pane but the hosts'.
    rows: [usize; 3],
    wanted: Option<String>,
}

impl State {
    /// Begins with `host`, or with the first of the list.
    pub(crate) fn new(host: Option<String>) -> Self {
        Self { wanted: host, ..Self::default() }
    }

    /// The host to ask for.
    pub(crate) fn host(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// Takes in an answer, or why there is none. An answer about a host that is no
    /// longer wanted is left out: the right one is on its way.
    pub(crate) fn update(&mut self, answer: Result<Snapshot, String>) {
        match answer {
            Ok(snapshot) if self.wanted.is_some() && self.wanted != snapshot.selected => {}
            Ok(snapshot) => {
                self.trouble = None;
                self.wanted.clone_from(&snapshot.selected);
                self.snapshot = snapshot;
                self.sort.apply(&mut self.snapshot.units);
                self.hold_rows();
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    /// The row chosen in `pane`.
    pub(crate) fn row(&self, pane: Pane) -> usize {
        match pane {
            Pane::Hosts => self.host_row(),
            Pane::Units => self.rows[0],
            Pane::Devices => self.rows[1],
            Pane::Interfaces => self.rows[2],
        }
    }

    /// Acts on a key.
    pub(crate) fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Next {
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Next::Quit,
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc => return Next::Quit,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Tab | KeyCode::Right => self.pane = self.pane.step(1),
            KeyCode::BackTab | KeyCode::Left => self.pane = self.pane.step(3),
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.sort.apply(&mut self.snapshot.units);
            }
            KeyCode::Down => return self.step(true),
            KeyCode::Up => return self.step(false),
            _ => {}
        }
        Next::Draw
    }

    fn step(&mut self, down: bool) -> Next {
        let moved = |row: usize| if down { row.saturating_add(1) } else { row.saturating_sub(1) };
        match self.pane {
            Pane::Hosts => {
                let row = moved(self.host_row());
                let Some(host) = self.snapshot.hosts.get(row) else { return Next::Draw };
                if self.wanted.as_deref() == Some(host.host.as_str()) {
                    return Next::Draw;
                }
                self.wanted = Some(host.host.clone());
                return Next::Ask;
            }
            Pane::Units => self.rows[0] = moved(self.rows[0]),
            Pane::Devices => self.rows[1] = moved(self.rows[1]),
            Pane::Interfaces => self.rows[2] = moved(self.rows[2]),
        }
        self.hold_rows();
        Next::Draw
    }

    fn host_row(&self) -> usize {
        let wanted = self.wanted.as_deref().unwrap_or_default();
        self.snapshot.hosts.iter().position(|host| host.host == wanted).unwrap_or_default()
    }

    fn hold_rows(&mut self) {
        let lengths = [
            self.snapshot.units.len(),
            self.snapshot.devices.len(),
            self.snapshot.interfaces.len(),
        ];
        for (row, length) in self.rows.iter_mut().zip(lengths) {
            *row = (*row).min(length.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hosts::Host, rows::HostRow};

    fn snapshot(selected: &str) -> Snapshot {
        let host = |name: &str| Host { host: name.into(), ..Host::default() };
        let unit = |name: &str, cpu, memory| UnitRow {
            unit: name.into(),
            on_cpu_ratio: cpu,
            memory_bytes: memory,
            ..UnitRow::default()
        };
        Snapshot {
            hosts: vec![host("a"), host("b")],
            selected: Some(selected.into()),
            summary: HostRow::default(),
            units: vec![
                unit("x", Some(0.1), Some(9.0)),
                unit("y", Some(0.5), None),
                unit("z", None, None),
            ],
            ..Snapshot::default()
        }
    }

    fn press(state: &mut State, code: KeyCode) -> Next {
        state.key(code, KeyModifiers::NONE)
    }

    fn units(state: &State) -> String {
        state.snapshot.units.iter().map(|unit| unit.unit.as_str()).collect()
    }

    #[test]
    fn sorting_goes_round() {
        let mut state = State::new(None);
        state.update(Ok(snapshot("a")));
        assert_eq!(units(&state), "yxz");
        press(&mut state, KeyCode::Char('s'));
        assert_eq!((units(&state).as_str(), state.sort), ("xyz", Sort::Wait));
        for _ in 0..4 {
            press(&mut state, KeyCode::Char('s'));
        }
        assert_eq!(units(&state), "yxz");
    }

    #[test]
    fn hosts_are_chosen_and_rows_stay_in_bounds() {
        let mut state = State::new(None);
        state.update(Ok(snapshot("a")));
        assert_eq!(press(&mut state, KeyCode::Up), Next::Draw);
        assert_eq!(press(&mut state, KeyCode::Down), Next::Ask);
        assert_eq!(state.host(), Some("b"));
        assert_eq!(press(&mut state, KeyCode::Down), Next::Draw);
        press(&mut state, KeyCode::Tab);
        for _ in 0..9 {
            press(&mut state, KeyCode::Down);
        }
        assert_eq!(state.row(Pane::Units), 2);
        state.update(Ok(snapshot("a")));
        assert_eq!(state.host(), Some("b"), "an old answer must not undo the choice");
        state.update(Ok(Snapshot { units: Vec::new(), ..snapshot("b") }));
        assert_eq!(state.row(Pane::Units), 0);
    }

    #[test]
    fn trouble_keeps_the_last_answer() {
        let mut state = State::new(None);
        state.update(Ok(snapshot("a")));
        state.update(Err("gone".into()));
        assert_eq!((state.trouble.as_deref(), state.snapshot.hosts.len()), (Some("gone"), 2));
        assert_eq!(press(&mut state, KeyCode::Char('q')), Next::Quit);
        press(&mut state, KeyCode::Char('?'));
        assert_eq!(press(&mut state, KeyCode::Esc), Next::Draw);
        assert_eq!(press(&mut state, KeyCode::Esc), Next::Quit);
    }
}
