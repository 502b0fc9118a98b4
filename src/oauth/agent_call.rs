//! Owns how an agent's request to a token endpoint is read: as a form or as JSON, with one reading or none.

use std::fmt;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use zeroize::Zeroizing;

use super::call_error::CallError;

/// What an agent asks of a token endpoint.
pub struct AgentCall {
    /// With what it asks.
    pub grant: AgentGrant,
    /// `scope`, if it is one that can be repeated.
    pub scope: Option<String>,
    /// `expires_in`, which Claude Code sends with a login that is to last.
    pub lifetime: Option<u64>,
    values: Vec<Zeroizing<String>>,
}

/// The kind of grant it asks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentGrant {
    /// A refresh token (RFC 6749, section 6).
    Refresh,
    /// What a person has just agreed to: an authorization code (RFC 6749, section 4.1.3) or a device code
    /// (RFC 8628, section 3.4).
    Login,
    /// Anything else.
    Other,
}

/// Largest request that is read.
pub const MOST_BYTES: u64 = 64 << 10;
const MOST_PARAMETERS: usize = 64;
const LONGEST_SCOPE: usize = 1024;
/// A year, as `claude setup-token` asks for.
const LONGEST_LIFE: u64 = 366 * 24 * 3600;

impl AgentCall {
    /// Reads a POST to a token endpoint (RFC 6749, section 3.2: parameters are sent once, in the body).
    pub fn read(headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Result<Self, CallError> {
        let parameters = parameters(headers, query, body)?;
        let text = |name: &str| {
            let mut found = parameters.iter().filter(|(known, _)| known == name);
            found.next().map(|(_, value)| value.as_str())
        };
        let grant = match text("grant_type") {
            Some("refresh_token") => AgentGrant::Refresh,
            Some("authorization_code" | "urn:ietf:params:oauth:grant-type:device_code") => {
                AgentGrant::Login
            }
            Some("") | None => return Err(CallError::Malformed("it has no `grant_type`")),
            Some(_) => AgentGrant::Other,
        };
        let lifetime = text("expires_in").and_then(|text| text.parse().ok());
        Ok(Self {
            grant,
            scope: text("scope")
                .filter(|scope| is_scope(scope))
                .map(str::to_owned),
            lifetime: lifetime.filter(|life| (1..=LONGEST_LIFE).contains(life)),
            values: parameters.into_iter().map(|(_, value)| value).collect(),
        })
    }

    /// Reads a request to a revocation endpoint, of which nothing but its values matters (RFC 7009, section 2.1).
    pub fn read_values(
        headers: &HeaderMap,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Vec<Zeroizing<String>>, CallError> {
        let parameters = parameters(headers, query, body)?;
        Ok(parameters.into_iter().map(|(_, value)| value).collect())
    }

    /// The values of all parameters.
    pub fn values(&self) -> &[Zeroizing<String>] {
        &self.values
    }
}

impl fmt::Debug for AgentCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentCall({:?})", self.grant)
    }
}

type Parameter = (String, Zeroizing<String>);

fn parameters(
    headers: &HeaderMap,
    query: Option<&str>,
    body: &[u8],
) -> Result<Vec<Parameter>, CallError> {
    if query.is_some_and(|query| !query.is_empty()) {
        return Err(CallError::Malformed("the URL has a query"));
    }
    let plain = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"identity");
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if !codings.all(|coding| plain(coding.as_bytes())) {
        return Err(CallError::Malformed("its body is compressed"));
    }
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        return Err(CallError::Malformed("it has not exactly one Content-Type"));
    };
    let essence = kind.as_bytes().split(|b| *b == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    let body = std::str::from_utf8(body).map_err(|_| CallError::Malformed("it is not UTF-8"))?;
    let parameters = match essence.as_slice() {
        b"application/json" => json(body)?,
        b"application/x-www-form-urlencoded" => form(body)?,
        _ => return Err(CallError::Malformed("its body is neither a form nor JSON")),
    };
    let mut names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(CallError::Malformed("a parameter stands in it twice")),
        false => Ok(parameters),
    }
}

/// `application/x-www-form-urlencoded` (RFC 6749, appendix B).
fn form(body: &str) -> Result<Vec<Parameter>, CallError> {
    let pairs: Vec<&str> = body.split('&').filter(|pair| !pair.is_empty()).collect();
    if pairs.len() > MOST_PARAMETERS {
        return Err(TOO_MANY);
    }
    let decode = |text: &str| {
        let text = Zeroizing::new(text.replace('+', " "));
        let decoded = percent_decode_str(&text).decode_utf8();
        decoded.map(|text| Zeroizing::new(text.into_owned()))
    };
    let read = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)?.to_string();
        decode(value).map(|value| (name, value))
    };
    let read: Result<_, _> = pairs.into_iter().map(read).collect();
    read.map_err(|_: std::str::Utf8Error| CallError::Malformed("it is not UTF-8"))
}

const TOO_MANY: CallError = CallError::Malformed("it has too many parameters");

/// A flat object, as Claude Code and Codex send it.
fn json(body: &str) -> Result<Vec<Parameter>, CallError> {
    let members: Members = serde_json::from_str(body)
        .map_err(|_| CallError::Malformed("its body is not a JSON object"))?;
    if members.0.len() > MOST_PARAMETERS {
        return Err(TOO_MANY);
    }
    let read = |(name, value)| match value {
        Value::String(text) => Ok((name, Zeroizing::new(text))),
        Value::Number(number) => Ok((name, Zeroizing::new(number.to_string()))),
        Value::Bool(flag) => Ok((name, Zeroizing::new(flag.to_string()))),
        Value::Null => Ok((name, Zeroizing::default())),
        Value::Array(_) | Value::Object(_) => Err(CallError::Malformed(
            "a parameter is neither a text nor a number",
        )),
    };
    members.0.into_iter().map(read).collect()
}

