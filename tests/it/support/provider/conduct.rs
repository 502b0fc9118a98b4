//! Owns how the stand-in conducts itself in one call: what it uses, how fast it is, and how it errs.

use std::time::Duration;

use super::gate::Gate;
use super::truth::Used;

/// How one answer goes.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// Tokens of the prompt that no cache has; none: a quarter of the body's octets.
    pub input: Option<u64>,
    pub write_5m: u64,
    pub write_1h: u64,
    pub read: u64,
    /// Tokens of the answer; never more than the request allows.
    pub output: u64,
    /// What the request allows is not looked at.
    pub heedless: bool,
    /// Of these, tokens that are thought and not shown.
    pub hidden: u64,
    pub searches: u64,
    /// The model that answers; none: the one that was asked for.
    pub model: Option<String>,
    /// What several models did, each with its kind (`message`, `compaction`, ...): Anthropic's `iterations`.
    pub iterations: Vec<(&'static str, Used)>,
    /// Tokens in an event.
    pub piece: u64,
    /// Time before each event.
    pub pace: Duration,
    pub tells: Tells,
    /// What the body is compressed with, although it was not to be.
    pub coding: Option<Coding>,
    /// Octets in a frame; none: an event in each.
    pub chunk: Option<usize>,
    /// What ends a line of a stream.
    pub newline: &'static str,
    /// Fields behind the body.
    pub trailers: bool,
    /// Octets after the end.
    pub garbage: &'static str,
    /// Gates, each before the event of that number; 0 is before the head.
    pub gates: Vec<(usize, Gate)>,
    pub fate: Fate,
}

/// What it says of its own use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// As documented.
    Usage,
    /// No field of the name anywhere.
    Nothing,
    /// `"usage": null`.
    Null,
    /// Only at the very end, where a beginning is usual too.
    Late,
    /// At the beginning; zeros and nulls in the end, where the sum belongs.
    Shrinking,
    /// Twice under one name in one object, small first.
    Twice,
    /// Numbers that are none.
    Nonsense,
    /// That nothing was used, and nothing is billed.
    Zeros,
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Whole,
    /// The connection is cut after so many events; after 0, instead of an answer.
    Cut(usize),
    /// The HTTP/2 stream is reset after so many events; others go on.
    Reset(usize),
    /// Nothing comes after so many events, and nothing ends.
    Silent(usize),
    /// This status, and an error as documented.
    Fails(u16),
}

impl Conduct {
    /// An honest answer of so many tokens.
    pub fn says(output: u64) -> Self {
        Self {
            input: None,
            write_5m: 0,
            write_1h: 0,
            read: 0,
            output,
            heedless: false,
            hidden: 0,
            searches: 0,
            model: None,
            iterations: Vec::new(),
            piece: 16,
            pace: Duration::ZERO,
            tells: Tells::Usage,
            coding: None,
            chunk: None,
            newline: "\n",
            trailers: false,
            garbage: "",
            gates: Vec::new(),
            fate: Fate::Whole,
        }
    }

    pub fn fails(status: u16) -> Self {
        Self::says(0).fate(Fate::Fails(status))
    }

    #[must_use]
    pub fn input(mut self, tokens: u64) -> Self {
        self.input = Some(tokens);
        self
    }

    /// Tokens written to the caches of five minutes and of an hour, and read from any.
    #[must_use]
    pub fn cached(mut self, write_5m: u64, write_1h: u64, read: u64) -> Self {
        (self.write_5m, self.write_1h, self.read) = (write_5m, write_1h, read);
        self
    }

    /// It takes no notice of how long the answer may be.
    #[must_use]
    pub fn heedless(mut self) -> Self {
        self.heedless = true;
        self
    }

    #[must_use]
    pub fn hidden(mut self, tokens: u64) -> Self {
        self.hidden = tokens;
        self
    }

    #[must_use]
    pub fn searches(mut self, count: u64) -> Self {
        self.searches = count;
        self
    }

    #[must_use]
    pub fn by(mut self, model: &str) -> Self {
        self.model = Some(model.to_owned());
        self
    }

    #[must_use]
    pub fn iteration(mut self, kind: &'static str, used: Used) -> Self {
        self.iterations.push((kind, used));
        self
    }

    #[must_use]
    pub fn piece(mut self, tokens: u64) -> Self {
        self.piece = tokens;
        self
    }

    #[must_use]
    pub fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    #[must_use]
    pub fn tells(mut self, tells: Tells) -> Self {
        self.tells = tells;
        self
    }

    #[must_use]
    pub fn coded(mut self, coding: Coding) -> Self {
        self.coding = Some(coding);
        self
    }

    #[must_use]
    pub fn chunk(mut self, octets: usize) -> Self {
        self.chunk = Some(octets);
        self
    }

    #[must_use]
    pub fn newline(mut self, newline: &'static str) -> Self {
        self.newline = newline;
        self
    }

    #[must_use]
    pub fn garbage(mut self, garbage: &'static str) -> Self {
        self.garbage = garbage;
        self
    }

    /// Fields come behind the body.
    #[must_use]
    pub fn trailing(mut self) -> Self {
        self.trailers = true;
        self
    }

    #[must_use]
    pub fn held(mut self, before: usize, gate: &Gate) -> Self {
        self.gates.push((before, gate.clone()));
        self
    }

    #[must_use]
    pub fn fate(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }

    /// The gate before that event.
    pub fn gate(&self, event: usize) -> Option<&Gate> {
        let found = self.gates.iter().find(|(before, _)| *before == event);
        found.map(|(_, gate)| gate)
    }

    /// What is billed for an answer that took `used`.
    pub fn billed(&self, used: &[Used]) -> Vec<Used> {
        let billed = used.iter().map(|used| match self.tells {
            Tells::Zeros => Used {
                model: used.model.clone(),
                ..Used::default()
            },
            _ => used.clone(),
        });
        billed.collect()
    }

    /// What answering this takes.
    pub fn used(&self, asked: &Asked) -> Vec<Used> {
        if !self.iterations.is_empty() {
            return self
                .iterations
                .iter()
                .map(|(_, used)| used.clone())
                .collect();
        }
        vec![Used {
            model: self.model.clone().unwrap_or_else(|| asked.model.clone()),
            input: self.input.unwrap_or(asked.octets / 4),
            write_5m: self.write_5m,
            write_1h: self.write_1h,
            read: self.read,
            output: match asked.most {
                Some(most) if !self.heedless => self.output.min(most),
                _ => self.output,
            },
            searches: self.searches,
        }]
    }
}

/// What a request asks for, as the provider reads it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub model: String,
    /// The most tokens of an answer.
    pub most: Option<u64>,
    pub stream: bool,
    /// Chat Completions: `stream_options.include_usage`. Gemini: `alt=sse`.
    pub option: bool,
    /// Octets of the body.
    pub octets: u64,
}

/// Text of so many tokens: four octets each.
pub fn text(tokens: u64) -> String {
    "word "
        .repeat(usize::try_from(tokens).unwrap().div_ceil(5) * 4)
        .chars()
        .take(usize::try_from(tokens).unwrap() * 4)
        .collect()
}

/// The sizes in which so many tokens come.
pub fn portions(tokens: u64, piece: u64) -> Vec<u64> {
    let whole = usize::try_from(tokens / piece).unwrap();
    let mut portions = vec![piece; whole];
    if !tokens.is_multiple_of(piece) {
        portions.push(tokens % piece);
    }
    portions
}
