//! A secret goes to its origin and nowhere else: every source, every placement and every way an
//! exchange can end, then a search through all that was written, told or shown.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::http::Speaks;
use super::support::door::Door;
use super::support::needles::{Haystack, Needle};
use super::support::operator::{PATIENCE, finish, until};
use super::support::origin::{Exchange, Origin};
use super::support::proxy::{Proxy, ProxyBuilder, proxy, tollgate};
use super::support::reply::{self, Reply, full, streamed};
use super::support::spans::{Collector, Mood};
use super::support::tunnel::{self, Outgoing};
use super::support::wire;
use super::tap::Watching;

const HOST: &str = "leak.example.com";

/// Where the placeholder stands, and so where the secret goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Scheme,
    Bearer,
    Basic,
    Query,
    Path,
    Cookie,
    Body,
}

/// One credential: where from, where to.
struct Case {
    place: Place,
    secret: &'static str,
    placement: &'static str,
    source: Source,
}

enum Source {
    Env,
    File,
    Json,
    ExecText,
    ExecJson,
}

const CASES: &[Case] = &[
    Case {
        place: Place::Header,
        secret: "hdr+SENTINEL/4f9a1c7e==7Qz",
        placement: "header: {name: x-key}",
        source: Source::Env,
    },
    Case {
        place: Place::Scheme,
        secret: "sch-SENTINEL-0b2d8f6a_9vX",
        placement: "header: {name: authorization, format: 'token {}'}",
        source: Source::File,
    },
    Case {
        place: Place::Bearer,
        secret: "brr.SENTINEL.7c3e5a9d~k2L",
        placement: "bearer: {}",
        source: Source::Json,
    },
    Case {
        place: Place::Basic,
        secret: "bsc-SENTINEL-5d1f3b8c_mN8",
        placement: "basic: {}",
        source: Source::ExecText,
    },
    Case {
        place: Place::Query,
        secret: "qry+SENTINEL/9e7c2a4f&pR4",
        placement: "query: {name: key}",
        source: Source::ExecJson,
    },
    Case {
        place: Place::Path,
        secret: "123456789:SENTINEL-pth-1a6e8d3b",
        placement: "path: {template: '/bot{}/'}",
        source: Source::Env,
    },
    Case {
        place: Place::Cookie,
        secret: "cke-SENTINEL-3f8b6d1e_sT6",
        placement: "cookie: {name: session}",
        source: Source::File,
    },
    Case {
        place: Place::Body,
        secret: "bdy\"SENTINEL\\2c4e9f7a<uV5",
        placement: "body: {pointer: /auth/key}",
        source: Source::ExecText,
    },
];

/// Keys that agents bring along themselves; no log may have them either.
const FOREIGN: &[&str] = &[
    "sk-ant-api03-FOREIGNq7Zk2vXo9TtYwBnCeHs4Lp1RdGfJa8KiVbNx",
    "ghp_FOREIGNb7c9d1e3f5a7b9c1d3e5f7a9b1c3d5",
    "987654321:FOREIGN-AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
];

impl Case {
    fn name(&self) -> String {
        format!("{:?}", self.place).to_lowercase()
    }

    fn placeholder(&self) -> String {
        match self.place {
            Place::Path => "111111111:placeholder-path".to_owned(),
            _ => format!("placeholder-{}-0001", self.name()),
        }
    }

