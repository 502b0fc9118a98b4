//! Owns the books in memory: what every limit has taken, and who may still take. It reads no clock, no
//! file, and waits for nothing; what it changes it notes, for whoever keeps it on disk.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::entry::Entry;
use super::hold::{Changes, Hold, Item, Misfit, Place, Raise};
use super::ledger::{Ask, Balance, HoldId, LedgerError, Settled, Settlement, Shortage};
use super::limit::{Labels, Limit, Unit};
use super::series::{Series, SeriesId, Taken, Window};
use super::span::moment;
use crate::types::charge::Need;
use crate::types::map::{HashMap, HashSet};
use crate::types::money::NanoUsd;

/// So many settled tries are remembered, so that doing it twice is answered without reading a file.
const REMEMBERED: usize = 4096;

/// Everything that counts.
#[derive(Debug, Default)]
pub struct Book {
    pub(super) series: HashMap<SeriesId, Series>,
    pub(super) index: HashMap<Arc<str>, HashMap<Arc<str>, SeriesId>>,
    pub(super) last_series: SeriesId,
    pub(super) holds: HashMap<HoldId, Hold>,
    pub(super) raises: HashMap<Arc<str>, Vec<Raise>>,
    closed: HashSet<HoldId>,
    closed_order: VecDeque<HoldId>,
    /// The moment of the latest call, in milliseconds: raises end by it.
    now: i64,
    /// What is not on disk yet.
    pub changes: Changes,
    /// Series of which something was given back.
    pub freed: BTreeSet<SeriesId>,
}

impl Book {
    /// The limits, with their scope, that never counted such a call, or did not for a while. They must be
    /// [adopted](Self::adopt) before it is [placed](Self::places).
    pub fn unknown(&self, labels: &Labels, limits: &[Arc<Limit>]) -> Vec<(Arc<Limit>, Arc<str>)> {
        let mut unknown = Vec::new();
        for limit in limits {
            let scope = limit.scope(labels);
            let series = self.find(limit, &scope).and_then(|id| self.series.get(&id));
            if series.is_none_or(|series| series.stale) {
                unknown.push((limit.clone(), scope.into()));
            }
        }
        unknown
    }

    /// Whether there are [such](Self::unknown).
    pub fn is_unknown(&self, labels: &Labels, limits: &[Arc<Limit>]) -> bool {
        limits.iter().any(|limit| {
            let series = self.find(limit, &limit.scope(labels));
            let series = series.and_then(|id| self.series.get(&id));
            series.is_none_or(|series| series.stale)
        })
    }

    /// Where a call counts, by the limits' order. Opens windows whose time has come.
    pub fn places(&mut self, labels: &Labels, limits: &[Arc<Limit>], at: Timestamp) -> Vec<Place> {
        self.now = at.as_millisecond();
        let mut places: Vec<Place> = Vec::with_capacity(limits.len());
        for limit in limits {
            let Some(series) = self.find(limit, &limit.scope(labels)) else {
                continue;
            };
            if places.iter().any(|place| place.limit.id == limit.id) {
                continue;
            }
            let start = self.open(limit, series, at.as_millisecond());
            places.push(Place {
                limit: limit.clone(),
                series,
                start,
            });
        }
        places.sort_by(|one, other| one.limit.id.cmp(&other.limit.id));
        places
    }

    /// Whether so much fits at every place.
    pub fn check(&self, need: &Need, places: &[Place]) -> Result<(), Misfit> {
        let wanted: Vec<u64> = places.iter().map(|p| p.limit.reserve(need)).collect();
        self.fits(places, &wanted, &[])
    }

    /// What a call lacks at one place, or would if others were served first.
    pub fn shortage(&self, need: &Need, place: &Place) -> Option<Shortage> {
        let asked = place.limit.reserve(need);
        let balance = self.balance_for(place, asked)?;
        Some(Shortage { balance, asked })
    }

