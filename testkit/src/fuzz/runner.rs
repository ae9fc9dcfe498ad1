//! Runs decoders on random cases and catches what panics.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Duration;

use super::{Random, minimise, mutate, setting};
use crate::process::now;

/// Cases that are made from one seed of their own, so that threads can share the work.
const CHUNK: u64 = 4_096;
/// Different failures of one decoder that are kept.
const FAILURES_MAX: usize = 8;
/// One case of this many is made of random bytes only.
const PURE_JUNK: usize = 32;
/// Bytes of such a case, at most.
const JUNK_BYTES_MAX: usize = 96;

/// One decoder.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name, also in file names: letters, digits and underlines.
    pub name: &'static str,
    /// Decodes; panics if what it finds does not hold together.
    pub decode: fn(&[u8]),
    /// Cases to begin with; not empty.
    pub seeds: Vec<Vec<u8>>,
    /// Its share of the cases, relative to the others.
    pub weight: u64,
}

/// How much to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Cases for all decoders together.
    pub cases: u64,
    /// What the cases depend on.
    pub seed: u64,
    /// How many threads run them.
    pub threads: usize,
    /// Where failing cases are written.
    pub directory: PathBuf,
    /// A failing case to run again, and nothing else.
    pub replay: Option<PathBuf>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One row for each decoder, in their order.
    pub rows: Vec<Row>,
    /// What panicked.
    pub failures: Vec<Failure>,
}

/// What came of one decoder.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The decoder.
    pub name: &'static str,
    /// Cases that it was given.
    pub cases: u64,
    /// Cases that it panicked on.
    pub panics: u64,
    /// Time that the cases took, of all threads together.
    pub time: Duration,
    /// The longest time that [`CHUNK`] cases took.
    pub slowest: Duration,
}

/// A kind of panic.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The decoder.
    pub name: &'static str,
    /// What the panic said, and where.
    pub message: String,
    /// The case, as small as it got.
    pub case: Vec<u8>,
    /// The file that holds it, if it could be written.
    pub file: Option<PathBuf>,
}

impl Plan {
    /// What the environment says, and `cases` if it says nothing about their number.
    #[must_use]
    pub fn from_environment(cases: u64) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
        let path = |name: &str| std::env::var_os(format!("PENSTOCK_FUZZ_{name}")).map(PathBuf::from);
        Self {
            cases: setting("CASES", cases),
            seed: setting("SEED", seed_of_now()),
            threads: usize::try_from(setting("THREADS", cores)).unwrap_or(1),
            directory: path("DIR").unwrap_or_else(|| std::env::temp_dir().join("penstock-fuzz")),
            replay: path("REPLAY"),
        }
    }
}

/// A seed that differs from run to run.
fn seed_of_now() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// Runs every decoder on its share of the cases.
#[must_use]
pub fn run(targets: &[Target], plan: &Plan) -> Outcome {
    catch_messages();
    let weights: u64 = targets.iter().map(|target| target.weight).sum();
    let share = |target: &Target| (plan.cases * target.weight).div_ceil(weights.max(1));
    let corpora = targets.iter().enumerate();
    let corpora: Vec<Corpus<'_>> =
        corpora.map(|(place, target)| Corpus::new(place, target, plan.seed)).collect();
    let chunks: Vec<(usize, u64, u64)> = targets
        .iter()
        .enumerate()
        .flat_map(|(place, target)| {
            let cases = share(target);
            (0..cases.div_ceil(CHUNK)).map(move |chunk| (place, chunk, CHUNK.min(cases - chunk * CHUNK)))
        })
        .collect();
    let rows: Vec<Row> = targets.iter().map(|target| Row { name: target.name, ..Row::default() }).collect();
    let rows = Mutex::new(rows);
    let found = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&(place, chunk, cases)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(corpus) = corpora.get(place) else { return };
            let begun = now();
            let panics = corpus.run(chunk, cases, &found);
            let took = begun.elapsed();
            if let Some(row) = lock(&rows).get_mut(place) {
                row.cases += cases;
                row.panics += panics;
                row.time += took;
                row.slowest = row.slowest.max(took);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().unwrap_or_default();
    let failures = found.into_iter().map(|((place, message), case)| {
        let target = corpora.get(place).map(|corpus| corpus.target);
        Failure::new(target, message, &case, &plan.directory)
    });
    Outcome { rows: rows.into_inner().unwrap_or_default(), failures: failures.collect() }
}

/// Runs a failing case again, and lets it panic.
///
/// # Errors
///
/// The file cannot be read, or its name does not begin with that of a decoder and a hyphen.
pub fn replay(targets: &[Target], file: &Path) -> io::Result<()> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let decoder = name.split('-').next().unwrap_or_default();
    let Some(target) = targets.iter().find(|target| target.name == decoder) else {
        let known: Vec<_> = targets.iter().map(|target| target.name).collect();
        let message = format!("{name} names no decoder of {}", known.join(", "));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    (target.decode)(&std::fs::read(file)?);
    Ok(())
}

/// What was found: the decoder's place and the message, with a case.
type Found = BTreeMap<(usize, String), Vec<u8>>;

/// A decoder and what its cases are made of.
struct Corpus<'a> {
    target: &'a Target,
    place: usize,
    seed: u64,
}

impl<'a> Corpus<'a> {
    fn new(place: usize, target: &'a Target, seed: u64) -> Self {
        // The name is a part of the seed, so that the others do not change when one is added.
        let name = target.name.bytes().fold(seed, |seed, byte| Random::new(seed ^ u64::from(byte)).number());
        Self { target, place, seed: name }
    }

