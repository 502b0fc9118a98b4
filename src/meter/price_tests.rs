use jiff::Timestamp;
use proptest::prelude::*;

use super::super::price_table::PriceTable;
use super::*;
use crate::types::model_api::ModelApi;
use TokenClass::{AudioInput, AudioOutput, CacheRead, CacheWrite1h, CacheWrite5m, Input, Output};

const TABLE: &str = r#"
providers:
- provider: openai
  service_tiers:
    flex: {multiplier: "0.5"}
    priority: {per_million: {input: "4", cache_read: "2", output: "20"}}
  multipliers: {speed: {fast: "2"}, geo: {us: "1.1", "*": "1.25"}}
  fees: {web_search: "0.01"}
  models:
  - model: m
    prices:
    - per_million: {input: "2", cache_write_5m: "2.5", cache_read: "0.2", output: "10", audio_input: "40"}
      tiers:
      - {context_over: 1000, per_million: {input: "4", cache_write_5m: "5", cache_read: "0.4", output: "15"}}
      - {context_over: 2000, per_million: {input: "8", cache_write_5m: "10", cache_read: "0.8", output: "30"}}
"#;

fn price() -> Price {
    let table = PriceTable::parse("t", TABLE).unwrap_or_else(|e| panic!("{e:#?}"));
    table
        .find(ModelApi::OpenAI, "m", Timestamp::UNIX_EPOCH)
        .unwrap()
        .clone()
}

fn usage(counts: &[(TokenClass, u64)]) -> Usage {
    let mut usage = Usage::default();
    for (class, count) in counts {
        usage[*class] = *count;
    }
    usage
}

fn terms(service: &str, speed: &str, geo: &str) -> Terms {
    let word = |text: &str| (!text.is_empty()).then(|| text.into());
    Terms {
        service_tier: word(service),
        speed: word(speed),
        geo: word(geo),
        is_only_asked: false,
    }
}

fn nano(counts: &[(TokenClass, u64)], on: &Terms) -> u64 {
    price().cost(&usage(counts), &[], on).ceil().0
}

#[test]
fn every_class_has_its_price_and_a_missing_one_that_of_its_side() {
    let standard = Terms::default();
    for (class, expected) in [
        (Input, 2_000),
        (CacheWrite5m, 2_500),
        // None is listed: never cheaper than the shorter one.
        (CacheWrite1h, 2_500),
        (CacheRead, 200),
        (Output, 10_000),
        (AudioInput, 40_000),
        (AudioOutput, 10_000),
    ] {
        assert_eq!(nano(&[(class, 1)], &standard), expected, "{class:?}");
    }
}

#[test]
fn a_long_prompt_makes_the_whole_request_dearer_and_only_beyond_its_length() {
    let standard = Terms::default();
    assert_eq!(nano(&[(Input, 1000), (Output, 1)], &standard), 2_010_000);
    assert_eq!(nano(&[(Input, 1001), (Output, 1)], &standard), 4_019_000);
    // All classes of the prompt count for its length, whatever they cost.
    assert_eq!(
        nano(&[(CacheRead, 2001), (Output, 1)], &standard),
        1_630_800
    );
    assert_eq!(nano(&[(Output, 5000)], &standard), 50_000_000);
}

#[test]
fn terms_change_the_price_and_an_unknown_word_counts_as_the_dearest() {
    let one = [(Input, 100), (Output, 100)];
    for (on, expected) in [
        (terms("", "", ""), 1_200_000),
        (terms("default", "", "global"), 1_200_000),
        (terms("flex", "", ""), 600_000),
        (terms("priority", "", ""), 2_400_000),
        (terms("Priority", "", ""), 2_400_000),
        (terms("", "fast", ""), 2_400_000),
        (terms("", "", "us"), 1_320_000),
        (terms("", "", "eu-west-1"), 1_500_000),
        (terms("flex", "fast", "us"), 1_320_000),
        (terms("turbo", "", ""), 2_400_000),
        (terms("", "ludicrous", ""), 2_400_000),
    ] {
        assert_eq!(nano(&one, &on), expected, "{on:?}");
    }
    // A discount that only the request names is none, for all that is known.
    for (tier, expected) in [
        ("flex", 1_200_000),
        ("priority", 2_400_000),
        ("turbo", 2_400_000),
    ] {
        let asked = Terms {
            is_only_asked: true,
            ..terms(tier, "", "")
        };
        assert_eq!(nano(&one, &asked), expected, "{tier}");
    }
    // A tier with prices of its own is no way around those of long prompts.
    assert_eq!(
        nano(&[(Input, 3000)], &terms("priority", "", "")),
        24_000_000
    );
}

