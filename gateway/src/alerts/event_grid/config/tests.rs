//! What a table takes and what it refuses.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::parse_for_tests;

const ROOT: Shape = Shape::table("", "", &[]).with(&[Config::SHAPE]);

/// A folder with the files that the keys name.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("key", "a2V5a2V5\n");
        put("other", "b3RoZXI=");
        put("two-lines", "a2V5\na2V5");
        put("no-base64", "not a key!");
        put("proxy", "me:s3cret");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        put("ca.pem", &made.cert.pem());
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, keys: &str) -> Result<Config, String> {
        let folder: &Path = self.0.path();
        let text = format!("[[event_grid]]\n{}", keys.replace("FOLDER", &folder.display().to_string()));
        let mut root = parse_for_tests(&text, &ROOT).map_err(|error| error.to_string())?;
        let mut tables = root.children(&Config::SHAPE).map_err(|error| error.to_string())?;
        Config::read(&mut tables[0], Cloud::Public, "io.penstock").map_err(|error| error.to_string())
    }
}

const TOPIC: &str = "endpoint = \"https://t.westeurope-1.eventgrid.azure.net\"\n";
const KEYED: &str = "endpoint = \"https://t.westeurope-1.eventgrid.azure.net\"\nkey_file = \"FOLDER/key\"\n";

fn accepted(keys: &str) -> Config {
    Files::new().read(keys).expect(keys)
}

fn refused(keys: &str, expected: &[&str]) {
    let error = Files::new().read(keys).expect_err(keys);
    for part in expected {
        assert!(error.contains(part), "{keys}: {error}");
    }
}

#[test]
fn an_address_and_a_key_are_enough() {
    let config = accepted(KEYED);
    assert_eq!(
        config.endpoint.url.as_str(),
        "https://t.westeurope-1.eventgrid.azure.net/api/events?api-version=2018-01-01"
    );
    assert!(matches!(&config.sign_in, SignIn::Key(files) if files.len() == 1));
    assert_eq!((config.batch.events, config.batch.bytes), (500, 512 << 10));
    assert_eq!(config.endpoint.timeout, Duration::from_secs(10));
    assert_eq!((&config.source, config.endpoint.kind), (&Source::AsItIs, Kind::Topic));
    assert!(config.tokens().is_none());
    let id = consumer(&config);
    assert_eq!((id.name.as_str(), id.lane), ("event-grid", Lane::Alerts));
}

#[test]
fn a_name_makes_a_consumer_of_its_own() {
    let config = accepted(&format!("name = \"ops-2\"\n{KEYED}"));
    assert_eq!((consumer(&config).name.as_str(), config.name()), ("event-grid-ops-2", Some("ops-2")));
    refused(&format!("name = \"Ops 2\"\n{KEYED}"), &["event_grid[0].name", "Ops 2", "a-z 0-9 -"]);
}

#[test]
fn every_way_to_sign_in_has_its_keys() {
    let two = accepted(&format!(
        "{KEYED}second_key_file = \"FOLDER/other\"\nauth = \"sas\"\nsas_lifetime = \"2h\"\n"
    ));
    let SignIn::Sas { files, lifetime } = &two.sign_in else { panic!("signatures") };
    assert_eq!((files.len(), lifetime.as_secs()), (2, 7200));
    let entra = accepted(&format!("{TOPIC}auth = \"entra\"\n"));
    assert_eq!(
        entra.tokens().map(|tokens| tokens.audience().host().to_owned()).as_deref(),
        Some("eventgrid.azure.net")
    );
    refused(TOPIC, &["event_grid[0].key_file is missing"]);
    refused(&format!("{KEYED}auth = \"entra\"\n"), &["key_file", "nothing with auth = \"entra\""]);
    refused(
        &format!("{TOPIC}key_file = \"FOLDER/no-base64\"\n"),
        &["key_file", "Base64 (it holds no Base64)"],
    );
    refused(&format!("{TOPIC}key_file = \"FOLDER/two-lines\"\n"), &["it has more than one line"]);
    refused(&format!("{KEYED}second_key_file = \"FOLDER/absent\"\n"), &["second_key_file", "cannot be read"]);
    refused(&format!("{KEYED}sas_lifetime = \"1s\"\n"), &["sas_lifetime", "from 1min to 24h"]);
}

