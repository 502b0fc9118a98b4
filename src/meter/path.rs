//! Owns taking paths of model APIs apart: only such as every origin reads in one way.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A model's name as it stands in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model<'p>(pub(super) &'p str);

/// The last segment of Google's paths: `gemini-2.5-pro:generateContent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verb<'p> {
    pub(super) model: Model<'p>,
    pub(super) verb: &'p str,
}

/// More segments than any path of a model API has.
const MAX_SEGMENTS: usize = 16;

/// The segments of a path; nothing if origins may read it in two ways. Escapes are left for a model's
/// name, which stands in one segment whatever it contains.
pub(super) fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let plain = |segment: &&str| {
        let octet = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@%".contains(&b);
        !segment.is_empty() && !matches!(*segment, "." | "..") && segment.bytes().all(octet)
    };
    (segments.len() <= MAX_SEGMENTS && segments.iter().all(plain)).then_some(segments)
}

/// `v1`, `v4`, `v1beta`, `v1beta1`.
pub(super) fn is_version(segment: &str) -> bool {
    let rest = segment.strip_prefix('v').unwrap_or_default();
    let stage = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let stage = match stage.len() < rest.len() {
        true => stage.trim_end_matches(|c: char| c.is_ascii_digit()),
        false => return false,
    };
    matches!(stage, "" | "alpha" | "beta")
}

/// The name of a query's parameter, decoded, in lower case.
pub(super) fn name(parameter: &str) -> String {
    let plus = parameter.replace('+', " ");
    percent_decode_str(&plus)
        .decode_utf8_lossy()
        .to_ascii_lowercase()
}

impl<'p> Verb<'p> {
    /// Splits at the one colon there is.
    pub(super) fn split(segment: &'p str) -> Option<Self> {
        let (model, verb) = segment.split_once(':')?;
        let plain = !model.is_empty() && !verb.contains([':', '%']);
        plain.then_some(Self {
            model: Model(model),
            verb,
        })
    }
}

impl<'p> Model<'p> {
    /// The name, decoded: `%3A`, `%2F` and `%40`, as SDKs write the colons, slashes and at signs of a
    /// name, and nothing else. A slash is part of ARNs only.
    pub(super) fn decoded(self) -> Option<Cow<'p, str>> {
        if !self.0.contains('%') {
            return Some(Cow::Borrowed(self.0));
        }
        let decoded = percent_decode_str(self.0).decode_utf8().ok()?;
        let octet = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@/".contains(&b);
        let slashes = match decoded.contains('/') {
            true => decoded.starts_with("arn:") && segments(&format!("/{decoded}")).is_some(),
            false => !matches!(&*decoded, "." | ".."),
        };
        (slashes && decoded.bytes().all(octet)).then_some(decoded)
    }
}
