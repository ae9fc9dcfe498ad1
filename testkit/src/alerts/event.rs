//! An event about an alert, as it arrived in the cloud: a CloudEvent as JSON.

use serde_json::Value;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// One alert about a device by a rule.
    Alert { device: &'a str, rule: &'a str },
    /// Many alerts, of one rule where they are grouped by it.
    Storm { rule: Option<&'a str> },
}

/// What the judge needs to know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) source: &'a str,
    pub(super) id: &'a str,
    pub(super) subject: Subject<'a>,
    /// The id of the alert or of the storm.
    pub(super) alert: &'a str,
    pub(super) transition: u64,
    /// Whether nothing is open any more.
    pub(super) is_over: bool,
    /// The metric, where it is about one.
    pub(super) metric: Option<&'a str>,
    /// When the alert began, in Unix milliseconds.
    pub(super) started_ms: Option<u64>,
    /// When this happened to it, in Unix milliseconds.
    pub(super) time_ms: u64,
}

/// Reads an event; `None` for one that is not about alerts by its type.
///
/// # Errors
/// Says what is missing or wrong in one that is.
pub(super) fn read(event: &Value) -> Result<Option<Event<'_>>, String> {
    let Some((_, word)) = text(event, "/type").and_then(|kind| kind.rsplit_once(".alert.")) else {
        return Ok(None);
    };
    let needed = |pointer: &str| text(event, pointer).ok_or_else(|| format!("{pointer} is missing"));
    let time = |pointer: &str, text: &str| unix_ms(text).ok_or_else(|| format!("{pointer} is {text:?}"));
    // What an attribute of CloudEvents cannot hold stands in the data only.
    let rule = text(event, "/ruleid").or_else(|| text(event, "/data/rule/id"));
    let device = text(event, "/deviceid").or_else(|| text(event, "/data/origin/device"));
    let subject = match word {
        "storm.v1" => Subject::Storm { rule },
        "raised.v1" | "updated.v1" | "resolved.v1" | "flapping.v1" => Subject::Alert {
            device: device.ok_or("/deviceid is missing")?,
            rule: rule.ok_or("/ruleid is missing")?,
        },
        _ => return Err(format!("/type ends with {word:?}")),
    };
    let transition = event.pointer("/data/transition").and_then(Value::as_u64);
    let started = text(event, "/data/startedAt").map(|text| time("/data/startedAt", text)).transpose()?;
    Ok(Some(Event {
        source: needed("/source")?,
        id: needed("/id")?,
        subject,
        alert: needed("/data/alertId")?,
        transition: transition.filter(|number| *number > 0).ok_or("/data/transition is no number from 1")?,
        is_over: text(event, "/data/state").map_or(word == "resolved.v1", |state| state == "resolved"),
        metric: text(event, "/data/observed/metric"),
        started_ms: started,
        time_ms: time("/time", needed("/time")?)?,
    }))
}

fn text<'a>(event: &'a Value, pointer: &str) -> Option<&'a str> {
    event.pointer(pointer).and_then(Value::as_str)
}

