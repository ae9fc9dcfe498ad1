//! What the tool says: results on stdout, errors on stderr. Every printing line of this crate is here.

/// Prints a line of the tool's result on stdout.
#[expect(clippy::print_stdout, reason = "a command line tool talks on stdout")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints a heading before a step that takes time.
pub(crate) fn step(text: &str) {
    line(&format!("==> {text}"));
}

/// Prints a line a child wrote on its stderr, unchanged.
#[expect(clippy::print_stderr, reason = "a child's errors and progress belong on stderr")]
pub(crate) fn error_line(text: &str) {
    eprintln!("{text}");
}

/// Prints why the command failed.
pub(crate) fn failure(text: &str) {
    error_line(&format!("xtask: {text}"));
}

/// Draws a table with aligned columns; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut drawn = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        drawn.push_str(format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end());
        drawn.push('\n');
        if index == 0 {
            let rules = widths.iter().map(|width| "-".repeat(*width));
            drawn.push_str(&format!("  {}\n", rules.collect::<Vec<_>>().join("  ")));
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_aligns_its_columns() {
        let rows = [vec!["step".to_owned(), "time".to_owned()], vec!["a".to_owned(), "12 s".to_owned()]];
        assert_eq!(table(&rows), "  step  time\n  ----  ----\n  a     12 s\n");
    }
}
