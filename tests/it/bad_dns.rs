//! Resolvers that fail, lie and change their minds: the guard looks at the address that is dialled, the
//! agent is told in time, and names that are well again are reached again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use serde_json::Value;
use tokio::net::TcpListener;

use super::origin_faults::deaf;
use super::support::dns::{By, Dns, Holds, Says};
use super::support::operator::{PATIENCE, until};
use super::support::origin::Origin;
use super::support::proxy::{Proxy, ProxyBuilder, proxy};
use super::support::wire::{self, Answer};
use super::support::{reply, tunnel};

const KEY: &str = "pets-REAL-91c3e5d7-REAL";
const PLACEHOLDER: &str = "pets-placeholder-0001";
const HOST: &str = "pets.example.com";

/// How long connecting may take, resolving included.
const LIMIT: Duration = Duration::from_secs(2);
/// What a loaded machine may add to that.
const SLACK: Duration = Duration::from_secs(15);

/// What the server says of each name; of any other, that there is none.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<BTreeMap<String, Says>>>);

impl Zone {
    fn put(&self, name: &str, says: Says) {
        self.0.lock().unwrap().insert(name.to_owned(), says);
    }

    async fn serve(&self) -> Dns {
        let zone = self.clone();
        Dns::saying(move |asked| {
            let names = zone.0.lock().unwrap();
            let known = names.get(&asked.name).cloned();
            known.unwrap_or(Says::Code(ResponseCode::NXDomain))
        })
        .await
    }
}

/// Closes each connection after its answer: every request is dialled anew.
async fn origin() -> Origin {
    Origin::tls_http1(&[HOST, "alias.example.com"], |mut exchange| async move {
        exchange.body().await;
        reply::with(reply::text(200, "reached"), "connection", "close")
    })
    .await
}

/// Allows all of `example.com` on the origin's port, at its address and nowhere else on this machine.
fn before(origin: &Origin, servers: &[SocketAddr]) -> ProxyBuilder {
    let port = origin.addr.port();
    let rule = format!(
        "
        - hosts: ['*.example.com']
          ports: [{port}]
          credentials: [pets]
          allowAddresses: [127.0.0.1/32]
          timeouts: {{connect: 2s}}
        - {{hosts: ['*.tunnel.example.org'], ports: [{port}], allowAddresses: [127.0.0.1/32], timeouts: {{connect: 2s}}}}
        "
    );
    let credential = format!(
        "
        hosts: ['*.example.com']
        ports: [{port}]
        placements: [{{bearer: {{}}}}]
        placeholder: {{value: {PLACEHOLDER}}}
        "
    );
    proxy()
        .root(&origin.ca_pem)
        .dns(servers)
        .policy(&rule)
        .credential_file("pets", KEY, &credential)
}

async fn ask(proxy: &Proxy, host: &str, port: u16) -> Answer {
    let door = proxy.bare_door();
    let (stream, status) = tunnel::connect(&door, &format!("{host}:{port}")).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let stream = tunnel::handshake(&door, host, &[b"http/1.1"], stream).await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    );
    wire::say(&mut stream.unwrap(), head.as_bytes()).await
}

#[track_caller]
fn assert_stage(case: &str, answer: &Answer, status: u16, stage: &str, says: &str) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let told = body["error"]["message"].as_str().unwrap_or_default();
    assert_eq!(answer.status, status, "{case}: {}", answer.text());
    assert_eq!(
        answer.header("x-tollgate-stage"),
        Some(stage),
        "{case}: {told}"
    );
    assert!(told.contains(says), "{case}: {told}");
}

