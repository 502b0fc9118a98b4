//! Owns the step from `EgressBudget` documents to a set that answers which limits a call falls under.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::Method;

use super::limit::{
    Enforcement, GroupBy, Limit, Pattern, Period, Selector, Unit, Weights, WindowKind,
};
use super::set::BudgetSet;
use super::terms::{Budget, FixedPrice, OnStoreUnavailable, Rate, UnknownModel, Unmetered};
use crate::config::budget::{
    EgressBudgetSpec, EnforcementSpec, GroupBySpec, LimitSpec, OnStoreUnavailableSpec, PeriodSpec,
    RateSpec, UnitSpec, UnknownModelSpec, UnmeteredSpec, WindowSpec,
};
use crate::config::bundle::{Bundle, Document};
use crate::config::error::{ConfigError, Place};
use crate::config::located::Located;
use crate::policy::path::PathPattern;
use crate::types::host::HostPattern;
use crate::types::money::NanoUsd;

/// What is told of a limit that names none.
const ALERTS: [u8; 4] = [50, 80, 95, 100];
const QUEUE: Duration = Duration::from_secs(20);
const WAITERS: u32 = 64;
const BURST: u32 = 10;

type BudgetDocument = Document<EgressBudgetSpec>;

impl BudgetSet {
    /// Compiles all budgets, or says everything that is wrong with them.
    pub fn compile(bundle: &Bundle) -> Result<Self, Vec<ConfigError>> {
        let mut compiler = Compiler::default();
        let budgets: Vec<_> = bundle
            .budgets
            .iter()
            .filter_map(|document| compiler.budget(document))
            .map(Arc::new)
            .collect();
        match compiler.errors.is_empty() {
            true => Ok(Self::new(budgets)),
            false => Err(compiler.errors),
        }
    }
}

#[derive(Default)]
struct Compiler {
    errors: Vec<ConfigError>,
    /// Where the limit of each id stands.
    ids: HashMap<Arc<str>, Place>,
}

impl Compiler {
    fn budget(&mut self, document: &BudgetDocument) -> Option<Budget> {
        let spec = &document.spec;
        let before = self.errors.len();
        let name: Arc<str> = match &document.namespace {
            Some(namespace) => format!("{namespace}/{}", document.name).into(),
            None => document.name.as_str().into(),
        };
        let key = document
            .uid
            .as_deref()
            .map_or_else(|| name.clone(), Arc::from);
        let mut budget = Budget {
            selector: self.selector(document),
            group_by: groups(spec),
            enforcement: match spec.enforcement {
                EnforcementSpec::Hard => Enforcement::Hard,
                EnforcementSpec::Soft => Enforcement::Soft,
            },
            limits: Box::default(),
            streams: spec.streams.mode,
            on_exhausted: spec.streams.on_exhausted,
            lower_to: spec.lower_max_tokens.map(|lower| lower.min),
            unknown_model: match &spec.unknown_model {
                UnknownModelSpec::Deny => UnknownModel::Deny,
                UnknownModelSpec::PriceAs(model) => UnknownModel::PriceAs(model.as_str().into()),
            },
            on_store_unavailable: match &spec.on_store_unavailable {
                OnStoreUnavailableSpec::Deny => OnStoreUnavailable::Deny,
                // What is no amount was refused when it was read.
                OnStoreUnavailableSpec::AllowUpTo(most) => {
                    OnStoreUnavailable::AllowUpTo(NanoUsd(most.value.nano_usd().unwrap_or(0)))
                }
            },
            unmetered: Box::default(),
            rate: spec.rate.as_ref().and_then(|rate| pace(rate)),
            concurrency: spec
                .concurrency
                .as_ref()
                .and_then(|most| NonZeroU32::new(most.value)),
            name,
            key,
        };
        let unmetered = spec
            .unmetered
            .iter()
            .map(|entry| self.unmetered(document, entry));
        budget.unmetered = unmetered.collect();
        let limits = spec.limits.iter();
        let mut limits: Vec<_> = limits
            .filter_map(|limit| self.limit(document, &budget, limit))
            .collect();
        limits.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        budget.limits = limits.into();
        (self.errors.len() == before).then_some(budget)
    }

