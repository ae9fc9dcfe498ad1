//! The grammar of JSON (RFC 8259), as far as it is needed to carry values without looking into them.
//!
//! [`scan`] finds where a value ends and refuses whatever some parser in wide use refuses: so one payload cannot
//! make the text around it unreadable. It is stricter than the grammar in three points: values nest at most
//! [`DEPTH_MAX`] deep, numbers fit a double, and escaped surrogates come in pairs. `serde_json` skips a value in the same
//! time (0.13 µs for 200 bytes, `benches/benches/pack.rs`), but then knows neither these nor the line breaks in it.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

/// Deepest nesting of arrays and objects. Together with an envelope it stays below the limit of 64 that .NET has.
pub const DEPTH_MAX: u32 = 60;

/// A value at the front of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Where it begins: what stands before is white space.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Whether line breaks stand between its parts.
    pub has_breaks: bool,
}

/// Finds the value at the front; `None` if there is none.
#[must_use]
pub fn scan(text: &str) -> Option<Scanned> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, has_breaks: false };
    scanner.white_space();
    scanner.has_breaks = false;
    let start = scanner.at;
    let Scanner { at: end, has_breaks, .. } = scanner.value()?;
    Some(Scanned { start, end, has_breaks })
}

/// As [`scan`], for a text that holds one value and nothing else but white space around it.
#[must_use]
pub fn scan_whole(text: &str) -> Option<Scanned> {
    let found = scan(text)?;
    let rest = text.as_bytes().get(found.end..)?;
    rest.iter().all(|byte| is_white_space(*byte)).then_some(found)
}

/// How many bytes at the front can stand in a JSON string as they are.
#[must_use]
#[inline]
pub fn plain_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut len = 0;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let special = special(u64::from_le_bytes(*chunk));
        if special != 0 {
            return len + (special.trailing_zeros() / 8) as usize;
        }
        rest = after;
        len += 8;
    }
    len + rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len())
}

/// Appends `text` as it stands between the quotation marks of a JSON string.
pub fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, after) = rest.split_at_checked(plain_len(rest)).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((byte, after)) = after.split_first() else { return };
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            control => {
                let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(control >> 4), digit(control & 0xf)]);
            }
        }
        rest = after;
    }
}

/// The text of a string as [`scan`] found it, quotation marks included.
#[must_use]
pub fn unescape(string: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = string.strip_prefix('"')?.strip_suffix('"')?;
    if plain_len(inner.as_bytes()) == inner.len() {
        return Some(inner.into());
    }
    serde_json::from_str::<String>(string).ok().map(Into::into)
}

/// Passed by value, and its steps are inlined into one loop: so the place stays in a register.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    has_breaks: bool,
}

impl Scanner<'_> {
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline(always)]
    fn white_space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.has_breaks = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Passes one value, which begins here. Which of the open ones are objects is kept in the bits of a number,
    /// the innermost lowest, below a bit that marks the depth.
    fn value(mut self) -> Option<Self> {
        let mut open = 1_u64;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                byte @ (b'{' | b'[') => {
                    let is_object = byte == b'{';
                    self.at += 1;
                    self.white_space();
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        if open >> DEPTH_MAX != 0 {
                            return None;
                        }
                        open = open << 1 | u64::from(is_object);
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => return None,
            }
            loop {
                if open == 1 {
                    return Some(self);
                }
                self.white_space();
                let is_object = open & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.white_space();
                        if is_object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                self.at += 1;
                open >>= 1;
            }
        }
    }

    /// Passes a member's name, the colon and the white space around it.
    #[inline(always)]
    fn name(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.string()?;
        self.white_space();
        if self.peek()? != b':' {
            return None;
        }
        self.at += 1;
        self.white_space();
        Some(())
    }

    #[inline(always)]
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += plain_len(self.rest());
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at = escape(self.bytes, self.at + 1)?,
                _ => return None,
            }
        }
    }

    #[inline(always)]
    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest().strip_prefix(word)?;
        self.at += word.len();
        Some(())
    }

    #[inline(always)]
    fn digits(&mut self) -> usize {
        let len = digits_len(self.rest());
        self.at += len;
        len
    }

    #[inline(always)]
    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let leads_with_zero = self.peek()? == b'0';
        let whole = self.digits();
        if whole == 0 || (leads_with_zero && whole > 1) {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        let mut exponent = 0;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let sign = self.peek()?;
            if matches!(sign, b'+' | b'-') {
                self.at += 1;
            }
            let start = self.at;
            if self.digits() == 0 {
                return None;
            }
            if sign != b'-' {
                let digits = self.bytes.get(start..self.at)?;
                exponent = digits.iter().fold(0_usize, |value, digit| {
                    value.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
                });
            }
        }
        // A double holds every number below ten to this power.
        const POWER_MAX: usize = 308;
        (whole.saturating_add(exponent) <= POWER_MAX).then_some(())
    }
}

