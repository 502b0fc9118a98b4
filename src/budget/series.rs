//! Owns the counts of one limit for one group of calls: window by window, and over all time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limit::{Limit, WindowKind};
use super::span::{Span, reach, span};
use super::window::BUCKETS;

/// The number a series has in the ledger's file.
pub type SeriesId = i64;

/// Windows that are over are kept a while for those who ask.
const DAY: i64 = 86_400_000;

/// What one window has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When it ends, in milliseconds; none where it never does.
    pub end: Option<i64>,
    /// What was spent.
    pub settled: u64,
    /// What the window before spent beyond its limit.
    pub carried: u64,
    /// What requests in flight have reserved.
    pub reserved: u64,
    /// What an unclean end left unknown.
    pub held: u64,
    /// The highest threshold that was told, in percent.
    pub told: u8,
    /// Requests in flight that were admitted in it, also those that reserve nothing.
    pub open: u32,
}

/// What counts against a limit at one moment: of a rolling window, the sum of its buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spent, debt of the window before included.
    pub settled: u64,
    /// Reserved by requests in flight.
    pub reserved: u64,
    /// Left unknown by an unclean end.
    pub held: u64,
}

impl Taken {
    /// Everything.
    pub fn all(&self) -> u64 {
        self.kept().saturating_add(self.reserved)
    }

    /// What no settling request gives back.
    pub fn kept(&self) -> u64 {
        self.settled.saturating_add(self.held)
    }
}

/// What could have been spent when the machine went down, in windows that are still to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// At most so much.
    pub amount: u64,
    /// Found at, in milliseconds.
    pub at: i64,
}

/// The counts of one limit for one group of calls.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its number in the file.
    pub id: SeriesId,
    /// The limit's id.
    pub limit: Arc<str>,
    /// The group of calls.
    pub scope: Arc<str>,
    /// How far back windows count beside the present one, in milliseconds.
    pub reach: i64,
    /// The start of the newest window that was ever opened; a clock that steps back stays in it.
    pub newest: i64,
    /// Everything that was ever spent. It only grows, whatever windows do.
    pub spent: u64,
    /// Everything that requests in flight have reserved.
    pub reserved: u64,
    /// How far `spent` and `reserved` together may go before the disk is waited for again.
    pub escrow: u64,
    /// The same once the disk was waited for that is being waited for now.
    pub promised: u64,
    /// What requests reserve, roughly.
    pub mean: u64,
    /// The limit's amount when last seen.
    pub max: u64,
    /// When it was last reserved from, in milliseconds.
    pub touched: i64,
    /// Whether calls went by that it should have counted.
    pub stale: bool,
    /// See [`Lost`].
    pub lost: Option<Lost>,
    /// By start, in milliseconds.
    pub windows: BTreeMap<i64, Window>,
}

impl Series {
    /// One that counted nothing yet.
    pub fn new(id: SeriesId, limit: &Limit, scope: Arc<str>) -> Self {
        Self {
            id,
            limit: limit.id.clone(),
            scope,
            reach: reach(&limit.window),
            newest: i64::MIN,
            spent: 0,
            reserved: 0,
            escrow: 0,
            promised: 0,
            mean: 0,
            max: 0,
            touched: i64::MIN,
            stale: false,
            lost: None,
            windows: BTreeMap::new(),
        }
    }

    /// The start of the window that a call at `at` counts in, were it made.
    pub fn start(&self, kind: &WindowKind, at: i64) -> Span {
        let newest = self.windows.get(&self.newest);
        // Nearly every call lies in the newest window, and the calendar need not be asked.
        if let Some(newest) = newest
            && at >= self.newest
            && newest.end.is_some_and(|end| at < end)
        {
            return Span {
                start: self.newest,
                end: newest.end,
            };
        }
        let own = span(kind, at);
        match newest {
            Some(newest) if own.start < self.newest => Span {
                start: self.newest,
                end: newest.end,
            },
            _ => own,
        }
    }

    /// Opens the window that a call at `at` counts in. Starts of windows that no longer matter are returned.
    pub fn open(&mut self, limit: &Limit, max: u64, at: i64) -> (i64, Vec<i64>) {
        self.place_lost(limit);
        let own = self.start(&limit.window, at);
        if self.windows.contains_key(&own.start) {
            return (own.start, Vec::new());
        }
        let carried = self.debt_at(limit, max, own.start);
        let fresh = Window {
            end: own.end,
            carried,
            ..Window::default()
        };
        self.windows.insert(own.start, fresh);
        self.newest = own.start.max(self.newest);
        (own.start, self.forget_old())
    }

    /// What counts at the window `start`.
    pub fn taken(&self, start: i64) -> Taken {
        let from = start.saturating_sub(self.reach);
        let mut taken = Taken::default();
        for window in self.windows.range(from..=start).map(|(_, window)| window) {
            let settled = window.settled.saturating_add(window.carried);
            taken.settled = taken.settled.saturating_add(settled);
            taken.reserved = taken.reserved.saturating_add(window.reserved);
            taken.held = taken.held.saturating_add(window.held);
        }
        taken
    }

    /// What was spent in windows that no longer count.
    pub fn past(&self) -> u64 {
        let windows = self.windows.values().map(|window| window.settled);
        self.spent
            .saturating_sub(windows.fold(0, u64::saturating_add))
    }

    /// What counts at a moment, without opening a window for it.
    pub fn counts_at(&self, now: i64) -> Taken {
        match self.reach {
            0 => self.taken(self.newest),
            reach => {
                let bucket = (reach / i64::from(BUCKETS)).max(1);
                let own = now.div_euclid(bucket).saturating_mul(bucket);
                self.taken(self.newest.max(own))
            }
        }
    }

