//! Owns secrets that somebody wrote where none belongs: they are found, and covered before anything
//! of the text is shown.

use super::yaml::{Entry, Mark, Node, Value};

/// A secret in a document: where, and under which path.
pub(super) struct Literal {
    pub(super) at: Mark,
    pub(super) path: String,
}

/// How the known providers' secrets begin. None of these begins a word of English.
const PREFIXES: [&str; 26] = [
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "pk_live_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "AIza",
    "ya29.",
    "GOCSPX-",
    "npm_",
    "pypi-",
    "hf_",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "AKIA",
    "ASIA",
    "gsk_",
    "eyJ",
    "-----BEGIN",
];

/// Whether `text` has the form of a secret rather than of a name. Shapes (`sk-[A-Z:20]`) do not.
pub(super) fn looks_secret(text: &str) -> bool {
    words(text).any(|(_, word)| is_secret_word(word))
}

/// `text` for a message: covered if it may be a secret, cut if it is long.
pub(super) fn shown(text: &str) -> String {
    if looks_secret(text) {
        return "***".into();
    }
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `text` with these marks, and everything that looks like a secret, covered by stars.
///
/// Each covered character becomes one star, so that columns stay what they are.
pub(super) fn cover(text: &str, marks: &[Mark]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for mark in marks {
        let start = offset(&chars, mark.line, mark.column);
        let end = start.saturating_add(mark.length as usize).min(chars.len());
        cover_chars(&mut chars[start..end]);
    }
    let covered: String = chars.into_iter().collect();
    let mut result = covered.clone().into_bytes();
    for (start, word) in words(&covered).filter(|(_, word)| is_secret_word(word)) {
        // Words are ASCII, so bytes are characters.
        result[start..start + word.len()].fill(b'*');
    }
    String::from_utf8(result).unwrap_or_default()
}

fn cover_chars(chars: &mut [char]) {
    for c in chars.iter_mut().filter(|c| **c != '\n') {
        *c = '*';
    }
}

fn offset(chars: &[char], line: u32, column: u32) -> usize {
    let ends = chars.iter().enumerate().filter(|(_, c)| **c == '\n');
    let start = match line {
        0 | 1 => 0,
        line => match ends.map(|(i, _)| i + 1).nth(line as usize - 2) {
            Some(start) => start,
            None => chars.len(),
        },
    };
    (start + column.saturating_sub(1) as usize).min(chars.len())
}

/// Runs of the characters that tokens are made of.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b'=');
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|b| inside(*b))?;
        let length = bytes[start..].iter().take_while(|b| inside(**b)).count();
        at = start + length;
        Some((start, &text[start..at]))
    })
}

fn is_secret_word(word: &str) -> bool {
    let known = PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    if known {
        return word.len() >= 16;
    }
    let has = |kind: fn(&u8) -> bool| word.bytes().any(|b| kind(&b));
    let mixed =
        has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let hex = word.bytes().all(|b| b.is_ascii_hexdigit()) && has(u8::is_ascii_digit);
    (mixed && word.len() >= 24) || (hex && word.len() >= 32)
}

/// Where a document of this kind has sources.
pub(super) fn in_document(kind: &str, root: &Node) -> Vec<Literal> {
    let paths: &[&[&str]] = match kind {
        "EgressCredential" => &[&["spec", "source"]],
        "TollgateConfig" => &[
            &["spec", "admin", "token"],
            &["spec", "placeholders", "key"],
        ],
        _ => &[],
    };
    let mut found = Vec::new();
    for path in paths {
        if let Some(node) = root.get(path) {
            in_source(&path.join("."), node, &mut found);
        }
    }
    if let ("TollgateConfig", Some(agents)) = (kind, root.get(&["spec", "identity", "agents"])) {
        for (step, agent) in agents.children() {
            if let Some(token) = agent.get(&["token"]) {
                in_source(
                    &format!("spec.identity.agents{step}.token"),
                    token,
                    &mut found,
                );
            }
        }
    }
    found
}

