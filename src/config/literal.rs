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

fn has_known_prefix(word: &str) -> bool {
    word.len() >= 16 && PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

fn is_secret_word(word: &str) -> bool {
    if PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
        return has_known_prefix(word);
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
            false if entry.key == "oauth" => in_oauth(&path, &entry.value, found),
            false => anywhere(&path, &entry.value, found),
        }
    }
}

/// An OAuth source has sources of its own, and long names that are no secrets: a client's identifier
/// looks like a key, yet it is public (RFC 6749, section 2.2).
fn in_oauth(path: &str, oauth: &Node, found: &mut Vec<Literal>) {
    for entry in oauth.entries() {
        let path = format!("{path}.{}", shown(&entry.key));
        match entry.key.as_str() {
            "clientSecret" | "seed" => in_source(&path, &entry.value, found),
            "grant" => {
                for grant in entry.value.entries() {
                    in_grant(
                        &format!("{path}.{}", shown(&grant.key)),
                        &grant.value,
                        found,
                    );
                }
            }
            "parameters" => in_parameters(&path, &entry.value, found),
            "login" => {
                for part in entry.value.entries() {
                    let path = format!("{path}.{}", shown(&part.key));
                    match part.key == "parameters" {
                        true => in_parameters(&path, &part.value, found),
                        false => with_prefix(&path, &part.value, found),
                    }
                }
            }
            // What a person writes who looks for the place of a token.
            key if !OAUTH_FIELDS.contains(&key) && names_a_secret(entry) => found.push(Literal {
                at: entry.value.at,
                path,
            }),
            _ => with_prefix(&path, &entry.value, found),
        }
    }
}

/// Fields of an OAuth source whose names or values could be taken for a secret's.
const OAUTH_FIELDS: [&str; 10] = [
    "agentEndpoints",
    "caFile",
    "client",
    "clientAuthentication",
    "clientId",
    "requestBody",
    "scopes",
    "store",
    "tokenEndpoint",
    "allowAddresses",
];

fn in_grant(path: &str, grant: &Node, found: &mut Vec<Literal>) {
    for entry in grant.entries() {
        let path = format!("{path}.{}", shown(&entry.key));
        match entry.key.as_str() {
            "key" => in_source(&path, &entry.value, found),
            _ => with_prefix(&path, &entry.value, found),
        }
    }
}

fn in_parameters(path: &str, parameters: &Node, found: &mut Vec<Literal>) {
    for entry in parameters.entries() {
        if names_a_secret(entry) {
            found.push(Literal {
                at: entry.value.at,
                path: format!("{path}.{}", shown(&entry.key)),
            });
        }
    }
}

/// What begins as a known provider's secrets do, among values that may look like anything.
fn with_prefix(path: &str, node: &Node, found: &mut Vec<Literal>) {
    let known = |text: &str| words(text).any(|(_, word)| has_known_prefix(word));
    if node.text().is_some_and(known) {
        found.push(Literal {
            at: node.at,
            path: path.to_owned(),
        });
    }
    for (step, child) in node.children() {
        with_prefix(&format!("{path}{step}"), child, found);
    }
}

fn is_source_kind(word: &str) -> bool {
    matches!(word, "env" | "file" | "exec" | "oauth")
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
                "EgressCredential",
                "spec: {source: {oauth: {clientSecret: hunter2}}}",
                "spec.source.oauth.clientSecret",
            ),
            (
                "EgressCredential",
                "spec: {source: {oauth: {seed: {refreshToken: hunter2}}}}",
                "spec.source.oauth.seed.refreshToken",
            ),
            (
                "EgressCredential",
                "spec: {source: {oauth: {refreshToken: hunter2}}}",
                "spec.source.oauth.refreshToken",
            ),
            (
                "EgressCredential",
                "spec: {source: {oauth: {grant: {jwtBearer: {key: hunter2}}}}}",
                "spec.source.oauth.grant.jwtBearer.key",
            ),
            (
                "EgressCredential",
                "spec: {source: {oauth: {parameters: {client_secret: hunter2}}}}",
                "spec.source.oauth.parameters.client_secret",
            ),
            (
                "EgressCredential",
                "spec: {source: {oauth: {clientId: GOCSPX-0123456789abcdef}}}",
                "spec.source.oauth.clientId",
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
            "spec: {source: {oauth: {client: codex, seed: {file: {path: /run/auth.json}}}}}",
            "spec: {source: {oauth: {clientId: app_EMoamEEZ73f0CkXaXp7hrann}}}",
            "spec: {source: {oauth: {clientId: x, clientSecret: {env: {name: KEY}}, scopes: [a/b]}}}",
            "spec: {source: {oauth: {tokenEndpoint: \"https://a/0123456789abcdef0123456789abcdef\"}}}",
            "spec: {source: {oauth: {grant: {jwtBearer: {key: {file: {path: k}}, \
             keyId: 0123456789abcdef0123456789abcdef01234567}}}}}",
            "spec: {source: {oauth: {store: {kubernetesSecret: {name: a, key: grant.json}}}}}",
        ] {
            assert!(in_document("EgressCredential", &parse(text).unwrap()).is_empty());
        }
    }
}
