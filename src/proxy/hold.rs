//! Owns one call's place in the books from its reservation to its settlement: settled exactly once, on
//! every way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use jiff::Timestamp;

use super::budget_refusal::{BudgetRefusal, Why, tell_balance};
use super::error::ProxyError;
use super::observe::{budget_notes, notes};
use super::spending::{Drain, ReadOn, Spending};
use crate::budget::ledger::{Balance, Ending, HoldId, Ledger, NotReserved, Settled, Settlement};
use crate::budget::limit::{Enforcement, Labels};
use crate::budget::rate::RateGuard;
use crate::meter::bound;
use crate::meter::call::Call;
use crate::meter::charge::{Bill, charges};
use crate::meter::price::Price;
use crate::meter::price_table::PriceTable;
use crate::meter::reading::{Progress, Reading};
use crate::telemetry::audit_event::Event;
use crate::telemetry::redact::SafeText;
use crate::telemetry::span_notes::{Certainty, ModelNotes};
use crate::types::charge::{Charge, Need};
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::usage::Usage;

/// What a call is billed by.
pub enum Billing {
    /// By what its answer says.
    Metered(Box<Call>),
    /// By a price that a budget names for its endpoint.
    Fixed(Need),
}

/// What an open reservation is made of.
pub struct Opened {
    /// Where it is booked.
    pub ledger: Arc<dyn Ledger>,
    /// What all exchanges share.
    pub spending: Arc<Spending>,
    /// The try.
    pub id: HoldId,
    /// Who calls what.
    pub labels: Labels,
    /// Whose API, if it is one.
    pub api: Option<ModelApi>,
    /// How it is billed.
    pub billing: Billing,
    /// What is reserved.
    pub granted: Need,
    /// When it was admitted.
    pub at: Timestamp,
    /// The prices of that moment.
    pub prices: Arc<PriceTable>,
    /// What its model costs, or the one that stands in for it; nothing where only tokens are counted.
    pub price: Option<Arc<Price>>,
    /// Where its limits stood when it was admitted.
    pub balances: Vec<Balance>,
    /// Whether a span is made of the exchange.
    pub has_span: bool,
    /// Its place among requests at once.
    pub pace: Option<RateGuard>,
}

/// A call's open reservation. Dropping it settles it: as nothing if it was never sent, else as all that
/// was reserved.
pub struct Hold {
    opened: Opened,
    sent: Arc<AtomicBool>,
    credential: Option<Arc<str>>,
    /// How it ended if nobody says otherwise.
    ending: Ending,
    settled: bool,
}

/// What a call came to, for logs and metrics.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The model, as asked for.
    pub model: Arc<str>,
    /// Its tokens, of all models that worked on it.
    pub usage: Usage,
    /// What it costs.
    pub cost: NanoUsd,
    /// Whether some of it is estimated.
    pub estimated: bool,
    /// What its span says of it, if it has one; nothing of a call whose answer is not read.
    pub notes: Option<Box<ModelNotes>>,
}

impl Hold {
    /// Begins with what was reserved.
    pub fn new(opened: Opened) -> Self {
        Self {
            opened,
            sent: Arc::default(),
            credential: None,
            ending: Ending::AgentLeft,
            settled: false,
        }
    }

    /// Set once the first octet of the request is on its way.
    pub fn sent(&self) -> Arc<AtomicBool> {
        self.sent.clone()
    }

    /// The call, if its answer is to be read.
    pub fn call(&self) -> Option<&Call> {
        match &self.opened.billing {
            Billing::Metered(call) => Some(call),
            Billing::Fixed(_) => None,
        }
    }

    /// The prompt turned out to have these tokens: the next one of this agent is estimated by it.
    pub fn learn(&self, prompt: &Usage) {
        let opened = &self.opened;
        if let (Billing::Metered(call), Some(price)) = (&opened.billing, &opened.price) {
            let agent = opened.labels.agent.name();
            let learned = &opened.spending.learned;
            learned.note(agent, &call.model, price, call.body_bytes, prompt);
        }
    }

    /// What is reserved.
    pub fn granted(&self) -> Need {
        self.opened.granted
    }

    /// What it was reserved at.
    pub fn price(&self) -> Option<&Price> {
        self.opened.price.as_deref()
    }

    /// Its place among requests at once, for whoever has it for longer than the reservation is open.
    pub fn pace(&mut self) -> Option<RateGuard> {
        self.opened.pace.take()
    }

