//! Owns what happens to counts beside calls: they begin with what was spent before, are read and made good
//! after a bad end, are corrected by operators, and go when nobody needs them.

use std::sync::Arc;

use jiff::Timestamp;

use super::book::Book;
use super::entry::{Entry, Past};
use super::hold::{Hold, Item, Raise};
use super::ledger::HoldId;
use super::limit::{Labels, Limit, Unit};
use super::series::{Lost, Series, SeriesId};
use super::span::span;
use crate::types::host::Host;
use crate::types::model_api::ModelApi;

impl Book {
    /// Begins to count for a limit and a scope, with what was spent before: `past` are calls it may be
    /// for, as old as its present window. Calls under way count from now on as well, fit or not.
    pub fn adopt(&mut self, limit: &Arc<Limit>, scope: &Arc<str>, past: &[Past], at: Timestamp) {
        let id = self.series_of(limit, scope);
        self.open(limit, id, at.as_millisecond());
        if let Some(series) = self.series.get_mut(&id) {
            series.stale = false;
            series.forget_settled();
            let windows = series.windows.keys().map(|start| (id, *start));
            self.changes.windows.extend(windows);
        }
        self.changes.series.insert(id);
        let unwritten: Vec<Past> = self.changes.entries.iter().map(Past::from).collect();
        for past in past.iter().chain(&unwritten) {
            self.adopt_past(limit, scope, id, past);
        }
        self.adopt_holds(limit, scope, id);
    }

    fn series_of(&mut self, limit: &Arc<Limit>, scope: &Arc<str>) -> SeriesId {
        if let Some(id) = self.find(limit, scope) {
            return id;
        }
        self.last_series += 1;
        let id = self.last_series;
        let series = Series::new(id, limit, scope.clone());
        self.series.insert(id, series);
        let scopes = self.index.entry(limit.id.clone()).or_default();
        scopes.insert(scope.clone(), id);
        id
    }

    /// Marks a limit that counted nothing for a while: what was spent meanwhile is added up anew.
    pub fn distrust(&mut self, limit: &str) {
        for id in self.all_of(limit, None) {
            if let Some(series) = self.series.get_mut(&id) {
                series.stale = true;
            }
        }
    }

    fn adopt_past(&mut self, limit: &Arc<Limit>, scope: &str, id: SeriesId, past: &Past) {
        if !counts_for(limit, scope, &past.labels) {
            return;
        }
        let amount = match limit.unit {
            Unit::Requests => past.requests,
            _ => limit.charge(std::slice::from_ref(&past.charge)),
        };
        let Some(series) = self.series.get_mut(&id) else {
            return;
        };
        let own = span(&limit.window, past.at);
        let counts = own.start >= series.newest.saturating_sub(series.reach);
        if amount == 0 || !counts {
            return;
        }
        let start = own.start.min(series.newest);
        series.spend(start, amount);
        if let Some(window) = series.windows.get_mut(&start) {
            window.end = window.end.or(own.end);
        }
        self.changes.windows.insert((id, start));
    }

    fn adopt_holds(&mut self, limit: &Arc<Limit>, scope: &str, id: SeriesId) {
        let Self {
            holds,
            series,
            changes,
            ..
        } = self;
        let Some(series) = series.get_mut(&id) else {
            return;
        };
        for (hold_id, hold) in holds {
            let known = |item: &Item| matches!(&item.limit, Some(own) if own.id == limit.id);
            if hold.items.iter().any(known) || !counts_for(limit, scope, &hold.labels) {
                continue;
            }
            let own = span(&limit.window, hold.at);
            let start = own.start.min(series.newest);
            let amount = limit.reserve(&hold.need);
            series.reserve(start, amount);
            if let Some(window) = series.windows.get_mut(&start) {
                window.end = window.end.or(own.end);
                window.open += 1;
            }
            hold.items.push(Item {
                limit: Some(limit.clone()),
                series: id,
                start,
                amount,
            });
            changes.holds.insert(hold_id.clone());
            changes.windows.insert((id, start));
        }
    }

    /// Closes what an earlier process left open: it is spent as far as it was reserved.
    pub fn close_orphans(&mut self) -> usize {
        let holds: Vec<(HoldId, Hold)> = self.holds.drain().collect();
        for (id, hold) in &holds {
            let entry = Entry::orphaned(id.clone(), hold.at, &hold.labels, &hold.need);
            self.changes.entries.push(entry);
            self.changes.holds.insert(id.clone());
            for item in &hold.items {
                self.book_item(item, item.amount);
            }
        }
        holds.len()
    }

