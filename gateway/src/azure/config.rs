//! The `[azure]` section.

use std::path::PathBuf;

use super::cloud::Cloud;
use super::source::{Authority, ManagedIdentity, ServicePrincipal, TokenSource, check_secret_file};
use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};

const CLOUD: Key = Key {
    name: "cloud",
    value: Value::Choice(Cloud::NAMES),
    default: Preset::Is("public"),
    help: "Which of Azure's clouds: it decides who issues tokens and how the hosts of namespaces end.",
};
const CREDENTIAL: Key = Key {
    name: "credential",
    value: Value::Choice(&[MANAGED_IDENTITY, WORKLOAD_IDENTITY, CLIENT_SECRET]),
    default: Preset::Unset,
    help: "How this gateway proves who it is where a token of Microsoft Entra is asked for (`uplink.security = \"entra-tls\"`). `managed-identity`: the identity of the virtual machine. `workload-identity`: the identity of a Kubernetes pod. `client-secret`: an application with a secret, for anywhere else.",
};
const TENANT_ID: Key = Key {
    name: "tenant_id",
    value: Value::Text { chars_max: 255 },
    default: Preset::Unset,
    help: "The tenant, by id or by a domain of it. Required with `workload-identity`, where the variable `AZURE_TENANT_ID` stands for it, and with `client-secret`.",
};
const CLIENT_ID: Key = Key {
    name: "client_id",
    value: Value::Text { chars_max: 36 },
    default: Preset::Unset,
    help: "The client id (application id) of the identity. Required with `workload-identity`, where the variable `AZURE_CLIENT_ID` stands for it, and with `client-secret`. With `managed-identity` it chooses a user-assigned identity.",
};
const CLIENT_SECRET_FILE: Key = Key {
    name: "client_secret_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with the application's secret. Read anew for each token, so that a new secret needs no restart. Required with `client-secret`.",
};
const FEDERATED_TOKEN_FILE: Key = Key {
    name: "federated_token_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with the token that the Kubernetes cluster gives the pod. Read anew for each token. Required with `workload-identity`, where the variable `AZURE_FEDERATED_TOKEN_FILE` stands for it.",
};
const AUTHORITY_HOST: Key = Key {
    name: "authority_host",
    value: Value::Text { chars_max: 255 },
    default: Preset::Unset,
    help: "Who issues tokens, `https://HOST`; `http` on the same host only. Not set, it is the one of `cloud`; with `workload-identity` the variable `AZURE_AUTHORITY_HOST` stands for it. It is reached through the proxy that `HTTPS_PROXY` names, if one is.",
};
const CA_FILE: Key = Key {
    name: "ca_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "Certificates (PEM) to trust instead of the system's when a tenant is asked for a token, for sites whose proxy opens TLS.",
};
const IMDS_ENDPOINT: Key = Key {
    name: "imds_endpoint",
    value: Value::Text { chars_max: 255 },
    default: Preset::Is("http://169.254.169.254"),
    help: "Where the metadata service of the virtual machine answers, for `managed-identity`. No proxy is used.",
};

const MANAGED_IDENTITY: &str = "managed-identity";
const WORKLOAD_IDENTITY: &str = "workload-identity";
const CLIENT_SECRET: &str = "client-secret";

/// Variables that Kubernetes' workload identity sets in a pod, and the keys of `[azure]` that they stand for when those
/// are not given.
pub(crate) const WORKLOAD_IDENTITY_VARIABLES: &[(&str, &str)] = &[
    ("AZURE_TENANT_ID", TENANT_ID.name),
    ("AZURE_CLIENT_ID", CLIENT_ID.name),
    ("AZURE_FEDERATED_TOKEN_FILE", FEDERATED_TOKEN_FILE.name),
    ("AZURE_AUTHORITY_HOST", AUTHORITY_HOST.name),
];

/// Which cloud, and how this gateway proves who it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The cloud.
    pub cloud: Cloud,
    /// Where tokens come from, if any are wanted.
    pub source: Option<TokenSource>,
}

/// The keys that only some credentials read.
struct Given {
    tenant_id: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    federated_token_file: Option<PathBuf>,
    authority_host: Option<String>,
    ca_file: Option<PathBuf>,
}

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "azure",
        "Which of Azure's clouds, and how this gateway proves who it is there with tokens of Microsoft Entra.",
        &[
            CLOUD,
            CREDENTIAL,
            TENANT_ID,
            CLIENT_ID,
            CLIENT_SECRET_FILE,
            FEDERATED_TOKEN_FILE,
            AUTHORITY_HOST,
            CA_FILE,
            IMDS_ENDPOINT,
        ],
    );

    pub(crate) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let cloud = Cloud::named(&section.choice(&CLOUD)?);
        let credential = section.text_if_set(&CREDENTIAL)?;
        let given = Given {
            tenant_id: section.text_if_set(&TENANT_ID)?,
            client_id: section.text_if_set(&CLIENT_ID)?,
            client_secret_file: section.path_if_set(&CLIENT_SECRET_FILE)?,
            federated_token_file: section.path_if_set(&FEDERATED_TOKEN_FILE)?,
            authority_host: section.text_if_set(&AUTHORITY_HOST)?,
            ca_file: section.path_if_set(&CA_FILE)?,
        };
        let imds_endpoint = section.text(&IMDS_ENDPOINT)?;
        let source = match credential.as_deref() {
            None => {
                given.refuse_all(section, "nothing without azure.credential")?;
                None
            }
            Some(MANAGED_IDENTITY) => Some(given.managed_identity(section, &imds_endpoint)?),
            Some(WORKLOAD_IDENTITY) => Some(given.workload_identity(section, cloud)?),
            Some(_) => Some(given.client_secret(section, cloud)?),
        };
        Ok(Self { cloud, source })
    }

    /// The error for a credential that is not given although `reader` needs tokens.
    pub(crate) fn missing_credential(section: &Section, reader: &str) -> ConfigError {
        match section.missing(&CREDENTIAL) {
            ConfigError::Missing { file, key, expected } => {
                ConfigError::Missing { file, key, expected: format!("{expected}, since {reader}") }
            }
            other => other,
        }
    }
}

