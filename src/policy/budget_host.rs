//! Owns the check that what budgets name can be counted: of a host that speaks an unknown API nothing can
//! be told in money or tokens.

use crate::config::budget::UnitSpec;
use crate::config::bundle::Bundle;
use crate::config::error::ConfigError;
use crate::types::host::HostPattern;
use crate::types::model_api::ModelApi;

use super::engine::Engine;

/// Budgets in money or tokens that name a host of which nobody said how its calls are read: nothing
/// sent there could be counted.
pub(super) fn unreadable(engine: &Engine, bundle: &Bundle) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for budget in &bundle.budgets {
        let spec = &budget.spec;
        let counts_requests = spec
            .limits
            .iter()
            .all(|limit| limit.unit == UnitSpec::Requests);
        if counts_requests || !spec.unmetered.is_empty() {
            continue;
        }
        for host in &spec.selector.hosts {
            let Ok(HostPattern::Exact(name)) = HostPattern::parse(host) else {
                continue;
            };
            let mut rules = engine.matching(&name).flat_map(|rules| &rules.rules);
            if ModelApi::of_host(&name).is_none() && !rules.any(|rule| rule.api.is_some()) {
                let message = format!(
                    "nothing says which model API `{name}` speaks, so its calls cannot be counted in money or tokens"
                );
                let error = ConfigError::new("TG0406", message)
                    .at(budget.place(host, host.len()))
                    .help("write `api: OpenAI` (or another) into the rule for this host, price its paths with `unmetered`, or count `requests`");
                errors.push(error);
            }
        }
    }
    errors
}
