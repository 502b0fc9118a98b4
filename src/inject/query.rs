//! Owns placements in a query parameter: its value is replaced, the rest of the query stays as it is.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use http::request::Parts;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::error::{InjectError, Position};
use super::injector::{Injector, Reveal};
use super::percent::{for_query, splice};

/// A query parameter.
#[derive(Debug)]
pub struct QueryPlace {
    name: Arc<str>,
}

/// Where a parameter stands within the path and query.
struct Parameter {
    whole: Range<usize>,
    value: Range<usize>,
}

impl QueryPlace {
    /// The parameter of this name.
    pub fn new(name: &str) -> Result<Self, String> {
        match name.is_empty() {
            true => Err("the parameter has no name".to_owned()),
            false => Ok(Self { name: name.into() }),
        }
    }

    fn find(&self, head: &Parts) -> Result<Option<Parameter>, InjectError> {
        let mut found = None;
        for parameter in parameters(head).filter(|p| self.is_named(head, p)) {
            if found.replace(parameter).is_some() {
                return Err(InjectError::Duplicate {
                    position: self.position(),
                });
            }
        }
        Ok(found)
    }

    fn is_named(&self, head: &Parts, parameter: &Parameter) -> bool {
        let whole = &target(head)[parameter.whole.clone()];
        let name = whole.split_once('=').map_or(whole, |(name, _)| name);
        decoded(name) == self.name.as_bytes()
    }
}

fn target(head: &Parts) -> &str {
    head.uri
        .path_and_query()
        .map_or("", |target| target.as_str())
}

fn parameters(head: &Parts) -> impl Iterator<Item = Parameter> {
    let target = target(head);
    let mut start = target.find('?').map_or(target.len(), |mark| mark + 1);
    let query = target.get(start..).unwrap_or_default();
    query.split('&').map(move |parameter| {
        let end = start + parameter.len();
        let name = parameter.find('=').map_or(parameter.len(), |sign| sign + 1);
        let found = Parameter {
            whole: start..end,
            value: start + name..end,
        };
        start = end + 1;
        found
    })
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

impl Injector for QueryPlace {
    fn position(&self) -> Position {
        Position::Query(self.name.clone())
    }

    fn standing<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, InjectError> {
        let value = self
            .find(head)?
            .map(|found| decoded(&target(head)[found.value]));
        Ok(value.filter(|value| !value.is_empty()))
    }

    fn swap(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<bool, InjectError> {
        let Some(found) = self.find(head)? else {
            return Ok(false);
        };
        if decoded(&target(head)[found.value.clone()]) != reveal.placeholder() {
            return Ok(false);
        }
        let secret = for_query(reveal.secret("query")?.expose());
        splice(head, found.value, &secret, &self.position())?;
        Ok(true)
    }

    fn put(&self, head: &mut Parts, reveal: &mut Reveal<'_>) -> Result<(), InjectError> {
        let secret = for_query(reveal.secret("query")?.expose());
        let end = target(head).len();
        let (separator, range) = match (self.find(head)?, head.uri.query()) {
            (Some(found), _) => ("", found.whole),
            (None, None) => ("?", end..end),
            (None, Some("")) => ("", end..end),
            (None, Some(_)) => ("&", end..end),
        };
        let name = for_query(self.name.as_bytes());
        let pair = Zeroizing::new([separator, &name, "=", &secret].concat());
        splice(head, range, &pair, &self.position())
    }

    fn strip(&self, head: &mut Parts) -> Result<(), InjectError> {
        let Some(Parameter { whole, .. }) = self.find(head)? else {
            return Ok(());
        };
        // The `&` after it goes with it, or the `&` or `?` before it if it is the last one.
        let range = match target(head).as_bytes().get(whole.end) {
            Some(_) => whole.start..whole.end + 1,
            None => whole.start - 1..whole.end,
        };
        splice(head, range, "", &self.position())
    }
}
