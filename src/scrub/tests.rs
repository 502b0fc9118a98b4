//! Every form of a secret, cut at every octet, under every coding and framing, against a search of the whole
//! text that knows nothing of how the other one works.

use std::collections::VecDeque;
use std::sync::Arc;

use async_compression::Level;
use async_compression::tokio::bufread::{
    BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use async_compression::tokio::write::ZstdEncoder as ZstdWriter;
use async_compression::zstd::CParameter;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::coding::Coding;
use super::decoder::{Decoder, Undecodable};
use super::head::{self, Readable};
use super::needles::Needles;
use super::stand_in::Fit;
use super::stream::Scrubber;
use super::websocket::ServerFrames;

/// A provider's key, one of Telegram, one with everything that is escaped somewhere, and one that begins so.
const PAIRS: [(&str, &str); 4] = [
    (
        "sk-ant-api03-Zq7T_x-R4n0mB0dyKn0ws9AA",
        "sk-ant-api03-pL4ceh0ld_r-f0rTh3Ag3nAA",
    ),
    (
        "7741852963:AAHkR4nd0mTe1egr4mT0kenV4lue",
        "1234567890:AAp1aceh0lderOfTheAgent0Here",
    ),
    (
        "pa/ss+wo=rd&with<every>\"thing\\'%in:it",
        "placeholder~with-the_same.length:her!",
    ),
    ("/+/+slashes/and+plus", "placeholder-number-4"),
];

fn needles(pairs: &[(&str, &str)]) -> Arc<Needles> {
    let texts = pairs.iter().map(|(s, p)| (s.as_bytes(), p.as_bytes()));
    Arc::new(Needles::new(texts))
}

fn all() -> Arc<Needles> {
    needles(&PAIRS)
}

/// A text in every form that does not depend on its neighbours.
fn forms(text: &str) -> Vec<(&'static str, String)> {
    let bytes = text.as_bytes();
    let each = |write: &dyn Fn(u8) -> String| bytes.iter().map(|b| write(*b)).collect::<String>();
    let percent = percent_encode(bytes, NON_ALPHANUMERIC).to_string();
    let json = serde_json::Value::from(text).to_string();
    let json = json.trim_matches('"').to_owned();
    let special = |byte: u8| !byte.is_ascii_alphanumeric();
    let coded = |byte: u8, write: String| match special(byte) {
        true => write,
        false => char::from(byte).to_string(),
    };
    let in_json = |json: &str| json.replace('\\', "\\\\").replace('"', "\\\"");
    let with_slashes = json.replace('/', "\\/");
    let code_points = each(&|b| coded(b, format!("\\u{b:04x}")));
    vec![
        ("raw", text.to_owned()),
        ("percent", percent.clone()),
        ("percent, twice", percent.replace('%', "%25")),
        ("percent, small", each(&|b| coded(b, format!("%{b:02x}")))),
        ("percent, all", each(&|b| format!("%{b:02X}"))),
        ("percent, all, small", each(&|b| format!("%{b:02x}"))),
        ("JSON, code points", each(&|b| format!("\\u{b:04x}"))),
        (
            "JSON, code points, capitals",
            each(&|b| format!("\\u{b:04X}")),
        ),
        ("JSON, some code points", code_points.clone()),
        ("JSON", json.clone()),
        ("JSON with slashes", with_slashes.clone()),
        ("JSON in JSON", in_json(&json)),
        ("JSON with slashes in JSON", in_json(&with_slashes)),
        (
            "JSON in JSON with slashes",
            in_json(&with_slashes).replace('/', "\\/"),
        ),
        ("JSON in JSON in JSON", in_json(&in_json(&with_slashes))),
        ("JSON, some code points, in JSON", in_json(&code_points)),
        (
            "JSON in JSON with a code point for quotes",
            json.replace('\\', "\\\\").replace('"', "\\u0022"),
        ),
        (
            "JSON in JSON, all code points",
            in_json(&each(&|b| format!("\\u{b:04x}"))),
        ),
        ("HTML, decimal", each(&|b| coded(b, format!("&#{b};")))),
        (
            "HTML, decimal, long",
            each(&|b| coded(b, format!("&#{b:05};"))),
        ),
        (
            "HTML, hexadecimal",
            each(&|b| coded(b, format!("&#x{b:x};"))),
        ),
        ("HTML, all", each(&|b| format!("&#x{b:X};"))),
        (
            "HTML, named",
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#39;"),
        ),
    ]
}

/// What takes the place of a secret, as somebody else would say it: the placeholder in the same form, where
/// that does not depend on single characters.
fn replaced(form: &str, placeholder: &str) -> Option<String> {
    let same = ["raw", "percent, all", "percent, all, small", "HTML, all"];
    let code_points = form.starts_with("JSON, code points");
    (same.contains(&form) || code_points).then(|| {
        let mut all = forms(placeholder).into_iter();
        all.find(|(name, _)| *name == form).unwrap().1
    })
}

/// Feeds the pieces, with the held back octets watched.
fn stream(needles: &Arc<Needles>, fit: Fit, pieces: &[&[u8]]) -> Vec<u8> {
    let mut scrubber = Scrubber::new(needles.clone(), fit);
    let mut out = VecDeque::new();
    for piece in pieces {
        scrubber.feed(Bytes::copy_from_slice(piece), &mut out);
        assert!(scrubber.held() <= needles.most_held());
    }
    scrubber.finish(&mut out);
    assert_eq!(scrubber.held(), 0);
    out.into_iter().flatten().collect()
}

#[test]
fn every_form_is_found_and_written_alike() {
    for (secret, placeholder) in PAIRS {
        for (form, written) in forms(secret) {
            let text = format!("{{\"echo\": \"{written}\", \"n\": 1}}");
            let (clean, hits) = all()
                .scrub(text.as_bytes(), Fit::Free)
                .unwrap_or_else(|| panic!("{form} of {secret}: {written}"));
            let clean = String::from_utf8(clean).unwrap();
            assert_eq!(hits, 1, "{form}: {clean}");
            assert!(clean.starts_with("{\"echo\": \"") && clean.ends_with("\", \"n\": 1}"));
            if let Some(expected) = replaced(form, placeholder) {
                assert!(clean.contains(&expected), "{form}: {clean}");
            }
            let same = all().scrub(text.as_bytes(), Fit::Same).unwrap().0;
            assert_eq!(same.len(), text.len(), "{form}");
            assert!(all().scrub(&same, Fit::Free).is_none(), "{form}");
            assert!(all().scrub(clean.as_bytes(), Fit::Free).is_none(), "{form}");
        }
    }
}

#[test]
fn base64_of_a_secret_among_others_decodes_to_the_placeholder_among_them() {
    for (secret, placeholder) in PAIRS {
        for before in ["", "u", "us", "user:", "x-access-token:"] {
            for after in ["", "1", "12", ":rest of it"] {
                let plain = format!("{before}{secret}{after}");
                let expected = format!("{before}{placeholder}{after}");
                for (engine, name) in [
                    (&STANDARD, "padded"),
                    (&STANDARD_NO_PAD, "without"),
                    (&URL_SAFE_NO_PAD, "URL-safe"),
                ] {
                    let text = format!("Basic {}!", engine.encode(&plain));
                    let found = all().scrub(text.as_bytes(), Fit::Free);
                    let (clean, hits) = found.unwrap_or_else(|| panic!("{name}: {text}"));
                    assert_eq!((hits, clean.len()), (1, text.len()));
                    let clean = String::from_utf8(clean).unwrap();
                    let encoded = &clean["Basic ".len()..clean.len() - 1];
                    // Where nothing tells the alphabet, the placeholder is in the standard one.
                    let encoded = encoded.replace('-', "+").replace('_', "/");
                    let encoded = encoded.trim_end_matches('=');
                    let decoded = STANDARD_NO_PAD.decode(encoded).unwrap();
                    // Of the first octet some bits share a group with what stands before it.
                    assert_eq!(
                        &decoded[before.len() + 1..],
                        &expected.as_bytes()[before.len() + 1..]
                    );
                    assert_eq!(&decoded[..before.len()], before.as_bytes());
                }
            }
        }
    }
}

#[test]
fn base64_that_is_escaped_again_is_found() {
    let (secret, _) = PAIRS[3];
    let encoded = STANDARD.encode(format!("??>{secret}??>"));
    assert!(encoded.contains('+') || encoded.contains('/'));
    for text in [
        percent_encode(encoded.as_bytes(), NON_ALPHANUMERIC).to_string(),
        encoded.replace('/', "\\/"),
    ] {
        assert_eq!(
            all().scrub(text.as_bytes(), Fit::Free).unwrap().1,
            1,
            "{text}"
        );
    }
}

/// RFC 2045, section 6.8, has lines of 76 characters, RFC 7468, section 2, of 64.
#[test]
fn base64_that_is_broken_into_lines_is_found_and_stays_in_lines() {
    for (secret, placeholder) in PAIRS {
        // Only what ends a line within the first three characters hides it.
        for before in (0..76).step_by(5).map(|length| "x".repeat(length)) {
            for (line, line_end) in [
                (76, "\r\n"),
                (64, "\n"),
                (64, "\n      "),
                (76, "\\r\\n"),
                (64, "\\n"),
                (64, "\\\\n"),
                (76, "%0D%0A"),
                (19, "&#10;"),
            ] {
                let broken = |secret: &str| {
                    let text = STANDARD.encode(format!("{before}{secret}, and more"));
                    let lines = text.as_bytes().chunks(line).map(str::from_utf8);
                    lines.map(Result::unwrap).collect::<Vec<_>>().join(line_end)
                };
                let first = (8 * before.len()).div_ceil(6) % line;
                if first > line - 3 {
                    continue;
                }
                let text = format!("key: {}\n", broken(secret));
                let found = all().scrub(text.as_bytes(), Fit::Free);
                let (clean, hits) = found.unwrap_or_else(|| panic!("{text}"));
                assert_eq!((hits, clean.len()), (1, text.len()), "{text}");
                assert_eq!(
                    all().scrub(text.as_bytes(), Fit::Same),
                    Some((clean.clone(), 1))
                );
                let unbroken = |text: &str| text["key: ".len()..].replace(line_end, "");
                let (read, wanted) = (
                    unbroken(str::from_utf8(&clean).unwrap()),
                    unbroken(&format!("key: {}\n", broken(placeholder))),
                );
                // What of the first octet is a neighbour's stays.
                assert_eq!(read.len(), wanted.len());
                let ends_alike = |skip: usize| read[skip..] == wanted[skip..];
                assert!(
                    ends_alike((8 * before.len()).div_ceil(6)),
                    "{read} is not {wanted}"
                );
                for cut in (0..text.len()).step_by(1 + before.len() % 25) {
                    let (one, two) = text.as_bytes().split_at(cut);
                    assert_eq!(
                        stream(&all(), Fit::Same, &[one, two]),
                        clean,
                        "{text}, cut at {cut}"
                    );
                }
            }
        }
    }
}

/// An empty line ends an event, and a line a message in JSON.
#[test]
fn the_end_of_a_line_does_not_wait_for_the_next_unless_a_secret_may_go_on_there() {
    let set = needles(&PAIRS[..1]);
    for (text, held) in [
        ("data: it ends with c2\n", 0),
        ("data: it ends with c2stYW50\n", 9),
        ("data: it ends with c2stYW50\r\n", 10),
        ("data: it ends with c2stYW50\n\n", 0),
        ("data: it ends with c2stYW50\r\n\r", 0),
        ("data: {\"c2stYW50\"}\n", 0),
    ] {
        let mut scrubber = Scrubber::new(set.clone(), Fit::Free);
        let mut out = VecDeque::new();
        scrubber.feed(Bytes::from(text), &mut out);
        assert_eq!(scrubber.held(), held, "{text:?}");
    }
}

/// No decoder reads such a text, but who sees it does.
#[test]
fn a_secret_that_follows_another_whose_base64_lacks_its_last_character_is_found() {
    let mut met = 0;
    for (first, first_placeholder) in PAIRS {
        // Ends as the secret does, so that the last character stays as it stood.
        let end = first.char_indices().next_back().unwrap().0;
        let alike = format!("{}{}", &first_placeholder[..end], &first[end..]);
        for (second, placeholder) in PAIRS {
            let set = needles(&[(first, &alike), (second, placeholder)]);
            let mut seconds = forms(second);
            for before in ["", "u", "us"] {
                seconds.push((
                    "base64",
                    STANDARD_NO_PAD.encode(format!("{before}{second}")),
                ));
            }
            for (lead, (form, second)) in (0..3).flat_map(|l| seconds.iter().map(move |s| (l, s))) {
                let cut = STANDARD_NO_PAD.encode(format!("{}{first}", &"me"[..lead]));
                let text = format!("[{}{second}]", &cut[..cut.len() - 1]);
                for fit in [Fit::Free, Fit::Same] {
                    let (clean, hits) = set.scrub(text.as_bytes(), fit).unwrap();
                    let left = String::from_utf8(clean.clone()).unwrap();
                    assert!(!left.contains(second), "{form}: {left} of {text}");
                    assert!(fit == Fit::Free || left.len() == text.len());
                    met += u32::from(hits == 2);
                    for at in (cut.len().saturating_sub(3)..text.len()).step_by(7) {
                        let (one, two) = text.as_bytes().split_at(at);
                        assert_eq!(stream(&set, fit, &[one, two]), clean, "{text} cut at {at}");
                    }
                }
            }
        }
    }
    assert!(met > 100, "{met}");
}

#[test]
fn a_placeholder_of_another_length_keeps_what_follows_readable() {
    for placeholder in [
        "short-one",
        "a-placeholder-that-is-much-longer-than-the-secret-itself",
    ] {
        let needles = needles(&[(PAIRS[0].0, placeholder)]);
        let text = format!("a {} b", PAIRS[0].0);
        let (clean, _) = needles.scrub(text.as_bytes(), Fit::Free).unwrap();
        assert_eq!(clean, format!("a {placeholder} b").as_bytes());
        let (clean, _) = needles.scrub(text.as_bytes(), Fit::Same).unwrap();
        assert_eq!(clean.len(), text.len());

        let text = STANDARD.encode(format!("me:{}:after", PAIRS[0].0));
        let (clean, _) = needles.scrub(text.as_bytes(), Fit::Free).unwrap();
        let decoded = String::from_utf8(STANDARD.decode(clean).unwrap()).unwrap();
        assert!(
            decoded.contains(&placeholder[1..]) && decoded.ends_with(":after"),
            "{decoded}"
        );
    }
}

#[test]
fn short_secrets_are_not_looked_for() {
    let set = needles(&[("secret", "placeholder"), ("1234567", "placeholder")]);
    assert!(set.is_empty());
    assert!(set.scrub(b"the secret is 1234567", Fit::Free).is_none());
    let set = needles(&[("12345678", "placeholder")]);
    assert_eq!(set.scrub(b"12345678", Fit::Free).unwrap().0, b"placeholder");
}

#[test]
fn of_two_secrets_that_begin_alike_the_longer_one_is_found() {
    let set = needles(&[
        ("abcdefgh", "PLACEHOLDER-1"),
        ("abcdefgh-and-more", "PLACEHOLDER-2"),
    ]);
    let text = b"abcdefgh abcdefgh-and-more abcdefgh-and-les";
    let expected = b"PLACEHOLDER-1 PLACEHOLDER-2 PLACEHOLDER-1-and-les";
    assert_eq!(set.scrub(text, Fit::Free).unwrap().0, expected);
    for cut in 0..text.len() {
        assert_eq!(
            stream(&set, Fit::Free, &[&text[..cut], &text[cut..]]),
            expected
        );
    }
}

/// A reason to close, or what a ping carries, may repeat a secret like any text.
#[test]
fn control_frames_of_a_websocket_are_searched_too() {
    let (secret, _) = PAIRS[0];
    let mut close = vec![0x88, u8::try_from(secret.len() + 2).unwrap(), 0x03, 0xE8];
    close.extend(secret.as_bytes());
    for cut in 0..close.len() {
        let mut frames = ServerFrames::new(all(), 1 << 20);
        let mut out = Vec::new();
        frames.feed(&close[..cut], &mut out).unwrap();
        frames.feed(&close[cut..], &mut out).unwrap();
        assert_eq!((out.len(), &out[..4]), (close.len(), &close[..4]));
        let secret = secret.as_bytes();
        assert!(!out.windows(secret.len()).any(|part| part == secret));
        assert_eq!(frames.take_hits(), 1);
    }
}

/// Of much that is alike a codec gives more than one room of text for a few octets.
#[test]
fn text_that_is_all_alike_comes_whole_however_it_is_cut() {
    use std::io::Write as _;
    let text = vec![b'A'; 300_000];
    let level = flate2::Compression::default();
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), level);
    raw.write_all(&text).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), level);
    zipped.write_all(&text).unwrap();
    for (coding, packed) in [
        (Coding::Deflate, raw.finish().unwrap()),
        (Coding::Gzip, zipped.finish().unwrap()),
    ] {
        for size in 1..packed.len() {
            let mut decoder = Decoder::new(&[coding]);
            let mut length = 0;
            for piece in packed.chunks(size) {
                decoder.feed(Bytes::copy_from_slice(piece));
                while let Some(text) = decoder.take().unwrap() {
                    length += text.len();
                }
            }
            decoder.finish().unwrap();
            assert_eq!(length, text.len(), "{coding:?} in pieces of {size}");
        }
    }
}

