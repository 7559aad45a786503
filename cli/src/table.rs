//! Tables without lines: columns as wide as they must be, wrapped to the terminal.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Row, TableStyle};

use crate::output::Look;

/// A column's title and the side its cells lean to.
pub(crate) struct Column(&'static str, CellAlignment);

/// A column of text.
pub(crate) const fn left(title: &'static str) -> Column {
    Column(title, CellAlignment::Left)
}

/// A column of numbers.
pub(crate) const fn right(title: &'static str) -> Column {
    Column(title, CellAlignment::Right)
}

/// How much a cell's content should worry the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

/// A table under construction.
pub(crate) struct Table {
    table: comfy_table::Table,
    color: bool,
}

impl Table {
    /// An empty table for `look`.
    pub(crate) fn new(look: &Look, columns: &[Column]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new()).force_no_tty();
        if look.color {
            table.enforce_styling();
        }
        if let Some(width) = look.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        let title = |column: &Column| {
            let cell = Cell::new(column.0);
            if look.color { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(columns.iter().map(title).collect::<Vec<_>>());
        let last = columns.len().saturating_sub(1);
        for (index, (column, made)) in columns.iter().zip(table.column_iter_mut()).enumerate() {
            made.set_cell_alignment(column.1);
            made.set_padding((0, if index == last { 0 } else { 2 }));
        }
        Self { table, color: look.color }
    }

    /// Adds a row of plain text.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.toned(cells.map(|cell| (cell, Tone::Plain)));
    }

    /// Adds a row of plain text, of as many cells as there are columns.
    pub(crate) fn plain(&mut self, cells: Vec<String>) {
        self.toned(cells.into_iter().map(|cell| (cell, Tone::Plain)));
    }

    /// Adds a row of text with a tone for each cell.
    pub(crate) fn toned(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        let cell = |(text, tone): (String, Tone)| {
            let cell = Cell::new(text);
            match tone {
                _ if !self.color => cell,
                Tone::Plain => cell,
                Tone::Good => cell.fg(Color::Green),
                Tone::Warning => cell.fg(Color::Yellow),
                Tone::Bad => cell.fg(Color::Red),
                Tone::Faint => cell.add_attribute(Attribute::Dim),
            }
        };
        let row: Row = cells.into_iter().map(cell).collect::<Vec<_>>().into();
        self.table.add_row(row);
    }

    /// The text, each line ended; `none` when there is no row.
    pub(crate) fn finish(self, none: &str) -> String {
        if self.table.is_empty() {
            return format!("{none}\n");
        }
        format!("{}\n", self.table.trim_fmt())
    }
}

/// Lines of a name and a value, the values below each other.
pub(crate) fn pairs<const N: usize>(pairs: &[(&str, String); N]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::plain;

    fn table(look: &Look) -> String {
        let mut table = Table::new(look, &[left("NAME"), right("CPU"), left("WHY")]);
        table.row(["a".into(), "12.5 %".into(), "it is busy".into()]);
        table.toned([
            ("long".into(), Tone::Bad),
            ("1 %".into(), Tone::Plain),
            (String::new(), Tone::Faint),
        ]);
        table.finish("nothing")
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        assert_eq!(table(&plain()), "NAME     CPU  WHY\na     12.5 %  it is busy\nlong     1 %\n");
    }

    #[test]
    fn narrow_terminals_wrap_and_colour_comes_only_when_asked() {
        let narrow = table(&Look { width: Some(20), ..plain() });
        assert!(narrow.lines().all(|line| line.chars().count() <= 20), "{narrow}");
        assert!(!narrow.contains('\u{1b}'));
        assert!(table(&Look { color: true, ..plain() }).contains("\u{1b}[38;5;9m"));
    }

    #[test]
    fn empty_tables_say_so() {
        assert_eq!(Table::new(&plain(), &[left("A")]).finish("no hosts"), "no hosts\n");
        assert_eq!(pairs(&[("a", "1".into()), ("bcd", String::new())]), "a    1\n");
    }
}
