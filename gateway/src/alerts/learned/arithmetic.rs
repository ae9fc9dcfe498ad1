//! Arithmetic that gives the same bits on every machine: nothing here calls a mathematics library, whose last bits
//! differ between platforms. Additions, products, quotients and roots are exact by IEEE 754.

use std::f32::consts::LN_2;

/// The natural logarithm of a positive normal number, to about a millionth.
#[inline]
pub(super) fn ln(x: f32) -> f32 {
    /// The bits of the root of 1/2: mantissas are taken from there to the root of 2.
    const ROOT_HALF: u32 = 0x3F35_04F3;
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF);
    // From -256 to 255, which is exact.
    let doublings = (shifted.cast_signed() >> 23) as f32;
    let mantissa = f32::from_bits((shifted & 0x007F_FFFF).wrapping_add(ROOT_HALF));
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = 1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0)));
    doublings * LN_2 + 2.0 * t * series
}

/// `1 - exp(-x)` for `x` from 0 to 8: how far an average moves in a time of `x` time constants.
pub(super) fn moved(x: f32) -> f32 {
    // exp(-x) is the sixteenth power of exp(-x / 16), where the series needs few terms.
    let y = x / 16.0;
    let sixteenth = 1.0 - y * (1.0 - y * (0.5 - y * (1.0 / 6.0 - y * (1.0 / 24.0))));
    let eighth = sixteenth * sixteenth;
    let quarter = eighth * eighth;
    let half = quarter * quarter;
    1.0 - half * half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_library_to_a_millionth() {
        let mut x = 1e-30_f32;
        while x < 1e30 {
            let (ours, library) = (ln(x), x.ln());
            assert!((ours - library).abs() <= 2e-6 * library.abs().max(1.0), "{x}: {ours}, {library}");
            x *= 1.037;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn averages_move_as_the_exponential_says() {
        for step in 0..=800_u16 {
            let x = f32::from(step) / 100.0;
            let (ours, library) = (moved(x), -(-x).exp_m1());
            assert!((ours - library).abs() < 2e-3, "{x}: {ours}, {library}");
        }
    }
}
