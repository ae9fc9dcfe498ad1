//! Who may connect, and what they may publish and subscribe to beyond a device's own topics.

use std::path::PathBuf;

use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};
use crate::mqtt::access::{Action, Effect, FILTER_BYTES_MAX, PatternError, Rule};

/// Most rules: each is asked about for every publish that no earlier one decides on.
const RULES_MAX: usize = 1000;

const ANONYMOUS: Key = Key {
    name: "anonymous",
    value: Value::Choice(&["refuse", "allow"]),
    default: Preset::Is("refuse"),
    help: "What happens to a client without a user name. `allow` is for tests and closed networks: the client id is believed.",
};
const USERS_FILE: Key = Key {
    name: "users_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "Who may connect: one line per user, see docs/formats/users-file.md.",
};

const EFFECT: Key = Key {
    name: "effect",
    value: Value::Choice(&["allow", "deny"]),
    default: Preset::Required,
    help: "What the rule says.",
};
const ACTION: Key = Key {
    name: "action",
    value: Value::Choice(&["publish", "subscribe", "all"]),
    default: Preset::Is("all"),
    help: "What it is about. Nobody may publish to `$SYS/#`, whatever a rule says.",
};
const FILTER: Key = Key {
    name: "filter",
    value: Value::Text { chars_max: FILTER_BYTES_MAX },
    default: Preset::Required,
    help: "The topics it is about: a topic filter, in which a whole level may also be `{device}`, `{client}` or `{user}`, the client's own. Leading wildcards take in topics that start with `$`. A rule about subscriptions fits one whose every topic it matches; without the `$share` and group of a shared one.",
};
const USER: Key = Key {
    name: "user",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "The user it binds, as the users file names it. Not set: everyone.",
};
const TOLD: Key = Key {
    name: "told",
    value: Value::Choice(&["not-authorized", "unspecified"]),
    default: Preset::Unset,
    help: "With `deny` only: the reason that MQTT 5 clients are told, 0x87 (if not set) or 0x80.",
};

const RULE_SHAPE: Shape = Shape::list(
    "rule",
    "What clients may do besides a device's publishes under `[[mqtt.topic]]` and its subscriptions inside its own topics, which need no rule. At most 1000, tried in the order of the file; the first that fits decides. What none fits is denied. A subscription that is allowed although an earlier rule denies a part of it gets no messages of that part.",
    &[EFFECT, ACTION, FILTER, USER, TOLD],
);
pub(super) const SHAPE: Shape =
    Shape::table("access", "Who may connect.", &[ANONYMOUS, USERS_FILE]).with(&[RULE_SHAPE]);

/// Who may connect, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Clients without a user name are let in.
    pub anonymous: bool,
    /// The users file.
    pub users_file: Option<PathBuf>,
    /// What they may publish and subscribe to, in order.
    pub rules: Vec<Rule>,
}

// === impl Access ===

impl Access {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let anonymous = section.choice(&ANONYMOUS)? == "allow";
        let users_file = section.path_if_set(&USERS_FILE)?;
        let mut tables = section.children(&RULE_SHAPE)?;
        if let Some(more) = tables.get_mut(RULES_MAX) {
            let filter = more.text(&FILTER)?;
            return Err(more.refuse(&FILTER, &filter, &format!("at most {RULES_MAX} rules")));
        }
        let rules = tables.iter_mut().map(read_rule).collect::<Result<_, _>>()?;
        Ok(Self { anonymous, users_file, rules })
    }
}

fn read_rule(section: &mut Section) -> Result<Rule, ConfigError> {
    let allow = section.choice(&EFFECT)? == "allow";
    let action = match section.choice(&ACTION)?.as_str() {
        "publish" => Action::Publish,
        "subscribe" => Action::Subscribe,
        _ => Action::All,
    };
    let text = section.text(&FILTER)?;
    let filter = text.parse();
    let filter = filter.map_err(|error: PatternError| section.refuse(&FILTER, &text, &error.to_string()))?;
    let user = section.text_if_set(&USER)?;
    let effect = match (allow, section.text_if_set(&TOLD)?.as_deref()) {
        (true, None) => Effect::Allow,
        (true, Some(told)) => return Err(section.refuse(&TOLD, told, "nothing beside effect = \"allow\"")),
        (false, Some("unspecified")) => Effect::DenyUnspecified,
        (false, _) => Effect::Deny,
    };
    Ok(Rule { effect, action, filter, user })
}
