//! Limits that figures are held against.

use std::fmt::Write;

use serde::Serialize;

/// A limit and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What is limited.
    pub name: String,
    /// The measured figure.
    pub measured: f64,
    /// The largest figure that passes, or the smallest where the name says so.
    pub limit: f64,
    /// Whether it holds.
    pub pass: bool,
}

impl Bar {
    pub(crate) fn at_most(name: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { name: name.into(), measured, limit, pass: measured <= limit }
    }

    pub(crate) fn at_least(name: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { name: format!("{}, at least", name.into()), measured, limit, pass: measured >= limit }
    }

    /// Writes bars as a table, if there are any.
    pub(crate) fn write(bars: &[Self], text: &mut String) -> std::fmt::Result {
        if !bars.is_empty() {
            writeln!(text, "\n| bar | measured | limit | |\n|---|---|---|---|")?;
        }
        for bar in bars {
            let word = if bar.pass { "met" } else { "**missed**" };
            writeln!(text, "| {} | {} | {} | {word} |", bar.name, figure(bar.measured), figure(bar.limit))?;
        }
        Ok(())
    }

    /// Whether every bar holds.
    pub(crate) fn all(bars: &[Self]) -> bool {
        bars.iter().all(|bar| bar.pass)
    }
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_holds_at_its_limit_and_says_so() {
        let bars = [
            Bar::at_most("share", 0.3, 0.3),
            Bar::at_most("bytes", 2561.0, 2560.0),
            Bar::at_least("rate", 0.5, 0.6),
        ];
        assert!(Bar::all(&bars[..1]) && !Bar::all(&bars));
        let mut text = String::new();
        Bar::write(&bars, &mut text).unwrap();
        let lines = [
            "| share | 0.30 | 0.30 | met |",
            "| bytes | 2561 | 2560 | **missed** |",
            "| rate, at least | 0.50 | 0.60 | **missed** |",
        ];
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
    }
}
