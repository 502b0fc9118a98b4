//! Frames of an origin's WebSocket: any split of the octets comes out the same, and no secret in a message does.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tollgate::scrub::needles::Needles;
use tollgate::scrub::websocket::ServerFrames;

const SECRET: &[u8] = b"sk-ant-S3CRET";

static NEEDLES: LazyLock<Arc<Needles>> =
    LazyLock::new(|| Arc::new(Needles::new([(SECRET, &b"placeholder-1"[..])])));

/// What comes out, and whether it broke off.
fn through<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let mut frames = ServerFrames::new(NEEDLES.clone(), 1 << 20);
    let mut out = Vec::new();
    for piece in pieces {
        if frames.feed(piece, &mut out).is_err() {
            return (out, true);
        }
    }
    frames.finish(&mut out);
    (out, false)
}

/// Whole messages and control frames (RFC 6455, section 5.4), or nothing if it is no proper row of frames.
fn messages(mut octets: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut all, mut open) = (Vec::new(), None::<Vec<u8>>);
    while let [first, length, rest @ ..] = octets {
        let (length, rest) = match length {
            0..=125 => (usize::from(*length), rest),
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, &rest[8..]),
            _ => return None,
        };
        let payload = rest.get(..length)?.to_vec();
        octets = &rest[length..];
        let message = match (first & 0x0f, open.take()) {
            (8.., kept) => {
                all.push(payload);
                open = kept;
                continue;
            }
            (0, Some(begun)) => [begun, payload].concat(),
            (1..=7, None) => payload,
            _ => return None,
        };
        match first & 0x80 {
            0 => open = Some(message),
            _ => all.push(message),
        }
    }
    (octets.is_empty() && open.is_none()).then_some(all)
}

fuzz_target!(|data: &[u8]| {
    let Some((&width, octets)) = data.split_first() else {
        return;
    };
    let whole = through(std::iter::once(octets));
    let pieces = through(octets.chunks(usize::from(width) + 1));
    assert_eq!(whole.1, pieces.1, "in pieces of {}", usize::from(width) + 1);
    if whole.1 {
        return;
    }
    // Frames may be cut anew where pieces end; what they say may not change.
    if messages(octets).is_none() {
        return;
    }
    let (whole, pieces) = (messages(&whole.0), messages(&pieces.0));
    assert_eq!(whole, pieces);
    let holds = |message: &Vec<u8>| message.windows(SECRET.len()).any(|window| window == SECRET);
    assert!(!whole.is_some_and(|messages| messages.iter().any(holds)), "the secret passes");
});