#[test]
fn text_without_a_secret_passes_uncopied() {
    let set = all();
    let mut scrubber = Scrubber::new(set, Fit::Free);
    let piece = Bytes::from(
        "data: {\"text\": \"sk-ant-api03-Zq7T_x is only its beginning\"}\n\n".repeat(99),
    );
    let mut out = VecDeque::new();
    scrubber.feed(piece.clone(), &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].as_ptr(), piece.as_ptr());
    assert_eq!(
        (out[0].len(), scrubber.held(), scrubber.take_hits()),
        (piece.len(), 0, 0)
    );
}

#[test]
fn only_what_may_be_a_beginning_is_held_back() {
    let set = needles(&PAIRS[..1]);
    for (text, held) in [
        ("data: {}\n\n", 0),
        ("an event\n\ns", 1),
        ("an event\n\nsk-ant-api", 10),
        ("an event\n\nsk-ant-apj", 0),
        ("100%", 1),
        ("100%7", 2),
        ("%73%6", 5),
        ("a\\", 1),
        ("&#1", 3),
    ] {
        let mut scrubber = Scrubber::new(set.clone(), Fit::Free);
        let mut out = VecDeque::new();
        scrubber.feed(Bytes::from(text), &mut out);
        assert_eq!(scrubber.held(), held, "{text:?}");
    }
}