    /// Reserves at every place. The caller has [checked](Self::check) that it fits.
    pub fn admit(&mut self, ask: &Ask, at: Timestamp, places: &[Place]) {
        let mut items = Vec::with_capacity(places.len());
        for place in places {
            let amount = place.limit.reserve(&ask.need);
            self.take(place.series, place.start, amount);
            if let Some(window) = self.window_mut(place.series, place.start) {
                window.open += 1;
            }
            items.push(Item {
                limit: Some(place.limit.clone()),
                series: place.series,
                start: place.start,
                amount,
            });
        }
        let hold = Hold {
            at: at.as_millisecond(),
            labels: Arc::new(ask.labels.clone()),
            need: ask.need,
            items,
        };
        self.holds.insert(ask.id.clone(), hold);
        self.changes.holds.insert(ask.id.clone());
    }

    /// Where the limits of a call under way stand.
    pub fn balances_of(&self, id: &HoldId) -> Vec<Balance> {
        let places = self.places_of(id).unwrap_or_default();
        self.balances(&places)
    }

    /// Where a call under way counts, and what more it wants there.
    pub fn places_of(&self, id: &HoldId) -> Option<Vec<Place>> {
        let items = self.holds.get(id)?.items.iter();
        let place = |item: &Item| {
            Some(Place {
                limit: item.limit.clone()?,
                series: item.series,
                start: item.start,
            })
        };
        Some(items.filter_map(place).collect())
    }

    /// Reserves more for a call under way, everywhere or nowhere. The amounts are for
    /// [taking back](Self::unextend).
    pub fn extend(&mut self, id: &HoldId, more: &Need) -> Result<(), Misfit> {
        let Some((places, own)) = self.places_of(id).zip(self.holds.get(id)).map(|(p, hold)| {
            let own: Vec<u64> = hold.items.iter().map(|item| item.amount).collect();
            (p, own)
        }) else {
            return Ok(());
        };
        let wanted: Vec<u64> = places.iter().map(|p| further(&p.limit, more)).collect();
        self.fits(&places, &wanted, &own)?;
        for (place, amount) in places.iter().zip(&wanted) {
            self.take(place.series, place.start, *amount);
        }
        if let Some(hold) = self.holds.get_mut(id) {
            hold.need = plus(&hold.need, more);
            for (item, amount) in hold.items.iter_mut().zip(wanted) {
                item.amount = item.amount.saturating_add(amount);
            }
        }
        self.changes.holds.insert(id.clone());
        Ok(())
    }

    /// Takes an extension back that could not be written.
    pub fn unextend(&mut self, id: &HoldId, more: &Need) {
        let Some(hold) = self.holds.get(id) else {
            return;
        };
        let need = Need {
            cost: NanoUsd(hold.need.cost.0.saturating_sub(more.cost.0)),
            input: hold.need.input.saturating_sub(more.input),
            output: hold.need.output.saturating_sub(more.output),
        };
        let amounts: Vec<u64> = hold
            .items
            .iter()
            .map(|item| {
                let more = item.limit.as_ref().map_or(0, |limit| further(limit, more));
                item.amount.saturating_sub(more)
            })
            .collect();
        self.lower(id, need, &amounts);
    }

    /// Reserves no more than `need` from now on.
    pub fn shrink(&mut self, id: &HoldId, need: &Need) {
        let Some(hold) = self.holds.get(id) else {
            return;
        };
        let less = Need {
            cost: hold.need.cost.min(need.cost),
            input: hold.need.input.min(need.input),
            output: hold.need.output.min(need.output),
        };
        let amounts: Vec<u64> = hold
            .items
            .iter()
            .map(|item| {
                let new = item.limit.as_ref().map(|limit| limit.reserve(&less));
                new.unwrap_or(item.amount).min(item.amount)
            })
            .collect();
        self.lower(id, less, &amounts);
    }

