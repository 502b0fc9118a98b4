//! Owns a proxy within the test's own process, for what the binary shows no handle of: a credential's renewer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tollgate::app::authority::CaChoice;
use tollgate::app::compose::compose;
use tollgate::app::run::run_until;
use tollgate::app::settings::Settings;
use tollgate::credential::env::SealedEnv;
use tollgate::credential::held::HeldCredential;
use tollgate::credential::open::SourceContext;
use tollgate::proxy::exchange::Exchange;
use tollgate::types::secret::Secret;

use super::door::Door;
use super::proxy::ProxyBuilder;

/// A proxy that ends with the test.
pub struct Inside {
    pub addr: SocketAddr,
    pub exchange: Arc<Exchange>,
    dir: TempDir,
    serving: JoinHandle<()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl ProxyBuilder {
    /// Serves from this process.
    pub async fn inside(self) -> Inside {
        let settings = Settings::load(&self.write()).unwrap();
        let env = self.env.into_iter().map(|(k, v)| (k, Secret::from(v)));
        let sources = SourceContext {
            env: Arc::new(SealedEnv::new(env.collect())),
            ..SourceContext::default()
        };
        let tollgate = compose(settings, sources, CaChoice::Configured);
        let tollgate = tollgate.await.unwrap();
        Inside {
            addr: tollgate.listener.local_addr().unwrap(),
            exchange: tollgate.doors.exchange.clone(),
            dir: self.dir,
            serving: tokio::spawn(async move {
                run_until(tollgate, std::future::pending()).await.unwrap();
            }),
        }
    }
}

impl Inside {
    pub fn door(&self) -> Door {
        Door {
            addr: self.addr,
            ca_file: self.dir.path().join("state/ca.crt"),
            env: [].into(),
            forbidden: Vec::new(),
        }
    }

    /// A file of the proxy's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn credential(&self, name: &str) -> Arc<HeldCredential> {
        let snapshot = self.exchange.snapshots.load_full();
        snapshot.injectors.held(name).unwrap().clone()
    }

    /// Access log records of this kind, once there are at least `count`.
    pub async fn records(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(self.file("access.log")).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let all = whole.lines().map(|l| serde_json::from_str(l).unwrap());
            let found: Vec<Value> = all.filter(&wanted).collect();
            if found.len() >= count {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count}: {text}",
                found.len()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The value of a metric with these labels (`name{label="x"}`).
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = String::from_utf8(self.exchange.ledgers.metrics().render()).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }
}
