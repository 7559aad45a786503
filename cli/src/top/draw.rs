//! Paints the state of `holdfast top`.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState},
};

use super::{
    keys,
    state::{Pane, State},
};
use crate::{
    hosts::State as HostState,
    rows::{DeviceRow, InterfaceRow, UnitRow},
};

/// Below this width the hosts stand above the units, not beside them.
const WIDE: u16 = 110;

/// Paints one frame.
pub(crate) fn frame(frame: &mut Frame<'_>, state: &State, color: bool) {
    let [head, summary, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Min(5),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(state, color), head);
    frame.render_widget(
        Paragraph::new(state.snapshot.summary.lines().map(Line::from).to_vec()),
        summary,
    );
    panes(frame, body, state, color);
    frame.render_widget(footline(state, color), foot);
    if state.help {
        help(frame);
    }
}

fn headline(state: &State, color: bool) -> Line<'static> {
    let hosts = &state.snapshot.hosts;
    let count = |wanted| hosts.iter().filter(|host| host.state == wanted).count();
    let (up, late, lost) = (count(HostState::Up), count(HostState::Late), count(HostState::Lost));
    let plural = if hosts.len() == 1 { "" } else { "s" };
    let mut spans = vec![
        Span::styled("holdfast top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("   {} host{plural}: {up} up", hosts.len())),
    ];
    if late > 0 {
        spans.push(Span::styled(format!(", {late} late"), paint(color, Color::Yellow)));
    }
    if lost > 0 {
        spans.push(Span::styled(format!(", {lost} lost"), paint(color, Color::Red)));
    }
    if let Some(selected) = &state.snapshot.selected {
        spans.push(Span::raw(format!("   {selected}")));
    }
    Line::from(spans)
}

fn footline(state: &State, color: bool) -> Line<'static> {
    match &state.trouble {
        Some(trouble) => Line::styled(trouble.clone(), paint(color, Color::Red)),
        None => Line::raw("Tab pane   Up/Down move   s sort   ? keys   q quit"),
    }
}

fn panes(frame: &mut Frame<'_>, area: Rect, state: &State, color: bool) {
    let snapshot = &state.snapshot;
    let lists = Constraint::Length(
        u16::try_from(snapshot.devices.len().max(snapshot.interfaces.len()))
            .unwrap_or(8)
            .clamp(2, 8)
            + 3,
    );
    let (hosts_area, rest) = if area.width >= WIDE {
        let [hosts, rest] =
            Layout::horizontal([Constraint::Length(28), Constraint::Min(40)]).areas(area);
        (hosts, rest)
    } else {
        let rows = u16::try_from(snapshot.hosts.len()).unwrap_or(4).clamp(1, 4) + 2;
        let [hosts, rest] =
            Layout::vertical([Constraint::Length(rows), Constraint::Min(4)]).areas(area);
        (hosts, rest)
    };
    let (units_area, devices_area, interfaces_area) = if rest.width >= WIDE {
        let [units, below] = Layout::vertical([Constraint::Min(5), lists]).areas(rest);
        let [devices, interfaces] =
            Layout::horizontal([Constraint::Min(60), Constraint::Length(48)]).areas(below);
        (units, devices, interfaces)
    } else {
        let [units, devices, interfaces] =
            Layout::vertical([Constraint::Min(5), lists, lists]).areas(rest);
        (units, devices, interfaces)
    };

    let hosts = snapshot.hosts.iter().map(|host| {
        let style = match host.state {
            HostState::Up => paint(color, Color::Green),
            HostState::Late | HostState::Unknown => paint(color, Color::Yellow),
            HostState::Lost => paint(color, Color::Red),
        };
        Row::new([Cell::from(host.host.clone()), Cell::from(host.state.name()).style(style)])
    });
    let hosts = Table::new(hosts, [Constraint::Min(8), Constraint::Length(4)]);
    pane(frame, hosts_area, state, Pane::Hosts, "hosts", hosts);

    let title = format!("units by {}", state.sort.name());
    let units = snapshot.units.iter().map(|unit| (unit.unit.clone(), unit.cells()));
    let units = table("UNIT", UnitRow::TITLES, [9, 9, 9, 9, 7, 7], units);
    pane(frame, units_area, state, Pane::Units, &title, units);

    let devices = snapshot.devices.iter().map(|device| (device.device.clone(), device.cells()));
    let devices = table("DEVICE", DeviceRow::TITLES, [8, 8, 9, 9, 11, 11, 7], devices);
    pane(frame, devices_area, state, Pane::Devices, "devices", devices);

    let interfaces = snapshot.interfaces.iter().map(|i| (i.interface.clone(), i.cells()));
    let interfaces = table("INTERFACE", InterfaceRow::TITLES, [11, 11, 6, 6], interfaces);
    pane(frame, interfaces_area, state, Pane::Interfaces, "interfaces", interfaces);
}

