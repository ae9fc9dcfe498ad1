//! TLS settings for listeners and for what the gateway connects to, on rustls with ring.

mod client;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

pub use client::client;

/// Largest TLS record held back for a slow peer, in bytes, per connection.
pub const BUFFER_BYTES_MAX: usize = 16 << 10;

/// Why TLS settings were refused. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("{}: holds no PEM {what}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// A certificate and key that rustls does not accept together.
    #[error("{}: not a usable certificate and key", file.display())]
    Unusable {
        /// The certificate's file.
        file: PathBuf,
        /// rustls' word.
        source: rustls::Error,
    },
    /// The system keeps no certificates of authorities where they are usually kept.
    #[error("this system holds no certificates of authorities; name a file with them")]
    NoAuthorities,
}

/// Makes ring the process-wide cryptography. A second call changes nothing.
pub fn install_provider() {
    // An error means that a provider is there already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// The certificate that a listener shows, which may change while it listens: TLS 1.3 and 1.2, no
/// client certificates.
#[derive(Debug)]
pub struct Certificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: ArcSwap<ServerConfig>,
}

impl Certificate {
    /// Reads the certificate chain from one PEM file and its key from another.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, holds nothing of the kind, or the two do not fit.
    pub fn read(certificate_file: &Path, key_file: &Path) -> Result<Self, Error> {
        let current = ArcSwap::new(server(certificate_file, key_file)?);
        Ok(Self { certificate_file: certificate_file.to_owned(), key_file: key_file.to_owned(), current })
    }

    /// What the next handshake uses.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads both files again; handshakes that begin after it use them. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; the certificate stays as it is.
    pub fn reload(&self) -> Result<(), Error> {
        self.current.store(server(&self.certificate_file, &self.key_file)?);
        Ok(())
    }
}

fn server(certificate_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate_file)?)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Empty { file: certificate_file.to_owned(), what: "certificate" })?;
    if chain.is_empty() {
        return Err(Error::Empty { file: certificate_file.to_owned(), what: "certificate" });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
        .map_err(|_| Error::Empty { file: key_file.to_owned(), what: "private key" })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |source| Error::Unusable { file: certificate_file.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.send_tls13_tickets = 2;
    Ok(Arc::new(config))
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| Error::Unreadable { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_file_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = folder.path().join("certificate.pem");
        let key = folder.path().join("key.pem");
        let junk = folder.path().join("junk.pem");
        fs::write(&certificate, made.cert.pem()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        fs::write(&junk, "not PEM").expect("written");

        assert!(server(&certificate, &key).is_ok());
        let check = |certificate: &Path, key: &Path, expected: &str| {
            let error = server(certificate, key).expect_err("must be refused").to_string();
            assert!(error.ends_with(expected), "{error}");
        };
        check(&folder.path().join("absent.pem"), &key, "absent.pem: cannot be read");
        check(&junk, &key, "junk.pem: holds no PEM certificate");
        check(&certificate, &junk, "junk.pem: holds no PEM private key");

        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(&key, other.signing_key.serialize_pem()).expect("written");
        check(&certificate, &key, "certificate.pem: not a usable certificate and key");
    }
}