#[test]
fn a_secret_cut_at_any_octet_is_found_in_every_form() {
    let set = all();
    for (secret, _) in PAIRS {
        let mut all_forms = forms(secret);
        all_forms.push(("Basic", STANDARD.encode(format!("user:{secret}"))));
        for (form, written) in all_forms {
            let text = format!("data: {{\"a\":\"{written}\"}}\n\n");
            let text = text.as_bytes();
            for fit in [Fit::Free, Fit::Same] {
                let (whole, _) = set.scrub(text, fit).unwrap();
                for cut in 0..=text.len() {
                    let (one, two) = text.split_at(cut);
                    let clean = stream(&set, fit, &[one, two]);
                    assert_eq!(clean, whole, "{form}, cut at {cut}");
                }
                let octets: Vec<&[u8]> = text.chunks(1).collect();
                assert_eq!(stream(&set, fit, &octets), whole, "{form}, octet by octet");
            }
        }
    }
}

async fn compress(coding: &str, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match coding {
        "gzip" => GzipEncoder::new(text).read_to_end(&mut out).await,
        "zlib" => ZlibEncoder::new(text).read_to_end(&mut out).await,
        "deflate" => DeflateEncoder::new(text).read_to_end(&mut out).await,
        "br" => {
            let level = Level::Precise(4);
            BrotliEncoder::with_quality(text, level)
                .read_to_end(&mut out)
                .await
        }
        _ => ZstdEncoder::new(text).read_to_end(&mut out).await,
    };
    read.unwrap();
    out
}

