//! Origins whose certificates are not to be believed, in every way there is: the agent is told which,
//! and nothing of its request leaves.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    NameConstraints, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::support::ca::{Leaf, TestCa};
use super::support::door::Door;
use super::support::proxy::{Proxy, ProxyBuilder, proxy};
use super::support::tunnel;
use super::support::wire::{self, Answer};

const KEY: &str = "judged-REAL-4e7b0d91-REAL";
const PLACEHOLDER: &str = "judged-placeholder-0001";

/// An origin that keeps what it hears within TLS; ends when dropped.
struct Judged {
    addr: SocketAddr,
    /// Sessions that came about.
    sessions: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Judged {
    async fn showing(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        // Shown as it is: the usual way would look at it first.
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let settings = settings(rustls::ALL_VERSIONS).with_no_client_auth();
        Self::with(settings.with_cert_resolver(Arc::new(shown))).await
    }

    async fn of(leaf: Leaf) -> Self {
        Self::showing(vec![leaf.0], leaf.1).await
    }

    /// Wants a certificate of whoever calls.
    async fn asking(leaf: Leaf, ca: &TestCa, version: &'static SupportedProtocolVersion) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate(ca)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        let settings = settings(&[version]).with_client_cert_verifier(verifier);
        Self::with(settings.with_single_cert(vec![leaf.0], leaf.1).unwrap()).await
    }

    async fn with(config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let sessions = Arc::<AtomicUsize>::default();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let (counted, kept) = (sessions.clone(), heard.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, kept) = (counted.clone(), kept.clone());
                open.spawn(answer(stream, acceptor.clone(), counted, kept));
            }
        });
        Self {
            addr,
            sessions,
            heard,
            _tasks: tasks,
        }
    }
}

async fn answer(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    sessions: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<u8>>>,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    sessions.fetch_add(1, Ordering::SeqCst);
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        let mut all = heard.lock().unwrap();
        all.extend_from_slice(&piece[..length]);
        if all.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let reached = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached";
    stream.write_all(reached).await.ok();
    stream.shutdown().await.ok();
}

fn settings(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
}

fn ca_certificate(ca: &TestCa) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()
}

/// What one case is, where its origin stands, and what the agent is told.
struct Case {
    host: &'static str,
    addr: SocketAddr,
    says: &'static str,
    word: &'static str,
}

fn case(host: &'static str, addr: SocketAddr, says: &'static str, word: &'static str) -> Case {
    Case {
        host,
        addr,
        says,
        word,
    }
}

fn before(ca: &TestCa, cases: &[Case]) -> ProxyBuilder {
    let builder = proxy()
        .root(ca.pem())
        .policy("- {hosts: ['*.example.com'], credentials: [judged]}")
        .credential_file(
            "judged",
            KEY,
            "
            hosts: ['*.example.com']
            placements: [{bearer: {}}]
            placeholder: {value: judged-placeholder-0001}
            ",
        );
    let resolve = |builder: ProxyBuilder, case: &Case| builder.resolve(case.host, case.addr);
    cases.iter().fold(builder, resolve)
}

/// One request with a placeholder.
async fn ask(door: &Door, host: &str, port: u16) -> Answer {
    let (stream, status) = tunnel::connect(door, &format!("{host}:{port}")).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{host}: {status}");
    let stream = tunnel::handshake(door, host, &[b"http/1.1"], stream).await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
    );
    wire::say(&mut stream.unwrap(), head.as_bytes()).await
}

