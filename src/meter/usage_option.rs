//! Owns asking for usage in Chat Completions streams whose client did not, and keeping the client from
//! seeing that.
//!
//! <https://platform.openai.com/docs/api-reference/chat/create#chat_create-stream_options>: with
//! `include_usage` one more chunk comes before `[DONE]`, with the usage and an empty list of choices.

use bytes::{Bytes, BytesMut};

use super::field::{Field, Seen, field, flag};
use super::json::{Kind, Walker};
use super::scan_error::ScanError;

#[derive(Clone, Copy)]
enum Slot {
    StreamOptions,
    IncludeUsage,
}

const TOP: &[Field<Slot>] = &[Field {
    folded: "streamoptions",
    spellings: &["stream_options"],
    slot: Slot::StreamOptions,
}];

const OPTIONS: &[Field<Slot>] = &[Field {
    folded: "includeusage",
    spellings: &["include_usage"],
    slot: Slot::IncludeUsage,
}];

/// The body with `"stream_options":{"include_usage":true}` and no other octet changed; the same one if it
/// says so already.
pub fn asking_for_usage(body: &Bytes) -> Result<Bytes, ScanError> {
    let text = str::from_utf8(body).map_err(|_| ScanError::NotUtf8)?;
    let mut walker = Walker::new(text);
    if walker.peek()? != Kind::Object {
        return Err(ScanError::NotAnObject);
    }
    let after_brace = walker.position() + 1;
    let mut edit = None;
    let (mut seen, mut empty) = (Seen::default(), true);
    walker.object(|walker, name| {
        empty = false;
        match field(TOP, &mut seen, name)? {
            Some((field, _)) => edit = Some(options(walker, field)?),
            None => walker.pass::<ScanError>()?,
        }
        Ok::<_, ScanError>(())
    })?;
    walker.end()?;
    Ok(match edit {
        Some(None) => body.clone(),
        Some(Some(edit)) => edit.apply(body),
        None => {
            let comma = if empty { "" } else { "," };
            let text = format!("\"stream_options\":{{\"include_usage\":true}}{comma}");
            let at = after_brace..after_brace;
            Edit { at, text }.apply(body)
        }
    })
}

/// What has to stand in a range of the body.
pub(super) struct Edit {
    pub(super) at: std::ops::Range<usize>,
    pub(super) text: String,
}

impl Edit {
    pub(super) fn apply(self, body: &Bytes) -> Bytes {
        let mut edited = BytesMut::with_capacity(body.len() + self.text.len());
        edited.extend_from_slice(&body[..self.at.start]);
        edited.extend_from_slice(self.text.as_bytes());
        edited.extend_from_slice(&body[self.at.end..]);
        edited.freeze()
    }
}

/// How the value of `stream_options` has to be changed, if at all.
fn options(walker: &mut Walker<'_>, name: &'static str) -> Result<Option<Edit>, ScanError> {
    let expected = "an object";
    match walker.peek()? {
        Kind::Null => {
            let text = "{\"include_usage\":true}".to_owned();
            return Ok(Some(Edit {
                at: walker.skip()?,
                text,
            }));
        }
        Kind::Object => {}
        _ => {
            return Err(ScanError::Type {
                field: name,
                expected,
            });
        }
    }
    let after_brace = walker.position() + 1;
    let (mut seen, mut empty, mut there) = (Seen::default(), true, None);
    walker.object(|walker, name| {
        empty = false;
        let Some((field, _)) = field(OPTIONS, &mut seen, name)? else {
            return walker.pass::<ScanError>();
        };
        walker.peek()?;
        let start = walker.position();
        let asked = flag(walker, field)?;
        there = Some((asked, start..walker.position()));
        Ok(())
    })?;
    Ok(match there {
        Some((Some(true), _)) => None,
        Some((_, at)) => Some(Edit {
            at,
            text: "true".to_owned(),
        }),
        None => {
            let comma = if empty { "" } else { "," };
            let text = format!("\"include_usage\":true{comma}");
            Some(Edit {
                at: after_brace..after_brace,
                text,
            })
        }
    })
}

#[cfg(test)]
#[path = "usage_option_tests.rs"]
mod tests;
