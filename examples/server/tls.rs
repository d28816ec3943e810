//! TLS for the connections of the server, by rustls with its present provider of cryptography.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use logline_http::Secure;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Answers handshakes with one certificate.
#[derive(Clone)]
pub(crate) struct Tls(TlsAcceptor);

impl Tls {
    /// Reads a certificate chain and its key from PEM files.
    pub(crate) fn read(certificates: &Path, key: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificates)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

#[async_trait]
impl Secure for Tls {
    type Io = TlsStream<TcpStream>;

    async fn secure(&self, stream: TcpStream) -> io::Result<Self::Io> {
        self.0.accept(stream).await
    }
}
