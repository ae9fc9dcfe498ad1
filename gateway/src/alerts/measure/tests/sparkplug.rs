//! Sessions of Sparkplug edge nodes.

use super::tahu::{Metric, Payload, Value};
use super::*;

const READ: Reading = Reading::Read(Form::Sparkplug);
const NBIRTH: &str = "spBv1.0/plant/NBIRTH/line-2";
const NDEATH: &str = "spBv1.0/plant/NDEATH/line-2";
const NDATA: &str = "spBv1.0/plant/NDATA/line-2";
const DBIRTH: &str = "spBv1.0/plant/DBIRTH/line-2/press-1";
const DDEATH: &str = "spBv1.0/plant/DDEATH/line-2/press-1";
const DDATA: &str = "spBv1.0/plant/DDATA/line-2/press-1";

const DOUBLE: u64 = 10;

const fn refused(why: Refused) -> Reading {
    Reading::Refused(why)
}

fn double(value: f64) -> Value {
    Value::Double(value)
}

/// One edge node, as a rule reader hears it.
struct Line {
    reader: Reader,
}

impl Line {
    /// A node with metric `Speed`, alias 0, and `bdSeq` 7, whose birth has sequence number 0.
    fn born(metrics: &[&str]) -> Self {
        let mut line = Self { reader: reader(metrics) };
        line.node_birth(0, 7);
        line
    }

    fn node_birth(&mut self, seq: u8, bd_seq: u64) {
        let metrics = vec![
            Metric::born("bdSeq", 100, 4, Value::Long(bd_seq)),
            Metric::born("Speed", 0, DOUBLE, double(1.0)),
        ];
        assert_eq!(self.hear(NBIRTH, seq, metrics).0, READ);
    }

    fn hear(&mut self, topic: &str, seq: u8, metrics: Vec<Metric>) -> (Reading, Vec<(u16, f64)>) {
        values(&mut self.reader, topic, &Payload::new(seq, metrics).encode())
    }

    fn check(&mut self, topic: &str, seq: u8, metrics: Vec<Metric>, expected: (Reading, &[(u16, f64)])) {
        let found = self.hear(topic, seq, metrics);
        assert_eq!(found, (expected.0, expected.1.to_vec()), "{topic} {seq}");
    }

    fn counts(&self) -> &Counts {
        self.reader.counts()
    }
}

#[test]
fn values_come_by_name_and_by_alias_as_the_births_told() {
    let mut line =
        Line { reader: reader(&["Temperature", "Speed", "press-1/Temperature", "press-2/Temperature"]) };
    let metrics = vec![
        Metric::born("Speed", 0, DOUBLE, double(1.0)),
        Metric::born("Temperature", 3, DOUBLE, double(2.0)),
    ];
    line.check(NBIRTH, 200, metrics, (READ, &[(1, 1.0), (0, 2.0)]));
    let metrics = vec![Metric::born("Temperature", 4, DOUBLE, double(3.0))];
    line.check(DBIRTH, 201, metrics, (READ, &[(0, 3.0), (2, 3.0)]));
    let metrics = vec![Metric::aliased(0, double(4.0)), Metric::named("Speed", double(5.0))];
    line.check(NDATA, 202, metrics, (READ, &[(1, 4.0), (1, 5.0)]));
    line.check(DDATA, 203, vec![Metric::aliased(4, double(6.0))], (READ, &[(0, 6.0), (2, 6.0)]));
    // The name counts where both are there.
    let both = Metric { alias: Some(0), ..Metric::named("Temperature", double(7.0)) };
    line.check(NDATA, 204, vec![both], (READ, &[(0, 7.0)]));
    assert_eq!(line.reader.take_rebirths(), []);
    assert_eq!(line.counts().left_out(LeftOut::Unknown), 0);
}

