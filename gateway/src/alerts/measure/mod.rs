//! Reads measurements out of the payloads of committed records.
//!
//! In: records of lane telemetry in their order. Out: [`Sample`]s of the metrics that rules want, and what became of
//! every record ([`Reading`], [`Counts`]). Three forms are read: JSON, Penstock's telemetry protobuf and Sparkplug B
//! (`docs/formats/measurements.md`). Everything else is carried untouched, and counted.
//!
//! Pure: no I/O and no clock; what comes out follows from the records alone, so that reading the log again tells the
//! same. A message that is not whole and valid gives no samples at all. Nothing is allocated for a record without
//! escaped keys, except by births of Sparkplug nodes.
//!
//! Bounds: [`SAMPLES_MAX`] samples of a message, 65,535 metrics, JSON 64 levels deep, and [`sparkplug`]'s table of edge
//! nodes. What is beyond is not read, and counted.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod counts;
mod form;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod json;
mod sparkplug;
mod telemetry;
mod times;
mod wire;

use self::json::Json;
use self::sparkplug::Sparkplug;
use self::telemetry::Telemetry;
use self::times::Times;
use crate::alerts::nouns::Sample;
use crate::outbox::Record;

pub(crate) use self::counts::{Counts, Form, LeftOut, Reading, Refused, Untouched};
pub(crate) use self::sparkplug::{Junk, Rebirth};

/// Most samples of one message.
pub(super) const SAMPLES_MAX: usize = 65_536;

/// Reads the metrics that rules want. Knows the births of Sparkplug nodes.
#[derive(Debug)]
pub(crate) struct Reader {
    json: Json,
    telemetry: Telemetry,
    sparkplug: Sparkplug,
    /// Path of the time in JSON.
    time_path: Option<Box<str>>,
    counts: Counts,
}

/// A record as far as this part looks at it.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    device: &'a str,
    topic: &'a str,
    content_type: Option<&'a str>,
    payload: &'a [u8],
    times: Times,
}

impl Reader {
    /// The place of a metric in the list is [`Sample::metric`]. Those beyond 65,535 are never found.
    pub(crate) fn new(metrics: &[Box<str>]) -> Self {
        Self {
            json: Json::new(metrics, None),
            telemetry: Telemetry::new(metrics),
            sparkplug: Sparkplug::new(metrics),
            time_path: None,
            counts: Counts::default(),
        }
    }

    /// Other metrics are wanted from now on. What is known of Sparkplug nodes, and the counts, stay.
    pub(crate) fn set_metrics(&mut self, metrics: &[Box<str>]) {
        self.json = Json::new(metrics, self.time_path.as_deref());
        self.telemetry = Telemetry::new(metrics);
        self.sparkplug.want(metrics);
    }

    /// Where JSON payloads say when they were measured, as a path; text that is no path is never found.
    /// `metrics` as it was made with.
    pub(crate) fn with_time_path(mut self, time_path: Option<&str>, metrics: &[Box<str>]) -> Self {
        self.time_path = time_path.map(Into::into);
        self.json = Json::new(metrics, time_path);
        self
    }

    /// Puts the samples of a record in place of what `samples` held, in the order of the payload. `now_ms` is the
    /// stage's clock, in Unix milliseconds.
    pub(crate) fn read(&mut self, record: &Record<'_>, now_ms: u64, samples: &mut Vec<Sample>) -> Reading {
        let message = Message {
            device: record.device,
            topic: record.topic,
            content_type: record.properties.content_type,
            payload: record.payload,
            times: Times { received_ms: record.received_ms, stamped_ms: record.properties.device_time_ms },
        };
        self.take(&message, now_ms, samples)
    }

    fn take(&mut self, message: &Message<'_>, now_ms: u64, samples: &mut Vec<Sample>) -> Reading {
        samples.clear();
        let wants_scalar = self.json.wants_root();
        let reading = match form::of(message.topic, message.content_type, message.payload, wants_scalar) {
            Ok(form) => self.by_form(form, message, now_ms, samples),
            Err(why) => Reading::Untouched(why),
        };
        if matches!(reading, Reading::Refused(_)) {
            samples.clear();
        }
        self.counts.note(reading);
        self.counts.samples += samples.len() as u64;
        reading
    }

    fn by_form(
        &mut self,
        form: Form,
        message: &Message<'_>,
        now_ms: u64,
        samples: &mut Vec<Sample>,
    ) -> Reading {
        let Message { payload, times, .. } = *message;
        let counts = &mut self.counts;
        let read = match form {
            Form::Json if self.json.is_wanted() => self.json.read(payload, times, counts, samples),
            Form::Telemetry if self.telemetry.is_wanted() => {
                self.telemetry.read(payload, times, counts, samples)
            }
            // Births are heard for rules that may come.
            Form::Sparkplug => return self.sparkplug.read(message, now_ms, counts, samples),
            _ => return Reading::Untouched(Untouched::NothingWanted),
        };
        match read {
            Ok(()) => Reading::Read(form),
            Err(why) => Reading::Refused(why),
        }
    }

    /// Edge nodes whose births have to be told again, since the last call; at most one wish per node and minute, and
    /// 1,000 in all.
    pub(crate) fn take_rebirths(&mut self) -> Vec<Rebirth> {
        self.sparkplug.take_rebirths()
    }

    /// Appends what follows from the records so far: what is known of Sparkplug nodes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.sparkplug.encode(out);
    }

    /// Takes up what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// If it is something else; then no node is known, and each is asked for a rebirth when it speaks.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<(), Junk> {
        self.sparkplug.decode(bytes)
    }

    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests;
