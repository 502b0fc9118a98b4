//! Credentials where none belong: placeholders out of place, foreign keys, real keys in the agent's hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;

use super::support::reply::full;
use super::support::scene::{self, BARE, HOST, PATHS, PLACEHOLDER, REAL_KEY, Scene};
use super::support::tunnel;
use super::support::wire::{self, Answer};

fn basic(text: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(text))
}

fn get(host: &str, target: &str, fields: &[String]) -> String {
    let fields: String = fields.iter().map(|f| format!("{f}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_placeholder_works_wherever_it_may_stand() {
    let scene = Scene::new().await;
    let percent = PLACEHOLDER.replace('-', "%2D");
    for (target, field) in [
        ("/v1/x", format!("Authorization: Bearer {PLACEHOLDER}")),
        ("/v1/x", format!("Authorization: bEaReR  {PLACEHOLDER}")),
        ("/v1/x", format!("X-API-KEY: {PLACEHOLDER}")),
        ("/v1/x", basic(&format!("{PLACEHOLDER}:"))),
        ("/v1/x", basic(&format!("git:{PLACEHOLDER}"))),
        ("/v1/x", format!("Cookie: a=b; session={PLACEHOLDER}; c=d")),
        (&format!("/v1/x?key={PLACEHOLDER}&a=b"), "A: b".to_owned()),
        (&format!("/v1/x?key={percent}"), "A: b".to_owned()),
        (&format!("/bot{PLACEHOLDER}/x"), "A: b".to_owned()),
        (&format!("/bot{percent}/x"), "A: b".to_owned()),
    ] {
        let case = format!("{target} {field}");
        let answer = scene.ask(HOST, &get(HOST, target, &[field])).await;
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        let seen = scene.origin.requests().pop().unwrap();
        assert!(seen.head_mentions(REAL_KEY), "{case}: {seen:#?}");
        assert!(!seen.head_mentions(PLACEHOLDER), "{case}: {seen:#?}");
        scene.settle().await;
    }
}

#[tokio::test]
async fn credentials_that_stand_twice_are_refused() {
    let scene = Scene::new().await;
    let bearer = format!("Authorization: Bearer {PLACEHOLDER}");
    for (case, target, fields) in [
        (
            "twice the same",
            "/v1/x",
            vec![bearer.clone(), bearer.clone()],
        ),
        (
            "with a foreign one behind",
            "/v1/x",
            vec![bearer.clone(), "Authorization: Bearer attacker".into()],
        ),
        (
            "with a foreign one before",
            "/v1/x",
            vec!["authorization: Bearer attacker".into(), bearer.clone()],
        ),
        (
            "joined by a comma",
            "/v1/x",
            vec![format!(
                "Authorization: Bearer {PLACEHOLDER}, Bearer attacker"
            )],
        ),
        (
            "keys joined by a comma",
            "/v1/x",
            vec![format!("X-Api-Key: {PLACEHOLDER},attacker")],
        ),
        (
            "keys in two fields",
            "/v1/x",
            vec![
                format!("X-Api-Key: {PLACEHOLDER}"),
                "x-api-key: attacker".into(),
            ],
        ),
        (
            "in two parameters",
            &format!("/v1/x?key={PLACEHOLDER}&key=attacker"),
            vec![],
        ),
        (
            "in a parameter in disguise",
            &format!("/v1/x?key={PLACEHOLDER}&%6bey=attacker"),
            vec![],
        ),
        (
            "in two cookies",
            "/v1/x",
            vec![format!("Cookie: session={PLACEHOLDER}; session=attacker")],
        ),
        (
            "in two cookie fields",
            "/v1/x",
            vec![
                format!("Cookie: session={PLACEHOLDER}"),
                "Cookie: session=attacker".into(),
            ],
        ),
        (
            "in a field nobody swaps",
            "/v1/x",
            vec!["Api-Key: a".into(), "Api-Key: b".into()],
        ),
    ] {
        let answer = scene.ask(HOST, &get(HOST, target, &fields)).await;
        scene
            .refused(case, &answer, 400, "duplicate_credential", "more than once")
            .await;
    }
    scene.still_serves().await;
}

/// The attacker's own key on an allowed host is a way out for data.
#[tokio::test]
async fn foreign_credentials_are_refused_beside_a_placeholder_and_alone() {
    let scene = Scene::new().await;
    let bearer = format!("Authorization: Bearer {PLACEHOLDER}");
    for (case, target, fields) in [
        (
            "bearer",
            "/v1/x",
            vec!["Authorization: Bearer sk-attacker".into()],
        ),
        (
            "another scheme",
            "/v1/x",
            vec!["Authorization: token sk-attacker".into()],
        ),
        (
            "no scheme",
            "/v1/x",
            vec!["Authorization: sk-attacker".into()],
        ),
        ("basic", "/v1/x", vec![basic("user:sk-attacker")]),
        (
            "basic in capitals",
            "/v1/x",
            vec![basic("user:sk-attacker").replace("Basic", "BASIC")],
        ),
        (
            "basic beside a placeholder",
            "/v1/x",
            vec![basic(&format!("{PLACEHOLDER}:sk-attacker"))],
        ),
        ("key", "/v1/x", vec!["X-Api-Key: sk-attacker".into()]),
        (
            "key beside a placeholder",
            "/v1/x",
            vec![bearer.clone(), "X-Api-Key: sk-attacker".into()],
        ),
        (
            "key in a field nobody swaps",
            "/v1/x",
            vec![bearer.clone(), "X-Goog-Api-Key: sk-attacker".into()],
        ),
        (
            "key with underscores",
            "/v1/x",
            vec![bearer.clone(), "X_Api_Key: sk-attacker".into()],
        ),
        ("parameter", "/v1/x?key=sk-attacker", vec![]),
        (
            "parameter beside a placeholder",
            "/v1/x?key=sk-attacker",
            vec![bearer.clone()],
        ),
        ("path", "/botsk-attacker/x", vec![]),
        (
            "cookie",
            "/v1/x",
            vec!["Cookie: session=sk-attacker".into()],
        ),
    ] {
        let answer = scene.ask(HOST, &get(HOST, target, &fields)).await;
        scene
            .refused(
                case,
                &answer,
                403,
                "foreign_credential",
                "did not give to this agent",
            )
            .await;
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn placeholders_out_of_place_are_canaries() {
    let scene = Scene::new().await;
    let twice = PLACEHOLDER.replace('-', "%252D");
    for (case, target, fields) in [
        (
            "user agent",
            "/v1/x",
            vec![format!("User-Agent: {PLACEHOLDER}")],
        ),
        (
            "referer",
            "/v1/x",
            vec![format!("Referer: https://x/?k={PLACEHOLDER}")],
        ),
        (
            "forwarded",
            "/v1/x",
            vec![format!("X-Forwarded-For: {PLACEHOLDER}")],
        ),
        (
            "a header of its own",
            "/v1/x",
            vec![format!("X-Mine: a{PLACEHOLDER}b")],
        ),
        (
            "another scheme",
            "/v1/x",
            vec![format!("Authorization: Digest {PLACEHOLDER}")],
        ),
        (
            "within basic",
            "/v1/x",
            vec![basic(&format!("a:b{PLACEHOLDER}"))],
        ),
        (
            "bearer in another header",
            "/v1/x",
            vec![format!("X-Api-Key: Bearer {PLACEHOLDER}")],
        ),
        (
            "another parameter",
            &format!("/v1/x?other={PLACEHOLDER}"),
            vec![],
        ),
        (
            "a parameter's name",
            &format!("/v1/x?{PLACEHOLDER}=1"),
            vec![],
        ),
        (
            "a longer parameter",
            &format!("/v1/x?key=x{PLACEHOLDER}"),
            vec![],
        ),
        ("another path", &format!("/v1/{PLACEHOLDER}"), vec![]),
        ("encoded twice", &format!("/v1/x?o={twice}"), vec![]),
        (
            "another cookie",
            "/v1/x",
            vec![format!("Cookie: other={PLACEHOLDER}")],
        ),
        (
            "encoded in a cookie",
            "/v1/x",
            vec![format!("Cookie: o={}", PLACEHOLDER.replace('-', "%2d"))],
        ),
    ] {
        let answer = scene.ask(HOST, &get(HOST, target, &fields)).await;
        scene
            .refused(case, &answer, 403, "canary", "the credential `scene`")
            .await;
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn a_placeholder_on_a_host_without_its_credential_is_a_canary() {
    let scene = Scene::new().await;
    for (case, target, field) in [
        (
            "bearer",
            "/",
            format!("Authorization: Bearer {PLACEHOLDER}"),
        ),
        ("basic", "/", basic(&format!("x:{PLACEHOLDER}"))),
        ("key", "/", format!("X-Api-Key: {PLACEHOLDER}")),
        ("cookie", "/", format!("Cookie: session={PLACEHOLDER}")),
        ("any header", "/", format!("X-Mine: {PLACEHOLDER}")),
        ("query", &format!("/?key={PLACEHOLDER}"), "A: b".into()),
        ("path", &format!("/bot{PLACEHOLDER}/x"), "A: b".into()),
    ] {
        let answer = scene
            .ask(BARE, &get(BARE, target, std::slice::from_ref(&field)))
            .await;
        scene
            .refused(
                case,
                &answer,
                403,
                "canary",
                "does not apply to this request",
            )
            .await;
        let mut sender = tunnel::http2(&scene.door, BARE).await;
        let (name, value) = field.split_once(": ").unwrap();
        let request = Request::get(format!("https://{BARE}{target}")).header(name, value);
        let answer = sender
            .send_request(request.body(full("")).unwrap())
            .await
            .unwrap();
        let answer = Answer::of(answer).await;
        scene
            .refused(
                case,
                &answer,
                403,
                "canary",
                "does not apply to this request",
            )
            .await;
    }
    scene.still_serves().await;
}

#[tokio::test]
async fn no_credential_goes_out_in_the_clear() {
    let scene = Scene::new().await;
    for target in ["/v1/x".to_owned(), format!("/v1/x?key={PLACEHOLDER}")] {
        let head = format!(
            "GET http://{HOST}{target} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
        );
        let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
        scene
            .refused("clear", &answer, 403, "cleartext_credential", "cleartext")
            .await;
    }
    scene.still_serves().await;
}

/// Proxy's `Drop` looks for the key in everything that was written.
#[tokio::test]
async fn a_real_key_in_the_agents_hand_is_refused_and_in_no_log() {
    let origin = scene::origin().await;
    let proxy = scene::in_front_of(&origin)
        .env("RUST_LOG", "trace")
        .env("TOLLGATE_LOG", "trace")
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    let percent: String = REAL_KEY.bytes().map(|b| format!("%{b:02x}")).collect();
    for (case, target, fields) in [
        (
            "bearer",
            "/v1/x",
            vec![format!("Authorization: Bearer {REAL_KEY}")],
        ),
        ("basic", "/v1/x", vec![basic(&format!("x:{REAL_KEY}"))]),
        ("key", "/v1/x", vec![format!("X-Api-Key: {REAL_KEY}")]),
        (
            "cookie",
            "/v1/x",
            vec![format!("Cookie: session={REAL_KEY}")],
        ),
        ("parameter", &format!("/v1/x?key={REAL_KEY}"), vec![]),
        ("encoded parameter", &format!("/v1/x?key={percent}"), vec![]),
        ("path", &format!("/bot{REAL_KEY}/x"), vec![]),
    ] {
        let answer = scene.ask(HOST, &get(HOST, target, &fields)).await;
        let record = scene
            .refused(case, &answer, 403, "foreign_credential", "did not give")
            .await;
        assert!(!record.to_string().contains(&percent), "{record}");
    }
    // Where no credential belongs it is the agent's own text; the log must still not have it.
    for (case, host, line) in [
        ("path", HOST, format!("GET /v1/{REAL_KEY}")),
        ("path with more", HOST, format!("GET /v1/a{REAL_KEY}b")),
        ("encoded path", HOST, format!("GET /v1/{percent}")),
        ("parameter's name", HOST, format!("GET /v1/x?{REAL_KEY}")),
        ("method", HOST, format!("{REAL_KEY} /v1/x")),
        ("a path no rule allows", PATHS, format!("GET /{REAL_KEY}")),
        (
            "an ambiguous path",
            PATHS,
            format!("GET /v1/%2e/{REAL_KEY}"),
        ),
    ] {
        let answer = scene
            .ask(host, &format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert!([200, 403].contains(&answer.status), "{case}: {answer:?}");
        scene.settle().await;
    }
    let head = format!("GET /{REAL_KEY}/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = wire::say(&mut scene.outside().await, head.as_bytes()).await;
    scene
        .refused("route", &answer, 404, "unknown_route", "no route")
        .await;
    scene.still_serves().await;
}

/// Placeholders are derived from the agent's name: one agent's is worth nothing to another.
#[tokio::test]
async fn another_agents_placeholder_is_worth_nothing() {
    let origin = scene::origin().await;
    let proxy = super::support::proxy::proxy()
        .origin(&origin)
        .setting(
            "
            identity:
              agents:
                - {name: alice, token: {env: {name: ALICE}}}
                - {name: bob, token: {env: {name: BOB}}}
            ",
        )
        .env("ALICE", "alice-token-of-alice")
        .env("BOB", "bob-token-of-bob")
        .policy("- {hosts: [echo.example.com], credentials: [scene], route: echo}")
        .credential_file(
            "scene",
            REAL_KEY,
            "
            hosts: [echo.example.com]
            placements: [{bearer: {}}, {query: {name: key}}]
            placeholder: {env: [SCENE_KEY]}
            ",
        )
        .start()
        .await;
    let tokens = [
        ("ALICE".to_owned(), "alice-token-of-alice".to_owned()),
        ("BOB".to_owned(), "bob-token-of-bob".to_owned()),
    ]
    .into();
    let of = async |agent: &str| {
        let said = super::support::proxy::tollgate(proxy.config.parent().unwrap(), &tokens)
            .args(["env", "--format", "dotenv", "--agent", agent, "--config"])
            .arg(&proxy.config)
            .arg("--admin")
            .arg(proxy.admin.to_string())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        let env = super::support::proxy::parse_dotenv(&text);
        env.get("SCENE_KEY")
            .cloned()
            .unwrap_or_else(|| panic!("{text} {:?}", said.stderr))
    };
    let (alice, bob) = (of("alice").await, of("bob").await);
    assert_ne!(alice, bob);
    let ask = async |token: &str, target: &str, key: &str| {
        let identity = STANDARD.encode(token);
        let head = format!(
            "GET /echo{target} HTTP/1.1\r\nHost: localhost\r\nProxy-Authorization: Basic {identity}\r\nAuthorization: Bearer {key}\r\n\r\n"
        );
        let mut stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
        wire::say(&mut stream, head.as_bytes()).await
    };
    let (a, b) = ("alice:alice-token-of-alice", "bob:bob-token-of-bob");
    for (number, (identity, key, status, reason)) in [
        (a, &bob, 403, "canary"),
        (b, &alice, 403, "canary"),
        ("alice:bob-token-of-bob", &alice, 407, "unidentified"),
        ("bob:", &bob, 407, "unidentified"),
        ("", &alice, 407, "unidentified"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = ask(identity, "/x", key).await;
        assert_eq!(answer.status, status, "{identity} {key}: {}", answer.text());
        let record = proxy.access_log(number + 1).await.pop().unwrap();
        assert!(answer.header("proxy-status").unwrap().contains(reason));
        assert_eq!(record["reason"], reason);
        assert!(origin.requests().is_empty());
    }
    let stolen = ask(a, &format!("/x?key={bob}"), &alice).await;
    assert_eq!(stolen.status, 403, "{}", stolen.text());
    assert!(origin.requests().is_empty());
    assert_eq!(ask(a, "/x", &alice).await.status, 200);
    assert_eq!(ask(b, "/x", &bob).await.status, 200);
    assert!(
        origin
            .requests()
            .iter()
            .all(|r| r.bearer() == Some(REAL_KEY))
    );
}

/// `report` lets pass what no rule allows, but never with a credential.
#[tokio::test]
async fn modes_that_let_everything_pass_inject_only_where_a_rule_allows() {
    for mode in ["report", "open"] {
        let origin = scene::origin().await;
        let proxy = super::support::proxy::proxy()
            .origin(&origin)
            .document(
                "EgressPolicy",
                "soft",
                &format!(
                    "mode: {mode}\negress:\n  - {{hosts: [echo.example.com], credentials: [scene]}}"
                ),
            )
            .credential_file(
                "scene",
                REAL_KEY,
                "
                hosts: [echo.example.com, bare.example.com]
                placements: [{bearer: {}}]
                placeholder: {value: scene-placeholder-0001}
                ",
            )
            .start()
            .await;
        // No rule names it: by absolute form the proxy reads the request all the same.
        for (scheme, host) in [
            ("https", BARE),
            ("http", BARE),
            ("https", "echo.example.com:8443"),
        ] {
            let head = format!(
                "GET {scheme}://{host}/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n"
            );
            let mut stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
            let answer = wire::say(&mut stream, head.as_bytes()).await;
            assert_eq!(
                answer.status,
                403,
                "{mode} {scheme}://{host}: {}",
                answer.text()
            );
            assert!(
                answer.header("proxy-status").unwrap().contains("canary"),
                "{answer:?}"
            );
        }
        assert!(origin.requests().is_empty());
        for target in [
            "http://169.254.169.254/latest",
            "http://127.0.0.1/",
            "http://[::1]/",
        ] {
            let host = target.split('/').nth(2).unwrap();
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let mut stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
            let answer = wire::say(&mut stream, head.as_bytes()).await;
            assert_eq!(answer.status, 403, "{mode} {target}");
        }
    }
}
