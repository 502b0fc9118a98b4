//! Owns what a YAML error says to a person: a code, a sentence, the place and the mending edit.

use std::sync::Arc;

use serde_saphyr::Error;

use super::error::{ConfigError, Place, SourceFile};
use super::literal::shown;
use super::suggest::did_you_mean;
use super::yaml::{Mark, Node};

/// The text is not YAML.
const SYNTAX: &str = "TG0107";
/// A key stands twice in one mapping.
const DUPLICATE_KEY: &str = "TG0108";
/// Nesting, size or aliases beyond any honest document.
const BUDGET: &str = "TG0109";
/// A key that does not exist.
const UNKNOWN_KEY: &str = "TG0203";
/// A key that must be there.
const MISSING_KEY: &str = "TG0204";
/// A list where a mapping belongs, and the like.
const WRONG_TYPE: &str = "TG0205";
/// A word that is not among the ones to choose from.
const UNKNOWN_VARIANT: &str = "TG0206";
/// The type is right, the value is not.
const INVALID_VALUE: &str = "TG0207";

/// The place of a mark, cut off at the end of its line.
pub(super) fn place(file: &Arc<SourceFile>, at: Mark) -> Place {
    let line = file.text.lines().nth(at.line as usize - 1).unwrap_or("");
    let width = u32::try_from(line.trim_end().chars().count()).unwrap_or(u32::MAX);
    let rest = (width + 1).saturating_sub(at.column).max(1);
    Place {
        file: file.clone(),
        line: at.line,
        column: at.column,
        length: at.length.clamp(1, rest),
    }
}

/// Says what `error` means. `tree` is the document, if it could be read that far.
pub(super) fn explain(error: &Error, tree: Option<&Node>, file: &Arc<SourceFile>) -> ConfigError {
    let mark = error.location().map(Mark::from);
    let scene = Scene { mark, tree };
    let said = scene.say(error);
    let word = match error {
        // A word where a mapping belongs is noticed only behind it.
        Error::Unexpected { .. } => scene.word_before().map(|(at, _)| at),
        _ => None,
    };
    match mark.map(|mark| first_tab(error, mark, file).unwrap_or(mark)) {
        Some(mark) => said.at(place(file, word.unwrap_or(mark))),
        None => said,
    }
}

/// The parser notices a tab only where the indentation ends.
fn first_tab(error: &Error, mark: Mark, file: &Arc<SourceFile>) -> Option<Mark> {
    match error {
        Error::ExternalMessage { msg, .. } if msg.contains("tab") => {
            let line = file.text.lines().nth(mark.line as usize - 1)?;
            let column = u32::try_from(line.chars().position(|c| c == '\t')?).ok()? + 1;
            Some(Mark {
                column,
                length: 1,
                ..mark
            })
        }
        _ => None,
    }
}

struct Scene<'a> {
    mark: Option<Mark>,
    tree: Option<&'a Node>,
}

