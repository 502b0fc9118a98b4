//! Owns finding one value in a JSON text by its pointer (RFC 6901), as a range of bytes, so that it
//! can be exchanged with every other byte kept.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Why a JSON text cannot be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFault {
    /// It is no JSON text.
    Syntax,
    /// A key on the pointer's way stands twice: origins differ in which one they take.
    DuplicateKey,
}

/// The place of the value that `pointer` leads to.
pub fn locate(text: &[u8], pointer: &str) -> Result<Option<Range<usize>>, JsonFault> {
    let mut value: &RawValue = serde_json::from_slice(text).map_err(|_| JsonFault::Syntax)?;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let mut deserializer = serde_json::Deserializer::from_str(value.get());
        let step = Step { token: &token }.deserialize(&mut deserializer);
        match step.map_err(|_| JsonFault::Syntax)? {
            Child::One(child) => value = child,
            Child::None => return Ok(None),
            Child::Several => return Err(JsonFault::DuplicateKey),
        }
    }
    let start = value.get().as_ptr().addr() - text.as_ptr().addr();
    Ok(Some(start..start + value.get().len()))
}

/// `text` as a JSON string with its quotes.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One step of a pointer, into an object or an array.
struct Step<'t> {
    token: &'t str,
}

enum Child<'de> {
    None,
    One(&'de RawValue),
    Several,
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Child<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Child<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Child<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Child<'de>, A::Error> {
        let mut found = Child::None;
        while let Some(key) = map.next_key::<String>()? {
            if key != self.token {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value()?;
            found = match found {
                Child::None => Child::One(value),
                Child::One(_) | Child::Several => Child::Several,
            };
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Child<'de>, A::Error> {
        // `01` and `-` name no element (RFC 6901, section 4).
        let index = self.token.parse::<usize>().ok();
        let index = index.filter(|index| index.to_string() == self.token);
        let mut found = Child::None;
        let mut at = 0;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if Some(at) == index {
                found = Child::One(value);
            }
            at += 1;
        }
        Ok(found)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Child<'de>, E> {
        Ok(Child::None)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Child<'de>, E> {
        Ok(Child::None)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Child<'de>, E> {
        Ok(Child::None)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Child<'de>, E> {
        Ok(Child::None)
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Child<'de>, E> {
        Ok(Child::None)
    }
    fn visit_unit<E: Error>(self) -> Result<Child<'de>, E> {
        Ok(Child::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_ranges() {
        let text = " {\"a\" : [1, {\"b/c\":\"v\"}, null],\n \"\\u0064\": \"x\" , \"e\":{}} ";
        let found =
            |pointer| locate(text.as_bytes(), pointer).map(|range| range.map(|range| &text[range]));
        assert_eq!(found("/a/1/b~1c"), Ok(Some("\"v\"")));
        assert_eq!(found("/a/0"), Ok(Some("1")));
        assert_eq!(found("/d"), Ok(Some("\"x\"")));
        assert_eq!(found("/e"), Ok(Some("{}")));
        assert_eq!(found(""), Ok(Some(text.trim())));
        for absent in [
            "/a/3", "/a/01", "/a/-", "/x", "/d/x", "/a/0/x", "/a/2/x", "/e/x",
        ] {
            assert_eq!(found(absent), Ok(None), "{absent}");
        }
    }

    #[test]
    fn doubled_keys_on_the_way_and_bad_syntax_are_faults() {
        let twice = br#"{"a":{"b":1,"\u0062":2},"c":{"d":1,"d":2},"e":1}"#;
        assert_eq!(locate(twice, "/a/b"), Err(JsonFault::DuplicateKey));
        assert_eq!(locate(twice, "/e").map(|r| r.is_some()), Ok(true));
        for bad in [
            &b"{"[..],
            b"",
            b"{\"a\":1} x",
            b"\xff",
            b"\xef\xbb\xbf{}",
            b"{a:1}",
        ] {
            assert_eq!(locate(bad, "/a"), Err(JsonFault::Syntax));
        }
    }
}
