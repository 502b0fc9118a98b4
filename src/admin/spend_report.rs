//! Owns what was spent, added up, as the API tells it: read from the ledger's file, by the process that
//! writes it or by a command beside it.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::amount::dollars;
use super::moment::rfc3339;
use crate::budget::ledger::LedgerError;
use crate::budget::sqlite_report::{By, LedgerReader, Question, Spent};
use crate::types::money::NanoUsd;
use crate::types::usage::{TokenClass, Usage};

/// `GET /v1/spend`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpendReport {
    /// `agent`, `model`, `credential` or `day`.
    pub by: String,
    /// From when on (RFC 3339); nothing for everything the ledger has.
    pub from: Option<String>,
    /// The moment before which (RFC 3339); nothing for now.
    pub until: Option<String>,
    /// The dearest first; days in their order.
    pub rows: Vec<SpendRow>,
    /// All of them together.
    pub total: SpendRow,
}

/// What one agent, model, credential or day came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpendRow {
    /// Its name; empty for calls that have none, and for the total. Models' names come from agents.
    pub key: String,
    /// US dollars, as a decimal number.
    pub usd: String,
    /// Calls.
    pub requests: u64,
    /// Of them, how many had to be estimated.
    pub estimated: u64,
    /// Tokens by class.
    pub tokens: TokenCounts,
}

/// Tokens by class, under the words of documents and price tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of `TokenClass`")]
pub struct TokenCounts {
    pub input: u64,
    #[serde(rename = "cache_write_5m")]
    pub cache_write_5m: u64,
    #[serde(rename = "cache_write_1h")]
    pub cache_write_1h: u64,
    pub cache_read: u64,
    pub output: u64,
    pub audio_input: u64,
    pub audio_output: u64,
}

impl From<&Usage> for TokenCounts {
    fn from(usage: &Usage) -> Self {
        Self {
            input: usage[TokenClass::Input],
            cache_write_5m: usage[TokenClass::CacheWrite5m],
            cache_write_1h: usage[TokenClass::CacheWrite1h],
            cache_read: usage[TokenClass::CacheRead],
            output: usage[TokenClass::Output],
            audio_input: usage[TokenClass::AudioInput],
            audio_output: usage[TokenClass::AudioOutput],
        }
    }
}

impl SpendReport {
    /// Adds up what the ledger at `path` holds.
    pub fn read(path: &Path, question: &Question) -> Result<Self, LedgerError> {
        let spent = LedgerReader::open(path)?.spend(question)?;
        Ok(Self::of(question, &spent))
    }

    /// Of a ledger that was never made.
    pub fn empty(question: &Question) -> Self {
        Self::of(question, &[])
    }

    fn of(question: &Question, spent: &[Spent]) -> Self {
        let moment = |at: Option<Timestamp>| at.map(rfc3339);
        let total = spent
            .iter()
            .fold(None, |sum: Option<Spent>, row| match sum {
                None => Some(row.clone()),
                Some(sum) => Some(Spent {
                    key: sum.key.clone(),
                    requests: sum.requests.saturating_add(row.requests),
                    estimated: sum.estimated.saturating_add(row.estimated),
                    usage: sum.usage.plus(&row.usage),
                    cost: sum.cost.saturating_add(row.cost),
                }),
            });
        let total = total.as_ref().map(SpendRow::of);
        let nothing = || SpendRow {
            usd: dollars(NanoUsd(0)),
            ..SpendRow::default()
        };
        Self {
            by: word(question.by).to_owned(),
            from: moment(question.from),
            until: moment(question.until),
            rows: spent.iter().map(SpendRow::of).collect(),
            total: SpendRow {
                key: String::new(),
                ..total.unwrap_or_else(nothing)
            },
        }
    }
}

impl SpendRow {
    fn of(spent: &Spent) -> Self {
        Self {
            key: spent.key.to_string(),
            usd: dollars(NanoUsd(spent.cost)),
            requests: spent.requests,
            estimated: spent.estimated,
            tokens: (&spent.usage).into(),
        }
    }
}

/// The word in a query.
pub fn word(by: By) -> &'static str {
    match by {
        By::Agent => "agent",
        By::Model => "model",
        By::Credential => "credential",
        By::Day => "day",
    }
}

/// What a word of a query means.
pub fn by(word: &str) -> Option<By> {
    [By::Agent, By::Model, By::Credential, By::Day]
        .into_iter()
        .find(|by| self::word(*by) == word)
}