impl Scene<'_> {
    fn say(&self, error: &Error) -> ConfigError {
        match error {
            Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => self.say(error),
            Error::SerdeUnknownField {
                field, expected, ..
            } => {
                let field = shown(field);
                with_guess(
                    ConfigError::new(
                        UNKNOWN_KEY,
                        format!("unknown key `{field}` in {}", self.owner()),
                    )
                    .help(format!("keys here are {}", expected.join(", "))),
                    did_you_mean(&field, expected.iter().copied()),
                    "no such key",
                )
            }
            Error::SerdeUnknownVariant {
                variant, expected, ..
            } => {
                let variant = shown(variant);
                with_guess(
                    ConfigError::new(
                        UNKNOWN_VARIANT,
                        format!("`{variant}` is not possible in {}", self.value_or_owner()),
                    )
                    .help(format!("possible are {}", expected.join(", "))),
                    did_you_mean(&variant, expected.iter().copied()),
                    "not one of the possible words",
                )
            }
            Error::SerdeMissingField { field, .. } => ConfigError::new(
                MISSING_KEY,
                format!("`{field}` is missing in {}", self.value_or_owner()),
            )
            .label(format!("no `{field}` here"))
            .help(format!("add `{field}: …`")),
            Error::DuplicateMappingKey { key, .. } => {
                let key = key
                    .as_deref()
                    .map_or_else(|| "a key".into(), |key| format!("key `{}`", shown(key)));
                ConfigError::new(DUPLICATE_KEY, format!("{key} stands twice in one mapping"))
                    .label("written before")
                    .help("remove one of the two, or put both values into one list")
            }
            Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
            | Error::AliasReplayCounterOverflow { .. } => ConfigError::new(
                BUDGET,
                "the document nests, repeats or refers to itself beyond the limit",
            )
            .help("write it out in smaller documents, without aliases"),
            Error::UnknownAnchor { .. } => ConfigError::new(SYNTAX, "no such anchor above")
                .help("quote a value that begins with `*`: \"*.example.com\""),
            Error::UnsupportedTag { tag, .. } => ConfigError::new(
                SYNTAX,
                format!("the tag `{}` means nothing here", shown(tag)),
            )
            .help("remove it, or quote the value"),
            Error::ExternalMessage { msg, .. } => syntax(msg),
            Error::Eof { .. } => ConfigError::new(SYNTAX, "the document ends too early"),
            _ => self.say_type(error),
        }
    }

    fn say_type(&self, error: &Error) -> ConfigError {
        match error {
            Error::Message { msg, .. } => ConfigError::new(INVALID_VALUE, plain(msg)),
            Error::InvalidScalar { ty, .. } => {
                let wanted = scalar_type(ty);
                ConfigError::new(INVALID_VALUE, format!("{} wants {wanted}", self.value()))
            }
            Error::InvalidBooleanStrict { .. } => ConfigError::new(
                INVALID_VALUE,
                format!("{} wants true or false", self.value()),
            )
            .help("write `true` or `false`"),
            Error::NullIntoString { .. } => {
                ConfigError::new(WRONG_TYPE, format!("{} is empty", self.value()))
                    .help("write a value, or remove the key")
            }
            Error::Unexpected { expected, .. } => self.wrong_type(expected),
            Error::SerdeInvalidType { expected, .. } => {
                ConfigError::new(WRONG_TYPE, format!("{} wants {expected}", self.value()))
            }
            Error::SerdeInvalidValue { expected, .. }
            | Error::SerdeInvalidLength { expected, .. } => {
                let wanted = match expected.strip_prefix("a nonzero ") {
                    Some(ty) => format!("{} other than 0", scalar_type(ty)),
                    None => expected.clone(),
                };
                ConfigError::new(INVALID_VALUE, format!("{} wants {wanted}", self.value()))
            }
            Error::ExpectedMappingEndAfterEnumVariantValue { .. } => ConfigError::new(
                WRONG_TYPE,
                format!("{} names more than one thing", self.owner()),
            )
            .label("second one")
            .help("keep exactly one; in a list, begin each with `- `"),
            Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
                self.wrong_type("mapping start")
            }
            // Rare and the parser's own words; they hold positions and types, not values.
            other => ConfigError::new(SYNTAX, plain(&other.to_string())),
        }
    }

    fn wrong_type(&self, expected: &str) -> ConfigError {
        if let Some((_, word)) = self.word_before() {
            let word = shown(word);
            return ConfigError::new(WRONG_TYPE, format!("`{word}` wants keys of its own")).help(
                format!("write `{word}: {{ key: value }}`, or `{word}: {{}}`"),
            );
        }
        let owner = self.value();
        let (wanted, help) = match expected {
            "sequence start" => ("a list", "write `[a, b]`, or one `- a` per line"),
            "mapping start" => (
                "keys of its own",
                "write `{ key: value }`, or `{}` for none",
            ),
            "string scalar" | "scalar" => ("one value", "write a single word or a quoted text"),
            _ => ("something else", "see the reference for its form"),
        };
        ConfigError::new(WRONG_TYPE, format!("{owner} wants {wanted}")).help(help)
    }

    /// The mapping whose key is marked.
    fn owner(&self) -> String {
        self.path(Node::path_of_key)
    }

    /// The value that is marked.
    fn value(&self) -> String {
        self.path(Node::path_of_value)
    }

    /// Some errors mark a key (`baerer: {}`), some a value (`mode: Swap`).
    fn value_or_owner(&self) -> String {
        let by_key = self
            .mark
            .zip(self.tree)
            .and_then(|(mark, tree)| tree.path_of_key(mark.line, mark.column));
        match by_key {
            Some(_) => self.owner(),
            None => self.value(),
        }
    }

    /// The last word before the mark, if nothing begins at the mark itself.
    fn word_before(&self) -> Option<(Mark, &str)> {
        let (mark, tree) = self.mark.zip(self.tree)?;
        let (line, column) = (mark.line, mark.column);
        let known =
            tree.path_of_key(line, column).is_some() || tree.path_of_value(line, column).is_some();
        match known {
            true => None,
            false => last_word(tree, mark),
        }
    }

    fn path(&self, find: fn(&Node, u32, u32) -> Option<String>) -> String {
        let path = self
            .mark
            .zip(self.tree)
            .and_then(|(mark, tree)| find(tree, mark.line, mark.column));
        match path.as_deref() {
            Some("") => "the document".into(),
            Some(path) => format!("`{}`", path.trim_start_matches('.')),
            None => "this place".into(),
        }
    }
}

