//! Owns what is gathered while a request's body is walked: what may make it dearer than its length says.

use std::collections::{BTreeMap, BTreeSet};

use super::call::CacheUse;
use super::field::{Folded, string_if_any};
use super::json::{Kind, Text, Walker};
use super::scan_error::{MAX_MODELS, ScanError};
use crate::types::usage::Fee;

/// What has been found so far. Nothing that is found later takes anything back, so the order of a
/// body's fields does not matter.
#[derive(Default)]
pub(super) struct Gathered {
    /// The longest-lived cache.
    pub(super) cache: CacheUse,
    /// Whether the prompt may hold what the body does not.
    pub(super) reaches_out: bool,
    /// The provider's tools and how often they may be used; nothing where that is not bounded.
    pub(super) tools: BTreeMap<Fee, Option<u64>>,
    /// Models that are named anywhere.
    pub(super) models: BTreeSet<Box<str>>,
    /// Tokens that pictures may cost, at most, and the octets they take in the body.
    picture_tokens: u64,
    picture_octets: u64,
}

impl Gathered {
    /// Counts a picture that takes so much of the body and may cost so many tokens.
    pub(super) fn picture(&mut self, octets: usize, tokens: u64) {
        self.picture_octets = self.picture_octets.saturating_add(octets as u64);
        self.picture_tokens = self.picture_tokens.saturating_add(tokens);
    }

    /// Tokens that small pictures may cost beyond one for each of their octets.
    pub(super) fn beyond_octets(&self) -> u64 {
        self.picture_tokens.saturating_sub(self.picture_octets)
    }

    /// A tool of the provider that has a fee. What it finds is put into the prompt.
    pub(super) fn tool(&mut self, fee: Fee, uses: Option<u64>) {
        self.reaches_out = true;
        self.tools
            .entry(fee)
            .and_modify(|so_far| {
                *so_far = so_far
                    .zip(uses)
                    .map(|(before, more)| before.saturating_add(more));
            })
            .or_insert(uses);
    }

    /// Another model that may work on the request.
    pub(super) fn model(&mut self, name: &str) -> Result<(), ScanError> {
        self.models.insert(model_name(name)?.into());
        match self.models.len() > MAX_MODELS {
            true => Err(ScanError::TooManyModels),
            false => Ok(()),
        }
    }

    /// One name of a model, or a list of them or of objects that have one.
    pub(super) fn model_list(&mut self, walker: &mut Walker<'_>) -> Result<(), ScanError> {
        match walker.peek()? {
            Kind::String => self.model(&walker.string()?.said()),
            Kind::Array => walker.array(|walker| self.model_list(walker)),
            Kind::Object => walker.object(|walker, name| match Folded::of(name).as_str() {
                "model" | "models" => self.model_list(walker),
                _ => walker.pass(),
            }),
            _ => walker.pass(),
        }
    }

    /// Whether `name` asks for a cache; if it does, its value is read. What is not documented to live
    /// five minutes counts as living an hour, which is dearer.
    pub(super) fn takes_cache(
        &mut self,
        walker: &mut Walker<'_>,
        name: &str,
    ) -> Result<bool, ScanError> {
        if !matches!(name, "cachecontrol" | "cachepoint") {
            return Ok(false);
        }
        if walker.peek()? != Kind::Object {
            return walker.pass().map(|()| true);
        }
        self.cache = self.cache.max(CacheUse::Minutes5);
        walker.object(|walker, name| {
            if Folded::of(name).as_str() != "ttl" {
                return walker.pass::<ScanError>();
            }
            let null = walker.peek()? == Kind::Null;
            let short = |life: Text<'_>| life.said() == "5m";
            if !string_if_any(walker)?.is_some_and(short) && !null {
                self.cache = CacheUse::Hour;
            }
            Ok(())
        })?;
        Ok(true)
    }
}

/// A model's name, as it may stand in logs and ledgers. Google's is written with `models/` in bodies.
pub(super) fn model_name(name: &str) -> Result<&str, ScanError> {
    let name = name.strip_prefix("models/").unwrap_or(name);
    let wrong = |c: char| c.is_control() || c.is_whitespace() || c == '\u{FFFD}';
    match name.is_empty() || name.len() > 256 || name.contains(wrong) {
        true => Err(ScanError::ModelName),
        false => Ok(name),
    }
}
