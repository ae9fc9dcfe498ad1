//! TLS for a storm of devices: a certificate for the servers, and clients that trust it and resume nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The name in the certificate.
const NAME: &str = "localhost";

/// A server certificate (ECDSA on P-256) in files, and what makes its clients.
pub struct Identity {
    /// Certificate and key, as PEM.
    pub files: (PathBuf, PathBuf),
    connector: TlsConnector,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes one, with its files in `folder`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("no certificate")?;
        let files = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&files.0, made.cert.pem()).context("the certificate cannot be written")?;
        fs::write(&files.1, made.signing_key.serialize_pem()).context("the key cannot be written")?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every device of a storm has lost what it knew: each handshake is a full one.
        config.resumption = Resumption::disabled();
        Ok(Self { files, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// What makes clients, and the name they ask for.
    ///
    /// # Errors
    /// None in practice: the name is one.
    pub fn client(&self) -> Result<(TlsConnector, ServerName<'static>)> {
        Ok((self.connector.clone(), ServerName::try_from(NAME)?))
    }
}
