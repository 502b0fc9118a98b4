//! Owns one secret as one row of characters to look for: as it is, or the base64 of it at one of the three
//! places where it may begin within a group.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::spelling::{self, LONGEST, LONGEST_BREAK, ends_line, is_plain, line_end, read};

/// How many characters of a base64 stand together before a line may end within it: as many as the quick search
/// sees. Fewer would hold back the end of many a line that is no beginning, and with it the line.
const TOGETHER: usize = 3;

/// How the secret was changed before it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Not at all.
    Plain,
    /// Base64, in either alphabet (RFC 4648, sections 4 and 5), with so many octets before it in its group.
    Base64 {
        /// 0, 1 or 2.
        lead: u8,
    },
}

/// One row of characters. It has no `Debug`: its values are the secret.
pub(super) struct Needle {
    pub(super) form: Form,
    /// Bytes, or groups of six bits.
    values: Zeroizing<Vec<u8>>,
    /// Which bits of the last group are the secret's; the others are its neighbour's.
    last_mask: u8,
}

/// One character as it stands in a text.
#[derive(Clone, Copy)]
pub(super) struct Piece<'t> {
    /// What ends the line before it, if it is the first of one.
    pub(super) line_end: &'t [u8],
    pub(super) written: &'t [u8],
}

/// What was found at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it ends, if it is all there.
    pub(super) end: Option<usize>,
    /// More text might make it one, or a longer one.
    pub(super) open: bool,
}

impl Needle {
    /// Every row that `secret` may be written in.
    pub(super) fn of(secret: &[u8]) -> Vec<Self> {
        let plain = Self {
            form: Form::Plain,
            values: Zeroizing::new(secret.to_vec()),
            last_mask: u8::MAX,
        };
        let base64 = (0..3).map(|lead| {
            let (values, last_mask) = sextets(secret, lead);
            Self {
                form: Form::Base64 { lead },
                values,
                last_mask,
            }
        });
        std::iter::once(plain).chain(base64).collect()
    }

    /// The most octets that it may be written in.
    pub(super) fn longest(&self) -> usize {
        let each = match self.form {
            Form::Plain => LONGEST,
            Form::Base64 { .. } => LONGEST + LONGEST_BREAK,
        };
        self.values.len() * each
    }

    /// Whether and how far it stands in `text` from `at` on.
    pub(super) fn find(&self, text: &[u8], at: usize) -> Found {
        let mut found = Found::default();
        let first = read(&text[at..], |byte| self.wants(0, byte));
        if first.is_none() {
            found.open = first.open;
            return found;
        }
        let mut heads = Heads::one(at);
        let mut index = 0;
        while index < self.values.len() {
            if let Some(head) = heads.only() {
                let (read, head) = self.run(&text[head..], index, head);
                index += read;
                match text.get(head) {
                    _ if index == self.values.len() => {
                        found.end = Some(head);
                        return found;
                    }
                    Some(byte)
                        if is_plain(*byte) && !(ends_line(*byte) && self.may_break(index)) =>
                    {
                        return found;
                    }
                    _ => heads = Heads::one(head),
                }
            }
            let mut next = Heads::default();
            for head in heads.iter() {
                found.open |= self.step(text, head, index, &mut next);
            }
            if next.is_empty() {
                return found;
            }
            heads = next;
            index += 1;
        }
        found.end = heads.iter().max();
        found
    }

    /// Adds where the character at `index` may end that is read from `head` on, or from the next line on, and
    /// says whether more text might make it one.
    fn step(&self, text: &[u8], head: usize, index: usize, next: &mut Heads) -> bool {
        let mut open = false;
        let mut from = |head: usize| {
            let read = read(&text[head..], |byte| self.wants(index, byte));
            read.lengths().for_each(|length| next.add(head + length));
            open |= read.open;
        };
        from(head);
        if self.may_break(index) {
            let breaks = line_end(&text[head..]);
            breaks.lengths().for_each(|length| from(head + length));
            open |= breaks.open;
        }
        open
    }

    /// Whether the character at `index` may be the first of a line (RFC 2045, section 6.8; RFC 7468, section 2).
    fn may_break(&self, index: usize) -> bool {
        index >= TOGETHER && self.form != Form::Plain
    }

    /// How many of the characters from `index` on stand there as they are, and where they end.
    fn run(&self, text: &[u8], index: usize, head: usize) -> (usize, usize) {
        let characters = text.iter().zip(index..self.values.len());
        let run = characters.take_while(|(byte, at)| is_plain(**byte) && self.wants(*at, **byte));
        let read = run.count();
        (read, head + read)
    }

    /// How many characters it has.
    pub(super) fn length(&self) -> usize {
        self.values.len()
    }

    /// Where the last character of `text`, which is all of it, begins, if some of its bits may be a neighbour's.
    pub(super) fn shared(&self, text: &[u8]) -> Option<usize> {
        match self.form {
            Form::Plain => None,
            Form::Base64 { .. } => Some(text.len() - self.pieces(text).last()?.written.len()),
        }
    }

