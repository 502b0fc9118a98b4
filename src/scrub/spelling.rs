//! Owns the ways in which one character may be written: as itself, percent-encoded, escaped in JSON, or
//! escaped in HTML.
//!
//! | way | written | by |
//! |---|---|---|
//! | percent | `%2F`, `%2f`, and encoded again `%252F` | RFC 3986, section 2.1 |
//! | JSON | `\u002f`, `\/`, `\"`, and in a text within a text `\\u002f`, `\\\/` | RFC 8259, section 7 |
//! | HTML | `&#47;`, `&#x2F;`, `&amp;` | HTML, section 13.1.4 |
//!
//! Each character of a secret is read by itself, so that no writer is missed that escapes some of them,
//! or some in another way than others.

/// How often `%` may have been encoded again.
const MOST_AGAIN: usize = 2;
/// How many backslashes a text within a text within a text has.
const MOST_BACKSLASHES: usize = 8;
/// Digits of a reference in HTML, leading zeros included.
const MOST_DIGITS: usize = 7;
/// The longest way to write one character: eight backslashes and `u002f`.
pub(super) const LONGEST: usize = MOST_BACKSLASHES + 5;
/// How far the lines of a text may be set in.
const MOST_BLANKS: usize = 16;
/// The longest way to end one line and begin the next.
pub(super) const LONGEST_BREAK: usize = 2 * LONGEST + MOST_BLANKS;

const NAMED: [(&[u8], u8); 5] = [
    (b"&amp;", b'&'),
    (b"&lt;", b'<'),
    (b"&gt;", b'>'),
    (b"&quot;", b'"'),
    (b"&apos;", b'\''),
];
const SHORT: [(u8, u8); 9] = [
    (b'/', b'/'),
    (b'"', b'"'),
    (b'\'', b'\''),
    (b'\\', b'\\'),
    (b'b', 8),
    (b'f', 12),
    (b'n', b'\n'),
    (b'r', b'\r'),
    (b't', b'\t'),
];

/// What of a text's beginning may be one character.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    lengths: [u8; 6],
    count: u8,
    /// More text might make it the character.
    pub(super) open: bool,
}

impl Read {
    /// How much of the text it may be; more than one only for `%`, `&` and `\`.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> + use<> {
        let (lengths, count) = (self.lengths, self.count);
        lengths.into_iter().take(count.into()).map(usize::from)
    }

    /// Whether nothing of the text is it, as far as it goes.
    pub(super) fn is_none(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, length: usize) {
        if let Some(place) = self.lengths.get_mut(usize::from(self.count)) {
            *place = length as u8;
            self.count += 1;
        }
    }
}

/// Whether a character that begins so is the byte itself, or none.
pub(super) fn is_plain(byte: u8) -> bool {
    !matches!(byte, b'%' | b'&' | b'\\')
}

/// Reads one character that is `wanted`, whichever way it is written.
pub(super) fn read(text: &[u8], wanted: impl Fn(u8) -> bool) -> Read {
    let mut read = Read::default();
    let Some(first) = text.first() else {
        read.open = true;
        return read;
    };
    if wanted(*first) {
        read.add(1);
    }
    match first {
        b'%' => percent(text, wanted, &mut read),
        b'\\' => json(text, wanted, &mut read),
        b'&' => html(text, wanted, &mut read),
        _ => {}
    }
    read
}

/// Whether a line may end with this byte.
pub(super) fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Reads the end of a line, CRLF or LF, whichever way it is written, with the blanks that begin the next.
pub(super) fn line_end(text: &[u8]) -> Read {
    let mut ends = Read::default();
    let carriage = read(text, |byte| byte == b'\r');
    ends.open = carriage.open;
    for from in std::iter::once(0).chain(carriage.lengths()) {
        let feed = read(&text[from..], |byte| byte == b'\n');
        ends.open |= feed.open;
        for length in feed.lengths() {
            let line = text[from + length..].iter().take(MOST_BLANKS);
            let blanks = line.take_while(|byte| matches!(byte, b' ' | b'\t'));
            ends.add(from + length + blanks.count());
        }
    }
    ends
}

fn percent(text: &[u8], wanted: impl Fn(u8) -> bool, read: &mut Read) {
    let mut at = 1;
    for _ in 0..=MOST_AGAIN {
        let Some(high) = text.get(at) else {
            read.open = true;
            return;
        };
        let Some(high) = digit(*high) else {
            return;
        };
        let Some(low) = text.get(at + 1) else {
            let may_be = |byte: u8| wanted(byte) || byte == b'%';
            read.open |= (0..16).any(|low| may_be(high << 4 | low));
            return;
        };
        let Some(low) = digit(*low) else {
            return;
        };
        at += 2;
        let byte = high << 4 | low;
        if wanted(byte) {
            read.add(at);
        }
        if byte != b'%' {
            return;
        }
    }
}

fn json(text: &[u8], wanted: impl Fn(u8) -> bool, read: &mut Read) {
    let looked_at = text.iter().take(MOST_BACKSLASHES + 1);
    let run = looked_at.take_while(|byte| **byte == b'\\').count();
    if run > MOST_BACKSLASHES {
        // Of a longer run only the beginning is looked at.
        backslashes(MOST_BACKSLASHES, wanted, read);
        return;
    }
    let Some(kind) = text.get(run) else {
        backslashes(run, wanted, read);
        read.open = true;
        return;
    };
    if *kind == b'u' {
        unicode(text, run + 1, &wanted, read);
    }
    let short = SHORT.iter().find(|(written, _)| written == kind);
    if let Some((_, byte)) = short
        && wanted(*byte)
    {
        read.add(run + 1);
    }
    backslashes(run, wanted, read);
}

