//! HTTP/2 requests that are malformed, or that would mean something else in HTTP/1.1 (RFC 9113, sections 8.1 to 8.5):
//! no origin sees them, whichever protocol it speaks.

use super::support::frames::{
    self, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, HEADERS, PROTOCOL_ERROR, Peer,
    block, frame, request,
};
use super::support::scene::{self, HOST, PLACEHOLDER, REAL_KEY, Scene};
use super::support::tape::{self, Tape};

type Fields = Vec<(&'static str, &'static str)>;

/// The fields of a request to `HOST`, with others behind.
fn with(extra: &[(&'static str, &'static str)]) -> Fields {
    let mut fields = request("GET", HOST, "/v1/x").to_vec();
    fields.extend(extra);
    fields
}

/// The same with another value for one field.
fn but(name: &str, value: &'static str) -> Fields {
    let mut fields = with(&[]);
    fields.iter_mut().find(|(n, _)| *n == name).unwrap().1 = value;
    fields
}

/// The same without one field.
fn without(name: &str) -> Fields {
    let mut fields = with(&[]);
    fields.retain(|(n, _)| *n != name);
    fields
}

const MALFORMED: Fate = Fate::Reset(PROTOCOL_ERROR);

/// Heads that no origin may see, and what becomes of their streams.
fn heads() -> Vec<(&'static str, Fields, Fate)> {
    let gone = Fate::GoneAway(PROTOCOL_ERROR);
    vec![
        ("no method", without(":method"), MALFORMED),
        ("no path", without(":path"), MALFORMED),
        ("no scheme", without(":scheme"), MALFORMED),
        (
            "no authority and no host",
            without(":authority"),
            Fate::Refused,
        ),
        (
            "two methods",
            [with(&[]), vec![(":method", "GET")]].concat(),
            MALFORMED,
        ),
        (
            "two paths",
            [with(&[]), vec![(":path", "/v1/y")]].concat(),
            MALFORMED,
        ),
        (
            "two authorities",
            [with(&[]), vec![(":authority", HOST)]].concat(),
            MALFORMED,
        ),
        (
            "a pseudo-header field behind another",
            {
                let mut fields = vec![("accept", "*/*")];
                fields.extend(with(&[]));
                fields
            },
            MALFORMED,
        ),
        (
            "an unknown pseudo-header field",
            with(&[(":verb", "GET")]),
            gone.clone(),
        ),
        ("a status", with(&[(":status", "200")]), MALFORMED),
        (
            "another authority",
            but(":authority", "bare.example.com"),
            Fate::Refused,
        ),
        (
            "an authority with a port",
            but(":authority", "echo.example.com:444"),
            Fate::Refused,
        ),
        (
            "an authority with a user",
            but(":authority", "bare.example.com@echo.example.com"),
            Fate::Refused,
        ),
        (
            "an authority with a path",
            but(":authority", "echo.example.com/v2"),
            MALFORMED,
        ),
        (
            "an authority with a space",
            but(":authority", "echo.example.com "),
            MALFORMED,
        ),
        ("an empty authority", but(":authority", ""), MALFORMED),
        (
            "another host",
            with(&[("host", "bare.example.com")]),
            Fate::Refused,
        ),
        (
            "two hosts",
            with(&[("host", HOST), ("host", HOST)]),
            Fate::Refused,
        ),
        (
            "a list of hosts",
            with(&[("host", "echo.example.com, bare.example.com")]),
            Fate::Refused,
        ),
        (
            "the scheme of cleartext",
            but(":scheme", "http"),
            Fate::Refused,
        ),
        ("another scheme", but(":scheme", "file"), Fate::Refused),
        (
            "a scheme that is none",
            but(":scheme", "https://echo.example.com/"),
            MALFORMED,
        ),
        ("an empty scheme", but(":scheme", ""), Fate::Refused),
        ("an empty path", but(":path", ""), MALFORMED),
        ("a path without a slash", but(":path", "v1/x"), MALFORMED),
        (
            "a path that is a URI",
            but(":path", "https://bare.example.com/v1/x"),
            MALFORMED,
        ),
        (
            "a path that joins the host",
            but(":path", ".evil.example.org/v1/x"),
            MALFORMED,
        ),
        (
            "a path that makes the host a user",
            but(":path", "@evil.example.org/"),
            MALFORMED,
        ),
        (
            "a path that is a port",
            but(":path", ":444/v1/x"),
            MALFORMED,
        ),
        ("an asterisk", but(":path", "*"), Fate::Refused),
        (
            "a path with a space",
            but(":path", "/v1/x HTTP/1.1"),
            MALFORMED,
        ),
        (
            "a path with lines",
            but(":path", "/v1/x HTTP/1.1\r\nHost: a\r\n\r\n"),
            MALFORMED,
        ),
        ("a path with NUL", but(":path", "/v1/\0"), MALFORMED),
        (
            "a method with a space",
            but(":method", "GET /v2/x"),
            gone.clone(),
        ),
        (
            "a method with lines",
            but(":method", "GET / HTTP/1.1\r\n\r\nGET"),
            gone.clone(),
        ),
        ("an empty method", but(":method", ""), gone.clone()),
        ("TRACE", but(":method", "TRACE"), Fate::Refused),
        (
            "CONNECT",
            vec![
                (":method", "CONNECT"),
                (":authority", "echo.example.com:443"),
            ],
            Fate::Refused,
        ),
        ("CONNECT with a path", but(":method", "CONNECT"), MALFORMED),
        (
            "extended CONNECT",
            {
                let mut fields = but(":method", "CONNECT");
                fields.push((":protocol", "websocket"));
                fields
            },
            MALFORMED,
        ),
        (
            "a protocol without CONNECT",
            with(&[(":protocol", "websocket")]),
            MALFORMED,
        ),
        (
            "a protocol",
            [with(&[]), vec![(":protocol", "h2c")]].concat(),
            MALFORMED,
        ),
        ("Connection", with(&[("connection", "close")]), MALFORMED),
        (
            "Connection that lists a credential",
            with(&[("connection", "authorization")]),
            MALFORMED,
        ),
        (
            "Keep-Alive",
            with(&[("keep-alive", "timeout=5")]),
            MALFORMED,
        ),
        (
            "Proxy-Connection",
            with(&[("proxy-connection", "keep-alive")]),
            MALFORMED,
        ),
        (
            "Transfer-Encoding",
            with(&[("transfer-encoding", "chunked")]),
            MALFORMED,
        ),
        ("Upgrade", with(&[("upgrade", "websocket")]), MALFORMED),
        ("TE", with(&[("te", "gzip")]), MALFORMED),
        (
            "TE among others",
            with(&[("te", "trailers, gzip")]),
            MALFORMED,
        ),
        ("capital letters", with(&[("X-Large", "1")]), gone.clone()),
        (
            "a name with a space",
            with(&[("content-length ", "0")]),
            gone.clone(),
        ),
        ("a name with a colon", with(&[("x:y", "1")]), gone.clone()),
        (
            "a name with lines",
            with(&[("x: y\r\nhost", "1")]),
            gone.clone(),
        ),
        ("an empty name", with(&[("", "1")]), gone.clone()),
        (
            "a value with lines",
            with(&[("x-a", "1\r\nauthorization: Bearer b")]),
            gone.clone(),
        ),
        (
            "a value with a request",
            with(&[("x-a", "1\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: a")]),
            gone.clone(),
        ),
        (
            "a value with LF",
            with(&[("x-a", "1\ntransfer-encoding: chunked")]),
            gone.clone(),
        ),
        ("a value with CR", with(&[("x-a", "1\r2")]), gone.clone()),
        ("a value with NUL", with(&[("x-a", "1\x002")]), gone.clone()),
        ("a value with DEL", with(&[("x-a", "1\x7f2")]), gone),
        (
            "a length without a body",
            with(&[("content-length", "5")]),
            MALFORMED,
        ),
        (
            "a length that is none",
            with(&[("content-length", "five")]),
            MALFORMED,
        ),
        (
            "a length with a sign",
            with(&[("content-length", "+0")]),
            MALFORMED,
        ),
        (
            "a length in a list",
            with(&[("content-length", "0, 0")]),
            MALFORMED,
        ),
        (
            "lengths that differ",
            with(&[("content-length", "0"), ("content-length", "1")]),
            MALFORMED,
        ),
        (
            "a length twice",
            with(&[("content-length", "0"), ("content-length", "0")]),
            Fate::Refused,
        ),
        (
            "a length spelt otherwise",
            with(&[("content_length", "5")]),
            Fate::Refused,
        ),
        (
            "an encoding spelt otherwise",
            with(&[("transfer_encoding", "chunked")]),
            Fate::Refused,
        ),
        (
            "an expectation of another kind",
            with(&[("expect", "200-ok")]),
            Fate::Refused,
        ),
        (
            "another path in a field",
            with(&[("x-original-url", "/v2/x")]),
            Fate::Refused,
        ),
    ]
}

