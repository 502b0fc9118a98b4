//! Owns the way to the Kubernetes API server: the pod's ServiceAccount, or the kubeconfig that
//! `KUBECONFIG` names. Nothing else is looked for: a developer's own cluster in `~/.kube/config` is not
//! ours to write to.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::{HeaderValue, Uri, header};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where the kubelet mounts a pod's identity.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What tells where the API server is.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// `KUBERNETES_SERVICE_HOST`
    pub host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`
    pub port: Option<String>,
    /// Holds `token`, `ca.crt` and `namespace`.
    pub service_account: PathBuf,
    /// `KUBECONFIG`: a path, or several as in `PATH`.
    pub kubeconfig: Option<OsString>,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Self {
        Self {
            host: std::env::var("KUBERNETES_SERVICE_HOST").ok(),
            port: std::env::var("KUBERNETES_SERVICE_PORT").ok(),
            service_account: PathBuf::from(SERVICE_ACCOUNT),
            kubeconfig: std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()),
        }
    }
}

/// Directories and files that a client reads, then and later: kube reads tokens and authorities again every
/// minute. What cannot be read is left to [`connect`] to tell.
pub fn files(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut files = vec![surroundings.service_account.join("token")];
    for path in surroundings
        .kubeconfig
        .iter()
        .flat_map(std::env::split_paths)
    {
        // Relative paths in it become absolute as it is read.
        if let Ok(kubeconfig) = Kubeconfig::read_from(&path) {
            let clusters = kubeconfig.clusters.into_iter();
            let authorities = clusters.filter_map(|c| c.cluster?.certificate_authority);
            let users = kubeconfig.auth_infos.into_iter();
            let users = users.filter_map(|user| user.auth_info);
            let users = users.flat_map(|u| [u.client_certificate, u.client_key, u.token_file]);
            let named = authorities.chain(users.flatten());
            files.extend(named.map(PathBuf::from));
        }
        files.push(path);
    }
    files
}

/// Why there is no client for the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither in a pod nor told of a cluster.
    #[error(
        "no Kubernetes API server is known here: this process is in no pod (KUBERNETES_SERVICE_HOST is not set) and KUBECONFIG is not set"
    )]
    Nowhere,
    /// In a pod without an identity.
    #[error(
        "the pod's ServiceAccount cannot be used: {path}: {why}; set automountServiceAccountToken: true for the pod, or mount a projected volume with token, ca.crt and namespace there"
    )]
    ServiceAccount {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// `KUBERNETES_SERVICE_HOST` and `_PORT` give no address.
    #[error("KUBERNETES_SERVICE_HOST {host:?} and KUBERNETES_SERVICE_PORT {port:?} are no address")]
    Address {
        /// As set.
        host: String,
        /// As set; empty if not.
        port: String,
    },
    /// A kubeconfig that cannot be read or is not enough.
    #[error("KUBECONFIG {path}: {why}")]
    Kubeconfig {
        /// As set.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The client cannot be built from it.
    #[error("no client for the Kubernetes API server can be made: {0}")]
    Client(&'static str),
}

/// A client for the API server of this process's surroundings. Its default namespace is `namespace`,
/// or the pod's, or that of the kubeconfig's context. Sends nothing yet.
pub async fn connect(namespace: Option<&str>) -> Result<Client, ConnectError> {
    connect_in(&Surroundings::here(), namespace).await
}

/// As [`connect`], for surroundings that a test makes. Must be called on a Tokio runtime.
pub async fn connect_in(
    surroundings: &Surroundings,
    namespace: Option<&str>,
) -> Result<Client, ConnectError> {
    let mounted = surroundings.service_account.join("token").exists();
    let mut config = match (&surroundings.host, &surroundings.kubeconfig) {
        (Some(host), paths) if mounted || paths.is_none() => {
            in_cluster(surroundings, host, namespace)?
        }
        (_, Some(paths)) => from_kubeconfig(paths).await?,
        (_, None) => return Err(ConnectError::Nowhere),
    };
    if let Some(namespace) = namespace {
        namespace.clone_into(&mut config.default_namespace);
    }
    // What may be repeated is known to the caller: a write whose answer is late may have been done.
    config.default_retry = false;
    let agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
    let agent = (header::USER_AGENT, HeaderValue::from_static(agent));
    config.headers.push(agent);
    // kube takes the process's provider; a second one, should a library bring it, is not to be chosen.
    // Fails if it is installed already, which is as good.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    // kube's own words could quote what it read.
    Client::try_from(config)
        .map_err(|_| ConnectError::Client("its certificates or its token cannot be used"))
}

fn in_cluster(
    surroundings: &Surroundings,
    host: &str,
    namespace: Option<&str>,
) -> Result<Config, ConnectError> {
    let folder = &surroundings.service_account;
    let (token, ca) = (folder.join("token"), folder.join("ca.crt"));
    let mut config = Config::new(address(host, surroundings.port.as_deref())?);
    // Read here for a clear error at start; kube reads both again every minute.
    read(&token)?;
    config.root_cert = Some(certificates(&ca)?);
    config.root_cert_file = Some(ca);
    config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
    if namespace.is_none() {
        read(&folder.join("namespace"))?
            .trim()
            .clone_into(&mut config.default_namespace);
    }
    Ok(config)
}

fn address(host: &str, port: Option<&str>) -> Result<Uri, ConnectError> {
    let wrong = || ConnectError::Address {
        host: host.to_owned(),
        port: port.unwrap_or_default().to_owned(),
    };
    let number: u16 = port.and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
    let host = match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    format!("https://{host}:{number}")
        .parse()
        .map_err(|_| wrong())
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, ConnectError> {
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.map_err(|error| account_error(path, &error.to_string()))?;
    match text.trim().is_empty() {
        true => Err(account_error(path, "it is empty")),
        false => Ok(text),
    }
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, ConnectError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| certificate.map(|c| c.to_vec()))
        .collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(account_error(path, "it holds no PEM certificate")),
    }
}

fn account_error(path: &Path, why: &str) -> ConnectError {
    ConnectError::ServiceAccount {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
}

async fn from_kubeconfig(paths: &OsString) -> Result<Config, ConnectError> {
    let wrong = |why: String| ConnectError::Kubeconfig {
        path: paths.to_string_lossy().into_owned(),
        why,
    };
    let mut merged: Option<Kubeconfig> = None;
    for path in std::env::split_paths(paths) {
        let next = Kubeconfig::read_from(&path).map_err(|e| wrong(in_words(&e)))?;
        merged = Some(match merged {
            Some(first) => first.merge(next).map_err(|e| wrong(in_words(&e)))?,
            None => next,
        });
    }
    let Some(kubeconfig) = merged else {
        return Err(ConnectError::Nowhere);
    };
    let proxied = kubeconfig
        .clusters
        .iter()
        .filter_map(|c| c.cluster.as_ref());
    let proxied = proxied.into_iter().any(|c| c.proxy_url.is_some());
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| wrong(in_words(&e)))?;
    if proxied {
        return Err(wrong("proxy-url is not supported".to_owned()));
    }
    // kube takes HTTPS_PROXY from the environment; the way to the API server is not the agents' way.
    config.proxy_url = None;
    match unusable(&config) {
        Some(why) => Err(wrong(why.to_owned())),
        None => Ok(config),
    }
}

/// What kube would accept and we do not.
fn unusable(config: &Config) -> Option<&'static str> {
    if config.cluster_url.scheme_str() != Some("https") {
        return Some("the server's address must begin with https://");
    }
    if config.accept_invalid_certs {
        return Some("insecure-skip-tls-verify is not accepted; name the certificate-authority");
    }
    // Without one kube would trust whatever SSL_CERT_FILE names, which is the agents' variable.
    if config.root_cert.is_none() {
        return Some("the cluster has no certificate-authority or certificate-authority-data");
    }
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Some(
            "users with exec or auth-provider are not supported; use a token (kubectl create token) or a client certificate",
        );
    }
    None
}

/// A kubeconfig's faults without its text, which holds tokens and keys.
fn in_words(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("{}: {error}", path.display()),
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("it is no kubeconfig (line {})", at.line()),
            None => "it is no kubeconfig".to_owned(),
        },
        KubeconfigError::CurrentContextNotSet => "current-context is not set".to_owned(),
        KubeconfigError::LoadContext(name) => format!("there is no context {name:?}"),
        KubeconfigError::LoadClusterOfContext(name) => format!("there is no cluster {name:?}"),
        KubeconfigError::MissingClusterUrl => "the cluster has no server".to_owned(),
        KubeconfigError::ParseProxyUrl(_) => {
            "its proxy-url, or HTTPS_PROXY in the environment, is no URL".to_owned()
        }
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            "its certificate-authority cannot be read".to_owned()
        }
        _ => "it cannot be used".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_and_names_are_taken() {
        for (host, port, uri) in [
            ("10.0.0.1", "443", "https://10.0.0.1/"),
            ("fd00::1", "6443", "https://[fd00::1]:6443/"),
            (
                "kubernetes.default.svc",
                "443",
                "https://kubernetes.default.svc/",
            ),
        ] {
            let got = address(host, Some(port)).unwrap();
            let wanted: Uri = uri.parse().unwrap();
            assert_eq!(got.host(), wanted.host());
            assert_eq!(
                got.port_u16().unwrap_or(443),
                wanted.port_u16().unwrap_or(443)
            );
        }
        assert!(address("10.0.0.1", None).is_err());
        assert!(address("a b", Some("443")).is_err());
    }
}
