//! Owns what happens to a head besides credentials: agreement with the connection, and fields that
//! end at this hop (RFC 9110, section 7.6.1).
//!
//! No `Via` is added: origins that see one switch off compression or take the request for a bot's.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, StatusCode, Version};

use super::error::ProxyError;
use crate::config::policy::TraceContextMode;
use crate::net::framing::misspelt;
use crate::telemetry::trace_context::{BAGGAGE, TRACEPARENT, TRACESTATE};
use crate::telemetry::traces::Position;
use crate::types::host::Authority;
use crate::types::intent::Scheme;
use crate::types::limits::RequestLimits;
use crate::types::reached::Limit;

/// Fields that concern one connection only.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Fields that a `Connection` field must not take out: the origin decides by them.
const END_TO_END: &[&str] = &[
    "authorization",
    "host",
    "content-length",
    "content-type",
    "cookie",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
];

/// Whether the agent asks to leave HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeWish {
    /// It does not, or to something that is not carried (`h2c`), which a server may ignore.
    None,
    /// To WebSocket (RFC 6455).
    WebSocket,
}

/// Refuses a head that does not agree with what the connection was opened for.
///
/// `target` is what was authorized: every place that names a host must name that one, and a scheme that is named
/// (HTTP/2 does for each request) is the connection's.
pub fn agree(head: &Parts, scheme: Scheme, target: &Authority) -> Result<(), ProxyError> {
    let misdirected = || ProxyError::Misdirected {
        target: target.clone(),
    };
    let default_port = scheme.default_port();
    let same = |text: &str| {
        // Nearly always the name is there as it is kept.
        (target.port == default_port && target.host.name() == Some(text))
            || Authority::parse(text, Some(default_port)).is_ok_and(|named| named == *target)
    };
    if let Some(named) = head.uri.authority()
        && !same(named.as_str())
    {
        return Err(misdirected());
    }
    if head
        .uri
        .scheme()
        .is_some_and(|named| named.as_str() != scheme.as_str())
    {
        return Err(ProxyError::Malformed(
            "the request names a scheme that the connection does not have",
        ));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(ProxyError::Malformed(
            "the request must have exactly one Host field",
        )),
        (Some(host), None) if !host.to_str().is_ok_and(same) => Err(misdirected()),
        (None, None) if head.uri.authority().is_none() && head.version != Version::HTTP_10 => {
            Err(ProxyError::Malformed("the request names no host"))
        }
        _ => Ok(()),
    }
}

/// TRACE returns what it gets, credentials included, and so does TRACK, its namesake of old; some
/// servers take them in small letters. CONNECT belongs to the forward door alone.
///
/// Methods are case-sensitive (RFC 9110, section 9.1), and some origins take `delete` for `DELETE` all the same:
/// one that is known in other letters has two readings.
pub fn method(method: &Method) -> Result<(), ProxyError> {
    let word = method.as_str();
    let is_one_of = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is_one_of(&["TRACE", "TRACK", "CONNECT"]) {
        return Err(ProxyError::Method);
    }
    match word.bytes().any(|octet| octet.is_ascii_lowercase()) && is_one_of(METHODS) {
        true => Err(ProxyError::Malformed(
            "the method is a known one in other letters, and methods are written in capitals",
        )),
        false => Ok(()),
    }
}

/// The HTTP Method Registry of IANA, but for those that are refused as they are, and PURGE, which caches take.
const METHODS: &[&str] = &[
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Fields by which some servers take a request for one of another method.
const METHOD_OVERRIDES: &[&str] = &[
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];
/// Fields by which some servers take a request for one of another path.
const PATH_OVERRIDES: &[&str] = &["x-original-url", "x-rewrite-url", "x-forwarded-uri"];

/// Servers that hand fields over as variables read `_` and `-` alike (RFC 3875, section 4.1.18).
fn is_one_of(name: &HeaderName, words: &[&str]) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
    let name = name.as_str();
    name.starts_with('x')
        && words
            .iter()
            .any(|word| word.len() == name.len() && name.bytes().zip(word.bytes()).all(same))
}

/// Only a path can be sent on: `*` and the `host:port` of CONNECT are for a server as a whole, and what does not
/// begin with a slash would run into the host's name (RFC 9112, section 3.2).
pub fn has_path(uri: &Uri) -> Result<(), ProxyError> {
    match uri.path().starts_with('/') {
        true => Ok(()),
        false => Err(ProxyError::Malformed(
            "the request's target has no path that begins with a slash",
        )),
    }
}