    /// Writes the secret where its source finds it, and says so in a document.
    fn describe(&self, mut described: ProxyBuilder) -> ProxyBuilder {
        let name = self.name();
        let file = described.file(&format!("{name}.secret"));
        let path = file.display();
        let json = |key: &str| {
            serde_json::json!({
                "apiVersion": "client.authentication.k8s.io/v1",
                "kind": "ExecCredential",
                "status": {key: self.secret},
            })
        };
        let (content, source) = match self.source {
            Source::Env => {
                described = described.env(&format!("SECRET_{}", name.to_uppercase()), self.secret);
                (
                    String::new(),
                    format!("{{env: {{name: SECRET_{}}}}}", name.to_uppercase()),
                )
            }
            Source::File => (
                format!("{}\n", self.secret),
                format!("{{file: {{path: '{path}'}}}}"),
            ),
            Source::Json => (
                json("login").to_string(),
                format!("{{file: {{path: '{path}', pointer: /status/login}}}}"),
            ),
            // What it says on standard error is nobody's business either.
            Source::ExecText => (
                self.secret.to_owned(),
                format!(
                    "{{exec: {{command: [/bin/sh, -c, 'cat {path} >&2; cat {path}'], output: text, ttl: 2s}}}}"
                ),
            ),
            Source::ExecJson => (
                json("token").to_string(),
                format!("{{exec: {{command: [/bin/cat, '{path}'], ttl: 2s}}}}"),
            ),
        };
        fs::write(&file, content).unwrap();
        let spec = format!(
            "
            hosts: [leak.example.com, down.example.com, untrusted.example.com]
            source: {source}
            placements: [{{{}}}]
            placeholder: {{value: '{}', env: [KEY_{}]}}
            ",
            self.placement,
            self.placeholder(),
            name.to_uppercase()
        );
        described
            .document("EgressCredential", &name, &spec)
            .secret(self.secret)
    }

    /// A request with `key` where the placeholder belongs.
    fn request(&self, host: &str, path: &str, key: &str) -> Request<Outgoing> {
        let encoded =
            percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
        let target = match self.place {
            Place::Query => format!("{path}?a=b&key={encoded}&c=d"),
            Place::Path => format!("/bot{key}{path}"),
            _ => path.to_owned(),
        };
        let request = Request::post(format!("https://{host}{target}"));
        let request = match self.place {
            Place::Header => request.header("x-key", key),
            Place::Scheme => request.header(header::AUTHORIZATION, format!("token {key}")),
            Place::Bearer => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
            Place::Basic => {
                let pair = STANDARD.encode(format!("user:{key}"));
                request.header(header::AUTHORIZATION, format!("Basic {pair}"))
            }
            Place::Cookie => request.header(header::COOKIE, format!("a=b; session={key}")),
            Place::Query | Place::Path | Place::Body => request,
        };
        let body = match self.place {
            Place::Body => serde_json::json!({"auth": {"key": key}, "text": "hello"}),
            _ => serde_json::json!({"text": "hello"}),
        };
        let request = request.header(header::CONTENT_TYPE, "application/json");
        request.body(full(body.to_string())).unwrap()
    }

    /// Whether the origin got the secret in its place.
    fn arrived(&self, exchange: &Exchange, body: &[u8]) -> bool {
        let head = &exchange.head;
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        match self.place {
            Place::Header => head.header("x-key") == Some(self.secret),
            Place::Scheme => {
                head.header("authorization") == Some(&format!("token {}", self.secret))
            }
            Place::Bearer => head.bearer() == Some(self.secret),
            Place::Basic => head
                .basic()
                .is_some_and(|(_, password)| password == self.secret),
            Place::Query => head.target.split(['?', '&']).any(|pair| {
                pair.strip_prefix("key=")
                    .is_some_and(|value| decoded(value) == self.secret)
            }),
            Place::Path => decoded(head.path()).starts_with(&format!("/bot{}/", self.secret)),
            Place::Cookie => head
                .header("cookie")
                .is_some_and(|c| c.contains(self.secret)),
            Place::Body => serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| body["auth"]["key"] == self.secret),
        }
    }
}

/// Says whether a credential arrived, and never which; then does as the path says.
async fn answer(mut exchange: Exchange) -> Reply {
    let path = exchange.head.path().to_owned();
    if path.ends_with("/ws") {
        return echo_upgrade(exchange);
    }
    let streams = path.ends_with("/stream");
    let body = if streams {
        Vec::new().into()
    } else {
        exchange.body().await
    };
    let arrived = CASES.iter().find(|case| case.arrived(&exchange, &body));
    let secret = arrived.map(|case| case.secret);
    let arrived = arrived.is_some();
    match path.rsplit('/').next().unwrap_or_default() {
        "echo" => echoed(200, secret),
        "unhappy" => echoed(500, secret),
        "away" => echoed(302, secret),
        "fine" if arrived => reply::text(200, "it arrived\n"),
        "fine" => reply::text(401, "no key\n"),
        "broken" => reply::text(500, "<h1>Internal Server Error</h1>\n"),
        "stream" => {
            let frames = futures_util::stream::repeat(()).then(|()| async {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                Frame::data("tick\n".into())
            });
            let mut reply = reply::status(200);
            *reply.body_mut() = streamed(frames);
            reply
        }
        _ => reply::text(404, "nothing here\n"),
    }
}

