//! Tables, sizes and times for people.

/// Rows with columns of equal width: the first to the left, the others to the right; a last column
/// that is words stays ragged.
pub(super) fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let cell = if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            line.push_str(gap);
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One row of a table.
pub(super) fn row<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

/// Bytes with three digits or so.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut shown = (bytes, "B");
    let mut scale = 1_u64;
    for unit in UNITS {
        scale = scale.saturating_mul(1024);
        if bytes < scale {
            break;
        }
        shown = (scale, unit);
    }
    let (scale, unit) = shown;
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    if tenths < 1000 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

/// A length of time in its two largest units.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes as two hexadecimal digits each.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 0xf].map(|half| char::from_digit(half.into(), 16));
    bytes.iter().flat_map(digits).flatten().collect()
}

/// The first `most` bytes as printable text, with everything else escaped.
pub(super) fn beginning(bytes: &[u8], most: usize) -> String {
    let shown = bytes.get(..most).unwrap_or(bytes);
    let more = if shown.len() < bytes.len() { "…" } else { "" };
    let quotes = |byte: &u8| matches!(byte, b'"' | b'\'');
    let mut text = String::with_capacity(shown.len() + more.len());
    for part in shown.chunk_by(|a, b| quotes(a) == quotes(b)) {
        if part.first().is_some_and(quotes) {
            text.extend(part.iter().map(|byte| char::from(*byte)));
        } else {
            text.push_str(&part.escape_ascii().to_string());
        }
    }
    text + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, 150 << 20, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "150 MiB", "16777215 TiB"]);
        let ages = [0, 59_999, 61_000, 7_200_000, 90_000_000].map(age);
        assert_eq!(ages, ["0 s", "59 s", "1 min 1 s", "2 h 0 min", "1 d 1 h"]);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [row([&"lane", &"next"]), row([&"telemetry", &1]), row([&"dead", &12_345])];
        assert_eq!(table(&rows, 1), "lane        next\ntelemetry      1\ndead       12345\n");
    }

    #[test]
    fn payloads_are_shown_without_control_characters() {
        assert_eq!(beginning(b"{\"a\":1}\n\x1b[2J\xff", 100), r#"{"a":1}\n\x1b[2J\xff"#);
        assert_eq!(beginning(b"abcdef", 3), "abc…");
        assert_eq!(hex(&[0, 0xfe]), "00fe");
    }
}
