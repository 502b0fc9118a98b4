//! Owns YAML: a text's documents, one by one, each with the line numbers of the whole file.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Options, Spanned};

/// Where a node stands: counted from 1, its length in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

impl Mark {
    pub(super) fn is_at(self, line: u32, column: u32) -> bool {
        (self.line, self.column) == (line, column)
    }
}

impl From<Location> for Mark {
    fn from(location: Location) -> Self {
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: small(location.line()).max(1),
            column: small(location.column()).max(1),
            length: u32::try_from(location.span().len())
                .unwrap_or(u32::MAX)
                .max(1),
        }
    }
}

/// A value of any type and where it stands. It has no `Debug`: it may hold a secret that somebody
/// wrote where none belongs.
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
}

/// What a node holds. Numbers and booleans are kept as text.
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Mark,
    pub(super) value: Node,
}

impl Node {
    /// The entries, if this is a mapping.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of this name, if this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value at the end of these keys.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter()
            .try_fold(self, |node, key| node.entry(key).map(|entry| &entry.value))
    }

    /// The text, if this is a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The children with their step of the path: `.key` or `[index]`.
    pub(super) fn children(&self) -> Vec<(String, &Self)> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (format!(".{}", entry.key), &entry.value))
                .collect(),
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (format!("[{index}]"), item))
                .collect(),
            Value::Null | Value::Scalar(_) => Vec::new(),
        }
    }

    /// The path of the mapping that has a key at this place (`spec.egress[0]`).
    pub(super) fn path_of_key(&self, line: u32, column: u32) -> Option<String> {
        self.path_of(&|node| {
            node.entries()
                .iter()
                .any(|entry| entry.at.is_at(line, column))
        })
    }

    /// The path of the value at this place.
    pub(super) fn path_of_value(&self, line: u32, column: u32) -> Option<String> {
        self.path_of(&|node| node.at.is_at(line, column))
    }

    fn path_of(&self, wanted: &dyn Fn(&Self) -> bool) -> Option<String> {
        if wanted(self) {
            return Some(String::new());
        }
        self.children().into_iter().find_map(|(step, child)| {
            let rest = child.path_of(wanted)?;
            Some(format!("{step}{rest}"))
        })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            at: spanned.referenced.into(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }
    fn visit_i128<E>(self, v: i128) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }
    fn visit_u128<E>(self, v: u128) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push(Entry {
                key: key.value,
                at: key.referenced.into(),
                value: map.next_value()?,
            });
        }
        Ok(Value::Map(entries))
    }
}

/// Parses the one document in `text`.
pub(super) fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// Strict where YAML is lax. A document of ours is a few hundred lines; the budgets keep aliases
/// from making it more.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_depth: 32,
            max_anchors: 100,
            max_aliases: 1_000,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
        },
        strict_booleans: true,
        // A tag that is skipped (`!secret x`) would be a promise that is not kept.
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// One document's part of a text.
pub(super) struct Piece<'a> {
    text: &'a str,
    lines_before: usize,
}

impl Piece<'_> {
    /// The document behind as many empty lines as stand before it in the file, so that every parser
    /// counts lines as the user does.
    pub(super) fn padded(&self) -> String {
        let mut padded = "\n".repeat(self.lines_before);
        padded.push_str(self.text);
        padded
    }
}

/// The documents of a text. They are parsed one by one: a broken one does not hide the next.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut lines_before, mut end) = (0, 0, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // Both markers stand at the line's beginning even within quotes and block scalars (YAML 1.2.2,
        // section 9.1.4, c-forbidden), so splitting by line is exact.
        let ends_document = is_marker(line, "...");
        if ends_document || is_marker(line, "---") {
            pieces.push(Piece {
                text: &text[start..end],
                lines_before,
            });
            start = if ends_document { end + line.len() } else { end };
            lines_before = index + usize::from(ends_document);
        }
        end += line.len();
    }
    pieces.push(Piece {
        text: &text[start..],
        lines_before,
    });
    pieces.retain(|piece| holds_something(piece.text));
    pieces
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n']))
}

fn holds_something(document: &str) -> bool {
    document.lines().any(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim_start();
        // `%YAML 1.2` stands before the marker, in a piece of its own.
        !line.is_empty() && !line.starts_with(['#', '%'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_the_line_numbers_of_the_file() {
        let text =
            "# head\n---\na: 1\n---\n# nothing\n---\nb:\n  - c: |\n      x\n...\n--- {d: 4}\n";
        let lines: Vec<(u32, String)> = pieces(text)
            .iter()
            .map(|piece| {
                let node: Node = parse(&piece.padded()).unwrap();
                (node.at.line, node.entries()[0].key.clone())
            })
            .collect();
        assert_eq!(lines, [(3, "a".into()), (7, "b".into()), (11, "d".into())]);
    }

    #[test]
    fn a_path_leads_to_what_stands_at_a_place() {
        let node: Node = parse("spec:\n  egress:\n    - hosts: [a]\n      metods: [b]\n").unwrap();
        assert_eq!(node.path_of_key(4, 7).unwrap(), ".spec.egress[0]");
        assert_eq!(
            node.path_of_value(4, 16).unwrap(),
            ".spec.egress[0].metods[0]"
        );
        assert_eq!(node.get(&["spec", "egress"]).unwrap().at.line, 3);
    }

    #[test]
    fn bombs_duplicates_and_unknown_tags_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let previous = format!("*a{},", n - 1).repeat(9);
            bomb.push_str(&format!("a{n}: &a{n} [{previous}]\n"));
        }
        for bad in [bomb.as_str(), "a: 1\na: 2\n", "a: !secret b\n", "a: *b\n"] {
            assert!(parse::<Node>(bad).is_err(), "{bad}");
        }
    }
}
