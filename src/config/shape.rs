//! Owns the grammar of placeholder shapes: `sk-ant-api03-[A-Za-z0-9_-:93]AA`.

/// What a derived placeholder looks like, so that clients' own format checks pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The parts, left to right.
    pub parts: Vec<Part>,
}

/// One part of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text as it stands.
    Literal(String),
    /// `[alphabet:length]`: that many characters, each one of the alphabet.
    Run {
        /// The characters, in the order written, each once.
        alphabet: Vec<u8>,
        /// How many there are.
        length: usize,
    },
}

/// Longest placeholder that any client is known to accept, with room to spare.
const MAX_LENGTH: usize = 1024;

impl Shape {
    /// Parses literal text and `[alphabet:length]` runs; an alphabet is written as within a
    /// character class (`A-Za-z0-9_-`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some(inner) = rest.strip_prefix('[') else {
                let end = rest.find('[').unwrap_or(rest.len());
                parts.push(literal(&rest[..end])?);
                rest = &rest[end..];
                continue;
            };
            let (run_text, after) = inner
                .split_once(']')
                .ok_or_else(|| format!("`{text}` opens `[` and never closes it"))?;
            parts.push(run(run_text)?);
            rest = after;
        }
        let shape = Self { parts };
        match shape.len() {
            0 => Err("a shape is not empty".to_owned()),
            length if length > MAX_LENGTH => {
                Err(format!("a shape has at most {MAX_LENGTH} characters"))
            }
            _ => Ok(shape),
        }
    }

    /// How many characters a text of this shape has.
    pub fn len(&self) -> usize {
        let lengths = self.parts.iter().map(|part| match part {
            Part::Literal(text) => text.len(),
            Part::Run { length, .. } => *length,
        });
        lengths.fold(0, usize::saturating_add)
    }

    /// Whether there is nothing in it; never so for a parsed shape.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn literal(text: &str) -> Result<Part, String> {
    if text.bytes().all(|b| b.is_ascii_graphic() && b != b']') {
        return Ok(Part::Literal(text.to_owned()));
    }
    Err(format!(
        "`{text}` has a character that no credential has; use visible ASCII without `]`"
    ))
}

fn run(text: &str) -> Result<Part, String> {
    let wrong = || {
        format!(
            "`[{text}]` is not a run; write an alphabet and a length, for example `[A-Z0-9:16]`"
        )
    };
    let (letters, length) = text.rsplit_once(':').ok_or_else(wrong)?;
    let length = length.parse::<usize>().map_err(|_| wrong())?;
    if length == 0 || !letters.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong());
    }
    let alphabet = alphabet(letters.as_bytes())?;
    match alphabet.len() {
        0 => Err(wrong()),
        1 => Err(format!("`[{text}]` has one letter only; write it as text")),
        _ => Ok(Part::Run { alphabet, length }),
    }
}

/// Expands ranges; a `-` at either end stands for itself.
fn alphabet(letters: &[u8]) -> Result<Vec<u8>, String> {
    let mut alphabet = Vec::new();
    let mut rest = letters;
    while let [first, tail @ ..] = rest {
        let (last, after) = match tail {
            [b'-', last, after @ ..] => (last, after),
            _ => (first, tail),
        };
        if last < first {
            let (first, last) = (char::from(*first), char::from(*last));
            return Err(format!("the range `{first}-{last}` runs backwards"));
        }
        for letter in *first..=*last {
            if !alphabet.contains(&letter) {
                alphabet.push(letter);
            }
        }
        rest = after;
    }
    Ok(alphabet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_text_and_runs_alternate() {
        let shape = Shape::parse("sk-ant-api03-[A-Za-z0-9_-:93]AA").unwrap();
        assert_eq!(shape.len(), 13 + 93 + 2);
        assert_eq!(shape.parts[0], Part::Literal("sk-ant-api03-".to_owned()));
        let Part::Run { alphabet, length } = &shape.parts[1] else {
            panic!("a run was expected");
        };
        assert_eq!((alphabet.len(), *length), (64, 93));
        assert_eq!(shape.parts[2], Part::Literal("AA".to_owned()));
    }

    #[test]
    fn hyphens_at_the_ends_and_colons_stand_for_themselves() {
        let alphabet_of = |text| match Shape::parse(text).unwrap().parts.remove(0) {
            Part::Run { alphabet, .. } => String::from_utf8(alphabet).unwrap(),
            Part::Literal(text) => panic!("{text}"),
        };
        assert_eq!(alphabet_of("[-ab:4]"), "-ab");
        assert_eq!(alphabet_of("[ab-:4]"), "ab-");
        assert_eq!(alphabet_of("[a:b:4]"), "a:b");
        assert_eq!(alphabet_of("[a-ca-d:4]"), "abcd");
    }

    #[test]
    fn what_is_no_shape_is_said_so() {
        for bad in [
            "",
            "[",
            "x[a-z",
            "[a-z]",
            "[:4]",
            "[a-z:0]",
            "[a-z:x]",
            "[a:4]",
            "[z-a:4]",
            "a b",
            "ä",
            "a]",
            "[a-z:1025]",
            "[a-z:99999999999999999999]",
        ] {
            assert!(Shape::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
