//! Owns asking for a shorter answer than the client did, with no other octet of its request changed.

use bytes::Bytes;
use serde::Deserialize;

use super::endpoint::Operation;
use super::field::{Field, Seen, field};
use super::json::Walker;
use super::scan_error::ScanError;
use super::usage_option::Edit;

const fn one(folded: &'static str, spellings: &'static [&'static str]) -> Field<()> {
    Field {
        folded,
        spellings,
        slot: (),
    }
}

const MESSAGES: &[Field<()>] = &[one("maxtokens", &["max_tokens"])];
const CHAT: &[Field<()>] = &[
    one("maxcompletiontokens", &["max_completion_tokens"]),
    one("maxtokens", &["max_tokens"]),
];
const RESPONSES: &[Field<()>] = &[one("maxoutputtokens", &["max_output_tokens"])];

/// The fields that limit an answer, at the top of a body; the first is the one to add.
fn fields(operation: Operation) -> Option<&'static [Field<()>]> {
    match operation {
        Operation::Messages => Some(MESSAGES),
        Operation::ChatCompletions => Some(CHAT),
        Operation::Responses => Some(RESPONSES),
        _ => None,
    }
}

/// The fewest tokens that an answer to this body can be limited to; nothing where its limit is not changed.
///
/// Thinking with a budget of its own needs more than that:
/// <https://docs.claude.com/en/docs/build-with-claude/extended-thinking>.
pub fn fewest(operation: Operation, body: &[u8]) -> Option<u64> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Asked {
        thinking: Option<Thinking>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Thinking {
        budget_tokens: Option<u64>,
    }
    fields(operation)?;
    let asked: Asked = serde_json::from_slice(body).ok()?;
    let budget = asked.thinking.and_then(|thinking| thinking.budget_tokens);
    Some(budget.map_or(1, |tokens| tokens.saturating_add(1)))
}

/// The body with at most `tokens` allowed for its answer.
pub fn limited_to(tokens: u64, operation: Operation, body: &Bytes) -> Result<Bytes, ScanError> {
    let Some(table) = fields(operation) else {
        return Ok(body.clone());
    };
    let text = str::from_utf8(body).map_err(|_| ScanError::NotUtf8)?;
    let mut walker = Walker::new(text);
    walker.peek()?;
    let after_brace = walker.position() + 1;
    let (mut seen, mut empty, mut edits) = (Seen::default(), true, Vec::new());
    walker.object(|walker, name| {
        empty = false;
        match field(table, &mut seen, name)? {
            Some(_) => edits.push(walker.skip()?),
            None => walker.pass::<ScanError>()?,
        }
        Ok::<_, ScanError>(())
    })?;
    walker.end()?;
    if edits.is_empty() {
        let comma = if empty { "" } else { "," };
        let name = table[0].spellings[0];
        let text = format!("\"{name}\":{tokens}{comma}");
        let at = after_brace..after_brace;
        return Ok(Edit { at, text }.apply(body));
    }
    // From behind, so that what comes before stays where it is.
    let limited = edits.into_iter().rev().fold(body.clone(), |body, at| {
        let text = tokens.to_string();
        Edit { at, text }.apply(&body)
    });
    Ok(limited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_of_the_answer_is_changed() {
        use Operation::{ChatCompletions, GenerateContent, Messages, Responses};
        for (operation, body, limited) in [
            (
                Messages,
                r#"{ "model":"m" , "max_tokens" : 32000, "messages":[{"max_tokens":1}]}"#,
                r#"{ "model":"m" , "max_tokens" : 77, "messages":[{"max_tokens":1}]}"#,
            ),
            (
                ChatCompletions,
                r#"{"max_tokens":5000,"n":1,"max_completion_tokens":null}"#,
                r#"{"max_tokens":77,"n":1,"max_completion_tokens":77}"#,
            ),
            (
                ChatCompletions,
                r#"{"model":"m"}"#,
                r#"{"max_completion_tokens":77,"model":"m"}"#,
            ),
            (Responses, "{}", r#"{"max_output_tokens":77}"#),
            (GenerateContent, "{}", "{}"),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(limited_to(77, operation, &body).unwrap(), limited);
        }
    }

    #[test]
    fn an_answer_is_longer_than_its_thinking() {
        let thinking = br#"{"thinking":{"type":"enabled","budget_tokens":2048},"max_tokens":9000}"#;
        assert_eq!(fewest(Operation::Messages, thinking), Some(2049));
        assert_eq!(fewest(Operation::Messages, b"{}"), Some(1));
        assert_eq!(fewest(Operation::GenerateContent, b"{}"), None);
    }
}