    /// A credential went into the request.
    pub fn injected(&mut self, credential: &Arc<str>) {
        self.credential.get_or_insert_with(|| credential.clone());
    }

    /// The origin broke off, or gave no answer in time.
    pub fn origin_broke(&mut self) {
        self.ending = Ending::OriginBroke;
    }

    /// Asks for more. The order is given at once; [`Hold::grew`] notes that it was followed.
    pub fn extend(
        &self,
        more: Need,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), NotReserved>> {
        let opened = &self.opened;
        opened.ledger.extend(opened.id.clone(), more, patience)
    }

    /// The reservation is larger by this.
    pub fn grew(&mut self, more: Need) {
        let granted = &mut self.opened.granted;
        granted.cost.0 = granted.cost.0.saturating_add(more.cost.0);
        granted.input = granted.input.saturating_add(more.input);
        granted.output = granted.output.saturating_add(more.output);
    }

    /// What came of the answer beyond what is reserved is charged, too: what was made for certain, or all that was
    /// read of one that was cut for want of budget.
    pub fn outran(&mut self, progress: &Progress, ending: Ending) {
        let granted = self.granted();
        let charged = match ending {
            _ if progress.at_least > granted.output => progress.produced,
            Ending::Cut => progress.read,
            _ => 0,
        };
        if let Some(call) = self.call()
            && charged > granted.output
        {
            let more = charged.saturating_sub(granted.output);
            self.grew(bound::beyond(self.price(), call, &granted, more));
        }
    }

    /// Keeps no more than this.
    pub fn shrink(&mut self, need: Need) {
        let granted = &mut self.opened.granted;
        granted.cost = granted.cost.min(need.cost);
        granted.input = granted.input.min(need.input);
        granted.output = granted.output.min(need.output);
        self.opened.ledger.shrink(self.opened.id.clone(), *granted);
    }

    /// The origin refused the first try, which cost nothing; the reservation is the second one's.
    pub async fn retry(&mut self) -> Result<(), ProxyError> {
        // The order is given here, and followed even if the agent leaves while it is: from now on it is the
        // second try that is open, and dropping this must settle that one.
        let retrying = self.opened.ledger.retry(self.opened.id.clone());
        self.opened.id.attempt += 1;
        self.sent.store(false, Ordering::Relaxed);
        let retried = retrying.await;
        retried.map_err(|error| {
            self.opened.id.attempt -= 1;
            ProxyError::Budget(Box::new(self.cut(error.into())))
        })
    }

    /// The origin answered with an error: nothing is charged.
    pub fn refused(self) -> Settling {
        self.settle(Bill::default(), Ending::Refused)
    }

    /// The answer was read this far, and ended so.
    pub fn read(self, reading: Reading, ending: Ending) -> (Settling, Cost) {
        let bill = self.bill(reading);
        let cost = self.cost(&bill);
        (self.settle(bill, ending), cost)
    }

    fn bill(&self, reading: Reading) -> Bill {
        let opened = &self.opened;
        match &opened.billing {
            Billing::Metered(call) => charges(
                &opened.prices,
                opened.price.as_deref(),
                call,
                reading,
                &opened.granted,
                opened.at,
            ),
            Billing::Fixed(need) => Bill {
                charges: vec![Charge {
                    model: opened.labels.model.clone(),
                    usage: fixed_usage(need),
                    fees: Vec::new(),
                    cost: need.cost,
                }],
                estimated: false,
            },
        }
    }

    fn cost(&self, bill: &Bill) -> Cost {
        let nothing = Usage::default();
        let sum = bill.charges.iter();
        let usage = sum.clone().fold(nothing, |all, one| all.plus(&one.usage));
        let cost = NanoUsd(sum.fold(0, |all: u64, one| all.saturating_add(one.cost.0)));
        let said = |call: &Call| {
            Box::new(ModelNotes {
                answered: bill.charges.first().map(|one| SafeText::of(&one.model)),
                usage: Some(usage),
                cost: Some(cost),
                certainty: match bill.estimated {
                    true => Certainty::Estimated,
                    false => Certainty::Told,
                },
                budget: tightest(&self.opened.balances).map(budget_notes),
                ..notes(call.api, call.operation, &call.model)
            })
        };
        Cost {
            model: self.opened.labels.model.clone(),
            usage,
            cost,
            estimated: bill.estimated,
            notes: self.call().filter(|_| self.opened.has_span).map(said),
        }
    }

    fn settle(mut self, bill: Bill, ending: Ending) -> Settling {
        self.book(bill, ending)
    }

