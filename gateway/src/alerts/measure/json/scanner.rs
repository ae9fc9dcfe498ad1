//! The words of a JSON text, strictly as RFC 8259 has them.

use penstock_proto::json::plain_len;

use crate::alerts::measure::Refused;

/// Reads words from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A number as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    text: &'a str,
    /// Its digits without point and exponent; not all of them if there are more than [`DIGITS_MAX`].
    digits: u64,
    /// The power of ten that `digits` is multiplied with.
    power: i32,
    /// Whether `digits` and `power` are the whole number.
    is_short: bool,
}

/// So many digits fit 64 bits.
const DIGITS_MAX: usize = 19;
/// Integers below this are exact as `f64`.
const EXACT: u64 = 1 << 53;
/// Powers of ten that are exact as `f64`.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over the byte that was seen.
    #[inline]
    pub(super) const fn pass(&mut self) {
        self.at += 1;
    }

    #[inline]
    pub(super) fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Passes over `byte`.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Refused> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.fault())
    }

    /// What is wrong with the byte at hand, or with there being none.
    pub(super) fn fault(&self) -> Refused {
        if self.peek().is_none() { Refused::CutShort } else { Refused::Syntax }
    }

    /// Passes over one of the three names.
    pub(super) fn name(&mut self, name: &'static str) -> Result<(), Refused> {
        let start = *self;
        for byte in name.bytes() {
            if self.peek() != Some(byte) {
                return Err(if start.is_not_finite() { Refused::NotANumber } else { self.fault() });
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Why no value begins here.
    pub(super) fn no_value(&self) -> Refused {
        if self.is_not_finite() { Refused::NotANumber } else { self.fault() }
    }

    fn is_not_finite(&self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        ["NaN", "nan", "Infinity", "inf"].iter().any(|name| rest.starts_with(name))
    }

    /// A string with its quotation marks, and whether it has escapes.
    #[inline]
    pub(super) fn string(&mut self) -> Result<(&'a str, bool), Refused> {
        let start = self.at;
        let mut escaped = false;
        self.expect(b'"')?;
        loop {
            self.at += plain_len(self.text.as_bytes().get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.fault()),
            }
        }
        Ok((self.text.get(start..self.at).unwrap_or_default(), escaped))
    }

    fn escape(&mut self) -> Result<(), Refused> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.fault());
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    /// A number; the byte at hand is its first.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number<'a>, Refused> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let mut digits = 0;
        let mut count = 0;
        match self.peek() {
            Some(b'0') => {
                self.at += 1;
                count = 1;
            }
            Some(b'1'..=b'9') => count += self.digits(&mut digits),
            _ => return Err(self.no_value()),
        }
        let mut power = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let behind = self.digits(&mut digits);
            if behind == 0 {
                return Err(self.fault());
            }
            count += behind;
            power = i32::try_from(behind).map_or(i32::MIN, |behind| -behind);
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            power = power.saturating_add(self.exponent()?);
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Number { text, digits, power, is_short: count <= DIGITS_MAX })
    }

    /// Takes digits and says how many they were.
    #[inline]
    fn digits(&mut self, number: &mut u64) -> usize {
        let start = self.at;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            // What does not fit is noticed by the count.
            *number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            self.at += 1;
        }
        self.at - start
    }

    fn exponent(&mut self) -> Result<i32, Refused> {
        let is_negative = self.peek() == Some(b'-');
        if matches!(self.peek(), Some(b'-' | b'+')) {
            self.at += 1;
        }
        let mut exponent = 0_i32;
        let start = self.at;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            exponent = exponent.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
            self.at += 1;
        }
        if self.at == start {
            return Err(self.fault());
        }
        Ok(if is_negative { -exponent } else { exponent })
    }
}

impl Number<'_> {
    /// The nearest `f64`; `None` if it is beyond all of them.
    #[inline]
    pub(super) fn value(&self) -> Option<f64> {
        // Both exact, so that one rounding makes the nearest (Clinger's fast path).
        let power = usize::try_from(self.power.unsigned_abs()).ok().and_then(|power| POWERS.get(power));
        if let (true, Some(power)) = (self.is_short && self.digits <= EXACT, power) {
            let digits = self.digits as f64;
            let value = if self.power < 0 { digits / power } else { digits * power };
            return Some(if self.text.starts_with('-') { -value } else { value });
        }
        self.text.parse().ok().filter(|value: &f64| value.is_finite())
    }
}
