//! Owns the last look at a request head: no placeholder of the agent leaves in any part of it.

use std::fmt;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::request::Parts;

use super::basic::decode;
use super::error::Position;
use super::table::AgentTable;

/// A placeholder that stands where no swap took it.
pub struct Leftover {
    /// The number of its credential.
    pub credential: usize,
    /// Where it stands.
    pub position: Position,
}

impl fmt::Debug for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leftover({} in {})", self.credential, self.position)
    }
}

/// Looks through path and query, every header value, and what they decode to.
pub fn find(head: &Parts, table: &AgentTable) -> Option<Leftover> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if let Some(credential) = table.find_decoded(target.as_bytes()) {
        return Some(Leftover {
            credential,
            position: Position::Target,
        });
    }
    // Proxy-Authorization ends here; whom it names is not our question.
    let leaving = head
        .headers
        .iter()
        .filter(|(name, _)| **name != PROXY_AUTHORIZATION);
    for (name, value) in leaving {
        let value = value.as_bytes();
        let found = table
            .find_decoded(value)
            .or_else(|| match *name == AUTHORIZATION {
                true => decode(value).and_then(|(_, decoded)| table.find_decoded(&decoded)),
                false => None,
            });
        if let Some(credential) = found {
            return Some(Leftover {
                credential,
                position: Position::Header(name.clone()),
            });
        }
    }
    None
}
