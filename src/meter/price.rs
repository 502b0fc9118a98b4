//! Owns what one model costs at one moment: prices by class, long prompts, tiers, factors and fees.
//!
//! Whole numbers only. A price per million tokens with six decimals is a whole number of pico-dollars
//! per token; factors have four decimals.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::yocto::YoctoUsd;
use crate::config::prices::ThinksSpec;
use crate::types::money::NanoUsd;
use crate::types::usage::{Fee, Terms, TokenClass, Usage};

/// A factor of one, in its units of 10⁻⁴.
pub(super) const ONE: u64 = 10_000;

/// What a use costs whose fee is not listed: the dearest that any provider is known to ask
/// ($35 for 1,000 grounded prompts, <https://ai.google.dev/gemini-api/docs/pricing>).
const UNLISTED_FEE: NanoUsd = NanoUsd(35_000_000);

/// Words for what everybody gets, whatever the provider calls it.
const STANDARD: [&str; 7] = [
    "standard",
    "standard_only",
    "default",
    "on_demand",
    "normal",
    "global",
    "not_available",
];

/// Prices by class, in pico-USD per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates([u64; TokenClass::ALL.len()]);

impl Rates {
    /// The price of every class, as `of` says.
    pub(super) fn new(of: impl Fn(TokenClass) -> u64) -> Self {
        Self(TokenClass::ALL.map(of))
    }

    /// Pico-USD per token of this class.
    pub fn of(&self, class: TokenClass) -> u64 {
        self.0[class as usize]
    }

    /// Class by class, the dearer price.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self::new(|class| self.of(class).max(other.of(class)))
    }

    /// Pico-USD.
    fn cost(&self, usage: &Usage) -> u128 {
        let classes = usage
            .iter()
            .map(|(class, count)| u128::from(count) * u128::from(self.of(class)));
        classes.fold(0, u128::saturating_add)
    }
}

/// What a service tier changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// All prices, by this factor.
    Factor(u64),
    /// It has prices of its own; a long prompt is never cheaper than elsewhere.
    Own(Rates),
}

/// Factors by word.
pub(super) type Factors = BTreeMap<Box<str>, u64>;

/// What one model costs at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Its name in the table.
    pub model: Arc<str>,
    /// The most tokens that a prompt may have, if that is known.
    pub max_input: Option<u64>,
    /// The most tokens that an answer may have, if that is known.
    pub max_output: Option<u64>,
    /// Whether it thinks where a request says nothing about it, and shows nothing of that in a stream.
    pub(super) thinks: ThinksSpec,
    /// Prices of prompts of any length that no tier is for.
    pub(super) base: Rates,
    /// Prices of prompts with more tokens than this, the shortest first.
    pub(super) tiers: Vec<(u64, Rates)>,
    pub(super) services: BTreeMap<Box<str>, Service>,
    pub(super) speeds: Factors,
    pub(super) geos: Factors,
    pub(super) fees: BTreeMap<Fee, NanoUsd>,
    /// Prices of the other models that may work on the same request; they count before it is made only.
    pub(super) beside: Vec<Arc<Self>>,
}

/// The most that tokens of a request may cost, in yocto-USD per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Upper {
    pub(super) input: YoctoUsd,
    pub(super) output: YoctoUsd,
}

impl Price {
    /// What `usage` and `fees` cost on `terms`. A word that the table does not know counts as the dearest
    /// that it does.
    pub fn cost(&self, usage: &Usage, fees: &[(Fee, u64)], terms: &Terms) -> YoctoUsd {
        self.cost_on(&self.told(terms), usage).plus(self.fees(fees))
    }

    /// The most that `usage` may cost of a request that asks for these terms.
    pub(super) fn most(&self, usage: &Usage, asked: &Terms) -> YoctoUsd {
        self.cost_on(&self.asked(asked), usage)
    }

    /// What `fees` cost.
    pub fn fees(&self, fees: &[(Fee, u64)]) -> YoctoUsd {
        let each = fees.iter().map(|(fee, count)| {
            let listed = self.fees.get(fee).copied();
            let one = listed.unwrap_or_else(|| self.unlisted(*fee));
            YoctoUsd::from_nano(one).times(*count)
        });
        each.fold(YoctoUsd::default(), YoctoUsd::plus)
    }

    /// What a use costs whose fee has no price. What grounds a prompt is billed by the prompt or by the search.
    fn unlisted(&self, fee: Fee) -> NanoUsd {
        let instead = match fee {
            Fee::Grounding => Fee::GroundedSearch,
            Fee::GroundedSearch => Fee::Grounding,
            _ => return UNLISTED_FEE,
        };
        match self.fees.contains_key(&instead) {
            true => NanoUsd(0),
            false => UNLISTED_FEE,
        }
    }

    /// The prices that count for a prompt of `context` tokens.
    pub fn rates(&self, context: u64) -> &Rates {
        let tier = self.tiers.iter().rev().find(|(over, _)| context > *over);
        tier.map_or(&self.base, |(_, rates)| rates)
    }

    /// The most that a token may cost of a request for `asked` whose prompt has at most `context` tokens
    /// of `classes`.
    pub(super) fn upper(&self, asked: &Terms, context: u64, classes: &[TokenClass]) -> Upper {
        let ways = self.asked(asked);
        let reachable = self
            .tiers
            .iter()
            .filter(|(over, _)| context > *over)
            .fold(self.base, |dearest, (_, rates)| dearest.max(rates));
        let mut upper = Upper {
            input: YoctoUsd::default(),
            output: YoctoUsd::default(),
        };
        for service in &ways.services {
            let (rates, factor) = self.rated(service, &reachable, context);
            let dearest = |classes: &[TokenClass]| {
                let price = classes.iter().map(|class| rates.of(*class)).max();
                ways.scaled(u128::from(price.unwrap_or(0)), factor)
            };
            upper.input = upper.input.max(dearest(classes));
            upper.output = upper
                .output
                .max(dearest(&[TokenClass::Output, TokenClass::AudioOutput]));
        }
        self.beside.iter().fold(upper, |upper, other| {
            let theirs = other.upper(asked, context, classes);
            Upper {
                input: upper.input.max(theirs.input),
                output: upper.output.max(theirs.output),
            }
        })
    }

