//! Owns the origins, the proxy before them, and what is done to the proxy while agents ask it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::chance::Chance;
use super::crowd::Crowd;
use super::footprint::Footprint;
use super::support::budgeted::cap;
use super::support::door::Door;
use super::support::echo::{self, Echo};
use super::support::faulty::{Faulty, Speaks};
use super::support::operator::put;
use super::support::origin::Origin;
use super::support::provider::conduct::{Conduct, Fate};
use super::support::provider::server::Provider;
use super::support::proxy::Proxy;
use super::support::reply;
use super::support::spans::{Collector, Mood};
use super::support::spender::Spender;

/// Has a secret that is rotated.
pub const ROTATED: &str = "rotated.example.com";
pub const ROTATED_PLACEHOLDER: &str = "rotated-placeholder-0001";
/// Passes unread.
pub const TUNNEL: &str = "tunnel.example.com";
/// Fail as their paths say.
pub const FAULTY: [&str; 2] = ["faulty1.example.com", "faulty2.example.com"];
pub const FAULTY_PLACEHOLDER: &str = "faulty-placeholder-0001";
const FAULTY_KEY: &str = "faulty-REAL-6b1f93d2c8-REAL";

/// How the provider conducts itself in calls of these names, and whether an agent gets a whole answer.
pub const CALLS: [(&str, bool); 8] = [
    ("whole", true),
    ("long", true),
    ("slow", true),
    ("coded", true),
    ("cut-0", false),
    ("cut-5", false),
    ("silent-5", false),
    ("fails", false),
];

/// All there is.
pub struct World {
    pub proxy: Proxy,
    pub stage: Arc<Stage>,
    rotations: usize,
    pub reloads: usize,
    pub began: Instant,
}

/// What agents need to know.
pub struct Stage {
    pub door: Door,
    pub spender: Spender,
    pub provider: Provider,
    pub echo: Echo,
    pub tunnel: Origin,
    rotated: Origin,
    pub faulty: [Faulty; 2],
    pub collector: Collector,
    /// The values that were right so far.
    pub keys: Arc<Mutex<Vec<String>>>,
    /// Wrong or missing credentials that origins saw.
    pub astray: Arc<AtomicUsize>,
}

fn rotated_key(number: usize) -> String {
    format!("rotated-REAL-{number:06}-f3a97c15-REAL")
}

fn documents(round: usize) -> String {
    let host = format!("host{round}.example.org");
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: moving}}\nspec:\n  egress:\n  \
         - {{hosts: [{TUNNEL}, {host}]}}\n"
    )
}

/// What the agent sent as its bearer is said back: the proxy has to take it out.
async fn rotated(keys: Arc<Mutex<Vec<String>>>, astray: Arc<AtomicUsize>) -> Origin {
    Origin::tls(&[ROTATED], move |mut exchange| {
        let (keys, astray) = (keys.clone(), astray.clone());
        async move {
            exchange.body().await;
            let bearer = exchange.head.bearer().unwrap_or_default().to_owned();
            // One that was replaced a moment ago may still be under way.
            let known = keys
                .lock()
                .unwrap()
                .iter()
                .rev()
                .take(3)
                .any(|key| *key == bearer);
            if !known {
                astray.fetch_add(1, Ordering::SeqCst);
            }
            reply::text(200, format!("{{\"you\": \"{bearer}\"}}"))
        }
    })
    .await
}