    fn lower(&mut self, id: &HoldId, need: Need, amounts: &[u64]) {
        let Some(mut hold) = self.holds.remove(id) else {
            return;
        };
        hold.need = need;
        for (item, amount) in hold.items.iter_mut().zip(amounts) {
            self.give_back(item.series, item.start, item.amount.saturating_sub(*amount));
            item.amount = *amount;
        }
        self.holds.insert(id.clone(), hold);
        self.changes.holds.insert(id.clone());
    }

    /// Closes a try with no cost; its reservation is the next one's.
    pub fn retry(&mut self, id: &HoldId) -> Result<(), LedgerError> {
        let next = next_attempt(id);
        if self.holds.contains_key(&next) {
            return Err(LedgerError::new(format!(
                "try {} of {} is under way",
                next.attempt, id.request
            )));
        }
        let hold = self.holds.remove(id).ok_or_else(|| nothing_open(id))?;
        let entry = Entry::retried(id.clone(), hold.at, &hold.labels);
        self.changes.entries.push(entry);
        self.changes.holds.extend([id.clone(), next.clone()]);
        self.remember_closed(id.clone());
        self.holds.insert(next, hold);
        Ok(())
    }

    /// Takes a retry back that could not be written.
    pub fn unretry(&mut self, id: &HoldId) {
        let Some(hold) = self.holds.remove(&next_attempt(id)) else {
            return;
        };
        self.changes.entries.retain(|entry| entry.id != *id);
        self.changes.holds.extend([id.clone(), next_attempt(id)]);
        self.closed.remove(id);
        // Closed once more later, it is remembered from then on.
        self.closed_order.retain(|closed| closed != id);
        self.holds.insert(id.clone(), hold);
    }

    /// Books what a call came to. Nothing where the try is not open.
    pub fn settle(&mut self, settlement: &Settlement) -> Option<Settled> {
        let hold = self.holds.remove(&settlement.id)?;
        let rows = Entry::of(settlement, hold.at, &hold.labels);
        self.changes.entries.extend(rows);
        self.changes.holds.insert(settlement.id.clone());
        self.remember_closed(settlement.id.clone());
        let mut settled = Settled::default();
        for item in &hold.items {
            let cost = match &item.limit {
                Some(limit) => limit.charge(&settlement.charges),
                None => item.amount,
            };
            self.book_item(item, cost);
            settled.underreserved += u32::from(cost > item.amount);
            let Some(limit) = &item.limit else {
                continue;
            };
            let place = Place {
                limit: limit.clone(),
                series: item.series,
                start: item.start,
            };
            self.alert(&place, &mut settled);
            settled.balances.extend(self.balance(&place));
        }
        Some(settled)
    }

    pub(super) fn book_item(&mut self, item: &Item, cost: u64) {
        let Some(series) = self.series.get_mut(&item.series) else {
            return;
        };
        series.settle(item.start, item.amount, cost);
        if let Some(limit) = item.limit.as_ref().filter(|limit| limit.carry_debt) {
            let max = limit.max;
            series.carry(limit, max, item.start);
            let later = series
                .windows
                .range(item.start..)
                .map(|window| (item.series, *window.0));
            self.changes.windows.extend(later);
        }
        self.changes.taken.insert(item.series);
        self.changes.windows.insert((item.series, item.start));
        self.freed.insert(item.series);
    }

    /// Undoes a reservation as if it had never been: nobody has sent anything on its account.
    pub fn abandon(&mut self, id: &HoldId) {
        let Some(hold) = self.holds.remove(id) else {
            return;
        };
        self.changes.holds.insert(id.clone());
        for item in &hold.items {
            self.give_back(item.series, item.start, item.amount);
            if let Some(window) = self.window_mut(item.series, item.start) {
                window.open = window.open.saturating_sub(1);
            }
        }
    }

    /// Whether the try is open.
    pub fn is_open(&self, id: &HoldId) -> bool {
        self.holds.contains_key(id)
    }

    /// Whether the try was settled not long ago.
    pub fn is_closed(&self, id: &HoldId) -> bool {
        self.closed.contains(id)
    }

    /// Where limits stand.
    pub fn balances(&self, places: &[Place]) -> Vec<Balance> {
        places
            .iter()
            .filter_map(|place| self.balance(place))
            .collect()
    }