    /// Runs `cases` cases; returns how many panicked.
    fn run(&self, chunk: u64, cases: u64, found: &Mutex<Found>) -> u64 {
        let mut random = Random::new(Random::new(self.seed ^ chunk).number());
        let mut case = Vec::new();
        let mut panics = 0;
        for number in 0..cases {
            if chunk == 0
                && let Some(seed) =
                    usize::try_from(number).ok().and_then(|number| self.target.seeds.get(number))
            {
                case.clone_from(seed);
            } else {
                self.make(&mut random, &mut case);
            }
            if let Err(message) = decodes(self.target, &case) {
                panics += 1;
                let mut found = lock(found);
                let known = found.keys().filter(|(place, _)| *place == self.place).count();
                if known < FAILURES_MAX {
                    found.entry((self.place, message)).or_insert_with(|| case.clone());
                }
            }
        }
        panics
    }

    fn make(&self, random: &mut Random, case: &mut Vec<u8>) {
        case.clear();
        if random.below(PURE_JUNK) == 0 {
            case.extend((0..random.below(JUNK_BYTES_MAX)).map(|_| random.byte()));
            return;
        }
        let (Some(seed), Some(other)) = (random.pick(&self.target.seeds), random.pick(&self.target.seeds))
        else {
            return;
        };
        case.extend_from_slice(seed);
        mutate(random, case, other);
    }
}

/// Whether the decoder returns; if not, what the panic said.
fn decodes(target: &Target, case: &[u8]) -> Result<(), String> {
    CATCHING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.decode)(case)));
    CATCHING.set(false);
    outcome.map_err(|_| MESSAGE.take())
}

thread_local! {
    /// Whether a panic of this thread is one of a decoder.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// What the last one said.
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the messages of panics in decoders from being printed, once for each case; others are.
fn catch_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                // The message may hold the case, which is not what tells one failure from another.
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                let text = info.payload_as_str().unwrap_or_default();
                let text: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
                MESSAGE.set(format!("{place}: {text}"));
            } else {
                before(info);
            }
        }));
    });
}

impl Failure {
    fn new(target: Option<&Target>, message: String, case: &[u8], directory: &Path) -> Self {
        let Some(target) = target else {
            return Self { name: "", message, case: case.to_vec(), file: None };
        };
        let place = |message: &str| message.split(": ").next().unwrap_or_default().to_owned();
        let same = |case: &[u8]| decodes(target, case).is_err_and(|other| place(&other) == place(&message));
        let case = minimise(case, &mut { same });
        let digest = case
            .iter()
            .fold(case.len() as u64, |digest, byte| Random::new(digest ^ u64::from(*byte)).number());
        let file = directory.join(format!("{}-{digest:016x}.case", target.name));
        let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&file, &case));
        Self { name: target.name, message, case, file: written.ok().map(|()| file) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26}{:>14}{:>9}{:>12}{:>12}",
            "decoder", "cases", "panics", "ns a case", "slowest us"
        )?;
        let mut total = Row::default();
        for row in &self.rows {
            let nanoseconds = row.time.as_nanos() / u128::from(row.cases.max(1));
            let slowest = row.slowest.as_micros() / u128::from(CHUNK);
            writeln!(f, "{:<26}{:>14}{:>9}{nanoseconds:>12}{slowest:>12}", row.name, row.cases, row.panics)?;
            total.cases += row.cases;
            total.panics += row.panics;
        }
        writeln!(f, "{:<26}{:>14}{:>9}", "all", total.cases, total.panics)?;
        for failure in &self.failures {
            let file = failure.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
            writeln!(f, "{} {}\n  {}\n  {file}", failure.name, failure.message, failure.case.escape_ascii())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picky(bytes: &[u8]) {
        assert!(!(bytes.len() > 3 && bytes.contains(&0x2a)), "a byte it does not like");
    }

    fn patient(_: &[u8]) {}

    fn targets() -> [Target; 2] {
        let target =
            |name, decode, seed: &[u8], weight| Target { name, decode, seeds: vec![seed.to_vec()], weight };
        [target("patient", patient, b"abc", 1), target("picky", picky, b"abcdefgh", 3)]
    }

    fn plan(directory: &Path, threads: usize) -> Plan {
        Plan { cases: 40_000, seed: 7, threads, directory: directory.to_owned(), replay: None }
    }

    #[test]
    fn a_panic_is_found_made_small_written_and_replayed() {
        let directory = tempfile::tempdir().unwrap();
        let outcome = run(&targets(), &plan(directory.path(), 2));
        let [patient, picky] = &*outcome.rows else { panic!("two rows") };
        assert_eq!((patient.cases, patient.panics, picky.cases), (10_000, 0, 30_000));
        assert!(picky.panics > 0);
        let [failure] = &*outcome.failures else { panic!("one failure: {outcome}") };
        assert_eq!(failure.case.len(), 4, "it is as small as it gets");
        assert!(failure.message.contains("a byte it does not like"), "{}", failure.message);
        let file = failure.file.as_ref().unwrap();
        assert!(panic::catch_unwind(|| replay(&targets(), file)).is_err(), "it panics again");
        assert!(replay(&targets()[..1], file).is_err(), "nobody is called picky");
    }

    #[test]
    fn the_same_seed_makes_the_same_cases_on_any_number_of_threads() {
        let directory = tempfile::tempdir().unwrap();
        let panics = |threads| run(&targets(), &plan(directory.path(), threads)).rows[1].panics;
        assert_eq!(panics(1), panics(3));
    }
}
