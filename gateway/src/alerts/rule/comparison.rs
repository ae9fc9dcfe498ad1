//! Simple comparisons, as `"> 90"` and `"< 5 per minute"` are written.

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

/// What a number is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) operator: Operator,
    /// Finite.
    pub(crate) limit: f64,
}

/// What stands behind the number of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    PerSecond,
    PerMinute,
    PerHour,
    /// The long mean absolute deviation.
    Deviations,
}

/// Longer signs before those that they begin with.
const SIGNS: [(&str, Operator); 6] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl Operator {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Equal => "==",
            Self::Unequal => "!=",
        }
    }

    #[expect(clippy::float_cmp, reason = "what the rule asks for, for states and switches")]
    pub(super) fn holds(self, one: f64, two: f64) -> bool {
        match self {
            Self::Above => one > two,
            Self::AtLeast => one >= two,
            Self::Below => one < two,
            Self::AtMost => one <= two,
            Self::Equal => one == two,
            Self::Unequal => one != two,
        }
    }

    const fn negation(self) -> Self {
        match self {
            Self::Above => Self::AtMost,
            Self::AtLeast => Self::Below,
            Self::Below => Self::AtLeast,
            Self::AtMost => Self::Above,
            Self::Equal => Self::Unequal,
            Self::Unequal => Self::Equal,
        }
    }
}

impl Comparison {
    /// Of something that is 1 or 0: holds for 1.
    pub(super) const TRUE: Self = Self { operator: Operator::Unequal, limit: 0.0 };

    /// Parses a sign, a number (or `true` or `false`, which are 1 and 0) and perhaps a unit.
    pub(super) fn parse(text: &str) -> Option<(Self, Unit)> {
        let text = text.trim();
        let (rest, operator) = SIGNS
            .iter()
            .find_map(|(sign, operator)| Some((text.strip_prefix(sign)?.trim_start(), *operator)))?;
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (number, unit) = rest.split_at_checked(end)?;
        let limit = match number {
            "true" => 1.0,
            "false" => 0.0,
            // Words such as "infinity" and "nan" are numbers to Rust.
            _ if number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => {
                number.parse().ok().filter(|limit: &f64| limit.is_finite())?
            }
            _ => return None,
        };
        let unit = match unit.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => Unit::None,
            ["per", "second" | "s"] => Unit::PerSecond,
            ["per", "minute" | "min" | "m"] => Unit::PerMinute,
            ["per", "hour" | "h"] => Unit::PerHour,
            ["deviations" | "deviation"] => Unit::Deviations,
            _ => return None,
        };
        Some((Self { operator, limit }, unit))
    }

    pub(super) fn holds(self, value: f64) -> bool {
        self.operator.holds(value, self.limit)
    }

    /// Holds exactly where this one does not.
    pub(super) const fn negation(self) -> Self {
        Self { operator: self.operator.negation(), limit: self.limit }
    }

    /// Whether some value satisfies both.
    pub(super) fn meets(self, other: Self) -> bool {
        let middle = self.limit / 2.0 + other.limit / 2.0;
        let near = |x: f64| [x, x.next_up(), x.next_down()];
        let mut values = near(self.limit).into_iter().chain(near(other.limit));
        values.any(|value| self.holds(value) && other.holds(value))
            || [middle, f64::MAX, f64::MIN].iter().any(|value| self.holds(*value) && other.holds(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(Operator, f64, Unit)>) {
        let parsed = Comparison::parse(text).map(|(found, unit)| (found.operator, found.limit, unit));
        assert_eq!(parsed, expected, "{text}");
    }

    #[test]
    fn comparisons_are_a_sign_a_number_and_perhaps_a_unit() {
        check("> 90", Some((Operator::Above, 90.0, Unit::None)));
        check("<=-1.5e3", Some((Operator::AtMost, -1500.0, Unit::None)));
        check("== true", Some((Operator::Equal, 1.0, Unit::None)));
        check(" != 0 ", Some((Operator::Unequal, 0.0, Unit::None)));
        check("> 5 per minute", Some((Operator::Above, 5.0, Unit::PerMinute)));
        check("< -2 per s", Some((Operator::Below, -2.0, Unit::PerSecond)));
        check("> 4 deviations", Some((Operator::Above, 4.0, Unit::Deviations)));
        for text in ["", "90", "=> 3", ">", "> inf", "> nan", "> 1e999", "> 5 per day", "> 5 bar", "= 5"] {
            check(text, None);
        }
    }

    #[test]
    fn comparisons_meet_where_a_value_satisfies_both() {
        let of = |text| Comparison::parse(text).expect("a comparison").0;
        let meets = |one, two| of(one).meets(of(two));
        assert!(!meets("> 90", "< 85") && !meets("> 90", "<= 90") && !meets(">= 90", "< 90"));
        assert!(meets("> 90", "< 95") && meets(">= 90", "<= 90") && meets("!= 0", "> 5"));
        assert!(!meets("== 1", "== 0") && !meets("== 1", "!= 1") && meets("!= 1", "!= 2"));
        assert!(!meets("< -1e300", "> 1e300") && meets("> -1e300", "< 1e300"));
        for text in ["> 90", ">= 90", "< 90", "<= 90", "== 90", "!= 90"] {
            assert!(!of(text).meets(of(text).negation()), "{text}");
        }
    }
}
