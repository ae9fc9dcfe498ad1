//! Which faults were really sent: written down as they are.
//!
//! The truth file is the judge's own witness; `testkit` reads it. A line goes out when the first reading of a fault is
//! handed to a connection, another one with the last, and a third when the device is done and knows what was
//! acknowledged. Nothing is kept back in between: the file outlives its writer.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use testkit::alerts::{Injected, Kind, Line, Run};
use testkit::ledger::{DeviceLedger, Qos};

use crate::fault::Episode;
use crate::plan::DevicePlan;
use crate::signal::Metric;

/// A truth file that is being written.
#[derive(Debug)]
pub(crate) struct TruthFile {
    file: Mutex<File>,
    /// The first error; nothing is written after it.
    error: Mutex<Option<io::Error>>,
}

/// What became of the faults of one device.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    file: Option<Arc<TruthFile>>,
    /// The highest reading handed over so far: later publishes of it change nothing.
    sent: u64,
    faults: Vec<Injected>,
}

// === impl TruthFile ===

impl TruthFile {
    /// Begins a file; what was in it is gone.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Mutex::new(File::create(path)?), error: Mutex::default() })
    }

    /// Writes what is known about the run.
    pub(crate) fn run(&self, run: Run) {
        self.write(&Line::Run(run));
    }

    /// The error that ended the writing, if any.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.as_ref().map(ToString::to_string)
    }

    fn write(&self, line: &Line) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() {
            *error = self.append(line).err();
        }
    }

    fn append(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
    }
}

// === impl Witness ===

impl Witness {
    /// The witness of a device; one without a file sees nothing.
    pub(crate) fn new(plan: &DevicePlan, file: Option<Arc<TruthFile>>) -> Self {
        let faults = if file.is_some() { plan.faults.as_slice() } else { &[] };
        Self { file, sent: 0, faults: faults.iter().map(|episode| injected(plan, episode)).collect() }
    }

    /// A reading was taken, at this time by a clock that is right.
    pub(crate) fn taken(&mut self, reading: u64, taken_ms: u64) {
        let first = self.faults.iter_mut().filter(|fault| fault.first == reading);
        first.for_each(|fault| fault.taken_ms = taken_ms);
    }

    /// A reading was handed to a connection; `now_ms` gives the wall clock.
    pub(crate) fn sent(&mut self, reading: u64, now_ms: impl Fn() -> u64) {
        if reading <= self.sent {
            return;
        }
        self.sent = reading;
        let Some(file) = &self.file else { return };
        let concerned = self.faults.iter_mut().filter(|fault| (fault.first..=fault.last).contains(&reading));
        for fault in concerned {
            fault.sent += 1;
            let (first, last) = (reading == fault.first, reading == fault.last);
            if first {
                fault.begin_ms = now_ms();
            }
            if last {
                fault.end_ms = Some(if first { fault.begin_ms } else { now_ms() });
            }
            if first || last {
                file.write(&Line::Fault(fault.clone()));
            }
        }
    }

    /// The device is done: what was acknowledged is known.
    pub(crate) fn settle(&mut self, ledger: &DeviceLedger) {
        let Some(file) = &self.file else { return };
        let sent = self.sent;
        for fault in self.faults.iter_mut().filter(|fault| fault.sent > 0) {
            let readings = fault.first..=fault.last.min(sent);
            let acked = readings.filter(|reading| ledger.is_acked(*reading)).count();
            fault.acked = Some(u64::try_from(acked).unwrap_or(u64::MAX));
            file.write(&Line::Fault(fault.clone()));
        }
    }
}

fn injected(plan: &DevicePlan, episode: &Episode) -> Injected {
    let Episode { number, kind, metric, size, first, .. } = *episode;
    let magnitude = match kind {
        Kind::Stuck | Kind::Dropout => None,
        Kind::ClockJump => Some(size / 1000.0),
        Kind::Drift | Kind::Spike | Kind::Shift | Kind::Noise | Kind::Gain => Some(size),
    };
    let is_error = matches!(kind, Kind::Drift | Kind::Spike | Kind::Shift);
    let deviations = metric.filter(|_| is_error).map(|metric| size / metric.deviation());
    Injected {
        fault: number,
        device: plan.id.clone(),
        metric: metric.map(|metric| Metric::name(metric).to_owned()),
        kind,
        magnitude,
        deviations,
        first,
        last: episode.last(),
        taken_ms: 0,
        begin_ms: 0,
        end_ms: None,
        period_ms: u64::try_from(plan.period.as_millis()).unwrap_or(u64::MAX),
        promised: plan.qos != Qos::AtMostOnce,
        sent: 0,
        acked: None,
    }
}

