//! Owns a provider of models with a proxy before it that has budgets, and what is asked of both.

use serde_json::Value;

use super::books::{Books, assert_equal};
use super::provider::server::Provider;
use super::proxy::{Proxy, ProxyBuilder};
use super::spender::Spender;
use super::wire::Answer;

/// Both sides of the books.
pub struct Budgeted {
    pub provider: Provider,
    pub proxy: Proxy,
}

/// A budget of one limit for each agent, with nothing else said.
pub fn cap(dollars: &str) -> String {
    format!("limits: [{{unit: usd, max: \"{dollars}\", window: total}}]\n")
}

/// Adds lines to a budget.
pub fn with(budget: &str, lines: &str) -> String {
    format!("{budget}{}\n", lines.trim_end())
}

impl Provider {
    /// A proxy with these budgets, by name.
    pub fn budgets(&self, budgets: &[(&str, &str)]) -> ProxyBuilder {
        let builder = self.proxy();
        budgets.iter().fold(builder, |builder, (name, spec)| {
            builder.document("EgressBudget", name, spec)
        })
    }
}

impl Budgeted {
    /// A budget named `cap`.
    pub async fn new(spec: &str) -> Self {
        Self::before(Provider::start().await, spec).await
    }

    pub async fn before(provider: Provider, spec: &str) -> Self {
        let proxy = provider.budgets(&[("cap", spec)]).start().await;
        Self { provider, proxy }
    }

    pub async fn of(budgets: &[(&str, &str)]) -> Self {
        let provider = Provider::start().await;
        let proxy = provider.budgets(budgets).start().await;
        Self { provider, proxy }
    }

    pub fn spender(&self) -> Spender {
        self.proxy.spender_by_base_url()
    }

    /// The ledger once it has a row for each model that was billed, and nothing is under way.
    pub async fn books(&self) -> Books {
        self.provider.truth.idle().await;
        let bills = self.provider.truth.bills();
        let billed = bills.iter().map(|bill| bill.used.len().max(1)).sum();
        self.proxy.books_of(billed).await
    }

    /// Every call is in the ledger just as it was billed, and nothing else is.
    pub async fn agree(&self) -> Books {
        let books = self.books().await;
        assert_equal(&self.provider.truth.bills(), &books.served());
        assert_eq!(books.total(), self.provider.truth.total());
        books
    }

    /// No call was billed that the ledger has for less.
    pub async fn never_under(&self) -> Books {
        let books = self.books().await;
        let (booked, billed) = (books.total(), self.provider.truth.total());
        assert!(
            booked >= billed,
            "{booked} booked, {billed} billed: {books:#?}"
        );
        books
    }

    /// Requests that reached the provider.
    pub fn reached(&self) -> usize {
        self.provider.origin.requests().len()
    }
}

/// The error of an answer that is one, in any of the providers' shapes.
#[track_caller]
pub fn error_of(answer: &Answer) -> Value {
    let body: Value = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|e| panic!("{e}: {} {}", answer.status, answer.text()));
    body["error"].clone()
}

/// Whether the budget is used up, as opposed to held by others, by any provider's words.
pub fn is_exhausted(answer: &Answer) -> bool {
    answer.status == 402
        || (answer.status == 429 && answer.header("x-should-retry") == Some("false"))
}
