//! Owns the count of HTTP/2 frames that ask for work and bring nothing (RFC 9113, section 10.5).
//!
//! The library bounds what it keeps: header blocks and their CONTINUATION frames, streams that were reset
//! before it took them up or that it had to reset itself, small DATA frames. But it answers PING and SETTINGS,
//! splits an answer along one-byte windows, and gives up streams whose requests went to the origin, as often as
//! the other side likes (CVE-2019-9511 to 9515, CVE-2023-44487). Here each such frame takes from an allowance,
//! which comes back with time and with what goes out.

use std::time::Duration;

use tokio::time::Instant;

/// Who opens the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// The other side, an agent: its bytes begin with the preface.
    Other,
    /// This side, at an origin: its own do.
    Own,
}

/// The frames of one connection, both ways.
#[derive(Debug)]
pub struct Frames {
    opener: Opener,
    inbound: Walk,
    outbound: Walk,
    allowance: u32,
    /// Bytes that went out and have earned nothing yet.
    unpaid: usize,
    counted: Instant,
    last_stream: u32,
}

/// How much a connection may take before anything comes back to it.
const ALLOWANCE: u32 = 2000;
/// What comes back in a second.
const EACH_SECOND: u32 = 200;
/// What one KiB that goes out brings back: windows are opened for it, and honest peers open one for each
/// 4 KiB or more, on the stream and on the connection.
const EACH_KIB: u32 = 2;
/// What a head that goes out brings back: a stream that has an answer was not opened for nothing.
const EACH_HEAD: u32 = 4;
/// What it takes to reset a stream: somewhere a request was begun for it.
const RESET: u32 = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u8 = 11;
const PREFACE: usize = 24;
const HEAD: usize = 9;

impl Frames {
    /// A connection before its first byte.
    pub fn new(opener: Opener) -> Self {
        let (inbound, outbound) = match opener {
            Opener::Other => (PREFACE, 0),
            Opener::Own => (0, PREFACE),
        };
        Self {
            opener,
            inbound: Walk::behind(inbound),
            outbound: Walk::behind(outbound),
            allowance: ALLOWANCE,
            unpaid: 0,
            counted: Instant::now(),
            last_stream: 0,
        }
    }

    /// Whether the connection may go on after these bytes of the other side.
    pub fn came(&mut self, bytes: &[u8]) -> bool {
        let (opener, mut cost, mut last) = (self.opener, 0, self.last_stream);
        self.inbound.pass(bytes, |head| {
            cost += head.cost(opener);
            if opener == Opener::Other && head.kind == HEADERS {
                last = last.max(head.stream);
            }
        });
        self.last_stream = last;
        if cost > self.allowance {
            self.refill();
        }
        let goes_on = cost <= self.allowance;
        self.allowance = self.allowance.saturating_sub(cost);
        goes_on
    }

    /// These bytes went out. Whether there is a PING among them that wants an answer.
    pub fn went(&mut self, bytes: &[u8]) -> bool {
        let (mut heads, mut asks) = (0, false);
        self.outbound.pass(bytes, |head| {
            heads += u32::from(head.kind == HEADERS);
            asks |= head.kind == PING && head.flags & ACK == 0;
        });
        self.unpaid += bytes.len();
        self.earn(heads * EACH_HEAD);
        if self.unpaid >= 1024 {
            let kib = u32::try_from(self.unpaid / 1024).unwrap_or(ALLOWANCE);
            self.unpaid %= 1024;
            self.earn(kib.saturating_mul(EACH_KIB));
        }
        asks
    }

    /// The frame that ends the connection, where it can be said: not amid another one.
    pub fn goodbye(&self) -> Option<[u8; HEAD + 8]> {
        let mut frame = [0; HEAD + 8];
        frame[2] = 8;
        frame[3] = GOAWAY;
        frame[HEAD..HEAD + 4].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[HEAD + 7] = ENHANCE_YOUR_CALM;
        self.outbound.is_between().then_some(frame)
    }

    fn earn(&mut self, earned: u32) {
        self.allowance = self.allowance.saturating_add(earned).min(ALLOWANCE);
    }

    /// The clock is looked at only here, where the allowance does not suffice.
    fn refill(&mut self) {
        const SHARE: Duration = Duration::from_millis(1000 / EACH_SECOND as u64);
        let shares = self.counted.elapsed().as_millis() / SHARE.as_millis();
        self.counted = Instant::now();
        self.earn(u32::try_from(shares).unwrap_or(ALLOWANCE));
    }
}

/// The beginning of a frame (RFC 9113, section 4.1).
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
}

