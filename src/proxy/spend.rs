//! Owns what stands between a permit and the origin where a budget counts the request: what it may cost
//! is read off it, and reserved, before anything is sent.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use http::request::Parts;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::account::Accounting;
use super::admission::{Admission, Counted};
use super::budget_refusal::{BudgetRefusal, Why};
use super::error::ProxyError;
use super::headers::UpgradeWish;
use super::hold::{Billing, Hold, Opened, why};
use super::lowering::{LOWERINGS, Wanted, in_tranches, needed};
use super::observe::notes;
use super::passage::Asked;
use super::snapshot::{Snapshot, SnapshotStore};
use super::spending::Spending;
use super::tranche::{TOKENS, Tranche};
use super::upload::Upload;
use crate::budget::covering::{Covering, Unpriced};
use crate::budget::ledger::{Ask, HoldId, NotReserved, Patience};
use crate::budget::limit::Labels;
use crate::budget::rate::{RateKind, RateRefusal};
use crate::budget::terms::FixedPrice;
use crate::config::budget::OnExhausted;
use crate::meter::bound;
use crate::meter::call::Call;
use crate::meter::endpoint::{Endpoint, Operation, classify_request};
use crate::meter::names::names;
use crate::meter::price::Price;
use crate::meter::scan;
use crate::meter::unpack;
use crate::meter::usage_option::asking_for_usage;
use crate::policy::decision::Permit;
use crate::types::charge::Need;
use crate::types::host::Host;
use crate::types::model_api::ModelApi;

/// The longest body of a call that is priced: it is read whole before anything is sent. Anthropic takes
/// 32 MB (<https://docs.anthropic.com/en/api/overview>), and no provider more.
const LONGEST_BODY: u64 = 32 << 20;
/// The same once it is unpacked.
const LONGEST_UNPACKED: u64 = 64 << 20;

/// What a call may need.
struct Estimate {
    /// By its size, without experience.
    sure: Need,
    /// By what earlier calls of this agent were; an agent can teach what it likes, so only one call at a
    /// time may run on it.
    bold: Option<Need>,
}

impl Estimate {
    fn exactly(need: Need) -> Self {
        Self {
            sure: need,
            bold: None,
        }
    }
}

/// Who asks for what, as far as budgets care.
pub struct Asking<'a> {
    /// What all exchanges share.
    pub spending: &'a Arc<Spending>,
    /// The view that the request is judged by.
    pub snapshot: &'a Snapshot,
    /// Tells whether that is still the one in force.
    pub snapshots: &'a SnapshotStore,
    /// Who asks for which origin.
    pub asked: &'a Asked,
    /// What policy allows.
    pub permit: &'a Permit,
    /// Whether it asks to leave HTTP.
    pub wish: UpgradeWish,
}

