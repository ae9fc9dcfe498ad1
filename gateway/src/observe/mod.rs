//! Logging and metrics.
//!
//! A metric is declared once, in its stage's `metrics.rs`, as a [`Metric`]; handles are made from
//! the declaration at start and counted through afterwards. `docs/metrics.md` is compared with the
//! declarations by a test.

mod log;
mod metric;
mod reference;

pub use log::{Format, LogConfig, start_logging};
pub use metric::{
    Kind, Metric, Renderer, counter, counter_with, counter_with_two, gauge, gauge_with, histogram, install,
};
pub use reference::reference;
