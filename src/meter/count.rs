//! Owns how a number in an answer is read: a count that was told, one that was not, one that is none.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A count that an answer may tell several times. Later reports never lower it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    told: Option<u64>,
    unreadable: bool,
}

impl Count {
    /// The largest count that was told, unless something in its place was no count.
    pub(super) fn known(self) -> Option<u64> {
        self.told.filter(|_| !self.unreadable)
    }

    /// The largest count that was told; zero if none was.
    pub(super) fn or_zero(self) -> u64 {
        self.told.unwrap_or(0)
    }

    /// Whether something else than a count stood in its place: a negative number, a fraction, text.
    pub(super) fn is_unreadable(self) -> bool {
        self.unreadable
    }

    /// Takes a later report in.
    pub(super) fn merge(&mut self, later: Self) {
        self.told = self.told.max(later.told);
        self.unreadable |= later.unreadable;
    }
}

impl From<u64> for Count {
    fn from(told: u64) -> Self {
        Self {
            told: Some(told),
            unreadable: false,
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl CountVisitor {
    const NONE: Count = Count {
        told: None,
        unreadable: true,
    };
}

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a count")
    }

    fn visit_u64<E>(self, told: u64) -> Result<Count, E> {
        Ok(Count::from(told))
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
        Ok(Self::NONE)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Count, E> {
        Ok(Self::NONE)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Self::NONE)
    }

    fn visit_str<E>(self, _: &str) -> Result<Count, E> {
        Ok(Self::NONE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::NONE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::NONE)
    }
}

/// How long a text is, in octets of UTF-8. What is not a text has no length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextLength(pub(super) u64);

impl<'de> Deserialize<'de> for TextLength {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextLength;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<TextLength, E> {
        Ok(TextLength(text.len() as u64))
    }

    fn visit_unit<E>(self) -> Result<TextLength, E> {
        Ok(TextLength(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<TextLength, E> {
        Ok(TextLength(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<TextLength, E> {
        Ok(TextLength(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<TextLength, E> {
        Ok(TextLength(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<TextLength, E> {
        Ok(TextLength(0))
    }

    /// Content in parts: the texts of all of them.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TextLength, A::Error> {
        let mut length = 0_u64;
        while let Some(part) = seq.next_element::<TextLength>()? {
            length = length.saturating_add(part.0);
        }
        Ok(TextLength(length))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextLength, A::Error> {
        let mut length = 0_u64;
        while let Some((_, part)) = map.next_entry::<IgnoredAny, TextLength>()? {
            length = length.saturating_add(part.0);
        }
        Ok(TextLength(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Count {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_whole_numbers_from_zero_up_are_counts() {
        assert_eq!(count("0").known(), Some(0));
        assert_eq!(count("18446744073709551615").known(), Some(u64::MAX));
        assert_eq!(count("null"), Count::default());
        for none in [
            "-1",
            "1.0",
            "1e3",
            "18446744073709551616",
            "\"7\"",
            "true",
            "[7]",
            "{\"a\":7}",
        ] {
            assert!(count(none).is_unreadable(), "{none}");
            assert_eq!(count(none).known(), None, "{none}");
        }
    }

    #[test]
    fn a_later_count_never_lowers_an_earlier_one() {
        let mut told = count("15");
        for later in ["0", "null", "7"] {
            told.merge(count(later));
            assert_eq!(told.known(), Some(15));
        }
        told.merge(count("-3"));
        assert_eq!((told.known(), told.or_zero()), (None, 15));
    }

    #[test]
    fn a_text_is_as_long_as_what_it_says() {
        let length = |text| serde_json::from_str::<TextLength>(text).unwrap().0;
        assert_eq!(length(r#""a\u00e9\n""#), 4);
        assert_eq!(length(r#"[{"text":"abc"},{"text":"de"}]"#), 5);
        assert_eq!(length("12"), 0);
        assert_eq!(length("null"), 0);
    }
}