impl Asking<'_> {
    /// Reserves what the request may cost, from every budget that counts it.
    pub async fn admit(
        &self,
        head: &mut Parts,
        upload: &mut Upload<'_>,
        accounting: &mut Accounting,
    ) -> Result<Admission, ProxyError> {
        let budgets = &self.snapshot.budgets;
        let (agent, host) = (&self.asked.agent, &self.asked.authority.host);
        let api = self.permit.api();
        if !budgets.concerns(agent, host, api) {
            return Ok(Admission::Uncounted);
        }
        let endpoint = match (api, self.wish) {
            (None, _) => None,
            (Some(_), UpgradeWish::WebSocket) => Some(Endpoint::Unmetered),
            (Some(api), _) => Some(classify_request(
                api,
                &head.method,
                head.uri.path(),
                head.uri.query(),
                &head.headers,
            )),
        };
        match (api, endpoint) {
            (_, Some(Endpoint::Free)) => Ok(Admission::Uncounted),
            (Some(api), Some(Endpoint::Metered(operation))) => {
                let metered = self.metered(api, operation, head, upload, accounting);
                metered.await.map_err(|mut error| {
                    if let ProxyError::Budget(refusal) = &mut error {
                        refusal.api = Some(operation.words(api));
                    }
                    error
                })
            }
            _ => self.unread(head, accounting).await,
        }
    }

    /// A request whose answer is not read: it counts as one, and costs what a budget says it does.
    async fn unread(&self, head: &Parts, accounting: &Accounting) -> Result<Admission, ProxyError> {
        let covering = self.covering("", &[]);
        if covering.is_empty() {
            return Ok(Admission::Uncounted);
        }
        let is_socket = self.wish == UpgradeWish::WebSocket;
        let named = match is_socket && covering.measures() {
            // What goes on in a WebSocket is no single request with a price.
            true => covering
                .budgets
                .iter()
                .find(|b| b.is_hard() && b.measures())
                .map_or(Ok(FixedPrice::default()), Err),
            false => covering.fixed_price(&head.method, head.uri.path()),
        };
        let price = named.map_err(|budget| {
            let budget = budget.name.to_string();
            self.refuse(match is_socket {
                true => Why::WebSocket { budget },
                false => Why::Unmetered { budget },
            })
        })?;
        let need = Need {
            cost: price.usd,
            input: price.tokens,
            output: 0,
        };
        let billing = Billing::Fixed(need);
        let (hold, _) = self
            .reserve(
                &covering,
                "",
                billing,
                Estimate::exactly(need),
                None,
                accounting,
            )
            .await?;
        Ok(Admission::Counted(Box::new(Counted {
            hold,
            tranche: None,
            hides_usage: false,
            lowered: None,
        })))
    }

    async fn metered(
        &self,
        api: ModelApi,
        operation: Operation,
        head: &mut Parts,
        upload: &mut Upload<'_>,
        accounting: &mut Accounting,
    ) -> Result<Admission, ProxyError> {
        let body = upload.read_ahead(head, LONGEST_BODY, accounting).await?;
        let plain = unpack::unpacked(&head.headers, &body, LONGEST_UNPACKED).map_err(|error| {
            self.refuse(Why::Packed {
                reason: error.to_string(),
            })
        })?;
        let (path, query) = (head.uri.path(), head.uri.query());
        // Few octets may unpack to many, and they wait with the call for its turn.
        let plain = match plain.as_ptr() == body.as_ptr() {
            true => plain,
            false => upload.hold(plain)?,
        };
        let mut call =
            scan::read(api, operation, path, query, &head.headers, &plain).map_err(|error| {
                self.refuse(Why::Unreadable {
                    reason: error.to_string(),
                })
            })?;
        if call.terms.geo.is_none() {
            call.terms.geo = region(&self.asked.authority.host);
        }
        accounting.model(|| notes(api, operation, &call.model));
        let (label, names) = names(&call, &self.snapshot.prices);
        let covering = self.covering(&label, &names);
        if covering.is_empty() {
            return Ok(Admission::Uncounted);
        }
        let at = Timestamp::now();
        let price = self.price(&covering, &call, at)?;
        if price
            .as_ref()
            .is_some_and(|price| price.thinks_by_default())
        {
            call = call.of_thinkers();
        }
        let mut asking = Wanted {
            covering: &covering,
            label: &label,
            price,
            call,
            body: plain,
            lowered: None,
        };
        head.headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut tries = 0;
        loop {
            // What is needed again if it is to be asked for less; most budgets do not want that.
            let spare = (covering.lowers() && tries < LOWERINGS).then(|| asking.clone());
            let refused = match self.counted(asking, head, upload, accounting).await {
                Ok(counted) => return Ok(Admission::Counted(Box::new(counted))),
                Err(refused) => refused,
            };
            match spare.and_then(|spare| spare.lowered(&refused)) {
                Some(less) => asking = less,
                None => return Err(refused),
            }
            tries += 1;
        }
    }

    /// Reserves what a call may need.
    async fn counted(
        &self,
        asking: Wanted<'_>,
        head: &mut Parts,
        upload: &mut Upload<'_>,
        accounting: &Accounting,
    ) -> Result<Counted, ProxyError> {
        let Wanted {
            covering,
            label,
            price,
            call,
            body,
            lowered,
        } = asking;
        let priced = price.as_deref();
        let most = bound::strict(priced, &call);
        let in_tranches = in_tranches(covering, &call);
        let learned = self
            .spending
            .learned
            .of(self.asked.agent.name(), &call.model)
            .filter(|_| in_tranches);
        let estimate = Estimate {
            sure: needed(covering, priced, &call),
            bold: learned.map(|learned| bound::tranche(priced, &call, Some(learned), TOKENS)),
        };
        // Usage of a stream is told only to who asks; the agent does not get to see what it did not ask for.
        let hides_usage =
            call.operation == Operation::ChatCompletions && call.stream && !call.asks_for_usage;
        if hides_usage || lowered.is_some() {
            let edited = match hides_usage {
                true => asking_for_usage(&body).map_err(|error| {
                    self.refuse(Why::Unreadable {
                        reason: error.to_string(),
                    })
                })?,
                false => body,
            };
            head.headers.remove(CONTENT_ENCODING);
            let edited = upload.hold(edited)?;
            upload.replace(head, edited);
        }
        let billing = Billing::Metered(Box::new(call));
        let (hold, trust) = self
            .reserve(covering, label, billing, estimate, price, accounting)
            .await?;
        let output = hold.granted().output;
        let tranche = Tranche::new(output, most.output, on_exhausted(covering), trust);
        Ok(Counted {
            hold,
            tranche: Some(tranche),
            hides_usage,
            lowered,
        })
    }

    fn labels(&self, model: &str) -> Labels {
        Labels {
            agent: self.asked.agent.clone(),
            execution: self.asked.execution.clone(),
            host: self.asked.authority.host.to_string().into(),
            model: model.into(),
        }
    }

    fn covering(&self, model: &str, others: &[Arc<str>]) -> Covering {
        let host = &self.asked.authority.host;
        let labels = self.labels(model);
        let budgets = &self.snapshot.budgets;
        budgets.covering_any(&labels, others, host, self.permit.api())
    }

    /// What the call's models cost, or what stands in for them; nothing where no budget needs a price.
    fn price(
        &self,
        covering: &Covering,
        call: &Call,
        at: Timestamp,
    ) -> Result<Option<Arc<Price>>, ProxyError> {
        let prices = &self.snapshot.prices;
        let unknown = match prices.for_call(call, at) {
            Ok(price) => return Ok(Some(price)),
            Err(unknown) => unknown,
        };
        let refuse = |budget: &str| {
            self.refuse(Why::UnknownModel {
                budget: budget.to_owned(),
                model: unknown.0.chars().take(100).collect(),
            })
        };
        match covering.unpriced() {
            Unpriced::Free => Ok(None),
            Unpriced::Refused(budget) => Err(refuse(&budget)),
            Unpriced::PricedAs(models) => {
                // All of them may be meant, and so may the call's models that do have a price: a name that is
                // made up beside a dear model does not make it cheap. What `others` are for is the dearest.
                let asked = std::iter::once(&call.model).chain(&call.others);
                let priced = asked.filter(|model| prices.find(call.api, model, at).is_some());
                let stand_in = Call {
                    model: models[0].clone(),
                    others: models[1..].iter().chain(priced).cloned().collect(),
                    ..call.clone()
                };
                let price = prices.for_call(&stand_in, at);
                let counting = covering.budgets.iter().find(|b| b.counts_money());
                let budget = counting.map_or("", |budget| &*budget.name);
                price.map(Some).map_err(|_| refuse(budget))
            }
        }
    }

    async fn reserve(
        &self,
        covering: &Covering,
        model: &str,
        billing: Billing,
        estimate: Estimate,
        price: Option<Arc<Price>>,
        accounting: &Accounting,
    ) -> Result<(Hold, Option<OwnedSemaphorePermit>), ProxyError> {
        let labels = self.labels(model);
        let pace = self
            .spending
            .rates
            .admit(covering, &labels)
            .map_err(|refusal| self.refuse(pace_refusal(&refusal)))?;
        let Some(ledger) = self.spending.ledger() else {
            return Err(self.refuse(Why::Unavailable));
        };
        let id = HoldId {
            request: accounting.id().into(),
            attempt: 1,
        };
        let at = Timestamp::now();
        let ask = |need: Need, patience: Patience| Ask {
            id: id.clone(),
            at,
            labels: labels.clone(),
            limits: covering.limits.clone(),
            need,
            patience,
            unwritten: covering.without_store(),
        };
        let Estimate { sure, bold } = estimate;
        let trust = self.spending.trust(&labels.agent);
        let own = bold.and_then(|bold| Some((bold, trust.clone().try_acquire_owned().ok()?)));
        let (need, patience, own) = match (own, bold) {
            (Some((bold, own)), _) => (bold, Patience::Queue, Some(own)),
            (None, Some(_)) => (sure, Patience::UpTo(Duration::ZERO), None),
            (None, None) => (sure, Patience::Queue, None),
        };
        let mut granted = (need, own);
        let mut reserved = ledger.reserve(ask(need, patience)).await;
        if let (
            Err(NotReserved::Exhausted(shortage) | NotReserved::Contended(shortage)),
            Some(bold),
        ) = (&reserved, bold)
            && granted.1.is_none()
        {
            // It may fit by its estimate, once another's has been confirmed.
            let queue = covering.limits.iter().map(|limit| limit.queue).min();
            let turn = tokio::time::timeout(queue.unwrap_or_default(), trust.acquire_owned()).await;
            reserved = match turn {
                Ok(Ok(own)) => {
                    granted = (bold, Some(own));
                    ledger.reserve(ask(bold, Patience::Queue)).await
                }
                _ => Err(NotReserved::Contended(shortage.clone())),
            };
        }
        let balances = reserved.map_err(|cause| self.refuse(why(cause)))?;
        let (need, trust) = granted;
        let hold = Hold::new(Opened {
            ledger: ledger.clone(),
            spending: self.spending.clone(),
            id,
            labels,
            api: self.permit.api(),
            billing,
            granted: need,
            at,
            prices: self.snapshot.prices.clone(),
            price,
            balances,
            has_span: accounting.has_span(),
            pace: Some(pace),
        });
        // It may have waited, and what counts it may be another budget by now. Dropped, it gives all back.
        if self.snapshots.load().counted_since != self.snapshot.counted_since {
            return Err(self.refuse(Why::Changed));
        }
        Ok((hold, trust))
    }

    fn refuse(&self, why: Why) -> ProxyError {
        let refusal = BudgetRefusal {
            api: self.permit.api(),
            agent: self.asked.agent.clone(),
            why,
        };
        ProxyError::Budget(Box::new(refusal))
    }
}

fn pace_refusal(refusal: &RateRefusal) -> Why {
    let budget = refusal.budget.to_string();
    match refusal.kind {
        RateKind::Rate => Why::Rate {
            budget,
            after: refusal.retry_after,
        },
        RateKind::Concurrency => Why::AtOnce { budget },
    }
}

/// One hard budget that wants streams cut is enough.
fn on_exhausted(covering: &Covering) -> OnExhausted {
    let mut hard = covering
        .budgets
        .iter()
        .filter(|budget| budget.is_hard() && budget.measures());
    match hard.any(|budget| budget.on_exhausted == OnExhausted::Cut) {
        true => OnExhausted::Cut,
        false => OnExhausted::Finish,
    }
}

/// The region that a host of OpenAI's stands for; serving within one costs more.
/// <https://platform.openai.com/docs/guides/your-data#data-residency-controls>
fn region(host: &Host) -> Option<Box<str>> {
    let Host::Name(name) = host else {
        return None;
    };
    let name: &str = name.as_ref();
    let region = name.strip_suffix(".api.openai.com")?;
    Some(region.into())
}