/// An origin that repeats the secret wherever it can, in every form that a program would.
fn echoed(status: u16, secret: Option<&str>) -> Reply {
    let Some(secret) = secret else {
        return reply::text(401, "no key\n");
    };
    let percent = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC);
    let pair = STANDARD.encode(format!("user:{secret}"));
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("x{secret}"));
    let html = secret
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;");
    let body = serde_json::json!({
        "raw": secret, "basic": pair, "url": url_safe, "query": format!("k={percent}&x"), "page": html,
        "nested": serde_json::json!({"again": secret}).to_string(),
    });
    // A piece may end within it.
    let text = format!("{body}\n<p>{html}</p>\n");
    let pieces: Vec<_> = text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
    let frames = pieces.into_iter().map(|piece| Frame::data(piece.into()));
    let mut reply = reply::status(status);
    *reply.body_mut() = streamed(futures_util::stream::iter(frames));
    let location = format!("https://elsewhere.example.com/?token={percent}");
    for (name, value) in [
        ("x-echo", secret.to_owned()),
        ("x-basic", format!("Basic {pair}")),
        ("location", location),
        ("set-cookie", format!("session={percent}; Path=/")),
    ] {
        reply = reply::with(reply, name, &value);
    }
    reply
}

fn echo_upgrade(exchange: Exchange) -> Reply {
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    use tokio_tungstenite::tungstenite::protocol::Role;
    let arrived = CASES.iter().any(|case| case.arrived(&exchange, b""));
    let key = exchange
        .head
        .header("sec-websocket-key")
        .unwrap_or_default()
        .to_owned();
    if !arrived {
        return reply::text(401, "no key\n");
    }
    tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(exchange.upgrade.await.unwrap());
        let mut socket =
            tokio_tungstenite::WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let reply = reply::with(reply::status(101), "upgrade", "websocket");
    let reply = reply::with(reply, "connection", "upgrade");
    reply::with(
        reply,
        "sec-websocket-accept",
        &derive_accept_key(key.as_bytes()),
    )
}