#[tokio::test]
async fn a_name_that_turns_inward_is_refused_from_then_on() {
    let origin = origin().await;
    let port = origin.addr.port();
    // It would notice whoever followed the name there.
    let inward = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port))
        .await
        .unwrap();
    let zone = Zone::default();
    let dns = zone.serve().await;
    let proxy = before(&origin, &[dns.addr]).start().await;
    zone.put(HOST, Says::ip("127.0.0.1"));
    assert_eq!(ask(&proxy, HOST, port).await.text(), "reached");
    let (loopback, local, private) = (
        "a loopback address",
        "a link-local or metadata address",
        "a private address",
    );
    for (address, kind) in [
        ("127.0.0.2", loopback),
        ("169.254.169.254", local),
        ("10.0.0.1", private),
        ("100.100.100.200", private),
        ("0.0.0.0", "a special-purpose address"),
        ("::1", loopback),
        ("::ffff:127.0.0.2", loopback),
        ("64:ff9b::a9fe:a9fe", local),
        ("fd00:ec2::254", private),
    ] {
        zone.put(HOST, Says::ip(address));
        let answer = ask(&proxy, HOST, port).await;
        assert_stage(address, &answer, 403, "address_guard", kind);
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{address}");
        assert!(!answer.text().contains(address), "{}", answer.text());
    }
    // Of several addresses those that may not be dialled are left out.
    let mixed = ["169.254.169.254", "127.0.0.2", "127.0.0.1", "::1"];
    zone.put(HOST, Says::ips(mixed.map(|ip| ip.parse().unwrap())));
    assert_eq!(ask(&proxy, HOST, port).await.text(), "reached");
    let followed = tokio::time::timeout(Duration::from_millis(50), inward.accept()).await;
    assert!(followed.is_err(), "somebody came to 127.0.0.2");
    assert_eq!(origin.connections(), 2);
    for request in origin.requests() {
        assert_eq!(request.bearer(), Some(KEY));
    }
}

#[tokio::test]
async fn a_tunnel_is_guarded_like_a_request() {
    let origin = origin().await;
    let port = origin.addr.port();
    let zone = Zone::default();
    let dns = zone.serve().await;
    let proxy = before(&origin, &[dns.addr]).start().await;
    let door = proxy.bare_door();
    let target = format!("a.tunnel.example.org:{port}");
    for (says, phrase) in [
        (Says::ip("169.254.169.254"), "403 "),
        (
            Says::Code(ResponseCode::ServFail),
            "502 DNS has no address for a.tunnel.example.org: the resolver failed",
        ),
        (
            Says::Nothing,
            "502 DNS has no address for a.tunnel.example.org: the resolver did not answer",
        ),
        (Says::ip("127.0.0.1"), "200 "),
    ] {
        zone.put("a.tunnel.example.org", says);
        let asked = Instant::now();
        let (_, status) = tunnel::connect(&door, &target).await;
        assert!(
            status.starts_with(&format!("HTTP/1.1 {phrase}")),
            "{status}"
        );
        assert!(
            asked.elapsed() < LIMIT + SLACK,
            "{phrase}: {:?}",
            asked.elapsed()
        );
    }
}

