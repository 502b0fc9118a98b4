//! Owns words that a request with a secret must have in a list-valued header field: the origin takes
//! the one only with the other.

use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};

/// A word, and the field it belongs to.
#[derive(Debug, Clone)]
pub struct Appended {
    name: HeaderName,
    word: String,
}

impl Appended {
    /// `word` as a member of the field `name`.
    pub fn new(name: &str, word: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("`{name}` is no header name"))?;
        match HeaderValue::from_str(word) {
            Ok(_) => Ok(Self {
                name,
                word: word.to_owned(),
            }),
            Err(_) => Err(format!("`{word}` cannot stand in a header")),
        }
    }

    /// Puts the word behind what the agent sent, unless it is there (RFC 9110, section 5.6.1). Members
    /// are compared as they stand, and the agent's own stay in their order.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let word = self.word.as_bytes();
        let mut lines = headers.get_all(&self.name).iter();
        let is_there = |line: &HeaderValue| {
            let mut members = line.as_bytes().split(|b| *b == b',');
            members.any(|member| member.trim_ascii() == word)
        };
        if lines.any(is_there) {
            return;
        }
        let lines: Vec<HeaderValue> = headers.get_all(&self.name).iter().cloned().collect();
        // Several lines are one list (RFC 9110, section 5.3): the last one grows.
        let Some((last, before)) = lines.split_last() else {
            return self.put(headers, &[], word.to_vec());
        };
        let mut grown = last.as_bytes().to_vec();
        if !grown.trim_ascii().is_empty() {
            grown.push(b',');
        }
        grown.extend_from_slice(word);
        self.put(headers, before, grown);
    }

    fn put(&self, headers: &mut HeaderMap, before: &[HeaderValue], last: Vec<u8>) {
        // Both parts were field values, so that their sum is one.
        let Ok(last) = HeaderValue::try_from(last) else {
            return;
        };
        headers.remove(&self.name);
        for line in before.iter().chain([&last]) {
            headers.append(&self.name, line.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_joins_the_list_once_and_last() {
        let appended = Appended::new("Anthropic-Beta", "oauth-2025-04-20").unwrap();
        for (sent, goes_out) in [
            (&[][..], &["oauth-2025-04-20"][..]),
            (&[""], &["oauth-2025-04-20"]),
            (&["a"], &["a,oauth-2025-04-20"]),
            (&["a, b,c"], &["a, b,c,oauth-2025-04-20"]),
            (&["b", "a"], &["b", "a,oauth-2025-04-20"]),
            (&["oauth-2025-04-20"], &["oauth-2025-04-20"]),
            (&["a,oauth-2025-04-20,b"], &["a,oauth-2025-04-20,b"]),
            (&["a , oauth-2025-04-20 "], &["a , oauth-2025-04-20"]),
            (&["oauth-2025-04-20", "b"], &["oauth-2025-04-20", "b"]),
            (&["oauth-2025-04-2"], &["oauth-2025-04-2,oauth-2025-04-20"]),
            (
                &["xoauth-2025-04-20"],
                &["xoauth-2025-04-20,oauth-2025-04-20"],
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-other", HeaderValue::from_static("stays"));
            for line in sent {
                headers.append("anthropic-beta", HeaderValue::from_static(line.trim_end()));
            }
            appended.apply(&mut headers);
            let lines: Vec<_> = headers.get_all("anthropic-beta").iter().collect();
            assert_eq!(lines, goes_out, "{sent:?}");
            appended.apply(&mut headers);
            let again: Vec<_> = headers.get_all("anthropic-beta").iter().collect();
            assert_eq!(again, goes_out, "{sent:?}");
            assert_eq!(headers["x-other"], "stays");
        }
        assert!(Appended::new("a b", "x").is_err() && Appended::new("a", "x\n").is_err());
    }
}