    fn book(&mut self, bill: Bill, ending: Ending) -> Settling {
        let Bill { charges, estimated } = bill;
        self.settled = true;
        let opened = &self.opened;
        for charge in &charges {
            let metrics = opened.spending.metrics.spending();
            // A name that only a request or an answer knows would make a label without bound.
            let is_known = opened
                .api
                .is_some_and(|api| opened.prices.find(api, &charge.model, opened.at).is_some());
            let model = if is_known { &*charge.model } else { "other" };
            metrics.spent(opened.labels.agent.name(), model, charge);
        }
        let settling = opened.ledger.settle(Settlement {
            id: opened.id.clone(),
            charges,
            estimated,
            ending,
            prices: opened.prices.sha256(),
            credential: self.credential.clone(),
        });
        let spending = opened.spending.clone();
        Box::pin(async move {
            let settled = settling.await;
            match &settled {
                Ok(settled) => tell(settled, &spending),
                // The ledger keeps it and tries again; nothing is lost while the process lives.
                Err(error) => tracing::error!(%error, "a settlement is not written yet"),
            }
        })
    }

    /// Tells the agent where the tightest of its budgets stands.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(balance) = tightest(&self.opened.balances) {
            tell_balance(headers, balance);
        }
    }

    /// The refusal that an answer is cut with.
    pub fn cut(&self, cause: NotReserved) -> BudgetRefusal {
        let own = |call: &Call| call.operation.words(call.api);
        BudgetRefusal {
            api: self.call().map(own).or(self.opened.api),
            agent: self.opened.labels.agent.clone(),
            why: why(cause),
        }
    }

    /// The exchange's id.
    pub fn id(&self) -> &str {
        &self.opened.id.request
    }

    /// Room to read the answer on in once its agent has left.
    pub fn drain(&self, far: ReadOn) -> Option<Drain> {
        let agent = &self.opened.labels.agent;
        self.opened.spending.drain(agent, far)
    }
}

/// The way a settlement takes; it is followed whether or not anybody waits.
pub type Settling = BoxFuture<'static, ()>;

impl Drop for Hold {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let settling = match self.sent.load(Ordering::Relaxed) {
            // Nothing tells what the origin did with it: it is charged as reserved, not as nothing.
            true => {
                let mut bill = self.bill(Reading::Unknown { produced: 0 });
                bill.estimated = true;
                self.book(bill, self.ending)
            }
            false => self.book(Bill::default(), Ending::Refused),
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(settling);
        }
    }
}

fn fixed_usage(need: &Need) -> Usage {
    use crate::types::usage::TokenClass;
    let mut usage = Usage::default();
    usage[TokenClass::Input] = need.input;
    usage[TokenClass::Output] = need.output;
    usage
}

/// Why a reservation was not made, as it is told.
pub fn why(cause: NotReserved) -> Why {
    match cause {
        NotReserved::Exhausted(shortage) => Why::Exhausted(shortage),
        NotReserved::Contended(shortage) => Why::Contended(shortage),
        NotReserved::Unavailable(error) => {
            tracing::error!(%error, "the spending ledger cannot be used");
            Why::Unavailable
        }
    }
}

/// The hard limit with the smallest part left.
fn tightest(balances: &[Balance]) -> Option<&Balance> {
    let hard = balances
        .iter()
        .filter(|balance| balance.limit.enforcement == Enforcement::Hard);
    hard.min_by(|a, b| {
        let a_part = u128::from(a.remaining()) * u128::from(b.max.max(1));
        let b_part = u128::from(b.remaining()) * u128::from(a.max.max(1));
        a_part.cmp(&b_part)
    })
    .or_else(|| balances.first())
}

/// Says once what thresholds were crossed, and counts what was not reserved for.
fn tell(settled: &Settled, spending: &Spending) {
    let metrics = spending.metrics.spending();
    for (balance, percent) in &settled.alerts {
        let unit = &balance.limit.unit;
        tracing::warn!(
            budget = %balance.limit.budget,
            scope = %balance.scope,
            percent,
            spent = %unit.show(balance.settled),
            limit = %unit.show(balance.max),
            "a budget has reached a threshold"
        );
        metrics.alert(&balance.limit.budget, *percent);
        spending.audit.note(Event::BudgetAlert {
            budget: balance.limit.budget.to_string(),
            scope: balance.scope.to_string(),
            percent: *percent,
            spent: unit.show(balance.settled).to_string(),
            limit: unit.show(balance.max).to_string(),
        });
    }
    metrics.underreserved(settled.underreserved);
}
