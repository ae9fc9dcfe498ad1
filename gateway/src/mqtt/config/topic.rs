//! What devices may publish.

use penstock_proto::Lane;

use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};
use crate::mqtt::template::Template;

const TEMPLATE: Key = Key {
    name: "template",
    value: Value::Text { chars_max: 256 },
    default: Preset::Required,
    help: "A topic, with `{tenant}`, `{site}`, `{class}`, `{device}` and `{stream}` standing for one whole level each. `{device}` must be there.",
};
const LANE: Key = Key {
    name: "lane",
    value: Value::Choice(&["alerts", "status", "telemetry", "bulk"]),
    default: Preset::Is("telemetry"),
    help: "The lane of the outbox that its publishes are stored in.",
};

pub(super) const SHAPE: Shape = Shape::list(
    "topic",
    "What devices may publish, tried in the order of the file. Without any: `devices/{device}/telemetry` and `devices/{device}/telemetry/{stream}`, both in lane telemetry.",
    &[TEMPLATE, LANE],
);

/// One topic template and its lane.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The template, valid.
    pub template: String,
    /// The lane of its publishes.
    pub lane: Lane,
}

// === impl Topic ===

impl Topic {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let template = section.text(&TEMPLATE)?;
        let lane = lane(&section.choice(&LANE)?);
        if let Err(error) = Template::parse(&template, lane) {
            return Err(section.refuse(&TEMPLATE, &template, &error.to_string()));
        }
        Ok(Self { template, lane })
    }

    /// The topics of a configuration that names none.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let telemetry = |template: &str| Self { template: template.to_owned(), lane: Lane::Telemetry };
        vec![telemetry("devices/{device}/telemetry"), telemetry("devices/{device}/telemetry/{stream}")]
    }
}

fn lane(name: &str) -> Lane {
    Lane::ALL.into_iter().find(|lane| lane.name() == name).unwrap_or(Lane::Telemetry)
}
