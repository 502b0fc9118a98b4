//! Owns the way from a text to typed documents: first the envelope says what a document is, then it
//! is read as that. Every mistake that can be told apart is reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::budget::EgressBudgetSpec;
use super::bundle::Document;
use super::credential::EgressCredentialSpec;
use super::error::{ConfigError, Place, SourceFile};
use super::explain::{explain, place};
use super::literal::{self, Literal, shown};
use super::policy::EgressPolicySpec;
use super::recover::without_entry_at;
use super::root::TollgateConfigSpec;
use super::suggest::did_you_mean;
use super::yaml::{self, Mark, Node, Piece, Value};

/// The only version there is.
pub(super) const API_VERSION: &str = "tollgate.dev/v1alpha1";

/// The kinds there are, in the order in which help lists them.
pub(super) const KINDS: [&str; 4] = [
    "EgressPolicy",
    "EgressCredential",
    "EgressBudget",
    "TollgateConfig",
];

/// More documents than any file holds that a person wrote.
const MAX_DOCUMENTS: usize = 512;

/// More mistakes than anybody mends at once.
const MAX_ERRORS_PER_DOCUMENT: usize = 20;

/// Which kinds the caller is after; others are passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `TollgateConfig`.
    Config,
    /// `EgressPolicy`, `EgressCredential` and `EgressBudget`.
    Resources,
}

/// What was found in one text.
pub(super) struct Found {
    pub(super) file: Arc<SourceFile>,
    pub(super) policies: Vec<Named<EgressPolicySpec>>,
    pub(super) credentials: Vec<Named<EgressCredentialSpec>>,
    pub(super) budgets: Vec<Named<EgressBudgetSpec>>,
    pub(super) configs: Vec<Named<TollgateConfigSpec>>,
    pub(super) errors: Vec<ConfigError>,
}

/// A document, and where its name is written.
pub(super) struct Named<S> {
    pub(super) document: Document<S>,
    pub(super) name_at: Place,
}

/// Whose text it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    User,
    Program,
}

/// A document as it stands, `apiVersion` and `kind` being known already.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
}

/// The part of Kubernetes' ObjectMeta that a person writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

/// Reads every document of `text`, which a person finds under `name`.
pub(super) fn read(name: &str, text: &str, author: Author, wanted: Wanted) -> Found {
    let pieces = yaml::pieces(text);
    let readings: Vec<Reading> = pieces
        .iter()
        .take(MAX_DOCUMENTS)
        .map(Reading::new)
        .collect();
    let literals: Vec<Mark> = readings
        .iter()
        .flat_map(|reading| reading.literals.iter().map(|literal| literal.at))
        .collect();
    let mut found = Found {
        file: Arc::new(SourceFile {
            name: name.to_owned(),
            text: literal::cover(text, &literals),
        }),
        policies: Vec::new(),
        credentials: Vec::new(),
        budgets: Vec::new(),
        configs: Vec::new(),
        errors: Vec::new(),
    };
    if pieces.len() > MAX_DOCUMENTS {
        let message = format!("more than {MAX_DOCUMENTS} documents in one file");
        found.errors.push(
            ConfigError::new("TG0104", message)
                .at(start_of(&found.file))
                .help("put them into several files of one directory"),
        );
    }
    if pieces.is_empty() {
        found.errors.push(
            ConfigError::new("TG0105", format!("{name} holds no document"))
                .help(format!("begin one with `apiVersion: {API_VERSION}`")),
        );
    }
    for reading in &readings {
        reading.read_into(author, wanted, &mut found);
    }
    found
}

fn start_of(file: &Arc<SourceFile>) -> Place {
    Place {
        file: file.clone(),
        line: 1,
        column: 1,
        length: 1,
    }
}

/// One document on its way.
struct Reading {
    padded: String,
    tree: Result<Node, serde_saphyr::Error>,
    literals: Vec<Literal>,
}

