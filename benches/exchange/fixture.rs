//! Owns everything that runs during the measures: the origin, nginx, and tollgate with and without a log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinError;

use crate::certs::{self, Certificates};
use crate::client::{self, Connection};
use crate::collector;
use crate::measures;
use crate::model::Wanted;
use crate::nginx::Nginx;
use crate::origin::{self, Addresses, SECRET};
use crate::peer::{PEERS, Peer, Site, Start};
use crate::process::Process;
use crate::report::{Column, Report};
use crate::subject::{Subject, Way};
use crate::tollgate::{Budgets, Log, MANY_AGENTS, Setup, Spans, Tollgate};

/// The host of nearly all measures.
pub const HOST: &str = "api.anthropic.com";
/// The same origin where it speaks HTTP/2.
pub const HTTP2_HOST: &str = "http2.bench.example";
/// The first again, by a rule that gives it no credential: agents hold the real one, and nothing is searched.
pub const PASSED_HOST: &str = "passed.bench.example";
/// Further names of the origin: `h0.bench.example` and so on.
pub const LOCAL_HOSTS: usize = 1000;

/// How long another proxy may take for its first message.
const PATIENCE: Duration = Duration::from_secs(20);

/// The parts of a run.
pub struct Bench {
    pub runtime: Runtime,
    pub direct: Subject,
    pub nginx: Nginx,
    pub tollgate: Tollgate,
    /// The one with an access log.
    pub logging: Tollgate,
    collector: Option<SocketAddr>,
    budgeted: Option<[Tollgate; 3]>,
    /// One that makes no spans though it could, and one that makes all.
    traced: Option<[Tollgate; 2]>,
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
            authorization: None,
        };
        let at = |name: &str| dir.path().join(name);
        let tollgate = |name: &str, log| {
            let setup = Setup {
                log,
                ..Setup::default()
            };
            Tollgate::start(&at(name), &certificates, origin, setup)
        };
        Self {
            runtime: runtime.worker_threads(2).enable_all().build().unwrap(),
            direct,
            nginx: Nginx::start(&at("nginx"), &certificates, origin, HOST),
            tollgate: tollgate("tollgate", Log::Off),
            logging: tollgate("logging", Log::File),
            collector: None,
            budgeted: None,
            traced: None,
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

    /// Starts those with budgets, once. Each agent of the many has called by then.
    pub fn start_budgeted(&mut self, report: &mut Report) {
        if self.budgeted.is_some() {
            return;
        }
        let started = [Budgets::Unlimited, Budgets::Few, Budgets::Many].map(|budgets| {
            let begun = Instant::now();
            let tollgate = self.fresh(budgets);
            let column = tollgate.subject.column;
            let memory = tollgate.process.memory("VmRSS") / 1024.0;
            report.add("budget.start", column, begun.elapsed().as_secs_f64() * 1e3);
            report.add("budget.memory", column, memory);
            tollgate
        });
        let [_, _, many] = &started;
        self.runtime.block_on(client::each(MANY_AGENTS, 4, |index| {
            let subject = many.subject.agent(index);
            async move {
                let mut connection = Connection::open(&subject, HOST).await;
                measures::budget::call(&mut connection, Wanted::Message).await;
            }
        }));
        self.budgeted = Some(started);
    }

    /// The ways without a budget, with few, and with many.
    pub fn by_budgets(&self) -> [Measured<'_>; 3] {
        let started = self.budgeted.as_ref().unwrap();
        started
            .each_ref()
            .map(|way| (&way.subject, Some(&way.process)))
    }

    /// Starts those with spans, once.
    pub fn start_traced(&mut self) {
        if self.traced.is_some() {
            return;
        }
        let collector = self.collector();
        self.traced = Some(
            [Spans::None(collector), Spans::All(collector)].map(|spans| {
                let dir = self.fresh_dir();
                let setup = Setup {
                    spans,
                    ..Setup::default()
                };
                Tollgate::start(&dir, &self.certificates, self.origin, setup)
            }),
        );
    }

    /// The ways without spans, with none of them taken, and with all.
    pub fn by_spans(&self) -> [Measured<'_>; 3] {
        let [none, all] = self.traced.as_ref().unwrap();
        [&self.tollgate, none, all].map(|way| (&way.subject, Some(&way.process)))
    }

    /// A proxy nobody has used yet.
    pub fn fresh_nginx(&mut self) -> Nginx {
        Nginx::start(&self.fresh_dir(), &self.certificates, self.origin, HOST)
    }

    /// A proxy nobody has used yet.
    pub fn fresh_tollgate(&mut self) -> Tollgate {
        self.fresh(Budgets::None)
    }

    /// The other proxies that could be started, used by nobody yet. The report says which and why not.
    pub fn fresh_peers(&mut self, report: &mut Report) -> Vec<Peer> {
        let mut started = Vec::new();
        for &(name, start) in PEERS {
            match self.fresh_peer(start) {
                Ok(peer) => {
                    report.note(format!("measured: {}", peer.title));
                    started.push(peer);
                }
                Err(why) => report.note(format!("{name} is left out: {why}")),
            }
        }
        started
    }

    /// One through which a message has got.
    fn fresh_peer(&mut self, start: Start) -> Result<Peer, String> {
        let dir = self.fresh_dir();
        std::fs::create_dir_all(&dir).unwrap();
        let peer = start(&Site {
            dir: &dir,
            origin: &self.certificates,
            host: HOST,
            port: self.origin.http1.port(),
        })?;
        let subject = peer.subject.clone();
        // A task of its own, since it panics where it fails.
        let first = self.runtime.spawn(async move {
            Connection::open(&subject, HOST).await.small().await;
        });
        let first = async { tokio::time::timeout(PATIENCE, first).await };
        match self.runtime.block_on(first) {
            Ok(Ok(())) => Ok(peer),
            Ok(Err(failed)) => Err(format!("{}: {}", peer.title, reason(failed))),
            Err(_) => Err(format!("{} does not answer", peer.title)),
        }
    }

    fn fresh(&mut self, budgets: Budgets) -> Tollgate {
        let dir = self.fresh_dir();
        let setup = Setup::default().with(budgets);
        Tollgate::start(&dir, &self.certificates, self.origin, setup)
    }

    /// One whose instructions are counted once that is switched on, and where they are told: below the
    /// directory that `BENCH_COUNTS` names, for whoever wants to see where they went.
    pub fn counted(&mut self, setup: Setup) -> (Tollgate, PathBuf) {
        let (dir, counts) = (self.fresh_dir(), self.fresh_dir());
        let kept = std::env::var_os("BENCH_COUNTS").map(PathBuf::from);
        let counts = kept.map_or(counts, |kept| kept.join(self.started.to_string()));
        std::fs::create_dir_all(&counts).unwrap();
        let words = [
            "valgrind".to_owned(),
            "--quiet".to_owned(),
            "--tool=callgrind".to_owned(),
            "--instr-atstart=no".to_owned(),
            format!("--callgrind-out-file={}/counts", counts.display()),
        ];
        let (certificates, origin) = (&self.certificates, self.origin);
        let tollgate = Tollgate::start_under(&words, &dir, certificates, origin, setup);
        (tollgate, counts)
    }

    /// Where spans may be sent.
    pub fn collector(&mut self) -> SocketAddr {
        let start = || self.runtime.block_on(collector::start());
        *self.collector.get_or_insert_with(start)
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

/// What a task panicked with.
fn reason(failed: JoinError) -> String {
    let said = failed.into_panic();
    let text = said.downcast_ref::<String>().map_or("", String::as_str);
    text.to_owned()
}
