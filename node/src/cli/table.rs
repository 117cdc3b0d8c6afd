//! Plain tables: aligned columns, no frames, so that `awk` reads them too.

use super::output::{Painter, Style};
use super::units::printable;

/// One field of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// Text, to the left. An empty one is shown as `-`, so that columns can be counted.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = printable(text.as_ref());
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, style: Style::Plain, right: false }
    }

    /// A number, to the right.
    pub fn number(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::new(text) }
    }

    /// The same, standing out.
    #[must_use]
    pub fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A table that grows by rows.
#[derive(Debug)]
pub struct Table {
    header: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Self {
        Self { header: columns.iter().map(|name| Cell::new(name).styled(Style::Bold)).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as text, line feeds included.
    pub fn render(&self, painter: Painter) -> String {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let columns = all().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns)
            .map(|column| all().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0))
            .collect();
        let rights: Vec<_> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).any(|cell| cell.right))
            .collect();
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.width());
                let shown = painter.paint(cell.style, &cell.text);
                let last = column + 1 == row.len();
                match (rights[column], last) {
                    (true, _) => line.extend([padding, shown]),
                    (false, true) => line.push_str(&shown),
                    (false, false) => line.extend([shown, padding]),
                }
                if !last {
                    line.push_str("  ");
                }
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["NAME", "SIZE", "NOTE"]);
        table.row(vec![Cell::new("a"), Cell::number("1.0 KiB"), Cell::new("x")]);
        table.row(vec![Cell::new("longer"), Cell::number("5 B"), Cell::new("")]);
        assert_eq!(
            table.render(Painter::new(false)),
            "NAME       SIZE  NOTE\na       1.0 KiB  x\nlonger      5 B  -\n"
        );
    }

    #[test]
    fn colours_do_not_shift_columns_and_foreign_text_cannot_add_any() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![Cell::new("\u{1b}[31mred").styled(Style::Good), Cell::new("z")]);
        assert_eq!(
            table.render(Painter::new(true)),
            "\u{1b}[1mA\u{1b}[0m         \u{1b}[1mB\u{1b}[0m\n\u{1b}[32m\u{fffd}[31mred\u{1b}[0m  z\n"
        );
    }
}
