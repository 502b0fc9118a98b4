//! Much at once: reloads by the hundred, and the end of the process in the middle of its work.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

use super::support::door::Door;
use super::support::echo::{self, HOST, PLACEHOLDER, REAL_KEY};
use super::support::operator::{PATIENCE, put, until};
use super::support::origin::Origin;
use super::support::proxy::{Proxy, ProxyBuilder, proxy};
use super::support::reply;
use super::support::traffic::Traffic;
use super::support::tunnel;
use super::support::visitor::Visitor;

/// Octets of a short answer.
const LENGTH: usize = 20_000;

/// What a process has open and uses (proc(5)).
#[derive(Clone, Copy, Debug)]
struct Footprint {
    resident_kib: usize,
    threads: usize,
    files: usize,
}

fn footprint(proxy: &Proxy) -> Footprint {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let files = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    Footprint {
        resident_kib: number("VmRSS:"),
        threads: number("Threads:"),
        files: files.count(),
    }
}

fn hang_up(proxy: &Proxy) {
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
}

/// What stands in version `number` of the documents: a path and the secret that goes there change together.
fn version(number: usize, dir: &std::path::Path) -> String {
    let one = number % 2;
    let secret = dir.join(format!("pair-{one}.secret"));
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: pair}}\nspec:\n  egress:\n  \
         - {{hosts: [{HOST}], http: [{{paths: [/steady, /open/{one}]}}], credentials: [echo, pair]}}\n\
         ---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: {{name: pair}}\nspec:\n  \
         source: {{file: {{path: {}}}}}\n  hosts: [{HOST}]\n  placements: [{{bearer: {{}}}}]\n  \
         placeholder: {{value: pair-placeholder-000{one}}}\n# {number}\n",
        secret.display()
    )
}

fn pair_key(one: usize) -> String {
    format!("pair-REAL-{one}-5a7c91e3-REAL")
}