#[test]
fn each_data_type_has_its_numbers() {
    let cases: [(u64, Value, Option<f64>); 25] = [
        (1, Value::Int(0xff), Some(-1.0)),
        (1, Value::Int(0xffff_ff80), Some(-128.0)),
        (1, Value::Int(127), Some(127.0)),
        (2, Value::Int(0xffff), Some(-1.0)),
        (2, Value::Int(0x7fff), Some(32767.0)),
        (3, Value::Int(0xffff_fffe), Some(-2.0)),
        (3, Value::Long(u64::MAX - 1), Some(-2.0)),
        (4, Value::Long(u64::MAX), Some(-1.0)),
        (4, Value::Long(1 << 63), Some(i64::MIN as f64)),
        (5, Value::Int(255), Some(255.0)),
        (6, Value::Int(65535), Some(65535.0)),
        (7, Value::Int(u32::MAX), Some(4_294_967_295.0)),
        (7, Value::Long(4_294_967_295), Some(4_294_967_295.0)),
        (8, Value::Long(u64::MAX), Some(u64::MAX as f64)),
        (9, Value::Float(0.1), Some(f64::from(0.1_f32))),
        (9, Value::Float(f32::NAN), None),
        (10, Value::Double(-2.5), Some(-2.5)),
        (10, Value::Double(f64::INFINITY), None),
        (11, Value::Boolean(true), Some(1.0)),
        (11, Value::Boolean(false), Some(0.0)),
        (12, Value::Text("21.5".to_owned()), None),
        (13, Value::Long(RECEIVED_MS), Some(1.79e12)),
        (17, Value::Bytes(vec![1]), None),
        (3, Value::None, None),
        (99, Value::Int(u32::MAX), Some(4_294_967_295.0)),
    ];
    for (datatype, value, expected) in cases {
        let mut line = Line { reader: reader(&["m"]) };
        let text = format!("{datatype} {value:?}");
        let expected: Vec<_> = expected.iter().map(|value| (0, *value)).collect();
        line.check(NBIRTH, 0, vec![Metric::born("m", 1, datatype, value.clone())], (READ, &expected));
        // The data type is not said again, or is.
        line.check(NDATA, 1, vec![Metric::aliased(1, value.clone())], (READ, &expected));
        let again = Metric { datatype: Some(datatype), ..Metric::named("m", value) };
        line.check(NDATA, 2, vec![again], (READ, &expected));
        let left_out =
            line.counts().left_out(LeftOut::NotNumber) + line.counts().left_out(LeftOut::NotFinite);
        assert_eq!(left_out, if expected.is_empty() { 3 } else { 0 }, "{text}");
    }
}

#[test]
fn null_is_counted_and_what_no_rule_wants_is_not() {
    let mut line = Line::born(&["Speed"]);
    let null = Metric { is_null: true, ..Metric::aliased(0, Value::None) };
    line.check(NDATA, 1, vec![null, Metric::aliased(100, Value::Text("x".to_owned()))], (READ, &[]));
    assert_eq!(line.counts().left_out(LeftOut::Null), 1);
    assert_eq!(line.counts().left_out(LeftOut::NotNumber), 0);
}

#[test]
fn the_time_is_that_of_the_metric_or_of_the_payload() {
    let mut line = Line::born(&["Speed"]);
    let at = |timestamp| Metric { timestamp, ..Metric::aliased(0, double(2.0)) };
    let told = RECEIVED_MS - 5;
    let cases = [
        (Some(told - 1), Some(told), told, 0),
        (Some(told), None, told, 0),
        (None, None, RECEIVED_MS, 0),
        (None, Some(7), RECEIVED_MS, 1),
        (Some(u64::MAX), None, RECEIVED_MS, 2),
    ];
    for (seq, (payload, metric, expected, wrong)) in (1..).zip(cases) {
        let payload = Payload { timestamp: payload, ..Payload::new(seq, vec![at(metric)]) }.encode();
        let (_, samples) = take(&mut line.reader, &message(NDATA, &payload), 0);
        assert_eq!(samples, [(0, 2.0, expected)]);
        assert_eq!(line.counts().times_wrong, wrong);
    }
}

