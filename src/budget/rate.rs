//! Owns how fast agents may ask: requests in a stretch of time, and requests under way at once. Both are
//! kept in memory, for each group of each budget; money and tokens are the ledger's.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::covering::Covering;
use super::limit::{Labels, scope};
use super::terms::{Budget, Rate};

/// Everybody's rates. They outlive reloads: what is counted is found by the budget's key and its setting.
#[derive(Debug, Default)]
pub struct Rates {
    paces: Mutex<Paces>,
    running: Arc<Mutex<HashMap<Group, u32>>>,
}

/// A budget and a group of calls.
type Group = (Arc<str>, Arc<str>);

type Limiter = DefaultKeyedRateLimiter<Arc<str>>;

#[derive(Debug, Default)]
struct Paces {
    limiters: HashMap<(Arc<str>, Rate), Arc<Limiter>>,
    tidied: Option<Instant>,
}

/// Why a request may not be made now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the budget {budget} allows no more requests {kind}")]
pub struct RateRefusal {
    /// The budget's name.
    pub budget: Arc<str>,
    /// When it may be tried again.
    pub retry_after: Duration,
    /// Which of its two limits.
    pub kind: RateKind,
}

/// A limit that is not the ledger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateKind {
    /// Requests in a stretch of time.
    Rate,
    /// Requests under way at once.
    Concurrency,
}

impl std::fmt::Display for RateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rate => "in this time",
            Self::Concurrency => "at once",
        })
    }
}

/// A request under way. Dropping it makes room for another.
#[derive(Debug, Default)]
pub struct RateGuard {
    running: Arc<Mutex<HashMap<Group, u32>>>,
    groups: Vec<Group>,
}

impl Drop for RateGuard {
    fn drop(&mut self) {
        if self.groups.is_empty() {
            return;
        }
        let mut running = lock(&self.running);
        for group in &self.groups {
            if let Some(count) = running.get_mut(group) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    running.remove(group);
                }
            }
        }
    }
}

/// Nobody knows when a request under way ends; most end within this.
const SOON: Duration = Duration::from_secs(5);

/// Groups that have been quiet take memory until they are swept out.
const TIDY: Duration = Duration::from_secs(60);

impl Rates {
    /// Lets a request begin, or says which budget is against it. Of several rates, those that were asked
    /// before the one that refuses have counted the request: they refuse too much rather than too little.
    pub fn admit(&self, covering: &Covering, labels: &Labels) -> Result<RateGuard, RateRefusal> {
        let guard = self.begin(covering, labels)?;
        for budget in &covering.budgets {
            let Some(rate) = budget.rate else { continue };
            let group: Arc<str> = scope(&budget.group_by, labels).into();
            let limiter = self.limiter(budget, rate);
            if let Err(refused) = limiter.check_key(&group) {
                return Err(RateRefusal {
                    budget: budget.name.clone(),
                    retry_after: refused.wait_time_from(DefaultClock::default().now()),
                    kind: RateKind::Rate,
                });
            }
        }
        Ok(guard)
    }

    /// Counts a request as under way in every group that is limited, or in none.
    fn begin(&self, covering: &Covering, labels: &Labels) -> Result<RateGuard, RateRefusal> {
        let limited = |budget: &Arc<Budget>| Some((budget.clone(), budget.concurrency?));
        let limited: Vec<(_, NonZeroU32)> = covering.budgets.iter().filter_map(limited).collect();
        if limited.is_empty() {
            return Ok(RateGuard::default());
        }
        let mut groups = Vec::new();
        let mut running = lock(&self.running);
        for (budget, most) in limited {
            let group = (budget.key.clone(), scope(&budget.group_by, labels).into());
            if running
                .get(&group)
                .is_some_and(|count| *count >= most.get())
            {
                return Err(RateRefusal {
                    budget: budget.name.clone(),
                    retry_after: SOON,
                    kind: RateKind::Concurrency,
                });
            }
            groups.push(group);
        }
        for group in &groups {
            *running.entry(group.clone()).or_default() += 1;
        }
        Ok(RateGuard {
            running: self.running.clone(),
            groups,
        })
    }

    fn limiter(&self, budget: &Budget, rate: Rate) -> Arc<Limiter> {
        let mut paces = lock(&self.paces);
        let now = Instant::now();
        if *paces.tidied.get_or_insert(now) + TIDY <= now {
            paces.tidied = Some(now);
            paces.tidy();
        }
        let limiter = paces.limiters.entry((budget.key.clone(), rate));
        limiter.or_insert_with(|| Arc::new(new(rate))).clone()
    }
}