#[test]
fn before_it_is_served_a_request_may_cost_the_dearest_that_it_asked_for() {
    let one = usage(&[(Input, 100)]);
    let most = |asked: &Terms| price().most(&one, asked).ceil().0;
    assert_eq!(most(&Terms::default()), 200_000);
    assert_eq!(most(&terms("priority", "fast", "us")), 880_000);
    // There may be no room in a cheaper tier.
    assert_eq!(most(&terms("flex", "", "")), 200_000);
}

#[test]
fn fees_are_counted_by_the_piece_and_one_without_a_price_is_not_free() {
    let fees = |fee, count| price().fees(&[(fee, count)]).ceil().0;
    assert_eq!(fees(Fee::WebSearch, 3), 30_000_000);
    assert_eq!(fees(Fee::FileSearch, 1), 35_000_000);
}

/// <https://ai.google.dev/gemini-api/docs/pricing>: by the prompt before Gemini 3, by the search since.
#[test]
fn what_grounds_a_prompt_is_billed_by_the_prompt_or_by_the_search() {
    let used = [(Fee::Grounding, 1), (Fee::GroundedSearch, 4)];
    for (listed, cost) in [
        (&[(Fee::Grounding, 35)][..], 35),
        (&[(Fee::GroundedSearch, 14)], 4 * 14),
        (
            &[(Fee::Grounding, 35), (Fee::GroundedSearch, 14)],
            35 + 4 * 14,
        ),
        (&[], 5 * 35),
    ] {
        let mut price = price();
        price.fees.clear();
        let fees = listed.iter();
        price
            .fees
            .extend(fees.map(|(fee, thousandths)| (*fee, NanoUsd(thousandths * 1_000_000))));
        assert_eq!(price.fees(&used).ceil().0, cost * 1_000_000, "{listed:?}");
    }
}

#[test]
fn a_cost_beyond_all_measure_stays_at_the_end_of_the_scale() {
    let all = TokenClass::ALL.map(|class| (class, u64::MAX));
    assert_eq!(nano(&all, &terms("priority", "fast", "us")), u64::MAX);
}

fn some_usage() -> impl Strategy<Value = Usage> {
    proptest::array::uniform7(0..400_000_u64).prop_map(|counts| {
        let mut usage = Usage::default();
        for (class, count) in TokenClass::ALL.into_iter().zip(counts) {
            usage[class] = count;
        }
        usage
    })
}

fn some_terms() -> impl Strategy<Value = Terms> {
    let word = |words: &'static [&'static str]| proptest::sample::select(words);
    let services = word(&["", "flex", "priority", "auto", "default"]);
    (services, word(&["", "fast"]), word(&["", "us", "x"]))
        .prop_map(|(service, speed, geo)| terms(service, speed, geo))
}

proptest! {
    #[test]
    fn more_tokens_of_any_class_never_cost_less(
        usage in some_usage(), on in some_terms(), class in 0..7_usize, more in 1..100_000_u64,
    ) {
        let price = price();
        let mut dearer = usage;
        dearer[TokenClass::ALL[class]] += more;
        prop_assert!(price.cost(&usage, &[], &on) <= price.cost(&dearer, &[], &on));
    }

    #[test]
    fn costs_of_one_tier_add_up_exactly_and_are_rounded_once(a in some_usage(), b in some_usage(), on in some_terms()) {
        let price = Price { tiers: Vec::new(), ..price() };
        let cost = |usage: &Usage| price.cost(usage, &[], &on);
        // Which of several possible tiers is the dearest may differ between the parts.
        let known = on.service_tier.as_deref() != Some("auto");
        let (apart, together) = (cost(&a).plus(cost(&b)), cost(&a.plus(&b)));
        prop_assert!(apart >= together);
        prop_assert!(apart == together || !known);
        let rounded = cost(&a).ceil().0 + cost(&b).ceil().0;
        prop_assert!(rounded >= together.ceil().0);
        if known {
            prop_assert!(rounded - together.ceil().0 <= 1);
        }
    }
}
