//! Owns what takes a secret's place: the placeholder, written as the secret was.

use super::needle::{Form, Needle, sextets};
use super::spelling::{Manner, rewrite};

/// Whether a text may change its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It may: the whole placeholder stands there.
    Free,
    /// It may not, since its length has been told or is counted within (`Content-Length`, WebSocket frames,
    /// the messages of gRPC): a placeholder that is longer is cut, a shorter one filled up with `*`.
    Same,
}

const FILL: u8 = b'*';
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What agents know a secret by.
pub(super) struct StandIn {
    placeholder: Vec<u8>,
    /// The secret's length in octets.
    length: usize,
}

impl StandIn {
    pub(super) fn new(placeholder: &[u8], length: usize) -> Self {
        Self {
            placeholder: placeholder.to_vec(),
            length,
        }
    }

    /// What stands in the place of `found`, all of which is the secret in the form of `needle`.
    pub(super) fn write(&self, needle: &Needle, found: &[u8], fit: Fit) -> Vec<u8> {
        let pieces = needle.pieces(found);
        let line_ends: Vec<&[u8]> = pieces.iter().map(|piece| piece.line_end).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.written).collect();
        let characters = self.characters(needle, &pieces, fit);
        let manner = Manner::of(&pieces);
        let mut text = Vec::with_capacity(found.len());
        for (index, character) in characters.into_iter().enumerate() {
            let before = text.len();
            text.extend_from_slice(line_ends.get(index).unwrap_or(&&b""[..]));
            rewrite(example(&pieces, character), character, manner, &mut text);
            if fit == Fit::Same && text.len() > found.len() {
                text.truncate(before);
                break;
            }
        }
        if fit == Fit::Same {
            text.resize(found.len(), FILL);
        }
        text
    }

    fn characters(&self, needle: &Needle, pieces: &[&[u8]], fit: Fit) -> Vec<u8> {
        let mut placeholder = self.placeholder.clone();
        if fit == Fit::Same {
            placeholder.resize(self.length, FILL);
        }
        let Form::Base64 { lead } = needle.form else {
            return placeholder;
        };
        // What follows keeps its place within its group, or it could not be decoded any more.
        while placeholder.len() % 3 != self.length % 3 {
            placeholder.push(FILL);
        }
        let (mut groups, _) = sextets(&placeholder, lead);
        let last = pieces.last().and_then(|last| needle.last_group(last));
        if pieces.len() < needle.length() {
            groups.pop();
        } else if let (Some(group), Some((stood, mask))) = (groups.last_mut(), last) {
            *group = *group & mask | stood & !mask;
        }
        let is_url_safe = pieces.iter().any(|piece| matches!(piece, [b'-' | b'_']));
        let letter = |group: &u8| match (STANDARD[usize::from(*group & 0x3F)], is_url_safe) {
            (b'+', true) => b'-',
            (b'/', true) => b'_',
            (letter, _) => letter,
        };
        groups.iter().map(letter).collect()
    }
}

/// Which of the pieces shows how `character` is written: where letters are escaped, everything is; else what
/// is no letter and no digit, unless it stands there as it is.
fn example<'t>(pieces: &[&'t [u8]], character: u8) -> &'t [u8] {
    let escaped = pieces.iter().find(|piece| piece.len() > 1);
    let stands_plain = pieces.contains(&[character].as_slice());
    let all = pieces.iter().all(|piece| piece.len() > 1);
    match escaped {
        Some(escaped) if all || !character.is_ascii_alphanumeric() && !stands_plain => escaped,
        _ => b"",
    }
}
