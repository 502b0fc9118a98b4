//! Owns what the stand-in bills: list prices written down a second time, and arithmetic of its own, so
//! that a mistake in the built-in table or in Tollgate's arithmetic shows as a difference.

use super::truth::Used;

/// Whole pico-dollars per token, which is millionths of a dollar per million tokens.
#[derive(Clone, Copy, Debug)]
struct Rate {
    input: u128,
    write_5m: u128,
    write_1h: u128,
    read: u128,
    output: u128,
}

/// Dollars per million tokens, in millionths: 3.75 is 3_750_000.
const fn rate(input: u128, write_5m: u128, write_1h: u128, read: u128, output: u128) -> Rate {
    Rate {
        input,
        write_5m,
        write_1h,
        read,
        output,
    }
}

const HAIKU: Rate = rate(1_000_000, 1_250_000, 2_000_000, 100_000, 5_000_000);
const SONNET: Rate = rate(3_000_000, 3_750_000, 6_000_000, 300_000, 15_000_000);
const SONNET_REGIONAL: Rate = rate(3_300_000, 4_125_000, 6_600_000, 330_000, 16_500_000);
const SONNET_LONG: Rate = rate(6_000_000, 7_500_000, 12_000_000, 600_000, 22_500_000);
const OPUS: Rate = rate(5_000_000, 6_250_000, 10_000_000, 500_000, 25_000_000);
const SONNET_5: Rate = rate(2_000_000, 2_500_000, 4_000_000, 200_000, 10_000_000);
const GPT_4O: Rate = rate(2_500_000, 2_500_000, 2_500_000, 1_250_000, 10_000_000);
const GPT_4O_MINI: Rate = rate(150_000, 150_000, 150_000, 75_000, 600_000);
const GPT_5: Rate = rate(1_250_000, 1_250_000, 1_250_000, 125_000, 10_000_000);
const GEMINI_PRO: Rate = rate(1_250_000, 1_250_000, 1_250_000, 125_000, 10_000_000);
const GEMINI_PRO_LONG: Rate = rate(2_500_000, 2_500_000, 2_500_000, 250_000, 15_000_000);
const GEMINI_FLASH: Rate = rate(300_000, 300_000, 300_000, 30_000, 2_500_000);
const EMBEDDING_SMALL: Rate = rate(20_000, 20_000, 20_000, 20_000, 0);
const OWN: Rate = rate(100_000, 100_000, 100_000, 100_000, 200_000);
/// Dear enough to show in any sum: nobody should get this far with a model that has no price.
const UNLISTED: Rate = rate(
    100_000_000,
    100_000_000,
    100_000_000,
    100_000_000,
    100_000_000,
);

/// One web search, in pico-dollars: 10 dollars a thousand.
const SEARCH: u128 = 10_000_000_000;
/// A call of an endpoint whose use cannot be read, in nano-dollars: 5 cents.
pub const UNREADABLE: u64 = 50_000_000;

/// A model and its price above 200,000 tokens of prompt, where that is another.
fn rates(model: &str) -> (Rate, Option<Rate>) {
    match model {
        "claude-haiku-4-5" => (HAIKU, None),
        "claude-sonnet-4-5" | "global.anthropic.claude-sonnet-4-5-20250929-v1:0" => {
            (SONNET, Some(SONNET_LONG))
        }
        // By a region's endpoint a tenth more: <https://cloud.google.com/vertex-ai/generative-ai/pricing>.
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0" | "claude-sonnet-4-5@20250929" => {
            (SONNET_REGIONAL, None)
        }
        "text-embedding-3-small" => (EMBEDDING_SMALL, None),
        // As the proxy's price file has it.
        "llama3.2" => (OWN, None),
        "claude-sonnet-5" => (SONNET_5, None),
        "claude-opus-4-5" => (OPUS, None),
        "gpt-4o" => (GPT_4O, None),
        "gpt-4o-mini" => (GPT_4O_MINI, None),
        "gpt-5" => (GPT_5, None),
        "gemini-2.5-pro" => (GEMINI_PRO, Some(GEMINI_PRO_LONG)),
        "gemini-2.5-flash" => (GEMINI_FLASH, None),
        _ => (UNLISTED, None),
    }
}

/// What one model did, in nano-dollars.
pub fn cost(used: &Used) -> u64 {
    cost_of(std::slice::from_ref(used))
}

/// What one call comes to, in nano-dollars: one rounding up, at the end.
pub fn cost_of(parts: &[Used]) -> u64 {
    let picos: u128 = parts.iter().map(picos).sum();
    u64::try_from(picos.div_ceil(1000)).unwrap()
}

fn picos(used: &Used) -> u128 {
    let (usual, long) = rates(&used.model);
    let prompt = used.input + used.write_5m + used.write_1h + used.read;
    let rate = match long {
        Some(long) if prompt > 200_000 => long,
        _ => usual,
    };
    u128::from(used.input) * rate.input
        + u128::from(used.write_5m) * rate.write_5m
        + u128::from(used.write_1h) * rate.write_1h
        + u128::from(used.read) * rate.read
        + u128::from(used.output) * rate.output
        + u128::from(used.searches) * SEARCH
}

/// What of a dollar amount is nano-dollars: `usd("0.25")`.
pub fn usd(text: &str) -> u64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    assert!(part.len() <= 9, "{text}");
    let whole: u64 = whole.parse().unwrap();
    let part: u64 = format!("{part:0<9}").parse().unwrap();
    whole * 1_000_000_000 + part
}
