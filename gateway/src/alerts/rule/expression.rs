//! Expressions over several metrics, in the part of the Common Expression Language that is about numbers and truth.
//!
//! The grammar and the meaning are CEL's, as the `cel` crate reads it; the checks at the end hold both against each
//! other. What is left out has no use here (texts, lists, maps, comprehensions, calls), and what remains is checked when
//! the file is read: every operand is a number or a truth as its operator wants it, numbers are all of the one kind that
//! measurements are, so that `2 * rpm` means what it says. The cost of an evaluation is bounded by the length of the
//! text, it allocates nothing, and no context is built.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Parser;

use super::comparison::Operator;

/// Bytes of an expression, at most.
pub(super) const EXPRESSION_BYTES_MAX: usize = 1_024;
/// Metrics of an expression, and names given to metrics, at most.
pub(super) const NAMES_MAX: usize = 16;
/// Operators and operands, at most.
const NODES_MAX: usize = 256;
/// How deep they may be nested.
const DEPTH_MAX: u16 = 32;

/// An expression that is true or false.
#[derive(Debug)]
pub(super) struct Expression {
    root: Truth,
    names: Vec<Box<str>>,
    /// Place of each metric, in the order of the names.
    pub(super) metrics: Box<[u16]>,
    /// How old the last value of a metric may be.
    pub(super) max_staleness_ms: u64,
}

#[derive(Debug)]
enum Truth {
    Constant(bool),
    Compare(Operator, Box<(Number, Number)>),
    /// Whether both are the same, or the opposite of it.
    Same(bool, Box<(Truth, Truth)>),
    And(Box<(Truth, Truth)>),
    Or(Box<(Truth, Truth)>),
    Not(Box<Truth>),
    If(Box<(Truth, Truth, Truth)>),
}

#[derive(Debug)]
enum Number {
    Constant(f64),
    /// The place of a metric among those of the expression.
    Metric(usize),
    Negative(Box<Number>),
    Sum(Box<(Number, Number)>),
    Difference(Box<(Number, Number)>),
    Product(Box<(Number, Number)>),
    Quotient(Box<(Number, Number)>),
    If(Box<(Truth, Number, Number)>),
}

/// What a part of an expression is.
#[derive(Debug)]
enum Part {
    Truth(Truth),
    Number(Number),
}

impl Expression {
    /// Reads an expression. `names` are names that it may use for metrics; any other name is that of a metric itself.
    pub(super) fn compile(text: &str, names: &[(&str, &str)]) -> Result<Self, String> {
        check_nesting(text)?;
        let parsed = Parser::default().max_recursion_depth(DEPTH_MAX * 3).parse(text);
        let parsed = parsed.map_err(|errors| {
            let first = errors.errors.first().map_or("not an expression", |error| error.msg.as_str());
            first.lines().next().unwrap_or_default().to_owned()
        })?;
        let mut compiler = Compiler { names, metrics: Vec::new(), nodes: 0 };
        let root = compiler.truth(&parsed, 0, "the expression")?;
        if let Some((name, _)) = names.iter().find(|(_, metric)| !compiler.uses(metric)) {
            return Err(format!("it does not use {name}, which metrics names"));
        }
        if compiler.metrics.is_empty() {
            return Err("it is about no metric".to_owned());
        }
        let (names, metrics) = (compiler.metrics, Box::default());
        Ok(Self { root, names, metrics, max_staleness_ms: 0 })
    }

    /// Its metrics, each once.
    pub(super) fn metric_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Whether it holds for these values, one per metric. None if that cannot be said: something compared is not a
    /// number, as after a division of nothing by nothing.
    pub(super) fn holds(&self, values: &[f64]) -> Option<bool> {
        self.root.holds(values)
    }
}

/// Refuses what nests deeper than the parser should follow.
fn check_nesting(text: &str) -> Result<(), String> {
    let (mut depth, mut signs) = (0_u16, 0_u16);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'!' | b'-' | b'?' => signs += 1,
            byte if !byte.is_ascii() => return Err("it has characters beyond ASCII".to_owned()),
            _ => {}
        }
        if depth > DEPTH_MAX || signs > 4 * DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Compiler<'a> {
    names: &'a [(&'a str, &'a str)],
    metrics: Vec<Box<str>>,
    nodes: usize,
}

