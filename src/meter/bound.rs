//! Owns the most that a request may cost: what is reserved for it before it is sent.

use super::call::{CacheUse, Call};
use super::learned::Learned;
use super::price::Price;
use super::yocto::YoctoUsd;
use crate::types::charge::Need;
use crate::types::usage::{Fee, TokenClass, Usage};

/// Tokens that a provider adds around a prompt: its own instructions, the forms of tools.
const AROUND_PROMPT: u64 = 2_000;

/// The longest prompt that any known model takes; stands in where the model's own is not known.
pub const FALLBACK_MAX_INPUT: u64 = 2_097_152;

/// The longest answer that any known model gives; stands in where neither the request nor the table
/// says one.
pub const FALLBACK_MAX_OUTPUT: u64 = 272_000;

/// How often a provider's tool may be used where the request does not say.
pub const DEFAULT_TOOL_USES: u64 = 10;

/// The most that `call` can cost, whatever it does: one token per octet of the body, all of the dearest
/// class, and the longest answer that it allows; all of it once for every model that may work on it.
///
/// Runic text reaches one token per octet, so nothing less is a bound. Without a price only tokens are
/// counted.
pub fn strict(price: Option<&Price>, call: &Call) -> Need {
    let (input, output) = (most_input(price, call), most_output(price, call));
    let models = price.map_or(1, Price::models);
    let once = price.map_or_else(YoctoUsd::default, |price| {
        let upper = price.upper(&call.terms, input, &classes(call));
        upper.input.times(input).plus(upper.output.times(output))
    });
    Need {
        cost: once.times(models).plus(fees_of(price, call)).ceil(),
        input: input.saturating_mul(models),
        output: output.saturating_mul(models),
    }
}

/// What a stream gets to begin with: its prompt as experience with this agent and model estimates it,
/// and `tokens` of the answer. Without experience an octet counts as half a token.
///
/// A prompt that the body does not hold whole (files, URLs, earlier responses) counts as the longest.
pub fn tranche(price: Option<&Price>, call: &Call, learned: Option<Learned>, tokens: u64) -> Need {
    let most = most_input(price, call);
    let output = tokens.min(most_output(price, call));
    let (input, weighted) = match learned {
        _ if call.reaches_out => (most, None),
        Some(learned) => (
            learned.tokens(call.body_bytes).min(most),
            Some(learned.weighted(call.body_bytes)),
        ),
        None => (call.body_bytes.div_ceil(2).min(most), None),
    };
    let Some(priced) = price else {
        return Need {
            input,
            output,
            ..Need::default()
        };
    };
    let upper = priced.upper(&call.terms, input, &classes(call));
    let estimate = match weighted {
        Some(tokens) => {
            let plain = priced.upper(&call.terms, input, &[TokenClass::Input]);
            plain.input.times(tokens).min(upper.input.times(most))
        }
        None => upper.input.times(input),
    };
    let cost = estimate.plus(upper.output.times(output));
    Need {
        cost: cost.plus(fees_of(price, call)).ceil(),
        input,
        output,
    }
}

/// What `tokens` more of the answer may cost beyond what is `granted`: never more than the request allows
/// in all, each model that may work on it having its own answer.
pub fn extension(price: Option<&Price>, call: &Call, granted: &Need, tokens: u64) -> Need {
    let models = price.map_or(1, Price::models);
    let most = most_output(price, call).saturating_mul(models);
    beyond(
        price,
        call,
        granted,
        tokens.min(most.saturating_sub(granted.output)),
    )
}

/// What `tokens` more of the answer may cost beyond what is `granted`, whatever the request allows: an origin
/// may not keep to it.
pub fn beyond(price: Option<&Price>, call: &Call, granted: &Need, tokens: u64) -> Need {
    // A long prompt makes the answer dearer, too.
    let context = granted.input;
    Need {
        cost: price.map_or_else(Default::default, |price| {
            let upper = price.upper(&call.terms, context, &[]);
            upper.output.times(tokens).ceil()
        }),
        input: 0,
        output: tokens,
    }
}

/// What is to be held once the provider has told the prompt's tokens: these, exactly, and `output` tokens
/// of the answer.
pub fn trued_up(price: Option<&Price>, call: &Call, prompt: &Usage, output: u64) -> Need {
    let input = prompt.total_input();
    let cost = price.map_or_else(YoctoUsd::default, |price| {
        let mut only_input = *prompt;
        only_input[TokenClass::Output] = 0;
        only_input[TokenClass::AudioOutput] = 0;
        let exact = price.most(&only_input, &call.terms);
        let upper = price.upper(&call.terms, input, &[]);
        exact.plus(upper.output.times(output))
    });
    Need {
        cost: cost.plus(fees_of(price, call)).ceil(),
        input,
        output,
    }
}

/// The longest prompt that this can be.
pub(super) fn most_input(price: Option<&Price>, call: &Call) -> u64 {
    let longest = price
        .and_then(Price::longest_input)
        .unwrap_or(FALLBACK_MAX_INPUT);
    match call.reaches_out {
        true => longest,
        false => call.body_bytes.saturating_add(AROUND_PROMPT).min(longest),
    }
}

/// The most tokens that all its answers can have together.
fn most_output(price: Option<&Price>, call: &Call) -> u64 {
    longest_answer(price, call).saturating_mul(call.answers.max(1))
}

/// The most tokens that each of its answers can have.
pub fn longest_answer(price: Option<&Price>, call: &Call) -> u64 {
    let longest = price.and_then(Price::longest_output);
    match (call.max_output, longest) {
        (Some(asked), Some(longest)) => asked.min(longest),
        (Some(asked), None) => asked,
        (None, longest) => longest.unwrap_or(FALLBACK_MAX_OUTPUT),
    }
}

/// The classes that tokens of its prompt can be of.
pub(super) fn classes(call: &Call) -> Vec<TokenClass> {
    let hour = (call.cache == CacheUse::Hour).then_some(TokenClass::CacheWrite1h);
    [
        TokenClass::Input,
        TokenClass::CacheWrite5m,
        TokenClass::CacheRead,
        TokenClass::AudioInput,
    ]
    .into_iter()
    .chain(hour)
    .collect()
}

fn fees_of(price: Option<&Price>, call: &Call) -> YoctoUsd {
    let uses: Vec<(Fee, u64)> = call
        .tools
        .iter()
        .map(|(fee, most)| (*fee, most.unwrap_or(DEFAULT_TOOL_USES)))
        .collect();
    price.map_or_else(YoctoUsd::default, |price| price.upper_fees(&uses))
}

#[cfg(test)]
#[path = "bound_tests.rs"]
mod tests;
