//! Owns what happens to heads: a request with a secret asks for nothing that could not be searched, and an
//! answer's fields are searched like its body.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE, SEC_WEBSOCKET_EXTENSIONS,
    TRANSFER_ENCODING,
};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::coding::{Coding, UnknownCoding, codings};
use super::needles::Needles;
use super::stand_in::Fit;

/// Digests of a body (RFC 9530, RFC 3230, RFC 1864): they would be wrong once something is replaced, which is
/// not known before their head has left.
static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];
/// Codings of messages within a body, asked for by the client: gRPC and Connect.
static ASKED_WITHIN: [HeaderName; 2] = [
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("connect-accept-encoding"),
];
/// The same as the server names them.
static CODED_WITHIN: [HeaderName; 2] = [
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("connect-content-encoding"),
];
/// Deltas to something that was sent before (RFC 3229).
static DELTA: HeaderName = HeaderName::from_static("a-im");

/// Whether an answer's body can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Once these codings are undone, in this order applied.
    Coded(Vec<Coding>),
    /// It cannot.
    No(UnknownCoding),
}

/// Takes out of a request what would bring an answer that cannot be searched: codings that cannot be undone
/// here, and parts of a whole, on whose border a secret could be cut in two. Nothing is asked for that the
/// agent did not ask for.
pub fn narrow(headers: &mut HeaderMap) {
    for name in [RANGE, IF_RANGE, SEC_WEBSOCKET_EXTENSIONS] {
        headers.remove(name);
    }
    for name in ASKED_WITHIN.iter().chain([&DELTA]) {
        headers.remove(name);
    }
    let mut asked = headers.get_all(ACCEPT_ENCODING).iter();
    let first = match (asked.next(), asked.next()) {
        (None, _) => return,
        (Some(only), None) if members(only).all(can_be_undone) => return,
        _ => headers.get_all(ACCEPT_ENCODING).iter(),
    };
    let kept: Vec<&[u8]> = first
        .flat_map(members)
        .filter(|m| can_be_undone(m))
        .collect();
    let list = match kept.is_empty() {
        true => b"identity".to_vec(),
        false => kept.join(&b", "[..]),
    };
    // All of it were field values before.
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(ACCEPT_ENCODING, list);
    }
}

/// The members of a list (RFC 9110, section 5.6.1).
fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = value.as_bytes().split(|byte| *byte == b',');
    members.map(<[u8]>::trim_ascii)
}

/// Whether an answer may come in a coding that takes a large window to undo.
pub fn asks_for_windows(headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(ACCEPT_ENCODING).iter().flat_map(members);
    asked.any(has_window)
}

/// Asks for no coding that takes a large window to undo.
pub fn lighten(headers: &mut HeaderMap) {
    let asked = headers.get_all(ACCEPT_ENCODING).iter().flat_map(members);
    let kept: Vec<&[u8]> = asked.filter(|member| !has_window(member)).collect();
    let list = match kept.is_empty() {
        true => b"identity".to_vec(),
        false => kept.join(&b", "[..]),
    };
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(ACCEPT_ENCODING, list);
    }
}

fn has_window(member: &[u8]) -> bool {
    let name = member.split(|byte| *byte == b';').next();
    let coding = Coding::of(name.unwrap_or_default().trim_ascii());
    coding.is_some_and(|coding| coding.window() > 0)
}

fn can_be_undone(member: &[u8]) -> bool {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    // `*` asks for whatever there is, unless it refuses all others.
    let refuses = parts.any(|weight| {
        let zeros = weight.strip_prefix(b"q=").or(weight.strip_prefix(b"Q="));
        zeros.is_some_and(|zeros| zeros.iter().all(|byte| b"0.".contains(byte)))
    });
    Coding::of(name).is_some() || name.eq_ignore_ascii_case(b"identity") || name == b"*" && refuses
}

