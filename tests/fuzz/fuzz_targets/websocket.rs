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
    let mut frames = ServerFrames::new(NEEDLES.clone());
    let mut out = Vec::new();
    for piece in pieces {
        if frames.feed(piece, &mut out).is_err() {
            return (out, true);
        }
    }
    frames.finish(&mut out);
    (out, false)
}

/// The payloads of whole frames, joined as messages are, or nothing if it is no row of frames.
fn payloads(mut octets: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let [_, length, rest @ ..] = octets {
        let (length, rest) = match length {
            0..=125 => (usize::from(*length), rest),
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, &rest[8..]),
            _ => return None,
        };
        all.extend(rest.get(..length)?);
        octets = &rest[length..];
    }
    octets.is_empty().then_some(all)
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
    // Frames may be cut anew where pieces end; what they say may not.
    let (whole, pieces) = (payloads(&whole.0), payloads(&pieces.0));
    if let (Some(whole), Some(pieces)) = (&whole, &pieces) {
        assert_eq!(whole, pieces);
        let left = whole.windows(SECRET.len()).any(|window| window == SECRET);
        assert!(!left || payloads(octets).is_none(), "the secret passes");
    }
});
