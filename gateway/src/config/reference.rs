//! The configuration reference, generated from the declarations.

use super::{Key, Preset, Shape};

const INTRODUCTION: &str = "# Configuration

One TOML file, given with `penstock run --config FILE`. An unknown key, a value out of range or an unreadable
file ends the start with exit code 2 and one line that names file, key, value and range. `penstock check-config
FILE` prints what is in force. An environment variable `PENSTOCK__SECTION__KEY` overrides a key (lists of tables
excepted), for example `PENSTOCK__OUTBOX__BYTES_MAX=8GiB`. Secrets are never keys: the keys that end in `_file`
name files that hold them.

This file is generated from the declarations in the code, and a test compares the two:
`PENSTOCK_UPDATE_DOCS=1 cargo test --release --workspace --test reference` writes it anew.
";

/// The text of `docs/configuration.md`.
#[must_use]
pub fn reference(root: &Shape) -> String {
    let mut text = String::from(INTRODUCTION);
    for child in root.children {
        write_table(&mut text, "", child);
    }
    text
}

fn write_table(text: &mut String, parent: &str, shape: &Shape) {
    let path = if parent.is_empty() { shape.name.to_owned() } else { format!("{parent}.{}", shape.name) };
    let (open, close) = if shape.repeated { ("[[", "]]") } else { ("[", "]") };
    text.push_str(&format!("\n## `{open}{path}{close}`\n\n{}\n", shape.help));
    if !shape.keys.is_empty() {
        text.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    }
    for Key { name, value, default, help } in shape.keys {
        let default = match default {
            Preset::Is(default) => format!("`{default}`"),
            Preset::Required => "required".to_owned(),
            Preset::Unset => "not set".to_owned(),
        };
        text.push_str(&format!("| `{name}` | {} | {default} | {help} |\n", value.range()));
    }
    for child in shape.children {
        write_table(text, &path, child);
    }
}
