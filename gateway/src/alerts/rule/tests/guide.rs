//! The page for those who write rules says what is so.

use super::super::RuleSet;
use super::super::tests_file;

const PAGE: &str = include_str!("../../../../../docs/rules.md");

fn blocks() -> impl Iterator<Item = &'static str> {
    PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn every_rule_of_the_guide_can_be_used() {
    let mut rules = 0;
    for block in blocks().filter(|block| block.contains("[[rule]]")) {
        let parsed = RuleSet::parse(block, "docs/rules.md").expect("TOML");
        assert_eq!(parsed.errors, [], "{block}");
        rules += parsed.rules.len();
    }
    assert_eq!(rules, 9);
}

#[test]
fn the_tests_of_the_guide_pass() {
    let rules: String = blocks().filter(|block| block.contains("[[rule]]")).collect();
    let mut tests = 0;
    for block in blocks().filter(|block| block.contains("[[test]]")) {
        let report = tests_file::run((&rules, "rules.toml"), (block, "tests.toml")).expect("TOML");
        assert!(report.is_well(), "{report}");
        tests += report.outcomes.len();
    }
    assert_eq!(tests, 3);
}