    fn selector(&mut self, document: &BudgetDocument) -> Selector {
        let written = &document.spec.selector;
        let mut hosts = Vec::new();
        for host in &written.hosts {
            match HostPattern::parse(host) {
                Ok(pattern) => hosts.push(pattern),
                Err(error) => self.errors.push(
                    ConfigError::new("TG0502", error.to_string())
                        .at(document.place(host, host.len()))
                        .label("not a host pattern")
                        .help("write `api.example.com`, `*.example.com` or an IP address"),
                ),
            }
        }
        hosts.sort();
        hosts.dedup();
        Selector {
            agents: patterns(&written.agents),
            models: patterns(&written.models),
            hosts: hosts.into(),
        }
    }

    fn unmetered(
        &mut self,
        document: &BudgetDocument,
        entry: &Located<UnmeteredSpec>,
    ) -> Unmetered {
        let mut paths = Vec::new();
        for path in &entry.paths {
            match PathPattern::parse(path) {
                Ok(pattern) => paths.push(pattern),
                Err(error) => self.errors.push(
                    ConfigError::new("TG0503", error.to_string())
                        .at(document.place(path, path.len()))
                        .label("not a path pattern")
                        .help("write `/v1/files`, `/v1/*/files` or `/v1/batches/**`"),
                ),
            }
        }
        let methods = entry.methods.iter();
        let nano = entry.usd.as_ref().and_then(|usd| usd.value.nano_usd());
        Unmetered {
            methods: methods
                .filter_map(|method| Method::from_bytes(method.as_bytes()).ok())
                .collect(),
            paths: paths.into(),
            price: FixedPrice {
                usd: NanoUsd(nano.unwrap_or(0)),
                tokens: entry.tokens.unwrap_or(0),
            },
        }
    }

    fn limit(
        &mut self,
        document: &BudgetDocument,
        budget: &Budget,
        written: &Located<LimitSpec>,
    ) -> Option<Arc<Limit>> {
        let spec = &written.value;
        // What has none of these was refused when it was read.
        let (max, window) = (spec.amount()?, window(spec)?);
        let mut group_by = budget.group_by.to_vec();
        if window == WindowKind::Execution && !group_by.contains(&GroupBy::Execution) {
            group_by.push(GroupBy::Execution);
            group_by.sort();
        }
        let mut limit = Limit {
            budget: budget.name.clone(),
            id: Arc::default(),
            selector: budget.selector.clone(),
            unit: unit(spec),
            max,
            window,
            group_by: group_by.into(),
            enforcement: budget.enforcement,
            carry_debt: spec.carry_debt,
            alerts: match &document.spec.alerts {
                Some(alerts) => alerts.iter().map(|alert| alert.value).collect(),
                None => ALERTS.into(),
            },
            exhausted_status: document.spec.exhausted_status.as_ref().map(|it| it.value),
            queue: document.spec.contention.queue.map_or(QUEUE, |span| span.0),
            waiters: document.spec.contention.waiters.unwrap_or(WAITERS),
        };
        limit.id = id(&budget.key, &limit).into();
        let place = document.place(written, 1);
        if let Some(first) = self.ids.get(&limit.id) {
            let what = format!("two limits count the same: {}", window_name(&limit.window));
            let error = ConfigError::new("TG0710", what)
                .at(place)
                .label(format!(
                    "the first is at {}:{}",
                    first.file.name, first.line
                ))
                .help("remove one, or give each budget a `metadata.uid` of its own");
            self.errors.push(error);
            return None;
        }
        self.ids.insert(limit.id.clone(), place);
        Some(Arc::new(limit))
    }
}

