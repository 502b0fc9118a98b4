//! Owns what is wrong with a budget that is well formed: amounts, windows and names that mean nothing,
//! and fields that would never be looked at.

use std::sync::Arc;

use super::budget::{
    BudgetMatchSpec, EgressBudgetSpec, EnforcementSpec, GroupBySpec, LimitSpec,
    OnStoreUnavailableSpec, RateSpec, UnitSpec, UnknownModelSpec, UnmeteredSpec, WindowKeys,
    WindowSpec,
};
use super::bundle::{Bundle, Document};
use super::check_policy::{host_error, method_error};
use super::error::{ConfigError, SourceFile};
use super::literal::shown;
use super::located::Located;
use super::root::IdentitySpec;
use super::spot;
use super::units::Number;
use crate::types::agent::Agent;

/// Statuses that say that a request is at fault, and nothing about its credential, its length or its connection.
const EXHAUSTED: [u16; 5] = [400, 402, 403, 422, 429];

/// Every mistake in `budget`.
pub(super) fn check_budget(budget: &Document<EgressBudgetSpec>, errors: &mut Vec<ConfigError>) {
    let spec = &budget.spec;
    let mut checker = Checker {
        file: &budget.file,
        errors,
    };
    if spec.limits.is_empty() && spec.rate.is_none() && spec.concurrency.is_none() {
        let error = ConfigError::new("TG0701", format!("budget `{}` limits nothing", budget.name))
            .help("add `limits: [{unit: usd, max: \"5.00\", window: {calendar: day}}]`, `rate` or `concurrency`");
        checker.errors.push(spot::at_document(error, budget));
    }
    checker.selector(spec);
    for limit in &spec.limits {
        checker.limit(limit);
    }
    checker.alerts(spec.alerts.as_deref().unwrap_or_default());
    checker.outcomes(spec);
    for entry in &spec.unmetered {
        checker.unmetered(entry, spec);
    }
    if let Some(rate) = &spec.rate {
        checker.rate(rate);
    }
    if spec.enforcement == EnforcementSpec::Soft {
        let rate = spec.rate.as_ref().map(|rate| (rate.line, rate.column));
        let concurrency = spec.concurrency.as_ref();
        let places = [rate, concurrency.map(|most| (most.line, most.column))];
        for (line, column) in places.into_iter().flatten() {
            let at = Located {
                value: (),
                line,
                column,
            };
            let error =
                ConfigError::new("TG0713", "a soft budget refuses nothing, whatever the rate")
                    .help("write `rate` and `concurrency` into a budget with `enforcement: hard`");
            checker.say(error, &at);
        }
    }
    if let Some(concurrency) = spec.concurrency.as_ref().filter(|most| most.value == 0) {
        let error = ConfigError::new("TG0711", "a concurrency of 0 would refuse every request")
            .help("write 1 or more; to refuse a host, write a rule with `action: Deny`");
        checker.say(error, concurrency);
    }
}

/// Budgets that tell executions apart, where nothing says which execution a call is of: all of them
/// would be counted as one.
pub fn check_executions(bundle: &Bundle, identity: &IdentitySpec) -> Vec<ConfigError> {
    if identity.execution.is_some() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    for budget in &bundle.budgets {
        let spec = &budget.spec;
        let groups = spec
            .selector
            .group_by
            .iter()
            .flat_map(|groups| &groups.value);
        let grouped = groups
            .filter(|group| group.value == GroupBySpec::Execution)
            .map(|group| (group.line, group.column));
        let windows = spec.limits.iter().filter_map(|limit| limit.window.as_ref());
        let windowed = windows
            .filter(|window| window.value.is_execution())
            .map(|window| (window.line, window.column));
        errors.extend(grouped.chain(windowed).map(|(line, column)| {
            let at = Located {
                value: (),
                line,
                column,
            };
            let error = ConfigError::new("TG0714", "nothing tells one execution from the next")
                .help("write `identity: { fixed: NAME, execution: { env: POD_UID } }` into the configuration, or use `tollgate run`");
            spot::at(error, &budget.file, &at)
        }));
    }
    errors
}