fn coding(name: &str) -> Coding {
    Coding::of(name.replace("zlib", "deflate").as_bytes()).unwrap()
}

fn unfold(codings: &[Coding], pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(codings);
    let mut out = Vec::new();
    for piece in pieces {
        decoder.feed(Bytes::copy_from_slice(piece));
        while let Some(text) = decoder.take().ok()? {
            out.extend_from_slice(&text);
        }
    }
    decoder.finish().ok()?;
    Some(out)
}

const CODINGS: [&str; 5] = ["gzip", "zlib", "deflate", "br", "zstd"];

#[tokio::test]
async fn every_coding_is_undone_wherever_it_is_cut() {
    let text = format!(
        "{}{}{}",
        "a long beginning ".repeat(40),
        PAIRS[0].0,
        "\n".repeat(99)
    );
    for name in CODINGS {
        let coded = compress(name, text.as_bytes()).await;
        for cut in 0..=coded.len() {
            let (one, two) = coded.split_at(cut);
            let clean = unfold(&[coding(name)], &[one, two]);
            assert_eq!(
                clean.as_deref(),
                Some(text.as_bytes()),
                "{name}, cut at {cut}"
            );
        }
        let octets: Vec<&[u8]> = coded.chunks(1).collect();
        assert_eq!(
            unfold(&[coding(name)], &octets).unwrap(),
            text.as_bytes(),
            "{name}"
        );
        for end in 1..coded.len() {
            let cut_short = unfold(&[coding(name)], &[&coded[..end]]);
            // A trailer alone may be missing where the coding has none that must be there.
            assert!(
                cut_short.is_none(),
                "{name} cut short at {end} of {}",
                coded.len()
            );
        }
        assert_eq!(
            unfold(&[coding(name)], &[]),
            Some(Vec::new()),
            "{name} of nothing"
        );
    }
}

