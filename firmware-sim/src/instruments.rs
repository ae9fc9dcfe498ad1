//! What a device says it measures: its signal with its faults, as payloads.
//!
//! The signal goes on beneath a fault and draws nothing more because of it: readings outside the fault are the same
//! with it and without it.

use penstock_proto::Reading;
use testkit::alerts::Kind;

use crate::fault::Episode;
use crate::plan::DevicePlan;
use crate::signal::{Metric, Part, Shape, Signal};

/// Keeps the signal apart from what else follows from the seed of a device.
const SIGNAL: u64 = 0x7369_676e_616c_2e31;

/// The instruments of one device.
#[derive(Debug)]
pub(crate) struct Instruments {
    device: String,
    signal: Signal,
    faults: Vec<Fault>,
    /// The number of the latest reading.
    reading: u64,
    /// What it said.
    said: Values,
}

/// A fault with what has become of it.
#[derive(Debug)]
struct Fault {
    episode: Episode,
    /// The value that is stuck.
    held: Option<f64>,
    /// Readings that a dropout still swallows.
    left: u64,
}

/// The values of a reading.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Values {
    temperature: f64,
    pressure: f64,
    vibration: f64,
}

// === impl Instruments ===

impl Instruments {
    pub(crate) fn new(plan: &DevicePlan, shape: Shape) -> Self {
        let fault = |episode: &Episode| Fault { episode: *episode, held: None, left: episode.readings };
        Self {
            device: plan.id.clone(),
            signal: Signal::new(plan.seed ^ SIGNAL, shape),
            faults: plan.faults.iter().map(fault).collect(),
            reading: 0,
            said: Values::default(),
        }
    }

    /// Whether the reading that is due now is not taken, because the device is silent; to be asked once per reading.
    pub(crate) fn is_silent(&mut self) -> bool {
        let reading = self.reading;
        let silent = |fault: &&mut Fault| {
            fault.episode.kind == Kind::Dropout && fault.episode.first == reading && fault.left > 0
        };
        match self.faults.iter_mut().find(silent) {
            Some(fault) => {
                fault.left -= 1;
                true
            }
            None => false,
        }
    }

    /// The payload of the next reading, which has this number, brought to `bytes` where its figures allow it.
    pub(crate) fn payload(&mut self, reading: u64, taken_ms: u64, bytes: usize) -> Vec<u8> {
        self.reading = reading;
        let (Values { temperature, pressure, vibration }, taken_ms) = self.measure(taken_ms);
        let device = self.device.clone();
        let pad = String::new();
        let mut reading = Reading { device, reading, taken_ms, temperature, pressure, vibration, pad };
        let bare = serde_json::to_vec(&reading).unwrap_or_default();
        let frame = r#","pad":"""#.len();
        let Some(pad) = bytes.checked_sub(bare.len() + frame).filter(|&pad| pad > 0) else { return bare };
        reading.pad = "x".repeat(pad);
        serde_json::to_vec(&reading).unwrap_or_default()
    }

    fn measure(&mut self, mut taken_ms: u64) -> (Values, u64) {
        let reading = self.reading;
        let before = if reading > 1 { Some(self.said) } else { None };
        let mut values = Values::default();
        for part in self.signal.next() {
            *values.of(part.metric) = part.calm + part.noise;
            for fault in self.faults.iter_mut().filter(|fault| fault.episode.metric == Some(part.metric)) {
                let value = values.of(part.metric);
                *value = fault.apply(reading, &part, *value, before);
            }
            let value = values.of(part.metric);
            *value = rounded(*value);
        }
        for Fault { episode, .. } in &self.faults {
            if episode.kind == Kind::ClockJump && episode.concerns(reading) {
                taken_ms = taken_ms.saturating_add_signed(whole(episode.size));
            }
        }
        self.said = values;
        (values, taken_ms)
    }
}

// === impl Fault ===

impl Fault {
    /// What a value becomes by this fault; `before` is what the device said last.
    fn apply(&mut self, reading: u64, part: &Part, value: f64, before: Option<Values>) -> f64 {
        let Episode { kind, size, first, readings, .. } = self.episode;
        if !self.episode.concerns(reading) {
            return value;
        }
        match kind {
            Kind::Stuck => {
                *self.held.get_or_insert_with(|| before.map_or(value, |mut before| *before.of(part.metric)))
            }
            Kind::Drift => value + size * portion(reading - first + 1, readings),
            Kind::Spike | Kind::Shift => value + size,
            Kind::Noise => value + (size - 1.0) * part.noise,
            Kind::Gain => value * size,
            Kind::Dropout | Kind::ClockJump => value,
        }
    }
}

// === impl Values ===

