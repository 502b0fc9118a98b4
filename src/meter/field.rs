//! Owns the names of fields that metering asks for, and reading their values by one rule.
//!
//! Parsers differ: Go's `encoding/json` (Ollama) ignores case and folds U+017F and U+212A; protobuf's takes
//! `maxOutputTokens` and `max_output_tokens`; most take the last of two equal names, some the first. So a
//! field counts as present when any of them would take it, and what is not one of its documented
//! spellings, once, is refused.

use super::json::{Kind, Text, Walker};
use super::scan_error::ScanError;

/// A field of one object.
pub(super) struct Field<S> {
    /// As [`Folded`] gives it.
    pub(super) folded: &'static str,
    /// As providers document it; the first one is used in messages.
    pub(super) spellings: &'static [&'static str],
    /// What it says.
    pub(super) slot: S,
}

/// Which fields of one object have been seen.
#[derive(Default)]
pub(super) struct Seen(u64);

/// A name in lower case, with nothing but letters and digits.
pub(super) struct Folded {
    octets: [u8; Self::LONGEST],
    length: usize,
}

impl Folded {
    /// Longer than the longest field's name.
    const LONGEST: usize = 40;

    pub(super) fn of(name: Text<'_>) -> Self {
        let mut folded = Self {
            octets: [0; Self::LONGEST],
            length: 0,
        };
        // A name in `\uXXXX` is six times as long; beyond, it is no field's.
        if name.raw().len() > 8 * Self::LONGEST {
            return folded;
        }
        for character in name.said().chars() {
            let octet = match character {
                // Where a parser with C strings stops.
                '\0' => break,
                'ſ' => b's',
                '\u{212A}' => b'k',
                c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase() as u8,
                c if c.is_ascii() => continue,
                _ => b'?',
            };
            if folded.length == Self::LONGEST {
                folded.length = 0;
                break;
            }
            folded.octets[folded.length] = octet;
            folded.length += 1;
        }
        folded
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.octets[..self.length]).unwrap_or_default()
    }
}

/// The field of `table` that `name` is, if it is written as documented and for the first time.
pub(super) fn field<S: Copy>(
    table: &[Field<S>],
    seen: &mut Seen,
    name: Text<'_>,
) -> Result<Option<(&'static str, S)>, ScanError> {
    let folded = Folded::of(name);
    let found = table
        .iter()
        .position(|field| field.folded == folded.as_str());
    let Some(index) = found else {
        return Ok(None);
    };
    let Field {
        spellings, slot, ..
    } = &table[index];
    let documented = spellings[0];
    if !spellings.contains(&&*name.said()) {
        return Err(ScanError::Misspelled(documented));
    }
    if seen.0 & (1 << index) != 0 {
        return Err(ScanError::Duplicate(documented));
    }
    seen.0 |= 1 << index;
    Ok(Some((documented, *slot)))
}

/// A whole number that is not negative; `null` is nothing.
pub(super) fn natural(
    walker: &mut Walker<'_>,
    field: &'static str,
) -> Result<Option<u64>, ScanError> {
    let expected = "a whole number from 0 to 18446744073709551615, written in digits";
    let wrong = ScanError::Type { field, expected };
    match walker.peek()? {
        Kind::Null => walker.pass().map(|()| None),
        Kind::Number => walker.number()?.parse().map(Some).map_err(|_| wrong),
        _ => Err(wrong),
    }
}

/// A whole number; a negative one, as Ollama's `num_predict: -1`, is no limit.
pub(super) fn limit(
    walker: &mut Walker<'_>,
    field: &'static str,
) -> Result<Option<u64>, ScanError> {
    if walker.peek()? != Kind::Number {
        return natural(walker, field);
    }
    let number = walker.number()?;
    let expected = "a whole number";
    match number.parse::<i64>() {
        Ok(number) => Ok(u64::try_from(number).ok()),
        Err(_) => Err(ScanError::Type { field, expected }),
    }
}

/// `true` or `false`; `null` is nothing.
pub(super) fn flag(
    walker: &mut Walker<'_>,
    field: &'static str,
) -> Result<Option<bool>, ScanError> {
    let expected = "true or false";
    match walker.peek()? {
        Kind::Null => walker.pass().map(|()| None),
        Kind::Bool => walker.bool().map(Some).map_err(ScanError::from),
        _ => Err(ScanError::Type { field, expected }),
    }
}

/// A string; `null` is nothing.
pub(super) fn string<'t>(
    walker: &mut Walker<'t>,
    field: &'static str,
) -> Result<Option<Text<'t>>, ScanError> {
    let expected = "a string";
    match walker.peek()? {
        Kind::Null => walker.pass().map(|()| None),
        Kind::String => walker.string().map(Some).map_err(ScanError::from),
        _ => Err(ScanError::Type { field, expected }),
    }
}

/// The string that comes next, if one does; whatever else comes is passed over.
pub(super) fn string_if_any<'t>(walker: &mut Walker<'t>) -> Result<Option<Text<'t>>, ScanError> {
    match walker.peek()? {
        Kind::String => walker.string().map(Some).map_err(ScanError::from),
        _ => walker.pass().map(|()| None),
    }
}

/// Whether something comes next: no `null`, no empty list, no empty string. It is passed over.
pub(super) fn anything(walker: &mut Walker<'_>) -> Result<bool, ScanError> {
    match walker.peek()? {
        Kind::Null => walker.pass().map(|()| false),
        Kind::String => Ok(!walker.string()?.raw().is_empty()),
        Kind::Array => {
            let mut there = false;
            walker.array(|walker| {
                there = true;
                walker.pass::<ScanError>()
            })?;
            Ok(there)
        }
        Kind::Object | Kind::Number | Kind::Bool => walker.pass().map(|()| true),
    }
}