fn in_source(path: &str, source: &Node, found: &mut Vec<Literal>) {
    if let Value::Scalar(text) = &source.value {
        // `source: env` is an unfinished source, not a secret.
        if !is_source_kind(text) {
            found.push(Literal {
                at: source.at,
                path: path.to_owned(),
            });
        }
        return;
    }
    for entry in source.entries() {
        let path = format!("{path}.{}", shown(&entry.key));
        match names_a_secret(entry) {
            true => found.push(Literal {
                at: entry.value.at,
                path,
            }),
            false => anywhere(&path, &entry.value, found),
        }
    }
}

fn is_source_kind(word: &str) -> bool {
    matches!(word, "env" | "file" | "exec")
}

/// `value: …`, `apiKey: …`: what a person writes who thinks that the secret goes here.
fn names_a_secret(entry: &Entry) -> bool {
    let Value::Scalar(text) = &entry.value.value else {
        return false;
    };
    let key = entry.key.to_lowercase();
    let asks = ["value", "secret", "token", "key", "password", "literal"]
        .iter()
        .any(|word| key.ends_with(word));
    asks || looks_secret(text)
}

/// What looks like a secret further down: an argument or a variable of an exec source.
fn anywhere(path: &str, node: &Node, found: &mut Vec<Literal>) {
    if node.text().is_some_and(looks_secret) {
        found.push(Literal {
            at: node.at,
            path: path.to_owned(),
        });
    }
    for (step, child) in node.children() {
        anywhere(&format!("{path}{step}"), child, found);
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    #[test]
    fn secrets_are_told_from_names() {
        for secret in [
            "sk-ant-api03-AAAAAAAAAAAAAAAAAAAA",
            "Bearer ghp_0123456789abcdefghij",
            "x=AIzaSyA-1234567890abcdef",
            "aB3dE5gH7jK9mN1pQ3sT5vW7",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for name in [
            "ANTHROPIC_API_KEY",
            "console.anthropic.com",
            "/var/run/secrets/tollgate/anthropic",
            "sk-ant-api03-[A-Za-z0-9_-:93]AA",
            "team-a-production-credential-number-1",
            "release-assets.githubusercontent.com",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn covering_keeps_every_column() {
        let text =
            "a: ü\nsource: \"hunter2\" # x\nb: |\n  one\n  two\nc: ghp_0123456789abcdefghij\n";
        let node: Node = parse(text).unwrap();
        let marks = [
            node.get(&["source"]).unwrap().at,
            node.get(&["b"]).unwrap().at,
        ];
        assert_eq!(
            cover(text, &marks),
            "a: ü\nsource: ********* # x\nb: |\n  ***\n*****\nc: ************************\n"
        );
    }

    #[test]
    fn literals_are_found_where_sources_stand() {
        let table = [
            ("EgressCredential", "spec: {source: hunter2}", "spec.source"),
            (
                "EgressCredential",
                "spec: {source: {value: x}}",
                "spec.source.value",
            ),
            (
                "EgressCredential",
                "spec: {source: {apiKey: x}}",
                "spec.source.apiKey",
            ),
            (
                "EgressCredential",
                "spec: {source: {env: sk-ant-api03-AAAAAAAAAAA}}",
                "spec.source.env",
            ),
            (
                "EgressCredential",
                "spec: {source: {exec: {command: [x, sk-ant-api03-AAAAAAAAAAA]}}}",
                "spec.source.exec.command[1]",
            ),
            (
                "TollgateConfig",
                "spec: {identity: {agents: [{name: a, token: hunter2}]}}",
                "spec.identity.agents[0].token",
            ),
        ];
        for (kind, text, path) in table {
            let found = in_document(kind, &parse(text).unwrap());
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].path, path);
        }
        for text in [
            "spec: {source: {env: {name: KEY}}}",
            "spec: {source: {file: {path: /run/key, pointer: /token}}}",
            "spec: {source: env}",
        ] {
            assert!(in_document("EgressCredential", &parse(text).unwrap()).is_empty());
        }
    }
}
