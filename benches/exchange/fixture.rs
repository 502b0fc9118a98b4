//! Owns everything that runs during the measures: the origin, nginx, and tollgate with and without a log.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::certs::{self, Certificates};
use crate::client;
use crate::nginx::Nginx;
use crate::origin::{self, Addresses, SECRET};
use crate::process::Process;
use crate::report::{Column, Report};
use crate::subject::{Subject, Way};
use crate::tollgate::{Log, Tollgate};

/// The host of nearly all measures.
pub const HOST: &str = "api.anthropic.com";
/// The same origin where it speaks HTTP/2.
pub const HTTP2_HOST: &str = "http2.bench.example";
/// Further names of the origin: `h0.bench.example` and so on.
pub const LOCAL_HOSTS: usize = 1000;

/// The parts of a run.
pub struct Bench {
    pub runtime: Runtime,
    pub direct: Subject,
    pub nginx: Nginx,
    pub tollgate: Tollgate,
    /// The one with an access log.
    pub logging: Tollgate,
    origin: Addresses,
    certificates: Certificates,
    scale: f64,
    started: usize,
    dir: TempDir,
    _origin: Process,
}

/// A way to the origin, and the process on it whose time counts.
pub type Measured<'b> = (&'b Subject, Option<&'b Process>);

impl Bench {
    /// Starts everything. `scale` makes measures longer or shorter.
    pub fn start(scale: f64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let certificates = certs::write(dir.path(), &[HOST, "*.bench.example"]);
        let (process, origin) = origin::start(&certificates);
        let direct = Subject {
            column: Column::Direct,
            address: origin.http1,
            way: Way::Tls,
            key: SECRET,
            tls: client::tls(&certificates.authority),
        };
        let at = |name: &str| dir.path().join(name);
        Self {
            runtime: runtime.worker_threads(2).enable_all().build().unwrap(),
            direct,
            nginx: Nginx::start(&at("nginx"), &certificates, origin, HOST),
            tollgate: Tollgate::start(&at("tollgate"), &certificates, origin, Log::Off),
            logging: Tollgate::start(&at("logging"), &certificates, origin, Log::File),
            origin,
            certificates,
            scale,
            started: 0,
            dir,
            _origin: process,
        }
    }

    /// The three ways without an access log.
    pub fn quiet(&self) -> [Measured<'_>; 3] {
        [
            (&self.direct, None),
            (&self.nginx.quiet, Some(&self.nginx.process)),
            (&self.tollgate.subject, Some(&self.tollgate.process)),
        ]
    }

    /// The two proxies with one.
    pub fn logging(&self) -> [Measured<'_>; 2] {
        [
            (&self.nginx.logging, Some(&self.nginx.process)),
            (&self.logging.subject, Some(&self.logging.process)),
        ]
    }

    /// A proxy nobody has used yet.
    pub fn fresh_nginx(&mut self) -> Nginx {
        Nginx::start(&self.fresh_dir(), &self.certificates, self.origin, HOST)
    }

    /// A proxy nobody has used yet.
    pub fn fresh_tollgate(&mut self) -> Tollgate {
        Tollgate::start(&self.fresh_dir(), &self.certificates, self.origin, Log::Off)
    }

    fn fresh_dir(&mut self) -> PathBuf {
        self.started += 1;
        self.dir.path().join(format!("fresh-{}", self.started))
    }

    /// `count`, as long as the run is to be.
    pub fn scaled(&self, count: usize) -> usize {
        ((count as f64 * self.scale) as usize).max(16)
    }

    /// Memory before anybody connects.
    pub fn note_start(&self, report: &mut Report) {
        self.note_memory(report, "start", "VmRSS");
    }

    /// Memory at its highest, over all measures.
    pub fn note_peak(&self, report: &mut Report) {
        self.note_memory(report, "peak", "VmHWM");
    }

    fn note_memory(&self, report: &mut Report, row: &'static str, field: &str) {
        report.add(
            row,
            Column::Nginx,
            self.nginx.process.memory(field) / 1024.0,
        );
        report.add(
            row,
            Column::Tollgate,
            self.tollgate.process.memory(field) / 1024.0,
        );
    }
}