/// Passes what follows a backslash at `at`.
#[cold]
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => match hex(bytes, at + 1)? {
            0xd800..0xdc00 => {
                let low =
                    bytes.get(at + 5..)?.starts_with(b"\\u") && matches!(hex(bytes, at + 7)?, 0xdc00..0xe000);
                low.then_some(at + 11)
            }
            0xdc00..0xe000 => None,
            _ => Some(at + 5),
        },
        _ => None,
    }
}

/// The value of the four hexadecimal digits at `at`.
fn hex(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..)?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// How many digits stand at the front.
#[inline(always)]
fn digits_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut len = 0;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let other = not_digits(u64::from_le_bytes(*chunk));
        if other != 0 {
            return len + (other.trailing_zeros() / 8) as usize;
        }
        rest = after;
        len += 8;
    }
    len + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// Marks the lowest of eight bytes that is not plain; marks above it may be wrong.
const fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const SPACES: u64 = u64::from_le_bytes([0x20; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    let control = word.wrapping_sub(SPACES) & !word;
    let quote = (word ^ QUOTES).wrapping_sub(ONES) & !(word ^ QUOTES);
    let backslash = (word ^ BACKSLASHES).wrapping_sub(ONES) & !(word ^ BACKSLASHES);
    (control | quote | backslash) & HIGH
}

/// Marks the lowest of eight bytes that is no digit; marks above it may be wrong.
const fn not_digits(word: u64) -> u64 {
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // Digits become 0 to 9; what was below them borrows, and 10 and above reach the high bit.
    let values = word ^ u64::from_le_bytes([b'0'; 8]);
    (values | values.wrapping_add(u64::from_le_bytes([0x80 - 10; 8]))) & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(text: &str, expected: bool) {
        assert_eq!(scan_whole(text).is_some(), expected, "{text}");
    }

    #[test]
    fn values_are_told_from_what_is_none() {
        for text in [
            "0",
            "-0",
            "12.5e-3",
            "1E+5",
            "\"\"",
            "\"a\\u00e9\\n\"",
            "\"\\ud83d\\ude00\"",
            "true",
            "null",
            "[]",
            "{}",
            " [ 1 , {\"a\" : [ ] } ] ",
            "{\"\":{\"\":0},\"\":1}",
            "\"\u{7f}é\"",
            "1e-999",
        ] {
            check(text, true);
        }
        for text in [
            "",
            " ",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "tru",
            "true1",
            "[",
            "]",
            "[1,]",
            "[,]",
            "{",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[}",
            "{]",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "'a'",
            "1 2",
            "{} {}",
            "\u{feff}{}",
            "[1\u{a0}]",
            "\"\\",
            "\"\\u",
            "// c\n1",
        ] {
            check(text, false);
        }
    }

    #[test]
    fn what_some_parser_refuses_is_refused() {
        check("\"\\ud83d\"", false);
        check("\"\\ude00\\ud83d\"", false);
        check("\"\\ud83d\\u0041\"", false);
        check("1e308", false);
        check("1e307", true);
        check("1e99999999999999999999999", false);
        check(&"9".repeat(308), true);
        check(&"9".repeat(309), false);
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(&nested(DEPTH_MAX as usize + 1), true);
        check(&nested(DEPTH_MAX as usize + 2), false);
        check(&nested(100_000), false);
    }

    #[test]
    fn breaks_between_the_parts_are_told() {
        for (text, expected) in [
            ("{\"a\":1}", (0, 7, false)),
            (" \n{\"a\":1}\r\n", (2, 9, false)),
            ("{\n\"a\":1}", (0, 8, true)),
            ("[1,\r2]", (0, 6, true)),
            ("\"\\n\"", (0, 4, false)),
        ] {
            let found = scan_whole(text).unwrap();
            assert_eq!((found.start, found.end, found.has_breaks), expected, "{text}");
        }
    }

    /// Texts near JSON: values with a few changes.
    fn near_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f32>().prop_map(|number| format!("{number:e}")),
            "-?[0-9]{1,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?",
            "[ \\\\\"a-df-z0-9\\n{}\\[\\],:.+-]{0,12}",
            "\\PC{0,10}".prop_map(|text| Value::String(text).to_string()),
        ];
        let value = leaf.prop_recursive(5, 40, 5, |inner| {
            let break_or_not = prop_oneof![Just(""), Just(" "), Just("\n")];
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..5), break_or_not.clone())
                    .prop_map(|(values, gap)| format!("[{gap}{}{gap}]", values.join(&format!("{gap},")))),
                (prop::collection::vec((inner, "[a-z\"]{0,3}"), 0..5), break_or_not).prop_map(
                    |(members, gap)| {
                        let members: Vec<String> = members
                            .into_iter()
                            .map(|(value, name)| format!("\"{name}\"{gap}:{value}"))
                            .collect();
                        format!("{{{}{gap}}}", members.join(","))
                    }
                ),
            ]
        });
        (value, prop::option::of((any::<prop::sample::Index>(), any::<char>()))).prop_map(|(text, change)| {
            let mut chars: Vec<char> = text.chars().collect();
            if let (Some((place, with)), false) = (change, chars.is_empty()) {
                let place = place.index(chars.len());
                chars[place] = with;
            }
            chars.into_iter().collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_serde_json_takes(text in near_json()) {
            let expected = serde_json::from_str::<Value>(&text);
            let found = scan_whole(&text);
            prop_assert_eq!(found.is_some(), expected.is_ok(), "{} {:?}", text, expected);
            if let Some(found) = found {
                let part = text.get(found.start..found.end).unwrap();
                prop_assert_eq!(part, text.trim_matches([' ', '\t', '\n', '\r']));
                let flat = part.replace(['\n', '\r'], " ");
                prop_assert_eq!(found.has_breaks, flat != part);
                prop_assert_eq!(serde_json::from_str::<Value>(&flat).unwrap(), expected.unwrap());
            }
        }

        #[test]
        fn a_value_ends_where_it_ends(text in near_json(), after in "[ ,\\]}x]{0,3}") {
            let open_end = |found: &Scanned| text.get(found.start..found.end).unwrap().ends_with(|c: char| c.is_ascii_digit());
            if let Some(found) = scan_whole(&text).filter(|found| !open_end(found)) {
                prop_assert_eq!(scan(&format!("{text}{after}")).unwrap(), found);
            }
        }

        #[test]
        fn strings_round_trip(text in "\\PC{0,30}|[\\x00-\\x7f]{0,30}") {
            let mut out = vec![b'"'];
            push_escaped(&mut out, &text);
            out.push(b'"');
            let string = String::from_utf8(out).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&string).unwrap(), text.as_str());
            prop_assert_eq!(unescape(&string).unwrap(), text.as_str());
            prop_assert!(scan_whole(&string).is_some());
        }

        #[test]
        fn plain_bytes_are_counted(bytes in prop::collection::vec(prop_oneof![3 => 0x20_u8.., 1 => any::<u8>()], 0..40)) {
            let expected = bytes.iter().position(|byte| !is_plain(*byte)).unwrap_or(bytes.len());
            prop_assert_eq!(plain_len(&bytes), expected);
        }
    }
}
