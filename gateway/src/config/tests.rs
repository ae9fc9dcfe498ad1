//! Every way a configuration can be wrong, each with its one line.

use std::time::Duration;

use super::{ByteSize, ConfigError, Key, Preset, Section, Shape, Value, load};

const SIZE: Key = Key {
    name: "size",
    value: Value::Bytes { min: 1 << 10, max: 1 << 20 },
    default: Preset::Is("64KiB"),
    help: "A size.",
};
const WAIT: Key = Key {
    name: "wait",
    value: Value::Time { min: Duration::from_millis(1), max: Duration::from_secs(60) },
    default: Preset::Is("1s"),
    help: "A time.",
};
const NAME: Key =
    Key { name: "name", value: Value::Text { chars_max: 4 }, default: Preset::Required, help: "A name." };
const COUNT: Key =
    Key { name: "count", value: Value::Count { min: 1, max: 9 }, default: Preset::Is("3"), help: "A count." };
const FLAG: Key = Key { name: "flag", value: Value::Flag, default: Preset::Is("false"), help: "A flag." };
const WORD: Key =
    Key { name: "word", value: Value::Choice(&["one", "two"]), default: Preset::Unset, help: "A word." };

const ITEM: Shape = Shape::list("item", "Items.", &[COUNT]);
const TABLE: Shape = Shape::table("table", "A table.", &[SIZE, WAIT, NAME, FLAG, WORD]).with(&[ITEM]);
const ROOT: Shape = Shape::table("", "", &[]).with(&[TABLE]);

#[derive(Debug, PartialEq)]
struct Read {
    size: ByteSize,
    wait: Duration,
    name: String,
    flag: bool,
    word: Option<String>,
    items: Vec<u64>,
}

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Read, ConfigError> {
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let (mut root, _) = load::parse("p.toml", text, environment, &ROOT)?;
    let mut table = root.child(&TABLE)?;
    Ok(Read {
        size: table.bytes(&SIZE)?,
        wait: table.time(&WAIT)?,
        name: table.text(&NAME)?,
        flag: table.flag(&FLAG)?,
        word: table.text_if_set(&WORD)?,
        items: table
            .children(&ITEM)?
            .iter_mut()
            .map(|item: &mut Section| item.count(&COUNT))
            .collect::<Result<_, _>>()?,
    })
}

fn check(text: &str, expected: &str) {
    let error = read(text, &[]).expect_err(text).to_string();
    assert_eq!(error, expected);
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn defaults_and_units_are_read() {
    let read =
        read("[table]\nname = \"a\"\nwait = \"250ms\"\n[[table.item]]\n[[table.item]]\ncount = 9", &[]);
    let expected = Read {
        size: ByteSize(64 << 10),
        wait: Duration::from_millis(250),
        name: "a".to_owned(),
        flag: false,
        word: None,
        items: vec![3, 9],
    };
    assert_eq!(read, Ok(expected));
}

#[test]
fn each_error_names_file_key_value_and_range() {
    check(
        "[table]\nname = \"a\"\nsise = 1",
        "p.toml: unknown key table.sise = 1: expected one of size, wait, name, flag, word, item",
    );
    check("[tabel]", "p.toml: unknown key tabel = {}: expected one of table");
    check("[table]", "p.toml: table.name is missing: expected text of 1 to 4 characters");
    check("[table]\nname = \"abcde\"", "p.toml: table.name = \"abcde\": expected text of 1 to 4 characters");
    check(
        "[table]\nsize = \"64MB\"",
        "p.toml: table.size = \"64MB\": expected a size with a unit (B, KiB, MiB, GiB, TiB) from 1KiB to 1MiB",
    );
    check(
        "[table]\nsize = 65536",
        "p.toml: table.size = 65536: expected a size with a unit (B, KiB, MiB, GiB, TiB) from 1KiB to 1MiB",
    );
    check(
        "[table]\nwait = \"0s\"",
        "p.toml: table.wait = \"0s\": expected a time with a unit (us, ms, s, min, h) from 1ms to 1min",
    );
    check("[table]\nname = \"a\"\nflag = \"true\"", "p.toml: table.flag = \"true\": expected true or false");
    check(
        "[table]\nname = \"a\"\nword = \"three\"",
        "p.toml: table.word = \"three\": expected one of \"one\", \"two\"",
    );
    check(
        "[table]\nname = \"a\"\n[[table.item]]\ncount = 10",
        "p.toml: table.item[0].count = 10: expected a whole number from 1 to 9",
    );
    check("[table]\nname = \"a\"\nitem = 3", "p.toml: table.item = 3: expected a list of tables");
    check("table = 3", "p.toml: table = 3: expected a table");
}

#[test]
fn a_syntax_error_names_its_line() {
    let error = read("[table]\nname = \n", &[]).expect_err("not TOML").to_string();
    assert!(error.starts_with("p.toml:2: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn an_unreadable_file_is_named() {
    let absent = std::path::Path::new("/nowhere/p.toml");
    let error = load::load(absent, std::iter::empty(), &ROOT).expect_err("absent").to_string();
    assert!(error.starts_with("/nowhere/p.toml: cannot be read: "), "{error}");
}

#[test]
fn the_environment_overrides_and_is_named_in_errors() {
    let text = "[table]\nname = \"a\"\nflag = false";
    let environment = [("PENSTOCK__TABLE__FLAG", "true"), ("PENSTOCK__TABLE__SIZE", "1KiB"), ("HOME", "/")];
    let read_over = read(text, &environment).expect("accepted");
    assert_eq!((read_over.flag, read_over.size), (true, ByteSize(1024)));

    let error = read(text, &[("PENSTOCK__TABLE__SIZE", "big")]).expect_err("refused").to_string();
    assert!(
        error.starts_with("environment variable PENSTOCK__TABLE__SIZE: table.size = \"big\": "),
        "{error}"
    );
    let error = read(text, &[("PENSTOCK__TABLE__COLOUR", "red")]).expect_err("refused").to_string();
    assert!(
        error.starts_with("environment variable PENSTOCK__TABLE__COLOUR: unknown key table.colour"),
        "{error}"
    );
}