impl World {
    pub async fn begin() -> Self {
        let provider = Provider::http1().await;
        let pace = Duration::from_millis(5);
        for (call, conduct) in [
            ("whole", Conduct::says(64)),
            ("long", Conduct::says(2000).piece(20)),
            ("slow", Conduct::says(300).piece(5).pace(pace)),
            (
                "coded",
                Conduct::says(200).coded(super::support::provider::conduct::Coding::Gzip),
            ),
            ("cut-0", Conduct::says(64).fate(Fate::Cut(0))),
            ("cut-5", Conduct::says(200).piece(8).fate(Fate::Cut(5))),
            (
                "silent-5",
                Conduct::says(200).piece(8).fate(Fate::Silent(5)),
            ),
            ("fails", Conduct::fails(529)),
        ] {
            provider.on(call, conduct);
        }
        let echo = echo::echo().await;
        let tunnel = Origin::tls(&[TUNNEL], |mut exchange| async move {
            exchange.body().await;
            reply::text(200, "through the tunnel")
        })
        .await;
        let faulty = [
            Faulty::speaking(Speaks::Http1, &[FAULTY[0]]).await,
            Faulty::speaking(Speaks::Http2, &[FAULTY[1]]).await,
        ];
        let keys = Arc::new(Mutex::new(vec![rotated_key(0)]));
        let astray = Arc::<AtomicUsize>::default();
        let rotated = rotated(keys.clone(), astray.clone()).await;
        let collector = Collector::start(Mood::Well).await;
        let limits = "timeouts: {connect: 5s, tls: 5s, responseHeaders: 3s, idle: 3s}";
        let mut builder = provider
            .proxy_saying(&format!(", {limits}"))
            .origin(&echo.origin)
            .origin(&tunnel)
            .origin(&rotated)
            .document("EgressBudget", "cap", &cap("1000000.00"))
            .document(
                "EgressBudget",
                "poor",
                &format!("match: {{models: ['gpt-5-nano*']}}\n{}", cap("0.000001")),
            )
            .policy(&format!(
                "
                - {{hosts: [echo.example.com], http: [{{paths: ['/**']}}], credentials: [echo], {limits}}}
                - {{hosts: [echo.example.com], action: Deny, http: [{{paths: [/admin/**]}}]}}
                - {{hosts: [{ROTATED}], credentials: [rotated], {limits}}}
                - {{hosts: [{}, {}], credentials: [faulty], {limits}}}
                ",
                FAULTY[0], FAULTY[1]
            ))
            .credential_file("echo", echo::REAL_KEY, &credential("echo.example.com", echo::PLACEHOLDER))
            .credential_file("rotated", &rotated_key(0), &credential(ROTATED, ROTATED_PLACEHOLDER))
            .credential_file("faulty", FAULTY_KEY, &credential(&FAULTY.join(", "), FAULTY_PLACEHOLDER))
            .documents_at("moving.yaml")
            .setting("telemetry: {otlp: {sampleRatio: 0.05}}")
            .spans_to(collector.addr());
        for (origin, host) in faulty.iter().zip(FAULTY) {
            builder = builder.root(&origin.ca_pem).resolve(host, origin.addr);
        }
        put(&builder.file("moving.yaml"), documents(0));
        let proxy = builder.start().await;
        println!("start: {}", Footprint::of(proxy.pid()));
        let stage = Stage {
            door: proxy.bare_door(),
            spender: proxy.spender(),
            provider,
            echo,
            tunnel,
            rotated,
            faulty,
            collector,
            keys,
            astray,
        };
        Self {
            proxy,
            stage: Arc::new(stage),
            rotations: 0,
            reloads: 0,
            began: Instant::now(),
        }
    }

    /// Lets the agents work for this long, reloads and rotates meanwhile, and says how it goes.
    pub async fn disturb(&mut self, crowd: &Crowd, chance: &mut Chance, length: Duration) {
        let end = Instant::now() + length;
        let mut told = Instant::now();
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(200 + chance.next() % 800)).await;
            match chance.below(6) {
                0 => self.rotate(),
                1 => self.hang_up(),
                2 => self.rewrite(),
                3 => self.stage.collector.now(chance.one_of(&[
                    Mood::Well,
                    Mood::Well,
                    Mood::Says(503),
                ])),
                _ => {}
            }
            self.stage.forget();
            if told.elapsed() >= Duration::from_secs(30) {
                told = Instant::now();
                let now = Footprint::of(self.proxy.pid());
                println!(
                    "{:>5} s: {now}; {}",
                    self.began.elapsed().as_secs(),
                    crowd.summary()
                );
            }
        }
        self.stage.collector.now(Mood::Well);
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let key = rotated_key(self.rotations);
        self.stage.keys.lock().unwrap().push(key.clone());
        self.proxy.replace_secret("rotated", &key);
    }

    fn hang_up(&mut self) {
        self.reloads += 1;
        let pid = Pid::from_raw(i32::try_from(self.proxy.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// New documents; one in four is not whole.
    fn rewrite(&mut self) {
        self.reloads += 1;
        let text = documents(self.reloads);
        let text = if self.reloads % 4 == 0 {
            &text[..60]
        } else {
            &text
        };
        put(&self.proxy.file("moving.yaml"), text);
    }

    pub fn rotations(&self) -> usize {
        self.rotations
    }
}

impl Stage {
    /// What origins remember of requests would be gigabytes. Credentials are looked at first.
    pub fn forget(&self) {
        let wrong = |wrong: bool| {
            if wrong {
                self.astray.fetch_add(1, Ordering::SeqCst);
            }
        };
        for request in self.echo.origin.forget() {
            let open = request.path().starts_with("/open/");
            wrong(!open && request.bearer() != Some(echo::REAL_KEY));
        }
        for request in self.tunnel.forget() {
            wrong(!request.all("authorization").is_empty());
        }
        for request in self.provider.origin.forget() {
            wrong(request.head_mentions("placeholder"));
        }
        for faulty in &self.faulty {
            for request in faulty.forget() {
                wrong(request.authorization != [format!("Bearer {FAULTY_KEY}")]);
            }
        }
        drop(self.rotated.forget());
    }
}

fn credential(hosts: &str, placeholder: &str) -> String {
    format!(
        "hosts: [{hosts}]\nplacements: [{{bearer: {{}}}}]\nplaceholder: {{value: {placeholder}}}\n"
    )
}
