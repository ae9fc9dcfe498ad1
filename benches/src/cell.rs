//! A cell of the comparison: connections times window.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Most connections of a cell.
pub const CONNECTIONS_MAX: u32 = 20_000;

/// Widest window; the gateway serves a client's publishes in flight up to its own bound.
pub const WINDOW_MAX: u16 = 1_000;

/// How many connections publish at once, and how many publishes each keeps in flight; written `50x16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Connections, 1 to [`CONNECTIONS_MAX`].
    pub connections: u32,
    /// Publishes in flight on each connection, 1 to [`WINDOW_MAX`].
    pub window: u16,
}

/// A text that is no cell.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not connections x window, such as 50x16 (at most {CONNECTIONS_MAX}x{WINDOW_MAX})")]
pub struct CellError(String);

impl FromStr for Cell {
    type Err = CellError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CellError(text.to_owned());
        let (connections, window) = text.split_once('x').ok_or_else(error)?;
        let connections = connections.parse().map_err(|_| error())?;
        let window = window.parse().map_err(|_| error())?;
        let fits = (1..=CONNECTIONS_MAX).contains(&connections) && (1..=WINDOW_MAX).contains(&window);
        fits.then_some(Self { connections, window }).ok_or_else(error)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.window)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_reads_as_it_is_written() {
        let cell: Cell = "1000x16".parse().unwrap();
        assert_eq!(cell, Cell { connections: 1000, window: 16 });
        assert_eq!(cell.to_string(), "1000x16");
    }

    #[test]
    fn what_is_no_cell_is_refused() {
        for text in ["", "50", "0x16", "50x0", "50x-1", "50X16", "20001x1", "1x1001"] {
            assert_eq!(text.parse::<Cell>(), Err(CellError(text.to_owned())));
        }
    }
}