impl Head {
    fn of(bytes: &[u8; HEAD]) -> Self {
        Self {
            length: usize::from(bytes[0]) << 16
                | usize::from(bytes[1]) << 8
                | usize::from(bytes[2]),
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]),
        }
    }

    fn cost(&self, opener: Opener) -> u32 {
        match (self.kind, opener) {
            (DATA, _) => u32::from(self.length == 0 && self.flags & END_STREAM == 0),
            // An agent's is a request, which has limits of its own; an origin's may be one of many interim answers.
            (HEADERS, Opener::Other) | (CONTINUATION, _) => 0,
            (RST_STREAM, Opener::Other) => RESET,
            _ => 1,
        }
    }
}

/// Where one direction stands within its frames.
#[derive(Debug)]
struct Walk {
    head: [u8; HEAD],
    have: usize,
    /// Bytes before the next head.
    left: usize,
}

impl Walk {
    fn behind(preface: usize) -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            left: preface,
        }
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Goes over `bytes`; `see` is shown every head that ends within them.
    fn pass(&mut self, mut bytes: &[u8], mut see: impl FnMut(Head)) {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEAD {
                return;
            }
            self.have = 0;
            let head = Head::of(&self.head);
            self.left = head.length;
            see(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![
            0,
            (length >> 8) as u8,
            length as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        frame.resize(HEAD + length, 0);
        frame
    }

    fn opened() -> Frames {
        let mut frames = Frames::new(Opener::Other);
        assert!(frames.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_nothing_use_up_the_allowance() {
        for (kind, flags, length, most) in [
            (PING, 0, 8, 2000),
            (SETTINGS, 0, 0, 2000),
            (WINDOW_UPDATE, 0, 4, 2000),
            (2, 0, 5, 2000),
            (0xbe, 0, 0, 2000),
            (DATA, 0, 0, 2000),
            (RST_STREAM, 0, 4, 400),
        ] {
            let mut frames = opened();
            for _ in 0..most {
                assert!(frames.came(&frame(kind, flags, length)), "kind {kind}");
            }
            assert!(!frames.came(&frame(kind, flags, length)), "kind {kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_something_do_not() {
        let mut frames = opened();
        for _ in 0..10_000 {
            for (kind, flags, length) in [
                (HEADERS, 4, 30),
                (CONTINUATION, 4, 30),
                (DATA, 0, 1),
                (DATA, END_STREAM, 0),
            ] {
                assert!(frames.came(&frame(kind, flags, length)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_comes_back_with_time_and_with_what_goes_out() {
        let mut frames = opened();
        let ping = frame(PING, 0, 8);
        assert!(frames.came(&ping.repeat(2000)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(frames.came(&ping.repeat(200)));
        frames.went(&frame(DATA, 0, 10 * 1024));
        assert!(frames.came(&ping.repeat(20)));
        frames.went(&frame(HEADERS, 4, 20));
        assert!(frames.came(&ping.repeat(4)));
        assert!(!frames.came(&ping));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!frames.came(&ping.repeat(2001)), "not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_origins_heads_count_and_the_requests_pay_for_them() {
        let mut frames = Frames::new(Opener::Own);
        frames.went(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..5000 {
            frames.went(&frame(HEADERS, 5, 20));
            assert!(frames.came(&frame(HEADERS, 4, 20).repeat(4)));
        }
        assert!(!frames.came(&frame(HEADERS, 4, 20).repeat(2001)));
    }

    #[tokio::test(start_paused = true)]
    async fn goodbye_names_the_last_stream_and_does_not_cut_a_frame() {
        let mut frames = opened();
        let mut head = frame(HEADERS, 5, 10);
        head[8] = 7;
        assert!(frames.came(&head));
        frames.went(&frame(DATA, 0, 100)[..50]);
        assert_eq!(frames.goodbye(), None);
        frames.went(&[0; 59]);
        let goodbye = frames.goodbye().unwrap();
        assert_eq!(goodbye[..9], [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0]);
        assert_eq!(goodbye[9..], [0, 0, 0, 7, 0, 0, 0, ENHANCE_YOUR_CALM]);
    }

    proptest! {
        #[test]
        fn where_reads_are_cut_makes_no_difference(
            shapes in prop::collection::vec((0u8..12, 0usize..40), 1..30),
            cuts in prop::collection::vec(1usize..20, 1..40),
        ) {
            let text: Vec<u8> = shapes.iter().flat_map(|(kind, length)| frame(*kind, 0, *length)).collect();
            let mut walk = Walk::behind(0);
            let mut seen = Vec::new();
            let (mut rest, mut at) = (text.as_slice(), 0);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts[at % cuts.len()].min(rest.len()));
                walk.pass(now, |head| seen.push((head.kind, head.length)));
                rest = later;
                at += 1;
            }
            prop_assert_eq!(seen, shapes);
            prop_assert!(walk.is_between());
        }
    }
}
