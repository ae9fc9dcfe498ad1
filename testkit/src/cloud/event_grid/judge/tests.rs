use serde_json::{Value, json};

use super::*;

/// An event as the gateway makes them, with what other languages stumble over.
fn good() -> Value {
    json!({
        "specversion": "1.0", "id": "a1-9f3c:2", "source": "urn:penstock:site7:gw01",
        "type": "io.penstock.alert.raised.v1", "subject": "tenants/acme/devices/d\u{e9}v\u{2028}42/metrics/t",
        "time": "2026-11-20T21:00:00.123Z", "datacontenttype": "application/json",
        "dataschema": "urn:penstock:schema:alert:1", "partitionkey": "acme/dev-42",
        "sequence": "00000000000000000002", "severitytext": "ERROR", "severitynumber": 17, "gatewayid": "gw01",
        "data": {"state": "raised", "observed": {"value": 106.1, "unit": "Cel"}, "context": [[null, 1e300]]}
    })
}

fn with(name: &str, value: Value) -> String {
    let mut event = good();
    event[name] = value;
    event.to_string()
}

fn without(name: &str) -> String {
    let mut event = good();
    event.as_object_mut().unwrap().remove(name);
    event.to_string()
}

fn verdict(lines: &[impl AsRef<[u8]>]) -> Verdict {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for line in lines {
        file.write_all(line.as_ref()).unwrap();
        file.write_all(b"\n").unwrap();
    }
    judge(file.path()).unwrap()
}

const RULES: &str = "rules";
const SCHEMA: &str = "json schema";
const NPM: &str = "npm cloudevents";
const NPM_AZURE: &str = "npm @azure/eventgrid";
const PYTHON_LIBRARY: &str = "python cloudevents";
const PYTHON_AZURE: &str = "python azure-core";
const ALL: [&str; 6] = [SCHEMA, NPM_AZURE, NPM, PYTHON_AZURE, PYTHON_LIBRARY, RULES];

#[test]
fn a_good_event_is_refused_by_nobody() {
    if !judges_are_installed() {
        return;
    }
    let lines = [good().to_string(), without("data"), without("subject"), with("flag", json!(true))];
    let verdict = verdict(&lines);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.events, 4);
    assert_eq!(verdict.opinions.iter().map(|opinion| &*opinion.judge).collect::<Vec<_>>(), ALL);
}

/// Who refuses what was measured once; a judge that gets milder, or stricter, is noticed.
#[test]
fn each_bad_event_is_refused_by_the_judges_that_can_tell() {
    if !judges_are_installed() {
        return;
    }
    let large = "x".repeat(EVENT_BYTES_MAX);
    let table: Vec<(&str, String, &[&str])> = vec![
        ("no id", without("id"), &[SCHEMA, NPM_AZURE, RULES]),
        ("empty id", with("id", json!("")), &[SCHEMA, PYTHON_LIBRARY, RULES]),
        ("no source", without("source"), &ALL),
        ("no specversion", without("specversion"), &[SCHEMA, NPM_AZURE, RULES]),
        ("specversion 0.3", with("specversion", json!("0.3")), &[NPM_AZURE, NPM, PYTHON_LIBRARY, RULES]),
        ("TraceParent", with("TraceParent", json!("00")), &[NPM, PYTHON_AZURE, PYTHON_LIBRARY, RULES]),
        ("trace_parent", with("trace_parent", json!("00")), &[NPM, PYTHON_AZURE, PYTHON_LIBRARY, RULES]),
        ("time", with("time", json!("yesterday")), &[SCHEMA, NPM, PYTHON_AZURE, PYTHON_LIBRARY, RULES]),
        ("source with a blank", with("source", json!("a b")), &[SCHEMA, NPM]),
        ("empty subject", with("subject", json!("")), &[SCHEMA, NPM, PYTHON_LIBRARY, RULES]),
        (
            "data in two ways",
            with("data_base64", json!("AAA=")),
            &[NPM_AZURE, PYTHON_AZURE, PYTHON_LIBRARY, RULES],
        ),
        ("an object as an extension", with("origin", json!({"a": 1})), &[RULES]),
        ("21 characters", with("abcdefghijklmnopqrstu", json!("x")), &[RULES]),
        // What is not in the measured table.
        ("a list as an extension", with("origin", json!([1])), &[RULES]),
        ("nothing as an extension", with("origin", json!(null)), &[RULES]),
        ("a fraction as an extension", with("score", json!(0.5)), &[NPM, RULES]),
        ("33 bits", with("score", json!(2_147_483_648_u64)), &[RULES]),
        ("data that is text", with("data", json!("text")), &[RULES]),
        ("a control character", with("gatewayid", json!("a\u{7}")), &[RULES]),
        ("a noncharacter", with("subject", json!("a\u{1fffe}")), &[RULES]),
        (
            "a time without a zone",
            with("time", json!("2026-11-20T21:00:00")),
            &[PYTHON_AZURE, PYTHON_LIBRARY, RULES],
        ),
        ("an id twice", good().to_string().replacen('{', "{\"id\":\"other\",", 1), &[RULES]),
        ("too large", with("data", json!({ "a": large })), &[RULES]),
        // An empty list of events, for the library of Event Grid.
        ("no object", "[]".to_owned(), &[SCHEMA, NPM, PYTHON_AZURE, PYTHON_LIBRARY, RULES]),
        ("no JSON", "{".to_owned(), &ALL),
        ("nothing", String::new(), &ALL),
    ];
    let mut lines: Vec<Vec<u8>> = table.iter().map(|(_, line, _)| line.clone().into_bytes()).collect();
    lines.push(b"{\"id\":\"\xff\"}".to_vec());
    let verdict = verdict(&lines);
    assert!(!verdict.is_clean());
    let mut wrong = Vec::new();
    for (line, (what, _, expected)) in (1..).zip(&table) {
        let refusing = verdict.refusing(line);
        if refusing != *expected {
            wrong.push(format!("{what}: {refusing:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{verdict}", wrong.join("\n"));
    assert_eq!(verdict.refusing(verdict.events), ALL, "what is no UTF-8");
}

#[test]
fn nothing_to_judge_is_not_clean() {
    if !judges_are_installed() {
        return;
    }
    let verdict = verdict(&[] as &[&str]);
    assert!(verdict.events == 0 && !verdict.is_clean());
    assert!(matches!(judge(Path::new("/nonexistent")), Err(JudgeError::Ended { .. })));
}

#[test]
fn many_complaints_are_counted_and_some_are_told() {
    if !judges_are_installed() {
        return;
    }
    // More than a process gets at a time, the bad ones on both sides of the border.
    let bad = |number: u64| (4_900..5_100).contains(&number);
    let line = |number| if bad(number) { without("source") } else { good().to_string() };
    let verdict = verdict(&(1..=5_200).map(line).collect::<Vec<_>>());
    assert_eq!(verdict.events, 5_200);
    for Opinion { judge, refused, complaints } in &verdict.opinions {
        let lines: Vec<u64> = complaints.iter().map(|(line, _)| *line).collect();
        assert_eq!((*refused, lines), (200, (4_900..5_000).collect()), "{judge}");
    }
}