    fn balance(&self, place: &Place) -> Option<Balance> {
        self.balance_for(place, 0)
    }

    fn balance_for(&self, place: &Place, wanted: u64) -> Option<Balance> {
        let series = self.series.get(&place.series)?;
        let taken = series.taken(place.start);
        let max = self.max(&place.limit, &series.scope);
        Some(Balance {
            limit: place.limit.clone(),
            scope: series.scope.clone(),
            max,
            settled: taken.settled,
            reserved: taken.reserved,
            held: taken.held,
            resets: series.frees(place.start, max, wanted).map(moment),
        })
    }

    /// One series.
    pub fn series(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(&id)
    }

    /// One series, to note what the disk knows of it.
    pub fn series_mut(&mut self, id: SeriesId) -> Option<&mut Series> {
        self.series.get_mut(&id)
    }

    /// Every series.
    pub fn all_series(&self) -> impl Iterator<Item = &Series> {
        self.series.values()
    }

    /// One reservation.
    pub fn hold(&self, id: &HoldId) -> Option<&Hold> {
        self.holds.get(id)
    }

    /// How many calls are under way.
    pub fn open_holds(&self) -> usize {
        self.holds.len()
    }

    /// The most that may be spent now, raises included.
    pub fn max(&self, limit: &Limit, scope: &str) -> u64 {
        let raised = self.raised_at(&limit.id, scope, self.now);
        limit.max.saturating_add(raised)
    }

    /// By how much operators have raised a limit, for one group of calls.
    pub fn raised(&self, limit: &str, scope: &str, at: Timestamp) -> u64 {
        self.raised_at(limit, scope, at.as_millisecond())
    }

    fn raised_at(&self, limit: &str, scope: &str, at: i64) -> u64 {
        let raises = self.raises.get(limit).into_iter().flatten();
        let now = raises.filter(|raise| {
            raise.scope.as_deref().is_none_or(|own| own == scope)
                && raise.until.is_none_or(|until| at < until)
        });
        now.fold(0, |sum: u64, raise| sum.saturating_add(raise.by))
    }

    /// What groups of a limit have spent in their present windows, or may have before an unclean end.
    pub fn spent(&self, limit: &str, scope: Option<&str>, at: Timestamp) -> u64 {
        let own = self.all_of(limit, scope).into_iter();
        let own = own.filter_map(|id| self.series.get(&id));
        own.fold(0, |sum: u64, series| {
            let taken = series.counts_at(at.as_millisecond());
            let lost = series.lost.map_or(0, |lost| lost.amount);
            sum.saturating_add(taken.kept()).saturating_add(lost)
        })
    }

    pub(super) fn find(&self, limit: &Limit, scope: &str) -> Option<SeriesId> {
        self.index.get(&limit.id)?.get(scope).copied()
    }

    pub(super) fn window_mut(&mut self, series: SeriesId, start: i64) -> Option<&mut Window> {
        self.series.get_mut(&series)?.windows.get_mut(&start)
    }

    pub(super) fn open(&mut self, limit: &Arc<Limit>, id: SeriesId, at: i64) -> i64 {
        let scope = self.series.get(&id).map(|series| series.scope.clone());
        let max = self.max(limit, scope.as_deref().unwrap_or(""));
        let Some(series) = self.series.get_mut(&id) else {
            return 0;
        };
        series.touched = series.touched.max(at);
        if series.max != limit.max {
            series.max = limit.max;
            self.changes.limits.insert(limit.id.clone(), limit.clone());
        }
        let before = (series.newest, series.lost);
        let (start, past) = series.open(limit, max, at);
        if before != (series.newest, series.lost) {
            self.changes.series.insert(id);
            self.changes
                .windows
                .extend(series.windows.keys().map(|start| (id, *start)));
        }
        for start in past {
            self.changes.windows.remove(&(id, start));
            self.changes.past.insert((id, start));
        }
        start
    }

