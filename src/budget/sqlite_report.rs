//! Owns what people ask of the books: where limits stand, and who spent what.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params_from_iter};

use super::book::Book;
use super::ledger::LedgerError;
use super::span::moment;
use super::sqlite_catch_up::catch_up_beside;
use super::sqlite_file::{broken, read_only};
use super::sqlite_load::load;
use super::sqlite_value::{amount, sum, sums_of_usage, text, usage};
use crate::types::usage::Usage;

/// Where one limit stands for one group of calls, also if no document names it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The limit's id.
    pub limit: Arc<str>,
    /// The group of calls.
    pub scope: Arc<str>,
    /// `usd`, `tokens` or `requests`; amounts are nano-dollars, thousandths of a token, requests.
    pub unit: Arc<str>,
    /// The most that may be spent, raises included.
    pub max: u64,
    /// How much of that operators have added.
    pub raised: u64,
    /// What was spent.
    pub settled: u64,
    /// What requests in flight have reserved.
    pub reserved: u64,
    /// What an unclean end left unknown.
    pub held: u64,
    /// When its window began.
    pub since: Timestamp,
    /// When it ends, if it does.
    pub resets: Option<Timestamp>,
    /// The highest threshold told, in percent.
    pub told: u8,
}

/// What a limit was called.
#[derive(Clone, Debug)]
pub struct Known {
    budget: Arc<str>,
    unit: Arc<str>,
    max: u64,
}

/// By what rows are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Agents.
    Agent,
    /// Models that answered.
    Model,
    /// Credentials.
    Credential,
    /// Days, in UTC.
    Day,
}

/// What to add up.
#[derive(Clone, Debug)]
pub struct Question {
    /// By what.
    pub by: By,
    /// Calls from this moment on.
    pub from: Option<Timestamp>,
    /// Calls before this moment.
    pub until: Option<Timestamp>,
    /// Of this agent alone.
    pub agent: Option<Arc<str>>,
}

/// What one agent, model, credential or day came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Its name; empty where there is none.
    pub key: Arc<str>,
    /// Calls.
    pub requests: u64,
    /// Of them, how many had to be estimated.
    pub estimated: u64,
    /// Tokens.
    pub usage: Usage,
    /// Nano-dollars.
    pub cost: u64,
}

/// One row of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The exchange's id.
    pub request: Arc<str>,
    /// The try.
    pub attempt: u32,
    /// Counts the models that worked on it.
    pub part: u32,
    /// When it was admitted.
    pub at: Timestamp,
    /// Who.
    pub agent: Arc<str>,
    /// The host.
    pub host: Arc<str>,
    /// The credential.
    pub credential: Option<Arc<str>>,
    /// The model that answered.
    pub model: Arc<str>,
    /// The model that was asked for.
    pub req_model: Arc<str>,
    /// Tokens.
    pub usage: Usage,
    /// Nano-dollars.
    pub cost: u64,
    /// Whether some of it was estimated.
    pub estimated: bool,
    /// How it ended.
    pub ending: Arc<str>,
    /// `web_search=2`.
    pub fees: Option<Arc<str>>,
    /// SHA-256 of the prices, in hexadecimal.
    pub prices: Option<Arc<str>>,
}

/// One change that an operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmendmentRow {
    /// When.
    pub at: Timestamp,
    /// The budget's name.
    pub budget: Arc<str>,
    /// The limit's id.
    pub limit: Arc<str>,
    /// The group of calls; nothing for every group.
    pub scope: Option<Arc<str>>,
    /// `raise` or `reset`.
    pub kind: Arc<str>,
    /// By how much it was raised.
    pub by: Option<u64>,
    /// Until when.
    pub until: Option<Timestamp>,
    /// Of a raise what might be spent before, of a reset what was spent.
    pub old: u64,
    /// The same after.
    pub new: u64,
    /// Why.
    pub reason: Arc<str>,
    /// Who, by their own word.
    pub who: Arc<str>,
}

/// The books, read beside whoever writes them, or while nobody does.
#[derive(Debug)]
pub struct LedgerReader {
    connection: Connection,
    path: Arc<Path>,
}

