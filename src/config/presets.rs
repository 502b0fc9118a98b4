//! Owns the presets: documents for well-known services that come with the program.

use super::documents::{Author, Found, Wanted, read};

/// Name and text, in the order in which they are listed.
const PRESETS: [(&str, &str); 11] = [
    ("anthropic", include_str!("../../policies/anthropic.yaml")),
    (
        "claude-code",
        include_str!("../../policies/claude-code.yaml"),
    ),
    (
        "claude-login",
        include_str!("../../policies/claude-login.yaml"),
    ),
    ("openai", include_str!("../../policies/openai.yaml")),
    ("codex", include_str!("../../policies/codex.yaml")),
    (
        "codex-login",
        include_str!("../../policies/codex-login.yaml"),
    ),
    ("gemini", include_str!("../../policies/gemini.yaml")),
    ("github", include_str!("../../policies/github.yaml")),
    ("telegram", include_str!("../../policies/telegram.yaml")),
    ("npm", include_str!("../../policies/npm.yaml")),
    ("pypi", include_str!("../../policies/pypi.yaml")),
];

/// The names of all presets.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|(name, _)| *name).collect()
}

/// The text of a preset.
pub fn source(name: &str) -> Option<&'static str> {
    PRESETS
        .iter()
        .find(|(preset, _)| *preset == name)
        .map(|(_, text)| *text)
}

/// The documents of a preset.
pub(super) fn documents(name: &str) -> Option<Found> {
    let text = source(name)?;
    let file = format!("<preset {name}>");
    Some(read(&file, text, Author::Program, Wanted::Resources))
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    #[test]
    fn every_preset_holds_its_policy_and_nothing_wrong() {
        for name in names() {
            let found = documents(name).unwrap();
            assert_eq!(found.errors, [], "{name}");
            let policies: Vec<&str> = found
                .policies
                .iter()
                .map(|named| named.document.name.as_str())
                .collect();
            assert_eq!(policies, [name]);
            for named in &found.credentials {
                assert!(named.document.spec.optional, "{name}");
                assert!(named.document.builtin);
            }
        }
    }

    #[test]
    fn credentials_of_one_name_are_the_same_in_every_preset() {
        let mut seen: Vec<(String, serde_json::Value)> = Vec::new();
        for (_, text) in PRESETS {
            for piece in yaml::pieces(text) {
                let document: serde_json::Value = yaml::parse(&piece.padded()).unwrap();
                if document["kind"] != "EgressCredential" {
                    continue;
                }
                let name = document["metadata"]["name"].as_str().unwrap().to_owned();
                for (_, other) in seen.iter().filter(|(other, _)| *other == name) {
                    assert_eq!(&document, other, "{name}");
                }
                seen.push((name, document));
            }
        }
        assert!(seen.len() > names().len() - 1);
    }
}