#[cfg(test)]
mod tests {
    use testkit::alerts::Truth;

    use super::*;
    use crate::plan;
    use crate::profile::Profile;

    fn witness(path: &Path, episodes: &[Episode]) -> Witness {
        let mut plan = plan::devices(1, 1, 10.0, &Profile::default()).remove(0);
        plan.qos = Qos::AtLeastOnce;
        plan.faults = episodes.to_vec();
        Witness::new(&plan, Some(Arc::new(TruthFile::create(path).unwrap())))
    }

    fn ledger(sent: u64, acked: &[u64]) -> DeviceLedger {
        let mut ledger = DeviceLedger::new(Qos::AtLeastOnce);
        (1..=sent).for_each(|reading| ledger.published(reading).unwrap());
        acked.iter().for_each(|reading| ledger.acked(*reading).unwrap());
        ledger
    }

    const SHIFT: Episode = Episode {
        number: 2,
        kind: Kind::Shift,
        metric: Some(Metric::Pressure),
        size: 1.0,
        first: 3,
        readings: 3,
    };
    const SILENCE: Episode =
        Episode { number: 1, kind: Kind::Dropout, metric: None, size: 0.0, first: 4, readings: 30 };

    #[test]
    fn a_fault_is_written_down_when_it_begins_when_it_ends_and_when_it_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let mut witness = witness(&path, &[SHIFT]);
        let fault = |path| Truth::read(path).unwrap().faults.pop();
        (1..=4).for_each(|reading| witness.taken(reading, 500 * reading));
        (1..=2).for_each(|reading| witness.sent(reading, || 1000));
        assert_eq!(fault(&path), None);
        witness.sent(3, || 2000);
        let begun = fault(&path).unwrap();
        assert_eq!((begun.fault, begun.first, begun.last), (2, 3, 5));
        assert_eq!((begun.taken_ms, begun.begin_ms, begun.end_ms), (1500, 2000, None));
        assert_eq!((begun.sent, begun.acked), (1, None));
        assert_eq!(
            (begun.metric.as_deref(), begun.magnitude, begun.deviations),
            (Some("pressure"), Some(1.0), Some(5.0))
        );
        // A publish again is none of a new reading.
        witness.sent(3, || 2500);
        (4..=5).for_each(|reading| witness.sent(reading, || reading * 1000));
        witness.sent(6, || 9000);
        let ended = fault(&path).unwrap();
        assert_eq!((ended.begin_ms, ended.end_ms, ended.sent), (2000, Some(5000), 3));
        witness.settle(&ledger(6, &[1, 3, 4, 6]));
        let settled = fault(&path).unwrap();
        assert_eq!((settled.acked, settled.is_proven()), (Some(2), false));
        witness.settle(&ledger(6, &[3, 4, 5]));
        assert!(fault(&path).unwrap().is_proven());
    }

    #[test]
    fn a_silence_lies_between_two_readings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let mut witness = witness(&path, &[SILENCE]);
        (1..=6).for_each(|reading| witness.sent(reading, || reading * 1000));
        witness.settle(&ledger(6, &[1, 2, 3, 4, 5, 6]));
        let fault = Truth::read(&path).unwrap().faults.pop().unwrap();
        assert_eq!((fault.first, fault.last, fault.begin_ms, fault.end_ms), (4, 5, 4000, Some(5000)));
        assert!(fault.is_proven());
    }

    #[test]
    fn what_was_never_sent_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let mut witness = witness(&path, &[SHIFT, SILENCE]);
        (1..=2).for_each(|reading| witness.sent(reading, || 1000));
        witness.settle(&ledger(2, &[1, 2]));
        assert_eq!(Truth::read(&path).unwrap(), Truth::default());
    }

    #[test]
    fn an_error_of_the_file_is_kept() {
        // Every write to it fails.
        let file = TruthFile::create(Path::new("/dev/full")).unwrap();
        assert_eq!(file.error(), None);
        file.run(Run { seed: 1, devices: 1, start_ms: 1, end_ms: None });
        assert!(file.error().is_some_and(|error| error.contains("space")), "{:?}", file.error());
    }
}