#[test]
fn historical_values_have_their_own_time_or_are_left_out() {
    let mut line = Line::born(&["Speed"]);
    let past =
        |timestamp, value| Metric { timestamp, is_historical: true, ..Metric::aliased(0, double(value)) };
    let (first, second) = (RECEIVED_MS - 90_000_000, RECEIVED_MS - 80_000_000);
    let metrics = vec![past(Some(first), 2.0), past(None, 3.0), past(Some(second), 4.0), past(Some(9), 5.0)];
    let payload = Payload { timestamp: Some(RECEIVED_MS), ..Payload::new(1, metrics) }.encode();
    let found = take(&mut line.reader, &message(NDATA, &payload), 0);
    assert_eq!(found, (READ, vec![(0, 2.0, first), (0, 4.0, second)]));
    assert_eq!(line.counts().left_out(LeftOut::Undated), 2);
}

#[test]
fn sequence_numbers_go_round() {
    let mut line = Line::born(&["Speed"]);
    for seq in (1..=255).chain(0..=255).chain(0..=3) {
        line.check(NDATA, seq, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
    }
    assert_eq!(line.reader.take_rebirths(), []);
}

#[test]
fn after_a_gap_an_alias_may_mean_anything_and_a_name_does_not() {
    let mut line = Line::born(&["Speed", "Temperature"]);
    line.check(DBIRTH, 1, vec![Metric::born("Temperature", 5, DOUBLE, double(2.0))], (READ, &[(1, 2.0)]));
    line.check(NDATA, 3, vec![Metric::named("Speed", double(3.0))], (refused(Refused::Gap), &[]));
    assert_eq!(line.reader.take_rebirths().len(), 1);
    let both = vec![Metric::aliased(0, double(4.0)), Metric::named("Speed", double(5.0))];
    line.check(NDATA, 4, both, (READ, &[(0, 5.0)]));
    assert_eq!(line.counts().left_out(LeftOut::Unknown), 1);
    line.check(DDATA, 5, vec![Metric::aliased(5, double(6.0))], (READ, &[]));
    // A birth after the gap is to be trusted.
    line.check(DBIRTH, 6, vec![Metric::born("Temperature", 6, DOUBLE, double(7.0))], (READ, &[(1, 7.0)]));
    line.check(DDATA, 7, vec![Metric::aliased(6, double(8.0))], (READ, &[(1, 8.0)]));
    line.check(NDATA, 8, vec![Metric::aliased(0, double(9.0))], (READ, &[]));
    line.node_birth(77, 8);
    line.check(NDATA, 78, vec![Metric::aliased(0, double(10.0))], (READ, &[(0, 10.0)]));
    assert_eq!(line.counts().refused(Refused::Gap), 1);
}

#[test]
fn a_message_told_twice_counts_once() {
    let mut line = Line::born(&["Speed"]);
    line.check(NDATA, 1, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
    line.check(NDATA, 1, vec![Metric::aliased(0, double(2.0))], (refused(Refused::Repeated), &[]));
    line.check(NDATA, 2, vec![Metric::aliased(0, double(3.0))], (READ, &[(0, 3.0)]));
    assert_eq!(line.reader.take_rebirths(), []);
}

#[test]
fn without_a_birth_nothing_is_read_and_a_rebirth_is_wanted() {
    for (topic, metrics) in [
        (NDATA, vec![Metric::named("Speed", double(1.0))]),
        (DDATA, vec![Metric::named("Speed", double(1.0))]),
        (DBIRTH, vec![Metric::born("Speed", 1, DOUBLE, double(1.0))]),
        (DDEATH, vec![]),
    ] {
        let mut line = Line { reader: reader(&["Speed"]) };
        line.check(topic, 1, metrics, (refused(Refused::Unborn), &[]));
        let wish = Rebirth { group: "plant".into(), edge_node: "line-2".into(), device: "press-7".into() };
        assert_eq!(line.reader.take_rebirths(), [wish]);
        assert_eq!(line.reader.take_rebirths(), []);
    }
    let mut line = Line::born(&["Speed"]);
    line.check(DDATA, 1, vec![Metric::aliased(0, double(1.0))], (refused(Refused::Unborn), &[]));
    assert_eq!(line.reader.take_rebirths().len(), 1);
    line.check(NDATA, 2, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
}

#[test]
fn an_unknown_alias_or_name_gives_nothing_and_wants_a_rebirth() {
    for unknown in [Metric::aliased(9, double(1.0)), Metric::named("Other", double(1.0)), Metric::default()] {
        let mut line = Line::born(&["Speed", "Other"]);
        line.check(NDATA, 1, vec![unknown, Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
        assert_eq!(line.counts().left_out(LeftOut::Unknown), 1);
        assert_eq!(line.reader.take_rebirths().len(), 1);
    }
}

#[test]
fn an_alias_of_two_metrics_belongs_to_neither_and_births_do_not_ask_for_births() {
    let mut line = Line { reader: reader(&["a", "b"]) };
    let nameless = Metric::aliased(8, double(9.0));
    let metrics =
        vec![Metric::born("a", 1, DOUBLE, double(1.0)), Metric::born("b", 1, DOUBLE, double(2.0)), nameless];
    line.check(NBIRTH, 0, metrics, (READ, &[(0, 1.0), (1, 2.0)]));
    assert_eq!(line.reader.take_rebirths(), []);
    line.check(NDATA, 1, vec![Metric::aliased(1, double(3.0))], (READ, &[]));
    line.check(NDATA, 2, vec![Metric::named("b", double(4.0))], (READ, &[(1, 4.0)]));
    assert_eq!(line.counts().left_out(LeftOut::Unknown), 2);
    // Devices have numbers of their own, also where they should not.
    line.check(DBIRTH, 3, vec![Metric::born("b", 0, DOUBLE, double(5.0))], (READ, &[(1, 5.0)]));
    line.check(DDATA, 4, vec![Metric::aliased(0, double(6.0))], (READ, &[(1, 6.0)]));
}

#[test]
fn a_death_ends_the_session_whose_number_it_has() {
    let will = |bd_seq| vec![Metric { datatype: Some(4), ..Metric::named("bdSeq", Value::Long(bd_seq)) }];
    let mut line = Line::born(&["Speed"]);
    line.check(NDEATH, 0, will(6), (READ, &[]));
    assert_eq!(line.counts().stale_deaths, 1);
    line.check(NDATA, 1, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
    line.check(NDEATH, 0, will(7), (READ, &[]));
    line.check(NDATA, 2, vec![Metric::aliased(0, double(3.0))], (refused(Refused::Unborn), &[]));
    line.node_birth(3, 8);
    line.check(NDATA, 4, vec![Metric::aliased(0, double(4.0))], (READ, &[(0, 4.0)]));
    // Without a number it is about whatever session there is.
    line.check(NDEATH, 0, vec![Metric::named("other", Value::None)], (READ, &[]));
    line.check(NDATA, 5, vec![Metric::aliased(0, double(3.0))], (refused(Refused::Unborn), &[]));
    // Of a node that nobody knows there is nothing to forget.
    let found = values(&mut line.reader, "spBv1.0/plant/NDEATH/other", &Payload::new(0, will(1)).encode());
    assert_eq!(found, (READ, vec![]));
}

#[test]
fn the_death_of_a_device_leaves_the_others() {
    let mut line = Line::born(&["Temperature"]);
    let other = "spBv1.0/plant/DBIRTH/line-2/press-2";
    line.check(DBIRTH, 1, vec![Metric::born("Temperature", 1, DOUBLE, double(1.0))], (READ, &[(0, 1.0)]));
    line.check(other, 2, vec![Metric::born("Temperature", 2, DOUBLE, double(2.0))], (READ, &[(0, 2.0)]));
    line.check(DDEATH, 3, vec![], (READ, &[]));
    line.check(DDATA, 4, vec![Metric::aliased(1, double(3.0))], (refused(Refused::Unborn), &[]));
    let data = "spBv1.0/plant/DDATA/line-2/press-2";
    line.check(data, 5, vec![Metric::aliased(2, double(4.0))], (READ, &[(0, 4.0)]));
    line.check(DBIRTH, 6, vec![Metric::born("Temperature", 9, DOUBLE, double(5.0))], (READ, &[(0, 5.0)]));
    line.check(DDATA, 7, vec![Metric::aliased(9, double(6.0))], (READ, &[(0, 6.0)]));
    line.check(DDATA, 8, vec![Metric::aliased(1, double(7.0))], (READ, &[]));
}

#[test]
fn compressed_payloads_are_counted_and_do_not_call_for_births() {
    let compressed =
        Payload { uuid: Some("SPBV1.0_COMPRESSED"), body: Some(vec![1, 2]), ..Payload::default() };
    let compressed = compressed.encode();
    let mut line = Line::born(&["Speed"]);
    // Values: the sequence goes on behind them.
    assert_eq!(values(&mut line.reader, NDATA, &compressed).0, refused(Refused::Compressed));
    line.check(NDATA, 2, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
    // A birth: it would come compressed again.
    for birth in [DBIRTH, NBIRTH] {
        line.node_birth(3, 7);
        assert_eq!(values(&mut line.reader, birth, &compressed).0, refused(Refused::Compressed));
        line.check(NDATA, 4, vec![Metric::named("Speed", double(2.0))], (refused(Refused::Compressed), &[]));
    }
    assert_eq!(line.reader.take_rebirths(), []);
    line.node_birth(3, 7);
    line.check(NDATA, 4, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
}

#[test]
fn a_rebirth_is_wanted_once_a_minute_of_each_node() {
    let mut reader = reader(&["Speed"]);
    let payload = Payload::new(1, vec![]).encode();
    let mut hear = |topic: &str, now_ms| {
        take(&mut reader, &message(topic, &payload), now_ms);
        reader.take_rebirths().len()
    };
    assert_eq!(hear(NDATA, 1_000), 1);
    assert_eq!(hear(NDATA, 1_000), 0);
    assert_eq!(hear(NDATA, 60_999), 0);
    assert_eq!(hear("spBv1.0/plant/NDATA/other", 60_999), 1);
    assert_eq!(hear(NDATA, 61_000), 1);
    assert_eq!(reader.counts().rebirths_wanted, 3);
    assert_eq!(reader.counts().rebirths_held, 2);
}

#[test]
fn what_is_no_payload_changes_nothing() {
    let mut line = Line::born(&["Speed"]);
    let cases: [(&[u8], Refused); 7] = [
        (b"", Refused::Empty),
        (b"{}", Refused::Protobuf),
        (b"\x12\x05\x0a", Refused::Protobuf),
        (b"\x12\x03\x0a\x01\xff\x18\x01", Refused::Protobuf),
        (b"\x18\x80\x02", Refused::Protobuf),
        (b"\x0a\x00", Refused::Protobuf),
        (b"\x18\x01\x12\x02\x60\x01", Refused::Protobuf),
    ];
    for (payload, why) in cases {
        for topic in [NDATA, NBIRTH, NDEATH, DBIRTH, DDATA, DDEATH] {
            assert_eq!(values(&mut line.reader, topic, payload), (refused(why), vec![]), "{payload:?}");
        }
    }
    line.check(NDATA, 1, vec![Metric::aliased(0, double(2.0))], (READ, &[(0, 2.0)]));
    for topic in ["spBv1.0/plant/NCMD/line-2", "spBv1.0/STATE/host", "spBv1.0/plant/NDATA/line-2/x/y"] {
        let untouched = Reading::Untouched(Untouched::SparkplugTopic);
        assert_eq!(values(&mut line.reader, topic, b"\xff"), (untouched, vec![]));
    }
}

#[test]
fn metrics_wanted_later_are_read_with_the_births_of_before() {
    let mut line = Line::born(&["Other"]);
    line.check(DBIRTH, 1, vec![Metric::born("Temperature", 5, DOUBLE, double(2.0))], (READ, &[]));
    line.reader.set_metrics(&names(&["Other", "Speed", "press-1/Temperature"]));
    line.check(NDATA, 2, vec![Metric::aliased(0, double(3.0))], (READ, &[(1, 3.0)]));
    line.check(DDATA, 3, vec![Metric::aliased(5, double(4.0))], (READ, &[(2, 4.0)]));
}