/// A proxy before an origin that speaks HTTP/1.1 and keeps what it gets.
async fn bridge() -> (Scene, Tape) {
    let (origin, tape) = tape::origin(&[HOST, scene::PATHS, scene::BARE, scene::TUNNEL]).await;
    let proxy = scene::in_front_of(&origin).start().await;
    (Scene::with(origin, proxy).await, tape)
}

#[tokio::test]
async fn malformed_heads_reach_no_origin() {
    let (bridge, tape) = bridge().await;
    let straight = Scene::new().await;
    let mut wrong = Vec::new();
    for scene in [&straight, &bridge] {
        for (case, fields, fate) in heads() {
            let mut agent = Peer::agent(&scene.door, HOST).await;
            let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
            agent.send(&head).await;
            let came = agent.fate(1).await;
            if came != fate {
                wrong.push(format!("{case}: {came:?}, not {fate:?}"));
            }
            if !matches!(came, Fate::GoneAway(_)) {
                agent.send(&frames::get(3, HOST, "/v1/honest")).await;
                assert_eq!(agent.fate(3).await, Fate::Fine, "after {case}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for request in straight.origin.requests() {
        assert_eq!(request.target, "/v1/honest", "{request:#?}");
    }
    let honest = format!("GET /v1/honest HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let all = tape.all();
    assert!(all.starts_with(&honest), "{all}");
    assert_eq!(all.replace(&honest, ""), "");
}

/// What is on its way cannot be called back, but it never looks whole, and nothing follows it.
#[tokio::test]
async fn bodies_that_disagree_with_their_length_never_look_whole() {
    let (scene, tape) = bridge().await;
    let smuggled = format!("GET /v1/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for (case, length, pieces) in [
        ("less", "100", vec!["x", ""]),
        ("more", "5", vec!["hello", &smuggled]),
        ("more at once", "5", vec![&*format!("hello{smuggled}")]),
        ("more, piece by piece", "5", vec!["hello", "G", "ET / "]),
        ("none", "0", vec![&smuggled]),
    ] {
        let mut fields = request("POST", HOST, "/v1/x").to_vec();
        fields.push(("content-length", length));
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        let last = pieces.len() - 1;
        for (number, piece) in pieces.iter().enumerate() {
            let flags = if number == last { END_STREAM } else { 0 };
            bytes.extend(frame(DATA, flags, 1, piece.as_bytes()));
        }
        let mut agent = Peer::agent(&scene.door, HOST).await;
        agent.send(&bytes).await;
        // It may be answered before the fault in its body shows.
        let fate = agent.fate(1).await;
        assert!(
            matches!(fate, MALFORMED | Fate::Refused | Fate::Fine),
            "{case}: {fate:?}"
        );
        agent.send(&frames::get(3, HOST, "/v1/honest")).await;
        assert_eq!(agent.fate(3).await, Fate::Fine, "after {case}");
    }
    for connection in tape.connections() {
        assert!(!connection.contains("smuggled"), "{connection}");
        let requests = connection.matches("HTTP/1.1\r\n").count();
        let whole = connection.matches("/v1/honest").count();
        let cut = connection.find("POST").map(|at| &connection[at..]);
        // A request that was cut is the last on its connection, unless its length was told to be none.
        assert!(
            cut.is_none_or(|cut| cut.matches("HTTP/1.1\r\n").count() == 1
                || cut.contains("content-length: 5\r\n\r\nhello")),
            "{connection}"
        );
        assert!(requests >= whole);
    }
}

/// Some servers read trailers as headers: none may bring a credential, or speak of the framing.
#[tokio::test]
async fn trailers_of_http2_bring_no_credential_and_no_framing() {
    let (bridge, tape) = bridge().await;
    let straight = Scene::new().await;
    let mut fields = request("POST", HOST, "/v1/x").to_vec();
    fields.push(("trailer", "x-checksum, authorization, content-length"));
    let trailers = [
        ("authorization", "Bearer attacker"),
        ("x-api-key", PLACEHOLDER),
        ("cookie", "session=attacker"),
        ("content-length", "5"),
        ("content_length", "5"),
        ("transfer_encoding", "chunked"),
        ("host", "bare.example.com"),
        ("x-checksum", "1"),
    ];
    let whole = [
        frame(HEADERS, END_HEADERS, 1, &block(&fields)),
        frame(DATA, 0, 1, b"hi"),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&trailers)),
    ];
    for scene in [&straight, &bridge] {
        let mut agent = Peer::agent(&scene.door, HOST).await;
        agent.send(&whole.concat()).await;
        assert_eq!(agent.fate(1).await, Fate::Fine);
    }
    let seen = straight.origin.wait_for("the body", |r| r.complete).await;
    assert_eq!(seen.body, b"hi");
    assert_eq!(seen.trailers, [("x-checksum".to_owned(), "1".to_owned())]);
    let all = tape.all();
    let (_, body) = all.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "2\r\nhi\r\n0\r\nx-checksum: 1\r\n\r\n");
    assert!(
        !all.contains(REAL_KEY) && !all.contains("attacker"),
        "{all}"
    );
}

#[tokio::test]
async fn trailers_that_are_none_break_the_request_off() {
    let scene = Scene::new().await;
    let post = block(&request("POST", HOST, "/v1/x"));
    for (case, flags, fields) in [
        (
            "a method",
            END_STREAM | END_HEADERS,
            vec![("x-a", "1"), (":method", "GET")],
        ),
        (
            "Connection",
            END_STREAM | END_HEADERS,
            vec![("connection", "x-a")],
        ),
        ("no end", END_HEADERS, vec![("x-a", "1")]),
    ] {
        let mut agent = Peer::agent(&scene.door, HOST).await;
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &post),
            frame(DATA, 0, 1, b"hi"),
            frame(HEADERS, flags, 1, &block(&fields)),
        ];
        agent.send(&bytes.concat()).await;
        assert_ne!(agent.fate(1).await, Fate::Fine, "{case}");
    }
    assert!(scene.origin.requests().iter().all(|r| !r.complete));
    // The library leaves these out where nothing stands before them.
    let mut agent = Peer::agent(&scene.door, HOST).await;
    let pseudo = block(&[(":path", "/v1/y"), (":authority", "bare.example.com")]);
    let bytes = [
        frame(HEADERS, END_HEADERS, 1, &post),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &pseudo),
    ];
    agent.send(&bytes.concat()).await;
    assert_eq!(agent.fate(1).await, Fate::Fine);
    let seen = scene.origin.wait_for("the end", |r| r.complete).await;
    assert_eq!((seen.path(), seen.trailers.len()), ("/v1/x", 0));
}

