//! What the gateway trusts when it connects to somebody.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::{Error, read};

/// The variable that names a file with the certificates of authorities, as OpenSSL and curl know it.
const FILE_VARIABLE: &str = "SSL_CERT_FILE";
/// Where systems keep them, all in one file: Debian, Fedora, openSUSE, OpenELEC, CentOS, Alpine.
const FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Settings that trust the authorities of `ca_file` (PEM), or the system's without one: TLS 1.3 and 1.2, no
/// certificate of our own. Blocks on the disk.
///
/// # Errors
///
/// When the file cannot be read, holds no certificate that can be used, or the system has none.
pub fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let file = match ca_file {
        Some(file) => file.to_owned(),
        None => system_file().ok_or(Error::NoAuthorities)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |source| Error::Unusable { file: file.clone(), source };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(authorities(&file)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The certificates of a file. Some that rustls does not take are passed over: bundles of systems hold very old ones.
fn authorities(file: &Path) -> Result<RootCertStore, Error> {
    let pem = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let mut store = RootCertStore::empty();
    let (taken, _) = store.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(Error::Empty { file: file.to_owned(), what: "certificate" });
    }
    Ok(store)
}

fn system_file() -> Option<PathBuf> {
    let named = env::var_os(FILE_VARIABLE).map(PathBuf::from);
    named.or_else(|| FILES.iter().map(PathBuf::from).find(|file| file.exists()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_authority_comes_from_the_file_and_a_bad_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let good = folder.path().join("authority.pem");
        let junk = folder.path().join("junk.pem");
        fs::write(&good, made.cert.pem()).unwrap();
        fs::write(&junk, "not PEM").unwrap();
        assert!(client(Some(&good)).is_ok());
        let check = |file: &Path, expected: &str| {
            let error = client(Some(file)).expect_err("must be refused").to_string();
            assert!(error.ends_with(expected), "{error}");
        };
        check(&junk, "junk.pem: holds no PEM certificate");
        check(&folder.path().join("absent.pem"), "absent.pem: cannot be read");
    }
}