/// The answer is a 502 that says why, and repeating is advised against.
async fn assert_refused(proxy: &Proxy, case: &Case, number: usize) {
    let answer = ask(&proxy.bare_door(), case.host, 443).await;
    let told: Value = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|e| panic!("{}: {e}: {answer:?}", case.host));
    let told = told["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 502, "{}: {told}", case.host);
    assert_eq!(answer.header("x-tollgate-stage"), Some("tls"), "{told}");
    let begins = format!("Egress proxy: TLS with {}:443 failed: ", case.host);
    assert!(
        told.starts_with(&begins) && told.contains(case.says),
        "{}: {told}",
        case.host
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{told}");
    let record = proxy.access_log(number + 1).await.pop().unwrap();
    assert_eq!(
        (&record["reason"], &record["status"]),
        (&"tls".into(), &502.into()),
        "{record}"
    );
}

async fn counted(proxy: &Proxy, word: &str) -> f64 {
    let series =
        format!("tollgate_tls_handshake_failures_total{{cause=\"{word}\",side=\"origin\"}}");
    proxy.metric(&series).await.unwrap_or_default()
}

#[tokio::test]
async fn a_certificate_that_is_not_to_be_believed_is_told_apart_and_no_request_leaves() {
    let (ca, other) = (TestCa::new(), TestCa::named("Another"));
    // It says it is the one that is trusted.
    let forger = TestCa::new();
    let now = time::OffsetDateTime::now_utc();
    let hour = time::Duration::hours(1);

    // An authority that may sign for `inside.example.com` only.
    let (narrow, narrow_der) = ca.below(|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("inside.example.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    // One that may not sign at all, and one that says nothing of it.
    let (leaf_like, leaf_like_der) = ca.below(|params| params.is_ca = IsCa::ExplicitNoCa);
    let (silent, silent_der) = ca.below(|params| params.is_ca = IsCa::NoCa);
    // One below which there may be no other.
    let (last, last_der) =
        ca.below(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let (beyond, beyond_der) = last.below(|params| {
        params.distinguished_name.push(DnType::CommonName, "Beyond");
    });
    let (sound, _) = ca.below(|_| {});
    let (late, late_der) = ca.below(|params| params.not_after = now - hour);

    let below = async |authority: &TestCa, chain: &[&CertificateDer<'static>], host: &str| {
        let (leaf, key) = authority.leaf(&[host]);
        let chain = chain.iter().map(|der| (*der).clone());
        Judged::showing(std::iter::once(leaf).chain(chain).collect(), key).await
    };
    let leaf = async |host: &str, spoil: &dyn Fn(&mut rcgen::CertificateParams)| {
        Judged::of(ca.leaf_with(&[host], |params| spoil(params))).await
    };
    let expired = leaf("expired.example.com", &|p| p.not_after = now - hour).await;
    let early = leaf("early.example.com", &|p| p.not_before = now + hour).await;
    let wrong = Judged::of(ca.leaf(&["other.example.com", "*.wrong.example.com"])).await;
    // A common name is no name (RFC 9525, section 2).
    let named = leaf("named.example.com", &|p| {
        p.subject_alt_names = vec![SanType::DnsName("other.example.com".try_into().unwrap())];
        p.distinguished_name
            .push(DnType::CommonName, "named.example.com");
    })
    .await;
    // A wildcard stands for one label (RFC 9525, section 6.3).
    let deep = leaf("*.example.com", &|_| {}).await;
    let own = Judged::of(TestCa::self_signed(&["own.example.com"])).await;
    let forged = Judged::of(forger.leaf(&["forged.example.com"])).await;
    let unknown = Judged::of(other.leaf(&["unknown.example.com"])).await;
    let client = leaf("client.example.com", &|p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
    .await;
    let authority = leaf("authority.example.com", &|p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    })
    .await;
    // An extension that must be understood, and is not.
    let odd = leaf("odd.example.com", &|p| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    })
    .await;
    let outside = below(&narrow, &[&narrow_der], "outside.example.com").await;
    let pretender = below(&leaf_like, &[&leaf_like_der], "pretender.example.com").await;
    let unsaid = below(&silent, &[&silent_der], "unsaid.example.com").await;
    let too_deep = below(&beyond, &[&beyond_der, &last_der], "too-deep.example.com").await;
    let missing = below(&sound, &[], "missing.example.com").await;
    let late_one = below(&late, &[&late_der], "late.example.com").await;
    // What TLS 1.2 says in its handshake.
    let asks_12 = Judged::asking(
        ca.leaf(&["asks12.example.com"]),
        &ca,
        &rustls::version::TLS12,
    )
    .await;

    let names = "its certificate is for other names";
    let nobody = "leads to no authority that is trusted here";
    let no_ca = "signed by one that is no authority";
    let cases = [
        case(
            "expired.example.com",
            expired.addr,
            "its certificate has expired",
            "expired",
        ),
        case(
            "late.example.com",
            late_one.addr,
            "its certificate has expired",
            "expired",
        ),
        case(
            "early.example.com",
            early.addr,
            "its certificate is not valid yet",
            "not_yet_valid",
        ),
        case("wrong.example.com", wrong.addr, names, "other_name"),
        case("named.example.com", named.addr, names, "other_name"),
        case("a.deep.example.com", deep.addr, names, "other_name"),
        case("own.example.com", own.addr, nobody, "unknown_issuer"),
        case(
            "unknown.example.com",
            unknown.addr,
            nobody,
            "unknown_issuer",
        ),
        case(
            "forged.example.com",
            forged.addr,
            "a signature does not hold",
            "bad_certificate",
        ),
        case(
            "missing.example.com",
            missing.addr,
            nobody,
            "unknown_issuer",
        ),
        case(
            "client.example.com",
            client.addr,
            "its certificate is not for servers",
            "bad_certificate",
        ),
        case(
            "authority.example.com",
            authority.addr,
            "an authority's own",
            "bad_certificate",
        ),
        case(
            "odd.example.com",
            odd.addr,
            "cannot be accepted",
            "bad_certificate",
        ),
        case(
            "outside.example.com",
            outside.addr,
            "may not sign for that name",
            "bad_certificate",
        ),
        case(
            "pretender.example.com",
            pretender.addr,
            no_ca,
            "bad_certificate",
        ),
        case("unsaid.example.com", unsaid.addr, no_ca, "bad_certificate"),
        case(
            "too-deep.example.com",
            too_deep.addr,
            no_ca,
            "bad_certificate",
        ),
        case(
            "asks12.example.com",
            asks_12.addr,
            "it asks for a client certificate",
            "alert",
        ),
    ];
    let inside = below(&narrow, &[&narrow_der], "inside.example.com").await;
    let proxy = before(&ca, &cases)
        .resolve("inside.example.com", inside.addr)
        .start()
        .await;
    for (number, case) in cases.iter().enumerate() {
        let before = counted(&proxy, case.word).await;
        assert_refused(&proxy, case, number).await;
        assert_eq!(
            counted(&proxy, case.word).await,
            before + 1.0,
            "{}",
            case.host
        );
    }
    let judged = [
        expired, early, wrong, named, deep, own, unknown, client, authority, odd, outside,
        pretender, unsaid, too_deep, missing, late_one, asks_12,
    ];
    for origin in &judged {
        let case = cases.iter().find(|case| case.addr == origin.addr);
        let host = case.expect("each origin has its case").host;
        assert_eq!(origin.sessions.load(Ordering::SeqCst), 0, "{host}");
        assert!(origin.heard.lock().unwrap().is_empty(), "{host}");
    }
    // What is right goes on, with the same authority and the same settings.
    let answer = ask(&proxy.bare_door(), "inside.example.com", 443).await;
    assert_eq!(answer.text(), "reached");
    let heard = inside.heard.lock().unwrap().clone();
    assert!(String::from_utf8(heard).unwrap().contains(KEY));
}

/// With TLS 1.3 the origin says so only after its handshake (RFC 8446, section 4.4.2.4).
#[tokio::test]
async fn an_origin_that_wants_a_client_certificate_is_told_of_as_such() {
    let ca = TestCa::new();
    let origin = Judged::asking(ca.leaf(&["asks.example.com"]), &ca, &rustls::version::TLS13).await;
    let cases = [case(
        "asks.example.com",
        origin.addr,
        "it asks for a client certificate",
        "alert",
    )];
    let proxy = before(&ca, &cases).start().await;
    assert_refused(&proxy, &cases[0], 0).await;
    assert_eq!(origin.sessions.load(Ordering::SeqCst), 0);
    assert!(origin.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_address_is_only_believed_as_an_address() {
    let ca = TestCa::new();
    let right = Judged::of(ca.leaf(&["127.0.0.1"])).await;
    let other = Judged::of(ca.leaf(&["127.0.0.2", "other.example.com"])).await;
    let text = Judged::of(ca.leaf_with(&["other.example.com"], |params| {
        params.subject_alt_names = vec![SanType::DnsName("127.0.0.1".try_into().unwrap())];
        params
            .distinguished_name
            .push(DnType::CommonName, "127.0.0.1");
    }))
    .await;
    let ports = [right.addr.port(), other.addr.port(), text.addr.port()];
    let rule = format!(
        "- {{hosts: [127.0.0.1], ports: {ports:?}, tls: Intercept, allowAddresses: [127.0.0.1/32]}}"
    );
    let proxy = proxy().root(ca.pem()).policy(&rule).start().await;
    let door = proxy.bare_door();
    for port in &ports[1..] {
        let answer = ask(&door, "127.0.0.1", *port).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(
            answer.text().contains("for other names"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(ask(&door, "127.0.0.1", ports[0]).await.text(), "reached");
    for origin in [other, text] {
        assert_eq!(origin.sessions.load(Ordering::SeqCst), 0);
    }
}

/// `openssl s_server` shows what this project's own TLS cannot be made to.
struct Outdated {
    addr: SocketAddr,
    said: Arc<Mutex<String>>,
    _child: Child,
}

impl Outdated {
    async fn serving(openssl: &Path, dir: &Path, name: &str, args: &[&str]) -> Self {
        let at = |kind: &str| dir.join(format!("{name}.{kind}"));
        let mut child = Command::new(openssl)
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-cipher",
                "ALL:@SECLEVEL=0",
            ])
            .arg("-cert")
            .arg(at("crt"))
            .arg("-key")
            .arg(at("key"))
            .args(args)
            // Where its input ends, it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = loop {
            let line = lines.next_line().await.unwrap().expect("openssl has ended");
            if let Some(addr) = line.strip_prefix("ACCEPT ") {
                break addr.parse().unwrap();
            }
        };
        let said = Arc::<Mutex<String>>::default();
        let kept = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push_str(&line);
            }
        });
        Self {
            addr,
            said,
            _child: child,
        }
    }
}

/// A leaf below `ca`, with a key of this kind, signed with this digest.
fn sign(openssl: &Path, dir: &Path, name: &str, key: &[&str], digest: &str) {
    let file = |kind: &str| dir.join(format!("{name}.{kind}"));
    let run = |command: &mut std::process::Command| {
        let output = command.current_dir(dir).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    std::fs::write(
        file("ext"),
        format!("subjectAltName=DNS:{name}.example.com\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n"),
    )
    .unwrap();
    let mut request = std::process::Command::new(openssl);
    request
        .args(["req", "-new", "-nodes", "-subj", "/CN=origin", "-newkey"])
        .args(key);
    run(request
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("csr")));
    let mut signed = std::process::Command::new(openssl);
    signed.args([
        "x509",
        "-req",
        "-days",
        "2",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        digest,
    ]);
    run(signed
        .arg("-in")
        .arg(file("csr"))
        .arg("-extfile")
        .arg(file("ext"))
        .arg("-out")
        .arg(file("crt")));
}

#[tokio::test]
async fn what_was_good_enough_long_ago_is_refused() {
    let openssl = client!("openssl");
    let ca = TestCa::new();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    std::fs::write(dir.join("ca.key"), ca.key_pem()).unwrap();
    let curve = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    sign(&openssl, dir, "short", &["rsa:1024"], "-sha256");
    sign(&openssl, dir, "sha1", &curve, "-sha1");
    for name in ["tls10", "tls11", "tls12"] {
        sign(&openssl, dir, name, &curve, "-sha256");
    }
    let short = Outdated::serving(&openssl, dir, "short", &[]).await;
    let sha1 = Outdated::serving(&openssl, dir, "sha1", &[]).await;
    let tls10 = Outdated::serving(&openssl, dir, "tls10", &["-tls1"]).await;
    let tls11 = Outdated::serving(&openssl, dir, "tls11", &["-tls1_1"]).await;
    // The same program with nothing wrong: it would have had an answer of it.
    let tls12 = Outdated::serving(&openssl, dir, "tls12", &["-tls1_2", "-www"]).await;
    let no_tls = "it speaks no TLS 1.2 or 1.3";
    let cases = [
        case(
            "short.example.com",
            short.addr,
            "its key is too short",
            "bad_certificate",
        ),
        case(
            "sha1.example.com",
            sha1.addr,
            "signed in a way that is not accepted",
            "bad_certificate",
        ),
        case("tls10.example.com", tls10.addr, no_tls, "protocol"),
        case("tls11.example.com", tls11.addr, no_tls, "protocol"),
    ];
    let proxy = before(&ca, &cases)
        .resolve("tls12.example.com", tls12.addr)
        .start()
        .await;
    for (number, case) in cases.iter().enumerate() {
        assert_refused(&proxy, case, number).await;
    }
    let mut stream = tunnel::tls(&proxy.bare_door(), "tls12.example.com", &[b"http/1.1"]).await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: tls12.example.com\r\nAuthorization: Bearer {PLACEHOLDER}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let all = wire::rest(&mut stream).await;
    assert!(
        all.starts_with(b"HTTP/1.0 200"),
        "{}",
        String::from_utf8_lossy(&all)
    );
    for origin in [short, sha1, tls10, tls11] {
        let said = origin.said.lock().unwrap().clone();
        assert!(!said.contains("GET /") && !said.contains(KEY), "{said}");
    }
}