/// What an HTTP/1.1 origin gets of a sound request: its own framing, and nothing of the other hop.
#[tokio::test]
async fn a_bridged_request_has_one_framing() {
    let (scene, tape) = bridge().await;
    let placeholder = format!("Bearer {PLACEHOLDER}");
    let ask = async |extra: &[(&str, &str)], pieces: &[&str]| {
        tape.clear();
        let mut fields = request("POST", HOST, "/v1/x?a=b%20c").to_vec();
        fields.push(("authorization", &placeholder));
        fields.extend(extra);
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        for piece in pieces {
            bytes.extend(frame(DATA, 0, 1, piece.as_bytes()));
        }
        bytes.extend(frame(DATA, END_STREAM, 1, b""));
        let mut agent = Peer::agent(&scene.door, HOST).await;
        agent.send(&bytes).await;
        assert_eq!(agent.fate(1).await, Fate::Fine);
        tape.all()
    };
    let line = "POST /v1/x?a=b%20c HTTP/1.1\r\n";
    let key = format!("authorization: Bearer {REAL_KEY}\r\n");
    let host = format!("host: {HOST}\r\n");
    assert_eq!(
        ask(&[], &["hel", "lo"]).await,
        format!(
            "{line}{key}{host}transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        )
    );
    assert_eq!(
        ask(&[("content-length", "5")], &["hel", "lo"]).await,
        format!("{line}{key}content-length: 5\r\n{host}\r\nhello")
    );
    assert_eq!(
        ask(
            &[
                ("host", HOST),
                ("te", "trailers"),
                ("http2-settings", "AAMAAABk")
            ],
            &["0\r\n\r\n"]
        )
        .await,
        format!(
            "{line}{key}te: trailers\r\n{host}transfer-encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n"
        )
    );
}

/// Frames out of their order end the connection (RFC 9113, sections 5.1 and 6).
#[tokio::test]
async fn frames_out_of_order_end_the_connection() {
    let scene = Scene::new().await;
    let head = block(&request("GET", HOST, "/v1/x"));
    let half = frame(HEADERS, END_STREAM, 1, &head);
    for (case, bytes) in [
        (
            "a head within a head",
            [
                half.clone(),
                frame(HEADERS, END_STREAM | END_HEADERS, 3, &head),
            ]
            .concat(),
        ),
        (
            "DATA within a head",
            [half.clone(), frame(DATA, 0, 1, b"x")].concat(),
        ),
        (
            "CONTINUATION of another stream",
            [half.clone(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
        ),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &head),
        ),
        ("DATA before a head", frame(DATA, END_STREAM, 1, b"x")),
        (
            "a stream of our own",
            frame(HEADERS, END_STREAM | END_HEADERS, 2, &head),
        ),
        (
            "stream zero",
            frame(HEADERS, END_STREAM | END_HEADERS, 0, &head),
        ),
        (
            "a push",
            frame(
                frames::PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2][..], &head].concat(),
            ),
        ),
        (
            "padding past the end",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | 8,
                1,
                &[&[255][..], &head].concat(),
            ),
        ),
        (
            "a table without end",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[0xbf, 0xff, 0xff, 0xff, 0xff, 0x7f],
            ),
        ),
        (
            "a frame that is too large",
            frame(DATA, 0, 1, &vec![0; 16_385]),
        ),
        (
            "settings of an odd length",
            frame(frames::SETTINGS, 0, 0, &[0; 5]),
        ),
        (
            "a ping of an odd length",
            frame(frames::PING, 0, 0, &[0; 7]),
        ),
    ] {
        let mut agent = Peer::agent(&scene.door, HOST).await;
        agent.send(&bytes).await;
        let fate = agent.fate(1).await;
        assert!(matches!(fate, Fate::GoneAway(_)), "{case}: {fate:?}");
    }
    assert!(scene.origin.requests().is_empty());
    let mut agent = Peer::agent(&scene.door, HOST).await;
    let rest = head.split_at(10);
    agent.send(&frame(HEADERS, END_STREAM, 1, rest.0)).await;
    agent
        .send(&frame(CONTINUATION, END_HEADERS, 1, rest.1))
        .await;
    assert_eq!(agent.fate(1).await, Fate::Fine, "in two frames");
    agent
        .send(&frame(frames::RST_STREAM, 0, 1, &CANCEL.to_be_bytes()))
        .await;
    agent.send(&frames::get(3, HOST, "/v1/x")).await;
    assert_eq!(
        agent.fate(3).await,
        Fate::Fine,
        "after a reset that was late"
    );
}