/// The members of an object, repeated ones as well.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Each)
    }
}

/// RFC 6749, section 3.3, and short enough to be repeated.
fn is_scope(text: &str) -> bool {
    let letter = |b: u8| matches!(b, b' ' | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    (1..=LONGEST_SCOPE).contains(&text.len()) && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";

    fn read(kind: &'static str, body: &str) -> Result<AgentCall, CallError> {
        let kind = HeaderValue::from_static(kind);
        AgentCall::read(
            &HeaderMap::from_iter([(CONTENT_TYPE, kind)]),
            None,
            body.as_bytes(),
        )
    }

    #[test]
    fn both_forms_are_read_as_their_clients_write_them() {
        let device = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        for (kind, body, grant, scope, lifetime) in [
            (
                JSON,
                r#"{"grant_type":"refresh_token","refresh_token":"r","scope":"user:profile user:inference"}"#,
                AgentGrant::Refresh,
                Some("user:profile user:inference"),
                None,
            ),
            (
                "application/json; charset=utf-8",
                r#"{"grant_type":"authorization_code","code":"c","state":"s","expires_in":31536000}"#,
                AgentGrant::Login,
                None,
                Some(31_536_000),
            ),
            (
                FORM,
                "grant_type=authorization_code&code=a%2Fb+c&scope=a+b",
                AgentGrant::Login,
                Some("a b"),
                None,
            ),
            (
                FORM,
                &format!("grant_type={device}&device_code=x"),
                AgentGrant::Login,
                None,
                None,
            ),
            (
                FORM,
                "grant_type=client_credentials",
                AgentGrant::Other,
                None,
                None,
            ),
            (
                JSON,
                r#"{"grant_type":"password"}"#,
                AgentGrant::Other,
                None,
                None,
            ),
            (
                JSON,
                r#"{"grant_type":"refresh_token","scope":"a\u0000b","expires_in":"-1"}"#,
                AgentGrant::Refresh,
                None,
                None,
            ),
        ] {
            let call = read(kind, body).unwrap();
            assert_eq!(
                (call.grant, call.scope.as_deref()),
                (grant, scope),
                "{body}"
            );
            assert_eq!(call.lifetime, lifetime, "{body}");
        }
        let call = read(FORM, "grant_type=refresh_token&refresh_token=a%2Bb+c&&x").unwrap();
        let values: Vec<&str> = call.values().iter().map(|value| value.as_str()).collect();
        assert_eq!(values, ["refresh_token", "a+b c", ""]);
        assert_eq!(format!("{call:?}"), "AgentCall(Refresh)");
    }

    #[test]
    fn what_has_more_than_one_reading_or_none_is_refused() {
        let many = vec!["a=b"; 65].join("&");
        for (kind, body, says) in [
            (FORM, "", "no `grant_type`"),
            (FORM, "grant_type=", "no `grant_type`"),
            (
                FORM,
                "grant_type=refresh_token&grant_type=password",
                "twice",
            ),
            (
                FORM,
                "grant_type=refresh_token&grant%5Ftype=password",
                "twice",
            ),
            (FORM, "grant_type=%ff", "UTF-8"),
            (FORM, &many, "too many"),
            (FORM, r#"{"grant_type":"refresh_token"}"#, "no `grant_type`"),
            (JSON, "grant_type=refresh_token", "not a JSON object"),
            (JSON, r#"["grant_type"]"#, "not a JSON object"),
            (
                JSON,
                r#"{"grant_type":"refresh_token"} {}"#,
                "not a JSON object",
            ),
            (
                JSON,
                r#"{"grant_type":"refresh_token","grant_type":"password"}"#,
                "twice",
            ),
            (JSON, r#"{"grant_type":"a","grant\u005ftype":"b"}"#, "twice"),
            (JSON, r#"{"grant_type":{"a":"b"}}"#, "neither a text"),
            (
                "text/plain",
                "grant_type=refresh_token",
                "neither a form nor JSON",
            ),
            ("multipart/form-data", "x", "neither a form nor JSON"),
        ] {
            let error = read(kind, body).unwrap_err().to_string();
            assert!(error.contains(says), "{body}: {error}");
        }
        let json = HeaderValue::from_static(JSON);
        let body = br#"{"grant_type":"refresh_token"}"#;
        let headers = |fields: &[(http::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_static(value));
            }
            headers
        };
        for (headers, query, says) in [
            (headers(&[]), None, "Content-Type"),
            (
                headers(&[(CONTENT_TYPE, JSON), (CONTENT_TYPE, FORM)]),
                None,
                "Content-Type",
            ),
            (
                headers(&[(CONTENT_TYPE, JSON), (CONTENT_ENCODING, "gzip")]),
                None,
                "compressed",
            ),
            (
                HeaderMap::from_iter([(CONTENT_TYPE, json)]),
                Some("grant_type=x"),
                "query",
            ),
        ] {
            let error = AgentCall::read(&headers, query, body).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(AgentCall::read(&headers(&[(CONTENT_TYPE, JSON)]), None, b"\xff").is_err());
    }
}
