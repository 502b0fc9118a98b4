//! Owns how the parameters of a request to an OAuth endpoint are written: as a form or as JSON, in
//! memory that is cleared.

use http::{HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::transport::TokenRequest;
use crate::config::source::RequestBodyForm;

/// Parameters in the order in which they are sent.
#[derive(Default)]
pub(super) struct Parameters<'a>(Vec<(&'a str, &'a str)>);

/// `application/x-www-form-urlencoded` (RFC 6749, appendix B): what stands for itself.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

/// The longest that one octet becomes: `%xx` in a form, `\u00xx` in JSON.
const WIDEST: usize = 6;

impl<'a> Parameters<'a> {
    pub(super) fn add(&mut self, name: &'a str, value: &'a str) -> &mut Self {
        self.0.push((name, value));
        self
    }

    pub(super) fn add_some(&mut self, name: &'a str, value: Option<&'a str>) -> &mut Self {
        self.0.extend(value.map(|value| (name, value)));
        self
    }

    /// A POST of them to `endpoint`.
    pub(super) fn post(&self, endpoint: &Endpoint, form: RequestBodyForm) -> TokenRequest {
        let (body, kind) = match form {
            RequestBodyForm::Form => (self.form(), "application/x-www-form-urlencoded"),
            RequestBodyForm::Json => (self.json(), "application/json"),
        };
        let mut request = TokenRequest {
            url: endpoint.to_string(),
            headers: http::HeaderMap::new(),
            body,
        };
        let kind = HeaderValue::from_static(kind);
        request.headers.insert(header::CONTENT_TYPE, kind);
        request
    }

    /// As a query or a form.
    pub(super) fn form(&self) -> Zeroizing<Vec<u8>> {
        let mut out = self.room();
        for (name, value) in &self.0 {
            if !out.is_empty() {
                out.push(b'&');
            }
            form_encode(name, &mut out);
            out.push(b'=');
            form_encode(value, &mut out);
        }
        out
    }

    fn json(&self) -> Zeroizing<Vec<u8>> {
        let mut out = self.room();
        for (name, value) in &self.0 {
            let opening = if out.is_empty() { b'{' } else { b',' };
            out.push(opening);
            json_encode(name, &mut out);
            out.push(b':');
            json_encode(value, &mut out);
        }
        let closing: &[u8] = if out.is_empty() { b"{}" } else { b"}" };
        out.extend_from_slice(closing);
        out
    }

    /// Enough for all of them: growing would leave copies of tokens behind in freed memory.
    fn room(&self) -> Zeroizing<Vec<u8>> {
        let lengths = self.0.iter().map(|(name, value)| name.len() + value.len());
        let octets: usize = lengths.sum();
        Zeroizing::new(Vec::with_capacity(octets * WIDEST + self.0.len() * 6 + 2))
    }
}

/// Appends `text` as a form has it.
pub(super) fn form_encode(text: &str, out: &mut Vec<u8>) {
    for part in percent_encode(text.as_bytes(), FORM) {
        match part {
            "%20" => out.push(b'+'),
            part => out.extend_from_slice(part.as_bytes()),
        }
    }
}

fn json_encode(text: &str, out: &mut Vec<u8>) {
    // Writing text into memory cannot fail; an empty value would be refused by the endpoint.
    serde_json::to_writer(out, text).ok();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: Zeroizing<Vec<u8>>) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_form_is_written_as_rfc_6749_appendix_b_shows_it() {
        let mut parameters = Parameters::default();
        parameters.add("a", " %&+\u{a3}\u{20ac}").add("b", "-._*~");
        assert_eq!(
            text(parameters.form()),
            "a=+%25%26%2B%C2%A3%E2%82%AC&b=-._*%7E"
        );
        assert_eq!(text(Parameters::default().json()), "{}");
    }

    proptest! {
        #[test]
        fn parameters_are_read_as_they_were_written(
            written in proptest::collection::btree_map(".{0,12}", ".{0,40}", 1..5),
        ) {
            let mut parameters = Parameters::default();
            for (name, value) in &written {
                parameters.add(name, value);
            }
            let room = parameters.room().capacity();
            let (form, json) = (parameters.form(), parameters.json());
            prop_assert!(form.len() <= room && json.len() <= room);
            let read: BTreeMap<String, String> = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(&read, &written);
            let form = text(form);
            let decode = |part: &str| {
                percent_decode_str(&part.replace('+', " ")).decode_utf8().unwrap().into_owned()
            };
            let read: BTreeMap<String, String> = form
                .split('&')
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(name, value)| (decode(name), decode(value)))
                .collect();
            prop_assert_eq!(&read, &written);
        }
    }
}
