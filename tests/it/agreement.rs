//! Where a connection goes: the target, the server name, the Host field and the dialled address must
//! name one place, and one that a rule allows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::origin::Origin;
use super::support::proxy::proxy;
use super::support::reply::{self, full};
use super::support::scene::{self, BARE, HOST, Scene, TUNNEL};
use super::support::wire::{self, Answer};
use super::support::{hello, tunnel};

async fn connect(scene: &Scene, target: &str, fields: &str) -> Answer {
    let head = format!("CONNECT {target} HTTP/1.1\r\n{fields}\r\n");
    wire::say(&mut scene.outside().await, head.as_bytes()).await
}

/// A refused CONNECT tells why in the one place that clients show.
async fn connect_refused(
    scene: &Scene,
    target: &str,
    fields: &str,
    status: u16,
    reason: &str,
    says: &str,
) {
    let case = format!("CONNECT {target} {fields}");
    let answer = connect(scene, target, fields).await;
    // The library's own words where the bytes were no CONNECT at all.
    if reason != "ambiguous_request" {
        assert!(answer.phrase.contains(says), "{case}: {}", answer.phrase);
    }
    scene.refused(&case, &answer, status, reason, says).await;
}

#[tokio::test]
async fn hosts_that_no_rule_names_are_refused_at_every_door() {
    let scene = Scene::new().await;
    for host in [
        "evil.example.org",
        "example.com",
        "sub.echo.example.com",
        "echo.example.com.evil.org",
        "xecho.example.com",
        "echo.example.co",
        "localhost",
        "metadata.google.internal",
    ] {
        connect_refused(
            &scene,
            &format!("{host}:443"),
            "",
            403,
            "host_not_allowed",
            "no rule allows",
        )
        .await;
        for scheme in ["http", "https"] {
            let head = format!("GET {scheme}://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
            scene
                .refused(host, &answer, 403, "host_not_allowed", "no rule allows")
                .await;
        }
    }
    for route in [
        "/evil/v1",
        "/",
        "/echo.example.com/",
        "//echo/v1",
        "/%65cho/v1",
    ] {
        let head = format!("GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
        scene
            .refused(route, &answer, 404, "unknown_route", "no route")
            .await;
    }
    // A web page can point a name of its own at the port.
    let head = "GET /echo/v1 HTTP/1.1\r\nHost: rebound.example.com\r\n\r\n";
    let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
    scene
        .refused("rebinding", &answer, 421, "foreign_host", "public host")
        .await;
    scene.still_serves().await;
}

#[tokio::test]
async fn addresses_are_refused_in_every_spelling() {
    let scene = Scene::new().await;
    const LITERAL: (u16, &str, &str) = (403, "ip_literal", "an address is refused");
    const MALFORMED: (u16, &str, &str) = (400, "malformed_request", "target is not acceptable");
    for (spelling, (status, reason, says)) in [
        ("127.0.0.1", LITERAL),
        ("169.254.169.254", LITERAL),
        ("10.0.0.1", LITERAL),
        ("8.8.8.8", LITERAL),
        ("0.0.0.0", LITERAL),
        ("[::1]", LITERAL),
        ("[::]", LITERAL),
        ("[::ffff:127.0.0.1]", LITERAL),
        ("[::ffff:7f00:1]", LITERAL),
        ("[64:ff9b::7f00:1]", LITERAL),
        ("[2002:7f00:1::]", LITERAL),
        ("[fe80::1]", LITERAL),
        ("[fd00:ec2::254]", LITERAL),
        ("127.1", MALFORMED),
        ("127.0.1", MALFORMED),
        ("2130706433", MALFORMED),
        ("0x7f000001", MALFORMED),
        ("0x7f.0.0.1", MALFORMED),
        ("0177.0.0.1", MALFORMED),
        ("017700000001", MALFORMED),
        ("127.0.0.1.", MALFORMED),
        ("127.0.0.01", MALFORMED),
        ("127.0.0.1.5", MALFORMED),
        ("256.0.0.1", MALFORMED),
        ("[127.0.0.1]", MALFORMED),
        ("[::1", MALFORMED),
        ("[fe80::1%25eth0]", MALFORMED),
        ("[fe80::1%eth0]", MALFORMED),
        ("%31%32%37.0.0.1", MALFORMED),
        ("127。0。0。1", MALFORMED),
        ("1２7.0.0.1", MALFORMED),
    ] {
        for head in [
            format!("CONNECT {spelling}:443 HTTP/1.1\r\n\r\n"),
            format!("GET http://{spelling}/latest HTTP/1.1\r\nHost: {spelling}\r\n\r\n"),
            format!("GET https://{spelling}/ HTTP/1.1\r\nHost: {spelling}\r\n\r\n"),
        ] {
            let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
            if answer
                .header("proxy-status")
                .is_some_and(|s| s.contains("ambiguous_request"))
            {
                // No URI at all.
                scene
                    .refused(&head, &answer, 400, "ambiguous_request", "not a valid URI")
                    .await;
                assert_eq!(status, 400, "{head}");
                continue;
            }
            scene.refused(&head, &answer, status, reason, says).await;
        }
        let head = format!("GET /v1/x HTTP/1.1\r\nHost: {spelling}\r\n\r\n");
        let answer = scene.ask(HOST, &head).await;
        scene
            .refused(&head, &answer, 421, "host_mismatch", "another host")
            .await;
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn connects_to_odd_places_are_refused() {
    let scene = Scene::new().await;
    for port in [22, 25, 8443, 65535] {
        let target = format!("{HOST}:{port}");
        connect_refused(
            &scene,
            &target,
            "",
            403,
            "port_not_allowed",
            "only ports 443 and 80",
        )
        .await;
    }
    for (target, says) in [
        (format!("{HOST}:0"), "port is not a number"),
        (format!("{HOST}:65536"), "port is not a number"),
        (format!("{HOST}:"), "port is not a number"),
        (HOST.to_owned(), "port is not a number"),
        (":443".to_owned(), "host is empty"),
        (format!("user@{HOST}:443"), "character"),
        (format!("user:secret@{HOST}:443"), ""),
        (format!("{HOST}.evil.org@{HOST}:443"), "character"),
        (format!("https://{HOST}:443"), "nothing else"),
        (format!("https://{HOST}:443/v1"), "nothing else"),
        ("/v1".to_owned(), "nothing else"),
        ("*".to_owned(), "nothing else"),
        (format!("{HOST}..:443"), "not a valid DNS name"),
        ("-.example.com:443".to_owned(), "not a valid DNS name"),
    ] {
        let answer = connect(&scene, &target, "").await;
        let reason = match answer.text().contains("not a valid URI") {
            true => "ambiguous_request",
            false => "malformed_request",
        };
        let says = if reason == "ambiguous_request" {
            "not a valid URI"
        } else {
            says
        };
        scene.refused(&target, &answer, 400, reason, says).await;
        assert!(!answer.text().contains("secret"), "{target}");
    }
    let target = format!("{HOST}:443");
    for other in ["evil.example.org", "echo.example.com:80", "", "127.0.0.1"] {
        let field = format!("Host: {other}\r\n");
        connect_refused(
            &scene,
            &target,
            &field,
            421,
            "host_mismatch",
            "another host",
        )
        .await;
    }
    let own = [
        (scene.proxy.addr.to_string(), "ip_literal"),
        (scene.proxy.admin.to_string(), "ip_literal"),
        (
            format!("localhost:{}", scene.proxy.admin.port()),
            "host_not_allowed",
        ),
        (
            format!("[::ffff:127.0.0.1]:{}", scene.proxy.admin.port()),
            "ip_literal",
        ),
    ];
    for (target, reason) in own {
        connect_refused(&scene, &target, "", 403, reason, "not allowed").await;
        let head = format!("GET http://{target}/readyz HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
        scene
            .refused(&target, &answer, 403, reason, "not allowed")
            .await;
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn the_host_within_tls_must_be_the_one_the_connection_is_for() {
    let scene = Scene::new().await;
    for (case, head) in [
        (
            "another",
            format!("GET /v1/x HTTP/1.1\r\nHost: {BARE}\r\n\r\n"),
        ),
        (
            "another port",
            format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}:8443\r\n\r\n"),
        ),
        ("empty", "GET /v1/x HTTP/1.1\r\nHost: \r\n\r\n".to_owned()),
        (
            "userinfo",
            format!("GET /v1/x HTTP/1.1\r\nHost: {BARE}@{HOST}\r\n\r\n"),
        ),
        (
            "a list",
            format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}, {BARE}\r\n\r\n"),
        ),
        (
            "with a path",
            format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}/x\r\n\r\n"),
        ),
        (
            "absolute, another",
            format!("GET https://{BARE}/v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "absolute, both another",
            format!("GET https://{BARE}/v1/x HTTP/1.1\r\nHost: {BARE}\r\n\r\n"),
        ),
        (
            "absolute, Host another",
            format!("GET https://{HOST}/v1/x HTTP/1.1\r\nHost: {BARE}\r\n\r\n"),
        ),
        (
            "absolute, another port",
            format!("GET https://{HOST}:8443/v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "absolute, userinfo",
            format!("GET https://x@{HOST}/v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "authority form",
            format!("GET {BARE}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
    ] {
        let answer = scene.ask(HOST, &head).await;
        scene
            .refused(case, &answer, 421, "host_mismatch", "another host")
            .await;
    }
    // The same on the agents' port, where the target itself chooses.
    for scheme in ["http", "https"] {
        let head = format!("GET {scheme}://{HOST}/v1/x HTTP/1.1\r\nHost: {BARE}\r\n\r\n");
        let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
        scene
            .refused(scheme, &answer, 421, "host_mismatch", "another host")
            .await;
    }
    let head = format!("GET https://user:secret@{HOST}/v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
    scene
        .refused(
            "userinfo",
            &answer,
            400,
            "malformed_request",
            "user information",
        )
        .await;

    let mut sender = tunnel::http2(&scene.door, HOST).await;
    for (authority, host) in [
        (BARE, None),
        (HOST, Some(BARE)),
        ("echo.example.com:8443", None),
        ("user@echo.example.com", None),
    ] {
        let mut request = Request::get(format!("https://{authority}/v1/x"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = sender
            .send_request(request.body(full("")).unwrap())
            .await
            .unwrap();
        let answer = Answer::of(answer).await;
        scene
            .refused(authority, &answer, 421, "host_mismatch", "another host")
            .await;
    }
    scene.still_serves().await;
}

/// Two names for one agent are two readings of who asks.
#[tokio::test]
async fn an_agent_names_itself_once() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .env("TOKEN_a", "token-of-a-0000001")
        .env("TOKEN_b", "token-of-b-0000001")
        .setting(
            "identity: {agents: [{name: a, token: {env: {name: TOKEN_a}}}, {name: b, token: {env: {name: TOKEN_b}}}]}",
        )
        .start()
        .await;
    let of = |agent: &str| {
        let token = STANDARD.encode(format!("{agent}:token-of-{agent}-0000001"));
        format!("Proxy-Authorization: Basic {token}\r\n")
    };
    for line in [
        format!("CONNECT {BARE}:443 HTTP/1.1\r\nHost: {BARE}:443\r\n"),
        format!("GET https://{BARE}/v1/x HTTP/1.1\r\nHost: {BARE}\r\n"),
    ] {
        for (named, status) in [
            (of("a"), 200),
            (of("a") + &of("b"), 400),
            (of("a") + &of("a"), 400),
        ] {
            let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
            let answer = wire::say(&mut stream, format!("{line}{named}\r\n").as_bytes()).await;
            assert_eq!(answer.status, status, "{line}{named}: {answer:?}");
        }
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn an_intercepted_connection_must_name_its_host_or_none() {
    let scene = Scene::new().await;
    let target = format!("{HOST}:443");
    let (stream, _) = tunnel::connect(&scene.door, &target).await;
    let error = tunnel::handshake(&scene.door, BARE, &[b"http/1.1"], stream)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("UnrecognizedName")
            || error.to_string().contains("UnrecognisedName"),
        "{error}"
    );
    let record = scene.record("another name", "server_name_mismatch").await;
    assert_eq!(
        (&record["decision"], &record["kind"]),
        (&"deny".into(), &"connect".into())
    );
    for (case, bytes) in [
        (
            "HTTP",
            format!("GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes(),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("two names", hello::naming_two(HOST, BARE)),
        ("nothing", Vec::new()),
    ] {
        let (mut stream, status) = tunnel::connect(&scene.door, &target).await;
        assert!(status.starts_with("HTTP/1.1 200"));
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        wire::rest(&mut stream).await;
        let record = scene.record(case, "not_tls").await;
        assert_eq!(record["decision"], "deny", "{case}");
    }
    scene.nothing_sent("no TLS");
    scene.still_serves().await;
}

/// What a tunnel carries is unread but for the server name.
#[tokio::test]
async fn a_tunnel_must_name_its_host_in_the_clear() {
    let scene = Scene::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = proxy()
        .resolve(TUNNEL, listener.local_addr().unwrap())
        .policy("- {hosts: [tunnel.example.com]}")
        .start()
        .await;
    for (number, (case, bytes, reason, alert)) in [
        (
            "another name",
            hello::naming(HOST),
            "tunnel_server_name_mismatch",
            true,
        ),
        (
            "a longer name",
            hello::naming("tunnel.example.com.evil.org"),
            "tunnel_server_name_mismatch",
            true,
        ),
        (
            "an address",
            hello::naming("127.0.0.1"),
            "tunnel_server_name_mismatch",
            true,
        ),
        (
            "two names",
            hello::naming_two(TUNNEL, HOST),
            "tunnel_not_tls",
            false,
        ),
        (
            "two names in a list",
            hello::naming_both(TUNNEL, HOST),
            "tunnel_not_tls",
            false,
        ),
        ("one without end", hello::endless(), "tunnel_not_tls", false),
        ("no name", hello::nameless(), "tunnel_no_server_name", true),
        (
            "an encrypted hello",
            hello::encrypted(TUNNEL),
            "tunnel_encrypted_client_hello",
            false,
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: tunnel.example.com\r\n\r\n".to_vec(),
            "tunnel_not_tls",
            false,
        ),
        (
            "SSH",
            b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
            "tunnel_not_tls",
            false,
        ),
        (
            "half a hello",
            hello::naming(TUNNEL)[..20].to_vec(),
            "tunnel_no_client_hello",
            false,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut stream, status) =
            tunnel::connect(&door.door().await, &format!("{TUNNEL}:443")).await;
        assert!(status.starts_with("HTTP/1.1 200"), "{case}: {status}");
        let (mut dialled, _) = listener.accept().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let told = wire::rest(&mut stream).await;
        assert_eq!(told == [21, 3, 3, 0, 2, 2, 112], alert, "{case}: {told:?}");
        let mut got = Vec::new();
        dialled.read_to_end(&mut got).await.ok();
        assert!(got.is_empty(), "{case}: the origin got {got:?}");
        let record = door.access_log(number + 1).await.pop().unwrap();
        assert_eq!(
            (&record["decision"], &record["reason"]),
            (&"deny".into(), &reason.into()),
            "{case}"
        );
        assert_eq!(record["kind"], "tunnel");
    }
    let (mut stream, _) = tunnel::connect(&door.door().await, &format!("{TUNNEL}:443")).await;
    let (mut dialled, _) = listener.accept().await.unwrap();
    let honest = hello::naming("Tunnel.Example.com");
    stream.write_all(&honest).await.unwrap();
    let mut got = vec![0; honest.len()];
    dialled.read_exact(&mut got).await.unwrap();
    assert_eq!(got, honest);
    scene.still_serves().await;
}

/// Naming an address is not enough to be let at it: its range must be listed, and the proxy's own
/// ports stay closed even then.
#[tokio::test]
async fn guarded_addresses_are_dialled_only_where_a_rule_lists_them() {
    let origin = Origin::plain(&[], |_| async { reply::text(200, "reached") }).await;
    let proxy = proxy()
        .policy("- {hosts: [unused.example.com]}")
        .start()
        .await;
    let ports = [origin.addr, proxy.addr, proxy.admin]
        .map(|a| a.port().to_string())
        .join(", ");
    let policy = |more: &str| {
        format!(
            "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: addresses}}\nspec:\n  egress:\n    \
             - {{hosts: [\"127.0.0.1\"], ports: [{ports}]{more}}}\n"
        )
    };
    let get = async |to: std::net::SocketAddr| {
        let head = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        wire::say(&mut stream, head.as_bytes()).await
    };
    let door = proxy.door().await;
    proxy.reload(&policy("")).await;
    let answer = get(origin.addr).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("x-tollgate-stage"), Some("address_guard"));
    assert!(
        answer.text().contains("a loopback address") && answer.text().contains("allowAddresses")
    );
    let (_, status) = tunnel::connect(&door, &origin.addr.to_string()).await;
    assert!(
        status.contains("403") && status.contains("loopback address"),
        "{status}"
    );
    assert_eq!(origin.connections(), 0);

    let listed = policy(", allowAddresses: [127.0.0.0/8, \"::/0\", 0.0.0.0/0]");
    proxy.reload(&listed).await;
    assert_eq!(get(origin.addr).await.status, 200);
    for own in [proxy.addr, proxy.admin] {
        let answer = get(own).await;
        assert_eq!(answer.status, 403, "{own}: {}", answer.text());
        assert!(
            answer.text().contains("the proxy's own listener"),
            "{}",
            answer.text()
        );
        let (_, status) = tunnel::connect(&door, &own.to_string()).await;
        assert!(
            status.contains("403") && status.contains("own listener"),
            "{status}"
        );
    }
    let records = proxy.access_log(4).await;
    assert_eq!(records.last().unwrap()["reason"], "address_guard");
}
