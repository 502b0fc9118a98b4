//! Owns one limit of one budget as the ledger works with it: whom it is for, what it counts, and how much.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::types::agent::Agent;
use crate::types::charge::{Charge, Need};
use crate::types::host::{Host, HostPattern};
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::usage::TokenClass;

/// Who calls what: the names that budgets choose and group by. None of them comes from a request's
/// ordinary headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Who.
    pub agent: Agent,
    /// The one run of it (a Job's pod, a `tollgate run`), where that is known.
    pub execution: Option<Arc<str>>,
    /// The origin's host.
    pub host: Arc<str>,
    /// The model that was asked for; empty where the endpoint has none.
    pub model: Arc<str>,
}

/// What a limit counts. Amounts of one limit are whole numbers of this unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nano-dollars.
    Usd,
    /// Thousandths of a token, each class with its weight.
    Tokens(Weights),
    /// Requests.
    Requests,
}

/// What a token of each class counts, in thousandths: 1000 is one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights(pub [u32; TokenClass::ALL.len()]);

impl Default for Weights {
    fn default() -> Self {
        Self([1000; TokenClass::ALL.len()])
    }
}

/// The stretch of time a limit holds for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// An hour, day, week or month of a time zone.
    Calendar(Period, TimeZone),
    /// Stretches of this length, counted from the Unix epoch.
    Fixed(Duration),
    /// Whatever lies this far back, kept in 60 buckets.
    Rolling(Duration),
    /// All time.
    Total,
    /// One execution of one agent.
    Execution,
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Sixty minutes of absolute time.
    Hour,
    /// From local midnight to local midnight: 23 or 25 hours when the clocks change.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

/// What calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupBy {
    /// Each agent by itself.
    Agent,
    /// The agents of one namespace: the part of a name before `/`.
    Namespace,
    /// Each execution by itself.
    Execution,
    /// Each model that is asked for by itself.
    Model,
}

/// What a limit does once it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Requests are refused.
    Hard,
    /// Alerts only.
    Soft,
}

/// One line of a budget's `limits`.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The budget's name as agents and operators see it: `namespace/name`, or `name`.
    pub budget: Arc<str>,
    /// What the ledger files it under. It begins with the budget's `metadata.uid`, or else its name, and
    /// changes with whatever changes which calls are counted together or how (match, unit, weights,
    /// window, grouping), and with nothing else: raising a limit keeps it.
    pub id: Arc<str>,
    /// Whom it is for.
    pub selector: Selector,
    /// What is counted.
    pub unit: Unit,
    /// How much of it, in that unit.
    pub max: u64,
    /// For how long.
    pub window: WindowKind,
    /// What is counted together; empty for everything the selector covers.
    pub group_by: Box<[GroupBy]>,
    /// What happens once it is reached.
    pub enforcement: Enforcement,
    /// Whether what went beyond it in one window counts in the next.
    pub carry_debt: bool,
    /// Percent of `max` at which to warn, in growing order.
    pub alerts: Box<[u8]>,
    /// The status of a refusal once it is exhausted, where it is not the usual one.
    pub exhausted_status: Option<u16>,
    /// How long a request may wait for others to settle.
    pub queue: Duration,
    /// How many requests may wait at once.
    pub waiters: u32,
}

/// Which calls a limit is for. Empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Names and prefixes of agents.
    pub agents: Box<[Pattern]>,
    /// Names and prefixes of models.
    pub models: Box<[Pattern]>,
    /// Names of hosts; empty for the hosts of model APIs.
    pub hosts: Box<[HostPattern]>,
}

/// A name, or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Exact(Box<str>),
    /// `claude-*`.
    Prefix(Box<str>),
}

