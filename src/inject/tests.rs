//! Tables of requests: what goes in, and what comes out or why nothing does.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use http::request::Parts;
use proptest::prelude::*;

use super::error::InjectError;
use super::placeholder::PlaceholderKey;
use super::set::{Granted, Injected, Injectors, Target};
use crate::config::bundle::{Bundle, Document};
use crate::config::credential::EgressCredentialSpec;
use crate::config::error::{ConfigError, SourceFile};
use crate::credential::held::{HeldCredential, Need};
use crate::credential::source::Fetched;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::Scheme;
use crate::types::secret::Secret;

const SECRET: &str = "S3CRET/+:=a";
const FOREIGN: &str = "sk-FOREIGN-0";
/// The placeholder of `main`, and of a second credential that is for another host.
const MAIN: &str = "placeholder:main";
const OTHER: &str = "placeholder:other";

struct World {
    injectors: Injectors,
    held: BTreeMap<String, Arc<HeldCredential>>,
    agent: Agent,
    scheme: Scheme,
    authority: &'static str,
    applicable: Vec<Arc<str>>,
}

fn document(name: &str, yaml: &str) -> Document<EgressCredentialSpec> {
    Document {
        name: name.to_owned(),
        namespace: None,
        uid: None,
        file: Arc::new(SourceFile {
            name: "test.yaml".to_owned(),
            text: yaml.to_owned(),
        }),
        line: 1,
        builtin: false,
        spec: serde_saphyr::from_str(yaml).unwrap(),
    }
}

fn compiled(
    documents: Vec<Document<EgressCredentialSpec>>,
    secret: Option<&str>,
) -> (
    Result<Injectors, Vec<ConfigError>>,
    BTreeMap<String, Arc<HeldCredential>>,
) {
    let mut held = BTreeMap::new();
    for document in &documents {
        let one = HeldCredential::new(&document.name, "env:X".to_owned(), Need::Required);
        if let Some(secret) = secret {
            one.report(Ok(Fetched::lasting(Secret::from(secret.to_owned()))));
        }
        held.insert(document.name.clone(), one);
    }
    let bundle = Bundle {
        credentials: documents,
        ..Bundle::default()
    };
    let key = PlaceholderKey::new(&[7; 32]).unwrap();
    (Injectors::compile(&bundle, &held, key), held)
}

fn agent(name: &str) -> Agent {
    Agent::parse(name).unwrap()
}

impl World {
    /// `main` with these lines besides host and placeholder, and `other` on another host.
    fn new(spec: &str) -> Self {
        Self::with_secret(spec, Some(SECRET))
    }

    fn with_secret(spec: &str, secret: Option<&str>) -> Self {
        let main = format!("hosts: [api.example.com]\nplaceholder: {{value: '{MAIN}'}}\n{spec}");
        let other = format!(
            "hosts: [other.example.com]\nplaceholder: {{value: '{OTHER}'}}\nplacements: [{{bearer: {{}}}}, {{header: {{name: x-api-key}}}}]"
        );
        Self::of(
            vec![document("main", &main), document("other", &other)],
            secret,
        )
    }

    fn of(documents: Vec<Document<EgressCredentialSpec>>, secret: Option<&str>) -> Self {
        let applicable = documents.iter().map(|d| d.name.as_str().into()).collect();
        let (injectors, held) = compiled(documents, secret);
        Self {
            injectors: injectors.unwrap(),
            held,
            agent: agent("team/a"),
            scheme: Scheme::Https,
            authority: "api.example.com:443",
            applicable,
        }
    }

    fn apply(&self, head: &mut Parts) -> Result<Injected, InjectError> {
        let authority = Authority::parse(self.authority, None).unwrap();
        let target = Target {
            authority: &authority,
            scheme: self.scheme,
        };
        let outcome = self.injectors.apply(
            &self.agent,
            &target,
            &Granted {
                applicable: &self.applicable,
                guarding: &self.applicable,
            },
            head,
        );
        if let Err(error) = &outcome {
            let texts = format!(
                "{error:?} {} {} {}",
                error.message(),
                error.remedy(),
                error.as_str()
            );
            for hidden in [SECRET, FOREIGN, MAIN, OTHER] {
                assert!(!texts.contains(hidden), "{texts}");
            }
        }
        outcome
    }

    /// The path and the headers after the injection, one per line, or the error's word.
    fn send(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = head(path, headers);
        match self.apply(&mut head) {
            Ok(_) => shown(&head),
            Err(error) => error.as_str().to_owned(),
        }
    }
}

