//! Licence expressions as crates write them: SPDX with `OR`, `AND`, `WITH` and parentheses, and the older `/`
//! that means `OR`.

/// Whether an expression can be satisfied by licences of `allowed`. An allowed entry is one licence, or one
/// licence `WITH` its exception. `None` when the expression is not understood.
pub(crate) fn satisfied(expression: &str, allowed: &[String]) -> Option<bool> {
    let tokens = tokens(expression);
    let mut parser = Parser { tokens: &tokens, next: 0, allowed };
    let satisfied = parser.any()?;
    (parser.next == tokens.len()).then_some(satisfied)
}

fn tokens(expression: &str) -> Vec<String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Recursive descent: `any` is a chain of OR, `all` a chain of AND, `one` a licence or parentheses.
struct Parser<'a> {
    tokens: &'a [String],
    next: usize,
    allowed: &'a [String],
}

impl Parser<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut satisfied = self.all()?;
        while self.take("OR") {
            satisfied |= self.all()?;
        }
        Some(satisfied)
    }

    fn all(&mut self) -> Option<bool> {
        let mut satisfied = self.one()?;
        while self.take("AND") {
            satisfied &= self.one()?;
        }
        Some(satisfied)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let satisfied = self.any()?;
            return self.take(")").then_some(satisfied);
        }
        let mut licence = self.licence()?;
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.licence()?);
        }
        Some(self.allowed.contains(&licence))
    }

    fn licence(&mut self) -> Option<String> {
        let token = self.tokens.get(self.next)?;
        if matches!(token.as_str(), "OR" | "AND" | "WITH" | "(" | ")") {
            return None;
        }
        self.next += 1;
        Some(token.clone())
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.next).is_some_and(|token| token == word);
        self.next += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: Option<bool>) {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn one_allowed_branch_of_or_is_enough() {
        check("MIT", Some(true));
        check("MIT OR GPL-3.0", Some(true));
        check("Unlicense/MIT", Some(true));
        check("GPL-3.0 OR AGPL-3.0", Some(false));
    }

    #[test]
    fn every_branch_of_and_must_be_allowed() {
        check("MIT AND Apache-2.0", Some(true));
        check("MIT AND OpenSSL", Some(false));
        check("(MIT OR GPL-3.0) AND Apache-2.0", Some(true));
        check("(MIT OR Apache-2.0) AND Unicode-3.0", Some(false));
        check("OpenSSL AND ISC OR MIT", Some(true));
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        check("Apache-2.0 WITH LLVM-exception", Some(true));
        check("MIT WITH Classpath-exception-2.0", Some(false));
    }

    #[test]
    fn nonsense_is_not_understood() {
        for expression in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH"] {
            check(expression, None);
        }
    }
}
