//! Making a failing case as small as it gets.

/// Attempts for one case, at most; a decoder that panics prints something each time.
const ATTEMPTS_MAX: usize = 4_000;

/// Takes bytes out of `case`, and makes those that stay zero, as long as it still `fails`.
pub fn minimise(case: &[u8], fails: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut best = case.to_vec();
    let mut attempts = 0;
    let mut try_it = |candidate: &[u8], attempts: &mut usize| {
        *attempts += 1;
        *attempts <= ATTEMPTS_MAX && fails(candidate)
    };
    let mut chunk = best.len().div_ceil(2);
    while chunk > 0 {
        let mut start = 0;
        while start < best.len() {
            let mut candidate = best.clone();
            candidate.drain(start..(start + chunk).min(best.len()));
            if try_it(&candidate, &mut attempts) {
                best = candidate;
            } else {
                start += chunk;
            }
        }
        chunk /= 2;
    }
    for place in 0..best.len() {
        let mut candidate = best.clone();
        if let Some(byte) = candidate.get_mut(place).filter(|byte| **byte != 0) {
            *byte = 0;
            if try_it(&candidate, &mut attempts) {
                best = candidate;
            }
        }
    }
    best
}
