//! Owns how Tollgate describes what it tells: one item for each metric, log field, span attribute and
//! audit field, declared beside the code that writes it. The reference page is made of these.

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// One thing that is told, as the reference page has it.
///
/// A file that writes something declares `pub const …: &[Item]`, and `telemetry/reference.rs` puts it on
/// the page. What is a struct that serde writes needs no table: [`Row::of_fields`] reads its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// As it is written: `tollgate_requests_total`, `http.request.method`, `upstream_ms`.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// The unit of its value, as UCUM has it where it does (`s`, `By`, `1`), or a word; empty for none.
    pub unit: &'static str,
    /// What it says, in a sentence or two.
    pub help: &'static str,
    /// Who named it, where that was not Tollgate: `OpenTelemetry HTTP`, `OpenTelemetry GenAI`.
    pub source: &'static str,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A metric that only grows, until the process ends.
    Counter,
    /// A metric that goes up and down.
    Gauge,
    /// A metric that counts values by size.
    Histogram,
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A list of whole numbers.
    Integers,
    /// A whole number.
    Integer,
    /// A number with a fraction.
    Number,
    /// True or false.
    Boolean,
    /// Something with fields of its own.
    Object,
}

impl Kind {
    /// The word on the reference page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Text => "string",
            Self::Texts => "string[]",
            Self::Integers => "int[]",
            Self::Integer => "int",
            Self::Number => "double",
            Self::Boolean => "boolean",
            Self::Object => "object",
        }
    }
}

impl Item {
    /// An item of this kind, without a unit, named by Tollgate.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            unit: "",
            help,
            source: "",
        }
    }

    /// A string.
    pub const fn text(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Text, help)
    }

    /// A list of strings.
    pub const fn texts(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Texts, help)
    }

    /// A whole number.
    pub const fn integer(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Integer, help)
    }

    /// A number with a fraction.
    pub const fn number(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Number, help)
    }

    /// True or false.
    pub const fn boolean(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Boolean, help)
    }

    /// The same, in this unit.
    pub const fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// The same, as named by these conventions.
    pub const fn named_by(mut self, source: &'static str) -> Self {
        self.source = source;
        self
    }
}

/// An item on its way to the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// As it is written.
    pub name: String,
    /// What its value is.
    pub kind: Kind,
    /// Its unit; empty for none.
    pub unit: String,
    /// What it says.
    pub help: String,
    /// Who named it; empty for Tollgate.
    pub source: String,
}

impl From<&Item> for Row {
    fn from(item: &Item) -> Self {
        Self {
            name: item.name.to_owned(),
            kind: item.kind,
            unit: item.unit.to_owned(),
            help: item.help.to_owned(),
            source: item.source.to_owned(),
        }
    }
}

impl Row {
    /// The fields of a struct that serde writes as one JSON object, with what its documentation says
    /// of each. Units follow from names: `duration_ms`, `request_bytes`.
    pub fn of_fields<T: JsonSchema>() -> Vec<Self> {
        let schema = schema_for!(T).to_value();
        let mut rows = Vec::new();
        fields(&schema, &schema, &mut rows);
        rows
    }
}

/// Fields of an object, and of the objects that are written as part of it.
fn fields(schema: &Value, node: &Value, rows: &mut Vec<Row>) {
    let node = resolved(schema, node);
    for (name, field) in node["properties"].as_object().into_iter().flatten() {
        rows.push(Row {
            name: name.clone(),
            kind: kind_of(schema, field),
            unit: unit_of(name).to_owned(),
            help: words(field),
            source: String::new(),
        });
    }
    for part in ["allOf", "anyOf"] {
        for part in node[part].as_array().into_iter().flatten() {
            fields(schema, part, rows);
        }
    }
}

fn words(field: &Value) -> String {
    let text = field["description"].as_str().unwrap_or_default();
    text.replace('\n', " ")
}

/// Where a reference leads.
fn resolved<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str() {
        Some(path) => schema
            .pointer(path.trim_start_matches('#'))
            .unwrap_or(&Value::Null),
        None => node,
    }
}

fn kind_of(schema: &Value, field: &Value) -> Kind {
    let field = resolved(schema, field);
    let word = match &field["type"] {
        Value::String(word) => word.as_str(),
        // What may be absent has `null` beside its type.
        Value::Array(words) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null")
            .unwrap_or_default(),
        _ => "",
    };
    match word {
        "string" => Kind::Text,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        "array" => match kind_of(schema, &field["items"]) {
            Kind::Integer => Kind::Integers,
            _ => Kind::Texts,
        },
        "object" => Kind::Object,
        _ => match field["anyOf"].as_array().and_then(|any| any.first()) {
            Some(first) => kind_of(schema, first),
            // A choice of words.
            None => Kind::Text,
        },
    }
}

/// The unit that a field's name ends in.
fn unit_of(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("ms") => "ms",
        Some("bytes") => "By",
        Some("usd") => "USD",
        Some("tokens") => "tokens",
        Some("ratio") => "1",
        Some("seconds") => "s",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Told {
        /// How long
        /// it took.
        #[schemars(rename = "took_ms")]
        took: Option<f64>,
        /// Whose.
        #[schemars(with = "Option<String>")]
        who: Option<std::sync::Arc<str>>,
        /// Which.
        names: Vec<String>,
        #[schemars(flatten)]
        part: Option<Box<Part>>,
        /// How it was.
        word: Word,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Part {
        /// Read.
        in_tokens: u64,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    enum Word {
        Well,
        Ill,
    }

    #[test]
    fn fields_are_described_by_their_documentation() {
        let rows = Row::of_fields::<Told>();
        let mut told: Vec<(&str, &str, &str, &str)> = rows
            .iter()
            .map(|r| {
                (
                    r.name.as_str(),
                    r.kind.as_str(),
                    r.unit.as_str(),
                    r.help.as_str(),
                )
            })
            .collect();
        told.sort_unstable();
        let expected = [
            ("in_tokens", "int", "tokens", "Read."),
            ("names", "string[]", "", "Which."),
            ("took_ms", "double", "ms", "How long it took."),
            ("who", "string", "", "Whose."),
            ("word", "string", "", "How it was."),
        ];
        assert_eq!(told, expected);
    }
}