impl Reading {
    fn new(piece: &Piece<'_>) -> Self {
        let padded = piece.padded();
        let tree: Result<Node, _> = yaml::parse(&padded);
        let literals = match &tree {
            Ok(root) => literal::in_document(kind_of(root), root),
            Err(_) => Vec::new(),
        };
        Self {
            padded,
            tree,
            literals,
        }
    }

    fn read_into(&self, author: Author, wanted: Wanted, found: &mut Found) {
        let file = found.file.clone();
        let root = match &self.tree {
            Ok(root) => root,
            Err(error) => return found.errors.push(explain(error, None, &file)),
        };
        let kind = match check_envelope(root, &file) {
            Ok(kind) => kind,
            Err(errors) => return found.errors.extend(errors),
        };
        if (kind == "TollgateConfig") != (wanted == Wanted::Config) {
            return;
        }
        let mut errors = Vec::new();
        let name = check_name(root, kind, &file).map_err(|error| errors.push(error));
        if !self.literals.is_empty() {
            let said = self
                .literals
                .iter()
                .map(|found| refuse_literal(found, &file));
            errors.extend(said);
            // Reading on might quote the secret.
            return found.errors.extend(errors);
        }
        let document = Target {
            reading: self,
            root,
            file,
            author,
            name_at: name.ok(),
        };
        match kind {
            "EgressPolicy" => document.read_into(&mut found.policies, &mut errors),
            "EgressCredential" => document.read_into(&mut found.credentials, &mut errors),
            "EgressBudget" => document.read_into(&mut found.budgets, &mut errors),
            _ => document.read_into(&mut found.configs, &mut errors),
        }
        found.errors.append(&mut errors);
    }
}

/// What is needed to read a document as its kind.
struct Target<'a> {
    reading: &'a Reading,
    root: &'a Node,
    file: Arc<SourceFile>,
    author: Author,
    name_at: Option<Mark>,
}

impl Target<'_> {
    fn read_into<S: DeserializeOwned>(
        self,
        documents: &mut Vec<Named<S>>,
        errors: &mut Vec<ConfigError>,
    ) {
        let written = match self.read::<S>() {
            Ok(written) => written,
            Err(more) => return errors.extend(more),
        };
        let Some(name_at) = self.name_at else {
            return;
        };
        documents.push(Named {
            name_at: place(&self.file, name_at),
            document: Document {
                name: written.metadata.name,
                namespace: written.metadata.namespace,
                uid: written.metadata.uid,
                file: self.file,
                line: self.root.at.line,
                builtin: self.author == Author::Program,
                spec: written.spec,
            },
        });
    }

    fn read<S: DeserializeOwned>(&self) -> Result<Written<S>, Vec<ConfigError>> {
        read_as(&self.reading.padded, self.root, &self.file)
    }
}

/// Reads a text as `T`, `root` being what it holds; every mistake that can be told apart is reported.
pub(super) fn read_as<T: DeserializeOwned>(
    padded: &str,
    root: &Node,
    file: &Arc<SourceFile>,
) -> Result<T, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut text = padded.to_owned();
    loop {
        let error = match yaml::parse(&text) {
            Ok(read) if errors.is_empty() => return Ok(read),
            Ok(_) => return Err(errors),
            Err(error) => error,
        };
        if !errors.is_empty() && !stands_alone(&error) {
            return Err(errors);
        }
        errors.push(explain(&error, Some(root), file));
        if errors.len() == MAX_ERRORS_PER_DOCUMENT {
            return Err(errors);
        }
        let rest = error
            .location()
            .and_then(|at| without_entry_at(&text, root, at.into()));
        match rest {
            Some(rest) if rest != text => text = rest,
            _ => return Err(errors),
        }
    }
}

/// Whether an error is one of its own, rather than a hole that was left by blanking another.
fn stands_alone(error: &serde_saphyr::Error) -> bool {
    use serde_saphyr::Error;
    matches!(
        error,
        Error::SerdeUnknownField { .. }
            | Error::SerdeUnknownVariant { .. }
            | Error::Message { .. }
            | Error::InvalidScalar { .. }
            | Error::InvalidBooleanStrict { .. }
    )
}