fn patterns(written: &[Located<String>]) -> Box<[Pattern]> {
    let mut texts: Vec<&str> = written.iter().map(|text| text.value.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    let pattern = |text: &str| match text.strip_suffix('*') {
        Some(prefix) => Pattern::Prefix(prefix.into()),
        None => Pattern::Exact(text.into()),
    };
    texts.into_iter().map(pattern).collect()
}

fn groups(spec: &EgressBudgetSpec) -> Box<[GroupBy]> {
    let Some(written) = &spec.selector.group_by else {
        return [GroupBy::Agent].into();
    };
    let group = |group: &Located<GroupBySpec>| match group.value {
        GroupBySpec::Agent => Some(GroupBy::Agent),
        GroupBySpec::Namespace => Some(GroupBy::Namespace),
        GroupBySpec::Execution => Some(GroupBy::Execution),
        GroupBySpec::Model => Some(GroupBy::Model),
        GroupBySpec::None => None,
    };
    let mut groups: Vec<_> = written.iter().filter_map(group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

fn pace(spec: &RateSpec) -> Option<Rate> {
    let count = NonZeroU32::new(spec.requests.count)?;
    let burst = spec.burst.unwrap_or(BURST.min(spec.requests.count));
    Some(Rate {
        count,
        period: spec.requests.period,
        burst: NonZeroU32::new(burst)?,
    })
}

fn unit(spec: &LimitSpec) -> Unit {
    match spec.unit {
        UnitSpec::Usd => Unit::Usd,
        UnitSpec::Requests => Unit::Requests,
        UnitSpec::Tokens => {
            let mut weights = Weights::default();
            let written = spec.weights.as_ref().map(|weights| weights.classes());
            for (own, written) in weights.0.iter_mut().zip(written.into_iter().flatten()) {
                if let Some(thousandths) = written.and_then(|w| w.value.thousandths()) {
                    *own = thousandths;
                }
            }
            Unit::Tokens(weights)
        }
    }
}

fn window(spec: &LimitSpec) -> Option<WindowKind> {
    let keys = match &spec.window.as_ref()?.value {
        WindowSpec::Word(word) => {
            return match word.as_str() {
                "total" => Some(WindowKind::Total),
                "execution" => Some(WindowKind::Execution),
                _ => None,
            };
        }
        WindowSpec::Keys(keys) => keys,
    };
    if let Some(period) = keys.calendar {
        let period = match period {
            PeriodSpec::Hour => Period::Hour,
            PeriodSpec::Day => Period::Day,
            PeriodSpec::Week => Period::Week,
            PeriodSpec::Month => Period::Month,
        };
        return Some(WindowKind::Calendar(period, keys.zone()?));
    }
    match (&keys.fixed, &keys.rolling) {
        (Some(length), None) => Some(WindowKind::Fixed(length.value.0)),
        (None, Some(length)) => Some(WindowKind::Rolling(length.value.0)),
        _ => None,
    }
}

/// `day Europe/Berlin`, `fixed 21600s`, `rolling 3600s`, `total`, `execution`.
fn window_name(window: &WindowKind) -> String {
    match window {
        WindowKind::Calendar(period, zone) => {
            let period = match period {
                Period::Hour => "hour",
                Period::Day => "day",
                Period::Week => "week",
                Period::Month => "month",
            };
            format!("{period} {}", zone.iana_name().unwrap_or("UTC"))
        }
        WindowKind::Fixed(length) => format!("fixed {}s", length.as_secs()),
        WindowKind::Rolling(length) => format!("rolling {}s", length.as_secs()),
        WindowKind::Total => "total".to_owned(),
        WindowKind::Execution => "execution".to_owned(),
    }
}

/// What the ledger files a limit under: enough to be recognized, and a digest of all that decides what
/// is counted together. It is kept for years: its text never depends on how Rust prints a type.
fn id(key: &str, limit: &Limit) -> String {
    let unit = match limit.unit {
        Unit::Usd => "usd",
        Unit::Tokens(_) => "tokens",
        Unit::Requests => "requests",
    };
    let mut text = format!("{unit}\n{}\n", window_name(&limit.window));
    if let Unit::Tokens(weights) = &limit.unit {
        for weight in weights.0 {
            // Writing to a String cannot fail; so below.
            writeln!(text, "weight {weight}").ok();
        }
    }
    for group in &limit.group_by {
        let group = match group {
            GroupBy::Agent => "agent",
            GroupBy::Namespace => "namespace",
            GroupBy::Execution => "execution",
            GroupBy::Model => "model",
        };
        writeln!(text, "by {group}").ok();
    }
    for (what, patterns) in [
        ("agent", &limit.selector.agents),
        ("model", &limit.selector.models),
    ] {
        for pattern in patterns {
            writeln!(text, "{what} {pattern}").ok();
        }
    }
    for host in &limit.selector.hosts {
        writeln!(text, "host {host}").ok();
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut id = format!("{key} {unit} {} ", window_name(&limit.window));
    for byte in &digest.as_ref()[..8] {
        write!(id, "{byte:02x}").ok();
    }
    id
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