impl Pattern {
    /// Whether `name` is one of them.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => **own == *name,
            Self::Prefix(own) => name.starts_with(&**own),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Limit {
    /// What is reserved of it for a call that needs `need` at most.
    pub fn reserve(&self, need: &Need) -> u64 {
        match &self.unit {
            Unit::Usd => need.cost.0,
            Unit::Requests => 1,
            Unit::Tokens(weights) => {
                let dearest = |input: bool| {
                    let classes = TokenClass::ALL.into_iter();
                    let own = classes.filter(|class| class.is_input() == input);
                    own.map(|class| weights.of(class)).max().unwrap_or(1000)
                };
                let input = need.input.saturating_mul(dearest(true));
                input.saturating_add(need.output.saturating_mul(dearest(false)))
            }
        }
    }

    /// What a call with these charges takes of it. A call whose origin refused it takes no money and no
    /// tokens, and is a request all the same.
    pub fn charge(&self, charges: &[Charge]) -> u64 {
        let of = |charge: &Charge| match &self.unit {
            Unit::Usd => charge.cost.0,
            Unit::Requests => 0,
            Unit::Tokens(weights) => charge.usage.iter().fold(0, |sum: u64, (class, count)| {
                sum.saturating_add(count.saturating_mul(weights.of(class)))
            }),
        };
        let sum = charges
            .iter()
            .fold(0, |sum: u64, charge| sum.saturating_add(of(charge)));
        match self.unit {
            Unit::Requests => 1,
            _ => sum,
        }
    }

    /// The name of the group that a call is counted in: `agent=team-a/scan`, or nothing for all together.
    pub fn scope(&self, labels: &Labels) -> String {
        scope(&self.group_by, labels)
    }

    /// Whether it is for this call.
    pub fn covers(&self, labels: &Labels) -> bool {
        let hosts = &self.selector.hosts;
        self.selector.names(labels.agent.name())
            && self.selector.takes(&labels.model)
            && (hosts.is_empty()
                || Host::parse(&labels.host)
                    .is_ok_and(|host| hosts.iter().any(|pattern| pattern.matches(&host))))
    }
}

impl Selector {
    /// Whether this agent is meant.
    pub fn names(&self, agent: &str) -> bool {
        any(&self.agents, agent)
    }

    /// Whether this model is meant. A call that names none may use any: it is meant, too.
    pub fn takes(&self, model: &str) -> bool {
        model.is_empty() || any(&self.models, model)
    }

    /// Whether calls to this host are counted.
    pub fn counts(&self, host: &Host, api: Option<ModelApi>) -> bool {
        match self.hosts.is_empty() {
            true => api.is_some(),
            false => self.hosts.iter().any(|pattern| pattern.matches(host)),
        }
    }
}

fn any(patterns: &[Pattern], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

/// The name of a group: `agent=team-a/scan,model=gpt-5.2`, or nothing for all together.
pub fn scope(groups: &[GroupBy], labels: &Labels) -> String {
    let mut scope = String::new();
    for group in groups {
        let (key, value) = match group {
            GroupBy::Agent => ("agent", labels.agent.name()),
            GroupBy::Namespace => {
                let name = labels.agent.name();
                ("namespace", name.split_once('/').map_or("", |(ns, _)| ns))
            }
            GroupBy::Execution => ("execution", labels.execution.as_deref().unwrap_or("")),
            GroupBy::Model => ("model", &*labels.model),
        };
        scope.reserve(key.len() + value.len() + 2);
        if !scope.is_empty() {
            scope.push(',');
        }
        scope.push_str(key);
        scope.push('=');
        scope.push_str(value);
    }
    scope
}

impl Weights {
    fn of(&self, class: TokenClass) -> u64 {
        u64::from(self.0[class as usize])
    }
}

impl Unit {
    /// An amount as people read it: `$5.00`, `1200 tokens`, `3 requests`.
    pub fn show(&self, amount: u64) -> Shown<'_> {
        Shown { unit: self, amount }
    }
}

/// An amount that is written as people read it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'u> {
    unit: &'u Unit,
    amount: u64,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.amount;
        match self.unit {
            Unit::Usd => NanoUsd(amount).fmt(f),
            Unit::Tokens(_) => write!(f, "{} tokens", amount.div_ceil(1000)),
            Unit::Requests => write!(f, "{amount} requests"),
        }
    }
}