impl Compiler<'_> {
    fn uses(&self, metric: &str) -> bool {
        self.metrics.iter().any(|known| **known == *metric)
    }

    fn truth(&mut self, expr: &IdedExpr, depth: u16, what: &str) -> Result<Truth, String> {
        match self.part(expr, depth)? {
            Part::Truth(truth) => Ok(truth),
            Part::Number(_) => {
                Err(format!("{what} is a number, not true or false; compare it, as in x == 1"))
            }
        }
    }

    fn number(&mut self, expr: &IdedExpr, depth: u16, what: &str) -> Result<Number, String> {
        match self.part(expr, depth)? {
            Part::Number(number) => Ok(number),
            Part::Truth(_) => Err(format!("an operand of {what} is true or false, not a number")),
        }
    }

    fn part(&mut self, expr: &IdedExpr, depth: u16) -> Result<Part, String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(format!("it has more than {NODES_MAX} parts, or is nested deeper than {DEPTH_MAX}"));
        }
        match &expr.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => Ok(Part::Number(Number::Metric(self.metric(name)?))),
            Expr::Call(call) => self.call(call, depth + 1),
            Expr::Select(select) => Err(format!(
                "a name with a dot before {} needs another: metrics = {{ x = \"….{}\" }}",
                select.field, select.field
            )),
            _ => Err("only numbers, names, operators and parentheses are known here".to_owned()),
        }
    }

    fn metric(&mut self, name: &str) -> Result<usize, String> {
        let given = self.names.iter().find(|(given, _)| *given == name);
        let metric = given.map_or(name, |(_, metric)| metric);
        if let Some(place) = self.metrics.iter().position(|known| **known == *metric) {
            return Ok(place);
        }
        if self.metrics.len() == NAMES_MAX {
            return Err(format!("it is about more than {NAMES_MAX} metrics"));
        }
        self.metrics.push(metric.into());
        Ok(self.metrics.len() - 1)
    }

    fn call(&mut self, call: &CallExpr, depth: u16) -> Result<Part, String> {
        let name = call.func_name.as_str();
        let shown = name.replace('_', "");
        let unknown = || Err(format!("there is no {shown} here"));
        if call.target.is_some() {
            return unknown();
        }
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_NOT, [one]) => {
                Ok(Part::Truth(Truth::Not(Box::new(self.truth(one, depth, "what ! negates")?))))
            }
            (operators::NEGATE, [one]) => {
                Ok(Part::Number(Number::Negative(Box::new(self.number(one, depth, "-")?))))
            }
            (operators::CONDITIONAL, [condition, one, two]) => self.conditional(condition, one, two, depth),
            (operators::LOGICAL_AND | operators::LOGICAL_OR, operands) => self.logical(name, operands, depth),
            (operators::EQUALS | operators::NOT_EQUALS, [one, two]) => self.equality(name, one, two, depth),
            (_, [one, two]) => {
                if let Some(operator) = order(name) {
                    let pair = (self.number(one, depth, &shown)?, self.number(two, depth, &shown)?);
                    return Ok(Part::Truth(Truth::Compare(operator, Box::new(pair))));
                }
                let make = match name {
                    operators::ADD => Number::Sum,
                    operators::SUBSTRACT => Number::Difference,
                    operators::MULTIPLY => Number::Product,
                    operators::DIVIDE => Number::Quotient,
                    _ => return unknown(),
                };
                let pair = (self.number(one, depth, &shown)?, self.number(two, depth, &shown)?);
                Ok(Part::Number(make(Box::new(pair))))
            }
            _ => unknown(),
        }
    }

    /// Two operands or more.
    fn logical(&mut self, name: &str, operands: &[IdedExpr], depth: u16) -> Result<Part, String> {
        let make = if name == operators::LOGICAL_AND { Truth::And } else { Truth::Or };
        let mut parts = Vec::with_capacity(operands.len());
        for operand in operands {
            parts.push(self.truth(operand, depth, "an operand of && or ||")?);
        }
        let joined = parts.into_iter().reduce(|one, two| make(Box::new((one, two))));
        joined.map(Part::Truth).ok_or_else(|| "&& or || has no operands".to_owned())
    }

    fn equality(&mut self, name: &str, one: &IdedExpr, two: &IdedExpr, depth: u16) -> Result<Part, String> {
        let equal = name == operators::EQUALS;
        let operator = if equal { Operator::Equal } else { Operator::Unequal };
        match (self.part(one, depth)?, self.part(two, depth)?) {
            (Part::Number(one), Part::Number(two)) => {
                Ok(Part::Truth(Truth::Compare(operator, Box::new((one, two)))))
            }
            (Part::Truth(one), Part::Truth(two)) => Ok(Part::Truth(Truth::Same(equal, Box::new((one, two))))),
            _ => {
                Err("a number is compared with true or false; metrics that are either are 1 and 0".to_owned())
            }
        }
    }

    fn conditional(
        &mut self,
        condition: &IdedExpr,
        one: &IdedExpr,
        two: &IdedExpr,
        depth: u16,
    ) -> Result<Part, String> {
        let condition = self.truth(condition, depth, "what stands before ?")?;
        match (self.part(one, depth)?, self.part(two, depth)?) {
            (Part::Truth(one), Part::Truth(two)) => {
                Ok(Part::Truth(Truth::If(Box::new((condition, one, two)))))
            }
            (Part::Number(one), Part::Number(two)) => {
                Ok(Part::Number(Number::If(Box::new((condition, one, two)))))
            }
            _ => Err("after ? there is a number on one side only".to_owned()),
        }
    }
}