#[tokio::test]
async fn codings_on_top_of_each_other_are_undone_in_order() {
    let text = PAIRS[1].0.repeat(20);
    let once = compress("gzip", text.as_bytes()).await;
    let twice = compress("br", &once).await;
    let both = [Coding::Gzip, Coding::Brotli];
    assert_eq!(unfold(&both, &[&twice]).unwrap(), text.as_bytes());
    assert!(unfold(&[Coding::Brotli, Coding::Gzip], &[&twice]).is_none());
}

#[tokio::test]
async fn parts_in_a_row_are_one_body_and_padding_is_dropped() {
    for name in ["gzip", "zstd"] {
        let mut coded = compress(name, b"one ").await;
        coded.extend(compress(name, b"two").await);
        assert_eq!(
            unfold(&[coding(name)], &[&coded]).unwrap(),
            b"one two",
            "{name}"
        );
        coded.extend([0; 7]);
        let octets: Vec<&[u8]> = coded.chunks(1).collect();
        assert_eq!(
            unfold(&[coding(name)], &octets).unwrap(),
            b"one two",
            "{name}"
        );
    }
    assert!(unfold(&[Coding::Gzip], &[b"this is no gzip"]).is_none());
}

#[tokio::test]
async fn a_bomb_unfolds_no_faster_than_it_is_read() {
    let coded = compress("gzip", &vec![0; 8 << 20]).await;
    let mut decoder = Decoder::new(&[Coding::Gzip]);
    decoder.feed(coded.into());
    let mut total = 0;
    while let Some(piece) = decoder.take().unwrap() {
        assert!(piece.len() <= 16 << 10);
        total += piece.len();
    }
    assert_eq!(total, 8 << 20);
}

