// SPDX-License-Identifier: Apache-2.0
//! Tables whose columns line up by what a terminal shows, not by bytes.

use unicode_width::UnicodeWidthStr;

use super::harmless;

/// Blanks between columns, as Docker's tables have them.
const GAP: usize = 3;

/// Rows under a heading.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns whose cells stand at their right edge.
    right: Vec<usize>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Table {
        Table { rows: vec![heading.iter().map(ToString::to_string).collect()], right: Vec::new() }
    }

    /// A table without a heading.
    pub(crate) fn bare() -> Table {
        Table { rows: Vec::new(), right: Vec::new() }
    }

    /// Lets these columns, of numbers, line up at their right edge.
    pub(crate) fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Table {
        self.right.extend(columns);
        self
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
    }

    /// The lines; the last column is not filled up.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
                let fill = std::iter::repeat_n(' ', width - cell.width());
                if self.right.contains(&column) {
                    line.extend(fill);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.extend(fill);
                }
                line.extend(std::iter::repeat_n(' ', GAP));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_line_up_by_display_width() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["日本".to_owned(), "1".to_owned()]);
        table.row(["plain-name".to_owned(), "22".to_owned()]);
        table.row(["bad\x1b[2J".to_owned(), String::new()]);
        expect![[r"
            NAME         SIZE
            日本         1
            plain-name   22
            bad�[2J
        "]]
        .assert_eq(&table.render());
    }
}
