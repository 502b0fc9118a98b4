//! Owns how what changed in the books is written to the ledger's tables.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::book::Book;
use super::entry::Entry;
use super::hold::{Changes, Hold};
use super::ledger::{Amended, Amendment, Change, HoldId};
use super::limit::{Limit, Unit};
use super::series::{Lost, Series, SeriesId, Window};
use super::sqlite_value::{text, whole};
use crate::types::charge::Charge;
use crate::types::usage::TokenClass;

/// Numbers of price tables by their SHA-256, as far as they were met.
#[derive(Debug, Default)]
pub struct Prices(HashMap<[u8; 32], i64>);

/// How far series may go from now on before the disk is waited for: to be noted once it is durable.
#[derive(Debug, Default)]
pub struct Escrow(HashMap<SeriesId, u64>);

impl Escrow {
    /// The series that would go beyond what the disk vouches for, and how far each may go next: two in
    /// a hundred of its limit at a time, or four requests, but no more than a tenth of it.
    pub fn wanted(book: &Book) -> Self {
        let changed = book.changes.series.union(&book.changes.taken);
        let series = changed.filter_map(|id| book.series(*id));
        let short = series.filter_map(|series| {
            let taken = series.spent.saturating_add(series.reserved);
            // A soft limit may be far behind what was spent.
            let size = series.max.max(taken);
            let block = (size / 50).max(series.mean.saturating_mul(4));
            let block = block.min(size / 10);
            (taken > series.escrow).then(|| (series.id, taken.saturating_add(block)))
        });
        Self(short.collect())
    }

    /// Whether the disk need not be waited for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The disk vouches for it.
    pub fn granted(self, book: &mut Book) {
        for (id, escrow) in self.0 {
            if let Some(series) = book.series_mut(id) {
                series.escrow = escrow;
            }
        }
    }

    fn of(&self, series: &Series) -> u64 {
        self.0.get(&series.id).copied().unwrap_or(series.escrow)
    }
}

/// Writes what changed, within a transaction of the caller's.
pub fn write(
    connection: &Connection,
    book: &Book,
    escrow: &Escrow,
    prices: &mut Prices,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let Changes {
        series,
        taken: _,
        windows,
        past,
        gone,
        holds,
        entries,
        limits,
    } = &book.changes;
    for limit in limits.values() {
        write_limit(connection, limit, now)?;
    }
    let series: BTreeSet<&SeriesId> = series.iter().chain(escrow.0.keys()).collect();
    for series in series.into_iter().filter_map(|id| book.series(*id)) {
        write_series(connection, series, escrow.of(series))?;
    }
    for (id, start) in windows {
        let window = book
            .series(*id)
            .and_then(|series| series.windows.get(start));
        if let Some(window) = window {
            write_window(connection, *id, *start, window)?;
        }
    }
    for (id, start) in past {
        let sql = "DELETE FROM counter WHERE series = ?1 AND win_start = ?2";
        connection
            .prepare_cached(sql)?
            .execute(params![id, start])?;
    }
    for id in gone {
        let sql = "DELETE FROM counter WHERE series = ?1";
        connection.prepare_cached(sql)?.execute([id])?;
        let sql = "DELETE FROM series WHERE id = ?1";
        connection.prepare_cached(sql)?.execute([id])?;
    }
    for id in holds {
        match book.hold(id) {
            Some(hold) => write_hold(connection, id, hold)?,
            None => {
                let sql = "DELETE FROM reservation WHERE rid = ?1 AND attempt = ?2";
                connection
                    .prepare_cached(sql)?
                    .execute(params![&*id.request, id.attempt])?;
            }
        }
    }
    for entry in entries {
        let version = match &entry.prices {
            Some(sha256) => Some(price_version(connection, prices, sha256, now)?),
            None => None,
        };
        write_entry(connection, entry, version, now)?;
    }
    Ok(())
}

fn write_series(connection: &Connection, series: &Series, escrow: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO series(id, limit_id, scope, reach, newest, past, escrow, lost, lost_at, touched)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT(id) DO UPDATE SET
        newest = ?5, past = ?6, escrow = ?7, lost = ?8, lost_at = ?9, touched = ?10";
    let lost = series.lost.unwrap_or(Lost { amount: 0, at: 0 });
    connection.prepare_cached(sql)?.execute(params![
        series.id,
        &*series.limit,
        &*series.scope,
        series.reach,
        series.newest,
        whole(series.past()),
        whole(escrow),
        whole(lost.amount),
        lost.at,
        series.touched,
    ])?;
    Ok(())
}

fn write_window(
    connection: &Connection,
    id: SeriesId,
    start: i64,
    window: &Window,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO counter(series, win_start, win_end, settled, carried, held, told)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(series, win_start) DO UPDATE SET
        win_end = ?3, settled = ?4, carried = ?5, held = ?6, told = ?7";
    connection.prepare_cached(sql)?.execute(params![
        id,
        start,
        window.end,
        whole(window.settled),
        whole(window.carried),
        whole(window.held),
        window.told,
    ])?;
    Ok(())
}

fn write_hold(connection: &Connection, id: &HoldId, hold: &Hold) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO reservation(rid, attempt, at, agent, execution, host, model, cost, input,
        output, items) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let items = hold.items.iter().flat_map(|item| {
        let numbers = [item.series, item.start, whole(item.amount)];
        numbers.into_iter().flat_map(i64::to_le_bytes)
    });
    let items: Vec<u8> = items.collect();
    let labels = &hold.labels;
    connection.prepare_cached(sql)?.execute(params![
        &*id.request,
        id.attempt,
        hold.at,
        labels.agent.name(),
        labels.execution.as_deref(),
        &*labels.host,
        &*labels.model,
        whole(hold.need.cost.0),
        whole(hold.need.input),
        whole(hold.need.output),
        items,
    ])?;
    Ok(())
}