/// Bounds that the HTTP/1.1 gate keeps by itself.
pub fn bounds(head: &Parts, limits: &RequestLimits) -> Result<(), ProxyError> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    if head.headers.len() > limits.head_fields {
        return Err(Limit::HeadFields.count(limits.head_fields).into());
    }
    // Lengths that are alike pass the library, and would stand twice in HTTP/1.1.
    if head.headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(ProxyError::Malformed(
            "the request has two Content-Length fields",
        ));
    }
    // They pass as any other field, and would stand beside the real framing in HTTP/1.1.
    let misspelt = |name: &HeaderName| misspelt(name.as_str().as_bytes());
    if let Some(violation) = head.headers.keys().find_map(misspelt) {
        return Err(ProxyError::of(violation, limits));
    }
    Ok(())
}

/// The method that a header names besides the request line: policy must judge it as well. A header
/// that names another path is refused, since no client of an API sends one.
pub fn overriding_method(head: &Parts) -> Result<Option<Method>, ProxyError> {
    if head
        .headers
        .keys()
        .any(|name| is_one_of(name, PATH_OVERRIDES))
    {
        return Err(ProxyError::Malformed(
            "a header names another path than the request line",
        ));
    }
    let mut found = None;
    let naming = head
        .headers
        .iter()
        .filter(|(name, _)| is_one_of(name, METHOD_OVERRIDES));
    for (_, value) in naming {
        let named = Method::from_bytes(
            value
                .as_bytes()
                .trim_ascii()
                .to_ascii_uppercase()
                .as_slice(),
        );
        match (named, found.take()) {
            (Ok(named), None) => found = Some(named),
            (Ok(named), Some(before)) if named == before => found = Some(named),
            _ => {
                return Err(ProxyError::Malformed(
                    "a header names another method in more than one way",
                ));
            }
        }
    }
    if let Some(found) = &found {
        method(found)?;
    }
    Ok(found.filter(|found| *found != head.method))
}

/// The one expectation that exists (RFC 9110, section 10.1.1).
pub fn expectation(headers: &HeaderMap) -> Result<(), ProxyError> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match headers.get_all(header::EXPECT).iter().all(known) {
        true => Ok(()),
        false => Err(ProxyError::Malformed(
            "the request expects something other than 100-continue",
        )),
    }
}

/// A GET whose body has no length goes out without it unless its head says that there is one.
pub fn announce(head: &mut Parts, length: Option<u64>) {
    if length.is_none() && matches!(head.method, Method::GET | Method::HEAD) {
        head.headers.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        );
    }
}

/// Takes out of an agent's trailers what only a head may say (RFC 9110, section 6.5.1), and anything
/// that names a credential: some servers read trailers as if they had been there from the start.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let refused: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| belongs_in_head(name.as_str()))
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

fn belongs_in_head(name: &str) -> bool {
    const WHOLE: &[&str] = &[
        "connection",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const BEGINNINGS: &[&str] = &["content-", "if-", "proxy-", "x-forwarded-", "x-http-method"];
    const PARTS: &[&str] = &[
        "auth",
        "cookie",
        "credential",
        "key",
        "secret",
        "session",
        "token",
    ];
    // Servers that hand fields over as variables read `_` and `-` alike (RFC 3875, section 4.1.18).
    let name = &*name.replace('_', "-");
    WHOLE.contains(&name)
        || METHOD_OVERRIDES.contains(&name)
        || PATH_OVERRIDES.contains(&name)
        || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        || PARTS.iter().any(|part| name.contains(part))
}

/// Makes one Cookie field of several: HTTP/2 lets agents cut it at its pairs, and nothing else does (RFC 9113, section
/// 8.2.3).
pub fn join_crumbs(head: &mut Parts) {
    let crumbs = head.headers.get_all(header::COOKIE);
    if head.version != Version::HTTP_2 || crumbs.iter().nth(1).is_none() {
        return;
    }
    let parts: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    let is_sensitive = crumbs.iter().any(HeaderValue::is_sensitive);
    if let Ok(mut whole) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        // No table of HPACK keeps it on the way on either (RFC 7541, section 7.1.3).
        whole.set_sensitive(is_sensitive);
        head.headers.insert(header::COOKIE, whole);
    }
}

