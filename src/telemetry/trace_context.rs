//! Owns W3C Trace Context (<https://www.w3.org/TR/trace-context/>): strictly read from an agent's head,
//! and written for an origin. What is malformed counts as absent, as the standard asks.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

use super::redact::looks_secret;

/// The field that names trace and parent.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field that vendors add to.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The field that an application fills with whatever it likes (<https://www.w3.org/TR/baggage/>).
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Our member of `tracestate`; its value is the id of our span.
const OWN_MEMBER: &str = "tollgate";
/// Members of a `tracestate` (section 3.3.1.1).
const MOST_MEMBERS: usize = 32;
/// Longest `tracestate` that is carried on. The standard asks for 512 at least.
const LONGEST_STATE: usize = 4096;

/// A trace: 16 octets, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span within a trace: 8 octets, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an agent's `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The agent's span.
    pub span: SpanId,
    /// Whether the agent records it.
    pub recorded: Recorded,
}

/// Whether whoever made a context records its spans: the `sampled` flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It does.
    Yes,
    /// It does not, or does not say.
    No,
}

/// The trace context of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace and parent.
    pub parent: Parent,
    /// What vendors said besides.
    pub state: Option<TraceState>,
}

impl TraceContext {
    /// The context that an agent sent, if it is well-formed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (Some(only), None) = (all.next(), all.next()) else {
            return None;
        };
        Some(Self {
            parent: Parent::parse(only.as_bytes())?,
            state: TraceState::of(headers),
        })
    }
}

impl Parent {
    /// Parses a `traceparent` (section 3.2).
    pub fn parse(text: &[u8]) -> Option<Self> {
        // Versions to come may be longer; 00 is exactly this long.
        let version = hex::<1>(text.get(..2)?)?[0];
        let fits = match (version, text.len()) {
            (0xff, _) => false,
            (0, length) => length == 55,
            (_, length) => length == 55 || text.get(55) == Some(&b'-'),
        };
        let dashes = [2, 35, 52];
        if !fits || dashes.iter().any(|at| text.get(*at) != Some(&b'-')) {
            return None;
        }
        let trace = hex::<16>(text.get(3..35)?)?;
        let span = hex::<8>(text.get(36..52)?)?;
        let flags = hex::<1>(text.get(53..55)?)?[0];
        if trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            recorded: match flags & 1 {
                1 => Recorded::Yes,
                _ => Recorded::No,
            },
        })
    }
}

/// Lower-case hexadecimal digits, two an octet.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    };
    let mut octets = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(text.chunks_exact(2)) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(octets)
}

/// A well-formed `tracestate` without a member of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceState(Box<str>);

impl TraceState {
    /// The state that an agent sent; several fields are one list.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut members: Vec<&str> = Vec::new();
        for field in headers.get_all(TRACESTATE) {
            members.extend(field.to_str().ok()?.split(',').map(str::trim));
        }
        Self::from_members(members)
    }

    fn from_members(mut members: Vec<&str>) -> Option<Self> {
        members.retain(|member| !member.is_empty());
        let mut keys = HashSet::new();
        for member in &members {
            let (key, value) = member.split_once('=')?;
            if !is_key(key) || !is_value(value) || !keys.insert(key) {
                return None;
            }
        }
        if members.len() > MOST_MEMBERS {
            return None;
        }
        members.retain(|member| !member.starts_with("tollgate="));
        let joined = members.join(",");
        (1..=LONGEST_STATE)
            .contains(&joined.len())
            .then(|| Self(joined.into()))
    }

    /// The list as it goes out, without our member.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be written down: an agent puts there what it likes.
    pub fn is_plain(&self) -> bool {
        let mut values = self.0.split(',').filter_map(|m| m.split_once('='));
        !values.any(|(_, value)| looks_secret(value))
    }
}

/// A key, alone or with the system it is a tenant of (section 3.3.1.3.1).
fn is_key(key: &str) -> bool {
    let plain = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/')
    };
    let part =
        |text: &str, longest: usize| (1..=longest).contains(&text.len()) && text.bytes().all(plain);
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_lowercase());
    match key.split_once('@') {
        Some((tenant, system)) => {
            let digit = tenant.starts_with(|c: char| c.is_ascii_digit());
            part(tenant, 241) && (starts(tenant) || digit) && part(system, 14) && starts(system)
        }
        // Level 2 lets a digit come first as well.
        None => part(key, 256) && key.starts_with(|c: char| c.is_ascii_alphanumeric()),
    }
}

/// Printable, without what separates members (section 3.3.1.3.2).
fn is_value(value: &str) -> bool {
    let plain = |b: u8| (0x20..=0x7e).contains(&b) && b != b',' && b != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(plain)
}

/// The fields with which an origin goes on from our span.
pub fn outgoing(
    trace: TraceId,
    span: SpanId,
    recorded: Recorded,
    state: Option<&TraceState>,
) -> [(HeaderName, HeaderValue); 2] {
    let flags = match recorded {
        Recorded::Yes => "01",
        Recorded::No => "00",
    };
    let parent = format!("00-{trace}-{span}-{flags}");
    let mut list = format!("{OWN_MEMBER}={span}");
    // Ours is one more; the oldest goes (section 3.5).
    for member in state
        .into_iter()
        .flat_map(|s| s.0.split(','))
        .take(MOST_MEMBERS - 1)
    {
        list.push(',');
        list.push_str(member);
    }
    let value =
        |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    [(TRACEPARENT, value(parent)), (TRACESTATE, value(list))]
}