impl LedgerReader {
    /// Opens the ledger at `path`.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        if path.exists() {
            catch_up_beside(path);
        }
        Ok(Self {
            connection: read_only(path)?,
            path: path.into(),
        })
    }

    /// Where the limits stand whose windows are open.
    pub fn standing(&self, now: Timestamp) -> Result<Vec<Standing>, LedgerError> {
        let read = || {
            // One moment of the file for both.
            let transaction = self.connection.unchecked_transaction()?;
            let book = load(&transaction, now)?;
            Ok(standing(&book, &limits(&transaction)?, now))
        };
        read().map_err(|error| broken(&self.path, &error))
    }

    /// What was spent, the dearest first; days in their order.
    pub fn spend(&self, question: &Question) -> Result<Vec<Spent>, LedgerError> {
        let read = || spend(&self.connection, question);
        read().map_err(|error| broken(&self.path, &error))
    }

    /// What operators changed, the latest first, at most `most` of them.
    pub fn amendments(&self, most: u32) -> Result<Vec<AmendmentRow>, LedgerError> {
        let read = || {
            let sql = "SELECT at, coalesce(budget, ''), limit_id, scope, kind, by_amount, until, old, new, reason, who
                FROM amendment ORDER BY id DESC LIMIT ?1";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([most], amendment)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| broken(&self.path, &error))
    }

    /// The rows of calls from `since` on, at most `most` of them, in their order.
    pub fn entries(&self, since: Timestamp, most: u32) -> Result<Vec<Record>, LedgerError> {
        let read = || {
            let sql = "SELECT rid, attempt, part, at, agent, host, credential, model, req_model, cost, estimated,
                ending, fees, (SELECT lower(hex(sha256)) FROM price_version p WHERE p.id = price_version), input,
                cache_write_5m, cache_write_1h, cache_read, output, audio_input, audio_output
                FROM entry WHERE at >= ?1 ORDER BY at, rid, attempt, part LIMIT ?2";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map((since.as_millisecond(), most), record)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| broken(&self.path, &error))
    }
}

/// What limits were called.
pub fn limits(connection: &Connection) -> rusqlite::Result<HashMap<Arc<str>, Known>> {
    let mut statement = connection.prepare("SELECT id, budget, unit, max FROM budget_limit")?;
    let rows = statement.query_map([], |row| {
        let known = Known {
            budget: text(row, 1)?,
            unit: text(row, 2)?,
            max: amount(row, 3)?,
        };
        Ok((text(row, 0)?, known))
    })?;
    rows.collect()
}

/// Where limits stand whose newest window is not over at `now`.
pub fn standing(book: &Book, limits: &HashMap<Arc<str>, Known>, now: Timestamp) -> Vec<Standing> {
    let (at, now) = (now, now.as_millisecond());
    let mut all = Vec::new();
    for series in book.all_series() {
        let (Some(known), Some(newest)) = (
            limits.get(&series.limit),
            series.windows.get(&series.newest),
        ) else {
            continue;
        };
        let over = newest.end.map(|end| end.saturating_add(series.reach));
        if over.is_some_and(|over| over <= now) {
            continue;
        }
        let taken = series.counts_at(now);
        let raised = book.raised(&series.limit, &series.scope, at);
        let max = known.max.saturating_add(raised);
        all.push(Standing {
            budget: known.budget.clone(),
            limit: series.limit.clone(),
            scope: series.scope.clone(),
            unit: known.unit.clone(),
            max,
            raised,
            settled: taken.settled,
            reserved: taken.reserved,
            held: taken
                .held
                .saturating_add(series.lost.map_or(0, |lost| lost.amount)),
            since: moment(series.newest.saturating_sub(series.reach)),
            resets: series.frees(series.newest, max, 0).map(moment),
            told: series.told(series.newest),
        });
    }
    all.sort_by(|a, b| (&a.budget, &a.limit, &a.scope).cmp(&(&b.budget, &b.limit, &b.scope)));
    all
}

fn spend(connection: &Connection, question: &Question) -> rusqlite::Result<Vec<Spent>> {
    let (key, order) = match question.by {
        By::Agent => ("agent", "cost DESC, key"),
        By::Model => ("model", "cost DESC, key"),
        By::Credential => ("coalesce(credential, '')", "cost DESC, key"),
        By::Day => ("strftime('%Y-%m-%d', at / 1000, 'unixepoch')", "key"),
    };
    let agent = question.agent.as_ref().map_or("", |_| "AND agent = ?3");
    let sql = format!(
        "SELECT {key} AS key, sum(part = 0 AND ending <> 'retried'), sum(part = 0 AND estimated), {} AS cost,
        {} FROM entry WHERE at >= ?1 AND at < ?2 {agent} GROUP BY 1 ORDER BY {order}",
        sum("cost"),
        sums_of_usage()
    );
    let bound = |at: Option<Timestamp>, open| at.map_or(open, Timestamp::as_millisecond);
    let mut values: Vec<rusqlite::types::Value> = vec![
        bound(question.from, i64::MIN).into(),
        bound(question.until, i64::MAX).into(),
    ];
    values.extend(
        question
            .agent
            .as_ref()
            .map(|agent| agent.to_string().into()),
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        Ok(Spent {
            key: text(row, 0)?,
            requests: amount(row, 1)?,
            estimated: amount(row, 2)?,
            cost: amount(row, 3)?,
            usage: usage(row, 4)?,
        })
    })?;
    rows.collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let maybe = |index| {
        row.get::<_, Option<String>>(index)
            .map(|text| text.map(Into::into))
    };
    Ok(Record {
        request: text(row, 0)?,
        attempt: row.get(1)?,
        part: row.get(2)?,
        at: moment(row.get(3)?),
        agent: text(row, 4)?,
        host: text(row, 5)?,
        credential: maybe(6)?,
        model: text(row, 7)?,
        req_model: text(row, 8)?,
        cost: amount(row, 9)?,
        estimated: row.get(10)?,
        ending: text(row, 11)?,
        fees: maybe(12)?,
        prices: maybe(13)?,
        usage: usage(row, 14)?,
    })
}

fn amendment(row: &Row<'_>) -> rusqlite::Result<AmendmentRow> {
    let by: Option<i64> = row.get(5)?;
    let until: Option<i64> = row.get(6)?;
    Ok(AmendmentRow {
        at: moment(row.get(0)?),
        budget: text(row, 1)?,
        limit: text(row, 2)?,
        scope: row.get::<_, Option<String>>(3)?.map(Into::into),
        kind: text(row, 4)?,
        by: by.map(i64::unsigned_abs),
        until: until.map(moment),
        old: amount(row, 7)?,
        new: amount(row, 8)?,
        reason: text(row, 9)?,
        who: text(row, 10)?,
    })
}