fn constant(literal: &LiteralValue) -> Result<Part, String> {
    match literal {
        LiteralValue::Boolean(truth) => Ok(Part::Truth(Truth::Constant(*truth.inner()))),
        LiteralValue::Double(number) => Ok(Part::Number(Number::Constant(*number.inner()))),
        LiteralValue::Int(number) => Ok(Part::Number(Number::Constant(*number.inner() as f64))),
        LiteralValue::UInt(number) => Ok(Part::Number(Number::Constant(*number.inner() as f64))),
        LiteralValue::Null | LiteralValue::String(_) | LiteralValue::Bytes(_) => {
            Err("only numbers, true and false are known here".to_owned())
        }
    }
}

fn order(name: &str) -> Option<Operator> {
    match name {
        operators::GREATER => Some(Operator::Above),
        operators::GREATER_EQUALS => Some(Operator::AtLeast),
        operators::LESS => Some(Operator::Below),
        operators::LESS_EQUALS => Some(Operator::AtMost),
        _ => None,
    }
}

impl Truth {
    /// As CEL has it, `&&` and `||` are decided by one side alone where they can be, whichever it is.
    fn holds(&self, values: &[f64]) -> Option<bool> {
        match self {
            Self::Constant(truth) => Some(*truth),
            Self::Compare(operator, pair) => {
                let (one, two) = (pair.0.value(values), pair.1.value(values));
                (!one.is_nan() && !two.is_nan()).then(|| operator.holds(one, two))
            }
            Self::Same(same, pair) => Some((pair.0.holds(values)? == pair.1.holds(values)?) == *same),
            Self::And(pair) => match pair.0.holds(values) {
                Some(false) => Some(false),
                Some(true) => pair.1.holds(values),
                None => pair.1.holds(values).filter(|truth| !truth),
            },
            Self::Or(pair) => match pair.0.holds(values) {
                Some(true) => Some(true),
                Some(false) => pair.1.holds(values),
                None => pair.1.holds(values).filter(|truth| *truth),
            },
            Self::Not(one) => one.holds(values).map(|truth| !truth),
            Self::If(parts) => {
                if parts.0.holds(values)? {
                    parts.1.holds(values)
                } else {
                    parts.2.holds(values)
                }
            }
        }
    }
}