/// A row that is there already stays: settling twice changes nothing.
fn write_entry(
    connection: &Connection,
    entry: &Entry,
    prices: Option<i64>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO entry(rid, attempt, part, at, settled_at, agent, execution, host, credential,
        model, req_model, price_version, input, cache_write_5m, cache_write_1h, cache_read, output, audio_input,
        audio_output, fees, cost, estimated, ending)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)";
    let labels = &entry.labels;
    let count = |class| whole(entry.charge.usage[class]);
    connection.prepare_cached(sql)?.execute(params![
        &*entry.id.request,
        entry.id.attempt,
        entry.part,
        entry.at,
        now.as_millisecond(),
        labels.agent.name(),
        labels.execution.as_deref(),
        &*labels.host,
        entry.credential.as_deref(),
        &*entry.charge.model,
        &*labels.model,
        prices,
        count(TokenClass::Input),
        count(TokenClass::CacheWrite5m),
        count(TokenClass::CacheWrite1h),
        count(TokenClass::CacheRead),
        count(TokenClass::Output),
        count(TokenClass::AudioInput),
        count(TokenClass::AudioOutput),
        fees(&entry.charge),
        whole(entry.charge.cost.0),
        entry.estimated,
        entry.ending,
    ])?;
    Ok(())
}

/// `web_search=2`, several with a comma; nothing where there are none.
fn fees(charge: &Charge) -> Option<String> {
    let mut text = String::new();
    for (fee, count) in &charge.fees {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{}={count}", fee.as_str()).ok();
    }
    (!text.is_empty()).then_some(text)
}

fn price_version(
    connection: &Connection,
    prices: &mut Prices,
    sha256: &[u8; 32],
    now: Timestamp,
) -> rusqlite::Result<i64> {
    if let Some(id) = prices.0.get(sha256) {
        return Ok(*id);
    }
    let sql = "INSERT INTO price_version(sha256, first_used) VALUES(?1, ?2) ON CONFLICT DO NOTHING";
    connection.execute(sql, params![sha256, now.as_millisecond()])?;
    let sql = "SELECT id FROM price_version WHERE sha256 = ?1";
    let id = connection.query_row(sql, [sha256], |row| row.get(0))?;
    prices.0.insert(*sha256, id);
    Ok(id)
}

/// Notes what a limit is called, for reports when nothing else knows it any more.
fn write_limit(connection: &Connection, limit: &Limit, now: Timestamp) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO budget_limit(id, budget, unit, max, first_seen, configured)
        VALUES(?1, ?2, ?3, ?4, ?5, 1) ON CONFLICT(id) DO UPDATE SET budget = ?2, max = ?4, configured = 1";
    let unit = match limit.unit {
        Unit::Usd => "usd",
        Unit::Tokens(_) => "tokens",
        Unit::Requests => "requests",
    };
    let now = now.as_millisecond();
    let values = params![&*limit.id, &*limit.budget, unit, whole(limit.max), now];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// Notes which limits there are, and tells those that are there again after a time in which nobody counted
/// for them.
pub fn configure(
    connection: &Connection,
    limits: &[Arc<Limit>],
) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut statement = connection.prepare("SELECT id, configured FROM budget_limit")?;
    let rows = statement.query_map([], |row| Ok((text(row, 0)?, row.get::<_, bool>(1)?)))?;
    let before: HashMap<Arc<str>, bool> = rows.collect::<rusqlite::Result<_>>()?;
    let now: HashSet<&Arc<str>> = limits.iter().map(|limit| &limit.id).collect();
    let mut back = Vec::new();
    for (id, configured) in &before {
        let is_now = now.contains(id);
        if is_now != *configured {
            let sql = "UPDATE budget_limit SET configured = ?2 WHERE id = ?1";
            connection
                .prepare_cached(sql)?
                .execute(params![&**id, is_now])?;
        }
        if is_now && !configured {
            back.push(id.clone());
        }
    }
    Ok(back)
}

/// Drops rows of calls before `before`, at most `most` of them.
pub fn drop_entries(connection: &Connection, before: i64, most: u32) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM entry WHERE (rid, attempt, part) IN
        (SELECT rid, attempt, part FROM entry WHERE at < ?1 ORDER BY at LIMIT ?2)";
    connection
        .prepare_cached(sql)?
        .execute(params![before, most])
}

/// Notes an operator's change.
pub fn write_amendment(
    connection: &Connection,
    at: Timestamp,
    change: &Change,
    amended: Amended,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO amendment(at, limit_id, budget, scope, kind, by_amount, until, old, new,
        reason, who) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let (kind, by, until) = match &change.amendment {
        Amendment::Raise { by, until } => ("raise", Some(whole(*by)), *until),
        Amendment::Reset => ("reset", None, None),
    };
    connection.execute(
        sql,
        params![
            at.as_millisecond(),
            &*change.limit.id,
            &*change.limit.budget,
            change.scope.as_deref(),
            kind,
            by,
            until.map(Timestamp::as_millisecond),
            whole(amended.old),
            whole(amended.new),
            change.reason,
            change.who,
        ],
    )?;
    Ok(())
}
