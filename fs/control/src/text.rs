//! Text for people: sizes, ages, and tables whose columns line up.

use std::fmt::Write as _;

/// "1.5 GiB".
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// "3 min ago".
#[must_use]
pub fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// "1 group", "2 groups".
#[must_use]
pub(crate) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Rows under a heading, columns as wide as their widest cell.
#[derive(Clone, Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    #[must_use]
    pub fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    #[must_use]
    pub fn render(&self) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..N).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ").expect("a String grows");
            }
            writeln!(out, "{}", line.trim_end()).expect("a String grows");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages() {
        assert_eq!((size(1023), size(3 << 29)), ("1023 B".to_owned(), "1.5 GiB".to_owned()));
        assert_eq!((ago(600), ago(700_000)), ("10 min ago".to_owned(), "8 d ago".to_owned()));
        assert_eq!((count(1, "group"), count(0, "group")), ("1 group".to_owned(), "0 groups".to_owned()));
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["a", "bbb"]);
        table.row(["cccc".into(), "d".into()]);
        assert_eq!(table.render(), "a     bbb\ncccc  d\n");
    }
}