/// Sixty buckets of a second are the finest; more than a year is what `total` is for.
const SHORTEST_WINDOW: u64 = 60;
const LONGEST_WINDOW: u64 = 366 * 24 * 3600;

struct Checker<'a> {
    file: &'a Arc<SourceFile>,
    errors: &'a mut Vec<ConfigError>,
}

impl Checker<'_> {
    fn say<T>(&mut self, error: ConfigError, at: &Located<T>) {
        self.errors.push(spot::at(error, self.file, at));
    }

    fn selector(&mut self, spec: &EgressBudgetSpec) {
        let selector = &spec.selector;
        for agent in &selector.agents {
            // A prefix is well formed if some name can follow it.
            let sample = match agent.strip_suffix('*') {
                Some(prefix) => format!("{prefix}x"),
                None => agent.value.clone(),
            };
            if Agent::parse(&sample).is_err() {
                let error = ConfigError::new("TG0707", format!("no agent is named `{}`", shown(agent)))
                    .help("write a name (`team-a/scan`), or the beginning of one with `*` behind it (`team-a/*`)");
                self.say(error, agent);
            }
        }
        for model in &selector.models {
            let name = model.strip_suffix('*').unwrap_or(model);
            let odd = |c: char| c == '*' || c.is_whitespace() || c.is_control();
            if model.is_empty() || name.contains(odd) {
                let error =
                    ConfigError::new("TG0707", format!("no model is named `{}`", shown(model)))
                        .help(
                            "write a name, or the beginning of one with `*` behind it (`claude-*`)",
                        );
                self.say(error, model);
            }
        }
        for host in &selector.hosts {
            self.errors.extend(host_error(host, self.file));
        }
        self.groups(selector);
    }

    fn groups(&mut self, selector: &BudgetMatchSpec) {
        let Some(written) = &selector.group_by else {
            return;
        };
        let groups = &written.value;
        if groups.is_empty() {
            let error = ConfigError::new("TG0708", "`groupBy` names no group")
                .help("write `[none]` for one pot for all, or `[agent]`");
            self.say(error, written);
        }
        for (index, group) in groups.iter().enumerate() {
            let alone = group.value == GroupBySpec::None && groups.len() > 1;
            let again = groups[..index].iter().any(|g| g.value == group.value);
            if alone || again {
                let error = match alone {
                    true => ConfigError::new("TG0708", "`none` stands beside other groups"),
                    false => ConfigError::new("TG0708", "a group stands twice"),
                };
                self.say(
                    error.help(
                        "`groupBy: [none]` counts all together; other groups may be combined",
                    ),
                    group,
                );
            }
        }
    }

    fn limit(&mut self, limit: &Located<LimitSpec>) {
        if limit.amount().is_none() {
            let mut not = |what: &str, help: &str| {
                let what = format!("`{}` is not {what}", shown(&limit.max.value.0));
                self.say(ConfigError::new("TG0702", what).help(help), &limit.max);
            };
            match limit.unit {
                UnitSpec::Usd => self.not_dollars(&limit.max),
                UnitSpec::Tokens => not(
                    "a number of tokens",
                    "write for example 2000000; no more than 2e15 can be counted",
                ),
                UnitSpec::Requests => not(
                    "a number of requests",
                    "write for example 1000; no more than 2e18 can be counted",
                ),
            }
        }
        match &limit.window {
            Some(window) => self.window(limit, window),
            None => self.say(no_window("the limit has no window"), limit),
        }
        let Some(weights) = &limit.weights else {
            return;
        };
        if limit.unit != UnitSpec::Tokens {
            let error = ConfigError::new("TG0706", "only tokens have weights")
                .help("remove `weights`, or write `unit: tokens`; prices are in the price table");
            self.say(error, weights);
        }
        let all = weights.classes();
        for weight in all.iter().filter_map(|weight| weight.as_ref()) {
            if weight.value.thousandths().is_none() {
                let error = ConfigError::new(
                    "TG0706",
                    format!("`{}` is not a weight", shown(&weight.value.0)),
                )
                .help("write a number from 0 to 1000 with at most three decimals, for example 0.1");
                self.say(error, weight);
            }
        }
        let nothing = |weight: &Option<&Located<Number>>| {
            weight.and_then(|w| w.value.thousandths()) == Some(0)
        };
        if all.iter().all(nothing) {
            let error = ConfigError::new("TG0706", "the weights count nothing")
                .help("leave a class at more than 0");
            self.say(error, weights);
        }
    }

    fn window(&mut self, limit: &LimitSpec, window: &Located<WindowSpec>) {
        let keys = match &window.value {
            WindowSpec::Word(word) if word == "total" || word == "execution" => {
                return self.carrying(limit, window);
            }
            WindowSpec::Word(word) => {
                let error = no_window(&format!("`{}` is not a window", shown(word)));
                return self.say(error, window);
            }
            WindowSpec::Keys(keys) => keys,
        };
        let WindowKeys {
            calendar,
            tz,
            fixed,
            rolling,
        } = keys;
        let kinds = [calendar.is_some(), fixed.is_some(), rolling.is_some()];
        if kinds.iter().filter(|there| **there).count() != 1 {
            return self.say(no_window("a window is of one kind"), window);
        }
        if let Some(tz) = tz {
            if calendar.is_none() {
                let error = ConfigError::new("TG0703", "only a calendar has a time zone")
                    .help("remove `tz`, or write `{calendar: day, tz: …}`");
                self.say(error, tz);
            } else if keys.zone().is_none() {
                let error = ConfigError::new(
                    "TG0704",
                    format!("there is no time zone `{}`", shown(tz)),
                )
                .help("write a name of the IANA database: UTC, Europe/Berlin, America/New_York");
                self.say(error, tz);
            }
        }
        for length in fixed.iter().chain(rolling) {
            let range = SHORTEST_WINDOW..=LONGEST_WINDOW;
            if !range.contains(&length.value.0.as_secs()) || length.value.0.subsec_nanos() != 0 {
                let error = ConfigError::new(
                    "TG0705",
                    format!("{} cannot be a window's length", length.value),
                )
                .help("write whole seconds, from 1m to 8784h (a year); longer is `total`");
                self.say(error, length);
            }
        }
        if rolling.is_some() {
            self.carrying(limit, window);
        }
    }

    /// There is no next window to carry a debt into.
    fn carrying(&mut self, limit: &LimitSpec, window: &Located<WindowSpec>) {
        if limit.carry_debt {
            let error = ConfigError::new("TG0703", "no debt can be carried out of this window")
                .help("remove `carryDebt`, or write a `calendar` or `fixed` window");
            self.say(error, window);
        }
    }

    fn alerts(&mut self, alerts: &[Located<u8>]) {
        for (index, alert) in alerts.iter().enumerate() {
            let grows = index == 0 || alerts[index - 1].value < alert.value;
            if !grows || !(1..=100).contains(&alert.value) {
                let error =
                    ConfigError::new("TG0709", format!("{} cannot stand here", alert.value)).help(
                        "alerts are percentages from 1 to 100 in growing order: [50, 80, 95, 100]",
                    );
                self.say(error, alert);
            }
        }
    }

    fn outcomes(&mut self, spec: &EgressBudgetSpec) {
        let status = spec.exhausted_status.as_ref();
        if let Some(status) = status.filter(|status| !EXHAUSTED.contains(&status.value)) {
            let what = format!(
                "clients do not take a {} for the end of a budget",
                status.value
            );
            let help = "write 400, 402, 403, 422 or 429, or leave it out for what suits most clients of the API";
            self.say(ConfigError::new("TG0715", what).help(help), status);
        }
        let counts_money = spec.limits.iter().any(|limit| limit.unit == UnitSpec::Usd);
        if let UnknownModelSpec::PriceAs(model) = &spec.unknown_model {
            if model.is_empty() {
                let error = ConfigError::new("TG0713", "`priceAs` names no model")
                    .help("name one of the price table");
                self.say(error, model);
            } else if !counts_money {
                let error = ConfigError::new(
                    "TG0713",
                    "`unknownModel` means nothing without a limit in usd",
                )
                .help("remove it, or add a limit in usd");
                self.say(error, model);
            }
        }
        if let OnStoreUnavailableSpec::AllowUpTo(most) = &spec.on_store_unavailable {
            if most.value.nano_usd().is_none() {
                self.not_dollars(most);
            } else if !counts_money {
                let error =
                    ConfigError::new("TG0713", "`allowUpTo` means nothing without a limit in usd")
                        .help("remove it, or add a limit in usd");
                self.say(error, most);
            }
        }
    }

    fn unmetered(&mut self, entry: &Located<UnmeteredSpec>, spec: &EgressBudgetSpec) {
        for method in &entry.methods {
            if let Some(error) = method_error(method) {
                self.say(error, method);
            }
        }
        let mut lacks = |what: &str, help: &str| {
            let error = ConfigError::new("TG0712", what).help(help);
            self.errors.push(spot::at(error, self.file, entry));
        };
        if entry.paths.is_empty() {
            lacks(
                "an unmetered entry names no path",
                "add `paths: [/v1/files]`; `/**` is all",
            );
        }
        let has = |unit| spec.limits.iter().any(|limit| limit.unit == unit);
        if has(UnitSpec::Usd) && entry.usd.is_none() {
            lacks(
                "an unmetered entry has no price",
                "add `usd: \"0.50\"`; \"0\" if it is free",
            );
        }
        if has(UnitSpec::Tokens) && entry.tokens.is_none() {
            lacks(
                "an unmetered entry counts no tokens",
                "add `tokens: 10000`; 0 if it uses none",
            );
        }
        if let Some(usd) = entry
            .usd
            .as_ref()
            .filter(|usd| usd.value.nano_usd().is_none())
        {
            self.not_dollars(usd);
        }
    }

    fn not_dollars(&mut self, amount: &Located<Number>) {
        let what = format!(
            "`{}` is not an amount in US dollars",
            shown(&amount.value.0)
        );
        let error = ConfigError::new("TG0702", what)
            .help("write for example \"0.50\", with at most 9 decimals and no more than 2e9");
        self.say(error, amount);
    }

    fn rate(&mut self, rate: &Located<RateSpec>) {
        if rate.burst == Some(0) {
            let error = ConfigError::new("TG0711", "a burst of 0 would refuse every request")
                .help("write 1 or more, or leave it out");
            self.say(error, rate);
        }
    }
}

fn no_window(what: &str) -> ConfigError {
    ConfigError::new("TG0703", what).help(
        "write `window: {calendar: day, tz: Europe/Berlin}` (hour, day, week, month), `{fixed: 6h}`, `{rolling: 1h}`, `total` or `execution`",
    )
}

/// What is wrong with budgets that charge unknown models as one without a price.
pub fn unpriced(bundle: &Bundle, is_priced: impl Fn(&str) -> bool) -> Vec<ConfigError> {
    let named = bundle.budgets.iter().filter_map(|budget| {
        let UnknownModelSpec::PriceAs(model) = &budget.spec.unknown_model else {
            return None;
        };
        (!is_priced(model)).then(|| {
            let what = format!(
                "unknown models cannot be charged as `{}`, which has no price either",
                shown(model)
            );
            let error = ConfigError::new("TG0716", what).help(
                "name a model of policies/prices.yaml, or add a price for it to `prices.file`",
            );
            spot::at(error, &budget.file, model)
        })
    });
    named.collect()
}

#[cfg(test)]
#[path = "check_budget_tests.rs"]
mod tests;
