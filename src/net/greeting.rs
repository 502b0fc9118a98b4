//! Owns what an HTTP/2 server says first: its SETTINGS, and in them how many streams it takes on a connection
//! (RFC 9113, sections 3.4 and 6.5.2).

/// Who wants to know how many streams it takes.
pub type OnGreeting = Box<dyn FnOnce(u32) + Send>;

/// The first frame of a server, as it comes.
pub struct Greeting {
    have: Vec<u8>,
    on_greeting: Option<OnGreeting>,
}

/// Of a frame that is longer than this no server's first one is (RFC 9113, section 4.2).
const LONGEST: usize = 16 * 1024;
const HEAD: usize = 9;
const ENTRY: usize = 6;
const SETTINGS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;

impl Greeting {
    /// Waits for it; `on_greeting` is told the number, which is the greatest there is where the server names none.
    pub fn new(on_greeting: OnGreeting) -> Self {
        Self {
            have: Vec::new(),
            on_greeting: Some(on_greeting),
        }
    }

    /// Takes what the server sends; says whether it is over.
    pub fn came(&mut self, bytes: &[u8]) -> bool {
        let missing = |wanted: usize, have: &[u8]| wanted.saturating_sub(have.len());
        let (head, rest) = bytes.split_at(missing(HEAD, &self.have).min(bytes.len()));
        self.have.extend_from_slice(head);
        let Some([a, b, c, kind, ..]) = self.have.get(..HEAD) else {
            return false;
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *kind != SETTINGS || length > LONGEST {
            return true;
        }
        let wanted = missing(HEAD + length, &self.have).min(rest.len());
        self.have.extend_from_slice(&rest[..wanted]);
        if self.have.len() < HEAD + length {
            return false;
        }
        if let Some(on_greeting) = self.on_greeting.take() {
            on_greeting(streams(&self.have[HEAD..]));
        }
        true
    }
}

/// Of a setting that is there twice the last counts (RFC 9113, section 6.5.3).
fn streams(settings: &[u8]) -> u32 {
    let entries = settings.chunks_exact(ENTRY).rev();
    let mut values = entries.filter_map(|entry| match *entry {
        [a, b, c, d, e, f] if u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS => {
            Some(u32::from_be_bytes([c, d, e, f]))
        }
        _ => None,
    });
    values.next().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn heard(pieces: &[&[u8]]) -> (bool, u32) {
        let told = Arc::new(AtomicU32::new(0));
        let noted = told.clone();
        let mut greeting = Greeting::new(Box::new(move |most| noted.store(most, Ordering::SeqCst)));
        let over = pieces.iter().any(|piece| greeting.came(piece));
        (over, told.load(Ordering::SeqCst))
    }

    #[test]
    fn the_number_of_streams_is_heard_however_it_is_cut() {
        let frame = [
            &[0, 0, 18, SETTINGS, 0, 0, 0, 0, 0][..],
            &[0, 4, 0, 1, 0, 0],
            &[0, 3, 0, 0, 0, 9],
            &[0, 3, 0, 0, 1, 2],
            &[0, 0, 0, 4, 1],
        ]
        .concat();
        for cut in 0..frame.len() {
            let (one, two) = frame.split_at(cut);
            assert_eq!(heard(&[one, two]), (true, 258), "{cut}");
        }
        let bytes: Vec<&[u8]> = frame.chunks(1).collect();
        assert_eq!(heard(&bytes), (true, 258));
        assert_eq!(heard(&bytes[..26]), (false, 0));
    }

    #[test]
    fn who_names_no_number_takes_any_and_who_says_something_else_is_not_heard() {
        assert_eq!(
            heard(&[&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]]),
            (true, u32::MAX)
        );
        assert_eq!(heard(&[&[0, 0, 8, 6, 0, 0, 0, 0, 0]]), (true, 0));
        assert_eq!(heard(&[&[1, 0, 0, SETTINGS, 0, 0, 0, 0, 0]]), (true, 0));
    }
}
