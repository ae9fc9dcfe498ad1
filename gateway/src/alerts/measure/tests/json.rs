//! JSON payloads.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const READ: Reading = Reading::Read(Form::Json);

fn check(metrics: &[&str], payload: &str, expected: &[(u16, f64)]) {
    let found = values(&mut reader(metrics), "t", payload.as_bytes());
    assert_eq!(found, (READ, expected.to_vec()), "{payload}");
}

fn check_refused(payload: &[u8], why: Refused) {
    let mut reader = reader(&["a", "b.c"]);
    let found = values(&mut reader, "t", payload);
    assert_eq!(found, (Reading::Refused(why), vec![]), "{:?}", String::from_utf8_lossy(payload));
    assert_eq!(reader.counts().refused(why), 1);
    assert_eq!(reader.counts().samples, 0);
}

#[test]
fn numbers_are_found_by_their_paths() {
    check(&["temperature"], r#"{"temperature":21.5}"#, &[(0, 21.5)]);
    check(&["motor.temp_c"], r#"{"motor":{"rpm":3,"temp_c":-4}}"#, &[(0, -4.0)]);
    check(&["values[2].v"], r#"{"values":[{"v":1},{"v":2},{"v":3},{"v":4}]}"#, &[(0, 3.0)]);
    check(&[r#"["a.b"]"#, "a.b"], r#"{"a.b":1,"a":{"b":2}}"#, &[(0, 1.0), (1, 2.0)]);
    check(&["b", "a"], r#"{"a":1,"x":[{"a":7}],"b":2}"#, &[(1, 1.0), (0, 2.0)]);
    check(&["a", "a.b"], r#"{"a":{"b":2}}"#, &[(1, 2.0)]);
    check(&["a", r#"["a"]"#], r#"{"a":1}"#, &[(0, 1.0), (1, 1.0)]);
    check(&["größe", "a\"b"], r#"{"gr\u00f6\u00dfe":1,"a\"b":2}"#, &[(0, 1.0)]);
    check(&[r#"["a\"b"]"#, "😀"], r#"{"a\"b":2,"\ud83d\ude00":3,"\ud83d":4}"#, &[(0, 2.0), (1, 3.0)]);
    check(&["a"], "\r\n {\t\"a\" :\n1 , \"b\":2 } \n", &[(0, 1.0)]);
    check(&["a"], "{}", &[]);
    check(&["a"], r#"{"b":1,"A":2,"aa":3,"":4}"#, &[]);
    check(&["a", "b"], r#"{"a":true,"b":false}"#, &[(0, 1.0), (1, 0.0)]);
    check(&["$"], " -2.5e-1 ", &[(0, -0.25)]);
    check(&["$"], "{}", &[]);
}

#[test]
fn an_array_at_the_root_is_one_reading_per_element() {
    check(&["a", "b"], r#"[{"a":1,"b":2},{"b":3},7,{"a":4}]"#, &[(0, 1.0), (1, 2.0), (1, 3.0), (0, 4.0)]);
    check(&["[0]", "[1].a"], r#"[[1,{"a":2}],[3]]"#, &[(0, 1.0), (1, 2.0), (0, 3.0)]);
    check(&["$"], "[1,2,[3]]", &[(0, 1.0), (0, 2.0)]);
    check(&["a"], "[]", &[]);
}

#[test]
fn of_a_member_that_repeats_the_last_counts() {
    check(&["a"], r#"{"a":1,"a":2}"#, &[(0, 2.0)]);
    check(&["a", "b"], r#"{"a":1,"b":3,"\u0061":"x"}"#, &[(1, 3.0)]);
    check(&["m.a", "m.b", "c"], r#"{"m":{"a":1,"b":2},"c":3,"m":{"b":4}}"#, &[(2, 3.0), (1, 4.0)]);
    check(&["m.a"], r#"{"m":{"a":1},"m":7}"#, &[]);
    check(&["a"], r#"[{"a":1},{"a":2,"a":3}]"#, &[(0, 1.0), (0, 3.0)]);
    // What no rule wants may repeat as it likes.
    check(&["a"], &format!("{{{}\"a\":1}}", "\"x\":1,".repeat(1_000)), &[(0, 1.0)]);
}

#[test]
fn what_is_no_number_is_left_out_and_counted() {
    let metrics = ["a", "b", "c", "d", "e", "f"];
    let mut reader = reader(&metrics);
    let payload = br#"{"a":"21.5","b":{"x":1},"c":[1],"d":null,"e":1e999,"f":-1e400,"x":1e999,"y":"1"}"#;
    assert_eq!(values(&mut reader, "t", payload), (READ, vec![]));
    let counts = reader.counts();
    assert_eq!(counts.left_out(LeftOut::NotNumber), 3);
    assert_eq!(counts.left_out(LeftOut::Null), 1);
    assert_eq!(counts.left_out(LeftOut::Beyond), 2);
    assert_eq!(counts.read(Form::Json), 1);
}

#[test]
fn hostile_text_gives_nothing_and_a_reason() {
    let cases: [(&[u8], Refused); 48] = [
        (b"{", Refused::CutShort),
        (b"{\"a\"", Refused::CutShort),
        (b"{\"a\":", Refused::CutShort),
        (b"{\"a\":1", Refused::CutShort),
        (b"{\"a\":1,", Refused::CutShort),
        (b"{\"a\":\"x", Refused::CutShort),
        (b"{\"a\":\"\\", Refused::CutShort),
        (b"{\"a\":\"\\u12", Refused::CutShort),
        (b"{\"a\":tru", Refused::CutShort),
        (b"{\"a\":-", Refused::CutShort),
        (b"{\"a\":1.", Refused::CutShort),
        (b"{\"a\":1e", Refused::CutShort),
        (b"{\"a\":1e+", Refused::CutShort),
        (b"[", Refused::CutShort),
        (b"[{\"a\":1},", Refused::CutShort),
        (b"{\"a\":1}{", Refused::Trailing),
        (b"{\"a\":1} x", Refused::Trailing),
        (b"[]]", Refused::Trailing),
        (b"{\"a\":1}\0", Refused::Trailing),
        (b"{\"a\":1,}", Refused::Syntax),
        (b"{,}", Refused::Syntax),
        (b"{a:1}", Refused::Syntax),
        (b"{'a':1}", Refused::Syntax),
        (b"{\"a\" 1}", Refused::Syntax),
        (b"{\"a\":1 \"b\":2}", Refused::Syntax),
        (b"{\"a\":01}", Refused::Syntax),
        (b"{\"a\":+1}", Refused::Syntax),
        (b"{\"a\":.5}", Refused::Syntax),
        (b"{\"a\":1.e5}", Refused::Syntax),
        (b"{\"a\":1,5}", Refused::Syntax),
        (b"{\"a\":0x1f}", Refused::Syntax),
        (b"{\"a\":1_000}", Refused::Syntax),
        (b"{\"a\":True}", Refused::Syntax),
        (b"{\"a\":nul}", Refused::Syntax),
        (b"{\"a\":\"\n\"}", Refused::Syntax),
        (b"{\"a\":\"\\x\"}", Refused::Syntax),
        (b"{\"a\":\"\\u12g4\"}", Refused::Syntax),
        (b"{\"a\":1 /* c */}", Refused::Syntax),
        (b"[1,]", Refused::Syntax),
        (b"{\"a\":1]", Refused::Syntax),
        (b"{\x0c\"a\":1}", Refused::Syntax),
        (b"{\"a\":NaN}", Refused::NotANumber),
        (b"{\"b\":-Infinity,\"a\":1}", Refused::NotANumber),
        (b"{\"a\":nan}", Refused::NotANumber),
        (b"{\"a\":-inf}", Refused::NotANumber),
        (b"{\"a\":\"\xff\"}", Refused::Utf8),
        (b"{\"a\":1}\xed\xa0\x80", Refused::Utf8),
        (b"\xef\xbb\xbf{\"a\":1}", Refused::ByteOrderMark),
    ];
    for (payload, why) in cases {
        check_refused(payload, why);
        if payload == b"[]]" {
            continue;
        }
        // What came before it is not told either.
        let first = [b"[{\"a\":1,\"b\":{\"c\":2}},", payload].concat();
        let found = values(&mut reader(&["a"]), "t", &first);
        assert!(matches!(found, (Reading::Refused(_), samples) if samples.is_empty()));
    }
}

#[test]
fn an_empty_payload_is_no_json() {
    for payload in [b"".as_slice(), b" \n"] {
        let message = Message { content_type: Some("application/json"), ..message("t", payload) };
        let found = take(&mut reader(&["a"]), &message, 0);
        assert_eq!(found, (Reading::Refused(Refused::Empty), vec![]));
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    check(&["a"], &nested(64), &[]);
    check_refused(nested(65).as_bytes(), Refused::TooDeep);
    check_refused("[".repeat(1_000_000).as_bytes(), Refused::TooDeep);
    let members = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    check(&["a"], &members(64), &[]);
    check_refused(members(65).as_bytes(), Refused::TooDeep);
    check_refused(r#"{"a":"#.repeat(200_000).as_bytes(), Refused::TooDeep);
    let deepest = ["a"; 32].join(".");
    let text = format!("{}7{}", r#"{"a":"#.repeat(32), "}".repeat(32));
    check(&[&deepest], &text, &[(0, 7.0)]);
}

#[test]
fn repeats_and_samples_are_bounded() {
    let repeats = |count: usize| format!("{{{}\"b\":1}}", "\"a\":1,".repeat(count + 1));
    check(&["a", "b"], &repeats(64), &[(0, 1.0), (1, 1.0)]);
    check_refused(repeats(65).as_bytes(), Refused::Repeats);
    let elements = |count: usize| format!("[{}]", vec!["{\"a\":1}"; count].join(","));
    let most = values(&mut reader(&["a"]), "t", elements(SAMPLES_MAX).as_bytes());
    assert_eq!((most.0, most.1.len()), (READ, SAMPLES_MAX));
    check_refused(elements(SAMPLES_MAX + 1).as_bytes(), Refused::TooManySamples);
}

#[test]
fn the_time_is_read_where_it_is_said_to_be() {
    let second = RECEIVED_MS - 1_000;
    for (payload, told, wrong) in [
        (r#"{"a":1,"at":{"t":1789999999}}"#, second, 0),
        (r#"{"at":{"t":1789999999000},"a":1}"#, second, 0),
        (r#"{"at":{"t":1789999999.25},"a":1}"#, second + 250, 0),
        (r#"{"at":{"t":1.789999999e9},"a":1}"#, second, 0),
        (r#"{"at":{"t":"2026-09-21T14:13:19Z"},"a":1}"#, second, 0),
        (r#"{"at":{"t":"2026-09-21T16:13:19.5+02:00"},"a":1}"#, second + 500, 0),
        (r#"{"a":1,"at":{"t":1},"at":{"t":1789999999}}"#, second, 0),
        (r#"{"a":1,"at":{"t":1789999999},"at":{}}"#, RECEIVED_MS, 0),
        (r#"{"a":1}"#, RECEIVED_MS, 0),
        (r#"{"a":1,"at":{"t":null}}"#, RECEIVED_MS, 0),
        (r#"{"a":1,"at":{"t":0}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":1e999}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":-5}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":true}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":{}}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":"soon"}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":1577836799}}"#, RECEIVED_MS, 1),
        (r#"{"a":1,"at":{"t":1790000600}}"#, RECEIVED_MS + 600_000, 0),
        (r#"{"a":1,"at":{"t":1790000600.001}}"#, RECEIVED_MS, 1),
    ] {
        let metrics = names(&["a"]);
        let mut reader = Reader::new(&metrics).with_time_path(Some("at.t"), &metrics);
        let found = take(&mut reader, &message("t", payload.as_bytes()), 0);
        assert_eq!(found, (READ, vec![(0, 1.0, told)]), "{payload}");
        assert_eq!(reader.counts().times_wrong, wrong, "{payload}");
    }
}

#[test]
fn each_element_has_its_own_time() {
    let metrics = names(&["a", "t"]);
    let mut reader = Reader::new(&metrics).with_time_path(Some("t"), &metrics);
    let payload = br#"[{"a":1,"t":1789999998},{"a":2},{"t":1789999999,"a":3}]"#;
    let (first, last) = (RECEIVED_MS - 2_000, RECEIVED_MS - 1_000);
    let expected = [
        (0, 1.0, first),
        (1, 1_789_999_998.0, first),
        (0, 2.0, RECEIVED_MS),
        (1, 1_789_999_999.0, last),
        (0, 3.0, last),
    ];
    assert_eq!(take(&mut reader, &message("t", payload), 0), (READ, expected.to_vec()));
    // A path that is none is never found.
    let mut reader = reader.with_time_path(Some("t..x"), &metrics);
    assert_eq!(take(&mut reader, &message("t", payload), 0).1[0].2, RECEIVED_MS);
}

/// Paths, and the same as pointers (RFC 6901).
const PATHS: [(&str, &str); 14] = [
    ("$", ""),
    ("a", "/a"),
    ("b", "/b"),
    ("c", "/c"),
    ("a.b", "/a/b"),
    (r#"["a.b"]"#, "/a.b"),
    (r#"a["x y"]"#, "/a/x y"),
    ("a[0]", "/a/0"),
    ("a[1].b", "/a/1/b"),
    ("b.c", "/b/c"),
    ("b[0][1]", "/b/0/1"),
    ("a.b.c", "/a/b/c"),
    ("[0]", "/0"),
    ("[1].a", "/1/a"),
];

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (-1_000_i32..1_000, 0_u32..1_000).prop_map(|(whole, part)| format!("{whole}.{part}")),
        prop::num::f64::NORMAL.prop_map(|number| format!("{number:e}")),
        ("[0-9]{1,30}", "[0-9]{1,30}", -300_i32..250).prop_map(|(whole, part, power)| {
            let whole = whole.trim_start_matches('0');
            format!("{}.{part}E{power}", if whole.is_empty() { "0" } else { whole })
        }),
        Just("-0".to_owned()),
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n\t", " \r"])
}

/// JSON texts whose keys are often those of the paths, and repeat.
fn text() -> impl Strategy<Value = String> {
    let words = ["true", "false", "null", r#""x""#, r#""1.5""#, r#""\u00e9\n""#, "[]", "{}"];
    let leaf = prop_oneof![4 => number(), 1 => prop::sample::select(words.to_vec()).prop_map(str::to_owned)];
    let keys = ["a", "b", "c", "a.b", "x y", r"\u0061", r"\u0062", "d", ""];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        let member = (prop::sample::select(keys.to_vec()), space(), inner.clone());
        let member = member.prop_map(|(key, space, value)| format!("\"{key}\"{space}:{space}{value}"));
        prop_oneof![
            (prop::collection::vec(member, 0..5), space())
                .prop_map(|(members, space)| format!("{{{space}{}{space}}}", members.join(","))),
            (prop::collection::vec(inner, 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(" , "))),
        ]
    })
}

/// What is to be found, metric by metric, with the slow help of all values in memory.
fn expected(text: &str) -> Vec<(u16, f64)> {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let roots =
        if let Value::Array(elements) = &value { elements.as_slice() } else { std::slice::from_ref(&value) };
    let mut found = Vec::new();
    for (metric, (_, pointer)) in (0..).zip(PATHS) {
        for root in roots {
            match root.pointer(pointer) {
                Some(Value::Number(number)) => found.push((metric, number.as_f64().expect("a number"))),
                Some(Value::Bool(is)) => found.push((metric, f64::from(u8::from(*is)))),
                _ => {}
            }
        }
    }
    found
}

fn near(one: f64, two: f64) -> bool {
    // serde_json may be off by one in the last place.
    (one - two).abs() <= one.abs() * 4.0 * f64::EPSILON
}

proptest! {
    #[test]
    fn the_same_is_found_as_by_reading_all_of_it(text in text()) {
        let paths: Vec<_> = PATHS.iter().map(|(path, _)| *path).collect();
        let content_type = Some("application/json");
        let message = Message { content_type, ..message("t", text.as_bytes()) };
        let (reading, samples) = take(&mut reader(&paths), &message, 0);
        prop_assert_eq!(reading, READ);
        let mut found: Vec<_> = samples.into_iter().map(|(metric, value, _)| (metric, value)).collect();
        found.sort_by_key(|(metric, _)| *metric);
        let expected = expected(&text);
        prop_assert_eq!(found.len(), expected.len(), "{:?} {:?}", found, expected);
        for (found, expected) in found.into_iter().zip(expected) {
            prop_assert!(found.0 == expected.0 && near(found.1, expected.1), "{:?} {:?}", found, expected);
        }
    }

    #[test]
    fn numbers_are_the_nearest_there_are(number in number()) {
        let exact: f64 = number.parse().expect("a number");
        let payload = format!("{{\"a\":{number}}}");
        let (_, found) = values(&mut reader(&["a"]), "t", payload.as_bytes());
        prop_assert_eq!(found[0].1.to_bits(), exact.to_bits());
    }

    #[test]
    fn damaged_text_is_taken_where_it_is_json_still(
        text in text(),
        place: prop::sample::Index,
        byte in prop::sample::select(b"{}[],:\"\\0129-+.eE tfnN\n\0\x80\xff".to_vec()),
        cut: bool,
    ) {
        let mut bytes = text.into_bytes();
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] = byte }
        let message = Message { content_type: Some("application/json"), ..message("t", &bytes) };
        let (reading, samples) = take(&mut reader(&["a", "$"]), &message, 0);
        let is_json = std::str::from_utf8(&bytes)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
        prop_assert_eq!(reading == READ, is_json, "{:?} {:?}", reading, String::from_utf8_lossy(&bytes));
        prop_assert!(is_json || samples.is_empty());
    }
}
