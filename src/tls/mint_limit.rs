//! Owns how many certificates are made in a time, for all agents and for each: a wildcard rule lets an agent
//! ask for endless names, and each costs a signature.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::error::CaError;
use crate::types::agent::Agent;
use crate::types::limits::{LeafLimits, Rate};
use crate::types::reached::{Amount, Limit, Reached};

/// What is left of both.
pub(super) struct MintLimit {
    limits: LeafLimits,
    all: DefaultDirectRateLimiter,
    /// By agent, of which a process knows as many as its configuration names.
    agents: DefaultKeyedRateLimiter<Agent>,
}

impl MintLimit {
    pub(super) fn new(limits: LeafLimits) -> Self {
        Self {
            limits,
            all: RateLimiter::direct(quota(limits.mints)),
            agents: RateLimiter::keyed(quota(limits.mints_per_agent)),
        }
    }

    /// Takes the right to one certificate for `agent`.
    pub(super) fn take(&self, agent: &Agent) -> Result<(), CaError> {
        let reached = |limit: Limit, rate: Rate| -> Reached {
            limit.at(Amount::Pace(rate.count, rate.period))
        };
        // The agent first: what one may not have anyway is not taken from the others.
        if self.agents.check_key(agent).is_err() {
            return Err(reached(Limit::AgentMints, self.limits.mints_per_agent).into());
        }
        if self.all.check().is_err() {
            return Err(reached(Limit::Mints, self.limits.mints).into());
        }
        Ok(())
    }
}

/// As many at once, and as many again in the time.
fn quota(rate: Rate) -> Quota {
    let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
    // Only a time of nothing has no quota, and none is written.
    Quota::with_period(rate.period / count.get())
        .unwrap_or(Quota::per_second(count))
        .allow_burst(count)
}
