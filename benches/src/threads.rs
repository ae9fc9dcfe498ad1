//! Processor time of a process by its threads, as the kernel accounts for it, in nanoseconds and not in ticks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// Processor time by the name of the thread; threads of one name are added up.
pub type Threads = BTreeMap<String, Duration>;

/// Reads the times of all threads that live. What a thread used that has ended is not in it.
///
/// # Errors
/// There is no such process.
pub fn of(pid: u32) -> io::Result<Threads> {
    let mut threads = Threads::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // Tasks may end between the listing and the look.
        let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
        let Ok(accounts) = fs::read_to_string(task.join("schedstat")) else { continue };
        let nanos = accounts.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
        let nanos = nanos.ok_or_else(|| io::Error::other("the kernel does not account for threads"))?;
        *threads.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
    }
    Ok(threads)
}

/// What the threads whose name starts with `prefix` used between two looks.
pub fn spent(before: &Threads, after: &Threads, prefix: &str) -> Duration {
    let sum = |threads: &Threads| -> Duration {
        threads.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, time)| *time).sum()
    };
    sum(after).saturating_sub(sum(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_is_found_by_its_name() {
        let before = of(std::process::id()).unwrap();
        let worked = std::thread::Builder::new().name("busy-thread".to_owned()).spawn(|| {
            let mut sum = 0_u64;
            for number in 0..50_000_000_u64 {
                sum = std::hint::black_box(sum ^ number);
            }
            (of(std::process::id()).unwrap(), sum)
        });
        let (after, _) = worked.unwrap().join().unwrap();
        assert!(spent(&before, &after, "busy-") > Duration::from_millis(1), "{after:?}");
        assert_eq!(spent(&before, &after, "no such"), Duration::ZERO);
    }
}
