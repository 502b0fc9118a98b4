//! Owns how the books stand in the ledger's tables: written as they changed, read when it is opened.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::Book;
use super::entry::{Entry, RETRIED};
use super::hold::{Changes, Hold, Item, Raise};
use super::ledger::{Amended, Amendment, Change, Ending, HoldId};
use super::limit::{GroupBy, Labels, Limit, Pattern, Unit, WindowKind};
use super::series::{Lost, Series, SeriesId, Window};
use super::span::span;
use crate::types::agent::Agent;
use crate::types::charge::{Charge, Need};
use crate::types::money::NanoUsd;
use crate::types::usage::{TokenClass, Usage};

/// Numbers of price tables by their SHA-256, as far as they were met.
#[derive(Debug, Default)]
pub struct Prices(HashMap<[u8; 32], i64>);

/// How far series may go from now on before the disk is waited for: to be noted once it is durable.
#[derive(Debug, Default)]
pub struct Escrow(Vec<(SeriesId, u64)>);

impl Escrow {
    /// The series that would go beyond what the disk vouches for, and how far each may go next: two in
    /// a hundred of its limit at a time, or four requests, but no more than a tenth of it.
    pub fn wanted(book: &Book) -> Self {
        let changed = book.changes.series.iter();
        let series = changed.filter_map(|id| book.series(*id));
        let short = series.filter_map(|series| {
            let taken = series.spent.saturating_add(series.reserved);
            let block = (series.max / 50).max(series.mean.saturating_mul(4));
            let block = block.min(series.max / 10);
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
        let own = self.0.iter().find(|(id, _)| *id == series.id);
        own.map_or(series.escrow, |(_, escrow)| *escrow)
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
    for series in series.iter().filter_map(|id| book.series(*id)) {
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
    let sql = "INSERT INTO series(id, limit_id, scope, reach, newest, spent, escrow, lost, lost_at, touched)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT(id) DO UPDATE SET
        newest = ?5, spent = ?6, escrow = ?7, lost = ?8, lost_at = ?9, touched = ?10";
    let lost = series.lost.unwrap_or(Lost { amount: 0, at: 0 });
    connection.prepare_cached(sql)?.execute(params![
        series.id,
        &*series.limit,
        &*series.scope,
        series.reach,
        series.newest,
        whole(series.spent),
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

/// Reads the books. Reservations in them are those that another process left open.
pub fn load(connection: &Connection, now: Timestamp) -> rusqlite::Result<Book> {
    let mut book = Book::default();
    let mut all: HashMap<SeriesId, Series> = HashMap::new();
    let sql = "SELECT id, limit_id, scope, reach, newest, spent, escrow, lost, lost_at, touched FROM series";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let series = series(row)?;
        all.insert(series.id, series);
    }
    let sql = "SELECT series, win_start, win_end, settled, carried, held, told FROM counter";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(series) = all.get_mut(&row.get(0)?) {
            series.windows.insert(row.get(1)?, window(row)?);
        }
    }
    all.into_values().for_each(|series| book.restore(series));
    let sql = "SELECT rid, attempt, at, agent, execution, host, model, cost, input, output, items FROM reservation";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, hold) = hold(row)?;
        book.restore_hold(id, hold);
    }
    for (limit, raise) in raises(connection, now)? {
        book.raise(&limit, raise);
    }
    book.freed.clear();
    Ok(book)
}

fn series(row: &Row<'_>) -> rusqlite::Result<Series> {
    let lost = Lost {
        amount: amount(row, 7)?,
        at: row.get(8)?,
    };
    Ok(Series {
        id: row.get(0)?,
        limit: text(row, 1)?,
        scope: text(row, 2)?,
        reach: row.get(3)?,
        newest: row.get(4)?,
        spent: amount(row, 5)?,
        reserved: 0,
        escrow: amount(row, 6)?,
        mean: 0,
        max: 0,
        touched: row.get(9)?,
        stale: false,
        lost: (lost.amount > 0).then_some(lost),
        windows: Default::default(),
    })
}

fn window(row: &Row<'_>) -> rusqlite::Result<Window> {
    Ok(Window {
        end: row.get(2)?,
        settled: amount(row, 3)?,
        carried: amount(row, 4)?,
        held: amount(row, 5)?,
        told: row.get(6)?,
        reserved: 0,
        open: 0,
    })
}

fn hold(row: &Row<'_>) -> rusqlite::Result<(HoldId, Hold)> {
    let id = HoldId {
        request: text(row, 0)?,
        attempt: row.get(1)?,
    };
    let labels = labels(row, [3, 4, 5, 6])?;
    let need = Need {
        cost: NanoUsd(amount(row, 7)?),
        input: amount(row, 8)?,
        output: amount(row, 9)?,
    };
    let hold = Hold {
        at: row.get(2)?,
        labels: Arc::new(labels),
        need,
        items: items(row.get_ref(10)?.as_blob().unwrap_or_default()),
    };
    Ok((id, hold))
}

/// What a reservation takes of each series: number, window, amount, eight octets each.
pub fn items(blob: &[u8]) -> Vec<Item> {
    let number = |octets: &[u8]| octets.try_into().map_or(0, i64::from_le_bytes);
    let item = |octets: &[u8]| Item {
        limit: None,
        series: number(&octets[..8]),
        start: number(&octets[8..16]),
        amount: number(&octets[16..]).unsigned_abs(),
    };
    blob.chunks_exact(24).map(item).collect()
}

fn labels(row: &Row<'_>, [agent, execution, host, model]: [usize; 4]) -> rusqlite::Result<Labels> {
    let name = row.get_ref(agent)?.as_str().unwrap_or_default();
    let wrong = |error| {
        rusqlite::Error::FromSqlConversionFailure(
            agent,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    };
    Ok(Labels {
        agent: Agent::parse(name).map_err(wrong)?,
        execution: row.get::<_, Option<String>>(execution)?.map(Into::into),
        host: text(row, host)?,
        model: text(row, model)?,
    })
}

fn raises(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<(Arc<str>, Raise)>> {
    let sql = "SELECT limit_id, scope, by_amount, until FROM amendment
        WHERE kind = 'raise' AND (until IS NULL OR until > ?1)";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([now.as_millisecond()], |row| {
        let raise = Raise {
            scope: row.get::<_, Option<String>>(1)?.map(Into::into),
            by: amount(row, 2)?,
            until: row.get(3)?,
        };
        Ok((text(row, 0)?, raise))
    })?;
    rows.collect()
}

/// Rows of calls that a limit may be for, as old as its window at `at`: of one agent or one execution
/// where the limit counts each by itself, by an index.
pub fn history(
    connection: &Connection,
    limit: &Limit,
    scope: &str,
    labels: &Labels,
    at: i64,
) -> rusqlite::Result<Vec<Entry>> {
    let since = span(&limit.window, at)
        .start
        .saturating_sub(super::span::reach(&limit.window));
    let reset: Option<i64> = {
        let sql =
            "SELECT max(at) FROM amendment WHERE kind = 'reset' AND (scope IS NULL OR scope = ?1)
            AND (limit_id = ?2 OR budget = ?3)";
        let mut statement = connection.prepare_cached(sql)?;
        let row = statement.query_row(params![scope, &*limit.id, &*limit.budget], |row| row.get(0));
        row.optional()?.flatten()
    };
    let since = since.max(reset.unwrap_or(i64::MIN));
    let by_execution =
        limit.group_by.contains(&GroupBy::Execution) || limit.window == WindowKind::Execution;
    let one_agent = match &*limit.selector.agents {
        [Pattern::Exact(name)] => Some(&**name),
        _ if limit.group_by.contains(&GroupBy::Agent) => Some(labels.agent.name()),
        _ => None,
    };
    let (chosen, name) = match (&labels.execution, one_agent) {
        (Some(execution), _) if by_execution => ("execution = ?2", Some(&**execution)),
        (_, Some(agent)) => ("agent = ?2", Some(agent)),
        _ => ("?2 IS NULL", None),
    };
    let sql = format!(
        "SELECT agent, execution, host, req_model, rid, attempt, part, at, model, cost, ending, input,
        cache_write_5m, cache_write_1h, cache_read, output, audio_input, audio_output
        FROM entry WHERE at >= ?1 AND {chosen}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![since, name], entry)?;
    rows.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let mut usage = Usage::default();
    for (index, class) in TokenClass::ALL.into_iter().enumerate() {
        usage[class] = amount(row, 11 + index)?;
    }
    let ending = match row.get_ref(10)?.as_str() {
        Ok(RETRIED) => RETRIED,
        _ => Ending::Complete.as_str(),
    };
    Ok(Entry {
        id: HoldId {
            request: text(row, 4)?,
            attempt: row.get(5)?,
        },
        part: row.get(6)?,
        at: row.get(7)?,
        labels: Arc::new(labels(row, [0, 1, 2, 3])?),
        charge: Charge {
            model: text(row, 8)?,
            usage,
            fees: Vec::new(),
            cost: NanoUsd(amount(row, 9)?),
        },
        estimated: false,
        ending,
        prices: None,
        credential: None,
    })
}

/// Whether a try has a row.
pub fn is_settled(connection: &Connection, id: &HoldId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM entry WHERE rid = ?1 AND attempt = ?2 AND part = 0";
    let mut statement = connection.prepare_cached(sql)?;
    statement.exists(params![&*id.request, id.attempt])
}

/// SQLite's integers have a sign.
pub fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// An amount of a row.
pub fn amount(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index)
        .map(|value| value.max(0).unsigned_abs())
}

/// A text of a row.
pub fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Arc<str>> {
    let text = row.get_ref(index)?;
    let text = text.as_str().map_err(rusqlite::Error::from);
    text.map(Into::into)
}