    /// Its characters as they stand in `text`, which is all of it, or all but the last.
    pub(super) fn pieces<'t>(&self, text: &'t [u8]) -> Vec<Piece<'t>> {
        let mut steps = vec![Heads::one(0)];
        for index in 0..self.values.len() {
            let mut next = Heads::default();
            for head in steps.last().into_iter().flat_map(Heads::iter) {
                self.step(text, head, index, &mut next);
            }
            steps.push(next);
        }
        let mut pieces = Vec::with_capacity(self.values.len());
        let mut end = text.len();
        for index in (0..self.values.len()).rev() {
            let leads_there = |head: &usize| {
                let mut ends = Heads::default();
                self.step(text, *head, index, &mut ends);
                ends.iter().any(|place| place == end)
            };
            // The last one may have been left to another secret.
            let Some(head) = steps[index].iter().find(leads_there) else {
                continue;
            };
            pieces.push(self.piece(&text[head..end], index));
            end = head;
        }
        pieces.reverse();
        pieces
    }

    /// The character at `index`, which is all of `text` but for what ends the line before it.
    fn piece<'t>(&self, text: &'t [u8], index: usize) -> Piece<'t> {
        let is_all = |from: &usize| {
            let read = read(&text[*from..], |byte| self.wants(index, byte));
            read.lengths().any(|length| from + length == text.len())
        };
        let breaks = line_end(text);
        let from = std::iter::once(0).chain(breaks.lengths()).find(is_all);
        let (line_end, written) = text.split_at(from.unwrap_or(0));
        Piece { line_end, written }
    }

    /// The last group of six bits as it stands in the text, of which some bits may be a neighbour's.
    pub(super) fn last_group(&self, written: &[u8]) -> Option<(u8, u8)> {
        let byte = (0..=127).find(|byte| {
            let read = read(written, |read| read == *byte);
            read.lengths().any(|length| length == written.len()) && sextet(*byte).is_some()
        })?;
        Some((sextet(byte)?, self.last_mask))
    }

    /// The octets, three or a few more, with which each way to write it begins, for a quick search. Letters and digits
    /// are left alone by writers that escape what must be, so that a row in which the second or third of
    /// them is escaped has its first one escaped as well.
    pub(super) fn beginnings(&self, found: &mut BTreeSet<Vec<u8>>) {
        let mut begun: Vec<Vec<u8>> = vec![Vec::new()];
        for index in 0..3.min(self.values.len()) {
            let mut next = Vec::new();
            for byte in self.raw(index) {
                let mut ways = vec![vec![byte]];
                if index == 0 || !byte.is_ascii_alphanumeric() {
                    ways.extend(spelling::beginnings(byte));
                }
                for (before, way) in begun.iter().flat_map(|b| ways.iter().map(move |w| (b, w))) {
                    let mut text = [before.as_slice(), way].concat();
                    if !before.is_empty() {
                        text.truncate(3);
                    }
                    match text.len() < 3 {
                        true => next.push(text),
                        false => {
                            found.insert(text);
                        }
                    }
                }
            }
            begun = next;
        }
    }

    /// The bytes that may stand for the value at `index`.
    fn raw(&self, index: usize) -> Vec<u8> {
        match self.form {
            Form::Plain => vec![self.values[index]],
            Form::Base64 { .. } => {
                let all = 0..=u8::MAX;
                all.filter(|byte| self.wants(index, *byte)).collect()
            }
        }
    }

    fn wants(&self, index: usize, byte: u8) -> bool {
        let value = self.values[index];
        match self.form {
            Form::Plain => byte == value,
            Form::Base64 { .. } if index + 1 == self.values.len() => {
                sextet(byte).is_some_and(|group| group & self.last_mask == value)
            }
            Form::Base64 { .. } => sextet(byte) == Some(value),
        }
    }
}

/// The groups of six bits that `bytes` decide with `lead` octets before them: first those that they decide
/// alone, then the last one, of which the mask says what is theirs. What of their first octet falls in a
/// group with a neighbour is left to it: two or four bits, which tell a letter from a digit at most.
pub(super) fn sextets(bytes: &[u8], lead: u8) -> (Zeroizing<Vec<u8>>, u8) {
    let lead = usize::from(lead);
    let bits = 8 * (lead + bytes.len());
    let bit = |at: usize| match (at / 8).checked_sub(lead).and_then(|at| bytes.get(at)) {
        Some(byte) => byte >> (7 - at % 8) & 1,
        None => 0,
    };
    let first = (8 * lead).div_ceil(6);
    let groups = first..bits.div_ceil(6);
    let values = groups.map(|group| (0..6).fold(0, |value, at| value << 1 | bit(6 * group + at)));
    let theirs = match bits % 6 {
        0 => 6,
        rest => rest,
    };
    (Zeroizing::new(values.collect()), 0x3F & !(0x3F >> theirs))
}

/// What no character of base64 stands for.
const NO_SEXTET: u8 = u8::MAX;

/// The six bits that each character of base64 stands for, in either alphabet.
const SEXTETS: [u8; 256] = {
    let mut sextets = [NO_SEXTET; 256];
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < letters.len() {
        sextets[letters[value] as usize] = value as u8;
        value += 1;
    }
    sextets[b'-' as usize] = 62;
    sextets[b'_' as usize] = 63;
    sextets
};

fn sextet(byte: u8) -> Option<u8> {
    Some(SEXTETS[usize::from(byte)]).filter(|value| *value != NO_SEXTET)
}

/// Where a row may have been read up to: one place, unless it has characters that escapes begin with.
#[derive(Clone, Copy, Default)]
struct Heads {
    places: [usize; 8],
    count: usize,
}

impl Heads {
    fn one(place: usize) -> Self {
        let mut heads = Self::default();
        heads.add(place);
        heads
    }

    fn add(&mut self, place: usize) {
        if self.iter().all(|known| known != place)
            && let Some(free) = self.places.get_mut(self.count)
        {
            *free = place;
            self.count += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The place, if it is one.
    fn only(&self) -> Option<usize> {
        (self.count == 1).then_some(self.places[0])
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.places.iter().take(self.count).copied()
    }
}
