//! Owns the ledger of what the stand-in would bill, right from the provider's own point of view.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::prices::{UNREADABLE, cost, cost_of};

/// What one model used for one call. The classes are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    pub model: String,
    pub input: u64,
    pub write_5m: u64,
    pub write_1h: u64,
    pub read: u64,
    pub output: u64,
    pub searches: u64,
}

/// One call on the bill.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bill {
    /// What the test called it: the header `x-call`.
    pub call: String,
    pub path: String,
    pub used: Vec<Used>,
    /// Nano-dollars.
    pub cost: u64,
    /// The answer was made to its end.
    pub whole: bool,
}

/// All that was billed, and what is still being made.
#[derive(Debug, Default)]
pub struct Truth {
    bills: Mutex<Vec<Bill>>,
    open: watch::Sender<usize>,
}

impl Truth {
    /// Begins a call. It is billed when the tab is dropped, by what was made until then.
    pub fn open(self: &Arc<Self>, call: &str, path: &str, used: Vec<Used>) -> Tab {
        self.open.send_modify(|open| *open += 1);
        Tab {
            truth: self.clone(),
            bill: Some(Bill {
                call: call.to_owned(),
                path: path.to_owned(),
                used,
                cost: 0,
                whole: false,
            }),
            produced: 0,
        }
    }

    /// Bills a call of an endpoint that nobody can read.
    pub fn unreadable(&self, call: &str, path: &str) {
        self.bills.lock().unwrap().push(Bill {
            call: call.to_owned(),
            path: path.to_owned(),
            used: Vec::new(),
            cost: UNREADABLE,
            whole: true,
        });
    }

    pub fn bills(&self) -> Vec<Bill> {
        self.bills.lock().unwrap().clone()
    }

    /// Nano-dollars.
    pub fn total(&self) -> u64 {
        self.bills().iter().map(|bill| bill.cost).sum()
    }

    /// The bill of one call.
    #[track_caller]
    pub fn bill(&self, call: &str) -> Bill {
        let mut found = self.bills();
        found.retain(|bill| bill.call == call);
        assert_eq!(found.len(), 1, "bills of {call}: {:#?}", self.bills());
        found.remove(0)
    }

    /// What each model was paid, and how often it answered.
    pub fn by_model(&self) -> BTreeMap<String, (usize, u64)> {
        let mut sums: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for used in self.bills().iter().flat_map(|bill| &bill.used) {
            let sum = sums.entry(used.model.clone()).or_default();
            sum.0 += 1;
            sum.1 += cost(used);
        }
        sums
    }

    /// Answers that are being made now.
    pub fn under_way(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until so many calls are billed.
    pub async fn billed(&self, count: usize) {
        let mut open = self.open.subscribe();
        let enough = open.wait_for(|_| self.bills.lock().unwrap().len() >= count);
        let enough = tokio::time::timeout(Duration::from_secs(60), enough).await;
        assert!(
            enough.is_ok(),
            "{} of {count} are billed",
            self.bills().len()
        );
    }

    /// Waits until nothing is being made.
    pub async fn idle(&self) {
        let mut open = self.open.subscribe();
        let idle = open.wait_for(|open| *open == 0);
        let idle = tokio::time::timeout(Duration::from_secs(60), idle).await;
        assert!(idle.is_ok(), "{} answers do not end", self.under_way());
    }
}

/// One call under way.
#[derive(Debug)]
pub struct Tab {
    truth: Arc<Truth>,
    bill: Option<Bill>,
    produced: u64,
}

impl Tab {
    /// So many tokens of the answer have been made.
    pub fn produced(&mut self, tokens: u64) {
        self.produced = self.produced.max(tokens);
    }

    /// The answer was made to its end.
    pub fn whole(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.whole = true;
        }
    }

    /// Nothing is billed: the call was refused.
    pub fn void(mut self) {
        self.bill = None;
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        if let Some(mut bill) = self.bill.take() {
            let mut left = self.produced;
            for used in bill.used.iter_mut().filter(|_| !bill.whole) {
                used.output = used.output.min(left);
                left -= used.output;
            }
            bill.cost = cost_of(&bill.used);
            self.truth.bills.lock().unwrap().push(bill);
        }
        self.truth.open.send_modify(|open| *open -= 1);
    }
}
