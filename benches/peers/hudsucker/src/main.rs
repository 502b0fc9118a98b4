//! Owns a proxy that does nothing but swap one header, made of hudsucker and as little else as it needs.
//!
//! Arguments: the address to listen at, the origins' roots, the proxy's own authority and its key (PEM
//! files), the host, and a file with its secret. Every name leads to 127.0.0.1.

use std::error::Error;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::hyper::Request;
use hudsucker::hyper::header::HeaderValue;
use hudsucker::hyper_util::client::legacy::connect::HttpConnector;
use hudsucker::hyper_util::client::legacy::connect::dns::Name;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs::default_provider;
use hudsucker::rustls::pki_types::CertificateDer;
use hudsucker::rustls::pki_types::pem::PemObject;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use tokio::net::{TcpListener, TcpSocket};
use tower_service::Service;

const FIELD: &str = "x-api-key";
const HOSTS_KEPT: u64 = 1000;
const BACKLOG: u32 = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, roots, certificate, key, host, secret] = args.as_slice() else {
        return Err("arguments: ADDRESS ROOTS CERTIFICATE KEY HOST SECRET-FILE".into());
    };
    let key = KeyPair::from_pem(&std::fs::read_to_string(key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(certificate)?, key)?;
    let swap = Swap {
        host: host.as_str().into(),
        secret: HeaderValue::from_str(std::fs::read_to_string(secret)?.trim())?,
    };
    let proxy = Proxy::builder()
        .with_listener(listener(address.parse()?)?)
        .with_ca(RcgenAuthority::new(issuer, HOSTS_KEPT, default_provider()))
        .with_http_connector(connector(roots)?)
        .with_http_handler(swap)
        .build()?;
    Ok(proxy.start().await?)
}

/// Accepted connections inherit that nothing waits to be sent together.
fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Verifies origins by `roots` alone, and keeps connections for later requests as hyper does.
fn connector(roots: &str) -> Result<HttpsConnector<HttpConnector<Local>>, Box<dyn Error>> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_file(roots)?)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(Local);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new().with_tls_config(tls);
    Ok(tls.https_only().enable_http1().wrap_connector(tcp))
}

/// Gives the host its secret.
#[derive(Clone)]
struct Swap {
    host: Arc<str>,
    secret: HeaderValue,
}

impl HttpHandler for Swap {
    async fn handle_request(
        &mut self,
        _: &HttpContext,
        mut request: Request<Body>,
    ) -> RequestOrResponse {
        if request.uri().host() == Some(&self.host)
            && let Some(value) = request.headers_mut().get_mut(FIELD)
        {
            *value = self.secret.clone();
        }
        request.into()
    }
}

/// Resolves every name to this machine. The port comes from the request.
#[derive(Clone, Copy)]
struct Local;

impl Service<Name> for Local {
    type Response = std::iter::Once<SocketAddr>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(std::iter::once((Ipv4Addr::LOCALHOST, 0).into())))
    }
}
