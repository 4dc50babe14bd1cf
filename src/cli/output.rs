//! What commands print on standard output: aligned columns for people, JSON
//! for programs. A reader that goes away early (`| head`) is no error.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use serde::Serialize;

use crate::telemetry::text::{Controls, one_line};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// Rows under headers. Control characters in a cell are escaped: names come
/// from users, and the terminal is an admin's.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headers: [&str; N]) -> Self {
        Self { rows: vec![headers.map(str::to_owned).to_vec()] }
    }

    /// Missing cells are empty.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| on_one_line(cell.as_ref())).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Prints the value as JSON or as the table made of it.
pub fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> Table,
) -> io::Result<()> {
    match format {
        Format::Table => write(table(value).to_string().as_bytes()),
        Format::Json => json(value),
    }
}

/// Prints the value as indented JSON.
pub fn json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write(&text)
}

/// Prints text as it is.
pub fn write(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Text from somewhere else, made safe for a terminal and cut to 4 KiB.
pub fn on_one_line(text: &str) -> String {
    one_line(format_args!("{text}"), Controls::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_stay_on_their_line() {
        let mut table = Table::new(["NAME", "ROLE"]);
        table.row(["ünï", "admin"]);
        table.row(["a\x1b[2J\nroot", ""]);
        assert_eq!(
            table.to_string(),
            "NAME              ROLE\n\
             ünï               admin\n\
             a\\u{1b}[2J\\nroot\n"
        );
    }
}
