use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<(), Violation> {
    feed(&mut Framing::default(), text.as_bytes())
}

/// One request after the other.
fn feed(framing: &mut Framing, mut bytes: &[u8]) -> Result<(), Violation> {
    while !bytes.is_empty() {
        bytes = &bytes[framing.feed(bytes)?..];
    }
    Ok(())
}

#[test]
fn ordinary_requests_have_one_reading() {
    for good in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent+Length: 5\r\nContent_Lengths: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\n\0\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n5;x=y\r\nhe\nlo\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 0\r\n\r\n\x16\x03\x01 \n anything",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\x01\x02\n\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(read(good), Ok(()), "{good:?}");
    }
}

#[test]
fn a_body_before_an_upgrade_is_followed_like_any_other() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\n";
    let mut framing = Framing::default();
    framing.feed(head.as_bytes()).unwrap();
    assert!(framing.within_body() && !framing.is_opaque());
    framing.feed(b"abc").unwrap();
    assert!(framing.is_opaque());
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(read(chunked), Err(Violation::Chunk));
}

#[test]
fn ambiguous_requests_are_named() {
    use Violation::*;
    for (text, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            LengthAndEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            LengthAndEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
            Name,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nAccept: a\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Folding),
        ("GET / HTTP/1.1\nHost: a\n\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x1bb\r\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Name),
        ("GET / HTTP/1.1\r\nHost: a\r\n: nameless\r\n\r\n", Name),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", RequestLine),
        ("GET /\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\n", RequestLine),
        ("GET / x HTTP/1.1\r\n", RequestLine),
        ("GET /\x01 HTTP/1.1\r\n", RequestLine),
        ("G{T / HTTP/1.1\r\n", RequestLine),
        ("\x16\x03\x01\x02", RequestLine),
        ("GET / HTTP/1.2\r\n", RequestLine),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 5\r\n\r\n",
            ConnectBody,
        ),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTransfer-Encoding: chunked\r\n\r\n",
            ConnectBody,
        ),
        ("GET http:// HTTP/1.1\r\n", Target),
        ("CONNECT [::1:443 HTTP/1.1\r\n", Target),
        ("CONNECT a\u{e4}:443 HTTP/1.1\r\n", Target),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
            Chunk,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
            Chunk,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 6\r\n",
            Chunk,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\x0c\r\n",
            Chunk,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA : b\r\n",
            Name,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0cchunked\r\n\r\n",
            LineEnd,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: identity\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer_encoding: chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n",
            ContentLength,
        ),
        ("\r\n\r\n\r\n", RequestLine),
        // Without its end.
        (" ", RequestLine),
        ("\t", RequestLine),
        ("G\r", RequestLine),
        ("\r\n ", RequestLine),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551614\r\n\r\n",
            ContentLength,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n\r\n", RequestLine),
    ] {
        assert_eq!(read(text), Err(expected), "{text:?}");
    }
}