fn backslashes(run: usize, wanted: impl Fn(u8) -> bool, read: &mut Read) {
    if wanted(b'\\') {
        for length in [2, 4, 8] {
            if length <= run {
                read.add(length);
            }
        }
    }
}

fn unicode(text: &[u8], from: usize, wanted: impl Fn(u8) -> bool, read: &mut Read) {
    let mut byte = 0;
    for place in 0..4 {
        let Some(written) = text.get(from + place) else {
            let open = match place {
                3 => (0..16).any(|low| wanted(byte << 4 | low)),
                _ => true,
            };
            read.open |= open;
            return;
        };
        match digit(*written) {
            Some(0) if place < 2 => {}
            Some(value) if place >= 2 => byte = byte << 4 | value,
            _ => return,
        }
    }
    // Above, a code point is not one byte.
    if byte.is_ascii() && wanted(byte) {
        read.add(from + 4);
    }
}

fn html(text: &[u8], wanted: impl Fn(u8) -> bool, read: &mut Read) {
    for (name, byte) in NAMED {
        if wanted(byte) {
            if text.starts_with(name) {
                read.add(name.len());
            }
            read.open |= name.len() > text.len() && name.starts_with(text);
        }
    }
    let (base, from) = match (text.get(1), text.get(2)) {
        (None, _) | (Some(b'#'), None) => {
            read.open = true;
            return;
        }
        (Some(b'#'), Some(b'x' | b'X')) => (16, 3),
        (Some(b'#'), Some(_)) => (10, 2),
        _ => return,
    };
    let mut value = 0_u32;
    for place in 0..=MOST_DIGITS {
        let Some(written) = text.get(from + place) else {
            read.open |= value < 128;
            return;
        };
        match digit(*written).map(u32::from) {
            Some(digit) if digit < base && place < MOST_DIGITS => {
                value = value.saturating_mul(base) + digit;
            }
            None if *written == b';' && place > 0 => {
                let byte = u8::try_from(value).ok().filter(u8::is_ascii);
                if byte.is_some_and(wanted) {
                    read.add(from + place + 1);
                }
                return;
            }
            _ => return,
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The octets with which each way to write `byte` may begin; as it is, is left out. Where they are fewer than
/// three, they are all of it, and what follows says the third. The fewer there are of all bytes together, the
/// faster is the search: beyond 64 it is no longer vectorized.
pub(super) fn beginnings(byte: u8) -> Vec<Vec<u8>> {
    let high = format!("{byte:02x}");
    let high = &high[..1];
    let mut found: Vec<Vec<u8>> = [
        "%25".to_owned(),
        format!("%{byte:02x}"),
        format!("%{byte:02X}"),
        format!("\\u00{high}"),
        "\\\\u00".to_owned(),
        "\\\\\\".to_owned(),
        "&#x".to_owned(),
        "&#X".to_owned(),
        "&#0".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec();
    found.push(format!("&#{byte}").bytes().take(3).collect());
    for (written, meant) in SHORT {
        if meant == byte {
            found.push(vec![b'\\', written]);
            found.push(vec![b'\\', b'\\', written]);
        }
    }
    for (name, meant) in NAMED {
        if meant == byte {
            found.push(name.iter().copied().take(3).collect());
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The manner of a whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    escape: Escape,
    /// Its hexadecimal digits are small letters.
    is_small: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Percent,
    Json,
    Html,
}

impl Manner {
    /// The manner of a text of these characters: the first one that is not plain tells.
    pub(super) fn of(pieces: &[&[u8]]) -> Self {
        let escape = pieces.iter().find_map(|written| match written {
            [_] | [] => None,
            [b'%', ..] => Some(Escape::Percent),
            [b'&', ..] => Some(Escape::Html),
            _ => Some(Escape::Json),
        });
        let digits = |written: &&&[u8]| written.len() > 2;
        let coded = pieces.iter().filter(digits).map(|w| &w[w.len() - 3..]);
        let mut ends = coded.flatten();
        Self {
            escape: escape.unwrap_or(Escape::None),
            is_small: ends.any(|byte| (b'a'..=b'f').contains(byte)),
        }
    }

    /// A byte in hexadecimal digits.
    fn hex(self, byte: u8) -> String {
        match self.is_small {
            true => format!("{byte:02x}"),
            false => format!("{byte:02X}"),
        }
    }
}

/// Writes `byte` as another one was `written`, in a text of this manner.
pub(super) fn rewrite(written: &[u8], byte: u8, manner: Manner, to: &mut Vec<u8>) {
    match written {
        [before @ (b'%' | b'\\'), middle @ .., _, _] if written.len() > 2 && is_coded(written) => {
            to.push(*before);
            to.extend_from_slice(middle);
            to.extend_from_slice(manner.hex(byte).as_bytes());
        }
        [b'&', b'#', x @ (b'x' | b'X'), ..] => {
            to.extend_from_slice(&[b'&', b'#', *x]);
            to.extend_from_slice(manner.hex(byte).as_bytes());
            to.push(b';');
        }
        [b'&', b'#', ..] => to.extend_from_slice(format!("&#{byte};").as_bytes()),
        _ => plain(byte, manner, to),
    }
}

fn is_coded(written: &[u8]) -> bool {
    written.starts_with(b"%") || written.contains(&b'u')
}

/// A placeholder has no white space and none of `"`, `%`, `&`, `,`, `;`, `\`.
fn plain(byte: u8, manner: Manner, to: &mut Vec<u8>) {
    let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match manner.escape {
        Escape::Percent if !unreserved => to.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        Escape::Html if b"<>'".contains(&byte) => {
            to.extend_from_slice(format!("&#{byte};").as_bytes());
        }
        _ => to.push(byte),
    }
}