impl Paces {
    /// Forgets groups whose rate is full again, and budgets without groups: those that a reload removed.
    fn tidy(&mut self) {
        self.limiters.retain(|_, limiter| {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            !limiter.is_empty()
        });
    }
}

/// Counts are whole after every step, so one that panicked between two leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A quota whose period is less than a nanosecond would let everything pass; a million a second is
/// the most that a document can say.
fn new(rate: Rate) -> Limiter {
    let each = (rate.period / rate.count.get()).max(Duration::from_nanos(1));
    let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    RateLimiter::keyed(quota.allow_burst(rate.burst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::fixture::{labels, set};
    use crate::types::host::Host;
    use crate::types::model_api::ModelApi;

    fn covering(budgets: &[(&str, &str)], labels: &Labels) -> Covering {
        let host = Host::parse("api.openai.com").unwrap();
        set(budgets).covering(labels, &host, Some(ModelApi::OpenAI))
    }

    #[test]
    fn each_group_has_its_own_rate_and_is_told_when_to_come_back() {
        let (a, b) = (labels("a", "m"), labels("b", "m"));
        let budgets = [("name: n", "rate: { requests: 2/h, burst: 2 }")];
        let rates = Rates::default();
        for _ in 0..2 {
            rates.admit(&covering(&budgets, &a), &a).unwrap();
        }
        let refused = rates.admit(&covering(&budgets, &a), &a).unwrap_err();
        assert_eq!((&*refused.budget, refused.kind), ("n", RateKind::Rate));
        assert!(refused.retry_after <= Duration::from_secs(1800));
        assert!(refused.retry_after > Duration::from_secs(1700));
        assert!(rates.admit(&covering(&budgets, &b), &b).is_ok());
        // The same documents again, as after a reload, start nothing anew; other ones do.
        assert!(rates.admit(&covering(&budgets, &a), &a).is_err());
        let faster = [("name: n", "rate: { requests: 3/h, burst: 1 }")];
        assert!(rates.admit(&covering(&faster, &a), &a).is_ok());
    }

    #[test]
    fn a_request_that_ends_makes_room_for_another() {
        let a = labels("a", "m");
        let budgets = [
            ("name: n", "concurrency: 2"),
            ("name: all", "match: { groupBy: [none] }, concurrency: 3"),
        ];
        let rates = Rates::default();
        let covered = covering(&budgets, &a);
        let first = rates.admit(&covered, &a).unwrap();
        let _second = rates.admit(&covered, &a).unwrap();
        let refused = rates.admit(&covered, &a).unwrap_err();
        assert_eq!(
            (&*refused.budget, refused.kind),
            ("n", RateKind::Concurrency)
        );
        let b = labels("b", "m");
        let other = rates.admit(&covering(&budgets, &b), &b).unwrap();
        let refused = rates.admit(&covering(&budgets, &b), &b).unwrap_err();
        assert_eq!(&*refused.budget, "all");
        // What was refused by the second budget was not left counted in the first.
        drop(other);
        drop(first);
        assert!(rates.admit(&covered, &a).is_ok());
        let _third = rates.admit(&covered, &a).unwrap();
        // Lowered by a reload, the limit counts what is under way already.
        let lower = [("name: n", "concurrency: 1")];
        assert!(rates.admit(&covering(&lower, &a), &a).is_err());
    }

    #[test]
    fn what_was_refused_by_a_rate_is_not_under_way() {
        let a = labels("a", "m");
        let budgets = [("name: n", "concurrency: 1, rate: { requests: 1/h }")];
        let rates = Rates::default();
        drop(rates.admit(&covering(&budgets, &a), &a).unwrap());
        for _ in 0..3 {
            let refused = rates.admit(&covering(&budgets, &a), &a).unwrap_err();
            assert_eq!(refused.kind, RateKind::Rate);
        }
        assert!(lock(&rates.running).is_empty());
    }

    #[test]
    fn groups_that_are_quiet_are_forgotten() {
        let rates = Rates::default();
        let budgets = [("name: n", "rate: { requests: 1000000/s }")];
        for n in 0..100 {
            let agent = labels(&format!("a{n}"), "m");
            rates.admit(&covering(&budgets, &agent), &agent).unwrap();
        }
        let full_again = Instant::now() + Duration::from_millis(5);
        while Instant::now() < full_again {
            std::thread::yield_now();
        }
        let mut paces = lock(&rates.paces);
        paces.tidy();
        assert!(paces.limiters.is_empty());
    }
}
