//! Tables for people: columns as wide as what is in them, the last one as long as it likes.

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    /// Lines in a cell would break the table: they become spaces, as do control characters that others wrote.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| {
            let cell: String = cell.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if cell.is_empty() { "-".to_owned() } else { cell }
        }));
    }

    pub(crate) fn text(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number of 1/1000 cores: `4`, `0.5`.
pub(crate) fn cores(milli: u64) -> String {
    match milli % 1000 {
        0 => (milli / 1000).to_string(),
        rest => format!("{}.{rest:03}", milli / 1000).trim_end_matches('0').to_owned(),
    }
}

/// A number of MiB: `512M`, `1.5G`.
pub(crate) fn size(mib: u64) -> String {
    if mib < 1024 {
        return format!("{mib}M");
    }
    let gib = mib / 1024;
    match mib % 1024 * 10 / 1024 {
        0 => format!("{gib}G"),
        tenths => format!("{gib}.{tenths}G"),
    }
}

/// A resource's amount, by its name.
pub(crate) fn amount(name: &str, amount: u64) -> String {
    match name {
        "cpu" => cores(amount),
        "memory" | "disk" => size(amount),
        _ => amount.to_string(),
    }
}

/// For people, to one unit: `8s`, `3m`, `2h`, `4d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_stay_on_their_line() {
        let mut table = Table::new(["JOB", "WHY"]);
        table.row(["a-long-name".to_owned(), "two\nlines\u{1b}[2J".to_owned()]);
        table.row(["ü".to_owned(), String::new()]);
        assert_eq!(table.text(), "JOB          WHY\na-long-name  two lines [2J\nü            -\n");
    }

    #[test]
    fn amounts_have_the_units_of_their_names() {
        let all =
            [("cpu", 500), ("cpu", 4_000), ("cpu", 1_250), ("memory", 512), ("disk", 1_536), ("gpu", 2)];
        let texts = all.map(|(name, of)| amount(name, of));
        assert_eq!(texts, ["0.5", "4", "1.25", "512M", "1.5G", "2"]);
        assert_eq!(size(10 * 1024), "10G");
        assert_eq!(size(u64::MAX), "18014398509481983.9G");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        assert_eq!(
            [0, 59, 60, 3_599, 3_600, 86_399, 86_400].map(age),
            ["0s", "59s", "1m", "59m", "1h", "23h", "1d"]
        );
    }
}