#[test]
fn heads_have_a_bound() {
    let head = |fields: String| read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(head("X: y\r\n".repeat(99)), Ok(()));
    assert_eq!(head("X: y\r\n".repeat(100)), Err(Violation::TooManyFields));
    assert_eq!(head(format!("X: {}\r\n", "y".repeat(65_000))), Ok(()));
    for large in [66_000, 10_000_000] {
        let field = format!("X: {}", "y".repeat(large));
        assert_eq!(head(field.clone() + "\r\n"), Err(Violation::HeadTooLarge));
        assert_eq!(head(field), Err(Violation::HeadTooLarge), "without its end");
    }
    let half = format!("X: {}\r\n", "y".repeat(33_000));
    assert_eq!(head(half.repeat(2)), Err(Violation::HeadTooLarge));
    let line = format!("GET /{}", "y".repeat(70_000));
    assert_eq!(read(&line), Err(Violation::HeadTooLarge));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (more, expected) in [(0, Ok(())), (1, Err(Violation::LongTrailers))] {
        let value = "y".repeat(LONGEST_TRAILERS - "X: \r\n\r\n".len() + more);
        let trailers = format!("{chunked}0\r\nX: {value}\r\n\r\n");
        assert_eq!(read(&trailers), expected);
        let extension = "y".repeat(LONGEST_EXTENSIONS - ";;".len() + more);
        let body = format!("{chunked}1;{extension}\r\na\r\n1;\r\nb\r\n0\r\n\r\n");
        let expected = expected.map_err(|_| Violation::LongExtensions);
        assert_eq!(read(&body), expected);
    }
    let mut small = Framing::new(RequestLimits {
        head_size: 8 << 10,
        ..RequestLimits::default()
    });
    let trailers = format!("{chunked}0\r\nX: {}\r\n", "y".repeat(8 << 10));
    assert_eq!(
        feed(&mut small, trailers.as_bytes()),
        Err(Violation::HeadTooLarge)
    );
    let trailers = |count| read(&format!("{chunked}0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    assert_eq!(trailers(100), Ok(()));
    assert_eq!(trailers(101), Err(Violation::TooManyFields));
}

/// What `http` cannot hold has a bound of its own, that no setting moves.
#[test]
fn names_and_targets_are_no_longer_than_the_library_makes_them() {
    let read = |line: String| {
        let limits = RequestLimits {
            head_size: 1 << 20,
            ..RequestLimits::default()
        };
        let head = format!("{line}\r\nHost: a\r\n\r\n");
        feed(&mut Framing::new(limits), head.as_bytes())
    };
    for (more, expected) in [(0, Ok(())), (1, Err(Violation::LongTarget))] {
        let target = "/".repeat(LONGEST_TARGET + more);
        assert!(Uri::try_from(target.as_str()).is_ok() == expected.is_ok());
        assert_eq!(read(format!("GET {target} HTTP/1.1")), expected);
    }
    for (more, expected) in [(0, Ok(())), (1, Err(Violation::LongName))] {
        let name = "n".repeat(LONGEST_NAME + more);
        let made = http::HeaderName::from_bytes(name.as_bytes());
        assert!(made.is_ok() == expected.is_ok());
        assert_eq!(read(format!("GET / HTTP/1.1\r\n{name}: a")), expected);
    }
}

/// Whoever speaks another protocol may wait for an answer before it ends a line.
#[test]
fn a_first_word_that_is_no_method_is_refused_before_its_line_has_ended() {
    for (good, text) in [
        (true, "GET"),
        (true, "GET  \x01"),
        (true, "\r"),
        (true, "\r\nG"),
        (false, "\x16\x03\x01"),
        (false, "GE\x01"),
        (false, "\r\n\x05"),
    ] {
        let mut framing = Framing::default();
        let whole = feed(&mut framing, text.as_bytes());
        assert_eq!(whole.is_ok(), good, "{text:?}");
        let mut framing = Framing::default();
        let cut = text
            .bytes()
            .try_for_each(|octet| feed(&mut framing, &[octet]));
        assert_eq!(cut, whole, "{text:?}");
    }
}

#[test]
fn requests_are_read_one_by_one() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut framing = Framing::default();
    assert!(framing.is_between());
    for request in [&get[..], post, &[b"\r\n", &get[..]].concat()] {
        let bytes = [request, b"\0behind"].concat();
        assert_eq!(framing.feed(&bytes), Ok(request.len()));
        assert!(framing.is_between());
    }
    assert_eq!(framing.feed(b"\r\n"), Ok(2));
    assert!(!framing.is_between());
    let bytes = [connect, &b"\x16\x03\x01"[..]].concat();
    assert_eq!(framing.feed(&bytes), Ok(bytes.len()), "it is the tunnel's");
}

#[test]
fn a_head_is_sound_once_it_is_whole_and_a_body_as_it_comes() {
    let mut framing = Framing::default();
    for (piece, sound) in [
        ("\r\n", 0),
        ("GET / HTTP/1.1\r\nHo", 0),
        ("st: a\r\n\r", 0),
        (
            "\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5",
            85,
        ),
        ("\r\nhel", 91),
        ("lo\r\n0", 95),
        ("\r\nA: b", 98),
        ("\r\n\r\n\r\nGET", 106),
    ] {
        feed(&mut framing, piece.as_bytes()).unwrap();
        assert_eq!(framing.sound(), sound, "{piece:?}");
    }
    framing.feed(b" / HTTP/1.1\r\n : x\r\n").unwrap_err();
    assert_eq!(framing.sound(), 106);
}

proptest! {
    /// Its refusals tell nobody why.
    #[test]
    fn the_library_refuses_no_head_that_is_sound(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "GET", "/", " ", "HTTP/1.1", "\r\n", "\r", "\n", "Host", ":", "a", "\t", "\0", "\x7f", "{", "H", "é",
                "GET / HTTP/1.1\r\n", "Host: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ]),
            1..12,
        ),
    ) {
        let text = words.concat();
        let mut framing = Framing::default();
        feed(&mut framing, text.as_bytes()).ok();
        let mut rest = &text.as_bytes()[..usize::try_from(framing.sound()).unwrap()];
        for _ in 0..framing.heads() {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let read = httparse::Request::new(&mut fields).parse(rest);
            let Ok(httparse::Status::Complete(length)) = read else {
                panic!("{:?}: {read:?}", rest.escape_ascii().to_string());
            };
            rest = &rest[length..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn where_reads_are_cut_makes_no_difference(cuts in prop::collection::vec(1usize..20, 1..40), bad: bool) {
        let mut text = String::from(
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhe\nlo\r\n0\r\nA: b\r\n\r\n\
             POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\n\n",
        );
        if bad {
            text.push_str("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n");
        }
        let mut framing = Framing::default();
        let mut result = Ok(());
        let (mut rest, mut at) = (text.as_bytes(), 0);
        while !rest.is_empty() && result.is_ok() {
            let (now, later) = rest.split_at(cuts[at % cuts.len()].min(rest.len()));
            result = feed(&mut framing, now);
            rest = later;
            at += 1;
        }
        prop_assert_eq!(result, if bad { Err(Violation::Folding) } else { Ok(()) });
    }
}
