//! Owns the guess behind "did you mean".

/// The candidate that `word` is most likely a misspelling of, if any is near enough.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    // A third of the word may be wrong: `metods`, `Swap`, `host`; but never all of a short word.
    let limit = (lower.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `methods`?", if something is near enough.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let keys = ["hosts", "ports", "methods", "tls"];
        for (word, guess) in [
            ("metods", Some("methods")),
            ("host", Some("hosts")),
            ("Ports", Some("ports")),
            ("TLS", Some("tls")),
            ("x", None),
            ("credentials", None),
        ] {
            assert_eq!(closest(word, keys), guess, "{word}");
        }
    }
}