/// Takes out what ends at this hop, and says whether the agent wants to upgrade.
pub fn end_hop(head: &mut Parts) -> Result<UpgradeWish, ProxyError> {
    let wish = upgrade_wish(head);
    let trailers = head.headers.get_all(header::TE).iter().any(|te| {
        te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|t| t.trim().eq_ignore_ascii_case("trailers"))
        })
    });
    refuse_listed_credentials(&head.headers)?;
    remove_hop_by_hop(&mut head.headers);
    strip_own(&mut head.headers);
    head.headers.remove(header::TE);
    if trailers {
        head.headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if wish == UpgradeWish::WebSocket {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(wish)
}

fn upgrade_wish(head: &Parts) -> UpgradeWish {
    let asks = |name: HeaderName, word: &str| {
        head.headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    match head.version {
        Version::HTTP_11
            if asks(header::CONNECTION, "upgrade") && asks(header::UPGRADE, "websocket") =>
        {
            UpgradeWish::WebSocket
        }
        _ => UpgradeWish::None,
    }
}

/// `Connection: authorization` would take a credential out after it was checked.
fn refuse_listed_credentials(headers: &HeaderMap) -> Result<(), ProxyError> {
    for name in listed(headers) {
        if END_TO_END.contains(&name.as_str()) {
            return Err(ProxyError::Malformed(
                "the Connection field lists a field that belongs to the origin",
            ));
        }
    }
    Ok(())
}

fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect()
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in listed(headers) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What an origin gets to know of the trace that a request is part of: what the rule says, from our span on
/// where there is one.
pub fn trace(headers: &mut HeaderMap, mode: TraceContextMode, position: Option<&Position>) {
    if mode != TraceContextMode::PropagateWithBaggage {
        headers.remove(BAGGAGE);
    }
    if mode == TraceContextMode::Drop {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        return;
    }
    for (name, value) in position.into_iter().flat_map(Position::outgoing) {
        headers.insert(name, value);
    }
}

/// Whether somebody may read an answer's end elsewhere than the library does (RFC 9112, section 6.3): it takes
/// chunks before a length, one length for several that are alike, and a coding that it does not undo for none.
pub fn has_two_readings(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    let is_plain = |length: &HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    if length.is_some_and(|length| !is_plain(length)) || lengths.next().is_some() {
        return true;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return false;
    };
    length.is_some()
        || codings.next().is_some()
        || !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
}

/// A 204 has no length (RFC 9110, section 8.6): whoever believes one all the same waits for what never comes, or
/// takes the next answer for it.
pub fn settle_length(status: StatusCode, headers: &mut HeaderMap) {
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// Cleans the trailers of an answer: nothing there is about this hop, or the body's length.
pub fn end_trailers_hop(trailers: &mut HeaderMap) {
    trailers.remove(header::CONTENT_LENGTH);
    end_response_hop(trailers);
}

/// Cleans an origin's head. `Alt-Svc` would send agents to HTTP/3, past the proxy.
pub fn end_response_hop(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(header::ALT_SVC);
    strip_own(headers);
}

/// Fields under our own name are the proxy's to send: neither an agent nor an origin may speak in its name.
fn strip_own(headers: &mut HeaderMap) {
    let own = |name: &&HeaderName| name.as_str().starts_with("x-tollgate-");
    let own: Vec<HeaderName> = headers.keys().filter(own).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// Cleans the head of an accepted upgrade, which keeps what makes it one.
pub fn end_upgrade_hop(headers: &mut HeaderMap) {
    for name in [header::ALT_SVC, header::PROXY_AUTHENTICATE] {
        headers.remove(name);
    }
    strip_own(headers);
}

/// The absolute URI that is sent: the authorized target with the path and query byte for byte.
pub fn outgoing_uri(
    scheme: Scheme,
    target: &Authority,
    path: &PathAndQuery,
) -> Result<Uri, ProxyError> {
    let authority = match target.port == scheme.default_port() {
        true => target.host.to_string(),
        false => target.to_string(),
    };
    Uri::builder()
        .scheme(scheme.as_str())
        .authority(authority)
        .path_and_query(path.clone())
        .build()
        .map_err(|_| ProxyError::Malformed("the target cannot be written as a URI"))
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