fn last_word(node: &Node, before: Mark) -> Option<(Mark, &str)> {
    let earlier = |at: Mark| (at.line, at.column) < (before.line, before.column);
    let own = node.text().map(|text| (node.at, text));
    let below = node.children().into_iter();
    below
        .filter_map(|(_, child)| last_word(child, before))
        .chain(own)
        .filter(|(at, _)| earlier(*at))
        .max_by_key(|(at, _)| (at.line, at.column))
}

fn with_guess(error: ConfigError, guess: Option<String>, otherwise: &str) -> ConfigError {
    match guess {
        Some(guess) => error.label(guess),
        None => error.label(otherwise),
    }
}

/// A message of our own `Deserialize` implementations: without the position that the parser adds,
/// and without anything that may be a secret.
fn plain(message: &str) -> String {
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => message,
    };
    super::literal::cover(message, &[])
}

fn scalar_type(ty: &str) -> &'static str {
    match ty {
        "u16" => "a whole number from 0 to 65535",
        "bool" | "boolean" => "true or false",
        ty if ty.starts_with(['u', 'i']) => "a whole number",
        _ => "another kind of value",
    }
}

fn syntax(parser: &str) -> ConfigError {
    let table = [
        (
            "tab",
            "a tab stands where spaces belong",
            "YAML is indented with spaces only",
        ),
        (
            "unclosed quote",
            "a quote is never closed",
            "close it with the same kind of quote",
        ),
        (
            "bracket",
            "the brackets do not match",
            "close every `[` and `{` in the order they were opened",
        ),
        (
            "',' or",
            "the brackets do not match",
            "close every `[` and `{`, and put commas between the parts",
        ),
        (
            "illegal placement of ':'",
            "a `:` stands where none belongs",
            "close the bracket before it, or quote the text that holds it",
        ),
        (
            "mapping values are not allowed",
            "a `:` stands where none belongs",
            "quote a text that holds `: `, or indent the key as the ones above it",
        ),
        (
            "did not find expected key",
            "the indentation fits no line above",
            "indent a key as far as the keys it belongs with",
        ),
        (
            "expected '-' indicator",
            "the indentation fits no line above",
            "indent `- ` as far as the items above it",
        ),
        (
            "indentation",
            "the indentation fits no line above",
            "indent a key as far as the keys it belongs with",
        ),
        (
            "escape",
            "no such escape in a double-quoted text",
            "use single quotes, where a backslash is a backslash",
        ),
    ];
    match table.iter().find(|(part, ..)| parser.contains(part)) {
        Some((_, message, help)) => ConfigError::new(SYNTAX, *message).help(*help),
        None => ConfigError::new(SYNTAX, format!("this is not YAML: {}", plain(parser))),
    }
}