/// A time such as `2026-11-20T21:00:00.123Z` (RFC 3339, UTC) in Unix milliseconds; what is below them is cut off.
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, clock) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain([b'0'; 3]).take(3);
    let millis = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1000 + millis)
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| digits)
    });
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Days from 1970-01-01 to a day from then on, in the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    // 719468 days from 0000-03-01 to 1970-01-01.
    (year * 365 + leaps + (153 * month + 2) / 5 + day).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_in_milliseconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-03-01T00:00:00.5Z", Some(59 * 86_400_000 + 500)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2026-11-20T21:00:00.123Z", Some(1_795_208_400_123)),
            ("2026-11-20T21:00:00.123999Z", Some(1_795_208_400_123)),
            ("2026-11-20T21:00:00+01:00", None),
            ("2026-13-20T21:00:00Z", None),
            ("2026-11-20T24:00:00Z", None),
            ("2026-11-20T21:00:00.Z", None),
            ("2026-11-20T21:00Z", None),
            ("+2026-11-20T21:00:00Z", None),
            ("now", None),
        ] {
            assert_eq!(unix_ms(text), expected, "{text}");
        }
    }

    fn event() -> Value {
        json!({
            "specversion": "1.0", "id": "a1-0f:1", "source": "/gateways/demo", "type": "io.penstock.alert.raised.v1",
            "time": "1970-01-01T00:00:02Z", "deviceid": "d", "ruleid": "hot",
            "data": {
                "alertId": "a1-0f", "transition": 1, "startedAt": "1970-01-01T00:00:01Z",
                "observed": { "metric": "temperature", "value": 91.5 }
            }
        })
    }

    #[test]
    fn an_event_is_read() {
        let expected = Event {
            source: "/gateways/demo",
            id: "a1-0f:1",
            subject: Subject::Alert { device: "d", rule: "hot" },
            alert: "a1-0f",
            transition: 1,
            is_over: false,
            metric: Some("temperature"),
            started_ms: Some(1000),
            time_ms: 2000,
        };
        assert_eq!(read(&event()), Ok(Some(expected)));
    }

    fn check(change: impl FnOnce(&mut Value), expected: Option<&str>) {
        let mut event = event();
        change(&mut event);
        let read = read(&event);
        match expected {
            Some(expected) => assert!(read.as_ref().is_err_and(|error| error.contains(expected)), "{read:?}"),
            None => assert!(read.is_ok(), "{read:?}"),
        }
    }

    #[test]
    fn what_claims_to_be_an_alert_has_to_look_like_one() {
        check(|event| event["type"] = json!("io.penstock.alert.shouted.v1"), Some("/type ends with"));
        check(|event| event["type"] = json!("io.penstock.alert.raised.v2"), Some("/type ends with"));
        check(|event| event["id"] = json!(7), Some("/id is missing"));
        check(|event| event["time"] = json!("yesterday"), Some("/time is \"yesterday\""));
        check(|event| event["deviceid"] = json!(null), Some("/deviceid is missing"));
        check(|event| event["ruleid"] = json!(null), Some("/ruleid is missing"));
        check(|event| event["data"]["alertId"] = json!(null), Some("/data/alertId is missing"));
        check(|event| event["data"]["transition"] = json!(0), Some("/data/transition is no number"));
        check(|event| event["data"]["startedAt"] = json!("soon"), Some("/data/startedAt is \"soon\""));
        check(|event| event["data"]["observed"] = json!(null), None);
    }

    #[test]
    fn names_that_attributes_cannot_hold_stand_in_the_data() {
        let mut event = event();
        event["deviceid"] = json!(null);
        event["ruleid"] = json!(null);
        event["data"]["origin"] = json!({ "device": "d\u{1}" });
        event["data"]["rule"] = json!({ "id": "hot", "version": 1 });
        let subject = read(&event).unwrap().unwrap().subject;
        assert_eq!(subject, Subject::Alert { device: "d\u{1}", rule: "hot" });
    }

    #[test]
    fn a_storm_is_about_no_single_device() {
        let storm = json!({
            "id": "s1-0f:2", "source": "/gateways/demo", "type": "com.example.alert.storm.v1",
            "time": "1970-01-01T00:00:02Z", "ruleid": "hot",
            "data": { "alertId": "s1-0f", "transition": 2, "state": "resolved", "open": 0 }
        });
        let event = read(&storm).unwrap().unwrap();
        assert_eq!(event.subject, Subject::Storm { rule: Some("hot") });
        assert_eq!((event.alert, event.transition, event.is_over), ("s1-0f", 2, true));
    }

    #[test]
    fn events_about_other_things_are_passed_over() {
        assert_eq!(read(&json!({ "type": "io.penstock.command.succeeded.v1" })), Ok(None));
        assert_eq!(read(&json!({ "status": "fine" })), Ok(None));
        assert_eq!(read(&json!([1])), Ok(None));
    }
}
