//! Owns the way from a located value to the underlined place in its file.

use std::sync::Arc;

use super::bundle::Document;
use super::error::{ConfigError, SourceFile};
use super::explain::place;
use super::located::Located;
use super::yaml::Mark;

/// `error` at a value of this file; a value that nobody wrote has no place.
pub(super) fn at<T>(error: ConfigError, file: &Arc<SourceFile>, value: &Located<T>) -> ConfigError {
    if value.line == 0 {
        return error;
    }
    let line = file.text.lines().nth(value.line as usize - 1).unwrap_or("");
    let skip = value.column.saturating_sub(1) as usize;
    let rest: Vec<char> = line.chars().skip(skip).collect();
    let mark = Mark {
        line: value.line,
        column: value.column.max(1),
        length: u32::try_from(written_length(&rest)).unwrap_or(1),
    };
    error.at(place(file, mark))
}

/// `error` at the beginning of a document.
pub(super) fn at_document<S>(error: ConfigError, document: &Document<S>) -> ConfigError {
    let first = Located {
        value: (),
        line: document.line,
        column: 1,
    };
    at(error, &document.file, &first)
}

/// How many of `rest` belong to the key, the word or the quoted text that it begins with.
fn written_length(rest: &[char]) -> usize {
    if let Some(quote @ ('"' | '\'')) = rest.first() {
        let end = rest.iter().skip(1).position(|c| c == quote);
        return end.map_or(rest.len(), |end| end + 2);
    }
    let ends = |(i, c): (usize, &char)| match c {
        ',' | ']' => true,
        ':' => rest.get(i + 1).is_none_or(|next| next.is_whitespace()),
        c => c.is_whitespace(),
    };
    let end = rest.iter().enumerate().position(|(i, c)| ends((i, c)));
    end.unwrap_or(rest.len()).max(1)
}
