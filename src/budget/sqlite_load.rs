//! Owns how the ledger's tables are read when it is opened, and when a limit is new.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::book::Book;
use super::entry::{Past, RETRIED};
use super::hold::{Hold, Item, Raise};
use super::ledger::HoldId;
use super::limit::{GroupBy, Labels, Limit, Pattern};
use super::series::{Lost, Series, SeriesId, Window};
use super::span::{reach, span};
use super::sqlite_value::{amount, sum, sums_of_usage, text, usage};
use super::window::BUCKETS;
use crate::types::agent::Agent;
use crate::types::charge::{Charge, Need};
use crate::types::map::HashMap;
use crate::types::money::NanoUsd;

/// Reads the books. Reservations in them are those that another process left open.
pub fn load(connection: &Connection, now: Timestamp) -> rusqlite::Result<Book> {
    let mut book = Book::default();
    let mut all: HashMap<SeriesId, Series> = HashMap::default();
    let sql = "SELECT id, limit_id, scope, reach, newest, past, escrow, lost, lost_at, touched,
        coalesce((SELECT max FROM budget_limit WHERE budget_limit.id = limit_id), 0) FROM series";
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
            let window = window(row)?;
            series.spent = series.spent.saturating_add(window.settled);
            series.windows.insert(row.get(1)?, window);
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
    // Calls went by once that these should have counted.
    let sql = "SELECT id FROM budget_limit WHERE configured = 2";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        book.distrust(&text(row, 0)?);
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
    let escrow = amount(row, 6)?;
    Ok(Series {
        id: row.get(0)?,
        limit: text(row, 1)?,
        scope: text(row, 2)?,
        reach: row.get(3)?,
        newest: row.get(4)?,
        spent: amount(row, 5)?,
        reserved: 0,
        escrow,
        promised: escrow,
        mean: 0,
        max: amount(row, 10)?,
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

/// What calls came to that a limit may be for, as old as its window at `at`, added up by kind: of one agent
/// or one execution where the limit counts each by itself, by an index.
pub fn history(
    connection: &Connection,
    limit: &Limit,
    scope: &str,
    labels: &Labels,
    at: i64,
) -> rusqlite::Result<Vec<Past>> {
    let reach = reach(&limit.window);
    let since = span(&limit.window, at).start.saturating_sub(reach);
    let since = since.max(last_reset(connection, limit, scope)?.unwrap_or(i64::MIN));
    let bucket = match reach {
        0 => i64::MAX,
        reach => reach / i64::from(BUCKETS),
    };
    let runs = limit.group_by.contains(&GroupBy::Execution);
    let one_agent = match &*limit.selector.agents {
        [Pattern::Exact(name)] => Some(&**name),
        _ if limit.group_by.contains(&GroupBy::Agent) => Some(labels.agent.name()),
        _ => None,
    };
    let (chosen, name) = match (&labels.execution, one_agent) {
        (Some(execution), _) if runs => ("execution = ?3", Some(&**execution)),
        (_, Some(agent)) => ("agent = ?3", Some(agent)),
        _ => ("?3 IS NULL", None),
    };
    let sql = format!(
        "SELECT agent, execution, host, req_model, max(at), sum(part = 0 AND ending <> '{RETRIED}'), {},
        {} FROM entry WHERE at >= ?1 AND {chosen} GROUP BY agent, execution, host, req_model, at / ?2",
        sum("cost"),
        sums_of_usage()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![since, bucket, name], past)?;
    rows.collect()
}

/// When an operator last reset the limit, or the budget it is of.
fn last_reset(
    connection: &Connection,
    limit: &Limit,
    scope: &str,
) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT max(at) FROM amendment WHERE kind = 'reset' AND (scope IS NULL OR scope = ?1)
        AND (limit_id = ?2 OR budget = ?3)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(params![scope, &*limit.id, &*limit.budget], |row| row.get(0))
}

fn past(row: &Row<'_>) -> rusqlite::Result<Past> {
    let labels = labels(row, [0, 1, 2, 3])?;
    Ok(Past {
        at: row.get(4)?,
        charge: Charge {
            model: labels.model.clone(),
            usage: usage(row, 7)?,
            fees: Vec::new(),
            cost: NanoUsd(amount(row, 6)?),
        },
        labels: Arc::new(labels),
        requests: amount(row, 5)?,
    })
}

/// Whether a try has a row.
pub fn is_settled(connection: &Connection, id: &HoldId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM entry WHERE rid = ?1 AND attempt = ?2 AND part = 0";
    let mut statement = connection.prepare_cached(sql)?;
    statement.exists(params![&*id.request, id.attempt])
}
