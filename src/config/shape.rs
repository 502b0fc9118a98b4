//! Owns the shape of a derived placeholder: fixed text and runs of characters from an alphabet.

/// A parsed shape (`sk-ant-api03-[A-Za-z0-9_-:93]AA`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

/// One part of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that every placeholder has.
    Literal(String),
    /// Characters that differ between placeholders.
    Run {
        /// The characters to choose from: visible ASCII, sorted, each once.
        alphabet: Vec<u8>,
        /// How many.
        length: usize,
    },
}

/// Why a text is not a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A blank, a control character, or anything beyond ASCII.
    #[error("a shape is made of visible ASCII characters only")]
    Character,
    /// A bracket without its partner.
    #[error("every `[` wants its `]`, and none may stand in another")]
    Bracket,
    /// `[A-Z]`, `[A-Z:]`, `[A-Z:x]`, `[A-Z:0]`.
    #[error("a run is written `[alphabet:length]`, for example `[A-Za-z0-9:32]`")]
    Run,
    /// `[z-a:5]`.
    #[error("the range `{0}-{1}` runs backwards")]
    Range(char, char),
    /// `[a:5]`.
    #[error("an alphabet has at least {MIN_ALPHABET} different characters")]
    Alphabet,
    /// Too few characters to be unguessable.
    #[error(
        "a placeholder of this shape could be guessed; its runs are {0} characters long together, {MIN_RANDOM} is the least"
    )]
    Short(usize),
    /// Too many characters for a header field.
    #[error("a placeholder of this shape would be longer than {MAX_LENGTH} characters")]
    Long,
}

/// `[1-9]`, the first digit of a number, is the smallest alphabet that real tokens use.
const MIN_ALPHABET: usize = 9;

/// 16 digits are 53 bits: enough against guessing over a network.
const MIN_RANDOM: usize = 16;

/// Servers limit a header field to 4 or 8 KiB; real tokens stay far below.
const MAX_LENGTH: usize = 1024;

impl Shape {
    /// Parses fixed text and `[alphabet:length]` runs. In an alphabet, `a-z` is a range; a `-` that
    /// stands first or last is itself.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ShapeError::Character);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = rest.find(['[', ']']).unwrap_or(rest.len());
            if literal > 0 {
                parts.push(Part::Literal(rest[..literal].to_owned()));
                rest = &rest[literal..];
                continue;
            }
            let run = rest.strip_prefix('[').ok_or(ShapeError::Bracket)?;
            let end = run.find(']').ok_or(ShapeError::Bracket)?;
            parts.push(parse_run(&run[..end])?);
            rest = &run[end + 1..];
        }
        let shape = Self { parts };
        match shape.random_length() {
            length if length < MIN_RANDOM => Err(ShapeError::Short(length)),
            _ if shape.length() > MAX_LENGTH => Err(ShapeError::Long),
            _ => Ok(shape),
        }
    }

    /// How long every placeholder of this shape is.
    pub fn length(&self) -> usize {
        let lengths = self.parts.iter().map(|part| match part {
            Part::Literal(text) => text.len(),
            Part::Run { length, .. } => *length,
        });
        lengths.fold(0, usize::saturating_add)
    }

    fn random_length(&self) -> usize {
        let lengths = self.parts.iter().map(|part| match part {
            Part::Literal(_) => 0,
            Part::Run { length, .. } => *length,
        });
        lengths.fold(0, usize::saturating_add)
    }
}

fn parse_run(run: &str) -> Result<Part, ShapeError> {
    if run.contains('[') {
        return Err(ShapeError::Bracket);
    }
    let (alphabet, length) = run.rsplit_once(':').ok_or(ShapeError::Run)?;
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let length = match length.parse() {
        Ok(length) if plain && length > 0 => length,
        _ => return Err(ShapeError::Run),
    };
    Ok(Part::Run {
        alphabet: parse_alphabet(alphabet.as_bytes())?,
        length,
    })
}

fn parse_alphabet(mut text: &[u8]) -> Result<Vec<u8>, ShapeError> {
    let mut alphabet = Vec::new();
    while let Some(first) = text.first().copied() {
        if let [from, b'-', to, rest @ ..] = text {
            if from > to {
                return Err(ShapeError::Range(char::from(*from), char::from(*to)));
            }
            alphabet.extend(*from..=*to);
            text = rest;
            continue;
        }
        alphabet.push(first);
        text = &text[1..];
    }
    alphabet.sort_unstable();
    alphabet.dedup();
    match alphabet.len() {
        n if n < MIN_ALPHABET => Err(ShapeError::Alphabet),
        _ => Ok(alphabet),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_literals_and_runs() {
        let shape = Shape::parse("[1-9:1][0-9:8]:AA[A-Za-z0-9_-:33]").unwrap();
        let mut wide: Vec<u8> = (b'0'..=b'9')
            .chain(b'A'..=b'Z')
            .chain(b'a'..=b'z')
            .chain([b'_', b'-'])
            .collect();
        wide.sort_unstable();
        assert_eq!(
            shape.parts,
            [
                Part::Run {
                    alphabet: (b'1'..=b'9').collect(),
                    length: 1
                },
                Part::Run {
                    alphabet: (b'0'..=b'9').collect(),
                    length: 8
                },
                Part::Literal(":AA".into()),
                Part::Run {
                    alphabet: wide,
                    length: 33
                },
            ]
        );
        assert_eq!(shape.length(), 45);
    }

    #[test]
    fn what_is_not_a_shape_says_why() {
        let table = [
            ("plain-text", ShapeError::Short(0)),
            ("x[0-9:15]", ShapeError::Short(15)),
            ("x[0-9:16", ShapeError::Bracket),
            ("x]0-9:16[", ShapeError::Bracket),
            ("x[[0-9:16]]", ShapeError::Bracket),
            ("x[0-9]", ShapeError::Run),
            ("x[0-9:]", ShapeError::Run),
            ("x[0-9:+16]", ShapeError::Run),
            ("x[0-9:0]", ShapeError::Run),
            ("x[:16]", ShapeError::Alphabet),
            ("x[ab:16]", ShapeError::Alphabet),
            ("x[9-0:16]", ShapeError::Range('9', '0')),
            ("x [0-9:16]", ShapeError::Character),
            ("é[0-9:16]", ShapeError::Character),
            ("x[0-9:99999]", ShapeError::Long),
            ("x[0-9:18446744073709551615][0-9:9]", ShapeError::Long),
        ];
        for (text, error) in table {
            assert_eq!(Shape::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_is_visible_ascii(text in "[ -~]{0,40}") {
            if let Ok(shape) = Shape::parse(&text) {
                for part in shape.parts {
                    match part {
                        Part::Literal(text) => prop_assert!(text.bytes().all(|b| b.is_ascii_graphic())),
                        Part::Run { alphabet, .. } => {
                            prop_assert!(alphabet.iter().all(u8::is_ascii_graphic));
                        }
                    }
                }
            }
        }
    }
}