/// One agent of the storm, and how often it was answered with what.
async fn ask_until(
    number: usize,
    door: Door,
    stop: CancellationToken,
    answers: Arc<Mutex<BTreeMap<String, usize>>>,
) {
    let one = number % 2;
    let (path, key) = match number % 4 {
        0 | 1 => ("/steady".to_owned(), PLACEHOLDER.to_owned()),
        _ => (format!("/open/{one}"), format!("pair-placeholder-000{one}")),
    };
    let mut visitor = match number % 3 {
        0 => Visitor::http2(&door, &key).await,
        _ => Visitor::http1(&door, &key).await,
    };
    while !stop.is_cancelled() {
        let (status, text) = visitor.get(&path).await.unwrap();
        let is_fine = status == 200 || (status == 403 && path != "/steady");
        assert!(is_fine, "{path}: {status}: {text}");
        let mut answers = answers.lock().unwrap();
        *answers.entry(format!("{path} {status}")).or_default() += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_reloads_under_traffic_mix_nothing_and_leave_nothing() {
    let echo = echo::echo().await;
    let builder = proxy()
        .origin(&echo.origin)
        .documents_at("pair.yaml")
        .credential_file(
            "echo",
            REAL_KEY,
            "
            hosts: [echo.example.com]
            placements: [{bearer: {}}]
            placeholder: {value: echo-placeholder-0001}
            ",
        )
        .secret(&pair_key(0))
        .secret(&pair_key(1));
    let dir = builder.file("");
    for one in [0, 1] {
        let file = dir.join(format!("pair-{one}.secret"));
        fs::write(&file, pair_key(one)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let document = dir.join("pair.yaml");
    put(&document, version(0, &dir));
    let proxy = builder.start().await;
    let stop = CancellationToken::new();
    let answers = Arc::<Mutex<BTreeMap<String, usize>>>::default();
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..12 {
        agents.spawn(ask_until(
            number,
            proxy.bare_door(),
            stop.clone(),
            answers.clone(),
        ));
    }
    let count = async |result: &str| {
        let series = format!("tollgate_policy_reloads_total{{result=\"{result}\"}}");
        proxy.metric(&series).await.unwrap_or_default()
    };
    let mut warm = None;
    let deadline = Instant::now() + 3 * PATIENCE;
    for round in 1.. {
        match round % 5 {
            // Half a document, no YAML, and one that names a secret nobody has.
            0 => put(&document, &version(round, &dir)[..200]),
            3 if round % 2 == 0 => put(&document, "kind: [nothing"),
            _ => put(&document, version(round, &dir)),
        }
        for _ in 0..round % 4 {
            hang_up(&proxy);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if round == 150 {
            warm = Some((footprint(&proxy), count("ok").await));
        }
        // Signals that come close together are one reload: a machine with much to do makes fewer.
        if round >= 400 && round % 100 == 0 {
            let since = warm.map_or(0.0, |(_, ok)| ok + 20.0);
            let enough = count("ok").await >= since && count("error").await >= 5.0;
            if enough || Instant::now() >= deadline {
                break;
            }
        }
    }
    put(&document, version(1, &dir));
    hang_up(&proxy);
    let mut last = Visitor::http1(&proxy.bare_door(), "pair-placeholder-0001").await;
    until("the last version is in force", PATIENCE, async || {
        last.get("/open/1").await.unwrap().0 == 200
    })
    .await;
    stop.cancel();
    while let Some(ended) = agents.join_next().await {
        ended.unwrap();
    }
    let answers = answers.lock().unwrap().clone();
    for seen in [
        "/steady 200",
        "/open/0 200",
        "/open/1 200",
        "/open/0 403",
        "/open/1 403",
    ] {
        assert!(
            answers.get(seen).is_some_and(|count| *count > 0),
            "{seen}: {answers:?}"
        );
    }
    assert_eq!(answers.get("/steady 403"), None);
    for request in echo.origin.requests() {
        let right = match request.path() {
            "/steady" => REAL_KEY.to_owned(),
            path => pair_key(path.strip_prefix("/open/").unwrap().parse().unwrap()),
        };
        assert_eq!(request.bearer(), Some(right.as_str()), "{}", request.target);
    }
    let (good, bad) = (count("ok").await, count("error").await);
    assert!(good >= 20.0 && bad >= 5.0, "{good} reloads, {bad} refused");
    // Blocking threads end after ten idle seconds; what they read is freed with the snapshots.
    let ((warm, _), mut now) = (warm.unwrap(), footprint(&proxy));
    let what = format!("as it was after 150 rounds: {warm:?}");
    until(&what, PATIENCE, async || {
        now = footprint(&proxy);
        now.resident_kib <= warm.resident_kib + 8 * 1024
            && now.files <= warm.files + 4
            && now.threads <= warm.threads + 4
    })
    .await;
    eprintln!("{good} reloads, {bad} refused; {answers:?}; {warm:?} then {now:?}");
}

/// An origin whose streams stand still after their first event until all are let go.
struct Holding {
    origin: Origin,
    go: CancellationToken,
}

const FIRST: &str = "event: tick\ndata: 1\n\n";
const REST: &str = "event: tick\ndata: 2\n\nevent: tick\ndata: 3\n\n";

impl Holding {
    async fn new() -> Self {
        let go = CancellationToken::new();
        let held = go.clone();
        let origin = Origin::tls(&[HOST], move |mut exchange| {
            let held = held.clone();
            async move {
                exchange.body().await;
                if exchange.head.bearer() != Some(REAL_KEY) {
                    return reply::text(401, "wrong key");
                }
                if exchange.head.path() != "/held" {
                    return reply::with_body(200, "application/octet-stream", vec![7; LENGTH]);
                }
                let first = stream::once(async { Frame::data(Bytes::from(FIRST)) });
                let rest = stream::once(async move {
                    held.cancelled_owned().await;
                    Frame::data(Bytes::from(REST))
                });
                let mut reply = reply::status(200);
                *reply.body_mut() = reply::streamed(first.chain(rest));
                reply::with(reply, "content-type", "text/event-stream")
            }
        })
        .await;
        Self { origin, go }
    }

    fn proxy(&self) -> ProxyBuilder {
        proxy()
            .origin(&self.origin)
            .policy(&format!("- {{hosts: [{HOST}], credentials: [echo]}}"))
            .credential_file(
                "echo",
                REAL_KEY,
                "
                hosts: [echo.example.com]
                placements: [{bearer: {}}]
                placeholder: {value: echo-placeholder-0001}
                ",
            )
    }
}

/// Streams in flight, by either protocol, each with its first event.
async fn streams(door: &Door, count: usize) -> Vec<Incoming> {
    let mut bodies = Vec::new();
    for number in 0..count {
        let mut visitor = match number % 2 {
            0 => Visitor::http1(door, PLACEHOLDER).await,
            _ => Visitor::http2(door, PLACEHOLDER).await,
        };
        let mut body = visitor.send("/held").await.unwrap().into_body();
        let first = tokio::time::timeout(PATIENCE, body.frame()).await;
        let first = first.expect("no first event").unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), FIRST);
        bodies.push(body);
    }
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_lets_every_stream_end_and_breaks_no_answer() {
    let holding = Holding::new().await;
    let mut proxy = holding.proxy().start().await;
    let door = proxy.bare_door();
    let stop = CancellationToken::new();
    let broken = Arc::new(Mutex::new(Vec::new()));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (door, stop, broken, answered) =
            (door.clone(), stop.clone(), broken.clone(), answered.clone());
        agents.spawn(async move {
            let mut visitor = match number % 2 {
                0 => Visitor::http1(&door, PLACEHOLDER).await,
                _ => Visitor::http2(&door, PLACEHOLDER).await,
            };
            while !stop.is_cancelled() {
                // A head that came has its body; without one the agent knows that nothing was done.
                let Ok(answer) = visitor.send("/bytes").await else {
                    return;
                };
                let status = answer.status().as_u16();
                let body = answer.into_body().collect().await;
                let length = body.map(|body| body.to_bytes().len());
                match (status, &length) {
                    (200, Ok(LENGTH)) => {
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    (503, Ok(_)) => return,
                    _ => broken.lock().unwrap().push(format!("{status} {length:?}")),
                }
            }
        });
    }
    let bodies = streams(&door, 20).await;
    let seen = answered.load(Ordering::SeqCst);
    until("the agents are served", PATIENCE, async || {
        answered.load(Ordering::SeqCst) > seen + 20
    })
    .await;
    proxy.terminate().await;
    until("nobody new is taken", PATIENCE, async || {
        tokio::net::TcpStream::connect(proxy.addr).await.is_err()
    })
    .await;
    holding.go.cancel();
    for body in bodies {
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, REST);
    }
    stop.cancel();
    while let Some(ended) = agents.join_next().await {
        ended.unwrap();
    }
    proxy.ended().await;
    let broken = broken.lock().unwrap().clone();
    assert!(broken.is_empty(), "{broken:?}");
}

#[tokio::test]
async fn streams_without_end_are_cut_when_the_grace_is_over_or_at_a_second_sigterm() {
    for second in [false, true] {
        let holding = Holding::new().await;
        let grace = if second { "60s" } else { "2s" };
        let mut proxy = holding
            .proxy()
            .setting(&format!("shutdown: {{grace: {grace}}}"))
            .start()
            .await;
        let door = proxy.bare_door();
        let bodies = streams(&door, 6).await;
        // What has come up to a tunnel and no further.
        let (idle, _) = tunnel::connect(&door, &format!("{HOST}:443")).await;
        let asked = Instant::now();
        proxy.terminate().await;
        if second {
            until("it drains", PATIENCE, async || {
                proxy.output().contains("draining")
            })
            .await;
            proxy.terminate().await;
        }
        proxy.ended().await;
        assert!(
            asked.elapsed() < Duration::from_secs(18),
            "{:?}",
            asked.elapsed()
        );
        for body in bodies {
            assert!(
                body.collect().await.is_err(),
                "a stream that was cut looks whole"
            );
        }
        drop(idle);
    }
}

#[tokio::test]
async fn killed_under_load_it_serves_again_as_if_nothing_had_been() {
    let holding = Holding::new().await;
    let mut proxy = holding.proxy().start().await;
    let pause = Duration::from_millis(2);
    let traffic: Vec<Traffic> = (0..6)
        .map(|_| Traffic::at(proxy.bare_door(), HOST, PLACEHOLDER, pause))
        .collect();
    for kill in 0..5 {
        traffic[0].passes("before the kill").await;
        let bodies = streams(&proxy.bare_door(), 4).await;
        proxy.kill().await;
        for body in bodies {
            assert!(
                body.collect().await.is_err(),
                "a stream that was killed looks whole"
            );
        }
        proxy.restart().await;
        for agent in &traffic {
            agent.moves(proxy.bare_door());
            agent.passes(&format!("after kill {kill}")).await;
        }
    }
    for agent in &traffic {
        let tally = agent.tally();
        assert_eq!(tally.refusals(), 0, "{tally:?}");
    }
    for request in holding.origin.requests() {
        assert_eq!(request.bearer(), Some(REAL_KEY));
    }
    let verified = proxy.cli(&["audit", "verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
