//! What `[azure]` and the keys that need it take, and what they say otherwise.

use std::fs;

use tempfile::TempDir;

use super::super::{Cloud, Config, ManagedIdentity, TokenSource};
use crate::config::Settings;

const TENANT: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

/// A folder for the configuration and the files that it names: `one` with a line, `none` empty.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("one"), "x\n").unwrap();
        fs::write(folder.path().join("none"), "").unwrap();
        Self(folder)
    }

    /// Loads with these lines in `[uplink]` and `[azure]`; `@` stands for the folder. Errors are without the name of
    /// the configuration's file and with `@` again.
    fn load(&self, uplink: &str, azure: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let folder = self.0.path().display().to_string();
        let file = self.0.path().join("penstock.toml");
        let text = format!(
            "[gateway]\nid = \"test\"\n[mqtt.access]\nanonymous = \"allow\"\n\
             [[mqtt.listener]]\naddress = \"127.0.0.1:0\"\n[[mqtt.topic]]\ntemplate = \"{{device}}/t\"\n\
             [outbox]\ndirectory = \"@/outbox\"\n[uplink]\n{uplink}\n[azure]\n{azure}\n"
        );
        fs::write(&file, text.replace('@', &folder)).unwrap();
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), value.replace('@', &folder)));
        let loaded = Settings::load(&file, environment);
        let prefix = format!("{}: ", file.display());
        loaded.map_err(|error| error.to_string().replace(&prefix, "").replace(&folder, "@"))
    }

    fn azure(&self, azure: &str) -> Result<Config, String> {
        self.load("enabled = false", azure, &[]).map(|settings| settings.azure)
    }
}

fn check(azure: &str, expected: &str) {
    assert_eq!(Desk::new().azure(azure).expect_err(azure), expected);
}

#[test]
fn a_gateway_without_tokens_says_nothing() {
    let expected = Config { cloud: Cloud::Public, source: None };
    assert_eq!(Desk::new().azure(""), Ok(expected));
    let expected = Config { cloud: Cloud::China, source: None };
    assert_eq!(Desk::new().azure("cloud = \"china\""), Ok(expected));
}

#[test]
fn each_credential_is_read_with_what_it_needs() {
    let desk = Desk::new();
    let machine = desk.azure("credential = \"managed-identity\"").unwrap().source;
    let endpoint = "http://169.254.169.254".to_owned();
    assert_eq!(machine, Some(TokenSource::ManagedIdentity(ManagedIdentity { endpoint, client_id: None })));

    let ids = format!("tenant_id = \"{TENANT}\"\nclient_id = \"{CLIENT}\"");
    let secret =
        format!("credential = \"client-secret\"\n{ids}\nclient_secret_file = \"@/one\"\ncloud = \"usgov\"");
    let Some(TokenSource::ClientSecret(app)) = desk.azure(&secret).unwrap().source else {
        panic!("{secret}")
    };
    assert_eq!(
        (app.authority.host.as_str(), app.tenant_id.as_str()),
        ("https://login.microsoftonline.us", TENANT)
    );
    let pod = format!(
        "credential = \"workload-identity\"\n{ids}\nfederated_token_file = \"@/one\"\nauthority_host = \"https://a.example/\""
    );
    let Some(TokenSource::WorkloadIdentity(pod)) = desk.azure(&pod).unwrap().source else { panic!("{pod}") };
    assert_eq!((pod.authority.host.as_str(), pod.client_id.as_str()), ("https://a.example", CLIENT));
}

#[test]
fn a_pods_variables_stand_for_keys_that_are_not_given() {
    let desk = Desk::new();
    let environment = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", "no id"),
        ("AZURE_FEDERATED_TOKEN_FILE", "@/one"),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
    ];
    let workload = "credential = \"workload-identity\"";
    let error = desk.load("enabled = false", workload, &environment).expect_err("the client id is none");
    assert_eq!(
        error,
        "environment variable AZURE_CLIENT_ID: azure.client_id = \"no id\": \
         expected a client id, 8-4-4-4-12 hexadecimal digits"
    );
    let given = format!("{workload}\nclient_id = \"{CLIENT}\"");
    let settings = desk.load("enabled = false", &given, &environment).unwrap();
    let Some(TokenSource::WorkloadIdentity(pod)) = settings.azure.source else { panic!("{given}") };
    assert_eq!((pod.tenant_id.as_str(), pod.client_id.as_str()), (TENANT, CLIENT));
    assert_eq!(pod.authority.host, "https://login.microsoftonline.com");
    let machine = desk.load("enabled = false", "credential = \"managed-identity\"", &environment);
    assert!(machine.is_ok(), "they mean nothing elsewhere");
}

