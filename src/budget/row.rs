//! Owns what the disk learns of the books, row by row, in the form the journal keeps until the tables have it.

use serde::{Deserialize, Serialize};

use super::book::Book;
use super::entry::Entry;
use super::hold::{Changes, Hold};
use super::ledger::HoldId;
use super::limit::{Limit, Unit};
use super::series::{Lost, Series, SeriesId, Window};
use crate::types::usage::TokenClass;

/// One row as it is from now on. Writing it twice, or after a later one of the same key was lost, is well.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row<'a> {
    /// What a limit is called.
    #[serde(borrow)]
    Limit(LimitRow<'a>),
    /// One series, without its windows.
    #[serde(borrow)]
    Series(SeriesRow<'a>),
    /// One window of a series.
    Window(WindowRow),
    /// A window that no longer counts.
    Past(SeriesId, i64),
    /// A series that nobody needs.
    Gone(SeriesId),
    /// A reservation.
    #[serde(borrow)]
    Hold(Box<HoldRow<'a>>),
    /// A reservation that is no more.
    #[serde(borrow)]
    Closed(IdRow<'a>),
    /// What one model of one try came to.
    #[serde(borrow)]
    Entry(Box<EntryRow<'a>>),
}

/// A try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRow<'a> {
    /// The exchange's id.
    pub request: &'a str,
    /// 1 for the first.
    pub attempt: u32,
}

impl<'a> From<&'a HoldId> for IdRow<'a> {
    fn from(id: &'a HoldId) -> Self {
        Self {
            request: &id.request,
            attempt: id.attempt,
        }
    }
}

/// See [`Limit`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRow<'a> {
    /// What it is filed under.
    pub id: &'a str,
    /// The budget's name.
    pub budget: &'a str,
    /// `usd`, `tokens` or `requests`.
    pub unit: &'a str,
    /// How much, in that unit.
    pub max: u64,
}

/// See [`Series`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesRow<'a> {
    /// Its number.
    pub id: SeriesId,
    /// Its limit's id.
    pub limit: &'a str,
    /// The group of calls.
    pub scope: &'a str,
    /// How far back windows count.
    pub reach: i64,
    /// The start of the newest window.
    pub newest: i64,
    /// What was spent in windows that no longer count.
    pub past: u64,
    /// How far it may go before the disk is waited for again.
    pub escrow: u64,
    /// What the machine's end left unknown, and when that was found.
    pub lost: (u64, i64),
    /// When it was last used.
    pub touched: i64,
}

/// See [`Window`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRow {
    /// The series.
    pub series: SeriesId,
    /// Its start.
    pub start: i64,
    /// Its end.
    pub end: Option<i64>,
    /// What was spent.
    pub settled: u64,
    /// What the window before left.
    pub carried: u64,
    /// What an unclean end left unknown.
    pub held: u64,
    /// The highest threshold told.
    pub told: u8,
}

/// See [`Hold`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRow<'a> {
    /// The try.
    #[serde(borrow)]
    pub id: IdRow<'a>,
    /// When it was admitted.
    pub at: i64,
    /// Who calls what.
    #[serde(borrow)]
    pub labels: LabelsRow<'a>,
    /// The most it can use: nano-dollars, tokens in, tokens out.
    pub need: (u64, u64, u64),
    /// Series, window and amount of each limit it takes from.
    pub items: Vec<(SeriesId, i64, u64)>,
}

/// See [`Labels`](super::limit::Labels).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsRow<'a> {
    /// The agent's name.
    pub agent: &'a str,
    /// Its run.
    pub execution: Option<&'a str>,
    /// The origin's host.
    pub host: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
}

/// See [`Entry`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow<'a> {
    /// The try.
    #[serde(borrow)]
    pub id: IdRow<'a>,
    /// Counts its models.
    pub part: u32,
    /// When it was admitted.
    pub at: i64,
    /// When it was settled.
    pub settled_at: i64,
    /// Who called what.
    #[serde(borrow)]
    pub labels: LabelsRow<'a>,
    /// The credential that went into it.
    pub credential: Option<&'a str>,
    /// The model that answered.
    pub model: &'a str,
    /// SHA-256 of its prices.
    pub prices: Option<[u8; 32]>,
    /// Tokens, in the order of [`TokenClass::ALL`].
    pub tokens: [u64; TokenClass::ALL.len()],
    /// What it was charged for by the piece.
    pub fees: Vec<(&'a str, u64)>,
    /// Nano-dollars.
    pub cost: u64,
    /// Whether some of it was estimated.
    pub estimated: bool,
    /// How it ended.
    pub ending: &'a str,
}

