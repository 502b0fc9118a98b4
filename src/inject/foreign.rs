//! Owns what happens to credentials that are not the agent's placeholder: another agent's
//! placeholder is always refused, anything else by the rule of the host's credentials.

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::basic::{decode, halves};
use super::placeholder::Recognizer;
use crate::config::credential::OnForeign;

/// Headers that carry credentials on many hosts; they are examined whatever the placements say.
/// `Proxy-Authorization` is not among them: it never leaves.
pub static WELL_KNOWN: [HeaderName; 7] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("private-token"),
    HeaderName::from_static("x-amz-security-token"),
];

/// What a value in a credential position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No credential: empty, or a scheme without anything after it.
    Nothing,
    /// A placeholder of ours.
    Ours,
    /// Something else.
    Foreign,
}

/// What `value`, standing in a credential position, is.
pub fn examine(value: &[u8], recognizer: &Recognizer) -> Standing {
    let value = value.trim_ascii();
    if let Some((_, decoded)) = decode(value) {
        let (user, password) = halves(&decoded);
        let ours = |text| recognizer.is_ours(text);
        return match user.is_empty() && password.is_none_or(<[u8]>::is_empty) {
            true => Standing::Nothing,
            false if ours(user) || password.is_some_and(ours) => Standing::Ours,
            false => Standing::Foreign,
        };
    }
    let scheme_alone = [&b"bearer"[..], b"basic", b"token"];
    if value.is_empty() || scheme_alone.iter().any(|s| value.eq_ignore_ascii_case(s)) {
        return Standing::Nothing;
    }
    let words = value.split(|b| b" \t,;\"".contains(b));
    let after_sign = value.split(|b| b" \t,;\"=".contains(b));
    match recognizer.is_ours(value) || words.chain(after_sign).any(|w| recognizer.is_ours(w)) {
        true => Standing::Ours,
        false => Standing::Foreign,
    }
}

/// The strictest of these rules.
pub fn strictest(rules: impl Iterator<Item = OnForeign>) -> Option<OnForeign> {
    rules.max_by_key(|rule| match rule {
        OnForeign::Pass => 0,
        OnForeign::Strip => 1,
        OnForeign::Refuse => 2,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;
    use crate::config::shape::Shape;
    use crate::inject::placeholder::{DEFAULT_SHAPE, PlaceholderKey};

    #[test]
    fn values_in_credential_positions_are_told_apart() {
        let key = PlaceholderKey::new(&[7; 32]).unwrap();
        let shape = Shape::parse(DEFAULT_SHAPE).unwrap();
        let ours = key.derive(&shape, "someone", "something");
        let recognizer = Recognizer::new(key, [shape]);
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        for (value, standing) in [
            (String::new(), Standing::Nothing),
            ("Bearer".to_owned(), Standing::Nothing),
            ("basic ".to_owned(), Standing::Nothing),
            (basic(":"), Standing::Nothing),
            (ours.clone(), Standing::Ours),
            (format!("Bearer {ours}"), Standing::Ours),
            (format!("Token token=\"{ours}\""), Standing::Ours),
            (basic(&format!("user:{ours}")), Standing::Ours),
            (basic(&format!("{ours}:")), Standing::Ours),
            ("sk-ant-attacker".to_owned(), Standing::Foreign),
            ("Bearer sk-ant-attacker".to_owned(), Standing::Foreign),
            (basic("user:password"), Standing::Foreign),
            (basic("user"), Standing::Foreign),
            (format!("Bearer {}", &ours[1..]), Standing::Foreign),
        ] {
            assert_eq!(examine(value.as_bytes(), &recognizer), standing, "{value}");
        }
    }

    #[test]
    fn the_strictest_rule_wins() {
        use OnForeign::{Pass, Refuse, Strip};
        assert_eq!(strictest([Pass, Refuse, Strip].into_iter()), Some(Refuse));
        assert_eq!(strictest([Pass, Strip].into_iter()), Some(Strip));
        assert_eq!(strictest([].into_iter()), None);
    }
}