    /// Raises a limit, for all its groups or for one.
    pub fn raise(&mut self, limit: &Arc<str>, raise: Raise) {
        self.freed
            .extend(self.all_of(limit, raise.scope.as_deref()));
        self.raises.entry(limit.clone()).or_default().push(raise);
    }

    /// Forgets what was spent in the present windows of a limit, and what an unclean end left unknown.
    pub fn reset(&mut self, limit: &str, scope: Option<&str>) {
        for id in self.all_of(limit, scope) {
            let Some(series) = self.series.get_mut(&id) else {
                continue;
            };
            series.lost = None;
            for (start, window) in &mut series.windows {
                window.settled = 0;
                window.carried = 0;
                window.held = 0;
                window.told = 0;
                self.changes.windows.insert((id, *start));
            }
            self.changes.series.insert(id);
            self.freed.insert(id);
        }
    }

    pub(super) fn all_of(&self, limit: &str, scope: Option<&str>) -> Vec<SeriesId> {
        let Some(scopes) = self.index.get(limit) else {
            return Vec::new();
        };
        let chosen = scopes
            .iter()
            .filter(|(own, _)| scope.is_none_or(|scope| scope == &***own));
        chosen.map(|(_, id)| *id).collect()
    }

    /// Takes in what a file holds: one series and its windows.
    pub fn restore(&mut self, series: Series) {
        self.last_series = self.last_series.max(series.id);
        let scopes = self.index.entry(series.limit.clone()).or_default();
        scopes.insert(series.scope.clone(), series.id);
        self.series.insert(series.id, series);
    }

    /// Takes in a reservation that a file holds.
    pub fn restore_hold(&mut self, id: HoldId, hold: Hold) {
        for item in &hold.items {
            if let Some(series) = self.series.get_mut(&item.series) {
                series.reserve(item.start, item.amount);
            }
            if let Some(window) = self.window_mut(item.series, item.start) {
                window.open += 1;
            }
        }
        self.holds.insert(id, hold);
    }

    /// What the machine's end may have cost: of each series what the escrow covers beyond what is known.
    pub fn lose(&mut self, at: Timestamp) {
        for series in self.series.values_mut() {
            let amount = series
                .escrow
                .saturating_sub(series.spent.saturating_add(series.reserved));
            series.escrow = series.escrow.saturating_sub(amount);
            series.promised = series.escrow;
            if amount == 0 {
                continue;
            }
            let before = series.lost.map_or(0, |lost| lost.amount);
            series.lost = Some(Lost {
                amount: amount.saturating_add(before),
                at: at.as_millisecond(),
            });
            self.changes.series.insert(series.id);
        }
    }

    /// Drops counts that nobody needs: nothing is in flight or held in them, and their window is long over.
    /// Those without an end go when nobody used them for `idle`; if they are used again they are added up
    /// from the rows.
    pub fn drop_idle(&mut self, now: i64, idle: i64) {
        let idle = |series: &Series| series.is_idle(now, idle);
        let gone: Vec<SeriesId> = self
            .series
            .values()
            .filter(|s| idle(s))
            .map(|s| s.id)
            .collect();
        for id in gone {
            let Some(series) = self.series.remove(&id) else {
                continue;
            };
            if let Some(scopes) = self.index.get_mut(&series.limit) {
                scopes.remove(&series.scope);
            }
            self.changes.series.remove(&id);
            self.changes.taken.remove(&id);
            self.changes.windows.retain(|(own, _)| *own != id);
            self.changes.gone.insert(id);
        }
        self.index.retain(|_, scopes| !scopes.is_empty());
    }
}

/// Whether calls like this are counted by the limit, in that group. A limit that names no hosts is for the
/// hosts of model APIs.
fn counts_for(limit: &Limit, scope: &str, labels: &Labels) -> bool {
    let of_api = || Host::parse(&labels.host).is_ok_and(|host| ModelApi::of_host(&host).is_some());
    let host = !limit.selector.hosts.is_empty() || !labels.model.is_empty() || of_api();
    host && limit.covers(labels) && limit.scope(labels) == scope
}
