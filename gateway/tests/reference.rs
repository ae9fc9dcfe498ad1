//! The references in `docs/` say what the code says.

use std::fs;
use std::path::Path;

use penstock::{app, config, observe};

/// Compares `docs/NAME` with what the code generates, or writes it when asked to.
fn check(name: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("PENSTOCK_UPDATE_DOCS").is_some() {
        fs::write(&file, generated).expect("the reference can be written");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == generated, "docs/{name} is out of date: run with PENSTOCK_UPDATE_DOCS=1");
}

#[test]
fn configuration_reference_matches_the_code() {
    check("configuration.md", &config::reference(&config::Settings::SHAPE));
}

#[test]
fn metrics_reference_matches_the_code() {
    check("metrics.md", &observe::reference(app::METRICS));
}

#[test]
fn metric_names_follow_the_rules() {
    for (stage, metrics) in app::METRICS {
        for metric in *metrics {
            let name = metric.name;
            assert!(name.starts_with(&format!("penstock_{stage}_")), "{name} is not of {stage}");
            assert_eq!(name.ends_with("_total"), metric.kind == observe::Kind::Counter, "{name}");
            assert!(metric.help.ends_with('.'), "{name}: the help is a sentence");
        }
    }
}

#[test]
fn every_example_configuration_is_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let secrets = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(secrets.path().join(name), text).expect("written");
    for name in ["event-hubs.connection", "service-bus.connection"] {
        write(
            name,
            "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=edge;SharedAccessKey=bm90LWEta2V5",
        );
    }
    for name in ["event-grid.key", "event-grid-2.key"] {
        write(name, "bm90LWEta2V5");
    }
    let mut examples = 0;
    for entry in fs::read_dir(folder).expect("deploy/ exists").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "toml") {
            let example = fs::read_to_string(entry.path()).expect("a text");
            let file = secrets.path().join(entry.file_name());
            fs::write(&file, example.replace("/etc/penstock", &secrets.path().display().to_string()))
                .expect("written");
            let settings = config::Settings::load(&file, std::iter::empty::<(String, String)>());
            assert!(settings.is_ok(), "{}", settings.expect_err("refused"));
            examples += 1;
        }
    }
    assert!(examples > 0, "deploy/ holds an example");
}