/// A name that takes what is left, and numbers of fixed widths.
fn table<const N: usize>(
    name: &'static str,
    titles: [&'static str; N],
    widths: [u16; N],
    rows: impl Iterator<Item = (String, [String; N])>,
) -> Table<'static> {
    let number = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let row = |name: String, cells: [String; N]| {
        Row::new(std::iter::once(Cell::from(name)).chain(cells.map(number)))
    };
    let head = row(name.to_owned(), titles.map(str::to_owned));
    let constraints = std::iter::once(Constraint::Min(8)).chain(widths.map(Constraint::Length));
    Table::new(rows.map(|(name, cells)| row(name, cells)), constraints)
        .header(head.style(Style::new().add_modifier(Modifier::BOLD)))
}

fn pane(
    frame: &mut Frame<'_>,
    area: Rect,
    state: &State,
    pane: Pane,
    title: &str,
    table: Table<'_>,
) {
    let chosen = state.pane == pane;
    let emphasis = if chosen { Modifier::BOLD } else { Modifier::DIM };
    let block = Block::bordered()
        .title(format!(" {title} "))
        .border_style(Style::new().add_modifier(emphasis));
    let highlight =
        if chosen || pane == Pane::Hosts { Modifier::REVERSED } else { Modifier::empty() };
    let table = table.block(block).row_highlight_style(Style::new().add_modifier(highlight));
    let mut position = TableState::new().with_selected(Some(state.row(pane)));
    frame.render_stateful_widget(table, area, &mut position);
}

fn help(frame: &mut Frame<'_>) {
    let height = u16::try_from(keys::TEXT.lines().count()).unwrap_or(8) + 2;
    let width =
        u16::try_from(keys::TEXT.lines().map(str::len).max().unwrap_or(60)).unwrap_or(60) + 4;
    let area = frame.area().centered(Constraint::Length(width), Constraint::Length(height));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(keys::TEXT).block(Block::bordered()), area);
}

fn paint(color: bool, hue: Color) -> Style {
    if color { Style::new().fg(hue) } else { Style::new() }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{
        catalogue::Catalogue,
        hosts::{Host, tests::info},
        top::{plain, snapshot::Snapshot},
        value::{
            all,
            tests::{latest, latest_histogram},
        },
    };

    fn snapshot() -> Snapshot {
        let values = all(
            &[
                latest("cpu.load1", v1::Owner::Host, "", 0.5),
                latest("cpu.pressure.some.time", v1::Owner::Host, "", 2e7),
                latest_histogram("disk.read.latency", v1::Owner::Device, "vda"),
                latest("network.receive.bytes", v1::Owner::Interface, "eth0", 2048.0),
                latest("cpu.on_cpu.time", v1::Owner::Unit, "nginx.service", 2.5e8),
            ],
            &Catalogue::default(),
        );
        let hosts = vec![
            Host::from_wire(&info("web1", v1::HostState::Up)),
            Host::from_wire(&info("web2", v1::HostState::Lost)),
        ];
        Snapshot::new(hosts, "web1", &values, vec![UnitRow::new("nginx.service", true, &values)])
    }

    fn screen(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|f| frame(f, state, true)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_on_a_screen_of_80_by_24() {
        let mut state = State::new(None);
        state.update(Ok(snapshot()));
        let screen = screen(&state, 80, 24);
        for part in [
            "2 hosts: 1 up, 1 lost",
            "web2",
            "LOST",
            "nginx.service",
            "25.0 %",
            "vda",
            "2.88 ms",
            "eth0",
            "2 KiB/s",
            "pressure cpu 2.0 %",
            "q quit",
        ] {
            assert!(screen.contains(part), "no {part:?} in\n{screen}");
        }
    }

    #[test]
    fn any_size_can_be_drawn() {
        let mut state = State::new(None);
        state.update(Ok(snapshot()));
        state.help = true;
        for (width, height) in [(1, 1), (10, 3), (40, 10), (200, 60)] {
            screen(&state, width, height);
        }
        state.update(Err("cannot reach the collector".into()));
        assert!(screen(&state, 200, 60).contains("cannot reach the collector"));
    }

    #[test]
    fn the_plain_form_names_the_same_rows() {
        let text = plain::text(&snapshot(), &crate::output::plain());
        for part in ["web2", "nginx.service  25.0 %", "vda", "eth0"] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