impl Values {
    const fn of(&mut self, metric: Metric) -> &mut f64 {
        match metric {
            Metric::Temperature => &mut self.temperature,
            Metric::Pressure => &mut self.pressure,
            Metric::Vibration => &mut self.vibration,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a profile allows a billion readings, far below 2^52")]
fn portion(of: u64, all: u64) -> f64 {
    of as f64 / all as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a profile allows jumps of ten years, far below 2^63 ms")]
fn whole(milliseconds: f64) -> i64 {
    milliseconds.round() as i64
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::profile::Profile;

    const READINGS: u64 = 40;

    fn instruments(fault: &str) -> Instruments {
        let text =
            if fault.is_empty() { String::new() } else { format!("[[fault]]\npercent = 100\n{fault}") };
        let profile: Profile = toml::from_str(&text.replace(", ", "\n")).unwrap();
        profile.check().unwrap();
        let plan = plan::devices(3, 1, 10.0, &profile).remove(0);
        Instruments::new(&plan, profile.signal)
    }

    fn readings(fault: &str) -> Vec<Reading> {
        let mut instruments = instruments(fault);
        let payloads = (1..=READINGS).map(|reading| instruments.payload(reading, 1_000_000, 200));
        payloads.map(|payload| serde_json::from_slice(&payload).unwrap()).collect()
    }

    /// What readings 11 to 15 say of the temperature with a fault and without, after a look at the others.
    fn check(fault: &str, expected: impl Fn(usize, f64) -> f64) {
        let (calm, faulty) = (readings(""), readings(fault));
        for (place, (calm, faulty)) in calm.iter().zip(&faulty).enumerate() {
            if (10..15).contains(&place) {
                let expected = expected(place, calm.temperature);
                assert!((faulty.temperature - expected).abs() < 0.0015, "{fault}: {faulty:?} {expected}");
                assert_eq!((faulty.pressure, faulty.vibration), (calm.pressure, calm.vibration));
            } else {
                assert_eq!(calm, faulty, "{fault}");
            }
        }
    }

    #[test]
    fn a_fault_changes_what_it_concerns_and_nothing_else() {
        let calm: Vec<f64> = readings("").iter().map(|reading| reading.temperature).collect();
        let about = "metric = 'temperature', start_reading = 11, length_readings = 5";
        check(&format!("kind = 'shift', absolute = 3.5, {about}"), |_, value| value + 3.5);
        check(&format!("kind = 'shift', deviations = -6, {about}"), |_, value| value - 3.0);
        check(&format!("kind = 'spike', absolute = 30, {about}"), |_, value| value + 30.0);
        check(&format!("kind = 'gain', factor = 1.5, {about}"), |_, value| value * 1.5);
        check(&format!("kind = 'stuck', {about}"), |_, _| calm[9]);
        check(&format!("kind = 'drift', absolute = 10, {about}"), |place, value| {
            value + [2.0, 4.0, 6.0, 8.0, 10.0][place - 10]
        });
        let parts = |place: usize| {
            let mut instruments = instruments("");
            (0..=place).map(|_| instruments.signal.next()[0]).last().unwrap()
        };
        check(&format!("kind = 'noise', factor = 4, {about}"), |place, _| {
            let Part { calm, noise, .. } = parts(place);
            calm + 4.0 * noise
        });
    }

    #[test]
    fn a_clock_that_jumps_returns() {
        for (seconds, jumped) in [(-600.0, 400_000), (2.5, 1_002_500), (-2000.0, 0)] {
            let fault = format!(
                "kind = 'clock-jump', jump_seconds = {seconds:?}, start_reading = 3, length_readings = 2"
            );
            let taken: Vec<u64> = readings(&fault).iter().map(|reading| reading.taken_ms).take(6).collect();
            assert_eq!(taken, [1_000_000, 1_000_000, jumped, jumped, 1_000_000, 1_000_000]);
        }
    }

    #[test]
    fn a_silent_device_takes_no_readings_and_numbers_on() {
        let mut instruments = instruments("kind = 'dropout', start_reading = 4, length_readings = 3");
        let mut taken = Vec::new();
        let mut reading = 1;
        for slot in 1..=10 {
            if !instruments.is_silent() {
                drop(instruments.payload(reading, 0, 200));
                taken.push((slot, reading));
                reading += 1;
            }
        }
        assert_eq!(taken, [(1, 1), (2, 2), (3, 3), (7, 4), (8, 5), (9, 6), (10, 7)]);
    }

    #[test]
    fn the_same_seed_measures_the_same_and_another_one_does_not() {
        assert_eq!(readings(""), readings(""));
        let other = plan::devices(4, 1, 10.0, &Profile::default()).remove(0);
        let mut other = Instruments::new(&other, Shape::default());
        let mut same = instruments("");
        assert_ne!(same.payload(1, 0, 200), other.payload(1, 0, 200));
    }

    #[test]
    fn payloads_have_the_size_asked_for_and_are_readings() {
        let mut instruments = instruments("");
        let payload = instruments.payload(17, 1_700_000_000_000, 200);
        assert_eq!(payload.len(), 200);
        let reading: Reading = serde_json::from_slice(&payload).unwrap();
        assert_eq!((reading.device.as_str(), reading.reading), ("device-000001", 17));
        assert!(instruments.payload(18, 1_700_000_000_000, 10).len() > 100);
    }
}