/// The proxy of this story, with everything it logs turned on.
async fn start(origin: &Origin, untrusted: &Origin, collector: &Collector) -> Proxy {
    let names: Vec<String> = CASES.iter().map(Case::name).collect();
    let names = names.join(", ");
    let mut described = proxy()
        .origin(origin)
        .resolve("down.example.com", "127.0.0.1:1".parse().unwrap())
        .resolve("untrusted.example.com", untrusted.addr)
        .spans_to(collector.addr())
        .env("TOLLGATE_LOG", "trace,h2::codec=trace,hyper::proto=trace,rustls=trace")
        .policy(&format!(
            "
            - {{hosts: [leak.example.com], credentials: [{names}], route: leak, ambiguousPaths: Pass}}
            - {{hosts: [leak.example.com], http: [{{paths: [/denied/**, /*/denied/**]}}], action: Deny}}
            - {{hosts: [down.example.com, untrusted.example.com], credentials: [{names}]}}
            - {{hosts: [other.example.com], tls: Intercept}}
            "
        ));
    for case in CASES {
        described = case.describe(described);
    }
    described.start().await
}

/// What came back to the agent, head and body.
async fn send(
    door: &Door,
    speaks: Speaks,
    host: &str,
    mut request: Request<Outgoing>,
) -> (u16, Vec<u8>) {
    let answer = match speaks {
        Speaks::Http2 => tunnel::http2(door, host).await.send_request(request).await,
        Speaks::Http1 => {
            let host = host.parse().unwrap();
            request.headers_mut().insert(header::HOST, host);
            *request.uri_mut() = request
                .uri()
                .path_and_query()
                .unwrap()
                .to_string()
                .parse()
                .unwrap();
            let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
            tunnel::http1(door, &host).await.send_request(request).await
        }
    };
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let mut seen = format!("{:?}", answer.headers()).into_bytes();
    seen.extend(answer.into_body().collect().await.unwrap().to_bytes());
    (status, seen)
}

/// A head that need not be HTTP, sent as the last one of its connection; whatever comes back until the other side
/// closes.
async fn say_last<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, head: &str) -> Vec<u8> {
    let last = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(last.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let back = wire::rest(&mut stream).await;
    assert!(!back.is_empty(), "no answer to {head}");
    back
}

#[tokio::test]
async fn secrets_are_in_nothing_that_is_written_told_or_shown() {
    let origin = Origin::tls(&[HOST, "other.example.com"], answer).await;
    let untrusted = Origin::tls(&["untrusted.example.com"], answer).await;
    let collector = Collector::start(Mood::Well).await;
    let proxy = start(&origin, &untrusted, &collector).await;
    let watching = Watching::start(&proxy, &["tap", "--json"]).await;
    let door = proxy.bare_door();
    // What the agent sees may repeat what the agent sent.
    let (mut hay, mut agents) = (Haystack::default(), Haystack::default());

    for case in CASES {
        let (name, placeholder) = (case.name(), case.placeholder());
        for speaks in [Speaks::Http1, Speaks::Http2] {
            // It arrives; the origin fails; the path is refused; the host is another one; it cannot be
            // reached; its certificate is not believed.
            for (host, path, expected) in [
                (HOST, "/fine", 200),
                (HOST, "/broken", 500),
                (HOST, "/echo", 200),
                (HOST, "/unhappy", 500),
                (HOST, "/away", 302),
                (HOST, "/denied/fine", 403),
                ("other.example.com", "/fine", 403),
                ("down.example.com", "/fine", 502),
                ("untrusted.example.com", "/fine", 502),
            ] {
                let request = case.request(host, path, &placeholder);
                let (status, seen) = send(&door, speaks, host, request).await;
                // Bodies are text to hosts that no body placement belongs to.
                let text_only = case.place == Place::Body && host == "other.example.com";
                let expected = if text_only { 401 } else { expected };
                assert_eq!(
                    status,
                    expected,
                    "{name} {host}{path}: {}",
                    String::from_utf8_lossy(&seen)
                );
                agents.add(format!("the answer to {name} {host}{path}"), seen);
            }
            for foreign in FOREIGN {
                let request = case.request(HOST, "/fine", foreign);
                let (status, seen) = send(&door, speaks, HOST, request).await;
                assert!((400..500).contains(&status), "{name} {foreign}: {status}");
                agents.add(format!("the answer to a foreign key in {name}"), seen);
            }
        }
        abort(&door, case).await;
        for (what, bytes) in malformed(case) {
            agents.add(
                format!("the answer to {what}"),
                say_last(tunnel::tls(&door, HOST, &[b"http/1.1"]).await, &bytes).await,
            );
        }
        agents.add("the base-URL door", by_route(&proxy, case).await);
    }
    for foreign in FOREIGN {
        for target in [
            format!("/{foreign}/fine"),
            format!("/denied/{foreign}"),
            format!("/fine?token={foreign}"),
            format!("/fine?{foreign}"),
            format!("/fine?x={}", foreign.replace('-', "%2D")),
        ] {
            let request =
                Request::get(format!("https://{HOST}{target}")).header("user-agent", *foreign);
            let request = request
                .header("x-api-key", *foreign)
                .body(full(""))
                .unwrap();
            agents.add(
                format!("the answer to {target}"),
                send(&door, Speaks::Http2, HOST, request).await.1,
            );
        }
        agents.add("a plain request", plain(&proxy, foreign).await);
    }
    websocket(&door, &mut agents).await;

    gather(&proxy, &mut hay).await;
    hay.add("what a watcher saw", watching.everything());
    hay.assert_mentions("what a watcher saw", "leak.example.com");
    collector.spans(CASES.len() * 20).await;
    for request in collector.requests() {
        hay.add("spans", request.body.to_vec());
    }
    hay.assert_mentions("spans", "leak.example.com");
    hay.assert_mentions("spans", "[redacted]");
    hay.assert_mentions("the audit log", "credential_used");
    hay.assert_mentions("tollgate denied", "leak.example.com");
    hay.assert_mentions("the access log", r#""credentials":["body"]"#);
    hay.assert_mentions("the access log", "foreign_credential");
    hay.assert_mentions("what it printed", r#""level":"DEBUG""#);
    let printed = proxy.output();
    assert!(
        !printed.contains("rustls::"),
        "libraries stay quiet: {printed}"
    );
    hay.assert_mentions("GET /v1/credentials", r#""name":"cookie""#);
    let mut needles: Vec<Needle> = CASES
        .iter()
        .map(|c| Needle::new(&c.name(), c.secret))
        .collect();
    for own in ["admin.token", "placeholder.key"] {
        let text = fs::read_to_string(proxy.file("state").join(own)).unwrap();
        needles.push(Needle::new(own, text.trim()));
    }
    let key = fs::read_to_string(proxy.file("state/ca.key")).unwrap();
    needles.push(Needle::new("the CA's key", key.lines().nth(1).unwrap()));
    agents.assert_mentions(
        &format!("the answer to bearer {HOST}/echo"),
        "placeholder-bearer-0001",
    );
    agents.assert_free_of(&needles);
    needles.extend(FOREIGN.iter().map(|key| Needle::new("a foreign key", key)));
    hay.assert_free_of(&needles);
}

/// Hangs up in the middle of a request and in the middle of an answer.
async fn abort(door: &Door, case: &Case) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let request = case.request(HOST, "/stream", &case.placeholder());
    if case.place != Place::Body {
        let mut client = tunnel::http1(door, HOST).await;
        let mut request = request;
        request
            .headers_mut()
            .insert(header::HOST, HOST.parse().unwrap());
        *request.uri_mut() = request
            .uri()
            .path_and_query()
            .unwrap()
            .to_string()
            .parse()
            .unwrap();
        let mut answer = client.send_request(request).await.unwrap();
        answer.body_mut().frame().await.unwrap().unwrap();
    }
    let never = futures_util::stream::once(async move {
        receiver.await.ok();
        Frame::data("".into())
    });
    let (head, _) = case
        .request(HOST, "/fine", &case.placeholder())
        .into_parts();
    let mut client = tunnel::http2(door, HOST).await;
    let sending = client.send_request(Request::from_parts(head, streamed(never)));
    tokio::time::timeout(std::time::Duration::from_millis(50), sending)
        .await
        .ok();
    drop(sender);
}

/// Requests with more than one reading, or none.
fn malformed(case: &Case) -> Vec<(String, String)> {
    let (name, key, foreign) = (case.name(), case.placeholder(), FOREIGN[0]);
    let host = format!("host: {HOST}\r\n");
    let heads = [
        format!("GET /fine HTTP/1.1\r\n{host}x-key: {key}\r\nx-key: {foreign}\r\n\r\n"),
        format!("GET /bot{key}/{foreign} HTTP/1.1\r\n{host}host: {foreign}\r\n\r\n"),
        format!(
            "POST /fine?key={key} HTTP/1.1\r\n{host}authorization: Bearer {key}\r\n\
             content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "GET /fine HTTP/1.1\r\n{host}authorization: Basic !!{foreign}!!\r\ncookie: session={key}\r\n\r\n"
        ),
        format!("NONSENSE {foreign} {key}\r\n\r\n"),
        format!("GET /{foreign} HTTP/9.9\r\n{host}x-key: {key}\r\n\r\n"),
        format!("GET /fine HTTP/1.1\r\n{host}{foreign}: {key}\r\n bad {foreign}\r\n\r\n"),
        format!(
            "GET /fine HTTP/1.1\r\n{host}x-long: {}\r\n\r\n",
            foreign.repeat(2000)
        ),
    ];
    let number = |(index, head)| (format!("malformed request {index} of {name}"), head);
    heads.into_iter().enumerate().map(number).collect()
}

/// The same over the base-URL door; and over the forward door in the clear, which is refused.
async fn by_route(proxy: &Proxy, case: &Case) -> Vec<u8> {
    let mut seen = Vec::new();
    let authority = proxy.addr.to_string();
    for (prefix, host) in [
        ("/leak", authority.as_str()),
        ("http://leak.example.com", HOST),
    ] {
        let (head, body) = case
            .request(HOST, "/fine", &case.placeholder())
            .into_parts();
        let mut text = format!(
            "POST {prefix}{} HTTP/1.1\r\nhost: {host}\r\n",
            head.uri.path_and_query().unwrap()
        );
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        let body = body.collect().await.unwrap().to_bytes();
        text.push_str(&format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        ));
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        let status = match prefix {
            "/leak" => "HTTP/1.1 200",
            _ => "HTTP/1.1 403",
        };
        let shown = String::from_utf8_lossy(&back);
        assert!(
            shown.starts_with(status),
            "{} {prefix}: {shown}",
            case.name()
        );
        seen.extend(back);
    }
    seen
}

/// What a confused client says to the port itself.
async fn plain(proxy: &Proxy, foreign: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    for line in [
        format!("GET /{foreign}/v1 HTTP/1.1\r\nhost: {foreign}\r\n\r\n"),
        format!("GET http://{foreign}@{HOST}/ HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
        format!("CONNECT {foreign}@{HOST}:443 HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
        format!("CONNECT {HOST}:443 HTTP/1.1\r\nproxy-authorization: Bearer {foreign}\r\n\r\n"),
        format!("{foreign}\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let answer = wire::say(&mut stream, line.as_bytes()).await;
        seen.extend(format!("{:?}", answer.headers).into_bytes());
        seen.extend(answer.body);
    }
    seen
}

async fn websocket(door: &Door, hay: &mut Haystack) {
    for case in CASES.iter().filter(|case| case.place != Place::Body) {
        let (head, _) = case.request(HOST, "/ws", &case.placeholder()).into_parts();
        let url = format!("wss://{HOST}{}", head.uri.path_and_query().unwrap());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in &head.headers {
            if name != header::CONTENT_TYPE {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let stream = tunnel::tls(door, HOST, &[b"http/1.1"]).await;
        let (mut socket, answer) = client_async(request, stream).await.unwrap();
        hay.add("a WebSocket's handshake", format!("{:?}", answer.headers()));
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::text("hello")
        );
    }
}

/// Everything an operator, a collector or another process can see.
async fn gather(proxy: &Proxy, hay: &mut Haystack) {
    for path in [
        "/livez",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/credentials",
        "/v1/policy",
        "/v1/ca",
        "/v1/environment?agent=agent",
        "/v1/why?url=https://leak.example.com/fine&method=POST",
        "/v1/why?url=https://elsewhere.example.com/",
        "/nothing",
    ] {
        hay.add(format!("GET {path}"), proxy.admin("GET", path).await.text);
    }
    hay.add(
        "POST /v1/reload",
        proxy.admin("POST", "/v1/reload").await.text,
    );
    let url = "https://leak.example.com/fine";
    for args in [
        &["creds", "list"][..],
        &["creds", "list", "-o", "json"],
        &["creds", "check", "-o", "short"],
        &["check"],
        &["check", "-o", "json"],
        &["why", url],
        &["why", url, "-X", "POST", "-o", "json"],
        &["why", url, "--running"],
        &["env"],
        &["env", "--format", "k8s"],
        &["ca", "show", "-o", "json"],
        &["ca", "export"],
        &["healthcheck", "--ready"],
        &["denied"],
        &["denied", "--json"],
        &["audit", "list", "--json"],
        &["audit", "verify"],
        &["spend"],
        &["budget", "show"],
        &["--help"],
    ] {
        let mut home = BTreeMap::new();
        for case in CASES
            .iter()
            .filter(|case| matches!(case.source, Source::Env))
        {
            // As the operator's own shell has it.
            home.insert(
                format!("SECRET_{}", case.name().to_uppercase()),
                case.secret.to_owned(),
            );
        }
        home.insert("TOLLGATE_LOG".to_owned(), "trace".to_owned());
        let mut command = tollgate(&proxy.file("."), &home);
        command.args(args).arg("--config").arg(&proxy.config);
        command.arg("--admin").arg(proxy.admin.to_string());
        let finished = finish(command).await;
        assert!(matches!(finished.code, Some(0)), "{args:?}: {finished:?}");
        hay.add(
            format!("tollgate {}", args.join(" ")),
            finished.stdout + &finished.stderr,
        );
    }
    process(proxy.pid(), hay);
    // The log is complete when the process is gone; but its files are gone with it as well.
    proxy.signal("-HUP").await;
    proxy.access_log(CASES.len() * 20).await;
    hay.add(
        "the access log",
        fs::read(proxy.file("access.log")).unwrap(),
    );
    hay.add("what it printed", proxy.output());
    hay.add(
        "the audit log",
        fs::read(proxy.file("state/audit/audit.jsonl")).unwrap(),
    );
    for file in ["ca.crt", "trust/ca.crt", "trust/bundle.crt"] {
        hay.add(file, fs::read(proxy.file("state").join(file)).unwrap());
    }
}

/// What other processes of the machine see of one.
pub fn process(pid: u32, hay: &mut Haystack) {
    let own = Path::new("/proc").join(pid.to_string());
    for file in ["environ", "cmdline", "comm"] {
        let bytes = fs::read(own.join(file));
        // Not root: the kernel shows nothing of a process that is not dumpable.
        hay.add(format!("/proc/PID/{file}"), bytes.unwrap_or_default());
    }
}

/// The program behind `tollgate run` looks at itself, at its parent, and at what lies around.
#[tokio::test]
async fn a_program_finds_no_secret_in_its_surroundings() {
    let echo = super::support::echo::echo().await;
    let described = proxy().origin(&echo.origin);
    let dir = tempfile::tempdir().unwrap();
    let secret = "run-SENTINEL-6b0d4f2a8c1e";
    let policy = dir.path().join("policy.yaml");
    fs::write(
        &policy,
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: {name: x}\nspec:\n  \
         hosts: [echo.example.com]\n  source: {env: {name: HIDDEN}}\n  placements: [{bearer: {}}]\n  \
         placeholder: {env: [SHOWN]}\n",
    )
    .unwrap();
    let env = [
        ("HIDDEN", secret),
        ("ALSO", secret),
        ("TMPDIR", dir.path().to_str().unwrap()),
    ];
    let env = env.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let script = "env; set; cat /proc/self/environ /proc/$$/environ /proc/$PPID/cmdline; \
        for fd in /proc/$$/fd/*; do case $(readlink $fd) in *sealed*) cat <$fd;; esac; done; \
        find \"$TMPDIR\" -type f ! -name policy.yaml -exec cat {} +; cat /proc/$PPID/environ";
    let mut command = tollgate(dir.path(), &env);
    command
        .args(["-v", "run", "--policy"])
        .arg(&policy)
        .arg("--config")
        .arg(described.write());
    command.args(["--", "sh", "-c", script]);
    let finished = finish(command).await;
    assert!(finished.stdout.contains("SHOWN="), "{finished:?}");
    let mut hay = Haystack::default();
    hay.add("what the program found", finished.stdout + &finished.stderr);
    hay.assert_free_of(&[Needle::new("the secret", secret)]);
}

/// Names are the usual way out where only names are let through.
#[tokio::test]
async fn a_secret_in_the_name_of_a_host_is_in_no_log() {
    // Names of hosts are read in small letters.
    for secret in [
        "f3a91c07be55d2284e6b0c7d91aa34ef5566b1c2",
        "sk-Mirror-0R3al1K3y2Of3The4Or1gin5Zq7",
    ] {
        in_the_name_of_a_host(secret).await;
    }
}

async fn in_the_name_of_a_host(secret: &str) {
    let proxy = proxy()
        .env("HOST_KEY", secret)
        .document(
            "EgressCredential",
            "key",
            "{hosts: ['*.mirror.example.com'], source: {env: {name: HOST_KEY}}, placements: [{bearer: {}}]}",
        )
        .policy("[{hosts: ['*.mirror.example.com'], credentials: [key], tls: Intercept}]")
        .start()
        .await;
    for host in [
        format!("{secret}.example.com"),
        format!("a.{secret}.mirror.example.com"),
        format!("{secret}.mirror.example.com"),
    ] {
        for head in [
            format!("CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        ] {
            let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
            wire::say(&mut stream, head.as_bytes()).await;
        }
    }
    proxy.access_log(6).await;
    until("the audit log has a refusal", PATIENCE, async || {
        let log = fs::read_to_string(proxy.file("state/audit/audit.jsonl"));
        log.is_ok_and(|log| log.contains("redacted.invalid"))
    })
    .await;
    let mut hay = Haystack::default();
    for file in ["access.log", "state/audit/audit.jsonl"] {
        hay.add(file, fs::read(proxy.file(file)).unwrap());
        hay.assert_mentions(file, "redacted.invalid");
    }
    hay.add("what it printed", proxy.output());
    let small = secret.to_ascii_lowercase();
    hay.assert_free_of(&[
        Needle::new("the key", secret),
        Needle::new("the key in small letters", &small),
    ]);
}