    /// The dearest that `fees` may cost, whichever model is used.
    pub(super) fn upper_fees(&self, fees: &[(Fee, u64)]) -> YoctoUsd {
        let others = self.beside.iter().map(|other| other.upper_fees(fees));
        others.fold(self.fees(fees), YoctoUsd::max)
    }

    /// Whether any of the models that may work on the request thinks unseen where nothing is said about it.
    pub fn thinks_by_default(&self) -> bool {
        self.thinks == ThinksSpec::ByDefault
            || self.beside.iter().any(|other| other.thinks_by_default())
    }

    /// This model and the others that may work on the request.
    pub(super) fn models(&self) -> u64 {
        1 + self.beside.len() as u64
    }

    /// The longest prompt that any of the models takes, if that is known of all.
    pub(super) fn longest_input(&self) -> Option<u64> {
        let others = self.beside.iter().map(|other| other.max_input);
        others.fold(self.max_input, |most, other| Some(most?.max(other?)))
    }

    /// The longest answer that any of the models gives, if that is known of all.
    pub(super) fn longest_output(&self) -> Option<u64> {
        let others = self.beside.iter().map(|other| other.max_output);
        others.fold(self.max_output, |most, other| Some(most?.max(other?)))
    }

    fn cost_on(&self, ways: &Ways<'_>, usage: &Usage) -> YoctoUsd {
        let context = usage.total_input();
        let costs = ways.services.iter().map(|service| {
            let (rates, factor) = self.rated(service, self.rates(context), context);
            ways.scaled(rates.cost(usage), factor)
        });
        costs.max().unwrap_or_default()
    }

    /// The prices of a service tier for a prompt of `context` tokens, and the factor on them.
    fn rated(&self, service: &Way<'_>, rates: &Rates, context: u64) -> (Rates, u64) {
        match service {
            Way::Standard => (*rates, ONE),
            Way::Tier(Service::Factor(factor)) => (*rates, *factor),
            Way::Tier(Service::Own(own)) => match self.tiers.first() {
                Some((over, _)) if context > *over => (own.max(rates), ONE),
                _ => (*own, ONE),
            },
        }
    }

    /// How a request was, or may have been, served whose answer was read to have these terms.
    fn told(&self, terms: &Terms) -> Ways<'_> {
        match terms.is_only_asked {
            true => self.asked(terms),
            false => self.as_named(terms),
        }
    }

    /// How a request is served on these terms.
    fn as_named(&self, terms: &Terms) -> Ways<'_> {
        let services = match terms.service_tier.as_deref() {
            None => vec![Way::Standard],
            Some(word) => self.services_of(word),
        };
        Ways {
            services,
            speed: factor(&self.speeds, terms.speed.as_deref()),
            geo: factor(&self.geos, terms.geo.as_deref()),
        }
    }

    /// How a request may be served that asks for these terms: a tier that it asks for may be full, and
    /// then it is served at the standard price. Where it is served, the request alone decides.
    fn asked(&self, terms: &Terms) -> Ways<'_> {
        let mut ways = self.as_named(terms);
        if !ways.services.contains(&Way::Standard) {
            ways.services.push(Way::Standard);
        }
        ways.speed = ways.speed.max(ONE);
        ways
    }

    fn services_of(&self, word: &str) -> Vec<Way<'_>> {
        if let Some(service) = named(&self.services, word) {
            return vec![Way::Tier(service)];
        }
        if is_standard(word) {
            return vec![Way::Standard];
        }
        let listed = self.services.values().map(Way::Tier);
        listed.chain([Way::Standard]).collect()
    }
}

/// The ways in which a request may be, or was, served.
struct Ways<'a> {
    services: Vec<Way<'a>>,
    speed: u64,
    geo: u64,
}

#[derive(PartialEq, Eq)]
enum Way<'a> {
    Standard,
    Tier(&'a Service),
}

impl Ways<'_> {
    /// Pico-USD with all factors on them.
    fn scaled(&self, pico: u128, service: u64) -> YoctoUsd {
        let factors = [service, self.speed, self.geo];
        let scaled = factors
            .into_iter()
            .fold(pico, |sum, factor| sum.saturating_mul(u128::from(factor)));
        YoctoUsd(scaled)
    }
}

/// The factor of a word; that of a word that is not listed is the dearest that is.
fn factor(factors: &Factors, word: Option<&str>) -> u64 {
    let Some(word) = word else {
        return ONE;
    };
    if let Some(factor) = named(factors, word) {
        return *factor;
    }
    if is_standard(word) {
        return ONE;
    }
    match factors.get("*") {
        Some(any) => *any,
        None => factors.values().copied().fold(ONE, u64::max),
    }
}

fn named<'a, T>(words: &'a BTreeMap<Box<str>, T>, word: &str) -> Option<&'a T> {
    let exact = words.get(word);
    exact.or_else(|| {
        let mut entries = words.iter();
        let found = entries.find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, value)| value)
    })
}

fn is_standard(word: &str) -> bool {
    word.is_empty() || STANDARD.iter().any(|s| s.eq_ignore_ascii_case(word))
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