fn head(path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn shown(head: &Parts) -> String {
    let mut text = head.uri.to_string();
    for (name, value) in &head.headers {
        text += &format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(text))
}

const KEYS: &str = "placements: [{header: {name: x-api-key}}, {bearer: {}}, {header: {name: authorization, format: 'token {}'}}]";

#[test]
fn headers() {
    let world = World::new(KEYS);
    let secret_bearer = format!("/\nauthorization: Bearer {SECRET}");
    for (headers, expected) in [
        (vec![], "/".to_owned()),
        (
            vec![("x-api-key", MAIN.to_owned())],
            format!("/\nx-api-key: {SECRET}"),
        ),
        (
            vec![("authorization", format!("Bearer {MAIN}"))],
            secret_bearer,
        ),
        (
            vec![("authorization", format!("bearer  {MAIN}"))],
            format!("/\nauthorization: bearer  {SECRET}"),
        ),
        (
            vec![("authorization", format!("TOKEN {MAIN}"))],
            format!("/\nauthorization: TOKEN {SECRET}"),
        ),
        (
            vec![
                ("x-api-key", MAIN.to_owned()),
                ("authorization", format!("Bearer {MAIN}")),
            ],
            format!("/\nx-api-key: {SECRET}\nauthorization: Bearer {SECRET}"),
        ),
        (
            vec![("x-api-key", String::new())],
            "/\nx-api-key: ".to_owned(),
        ),
        (
            vec![("authorization", "Bearer".to_owned())],
            "/\nauthorization: Bearer".to_owned(),
        ),
        // foreign
        (
            vec![("x-api-key", FOREIGN.to_owned())],
            "foreign_credential".to_owned(),
        ),
        (
            vec![("authorization", format!("Bearer {FOREIGN}"))],
            "foreign_credential".to_owned(),
        ),
        (
            vec![("authorization", basic(&format!("u:{FOREIGN}")))],
            "foreign_credential".to_owned(),
        ),
        (
            vec![("x-goog-api-key", FOREIGN.to_owned())],
            "foreign_credential".to_owned(),
        ),
        (
            vec![
                ("x-api-key", MAIN.to_owned()),
                ("authorization", format!("Bearer {FOREIGN}")),
            ],
            "foreign_credential".to_owned(),
        ),
        // wrong place
        (
            vec![("authorization", MAIN.to_owned())],
            "canary".to_owned(),
        ),
        (
            vec![("authorization", format!("Digest {MAIN}"))],
            "canary".to_owned(),
        ),
        (
            vec![("authorization", format!("Bearer x{MAIN}"))],
            "canary".to_owned(),
        ),
        (
            vec![("authorization", basic(&format!("u:{MAIN}")))],
            "canary".to_owned(),
        ),
        (
            vec![("x-goog-api-key", MAIN.to_owned())],
            "canary".to_owned(),
        ),
        (vec![("x-custom", format!("a{MAIN}b"))], "canary".to_owned()),
        (
            vec![("referer", "https://x/?k=placeholder%3Amain".to_owned())],
            "canary".to_owned(),
        ),
        (vec![("cookie", format!("a={MAIN}"))], "canary".to_owned()),
        // the wrong credential
        (vec![("x-api-key", OTHER.to_owned())], "canary".to_owned()),
        (vec![("user-agent", OTHER.to_owned())], "canary".to_owned()),
        // doubled
        (
            vec![
                ("x-api-key", MAIN.to_owned()),
                ("x-api-key", MAIN.to_owned()),
            ],
            "duplicate_credential".to_owned(),
        ),
        (
            vec![("x-api-key", format!("{MAIN}, {FOREIGN}"))],
            "duplicate_credential".to_owned(),
        ),
        (
            vec![("authorization", format!("Bearer {MAIN}, Bearer {FOREIGN}"))],
            "duplicate_credential".to_owned(),
        ),
        (
            vec![("api-key", "a".to_owned()), ("api-key", "b".to_owned())],
            "duplicate_credential".to_owned(),
        ),
        // nothing to do with it
        (
            vec![
                ("accept", "a, b".to_owned()),
                ("proxy-authorization", basic("x:y")),
            ],
            format!("/\naccept: a, b\nproxy-authorization: {}", basic("x:y")),
        ),
    ] {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(world.send("/", &headers), expected, "{headers:?}");
    }
    for path in [
        "/placeholder:main",
        "/?q=placeholder%3Amain",
        "/?q=placeholder%253amain",
    ] {
        assert_eq!(world.send(path, &[]), "canary", "{path}");
    }
}

#[test]
fn injected_headers_are_sensitive_and_recorded() {
    let world = World::new(KEYS);
    let bearer = format!("Bearer {MAIN}");
    let mut head = head("/", &[("x-api-key", MAIN), ("authorization", &bearer)]);
    let injected = world.apply(&mut head).unwrap();
    assert!(head.headers.values().all(http::HeaderValue::is_sensitive));
    assert!(!format!("{head:?}").contains(SECRET));
    let places: Vec<_> = injected
        .credentials
        .iter()
        .map(|c| (&*c.name, c.version, c.placement))
        .collect();
    assert_eq!(places, [("main", 1, "header"), ("main", 1, "bearer")]);
    assert_eq!(injected.needles.len(), 1);
    assert_eq!(injected.needles[0].1, MAIN);
    assert!(!format!("{injected:?}").contains(SECRET));
}

#[test]
fn basic_credentials() {
    let any = World::new("placements: [{basic: {}}]");
    let password = World::new("placements: [{basic: {position: password}}]");
    let user = World::with_secret("placements: [{basic: {position: user}}]", Some("S3CRET"));
    let colon = World::new("placements: [{basic: {position: user}}]");
    let spec = "hosts: [api.example.com]\nplaceholder: {value: placeholder-user}\nplacements: [{basic: {}}]";
    let named = World::of(vec![document("main", spec)], Some("S3CRET"));
    // A user name has no colon, so neither has a placeholder that stands for one.
    let plain = |world: &World, text: &str| world.send("/", &[("authorization", &basic(text))]);
    let with = |text: &str| format!("/\nauthorization: {}", basic(text));
    for (world, sent, expected) in [
        (&any, format!("git:{MAIN}"), with(&format!("git:{SECRET}"))),
        (&any, format!("git:x{MAIN}"), "canary".to_owned()),
        (&any, format!("git:{MAIN}:x"), "canary".to_owned()),
        (&any, format!("git:{OTHER}"), "canary".to_owned()),
        (
            &any,
            format!("git:{FOREIGN}"),
            "foreign_credential".to_owned(),
        ),
        (&any, ":".to_owned(), with(":")),
        // An attacker's key beside the placeholder would decide whose account it is.
        (
            &named,
            format!("placeholder-user:{FOREIGN}"),
            "foreign_credential".to_owned(),
        ),
        (
            &named,
            "placeholder-user:x-oauth-basic".to_owned(),
            with("S3CRET:x-oauth-basic"),
        ),
        (&named, "placeholder-user:".to_owned(), with("S3CRET:")),
        (&named, "placeholder-user".to_owned(), with("S3CRET")),
        (&password, format!(":{MAIN}"), with(&format!(":{SECRET}"))),
        (&user, format!("git:{MAIN}"), "canary".to_owned()),
        (&colon, format!("{MAIN}:"), "canary".to_owned()),
    ] {
        assert_eq!(plain(world, &sent), expected, "{sent}");
    }
    let colon_secret = World::of(vec![document("main", spec)], Some(SECRET));
    assert_eq!(
        plain(&colon_secret, "placeholder-user:"),
        "credential_unavailable"
    );
    let unpadded = basic("git:placeholder:main")
        .replace('=', "")
        .replace("Basic", "BASIC ");
    let padded = format!(
        "/\nauthorization: BASIC  {}",
        &basic(&format!("git:{SECRET}"))[6..]
    );
    assert_eq!(any.send("/", &[("authorization", &unpadded)]), padded);
    assert_eq!(
        any.send("/", &[("authorization", "Basic !!!")]),
        "foreign_credential"
    );
}

#[test]
fn query_parameters() {
    let world = World::new("placements: [{query: {name: key}}]");
    for (sent, expected) in [
        ("/v1?key=placeholder:main", "/v1?key=S3CRET%2F%2B%3A%3Da"),
        (
            "/v1?a=%2f&key=placeholder%3Amain&b=+&&c",
            "/v1?a=%2f&key=S3CRET%2F%2B%3A%3Da&b=+&&c",
        ),
        (
            "/v1?k%65y=%70laceholder:main",
            "/v1?k%65y=S3CRET%2F%2B%3A%3Da",
        ),
        ("/v1?key=", "/v1?key="),
        ("/v1?key", "/v1?key"),
        ("/v1", "/v1"),
        ("/v1?other=sk-FOREIGN-0", "/v1?other=sk-FOREIGN-0"),
        ("/v1?key=sk-FOREIGN-0", "foreign_credential"),
        ("/v1?key=xplaceholder:main", "canary"),
        ("/v1?key=placeholder:other", "canary"),
        ("/v1?other=placeholder:main", "canary"),
        ("/v1?key=placeholder:main&x=placeholder%3amain", "canary"),
        ("/v1?key=placeholder:main&key=x", "duplicate_credential"),
        ("/v1?key=&k%65y=placeholder:main", "duplicate_credential"),
        ("/v1/placeholder:main", "canary"),
    ] {
        assert_eq!(world.send(sent, &[]), expected, "{sent}");
    }
    let absolute = world.send("https://api.example.com/v1?key=placeholder:main", &[]);
    assert_eq!(
        absolute,
        "https://api.example.com/v1?key=S3CRET%2F%2B%3A%3Da"
    );
}

#[test]
fn paths() {
    let world = World::with_secret(
        "placements: [{path: {template: '/bot{}/'}}, {path: {template: '/file/bot{}/'}}]",
        Some("77:S3/x"),
    );
    for (sent, expected) in [
        (
            "/botplaceholder:main/getMe?a=%2F",
            "/bot77:S3%2Fx/getMe?a=%2F",
        ),
        ("/botplaceholder%3Amain/get%4De", "/bot77:S3%2Fx/get%4De"),
        ("/b%6Ftplaceholder%3amain//", "/b%6Ft77:S3%2Fx//"),
        (
            "/file/botplaceholder:main/a/b.jpg",
            "/file/bot77:S3%2Fx/a/b.jpg",
        ),
        ("/health", "/health"),
        ("/bot/x", "/bot/x"),
        ("/bot1:sk-FOREIGN-0/getMe", "foreign_credential"),
        ("/botplaceholder:main", "canary"),
        ("/botplaceholder%253Amain/x", "canary"),
        ("/x/../botplaceholder:main/x", "canary"),
        ("/botplaceholder:other/x", "canary"),
        ("/botplaceholder:main/x?t=placeholder:main", "canary"),
    ] {
        assert_eq!(world.send(sent, &[]), expected, "{sent}");
    }
}

#[test]
fn cookies() {
    let world = World::with_secret("placements: [{cookie: {name: sid}}]", Some("S3:CRET"));
    for (sent, expected) in [
        ("sid=placeholder:main", "sid=S3:CRET"),
        ("a=1; sid=placeholder:main;b=2", "a=1; sid=S3:CRET;b=2"),
        ("sid=\"placeholder:main\"", "sid=\"S3:CRET\""),
        ("sid=placeholder%3Amain; x", "sid=S3%3ACRET; x"),
        ("a=1; sid=", "a=1; sid="),
        ("a=sk-FOREIGN-0", "a=sk-FOREIGN-0"),
        ("sid=sk-FOREIGN-0", "foreign_credential"),
        ("sid=placeholder:other", "canary"),
        ("side=placeholder:main", "canary"),
        ("sid=xplaceholder:main", "canary"),
        ("sid=placeholder:main; sid=1", "duplicate_credential"),
    ] {
        let expected = match expected.contains('=') {
            true => format!("/\ncookie: {expected}"),
            false => expected.to_owned(),
        };
        assert_eq!(world.send("/", &[("cookie", sent)]), expected, "{sent}");
    }
    let crumbs = [
        ("cookie", "a=1"),
        ("cookie", "sid=placeholder:main"),
        ("cookie", "b=2"),
    ];
    assert_eq!(
        world.send("/", &crumbs),
        "/\ncookie: a=1\ncookie: sid=S3:CRET\ncookie: b=2"
    );
    let unfit = World::with_secret("placements: [{cookie: {name: sid}}]", Some("S3;CRET"));
    assert_eq!(
        unfit.send("/", &[("cookie", "sid=placeholder:main")]),
        "credential_unavailable"
    );
}

#[test]
fn bodies() {
    let world = World::with_secret(
        "placements: [{body: {pointer: /auth/token, limit: 200}}]",
        Some("S3\"CRET"),
    );
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(200));
    for (kind, sent, expected) in [
        (
            "application/json",
            r#" {"a":"placeholder:main", "auth":{"token" : "placeholder:main"}} "#,
            r#" {"a":"placeholder:main", "auth":{"token" : "S3\"CRET"}} "#,
        ),
        (
            "application/vnd.x+json; charset=utf-8",
            r#"{"auth":{"token":"\u0070laceholder:main","n":1.0}}"#,
            r#"{"auth":{"token":"S3\"CRET","n":1.0}}"#,
        ),
        (
            "application/x-www-form-urlencoded",
            r#"{"auth":{"token":"placeholder:main"}}"#,
            r#"{"auth":{"token":"S3\"CRET"}}"#,
        ),
        ("application/json", r#"{"auth":{"token":""}}"#, "as it is"),
        ("application/json", r#"{"auth":{"token":null}}"#, "as it is"),
        (
            "application/json",
            r#"{"prompt":"placeholder:main placeholder:other"}"#,
            "as it is",
        ),
        ("application/json", "", "as it is"),
        ("text/plain", "sk-FOREIGN-0", "as it is"),
        (
            "application/json",
            r#"{"auth":{"token":"sk-FOREIGN-0"}}"#,
            "foreign_credential",
        ),
        (
            "text/plain",
            r#"{"auth":{"token":"sk-FOREIGN-0"}}"#,
            "foreign_credential",
        ),
        (
            "application/json",
            r#"{"auth":{"token":"xplaceholder:main"}}"#,
            "canary",
        ),
        (
            "application/json",
            r#"{"auth":{"token":"placeholder:other"}}"#,
            "canary",
        ),
        (
            "application/json",
            r#"{"auth":{"token":{"a":1}}}"#,
            "malformed_credential",
        ),
        (
            "application/json",
            r#"{"auth":{"token":"placeholder:main"}"#,
            "malformed_credential",
        ),
        (
            "application/json",
            r#"{"auth":{"token":"a","token":"placeholder:main"}}"#,
            "duplicate_credential",
        ),
        (
            "application/json",
            r#"{"auth":{},"auth":{"token":"placeholder:main"}}"#,
            "duplicate_credential",
        ),
        ("text/plain", "token=placeholder:main", "encoded_body"),
        ("application/json", &long, "body_too_large"),
    ] {
        let mut head = head("/", &[("content-type", kind)]);
        let swap = world.apply(&mut head).unwrap().body.unwrap();
        assert_eq!(swap.limit(), 200);
        let seen = match swap.apply(sent.as_bytes()) {
            Ok(Some(swapped)) => {
                assert_eq!((swapped.credentials.len(), swapped.needles.len()), (1, 1));
                String::from_utf8(swapped.bytes.to_vec()).unwrap()
            }
            Ok(None) => "as it is".to_owned(),
            Err(error) => {
                assert!(!format!("{error:?} {error}").contains("FOREIGN"));
                error.as_str().to_owned()
            }
        };
        assert_eq!(seen, expected, "{kind} {sent}");
    }
    for headers in [
        [
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
        [
            ("content-type", "multipart/form-data; boundary=x"),
            ("content-encoding", "identity"),
        ],
        [
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ],
    ] {
        assert_eq!(world.send("/", &headers), "encoded_body", "{headers:?}");
    }
    let strip = World::new("placements: [{body: {pointer: /t}}]\nonForeign: strip");
    let swap = strip.apply(&mut head("/", &[])).unwrap().body.unwrap();
    let swapped = swap.apply(br#"{"t":"sk-FOREIGN-0"}"#).unwrap().unwrap();
    assert_eq!(&swapped.bytes[..], br#"{"t":""}"#);
}

#[test]
fn a_body_secret_stays_home_over_cleartext_and_while_unavailable() {
    let spec = "placements: [{body: {pointer: /t}}]";
    let body = br#"{"t":"placeholder:main"}"#;
    let mut world = World::new(spec);
    world.scheme = Scheme::Http;
    world.authority = "api.example.com:80";
    let swap = world.apply(&mut head("/", &[])).unwrap().body.unwrap();
    assert_eq!(
        swap.apply(body).unwrap_err().as_str(),
        "cleartext_credential"
    );
    let world = World::with_secret(spec, None);
    let swap = world.apply(&mut head("/", &[])).unwrap().body.unwrap();
    assert_eq!(
        swap.apply(body).unwrap_err().as_str(),
        "credential_unavailable"
    );
    assert!(swap.apply(br#"{"t":""}"#).unwrap().is_none());
}

#[test]
fn hosts_ports_and_rules_bound_where_a_placeholder_works() {
    let key = [("x-api-key", MAIN)];
    let mut world = World::new(KEYS);
    assert!(world.send("/", &key).contains(SECRET));
    world.authority = "api.example.com:8443";
    assert_eq!(world.send("/", &key), "canary");
    world.authority = "evil.example.com:443";
    assert_eq!(world.send("/", &key), "canary");
    assert_eq!(world.send("/", &[("x-custom", MAIN)]), "canary");
    // Another host is free to see credentials that are not ours.
    let bearer = format!("Bearer {FOREIGN}");
    assert!(
        world
            .send("/", &[("authorization", &bearer)])
            .contains(FOREIGN)
    );
    world.authority = "api.example.com:443";
    world.applicable.clear();
    assert_eq!(world.send("/", &key), "canary");
    assert!(world.send("/", &[("x-api-key", FOREIGN)]).contains(FOREIGN));

    let mut ports = World::new(&format!("ports: [8443]\n{KEYS}"));
    assert_eq!(ports.send("/", &key), "canary");
    ports.authority = "api.example.com:8443";
    assert!(ports.send("/", &key).contains(SECRET));
}

#[test]
fn nothing_is_injected_over_cleartext() {
    for (mode, sent, word) in [
        ("swap", vec![("x-api-key", MAIN)], "cleartext_credential"),
        ("swap", vec![("x-custom", MAIN)], "cleartext_credential"),
        ("swap", vec![("x-api-key", OTHER)], "canary"),
        ("swap", vec![("x-api-key", FOREIGN)], "foreign_credential"),
        ("swap", vec![], "/"),
        ("set", vec![], "cleartext_credential"),
    ] {
        let mut world = World::new(&format!("mode: {mode}\nports: [80, 443]\n{KEYS}"));
        world.scheme = Scheme::Http;
        world.authority = "api.example.com:80";
        assert_eq!(world.send("/", &sent), word, "{mode} {sent:?}");
    }
}

#[test]
fn a_secret_that_is_not_there_or_not_fit_is_said_so() {
    let key = [("x-api-key", MAIN)];
    let missing = World::with_secret(KEYS, None);
    assert_eq!(missing.send("/", &key), "credential_unavailable");
    assert_eq!(missing.send("/", &[]), "/");
    let set = World::with_secret(&format!("mode: set\n{KEYS}"), None);
    assert_eq!(set.send("/", &[]), "credential_unavailable");
    let unfit = World::with_secret(KEYS, Some("S3CRET\nx"));
    assert_eq!(unfit.send("/", &key), "credential_unavailable");
    let placeholder = World::with_secret(KEYS, Some(MAIN));
    let error = placeholder.apply(&mut head("/", &key)).unwrap_err();
    assert!(
        error.message().contains("gives a placeholder instead"),
        "{error}"
    );
}

#[test]
fn a_rotated_secret_goes_out_at_once() {
    let world = World::new(KEYS);
    assert!(world.send("/", &[("x-api-key", MAIN)]).contains(SECRET));
    world.held["main"].report(Ok(Fetched::lasting(Secret::from("N3W".to_owned()))));
    assert_eq!(world.send("/", &[("x-api-key", MAIN)]), "/\nx-api-key: N3W");
}

#[test]
fn foreign_credentials_are_stripped_or_passed_by_the_strictest_rule() {
    let placements =
        "placements: [{header: {name: x-own}}, {query: {name: key}}, {cookie: {name: sid}}]";
    let sent = [
        ("x-own", FOREIGN),
        ("authorization", "Digest a=\"b\", c=\"d\""),
        ("cookie", "a=1; sid=sk-FOREIGN-0; b=2"),
        ("accept", "*/*"),
    ];
    let path = "/v1?a=1&key=sk-FOREIGN-0&b=2";
    let strip = World::new(&format!("onForeign: strip\n{placements}"));
    assert_eq!(
        strip.send(path, &sent),
        "/v1?a=1&b=2\naccept: */*\ncookie: a=1; b=2"
    );
    let stripped = strip.apply(&mut head(path, &sent)).unwrap().stripped;
    let names: Vec<_> = stripped.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "the header `authorization`",
            "the header `x-own`",
            "the query parameter `key`",
            "the cookie `sid`"
        ]
    );
    for (path, expected) in [
        ("/?key=sk-F", "/"),
        ("/?a&key=sk-F", "/?a"),
        ("/?key=sk-F&a", "/?a"),
    ] {
        assert_eq!(strip.send(path, &[]), expected);
    }
    for (cookie, expected) in [
        ("sid=sk-F", "/"),
        ("sid=sk-F; a=1", "/\ncookie: a=1"),
        ("a=1; sid=sk-F", "/\ncookie: a=1"),
    ] {
        assert_eq!(strip.send("/", &[("cookie", cookie)]), expected);
    }
    let path_only = World::new("onForeign: strip\nplacements: [{path: {template: '/bot{}/'}}]");
    assert_eq!(path_only.send("/bot1:FOREIGN/x", &[]), "foreign_credential");

    let pass = World::new(&format!("onForeign: pass\n{placements}"));
    assert_eq!(pass.send(path, &sent), shown(&head(path, &sent)));
    assert_eq!(pass.send("/", &[("authorization", MAIN)]), "canary");
    let strict = document("strict", &format!("hosts: ['*.example.com']\n{placements}"));
    let lax = document(
        "lax",
        &format!("hosts: [api.example.com]\nonForeign: pass\n{placements}"),
    );
    let mixed = World::of(vec![lax, strict], Some(SECRET));
    assert_eq!(mixed.send("/", &[("x-own", FOREIGN)]), "foreign_credential");
}

#[test]
fn mode_set_puts_the_secret_in_the_first_placement_whatever_stood_there() {
    let set = |placement: &str| World::new(&format!("mode: set\nplacements: [{placement}]"));
    let foreign_bearer = format!("Bearer {FOREIGN}");
    let bearer = set("{bearer: {}}, {header: {name: x-api-key}}");
    let done = format!("/\nauthorization: Bearer {SECRET}");
    for (sent, expected) in [
        (vec![], done.clone()),
        (
            vec![("authorization", foreign_bearer.as_str())],
            done.clone(),
        ),
        (vec![("authorization", MAIN)], done.clone()),
        (
            vec![("x-api-key", MAIN)],
            format!("/\nx-api-key: {SECRET}\nauthorization: Bearer {SECRET}"),
        ),
        (
            vec![("x-api-key", FOREIGN)],
            "foreign_credential".to_owned(),
        ),
        (vec![("authorization", OTHER)], "canary".to_owned()),
        (
            vec![("authorization", "a"), ("authorization", "b")],
            "duplicate_credential".to_owned(),
        ),
    ] {
        assert_eq!(bearer.send("/", &sent), expected, "{sent:?}");
    }
    let mut twice = World::new("mode: set\nplacements: [{bearer: {}}]");
    twice.applicable = ["main", "main", "absent"].map(Arc::from).to_vec();
    assert_eq!(twice.send("/", &[]), done);
    let stripped = bearer
        .apply(&mut head("/", &[("authorization", FOREIGN)]))
        .unwrap()
        .stripped;
    assert_eq!(stripped.len(), 1);
    let user = set("{basic: {username: git}}").send("/", &[]);
    assert_eq!(
        user,
        format!("/\nauthorization: {}", basic(&format!("git:{SECRET}")))
    );
    let query = set("{query: {name: key}}");
    for (sent, expected) in [
        ("/", "/?key=S3CRET%2F%2B%3A%3Da"),
        ("/?", "/?key=S3CRET%2F%2B%3A%3Da"),
        ("/?a=1", "/?a=1&key=S3CRET%2F%2B%3A%3Da"),
        ("/?key=sk-F&a", "/?key=S3CRET%2F%2B%3A%3Da&a"),
        ("/?key=placeholder%3Aother", "canary"),
    ] {
        assert_eq!(query.send(sent, &[]), expected);
    }
    let cookie = World::with_secret("mode: set\nplacements: [{cookie: {name: sid}}]", Some("S3"));
    assert_eq!(
        cookie.send("/", &[("cookie", "a=1; sid=x")]),
        "/\ncookie: a=1; sid=S3"
    );
    assert_eq!(
        cookie.send("/", &[("cookie", "a=1")]),
        "/\ncookie: a=1; sid=S3"
    );
    assert_eq!(cookie.send("/", &[]), "/\ncookie: sid=S3");
}

#[test]
fn derived_placeholders_work_for_their_agent_only() {
    let spec = "hosts: [api.example.com]\nplacements: [{bearer: {}}, {query: {name: key}}]\nplaceholder: {shape: 'sk-ant-api03-[A-Za-z0-9_-:93]AA', env: [ANTHROPIC_API_KEY, OTHER_KEY]}";
    let mut world = World::of(vec![document("main", spec)], Some(SECRET));
    let mine = world.injectors.placeholder(&world.agent, "main").unwrap();
    let theirs = world
        .injectors
        .placeholder(&agent("team/b"), "main")
        .unwrap();
    assert_ne!(mine, theirs);
    assert_eq!(world.injectors.placeholder(&world.agent, "absent"), None);
    let names = vec!["ANTHROPIC_API_KEY".to_owned(), "OTHER_KEY".to_owned()];
    assert_eq!(
        world
            .injectors
            .placeholder_env(&world.agent, crate::inject::set::Named::All),
        [(names, mine.clone())]
    );
    let send = |world: &World, text: &str| {
        world.send("/", &[("authorization", &format!("Bearer {text}"))])
    };
    assert!(send(&world, &mine).contains(SECRET));
    assert_eq!(send(&world, &theirs), "canary");
    assert_eq!(world.send(&format!("/?key={theirs}"), &[]), "canary");
    world.authority = "elsewhere.example.org:443";
    assert_eq!(send(&world, &theirs), "canary");
    assert_eq!(
        world.send("/", &[("authorization", &basic(&format!("u:{theirs}")))]),
        "canary"
    );
    assert!(send(&world, &mine.replace("AA", "AB")).contains("Bearer sk-ant"));
}

#[test]
fn two_credentials_share_a_host_and_even_a_header() {
    let one = document(
        "one",
        "hosts: [api.example.com]\nplaceholder: {value: placeholder-1}\nplacements: [{basic: {}}, {query: {name: key}}]",
    );
    let two = document(
        "two",
        "hosts: [api.example.com]\nplaceholder: {value: placeholder-2}\nplacements: [{basic: {}}, {query: {name: key}}]",
    );
    let world = World::of(vec![one, two], Some("S3CRET"));
    let sent = basic("placeholder-1:placeholder-2");
    let mut head = head("/?key=placeholder-2", &[("authorization", &sent)]);
    let injected = world.apply(&mut head).unwrap();
    assert_eq!(
        shown(&head),
        format!("/?key=S3CRET\nauthorization: {}", basic("S3CRET:S3CRET"))
    );
    assert_eq!((injected.credentials.len(), injected.needles.len()), (3, 2));
}

#[test]
fn what_cannot_be_compiled_is_said_with_its_place() {
    for (spec, code) in [
        ("placements: [{bearer: {}}]", "TG0603"),
        ("hosts: ['*.com']\nplacements: [{bearer: {}}]", "TG0604"),
        ("hosts: [a.com]", "TG0605"),
        (
            "hosts: [a.com]\nplacements: [{header: {name: host}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nplacements: [{header: {name: 'a b'}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nplacements: [{header: {name: a, format: x}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nplacements: [{path: {template: x}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nplacements: [{cookie: {name: 'a;b'}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nplacements: [{body: {pointer: a}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nplacements: [{basic: {username: 'a:b'}}]",
            "TG0606",
        ),
        (
            "hosts: [a.com]\nmode: set\nplacements: [{path: {template: '/{}'}}]",
            "TG0607",
        ),
        (
            "hosts: [a.com]\nmode: set\nplacements: [{basic: {}}]",
            "TG0607",
        ),
        (
            "hosts: [a.com]\nplaceholder: {value: short}\nplacements: [{bearer: {}}]",
            "TG0608",
        ),
        (
            "hosts: [a.com]\nplaceholder: {shape: 'x[a-z:9]'}\nplacements: [{bearer: {}}]",
            "TG0609",
        ),
        (
            "hosts: [a.com]\nplaceholder: {shape: 'x[a-z'}\nplacements: [{bearer: {}}]",
            "TG0609",
        ),
    ] {
        let (outcome, _) = compiled(vec![document("main", spec)], None);
        let errors = outcome.unwrap_err();
        let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
        assert_eq!(codes, [code], "{spec}");
        assert!(errors[0].place.is_some() && errors[0].help.is_some());
    }
    let fixed = "hosts: [a.com]\nplaceholder: {value: placeholder}\nplacements: [{bearer: {}}]";
    let (outcome, _) = compiled(vec![document("a", fixed), document("b", fixed)], None);
    assert_eq!(outcome.unwrap_err()[0].code, "TG0602");
    let bundle = Bundle {
        credentials: vec![document("a", fixed)],
        ..Bundle::default()
    };
    let key = PlaceholderKey::random().unwrap();
    let errors = Injectors::compile(&bundle, &BTreeMap::new(), key).unwrap_err();
    assert_eq!(errors[0].code, "TG0601");
}

proptest! {
    #[test]
    fn in_a_query_exactly_the_placeholder_changes(before in "[a-z0-9%+=&._-]{0,30}", after in "[a-z0-9%+=&._-]{0,30}") {
        let world = World::new("placements: [{query: {name: key}}]");
        prop_assume!(!format!("&{before}&{after}").contains("&key") );
        let around = |value: &str| format!("/p?{before}&key={value}&{after}");
        prop_assert_eq!(world.send(&around(MAIN), &[]), around("S3CRET%2F%2B%3A%3Da"));
    }

    #[test]
    fn in_a_path_exactly_the_placeholder_changes(after in "[a-z0-9%+=&._/-]{0,30}", query in "[a-z0-9%+=&._/?-]{0,30}") {
        let world = World::with_secret("placements: [{path: {template: '/bot{}/'}}]", Some("1:S3"));
        let around = |value: &str| format!("/bot{value}/{after}?{query}");
        prop_assert_eq!(world.send(&around(MAIN), &[]), around("1:S3"));
    }

    #[test]
    fn in_a_body_exactly_the_placeholder_changes(before in ".{0,20}", after in ".{0,20}", space in "[ \n\t]{0,3}") {
        let world = World::with_secret("placements: [{body: {pointer: /a/1/t}}]", Some("S3"));
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (before, after) = (quoted(&before), quoted(&after));
        let around = |value: &str| format!("{space}{{{space}\"b\":{before},\"a\":[{after},{{\"t\"{space}:{space}\"{value}\"}}],\"t\":{after}}}{space}");
        let swap = world.apply(&mut head("/", &[("content-type", "application/json")])).unwrap().body.unwrap();
        let swapped = swap.apply(around(MAIN).as_bytes()).unwrap().unwrap();
        prop_assert_eq!(std::str::from_utf8(&swapped.bytes).unwrap(), around("S3"));
    }

    #[test]
    fn no_head_makes_it_panic_or_leaks_the_placeholder(path in "/[a-z%3A:?&=/]{0,20}", value in "[ -~]{0,40}", at in 0_usize..40) {
        let world = World::new("placements: [{bearer: {}}, {basic: {}}, {query: {name: key}}, {path: {template: '/b{}/'}}, {cookie: {name: sid}}]");
        let mut value = value;
        value.insert_str(at.min(value.len()), MAIN);
        for name in ["authorization", "cookie", "x-custom"] {
            let mut head = head(&path, &[(name, value.trim())]);
            if world.apply(&mut head).is_ok() {
                prop_assert!(!shown(&head).contains(MAIN));
            }
        }
    }
}