#[test]
fn a_namespace_has_a_topic_and_smaller_batches() {
    let keys = format!("{KEYED}kind = \"namespace\"\n");
    let config = accepted(&format!("{keys}topic = \"alerts\"\nbatch_events_max = 1000\n"));
    assert!(config.endpoint.url.as_str().ends_with("/topics/alerts:publish?api-version=2023-11-01"));
    refused(&keys, &["event_grid[0].topic is missing"]);
    refused(&format!("{keys}topic = \"a/b\"\n"), &["topic", "3 to 50"]);
    refused(&format!("{KEYED}topic = \"alerts\"\n"), &["topic", "nothing unless kind is \"namespace\""]);
    let large = format!("{keys}topic = \"alerts\"\nbatch_events_max = 1001\n");
    refused(&large, &["batch_events_max", "1001", "at most 1000"]);
}

#[test]
fn a_domain_needs_a_topic_as_source() {
    let keys = format!("{KEYED}kind = \"domain\"\n");
    assert_eq!(
        accepted(&format!("{keys}source = \"plant-1\"\n")).source,
        Source::Fixed("plant-1".to_owned())
    );
    let tenants = accepted(&format!("{keys}source = \"{{tenant}}\"\nsource_without_tenant = \"site\"\n"));
    assert_eq!(tenants.source, Source::PerTenant { others: "site".to_owned() });
    refused(&keys, &["event_grid[0].source is missing"]);
    refused(&format!("{keys}source = \"{{tenant}}\"\n"), &["source_without_tenant is missing"]);
    refused(&format!("{keys}source = \"urn:plant\"\n"), &["source", "domain topic"]);
    refused(&format!("{keys}source = \"/gateways/a\"\n"), &["source", "domain topic"]);
    let others = format!("{keys}source = \"plant\"\nsource_without_tenant = \"site\"\n");
    refused(&others, &["source_without_tenant", "nothing unless source"]);
    assert_eq!(
        accepted(&format!("{KEYED}source = \"urn:plant:1\"\n")).source,
        Source::Fixed("urn:plant:1".to_owned())
    );
    refused(&format!("{KEYED}source = \"two words\"\n"), &["source", "a URI reference"]);
}

#[test]
fn bounds_have_ranges() {
    refused(&format!("{KEYED}batch_events_max = 5001\n"), &["batch_events_max", "5001", "1 to 5000"]);
    refused(&format!("{KEYED}batch_bytes_max = \"2MiB\"\n"), &["batch_bytes_max", "1KiB to 1MiB"]);
    refused(&format!("{KEYED}timeout = \"1h\"\n"), &["timeout", "100ms to 2min"]);
    let pauses = format!("{KEYED}retry_first = \"10s\"\nretry_longest = \"5s\"\n");
    refused(&pauses, &["retry_longest", "5s", "at least retry_first"]);
    refused(&format!("{KEYED}linger = \"1s\"\n"), &["linger", "batch_events_max"]);
}

#[test]
fn addresses_and_files_are_checked() {
    refused(
        "endpoint = \"http://t.eventgrid.azure.net\"\nkey_file = \"FOLDER/key\"\n",
        &["endpoint", "https://HOST"],
    );
    let trusted = accepted(&format!("{KEYED}ca_file = \"FOLDER/ca.pem\"\n"));
    assert!(trusted.endpoint.ca_file.is_some());
    refused(&format!("{KEYED}ca_file = \"FOLDER/key\"\n"), &["ca_file", "it holds no PEM certificate"]);
    refused(&format!("{KEYED}ca_file = \"FOLDER/absent\"\n"), &["ca_file", "it cannot be read"]);
    let proxied =
        format!("{KEYED}proxy = \"http://proxy:3128\"\nproxy_credentials_file = \"FOLDER/proxy\"\n");
    let proxy = accepted(&proxied).endpoint.proxy.expect("given");
    assert_eq!(proxy.credentials, Some(("me".to_owned(), "s3cret".to_owned())));
    refused(&format!("{KEYED}proxy = \"proxy:3128\"\n"), &["proxy", "http://HOST:PORT"]);
    let alone = format!("{KEYED}proxy_credentials_file = \"FOLDER/proxy\"\n");
    refused(&alone, &["proxy_credentials_file", "nothing without proxy"]);
    let line = format!("{KEYED}proxy = \"http://proxy:1\"\nproxy_credentials_file = \"FOLDER/other\"\n");
    refused(&line, &["proxy_credentials_file", "NAME:PASSWORD"]);
    assert!(!Files::new().path("absent").exists());
}
