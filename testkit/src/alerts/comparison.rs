//! Alerts of a gateway that was killed against those of one that was not, over the same log.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// What makes an event the same one: consumers drop the second with the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// `source` of the `CloudEvent`.
    pub source: String,
    /// Its `id`.
    pub id: String,
}

/// What two sets of events have not in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Events of both.
    pub common: u64,
    /// Events of the undisturbed run that the killed one has not.
    pub missing: Vec<Name>,
    /// Events of the killed run that the undisturbed one has not.
    pub surplus: Vec<Name>,
    /// Events whose contents differ: between the runs, or within one of them.
    pub different: Vec<Name>,
    /// Events without a source or an id.
    pub nameless: u64,
    /// Repeated events of the killed run; delivery is at least once.
    pub duplicated: u64,
}

/// Compares the events of a killed run with those of an undisturbed one, by name and then by content.
///
/// `except` are JSON pointers (such as `/time`) to what may differ.
#[must_use]
pub fn compare(killed: &[Value], undisturbed: &[Value], except: &[&str]) -> Comparison {
    let mut found = Comparison::default();
    let (killed, repeats) = found.by_name(killed, except);
    found.duplicated = repeats;
    let (undisturbed, _) = found.by_name(undisturbed, except);
    for (name, event) in &killed {
        match undisturbed.get(name) {
            Some(other) => {
                found.common += 1;
                if other != event {
                    found.different.push(name.clone());
                }
            }
            None => found.surplus.push(name.clone()),
        }
    }
    let missing = undisturbed.into_keys().filter(|name| !killed.contains_key(name));
    found.missing = missing.collect();
    found.different.sort_unstable();
    found.different.dedup();
    found
}

// === impl Comparison ===

impl Comparison {
    /// Whether both runs told the same: the same names with the same contents.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.nameless == 0 && self.missing.is_empty() && self.surplus.is_empty() && self.different.is_empty()
    }

    /// The events by name, without what may differ, and how many came again.
    fn by_name(&mut self, events: &[Value], except: &[&str]) -> (BTreeMap<Name, Value>, u64) {
        let (mut named, mut repeats) = (BTreeMap::new(), 0);
        for event in events {
            let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
            let Some((source, id)) = text("source").zip(text("id")) else {
                self.nameless += 1;
                continue;
            };
            let mut event = event.clone();
            for pointer in except {
                if let Some(value) = event.pointer_mut(pointer) {
                    *value = Value::Null;
                }
            }
            let name = Name { source, id };
            match named.get(&name) {
                None => drop(named.insert(name, event)),
                Some(known) => {
                    repeats += 1;
                    if *known != event {
                        self.different.push(name);
                    }
                }
            }
        }
        (named, repeats)
    }
}

// === impl Name ===

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.id, self.source)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, value: f64) -> Value {
        json!({ "source": "/gateways/a", "id": id, "time": "1970-01-01T00:00:00Z", "data": { "value": value } })
    }

    fn names(names: &[Name]) -> Vec<&str> {
        names.iter().map(|name| name.id.as_str()).collect()
    }

    #[test]
    fn order_and_repeats_make_no_difference() {
        let undisturbed = [event("a:1", 1.0), event("a:2", 2.0)];
        let killed = [event("a:2", 2.0), event("a:1", 1.0), event("a:2", 2.0)];
        let found = compare(&killed, &undisturbed, &[]);
        assert!(found.is_equal(), "{found:?}");
        assert_eq!((found.common, found.duplicated), (2, 1));
    }

    #[test]
    fn what_only_one_of_them_told_is_named() {
        let found = compare(
            &[event("a:1", 1.0), event("c:1", 3.0)],
            &[event("a:1", 1.0), event("b:1", 2.0), event("b:2", 2.0)],
            &[],
        );
        assert_eq!((names(&found.missing), names(&found.surplus)), (vec!["b:1", "b:2"], vec!["c:1"]));
        assert!(!found.is_equal());
        assert_eq!(found.missing[0].to_string(), "b:1 of /gateways/a");
    }

    #[test]
    fn the_same_id_of_another_source_is_another_event() {
        let mut other = event("a:1", 1.0);
        other["source"] = json!("/gateways/b");
        let found = compare(&[other], &[event("a:1", 1.0)], &[]);
        assert_eq!((found.missing.len(), found.surplus.len()), (1, 1));
    }

    #[test]
    fn contents_have_to_be_equal_but_for_what_may_differ() {
        let mut later = event("a:1", 1.0);
        later["time"] = json!("1970-01-01T00:00:09Z");
        let before = [event("a:1", 1.0)];
        assert_eq!(names(&compare(&[later.clone()], &before, &[]).different), ["a:1"]);
        assert!(compare(&[later], &before, &["/time", "/no/such"]).is_equal());
        assert_eq!(names(&compare(&[event("a:1", 1.5)], &before, &["/time"]).different), ["a:1"]);
    }

    #[test]
    fn a_repeat_with_other_content_is_a_difference() {
        let killed = [event("a:1", 1.0), event("a:1", 2.0)];
        assert_eq!(names(&compare(&killed, &[event("a:1", 1.0)], &[]).different), ["a:1"]);
    }

    #[test]
    fn events_without_a_name_are_no_equality() {
        let found = compare(&[json!({ "id": "a:1" })], &[], &[]);
        assert_eq!((found.nameless, found.is_equal()), (1, false));
    }
}