impl Given {
    fn managed_identity(self, section: &Section, endpoint: &str) -> Result<TokenSource, ConfigError> {
        let unread = "nothing with credential = \"managed-identity\"";
        let client_id = self.client_id.as_deref().map(|id| client_id(section, id)).transpose()?;
        Self { client_id: None, ..self }.refuse_all(section, unread)?;
        let endpoint = origin(endpoint, true)
            .ok_or_else(|| section.refuse(&IMDS_ENDPOINT, endpoint, "http://HOST or http://HOST:PORT"))?;
        Ok(TokenSource::ManagedIdentity(ManagedIdentity { endpoint, client_id }))
    }

    fn workload_identity(self, section: &Section, cloud: Cloud) -> Result<TokenSource, ConfigError> {
        let unread = "nothing with credential = \"workload-identity\"";
        refuse_path(section, &CLIENT_SECRET_FILE, self.client_secret_file.as_ref(), unread)?;
        let file = self.federated_token_file.clone();
        self.principal(section, cloud, &FEDERATED_TOKEN_FILE, file).map(TokenSource::WorkloadIdentity)
    }

    fn client_secret(self, section: &Section, cloud: Cloud) -> Result<TokenSource, ConfigError> {
        let unread = "nothing with credential = \"client-secret\"";
        refuse_path(section, &FEDERATED_TOKEN_FILE, self.federated_token_file.as_ref(), unread)?;
        let file = self.client_secret_file.clone();
        self.principal(section, cloud, &CLIENT_SECRET_FILE, file).map(TokenSource::ClientSecret)
    }

    fn principal(
        self,
        section: &Section,
        cloud: Cloud,
        key: &Key,
        proof_file: Option<PathBuf>,
    ) -> Result<ServicePrincipal, ConfigError> {
        let tenant = self.tenant_id.ok_or_else(|| section.missing(&TENANT_ID))?;
        let client = self.client_id.ok_or_else(|| section.missing(&CLIENT_ID))?;
        let proof_file = proof_file.ok_or_else(|| section.missing(key))?;
        check_secret_file(&proof_file).map_err(|reason| {
            section.refuse(
                key,
                &proof_file.display().to_string(),
                &format!("a file with one line (it {reason})"),
            )
        })?;
        if let Some(path) = &self.ca_file
            && let Err(error) = std::fs::File::open(path)
        {
            let expected = format!("a readable file ({error})");
            return Err(section.refuse(&CA_FILE, &path.display().to_string(), &expected));
        }
        let host = match &self.authority_host {
            None => cloud.authority_host().to_owned(),
            Some(text) => origin(text, false).ok_or_else(|| {
                let expected = "https://HOST or https://HOST:PORT, or http:// with a loopback host";
                section.refuse(&AUTHORITY_HOST, text, expected)
            })?,
        };
        Ok(ServicePrincipal {
            authority: Authority { host, ca_file: self.ca_file },
            tenant_id: tenant_id(section, &tenant)?,
            client_id: client_id(section, &client)?,
            proof_file,
        })
    }

    /// Refuses whatever is given: it would have no effect, and whoever wrote it expects one.
    fn refuse_all(&self, section: &Section, expected: &str) -> Result<(), ConfigError> {
        let texts = [
            (&TENANT_ID, &self.tenant_id),
            (&CLIENT_ID, &self.client_id),
            (&AUTHORITY_HOST, &self.authority_host),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                return Err(section.refuse(key, value, expected));
            }
        }
        refuse_path(section, &CLIENT_SECRET_FILE, self.client_secret_file.as_ref(), expected)?;
        refuse_path(section, &FEDERATED_TOKEN_FILE, self.federated_token_file.as_ref(), expected)?;
        refuse_path(section, &CA_FILE, self.ca_file.as_ref(), expected)
    }
}

fn refuse_path(
    section: &Section,
    key: &Key,
    path: Option<&PathBuf>,
    expected: &str,
) -> Result<(), ConfigError> {
    let given = path.map(|path| path.display().to_string());
    given.map_or(Ok(()), |given| Err(section.refuse(key, &given, expected)))
}

fn tenant_id(section: &Section, text: &str) -> Result<String, ConfigError> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if plain && !text.contains("..") && !text.starts_with('.') {
        return Ok(text.to_owned());
    }
    Err(section.refuse(
        &TENANT_ID,
        text,
        "the id of a tenant, 8-4-4-4-12 hexadecimal digits, or a domain of it",
    ))
}

fn client_id(section: &Section, text: &str) -> Result<String, ConfigError> {
    let parts: Vec<&str> = text.split('-').collect();
    let hexadecimal = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    if hexadecimal && lengths == [8, 4, 4, 4, 12] {
        return Ok(text.to_owned());
    }
    Err(section.refuse(&CLIENT_ID, text, "a client id, 8-4-4-4-12 hexadecimal digits"))
}

/// `scheme://host[:port]` of a text without anything behind it but a slash. Proofs are sent there, so plain HTTP is
/// for the same host only unless `anywhere`.
fn origin(text: &str, anywhere: bool) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let host = url.host_str()?;
    let loopback = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && (anywhere || loopback));
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    (scheme && bare && nobody).then(|| url.as_str().trim_end_matches('/').to_owned())
}