fn kind_of(root: &Node) -> &str {
    root.get(&["kind"]).and_then(Node::text).unwrap_or("")
}

/// The kind, if version and kind are ours.
fn check_envelope<'a>(root: &'a Node, file: &Arc<SourceFile>) -> Result<&'a str, Vec<ConfigError>> {
    let Value::Map(_) = &root.value else {
        return Err(vec![
            ConfigError::new("TG0205", "a document wants keys of its own")
                .at(place(file, root.at))
                .help("its keys are apiVersion, kind, metadata, spec"),
        ]);
    };
    let version = envelope_word(root, "apiVersion", "TG0201", &[API_VERSION], file);
    let kind = envelope_word(root, "kind", "TG0202", &KINDS, file);
    match (version, kind) {
        (Ok(_), Ok(kind)) => Ok(kind),
        (version, kind) => Err(version.err().into_iter().chain(kind.err()).collect()),
    }
}

fn envelope_word<'a>(
    root: &'a Node,
    key: &str,
    code: &'static str,
    possible: &[&str],
    file: &Arc<SourceFile>,
) -> Result<&'a str, ConfigError> {
    let help = match possible {
        [only] => format!("write `{key}: {only}`"),
        several => format!("`{key}` is one of {}", several.join(", ")),
    };
    let Some(entry) = root.entry(key) else {
        let misspelt = root
            .entries()
            .iter()
            .find(|entry| did_you_mean(&entry.key, [key]).is_some());
        let error = ConfigError::new(code, format!("the document has no `{key}`")).help(help);
        return Err(match misspelt {
            Some(entry) => error
                .at(place(file, entry.at))
                .label(format!("did you mean `{key}`?")),
            None => error.at(place(file, first_key(root))),
        });
    };
    let word = entry.value.text().unwrap_or("");
    if possible.contains(&word) {
        return Ok(entry.value.text().unwrap_or(""));
    }
    let error = ConfigError::new(code, format!("unknown {key} `{}`", shown(word)))
        .at(place(file, entry.value.at))
        .help(help);
    Err(match did_you_mean(word, possible.iter().copied()) {
        Some(guess) => error.label(guess),
        None => error,
    })
}

fn first_key(root: &Node) -> Mark {
    root.entries().first().map_or(root.at, |entry| entry.at)
}

/// Where the name stands. It must be one that the cluster accepts, too (RFC 1123, section 2.1).
fn check_name(root: &Node, kind: &str, file: &Arc<SourceFile>) -> Result<Mark, ConfigError> {
    let Some(name) = root.get(&["metadata", "name"]) else {
        let at = root
            .entry("metadata")
            .map_or_else(|| first_key(root), |entry| entry.at);
        return Err(
            ConfigError::new("TG0208", format!("the {kind} has no name"))
                .at(place(file, at))
                .help("add `metadata: { name: … }`"),
        );
    };
    let text = name.text().unwrap_or("");
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = (1..=253).contains(&text.len())
        && text.bytes().all(|b| plain(b) || matches!(b, b'-' | b'.'))
        && text.bytes().next().is_some_and(plain)
        && text.bytes().last().is_some_and(plain);
    match fits {
        true => Ok(name.at),
        false => Err(
            ConfigError::new("TG0208", format!("`{}` is not a name", shown(text)))
                .at(place(file, name.at))
                .help("use lower case letters, digits, `-` and `.`, beginning and ending with a letter or digit"),
        ),
    }
}

fn refuse_literal(literal: &Literal, file: &Arc<SourceFile>) -> ConfigError {
    ConfigError::new(
        "TG0210",
        format!(
            "`{}` holds a secret instead of the place it comes from",
            literal.path
        ),
    )
    .at(place(file, literal.at))
    .label("secrets are never part of a document")
    .help(
        "write `{ env: { name: VARIABLE } }`, `{ file: { path: /run/secrets/NAME } }` \
         or `{ exec: { command: [PROGRAM] } }`; if this was a real secret, replace it",
    )
}