impl Number {
    /// NaN where there is none.
    fn value(&self, values: &[f64]) -> f64 {
        match self {
            Self::Constant(number) => *number,
            Self::Metric(place) => values.get(*place).copied().unwrap_or(f64::NAN),
            Self::Negative(one) => -one.value(values),
            Self::Sum(pair) => pair.0.value(values) + pair.1.value(values),
            Self::Difference(pair) => pair.0.value(values) - pair.1.value(values),
            Self::Product(pair) => pair.0.value(values) * pair.1.value(values),
            Self::Quotient(pair) => pair.0.value(values) / pair.1.value(values),
            Self::If(parts) => match parts.0.holds(values) {
                Some(true) => parts.1.value(values),
                Some(false) => parts.2.value(values),
                None => f64::NAN,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use cel::{Context, Program, Value};
    use proptest::prelude::*;

    use super::*;

    /// Texts of expressions that are true or false, and of such that are numbers.
    fn texts() -> (BoxedStrategy<String>, BoxedStrategy<String>) {
        let number = prop_oneof![
            Just("a".to_owned()),
            Just("b".to_owned()),
            Just("c".to_owned()),
            (-3..4_i8).prop_map(|number| format!("({number}.0)")),
            Just("1.5e2".to_owned()),
        ];
        let number = number.prop_recursive(3, 16, 2, |inner| {
            prop_oneof![
                (inner.clone(), prop::sample::select(vec!["+", "-", "*", "/"]), inner.clone())
                    .prop_map(|(one, sign, two)| format!("({one} {sign} {two})")),
                inner.clone().prop_map(|one| format!("-{one}")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(one, two, three)| format!("({one} > {two} ? {two} : {three})")),
            ]
        });
        let comparison =
            (number.clone(), prop::sample::select(vec![">", ">=", "<", "<=", "==", "!="]), number.clone())
                .prop_map(|(one, sign, two)| format!("{one} {sign} {two}"));
        let truth = prop_oneof![8 => comparison, 1 => Just("true".to_owned()), 1 => Just("false".to_owned())];
        let truth = truth.prop_recursive(3, 16, 2, |inner| {
            prop_oneof![
                (inner.clone(), prop::sample::select(vec!["&&", "||", "==", "!="]), inner.clone())
                    .prop_map(|(one, sign, two)| format!("({one}) {sign} ({two})")),
                inner.clone().prop_map(|one| format!("!({one})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(one, two, three)| format!("(({one}) ? ({two}) : ({three}))")),
            ]
        });
        (truth.boxed(), number.boxed())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn expressions_mean_what_cel_says(
            text in texts().0,
            values in prop::collection::vec(prop_oneof![Just(0.0), Just(1.0), -4.0..4.0_f64], 3),
        ) {
            let text = format!("{text} || (a == a + 1.0)");
            let expression = Expression::compile(&text, &[]);
            let Ok(expression) = expression else {
                // Only its size may be wrong with it.
                let why = expression.expect_err("an error");
                prop_assert!(why.contains("parts") || why.contains("nested"), "{text}: {why}");
                return Ok(());
            };
            let mut context = Context::default();
            for (name, value) in ["a", "b", "c"].iter().zip(&values) {
                context.add_variable(*name, *value).expect("a number");
            }
            let ours: Vec<f64> = expression
                .metric_names()
                .map(|name| values[["a", "b", "c"].iter().position(|known| *known == name).expect("one of three")])
                .collect();
            let theirs = Program::compile(&text).expect("an expression").execute(&context);
            match (expression.holds(&ours), theirs) {
                (Some(ours), Ok(Value::Bool(theirs))) => prop_assert_eq!(ours, theirs, "{}", text),
                // What compares with no number: CEL makes it an error or false, and here it is undecided.
                (None, _) => prop_assert!(text.contains('/'), "{text}"),
                (ours, theirs) => prop_assert!(false, "{text}: {ours:?}, {theirs:?}"),
            }
        }
    }

    #[test]
    fn whole_numbers_are_numbers_like_any_other() {
        let expression = Expression::compile("2 * rpm > 1000 && 7 / 2 == 3.5", &[]).expect("an expression");
        assert_eq!(expression.holds(&[501.0]), Some(true));
        assert_eq!(expression.holds(&[500.0]), Some(false));
    }

    #[test]
    fn one_side_can_decide() {
        let expression = Expression::compile("a / a > 0 || b > 0", &[]).expect("an expression");
        assert_eq!(expression.holds(&[0.0, 1.0]), Some(true));
        assert_eq!(expression.holds(&[0.0, 0.0]), None);
        let expression = Expression::compile("b > 0 && a / a > 0", &[]).expect("an expression");
        assert_eq!(expression.holds(&[0.0, 0.0]), Some(false));
        assert_eq!(expression.holds(&[1.0, 0.0]), None);
    }
}