impl<'a> EntryRow<'a> {
    /// The row of an entry.
    pub fn of(entry: &'a Entry) -> Self {
        let fees = entry.charge.fees.iter();
        Self {
            id: (&entry.id).into(),
            part: entry.part,
            at: entry.at,
            settled_at: entry.settled_at,
            labels: LabelsRow::of(&entry.labels),
            credential: entry.credential.as_deref(),
            model: &entry.charge.model,
            prices: entry.prices,
            tokens: TokenClass::ALL.map(|class| entry.charge.usage[class]),
            fees: fees.map(|(fee, count)| (fee.as_str(), *count)).collect(),
            cost: entry.charge.cost.0,
            estimated: entry.estimated,
            ending: entry.ending,
        }
    }
}

impl<'a> LabelsRow<'a> {
    fn of(labels: &'a super::limit::Labels) -> Self {
        Self {
            agent: labels.agent.name(),
            execution: labels.execution.as_deref(),
            host: &labels.host,
            model: &labels.model,
        }
    }
}

/// Gives every row of what changed, as the books have it now, in the order in which tables can take them.
/// Reservations that are no more are told of where `kept` knows them.
pub fn rows<'b>(
    book: &'b Book,
    changes: &'b Changes,
    kept: impl Fn(&HoldId) -> bool,
    mut give: impl FnMut(Row<'b>),
) {
    // First, since what is gone may be there anew under another number.
    for id in &changes.gone {
        give(Row::Gone(*id));
    }
    for limit in changes.limits.values() {
        give(Row::Limit(limit_row(limit)));
    }
    for series in changes.series.iter().filter_map(|id| book.series(*id)) {
        give(Row::Series(series_row(series)));
    }
    for (id, start) in &changes.windows {
        let series = book.series(*id);
        if let Some(window) = series.and_then(|series| series.windows.get(start)) {
            give(Row::Window(window_row(*id, *start, window)));
        }
    }
    for (id, start) in &changes.past {
        let series = book.series(*id);
        if series.is_none_or(|series| !series.windows.contains_key(start)) {
            give(Row::Past(*id, *start));
        }
    }
    for id in &changes.holds {
        match book.hold(id) {
            Some(hold) => give(Row::Hold(Box::new(hold_row(id, hold)))),
            None if kept(id) => give(Row::Closed(id.into())),
            None => {}
        }
    }
    for entry in &changes.entries {
        give(Row::Entry(Box::new(EntryRow::of(entry))));
    }
}

fn limit_row(limit: &Limit) -> LimitRow<'_> {
    LimitRow {
        id: &limit.id,
        budget: &limit.budget,
        unit: match limit.unit {
            Unit::Usd => "usd",
            Unit::Tokens(_) => "tokens",
            Unit::Requests => "requests",
        },
        max: limit.max,
    }
}

fn series_row(series: &Series) -> SeriesRow<'_> {
    let lost = series.lost.unwrap_or(Lost { amount: 0, at: 0 });
    SeriesRow {
        id: series.id,
        limit: &series.limit,
        scope: &series.scope,
        reach: series.reach,
        newest: series.newest,
        past: series.past(),
        escrow: series.promised,
        lost: (lost.amount, lost.at),
        touched: series.touched,
    }
}

fn window_row(series: SeriesId, start: i64, window: &Window) -> WindowRow {
    WindowRow {
        series,
        start,
        end: window.end,
        settled: window.settled,
        carried: window.carried,
        held: window.held,
        told: window.told,
    }
}

fn hold_row<'b>(id: &'b HoldId, hold: &'b Hold) -> HoldRow<'b> {
    let items = hold.items.iter();
    HoldRow {
        id: id.into(),
        at: hold.at,
        labels: LabelsRow::of(&hold.labels),
        need: (hold.need.cost.0, hold.need.input, hold.need.output),
        items: items.map(|i| (i.series, i.start, i.amount)).collect(),
    }
}
