//! Tables as kubectl and argocd align them: columns two blanks apart, nothing after the last one.

use super::{colour_of, painted};

/// A table with a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds columns on the right.
    pub(crate) fn columns(mut self, headers: &[&'static str]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }

    /// Adds a row; cells beyond the header are dropped when printing, missing ones are empty.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The text, each line ended.
    pub(crate) fn render(&self, colour: bool) -> String {
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
        let widths: Vec<usize> = self
            .headers
            .iter()
            .enumerate()
            .map(|(column, header)| {
                let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
                cells.max().unwrap_or_default().max(width(header))
            })
            .collect();
        let mut text = String::new();
        let headers: Vec<String> = self.headers.iter().map(|header| (*header).to_owned()).collect();
        append(&mut text, &headers, &widths, false);
        for row in &rows {
            append(&mut text, row, &widths, colour);
        }
        text
    }
}

fn append(text: &mut String, cells: &[String], widths: &[usize], colour: bool) {
    let mut line = String::new();
    let mut owed = 0;
    for (column, target) in widths.iter().enumerate() {
        let cell = cells.get(column).map_or("", String::as_str);
        if !cell.is_empty() {
            line.extend(std::iter::repeat_n(' ', owed));
            owed = 0;
            match colour_of(cell) {
                Some(shade) if colour => line.push_str(&painted(cell, shade)),
                _ => line.push_str(cell),
            }
        }
        owed += target.saturating_sub(width(cell)) + GAP;
    }
    text.push_str(&line);
    text.push('\n');
}

/// One line without control characters: a line feed or tab becomes a blank, an escape a replacement character.
pub(crate) fn clean(text: &str) -> String {
    let line = text.trim_end();
    line.chars()
        .map(|letter| match letter {
            '\n' | '\r' | '\t' => ' ',
            letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
            letter => letter,
        })
        .collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Blanks between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", "STATUS"]).columns(&["MESSAGE"]);
        table.row(["argocd/a", "Synced", ""]);
        table.row(["argocd/longer", "", "it\nfailed\u{1b}[2J"]);
        let expected = "\
NAME           STATUS  MESSAGE
argocd/a       Synced
argocd/longer          it failed\u{fffd}[2J
";
        assert_eq!(table.render(false), expected);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["A", "HEALTH", "C"]);
        table.row(["x", "Healthy", "y"]);
        table.row(["Grün", "Degraded", "z"]);
        let plain = table.render(true).replace("\u{1b}[32m", "").replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, table.render(false));
        assert!(table.render(true).contains("\u{1b}[31mDegraded\u{1b}[0m"));
    }
}