    fn take(&mut self, id: SeriesId, start: i64, amount: u64) {
        if let Some(series) = self.series.get_mut(&id) {
            series.reserve(start, amount);
            series.touched = self.now;
            series.mean = match series.mean {
                0 => amount,
                mean => mean - mean / 8 + amount / 8,
            };
            self.changes.taken.insert(id);
        }
    }

    fn give_back(&mut self, id: SeriesId, start: i64, amount: u64) {
        if let Some(series) = self.series.get_mut(&id) {
            series.release(start, amount);
            self.freed.insert(id);
        }
    }

    /// Whether so much more fits everywhere. `own` is what the call itself has reserved already: nobody
    /// else's settling gives that back.
    fn fits(&self, places: &[Place], wanted: &[u64], own: &[u64]) -> Result<(), Misfit> {
        let mut contended = Vec::new();
        let mut first = None;
        for (index, (place, wanted)) in places.iter().zip(wanted).enumerate() {
            let Some(series) = self.series.get(&place.series).filter(|_| place.is_hard()) else {
                continue;
            };
            let max = self.max(&place.limit, &series.scope);
            let own = own.get(index).copied().unwrap_or(0);
            let over = |taken: u64| taken.checked_add(*wanted).is_none_or(|sum| sum > max);
            let full = |taken: &Taken| over(taken.all());
            let never = |taken: &Taken| over(taken.kept().saturating_add(own));
            if !series.counting(place.start).any(|taken| full(&taken)) {
                continue;
            }
            let Some(balance) = self.balance_for(place, *wanted) else {
                continue;
            };
            let shortage = Shortage {
                balance,
                asked: *wanted,
            };
            if series.counting(place.start).any(|taken| never(&taken)) {
                return Err(Misfit::Exhausted(Box::new(shortage)));
            }
            contended.push(place.clone());
            first.get_or_insert(shortage);
        }
        match first {
            None => Ok(()),
            Some(first) => Err(Misfit::Contended(contended, Box::new(first))),
        }
    }

    fn alert(&mut self, place: &Place, settled: &mut Settled) {
        let Some(balance) = self.balance(place) else {
            return;
        };
        let Some(series) = self.series.get_mut(&place.series) else {
            return;
        };
        let told = series.told(place.start);
        let reached = |percent: u8| {
            let share = u128::from(balance.settled) * 100;
            percent > told && share >= u128::from(balance.max) * u128::from(percent)
        };
        let news: Vec<u8> = place
            .limit
            .alerts
            .iter()
            .copied()
            .filter(|p| reached(*p))
            .collect();
        let Some(highest) = news.iter().max() else {
            return;
        };
        if let Some(window) = series.windows.get_mut(&place.start) {
            window.told = *highest;
        }
        let told = news.into_iter().map(|percent| (balance.clone(), percent));
        settled.alerts.extend(told);
    }

    fn remember_closed(&mut self, id: HoldId) {
        if self.closed.insert(id.clone()) {
            self.closed_order.push_back(id);
        }
        if self.closed_order.len() > REMEMBERED
            && let Some(oldest) = self.closed_order.pop_front()
        {
            self.closed.remove(&oldest);
        }
    }
}

/// What an extension takes: a request is counted once.
fn further(limit: &Limit, more: &Need) -> u64 {
    match limit.unit {
        Unit::Requests => 0,
        _ => limit.reserve(more),
    }
}

fn plus(one: &Need, other: &Need) -> Need {
    Need {
        cost: NanoUsd(one.cost.0.saturating_add(other.cost.0)),
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
    }
}

/// The try after this one.
pub fn next_attempt(id: &HoldId) -> HoldId {
    HoldId {
        request: id.request.clone(),
        attempt: id.attempt.saturating_add(1),
    }
}

/// Why something cannot be done for a try that is not open.
pub fn nothing_open(id: &HoldId) -> LedgerError {
    LedgerError::new(format!(
        "nothing is reserved for try {} of {}",
        id.attempt, id.request
    ))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
