//! HTTPS: certificate and key from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig, crypto};

/// Why HTTPS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("cannot read {file} ({setting}): {why}")]
    File {
        /// The file.
        file: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// What is wrong.
        why: pem::Error,
    },
    /// Certificate and key do not do.
    #[error("certificate {cert} and key {key} cannot be used: {why}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        why: rustls::Error,
    },
}

/// Reads certificate (with its chain) and key; what comes out accepts TLS 1.2 and 1.3.
///
/// # Errors
/// A file is missing or wrong, or the two do not belong together.
pub fn acceptor(
    (cert, cert_setting): (&Path, &'static str),
    (key, key_setting): (&Path, &'static str),
) -> Result<TlsAcceptor, TlsError> {
    let bad = |file: &Path, setting| {
        let file = file.to_owned();
        move |why| TlsError::File { file, setting, why }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let mut chain = chain.map_err(bad(cert, cert_setting))?;
    if chain.is_empty() {
        return Err(bad(cert, cert_setting)(pem::Error::NoItemsFound));
    }
    chain.shrink_to_fit();
    let private = PrivateKeyDer::from_pem_file(key).map_err(bad(key, key_setting))?;
    let pair = |why| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), why };
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_its_setting() {
        let missing = Path::new("/nowhere/server.crt");
        let result = acceptor((missing, "a.cert"), (missing, "a.key"));
        let text = result.err().expect("no such file").to_string();
        assert!(text.contains("/nowhere/server.crt") && text.contains("a.cert"), "{text}");
    }
}