#[test]
fn what_is_missing_or_means_nothing_is_named() {
    let secret = "credential = \"client-secret\"";
    let ids = format!("tenant_id = \"{TENANT}\"\nclient_id = \"{CLIENT}\"");
    check(secret, "azure.tenant_id is missing: expected text of 1 to 255 characters");
    check(
        &format!("{secret}\ntenant_id = \"{TENANT}\""),
        "azure.client_id is missing: expected text of 1 to 36 characters",
    );
    check(&format!("{secret}\n{ids}"), "azure.client_secret_file is missing: expected a path");
    check(
        &format!("credential = \"workload-identity\"\n{ids}"),
        "azure.federated_token_file is missing: expected a path",
    );
    check(
        &format!("credential = \"managed-identity\"\n{ids}"),
        &format!("azure.tenant_id = \"{TENANT}\": expected nothing with credential = \"managed-identity\""),
    );
    check(
        &format!("{secret}\n{ids}\nclient_secret_file = \"@/one\"\nfederated_token_file = \"@/one\""),
        "azure.federated_token_file = \"@/one\": expected nothing with credential = \"client-secret\"",
    );
    check(
        "client_secret_file = \"@/one\"",
        "azure.client_secret_file = \"@/one\": expected nothing without azure.credential",
    );
}

#[test]
fn values_that_cannot_be_are_named_with_their_range() {
    let app = |more: &str| {
        format!("credential = \"client-secret\"\ntenant_id = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\n{more}")
    };
    check("cloud = \"mars\"", "azure.cloud = \"mars\": expected one of \"public\", \"usgov\", \"china\"");
    check(
        &app("client_secret_file = \"@/none\""),
        "azure.client_secret_file = \"@/none\": expected a file with one line (it is empty)",
    );
    let gone = Desk::new().azure(&app("client_secret_file = \"@/gone\"")).expect_err("no such file");
    assert!(gone.starts_with(
        "azure.client_secret_file = \"@/gone\": expected a file with one line (it cannot be read: "
    ));
    for host in ["http://login.example", "https://a.example/path", "https://u@a.example", "login.example"] {
        check(
            &app(&format!("client_secret_file = \"@/one\"\nauthority_host = \"{host}\"")),
            &format!(
                "azure.authority_host = \"{host}\": \
                 expected https://HOST or https://HOST:PORT, or http:// with a loopback host"
            ),
        );
    }
    check(
        "credential = \"managed-identity\"\nimds_endpoint = \"169.254.169.254\"",
        "azure.imds_endpoint = \"169.254.169.254\": expected http://HOST or http://HOST:PORT",
    );
    check(
        &app("client_secret_file = \"@/one\"").replace(TENANT, "con/toso"),
        "azure.tenant_id = \"con/toso\": \
         expected the id of a tenant, 8-4-4-4-12 hexadecimal digits, or a domain of it",
    );
}

#[test]
fn the_uplink_asks_for_a_namespace_of_the_cloud_and_for_a_credential() {
    let desk = Desk::new();
    let entra = "security = \"entra-tls\"\nnamespace = \"contoso\"";
    let machine = "credential = \"managed-identity\"";
    let loaded = desk.load(entra, machine, &[]).unwrap();
    let connection = loaded.uplink.unwrap().connection;
    assert_eq!(connection.bootstrap_servers, "contoso.servicebus.windows.net:9093");
    assert_eq!(connection.tokens().unwrap().audience().host(), "contoso.servicebus.windows.net");
    assert!(loaded.effective.contains("credential = \"managed-identity\""), "{}", loaded.effective);

    let refused = |uplink: &str, azure: &str| desk.load(uplink, azure, &[]).expect_err(uplink);
    assert_eq!(
        refused("security = \"entra-tls\"", machine),
        "uplink.namespace is missing: expected text of 1 to 255 characters"
    );
    assert_eq!(
        refused(entra, ""),
        "azure.credential is missing: expected one of \"managed-identity\", \"workload-identity\", \
         \"client-secret\", since uplink.security is \"entra-tls\""
    );
    let whole = "security = \"entra-tls\"\nnamespace = \"contoso.servicebus.windows.net\"";
    assert_eq!(
        refused(whole, &format!("{machine}\ncloud = \"usgov\"")),
        "uplink.namespace = \"contoso.servicebus.windows.net\": expected NAME or \
         NAME.servicebus.usgovcloudapi.net, since azure.cloud is \"usgov\""
    );
}
