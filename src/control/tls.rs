//! HTTPS: certificate and key from PEM files, for the API and for the front of HTTP streaming. A
//! reload reads them again; who is connected goes on with what was there before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
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

/// A file and the setting that names it.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    setting: &'static str,
}

impl File {
    /// The file that this setting names.
    pub fn new(path: &Path, setting: &'static str) -> File {
        File { path: path.to_owned(), setting }
    }

    fn failed(&self, why: pem::Error) -> TlsError {
        TlsError::File { file: self.path.clone(), setting: self.setting, why }
    }
}

/// As whom a port answers: certificate and key, exchanged together.
pub struct Identity {
    cert: File,
    key: File,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    chain: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// Reads certificate (with its chain) and key. TLS 1.2 and 1.3 are accepted with them.
    ///
    /// # Errors
    /// A file is missing or wrong, or the two do not belong together.
    pub fn load(cert: File, key: File) -> Result<Identity, TlsError> {
        let current = ArcSwap::from_pointee(read(&cert, &key)?);
        Ok(Identity { cert, key, current })
    }

    /// What accepts a connection now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load().config.clone())
    }

    /// Reads the files again, for connections from here on. True when the certificate is another.
    ///
    /// # Errors
    /// As [`Identity::load`]; the pair before stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let loaded = read(&self.cert, &self.key)?;
        let other = self.current.load().chain != loaded.chain;
        if other {
            self.current.store(Arc::new(loaded));
        }
        Ok(other)
    }

    /// The certificate's file, for people.
    pub fn name(&self) -> std::path::Display<'_> {
        self.cert.path.display()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert", &self.cert).finish_non_exhaustive()
    }
}

fn read(cert: &File, key: &File) -> Result<Loaded, TlsError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&cert.path).and_then(Iterator::collect);
    let chain = chain.map_err(|why| cert.failed(why))?;
    if chain.is_empty() {
        return Err(cert.failed(pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_file(&key.path).map_err(|why| key.failed(why))?;
    let pair = |why| TlsError::Pair { cert: cert.path.clone(), key: key.path.clone(), why };
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { chain, config: Arc::new(config) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_its_setting() {
        let file = |setting| File::new(Path::new("/nowhere/server.crt"), setting);
        let result = Identity::load(file("a.cert"), file("a.key"));
        let text = result.expect_err("no such file").to_string();
        assert!(text.contains("/nowhere/server.crt") && text.contains("a.cert"), "{text}");
    }
}