    /// What counts at each moment that something added to the window `start` would count at.
    pub fn counting(&self, start: i64) -> impl Iterator<Item = Taken> + '_ {
        let last = start.saturating_add(self.reach);
        let later = self.windows.range(start..=last);
        later.map(|(&end, _)| self.taken(end))
    }

    /// The highest threshold told of the window `start`.
    pub fn told(&self, start: i64) -> u8 {
        let from = start.saturating_sub(self.reach);
        let windows = self.windows.range(from..=start);
        windows.map(|(_, window)| window.told).max().unwrap_or(0)
    }

    /// Books what a call came to.
    pub fn settle(&mut self, start: i64, reserved: u64, cost: u64) {
        self.release(start, reserved);
        if let Some(window) = self.windows.get_mut(&start) {
            window.open = window.open.saturating_sub(1);
        }
        self.spend(start, cost);
    }

    /// Forgets what was spent in its windows, to add it up anew.
    pub fn forget_settled(&mut self) {
        for window in self.windows.values_mut() {
            window.settled = 0;
        }
    }

    /// Whether nobody needs it: see [`Book::drop_idle`](super::book::Book::drop_idle).
    pub fn is_idle(&self, now: i64, idle: i64) -> bool {
        let open = self.windows.values().any(|w| w.open > 0);
        let unknown = self.lost.is_some();
        let over = |window: &Window| match window.end {
            Some(end) => end.saturating_add(self.reach).saturating_add(DAY) <= now,
            None => self.touched.saturating_add(idle) <= now && window.held == 0,
        };
        let newest = self.windows.get(&self.newest);
        let debt = newest.is_some_and(|w| w.settled.saturating_add(w.carried) > self.max);
        !open && !unknown && !debt && newest.is_none_or(over)
    }

    /// Books what was spent without a reservation.
    pub fn spend(&mut self, start: i64, cost: u64) {
        self.spent = self.spent.saturating_add(cost);
        let window = self.windows.entry(start).or_default();
        window.settled = window.settled.saturating_add(cost);
    }

    /// Reserves.
    pub fn reserve(&mut self, start: i64, amount: u64) {
        self.reserved = self.reserved.saturating_add(amount);
        let window = self.windows.entry(start).or_default();
        window.reserved = window.reserved.saturating_add(amount);
    }

    /// Gives back.
    pub fn release(&mut self, start: i64, amount: u64) {
        self.reserved = self.reserved.saturating_sub(amount);
        if let Some(window) = self.windows.get_mut(&start) {
            window.reserved = window.reserved.saturating_sub(amount);
        }
    }

    /// Reckons again what each window carries, after an old one changed.
    pub fn carry(&mut self, limit: &Limit, max: u64, from: i64) {
        if !limit.carry_debt {
            return;
        }
        let later: Vec<i64> = self.windows.range(from..).skip(1).map(|w| *w.0).collect();
        for start in later {
            let carried = self.debt_at(limit, max, start);
            if let Some(window) = self.windows.get_mut(&start) {
                window.carried = carried;
            }
        }
    }

    /// When something that counts now no longer does, in milliseconds, and `wanted` fits into `max`; of a
    /// rolling window, when enough of its buckets have left.
    pub fn frees(&self, start: i64, max: u64, wanted: u64) -> Option<i64> {
        if self.reach == 0 {
            return self.windows.get(&start).and_then(|window| window.end);
        }
        let from = start.saturating_sub(self.reach);
        let mut left = self.taken(start).kept();
        let room = max.saturating_sub(wanted);
        let mut frees = None;
        for (_, window) in self.windows.range(from..=start) {
            let own = window.settled.saturating_add(window.held);
            if own == 0 {
                continue;
            }
            frees = window.end.map(|end| end.saturating_add(self.reach));
            left = left.saturating_sub(own);
            if left <= room {
                break;
            }
        }
        frees
    }

    /// What was spent beyond the limit before `start` and is still owed: every window in between pays off
    /// what it could have spent.
    fn debt_at(&self, limit: &Limit, max: u64, start: i64) -> u64 {
        if !limit.carry_debt || self.reach > 0 {
            return 0;
        }
        let Some((_, before)) = self.windows.range(..start).next_back() else {
            return 0;
        };
        let spent = before.settled.saturating_add(before.carried);
        let mut debt = spent.saturating_sub(max);
        let mut end = before.end;
        while let Some(next) = end.filter(|end| *end < start && debt > 0 && max > 0) {
            debt = debt.saturating_sub(max);
            end = span(&limit.window, next).end;
        }
        debt
    }

    /// Counts what an unclean end left unknown where it may have been spent: in the newest window that
    /// was stored, and in that of the moment the ledger was opened again.
    fn place_lost(&mut self, limit: &Limit) {
        let Some(lost) = self.lost.take() else {
            return;
        };
        let found = self.start(&limit.window, lost.at);
        if self.reach == 0
            && found.start != self.newest
            && let Some(newest) = self.windows.get_mut(&self.newest)
        {
            newest.held = newest.held.saturating_add(lost.amount);
        }
        let window = self.windows.entry(found.start).or_default();
        window.end = found.end;
        window.held = window.held.saturating_add(lost.amount);
        self.newest = found.start.max(self.newest);
    }

    /// Drops windows from the oldest on, as long as nothing is in flight in them and they no longer count.
    fn forget_old(&mut self) -> Vec<i64> {
        let keep = self.newest.saturating_sub(self.reach);
        let mut gone = Vec::new();
        while let Some(entry) = self.windows.first_entry() {
            if *entry.key() >= keep || entry.get().open > 0 {
                break;
            }
            gone.push(*entry.key());
            entry.remove();
        }
        gone
    }
}
