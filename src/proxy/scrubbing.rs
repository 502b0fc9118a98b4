//! Owns what becomes of an answer whose request had a secret: what to look for in it, and what its head may
//! still say.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use quick_cache::sync::Cache;

use super::account::Accounting;
use super::attempt::Shown;
use super::error::ProxyError;
use super::origin_body::Scrubbing;
use crate::config::policy::UnknownCodings;
use crate::policy::decision::Permit;
use crate::scrub::coding::UnknownCoding;
use crate::scrub::head::{self, Readable};
use crate::scrub::needles::{Needles, SHORTEST};
use crate::scrub::stand_in::Fit;
use crate::types::secret::Secret;

/// Searches made lately; one that was evicted is made again, in less than a millisecond.
const CACHED: usize = 1024;

/// The searches for the secrets in use. Each is made once for a set of values, not for each request.
pub struct Scrubbers(Cache<Key, Arc<Needles>>);

impl Default for Scrubbers {
    fn default() -> Self {
        Self(Cache::new(CACHED))
    }
}

/// A set of secrets, told by where they are in memory, and what agents know them by. It keeps none alive: an
/// address is not given out again while somebody remembers it.
#[derive(Clone)]
struct Key(Vec<(Weak<Secret>, String)>);

impl Key {
    fn is_in_use(&self) -> bool {
        self.0.iter().all(|(secret, _)| secret.strong_count() > 0)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let mut same = pairs.map(|((a, name), (b, other))| a.ptr_eq(b) && name == other);
        self.0.len() == other.0.len() && same.all(|same| same)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (secret, placeholder) in &self.0 {
            secret.as_ptr().hash(state);
            placeholder.hash(state);
        }
    }
}

impl Scrubbers {
    /// The search for these secrets; nothing where there are none, or none that can be searched for.
    pub fn of(&self, shown: &Shown) -> Option<Arc<Needles>> {
        if shown.is_empty() {
            return None;
        }
        let key = shown
            .iter()
            .map(|(s, placeholder)| (Arc::downgrade(s), placeholder.clone()));
        let key = Key(key.collect());
        let needles = match self.0.get(&key) {
            Some(needles) => needles,
            None => self.make(key, shown),
        };
        (!needles.is_empty()).then_some(needles)
    }

    fn make(&self, key: Key, shown: &Shown) -> Arc<Needles> {
        // What was made for values that nobody holds any more is wiped.
        self.0.retain(|key, _| key.is_in_use());
        if shown.iter().any(|(secret, _)| secret.len() < SHORTEST) {
            tracing::warn!(
                octets = SHORTEST,
                "a secret is too short to be looked for in answers; an origin that repeats it shows it to the agent"
            );
        }
        let texts = shown
            .iter()
            .map(|(s, placeholder)| (s.expose(), placeholder.as_bytes()));
        let needles = Arc::new(Needles::new(texts));
        self.0.insert(key, needles.clone());
        needles
    }
}

/// Cleans an answer's head and makes it true of the body that will follow.
///
/// Errors: the body cannot be searched, and the rule does not let it pass so.
pub fn begin(
    needles: Arc<Needles>,
    response: &mut Response<Incoming>,
    asked: &Method,
    permit: &Permit,
    accounting: &mut Accounting,
) -> Result<Scrubbing, ProxyError> {
    let hits = head::scrub_reason(&needles, response)
        + head::scrub_fields(&needles, response.headers_mut());
    accounting.scrubbed(hits);
    let has_body = *asked != Method::HEAD && may_have_body(response.status());
    let passes = permit.unknown_codings() == UnknownCodings::Pass;
    let codings = match head::readable(response) {
        Readable::Coded(codings) => codings,
        Readable::No(coding) if has_body && !passes => {
            return Err(unsearchable(permit, coding));
        }
        // Searched as it is, for what it is worth, and not one octet shorter or longer.
        Readable::No(_) => {
            return Ok(Scrubbing {
                needles,
                codings: Vec::new(),
                fit: Fit::Same,
                windows: None,
            });
        }
    };
    let fit = match may_have_body(response.status()) {
        true => head::settle(response.headers_mut(), &codings),
        false => Fit::Same,
    };
    Ok(Scrubbing {
        needles,
        codings,
        fit,
        windows: None,
    })
}

/// Cleans the head of an accepted WebSocket.
///
/// Errors: it accepts an extension, which nobody asked for, and behind which nothing could be found.
pub fn begin_upgraded(
    needles: &Needles,
    response: &mut Response<Incoming>,
    permit: &Permit,
    accounting: &mut Accounting,
) -> Result<(), ProxyError> {
    accounting.scrubbed(head::scrub_reason(needles, response));
    accounting.scrubbed(head::scrub_fields(needles, response.headers_mut()));
    match head::accepts_extension(response.headers()) {
        true => Err(unsearchable(
            permit,
            UnknownCoding("an extension of WebSocket".to_owned()),
        )),
        false => Ok(()),
    }
}

/// Cleans an answer that is given here.
pub fn clean(
    needles: &Needles,
    response: &mut Response<bytes::Bytes>,
    accounting: &mut Accounting,
) {
    accounting.scrubbed(head::scrub_fields(needles, response.headers_mut()));
    if let Some((body, hits)) = needles.scrub(response.body(), Fit::Free) {
        accounting.scrubbed(hits);
        *response.body_mut() = body.into();
    }
}

fn unsearchable(permit: &Permit, coding: UnknownCoding) -> ProxyError {
    ProxyError::Unsearchable {
        authority: permit.authority().clone(),
        coding,
        rule: permit.rule().cloned(),
    }
}

fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