/// Searches the values of all fields, and their names. Says how many secrets stood there.
pub fn scrub_fields(needles: &Needles, headers: &mut HeaderMap) -> u64 {
    let mut hits = 0;
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| needles.stand_in_name(name.as_str()))
        .cloned()
        .collect();
    for name in named {
        hits += 1;
        headers.remove(name);
    }
    for (name, value) in headers.iter_mut() {
        // A binary value of gRPC is a message, whose fields have lengths.
        let fit = match name.as_str().ends_with("-bin") {
            true => Fit::Same,
            false => Fit::Free,
        };
        let Some((clean, found)) = needles.scrub(value.as_bytes(), fit) else {
            continue;
        };
        hits += found;
        let was_sensitive = value.is_sensitive();
        *value = HeaderValue::from_bytes(&clean)
            .unwrap_or_else(|_| HeaderValue::from_static("redacted"));
        value.set_sensitive(was_sensitive);
    }
    hits
}

/// Searches the words beside a status, which are dropped if a secret stands there.
pub fn scrub_reason<B>(needles: &Needles, response: &mut Response<B>) -> u64 {
    let reason = response.extensions().get::<ReasonPhrase>();
    let found = reason.and_then(|reason| needles.scrub(reason.as_bytes(), Fit::Free));
    let Some((_, hits)) = found else {
        return 0;
    };
    response.extensions_mut().remove::<ReasonPhrase>();
    hits
}

/// What the head of an answer says of its body, before anything of the hop is taken out.
pub fn readable<B>(response: &Response<B>) -> Readable {
    let headers = response.headers();
    let plain: [&[u8]; 3] = [b"", b"chunked", b"identity"];
    if let Some(other) = word_besides(headers, &TRANSFER_ENCODING, &plain) {
        return Readable::No(UnknownCoding::named("transfer coding", &other));
    }
    for name in &CODED_WITHIN {
        if let Some(coding) = word_besides(headers, name, &[b"", b"identity"]) {
            return Readable::No(UnknownCoding::named("message coding", &coding));
        }
    }
    match codings(headers) {
        Err(unknown) => Readable::No(unknown),
        Ok(codings) if !codings.is_empty() && is_partial(response.status()) => {
            let what = "a part of a compressed body";
            Readable::No(UnknownCoding(what.to_owned()))
        }
        Ok(codings) => Readable::Coded(codings),
    }
}

/// The first member of a field's lists that is none of these words, in small letters.
fn word_besides(headers: &HeaderMap, name: &HeaderName, words: &[&[u8]]) -> Option<Vec<u8>> {
    let mut members = headers.get_all(name).iter().flat_map(members);
    let other = members.find(|m| !words.iter().any(|word| m.eq_ignore_ascii_case(word)))?;
    Some(other.to_ascii_lowercase())
}

fn is_partial(status: StatusCode) -> bool {
    matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::IM_USED)
}

/// Makes a head true of the body that will follow it, and says whether that may change its length.
///
/// | field | stays |
/// |---|---|
/// | `Content-Encoding` | no, where it is undone |
/// | `Content-Length` | where nothing is undone |
/// | `ETag` | made weak where a coding is undone |
/// | digests, `Accept-Ranges` | no |
///
/// A length that was told holds: clients size files and check downloads by it, and hits are rare.
pub fn settle(headers: &mut HeaderMap, codings: &[Coding]) -> Fit {
    for name in &DIGESTS {
        headers.remove(name);
    }
    headers.remove(ACCEPT_RANGES);
    if !codings.is_empty() {
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        weaken(headers);
    }
    match headers.contains_key(CONTENT_LENGTH) || is_framed(headers) {
        true => Fit::Same,
        false => Fit::Free,
    }
}

/// What trailers may still say of a body in which something was replaced.
pub fn settle_trailers(trailers: &mut HeaderMap) {
    for name in &DIGESTS {
        trailers.remove(name);
    }
}

/// An answer that accepts a WebSocket accepts no extension: none was asked for.
pub fn accepts_extension(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
}

/// Messages of gRPC, gRPC-Web and Connect and the events of AWS begin with their lengths.
fn is_framed(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |kind| kind.as_bytes());
    let kind = kind.to_ascii_lowercase();
    let framed: [&[u8]; 4] = [
        b"application/grpc",
        b"application/connect",
        b"application/vnd.amazon.eventstream",
        b"application/proto",
    ];
    framed.iter().any(|begin| kind.starts_with(begin))
        || kind.starts_with(b"application/x-protobuf")
}

fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""))
    else {
        return;
    };
    match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        Ok(weak) => headers.insert(ETAG, weak),
        Err(_) => headers.remove(ETAG),
    };
}