#[tokio::test]
async fn a_resolver_that_fails_is_told_of_in_time_and_forgotten_when_it_is_well() {
    let origin = origin().await;
    let port = origin.addr.port();
    let inward = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port))
        .await
        .unwrap();
    let zone = Zone::default();
    let dns = zone.serve().await;
    let proxy = before(&origin, &[dns.addr]).start().await;
    let silent = "the resolver did not answer";
    let forged = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
    let cases = [
        (
            "nxdomain",
            Says::Code(ResponseCode::NXDomain),
            "there is no such name",
        ),
        (
            "servfail",
            Says::Code(ResponseCode::ServFail),
            "the resolver failed",
        ),
        (
            "refused",
            Says::Code(ResponseCode::Refused),
            "the resolver failed",
        ),
        ("empty", Says::ips([]), "the name has no address"),
        ("silent", Says::Nothing, silent),
        ("garbage", Says::Garbage, silent),
        ("cut-for-ever", Says::Cut, silent),
        ("forged", Says::Forged(forged), silent),
    ];
    let mut records = 0;
    for (name, says, cause) in cases {
        let host = format!("{name}.example.com");
        zone.put(&host, says);
        let asked = Instant::now();
        let answer = ask(&proxy, &host, port).await;
        assert_stage(name, &answer, 502, "dns", cause);
        assert_eq!(answer.header("retry-after"), Some("1"), "{name}");
        assert!(
            asked.elapsed() < LIMIT + SLACK,
            "{name}: {:?}",
            asked.elapsed()
        );
        records += 1;
        let record = proxy.access_log(records).await.pop().unwrap();
        assert_eq!(record["reason"], "dns", "{name}: {record}");
        // The same name, once it has an address; its certificate is for another.
        zone.put(&host, Says::ip("127.0.0.1"));
        let answer = ask(&proxy, &host, port).await;
        assert_stage(name, &answer, 502, "tls", "for other names");
        records += 1;
        proxy.access_log(records).await;
    }
    // A loaded machine is late now and then, and not each time.
    zone.put("mute.example.com", Says::Nothing);
    let mut quickest = Duration::MAX;
    // A resolver may take longer than the rule lets connecting take: what is shorter counts.
    let patient = before(&origin, &[dns.addr]).setting("limits: {dns: {timeout: 30s}}");
    let patient = patient.start().await;
    for _ in 0..3 {
        let asked = Instant::now();
        let answer = ask(&patient, "mute.example.com", port).await;
        assert_stage("mute", &answer, 502, "dns", silent);
        quickest = quickest.min(asked.elapsed());
    }
    assert!(quickest < 2 * LIMIT, "{quickest:?}");
    let followed = tokio::time::timeout(Duration::from_millis(50), inward.accept()).await;
    assert!(followed.is_err(), "a forged answer was believed");
    zone.put(HOST, Says::ip("127.0.0.1"));
    assert_eq!(ask(&proxy, HOST, port).await.text(), "reached");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn an_alias_leads_to_an_address_and_never_to_another_identity() {
    let origin = origin().await;
    let port = origin.addr.port();
    let zone = Zone::default();
    let dns = zone.serve().await;
    let proxy = before(&origin, &[dns.addr]).start().await;
    let ip = |text: &str| Holds::Ip(text.parse().unwrap());
    let alias = |to: &'static str, at: &str| {
        Says::Records(vec![(None, Holds::Alias(to)), (Some(to), ip(at))])
    };
    // Somebody else's machine under our name: verified as us.
    zone.put("alias.example.com", alias("cdn.example.net", "127.0.0.1"));
    assert_eq!(
        ask(&proxy, "alias.example.com", port).await.text(),
        "reached"
    );
    // Somebody else's name for our machine.
    zone.put("stranger.example.com", alias(HOST, "127.0.0.1"));
    let answer = ask(&proxy, "stranger.example.com", port).await;
    assert_stage("stranger", &answer, 502, "tls", "for other names");
    zone.put(
        "inward.example.com",
        alias("metadata.internal", "169.254.169.254"),
    );
    let answer = ask(&proxy, "inward.example.com", port).await;
    assert_stage("inward", &answer, 403, "address_guard", "metadata");
    zone.put(
        "circle.example.com",
        Says::Records(vec![(None, Holds::Alias("circle.example.com"))]),
    );
    let asked = Instant::now();
    let answer = ask(&proxy, "circle.example.com", port).await;
    assert_stage("circle", &answer, 502, "dns", "DNS has no address");
    assert!(asked.elapsed() < LIMIT + SLACK);

    // What is said of another name than was asked for is not kept for that one.
    let bank = "bank.example.com";
    let lies = vec![(None, ip("127.0.0.1")), (Some(bank), ip("127.0.0.9"))];
    zone.put("liar.example.com", Says::Records(lies));
    assert_eq!(ask(&proxy, "liar.example.com", port).await.status, 502);
    assert!(!dns.was_asked(bank));
    zone.put(bank, Says::ip("169.254.169.254"));
    let answer = ask(&proxy, bank, port).await;
    assert_stage("bank", &answer, 403, "address_guard", "metadata");
    assert_eq!(
        origin.only("/").authority,
        format!("alias.example.com:{port}")
    );
}