/// A decoder must keep as much as the frame's head says (RFC 8878, section 3.1.1.1.2).
#[tokio::test]
async fn a_window_larger_than_the_coding_allows_is_refused() {
    let text = vec![b'x'; 1 << 20];
    for (log, fits) in [(23, true), (24, false), (27, false)] {
        let window = [CParameter::window_log(log)];
        let mut encoder = ZstdWriter::with_quality_and_params(Vec::new(), Level::Fastest, &window);
        encoder.write_all(&text).await.unwrap();
        encoder.shutdown().await.unwrap();
        let coded = encoder.into_inner();
        let unfolded = unfold(&[Coding::Zstd], &[&coded]);
        assert_eq!(unfolded.is_some(), fits, "2^{log}");
    }
}

/// One frame as a server sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(short as u8),
        middle @ 126..65536 => {
            frame.push(126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// What passes, and the number of octets that had left when each piece was in.
fn websocket(set: &Arc<Needles>, pieces: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
    let mut frames = ServerFrames::new(set.clone(), 1 << 20);
    let (mut out, mut left) = (Vec::new(), Vec::new());
    for piece in pieces {
        frames.feed(piece, &mut out).unwrap();
        left.push(out.len());
    }
    frames.finish(&mut out);
    (out, left)
}

#[test]
fn messages_of_a_websocket_are_searched_across_fragments_and_pings() {
    let set = all();
    let (secret, placeholder) = PAIRS[0];
    let (text, clean) = (
        format!("{{\"k\":\"{secret}\"}}"),
        format!("{{\"k\":\"{placeholder}\"}}"),
    );
    for cut in 0..=text.len() {
        let cut_at = |text: &str| {
            let (one, two) = text.as_bytes().split_at(cut);
            [
                frame(0x01, one),
                frame(0x89, b"ping"),
                frame(0x80, two),
                frame(0x81, b"next"),
            ]
            .concat()
        };
        let (sent, expected) = (cut_at(&text), cut_at(&clean));
        assert_eq!(
            websocket(&set, &[&sent]).0,
            expected,
            "fragments cut at {cut}"
        );
        let octets: Vec<&[u8]> = sent.chunks(1).collect();
        assert_eq!(
            websocket(&set, &octets).0,
            expected,
            "cut at {cut}, octet by octet"
        );
    }
    let long = format!("{}{secret}{}", "x".repeat(70_000), "y".repeat(300));
    let sent = frame(0x82, long.as_bytes());
    let expected = frame(0x82, long.replace(secret, placeholder).as_bytes());
    let pieces: Vec<&[u8]> = sent.chunks(1000).collect();
    assert_eq!(websocket(&set, &pieces).0, expected);
}

#[test]
fn a_message_of_a_websocket_never_waits_for_the_next() {
    let set = all();
    let first = frame(0x81, b"it ends with sk-ant-api03-");
    let second = frame(0x81, &PAIRS[0].0.as_bytes()[13..]);
    let (out, left) = websocket(&set, &[&first, &second]);
    assert_eq!(left, [first.len(), first.len() + second.len()]);
    assert_eq!(out, [first, second].concat(), "two messages are two texts");
    for (head, what) in [
        (&[0xC1, 0][..], "compressed"),
        (&[0x81, 0x80], "masked"),
        (&[0x89, 126, 0, 126], "a control frame that is too long"),
    ] {
        let mut broken = ServerFrames::new(set.clone(), 1 << 20);
        assert!(broken.feed(head, &mut Vec::new()).is_err(), "{what}");
    }
}

#[test]
fn a_frame_of_a_websocket_that_is_too_long_ends_it_with_1009_behind_what_waited() {
    let set = all();
    for (length, passes) in [(1000, true), (1001, false)] {
        let mut frames = ServerFrames::new(set.clone(), 1000);
        let mut begun = frame(0x81, b"it ends with sk-ant-api03-");
        begun[0] &= 0x7F;
        let mut out = Vec::new();
        frames.feed(&begun, &mut out).unwrap();
        let long = frame(0x80, &vec![b'x'; length]);
        let fed = frames.feed(&long, &mut out);
        assert_eq!(fed.is_ok(), passes);
        let expected = match passes {
            true => [begun, long].concat(),
            false => [begun, vec![0x88, 2, 0x03, 0xF1]].concat(),
        };
        assert_eq!(out, expected);
    }
}

/// The text may go on, so it waits; the frames between its fragments wait behind it.
#[test]
fn a_server_that_never_goes_on_with_its_text_takes_no_memory_without_end() {
    let mut frames = ServerFrames::new(all(), 1 << 20);
    let mut begun = frame(0x81, b"sk-ant-api03-");
    begun[0] &= 0x7F;
    let mut out = Vec::new();
    frames.feed(&begun, &mut out).unwrap();
    let ping = frame(0x89, &[0; 125]);
    let fed = (0..100_000).position(|_| frames.feed(&ping, &mut out).is_err());
    assert!(
        fed.is_some_and(|pings| pings * ping.len() < 2 << 20),
        "{fed:?}"
    );
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn a_request_asks_for_what_can_be_undone_and_for_nothing_more() {
    for (asked, goes_out) in [
        ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
        ("gzip;q=1.0, dcb, dcz;q=0.5", "gzip;q=1.0"),
        ("compress", "identity"),
        ("*", "identity"),
        ("gzip, *;q=0", "gzip, *;q=0"),
        ("br;q=0.9,identity;q=0.1", "br;q=0.9,identity;q=0.1"),
    ] {
        let mut head = headers(&[
            ("accept-encoding", asked),
            ("range", "bytes=0-9"),
            ("if-range", "\"a\""),
            ("grpc-accept-encoding", "gzip"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("accept", "*/*"),
        ]);
        head::narrow(&mut head);
        assert_eq!(
            head,
            headers(&[("accept-encoding", goes_out), ("accept", "*/*")])
        );
    }
    let mut none = headers(&[("accept", "*/*")]);
    head::narrow(&mut none);
    assert_eq!(none.len(), 1);
}

#[test]
fn what_cannot_be_undone_is_named() {
    let of = |fields: &[(&'static str, &str)], status: u16| {
        let mut response = Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = headers(fields);
        match head::readable(&response) {
            Readable::Coded(codings) => Ok(codings),
            Readable::No(unknown) => Err(unknown.to_string()),
        }
    };
    let gzip = ("content-encoding", "gzip");
    assert_eq!(
        of(&[gzip, ("content-encoding", "X-GZIP, br")], 200)
            .unwrap()
            .len(),
        3
    );
    assert_eq!(of(&[("content-encoding", "identity")], 206), Ok(vec![]));
    assert_eq!(of(&[("transfer-encoding", "chunked")], 200), Ok(vec![]));
    for (fields, status, named) in [
        (
            vec![("content-encoding", "dcb")],
            200,
            "the content coding `dcb`",
        ),
        (
            vec![("content-encoding", "a b")],
            200,
            "a content coding whose name is no word",
        ),
        (
            vec![("content-encoding", "gzip,gzip,gzip,gzip")],
            200,
            "4 content codings on top of each other",
        ),
        (vec![gzip], 206, "a part of a compressed body"),
        (
            vec![("transfer-encoding", "gzip, chunked")],
            200,
            "the transfer coding `gzip`",
        ),
        (
            vec![("grpc-encoding", "snappy")],
            200,
            "the message coding `snappy`",
        ),
    ] {
        assert_eq!(of(&fields, status), Err(named.to_owned()));
    }
}

#[test]
fn a_head_stays_true_of_its_body() {
    let before = [
        ("content-length", "10"),
        ("etag", "\"strong\""),
        ("content-digest", "sha-256=:x:"),
        ("repr-digest", "sha-256=:x:"),
        ("content-md5", "x"),
        ("digest", "x"),
        ("accept-ranges", "bytes"),
    ];
    for (codings, left, fit) in [
        (vec![], vec!["content-length", "etag"], Fit::Same),
        (vec![Coding::Gzip], vec!["etag"], Fit::Free),
    ] {
        let mut head = headers(&before);
        assert_eq!(head::settle(&mut head, &codings), fit);
        let names: Vec<&str> = head.keys().map(|name| name.as_str()).collect();
        assert_eq!(names, left);
        let weak = !codings.is_empty();
        assert_eq!(head["etag"].as_bytes().starts_with(b"W/"), weak);
    }
    let mut grpc = headers(&[("content-type", "application/grpc+proto")]);
    assert_eq!(head::settle(&mut grpc, &[]), Fit::Same);
    assert_eq!(head::settle(&mut headers(&[]), &[]), Fit::Free);
}

#[test]
fn fields_are_searched_by_value_and_by_name() {
    let (secret, placeholder) = PAIRS[0];
    let mut head = headers(&[
        ("x-echo", &format!("Bearer {secret}")),
        ("set-cookie", &format!("a={secret}; Path=/")),
        ("set-cookie", "b=2"),
        ("location", &format!("https://a.com/?k={secret}")),
        ("content-type", "text/plain; charset=utf-8"),
    ]);
    let name = http::HeaderName::from_bytes(format!("x-{secret}").as_bytes()).unwrap();
    head.insert(name, HeaderValue::from_static("1"));
    assert_eq!(head::scrub_fields(&all(), &mut head), 4);
    assert_eq!(
        head,
        headers(&[
            ("x-echo", &format!("Bearer {placeholder}")),
            ("set-cookie", &format!("a={placeholder}; Path=/")),
            ("set-cookie", "b=2"),
            ("location", &format!("https://a.com/?k={placeholder}")),
            ("content-type", "text/plain; charset=utf-8"),
        ])
    );
}

/// Text as origins send it, with secrets in some form here and there, and with what looks like their beginning.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let forms: Vec<String> = PAIRS
        .iter()
        .flat_map(|(secret, _)| {
            let mut all = forms(secret);
            for before in ["", "u", "us"] {
                all.push(("base64", STANDARD.encode(format!("{before}{secret}"))));
                all.push((
                    "base64",
                    URL_SAFE_NO_PAD.encode(format!("{before}{secret}?")),
                ));
            }
            all.into_iter().map(|(_, written)| written)
        })
        .collect();
    let begun = prop::sample::select(forms.clone())
        .prop_flat_map(|form| (0..form.len()).prop_map(move |end| form.as_bytes()[..end].to_vec()));
    let whole = prop::sample::select(forms).prop_map(String::into_bytes);
    let noise = prop_oneof![
        "[ -~]{0,20}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
        "(%|\\\\|&#|%25|sk-|u00){0,6}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(prop_oneof![noise, begun, whole], 0..8).prop_map(|parts| parts.concat())
}

/// The forms that are one string each, replaced in a whole text: the search at its simplest.
fn naive(text: &[u8]) -> Vec<u8> {
    let simple = |text| {
        let raw = forms(text).into_iter();
        raw.filter(|(form, _)| replaced(form, "x").is_some())
    };
    let pairs: Vec<(String, String)> = PAIRS
        .iter()
        .flat_map(|(secret, placeholder)| simple(secret).zip(simple(placeholder)))
        .map(|((_, secret), (_, placeholder))| (secret, placeholder))
        .collect();
    let mut clean = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let found = pairs
            .iter()
            .filter(|(secret, _)| text[at..].starts_with(secret.as_bytes()));
        match found.max_by_key(|(secret, _)| secret.len()) {
            Some((secret, placeholder)) => {
                clean.extend(placeholder.bytes());
                at += secret.len();
            }
            None => {
                clean.push(text[at]);
                at += 1;
            }
        }
    }
    clean
}

proptest! {
    #[test]
    fn however_a_text_is_cut_it_comes_out_the_same(
        text in texts(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        free in any::<bool>(),
    ) {
        let set = all();
        let fit = if free { Fit::Free } else { Fit::Same };
        let whole = set.scrub(&text, fit).map_or(text.clone(), |(clean, _)| clean);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&text[from..cut]);
            from = cut;
        }
        pieces.push(&text[from..]);
        prop_assert_eq!(stream(&set, fit, &pieces), whole);
    }

    #[test]
    fn what_a_simple_search_replaces_is_replaced_alike(noise in "[ -~&&[^%&\\\\]]{0,30}", pair in 0..4_usize, form in 0..23_usize) {
        let (form, written) = forms(PAIRS[pair].0).swap_remove(form);
        prop_assume!(replaced(form, "x").is_some());
        let text = format!("{noise}{written}{noise}");
        let (clean, _) = all().scrub(text.as_bytes(), Fit::Free).unwrap();
        prop_assert_eq!(clean, naive(text.as_bytes()));
    }

    #[test]
    fn octets_without_a_secret_stay_as_they_are(text in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(all().scrub(&text, Fit::Free).is_none());
        prop_assert_eq!(stream(&all(), Fit::Free, &text.chunks(7).collect::<Vec<_>>()), text);
    }
}

#[test]
fn a_brotli_window_beyond_its_coding_is_undone_by_nobody() {
    // The first seven bits say "large window", which may ask for 1 GiB.
    for first in [0x11, 0x91] {
        let mut decoder = Decoder::new(&[Coding::Brotli]);
        decoder.feed(Bytes::new());
        decoder.feed(Bytes::copy_from_slice(&[first, 0x1e, 0x03]));
        assert_eq!(decoder.take(), Err(Undecodable));
    }
}
