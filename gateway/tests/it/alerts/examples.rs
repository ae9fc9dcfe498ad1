//! The rules files that come with the project.

use std::path::Path;

use penstock::alerts::Rules;

#[test]
fn every_rule_of_the_examples_can_be_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rules");
    let files: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let rules = Rules::load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(rules.errors().collect::<Vec<_>>(), [""; 0], "{}", file.display());
        assert!(!rules.is_empty(), "{}", file.display());
    }
}