#[tokio::test]
async fn thousands_of_addresses_cost_no_more_time_than_one() {
    let origin = origin().await;
    let port = origin.addr.port();
    let zone = Zone::default();
    let dns = zone.serve().await;
    let proxy = before(&origin, &[dns.addr]).start().await;
    let dead = |count: u16| (0..count).map(|n| IpAddr::from([10, 9, (n >> 8) as u8, n as u8]));
    // Too much for UDP: said to be cut, and asked again by TCP.
    let right = IpAddr::V4(Ipv4Addr::LOCALHOST);
    zone.put(HOST, Says::ips(std::iter::once(right).chain(dead(2000))));
    assert_eq!(ask(&proxy, HOST, port).await.text(), "reached");
    let by: Vec<By> = dns
        .asked()
        .iter()
        .filter(|asked| asked.name == HOST && !asked.v6)
        .map(|asked| asked.by)
        .collect();
    assert_eq!(by, [By::Udp, By::Tcp]);
    // None that may be dialled.
    zone.put(HOST, Says::ips(dead(2000)));
    let answer = ask(&proxy, HOST, port).await;
    assert_stage(
        "all private",
        &answer,
        403,
        "address_guard",
        "a private address",
    );
    // All may be dialled, and nobody is there: no more than the limit for connecting.
    let rule = format!(
        "- {{hosts: [far.example.net], ports: [{port}], tls: Intercept, allowAddresses: [127.0.0.0/8], timeouts: {{connect: 2s}}}}"
    );
    let open = super::support::proxy::proxy()
        .root(&origin.ca_pem)
        .dns(&[dns.addr])
        .policy(&rule)
        .start()
        .await;
    let nobody = (0..2000u16).map(|n| IpAddr::from([127, 9, (n >> 8) as u8, n as u8]));
    zone.put("far.example.net", Says::ips(nobody));
    let asked = Instant::now();
    let answer = ask(&open, "far.example.net", port).await;
    assert!(matches!(answer.status, 502 | 504), "{}", answer.text());
    assert_eq!(
        answer.header("x-tollgate-stage"),
        Some("connect"),
        "{}",
        answer.text()
    );
    assert!(asked.elapsed() < LIMIT + SLACK, "{:?}", asked.elapsed());
    zone.put(HOST, Says::ip("127.0.0.1"));
    assert_eq!(ask(&proxy, HOST, port).await.text(), "reached");
}

/// An address at which nobody answers does not use up the time of the next.
#[tokio::test]
async fn an_address_that_is_deaf_leaves_time_for_the_next() {
    let origin = origin().await;
    let port = origin.addr.port();
    let (_socket, deaf, _queue) = deaf((Ipv4Addr::new(127, 0, 0, 5), port).into()).await;
    let zone = Zone::default();
    let dns = zone.serve().await;
    let rule = format!(
        "- {{hosts: [{HOST}], ports: [{port}], tls: Intercept, allowAddresses: [127.0.0.0/8], timeouts: {{connect: 20s}}}}"
    );
    let proxy = proxy()
        .root(&origin.ca_pem)
        .dns(&[dns.addr])
        .policy(&rule)
        .start()
        .await;
    zone.put(
        HOST,
        Says::ips([deaf.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST)]),
    );
    assert_eq!(ask(&proxy, HOST, port).await.text(), "reached");
}

#[tokio::test]
async fn one_of_several_servers_is_enough() {
    let origin = origin().await;
    let port = origin.addr.port();
    let (silent, well) = (Zone::default(), Zone::default());
    let (one, two) = (silent.serve().await, well.serve().await);
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    well.put(HOST, Says::ip("127.0.0.1"));
    silent.put(HOST, Says::Nothing);
    for servers in [[one.addr, two.addr], [closed, two.addr]] {
        let proxy = before(&origin, &servers).start().await;
        assert_eq!(
            ask(&proxy, HOST, port).await.text(),
            "reached",
            "{servers:?}"
        );
    }
    // The answer of one may be there before the other has read the question.
    until("both were asked", PATIENCE, async || {
        one.was_asked(HOST) && two.was_asked(HOST)
    })
    .await;
}

#[tokio::test]
async fn what_policy_refuses_is_not_even_looked_up() {
    let origin = origin().await;
    let zone = Zone::default();
    let dns = zone.serve().await;
    let proxy = before(&origin, &[dns.addr]).start().await;
    let door = proxy.bare_door();
    for target in ["secret.evil.example.org:443", "pets.example.com:22"] {
        let (_, status) = tunnel::connect(&door, target).await;
        assert!(status.starts_with("HTTP/1.1 403"), "{status}");
    }
    let mut plain = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
    let head =
        b"GET http://secret.evil.example.org/ HTTP/1.1\r\nHost: secret.evil.example.org\r\n\r\n";
    assert_eq!(wire::say(&mut plain, head).await.status, 403);
    assert_eq!(dns.asked(), []);
}
