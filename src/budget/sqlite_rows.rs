//! Owns how rows of the books are written to the ledger's tables.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::ledger::{Amended, Amendment, Change};
use super::limit::Limit;
use super::row::{EntryRow, HoldRow, LimitRow, Row, SeriesRow, WindowRow};
use super::sqlite_file::Transaction;
use super::sqlite_value::{counted, text, whole};

/// Numbers of price tables by their SHA-256, as far as they were met.
#[derive(Debug, Default)]
pub struct Prices(HashMap<[u8; 32], i64>);

/// Writes one row, within a transaction of the caller's.
pub fn write(
    connection: &Connection,
    row: &Row<'_>,
    prices: &mut Prices,
    now: Timestamp,
) -> rusqlite::Result<()> {
    match row {
        Row::Limit(limit) => write_limit(connection, limit, now),
        Row::Series(series) => write_series(connection, series),
        Row::Window(window) => write_window(connection, window),
        Row::Past(id, start) => {
            let sql = "DELETE FROM counter WHERE series = ?1 AND win_start = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute(params![id, start]).map(drop)
        }
        Row::Gone(id) => {
            let sql = "DELETE FROM counter WHERE series = ?1";
            connection.prepare_cached(sql)?.execute([id])?;
            let sql = "DELETE FROM series WHERE id = ?1";
            connection.prepare_cached(sql)?.execute([id]).map(drop)
        }
        Row::Hold(hold) => write_hold(connection, hold),
        Row::Closed(id) => {
            let sql = "DELETE FROM reservation WHERE rid = ?1 AND attempt = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute(params![id.request, id.attempt]).map(drop)
        }
        Row::Entry(entry) => {
            let version = match &entry.prices {
                Some(sha256) => Some(price_version(connection, prices, sha256, now)?),
                None => None,
            };
            write_entry(connection, entry, version)
        }
    }
}

fn write_series(connection: &Connection, series: &SeriesRow<'_>) -> rusqlite::Result<()> {
    let sql = "INSERT INTO series(id, limit_id, scope, reach, newest, past, escrow, lost, lost_at, touched)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT(id) DO UPDATE SET
        newest = ?5, past = ?6, escrow = ?7, lost = ?8, lost_at = ?9, touched = ?10";
    connection.prepare_cached(sql)?.execute(params![
        series.id,
        series.limit,
        series.scope,
        series.reach,
        series.newest,
        whole(series.past),
        whole(series.escrow),
        whole(series.lost.0),
        series.lost.1,
        series.touched,
    ])?;
    Ok(())
}

fn write_window(connection: &Connection, window: &WindowRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO counter(series, win_start, win_end, settled, carried, held, told)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(series, win_start) DO UPDATE SET
        win_end = ?3, settled = ?4, carried = ?5, held = ?6, told = ?7";
    connection.prepare_cached(sql)?.execute(params![
        window.series,
        window.start,
        window.end,
        whole(window.settled),
        whole(window.carried),
        whole(window.held),
        window.told,
    ])?;
    Ok(())
}

fn write_hold(connection: &Connection, hold: &HoldRow<'_>) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO reservation(rid, attempt, at, agent, execution, host, model, cost, input,
        output, items) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let items = hold.items.iter().flat_map(|(series, start, amount)| {
        let numbers = [*series, *start, whole(*amount)];
        numbers.into_iter().flat_map(i64::to_le_bytes)
    });
    let items: Vec<u8> = items.collect();
    let (labels, (cost, input, output)) = (&hold.labels, hold.need);
    connection.prepare_cached(sql)?.execute(params![
        hold.id.request,
        hold.id.attempt,
        hold.at,
        labels.agent,
        labels.execution,
        labels.host,
        labels.model,
        whole(cost),
        whole(input),
        whole(output),
        items,
    ])?;
    Ok(())
}

/// A row that is there already stays: settling twice changes nothing.
fn write_entry(
    connection: &Connection,
    entry: &EntryRow<'_>,
    prices: Option<i64>,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO entry(rid, attempt, part, at, settled_at, agent, execution, host, credential,
        model, req_model, price_version, input, cache_write_5m, cache_write_1h, cache_read, output, audio_input,
        audio_output, fees, cost, estimated, ending)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)";
    let labels = &entry.labels;
    // In the order of the columns.
    let [input, write_5m, write_1h, read, output, audio_in, audio_out] = entry.tokens.map(counted);
    connection.prepare_cached(sql)?.execute(params![
        entry.id.request,
        entry.id.attempt,
        entry.part,
        entry.at,
        entry.settled_at,
        labels.agent,
        labels.execution,
        labels.host,
        entry.credential,
        entry.model,
        labels.model,
        prices,
        input,
        write_5m,
        write_1h,
        read,
        output,
        audio_in,
        audio_out,
        fees(&entry.fees),
        counted(entry.cost),
        entry.estimated,
        entry.ending,
    ])?;
    Ok(())
}

/// `web_search=2`, several with a comma; nothing where there are none.
fn fees(fees: &[(&str, u64)]) -> Option<String> {
    let mut text = String::new();
    for (fee, count) in fees {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{fee}={count}").ok();
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
fn write_limit(
    connection: &Connection,
    limit: &LimitRow<'_>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO budget_limit(id, budget, unit, max, first_seen, configured)
        VALUES(?1, ?2, ?3, ?4, ?5, 1) ON CONFLICT(id) DO UPDATE SET budget = ?2, max = ?4";
    let now = now.as_millisecond();
    let values = params![limit.id, limit.budget, limit.unit, whole(limit.max), now];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// Notes which limits there are, and tells those that are there again after a time in which nobody counted
/// for them. They are marked (2) for good: whoever opens the file later has to add them up anew, too.
pub fn configure(
    connection: &Connection,
    limits: &[Arc<Limit>],
) -> rusqlite::Result<Vec<Arc<str>>> {
    let transaction = Transaction::begin(connection)?;
    let before: HashMap<Arc<str>, bool> = {
        let mut statement = transaction.prepare("SELECT id, configured FROM budget_limit")?;
        let rows =
            statement.query_map([], |row| Ok((text(row, 0)?, row.get::<_, i64>(1)? != 0)))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let now: HashSet<&Arc<str>> = limits.iter().map(|limit| &limit.id).collect();
    let mut back = Vec::new();
    for (id, configured) in &before {
        let mark = match (now.contains(id), configured) {
            (true, false) => 2,
            (false, true) => 0,
            _ => continue,
        };
        let sql = "UPDATE budget_limit SET configured = ?2 WHERE id = ?1";
        let mut statement = transaction.prepare_cached(sql)?;
        statement.execute(params![&**id, mark])?;
        if mark == 2 {
            back.push(id.clone());
        }
    }
    transaction.commit()?;
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