/// Makes ids: hashes of a counter, under keys that the system chose for this process.
#[derive(Debug, Default)]
pub struct Ids {
    keys: [RandomState; 3],
    next: AtomicU64,
}

impl Ids {
    /// A new trace, with a random last half as sampling by it wants.
    pub fn trace(&self) -> TraceId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let halves = [0, 1].map(|key| self.keys[key].hash_one(number).to_be_bytes());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&halves[0]);
        id[8..].copy_from_slice(&halves[1]);
        // Nothing but zeros means nothing.
        id[15] |= u8::from(id == [0; 16]);
        TraceId(id)
    }

    /// A new span.
    pub fn span(&self) -> SpanId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        SpanId(self.keys[2].hash_one(number).max(1).to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn context(fields: &[(&str, &str)]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        TraceContext::of(&headers)
    }

    #[test]
    fn a_well_formed_traceparent_is_continued() {
        for (text, recorded) in [
            (format!("00-{TRACE}-{SPAN}-01"), Recorded::Yes),
            (format!("00-{TRACE}-{SPAN}-00"), Recorded::No),
            (format!("00-{TRACE}-{SPAN}-fe"), Recorded::No),
            (format!("00-{TRACE}-{SPAN}-03"), Recorded::Yes),
            (format!("01-{TRACE}-{SPAN}-01"), Recorded::Yes),
            (
                format!("cc-{TRACE}-{SPAN}-01-what-comes-later"),
                Recorded::Yes,
            ),
        ] {
            let parent = Parent::parse(text.as_bytes()).unwrap();
            assert_eq!(parent.recorded, recorded, "{text}");
            assert_eq!(parent.trace.to_string(), TRACE);
            assert_eq!(parent.span.to_string(), SPAN);
        }
    }

    #[test]
    fn a_malformed_traceparent_counts_as_none() {
        let (upper, zeros) = (TRACE.to_uppercase(), "0".repeat(32));
        for text in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("01-{TRACE}-{SPAN}-01.more"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}x-{SPAN}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text:?}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert!(context(&[("traceparent", &good)]).is_some());
        assert!(context(&[("traceparent", &good), ("traceparent", &good)]).is_none());
        assert!(context(&[("tracestate", "a=1")]).is_none());
    }

    #[test]
    fn a_tracestate_is_carried_on_whole_or_not_at_all() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let state = |fields: &[&str]| {
            let mut all = vec![("traceparent", parent.as_str())];
            all.extend(fields.iter().map(|field| ("tracestate", *field)));
            context(&all).unwrap().state.map(|s| s.as_str().to_owned())
        };
        let longest = format!("a={}", "x".repeat(256));
        let many = (0..32)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",");
        for (fields, carried) in [
            (&["a=1,b=2"][..], Some("a=1,b=2")),
            (&["a=1 , b=2,,"], Some("a=1,b=2")),
            (&["a=1", "b=2"], Some("a=1,b=2")),
            (&["tenant@sys=x y"], Some("tenant@sys=x y")),
            (&["tollgate=1122334455667788,a=1"], Some("a=1")),
            (&["tollgate=1122334455667788"], None),
            (&[longest.as_str()], Some(longest.as_str())),
            (&[many.as_str()], Some(many.as_str())),
            (&["A=1"], None),
            (&["a"], None),
            (&["a=1,a=2"], None),
            (&["a=b=c"], None),
            (&["a b=1"], None),
            (&["a@1=1"], None),
            (&[""], None),
        ] {
            assert_eq!(state(fields).as_deref(), carried, "{fields:?}");
        }
        assert_eq!(state(&[&format!("{many},k32=v")]), None);
        assert_eq!(state(&[&format!("{longest}x")]), None);
    }

    #[test]
    fn an_origin_goes_on_from_our_span_and_our_member_comes_first() {
        let many = (0..32).map(|n| format!("k{n}=v")).collect::<Vec<_>>();
        let all = many.iter().map(String::as_str).collect();
        let state = TraceState::from_members(all);
        let parent = Parent::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        let [own, list] = outgoing(parent.trace, SpanId([1; 8]), Recorded::Yes, state.as_ref());
        assert_eq!(own.1, format!("00-{TRACE}-0101010101010101-01"));
        let list = list.1.to_str().unwrap().to_owned();
        assert!(list.starts_with("tollgate=0101010101010101,k0=v,"));
        assert!(list.ends_with(",k30=v"), "{list}");
        let [own, list] = outgoing(parent.trace, SpanId([1; 8]), Recorded::No, None);
        assert!(own.1.to_str().unwrap().ends_with("-00"));
        assert_eq!(list.1, "tollgate=0101010101010101");
    }

    #[test]
    fn ids_do_not_repeat() {
        let ids = Ids::default();
        let traces: HashSet<_> = (0..10_000).map(|_| ids.trace()).collect();
        let spans: HashSet<_> = (0..10_000).map(|_| ids.span()).collect();
        assert_eq!((traces.len(), spans.len()), (10_000, 10_000));
        assert_ne!(Ids::default().trace(), Ids::default().trace());
    }
}
