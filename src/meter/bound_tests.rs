use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::super::endpoint::Operation;
use super::super::learned::LearnedTable;
use super::super::price_table::PriceTable;
use super::*;
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::usage::Terms;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn call(model: &str, body_bytes: u64, max_output: Option<u64>) -> Call {
    Call {
        api: ModelApi::Anthropic,
        operation: Operation::Messages,
        model: model.into(),
        others: Vec::new(),
        max_output,
        answers: 1,
        stream: true,
        body_bytes,
        cache: CacheUse::Unnamed,
        reaches_out: false,
        tools: Vec::new(),
        terms: Terms::default(),
        asks_for_usage: false,
        thinks_unseen: false,
        may_think_unseen: false,
    }
}

fn price(call: &Call) -> Arc<Price> {
    PriceTable::builtin().for_call(call, now()).unwrap()
}

fn need(call: &Call) -> Need {
    strict(Some(&price(call)), call)
}

#[test]
fn the_strict_bound_is_a_token_per_octet_of_the_dearest_class_and_the_longest_answer() {
    let plain = call("claude-opus-4-5", 8_000, Some(1_000));
    let bound = need(&plain);
    assert_eq!((bound.input, bound.output), (10_000, 1_000));
    // 10,000 x $6.25 + 1,000 x $25: a provider may cache by itself.
    assert_eq!(bound.cost, NanoUsd(87_500_000));
    let hour = Call {
        cache: CacheUse::Hour,
        ..plain.clone()
    };
    assert_eq!(need(&hour).cost, NanoUsd(125_000_000));
    let several = Call {
        answers: 3,
        ..plain.clone()
    };
    assert_eq!(need(&several).output, 3_000);
    let searching = Call {
        tools: vec![(Fee::WebSearch, Some(5)), (Fee::CodeExecution, None)],
        ..plain
    };
    // 5 x $0.01 + 10 x $0.05
    assert_eq!(need(&searching).cost, NanoUsd(87_500_000 + 550_000_000));
}

#[test]
fn the_models_own_limits_end_the_strict_bound() {
    // 200,000 and 64,000 are the most that it takes and gives.
    let unlimited = call("claude-opus-4-5", 900_000, None);
    assert_eq!(
        (need(&unlimited).input, need(&unlimited).output),
        (200_000, 64_000)
    );
    let greedy = call("claude-opus-4-5", 1, Some(u64::MAX));
    assert_eq!(need(&greedy).output, 64_000);
    let reaching = Call {
        reaches_out: true,
        ..call("claude-opus-4-5", 300, Some(10))
    };
    assert_eq!(need(&reaching).input, 200_000);
}

#[test]
fn a_tier_that_may_be_served_dearer_is_reserved_at_the_dearer_price() {
    let plain = Call {
        api: ModelApi::OpenAI,
        ..call("gpt-5", 8_000, Some(1_000))
    };
    let on = |service: &str| {
        let terms = Terms {
            service_tier: Some(service.into()),
            ..Terms::default()
        };
        need(&Call {
            terms,
            ..plain.clone()
        })
        .cost
        .0
    };
    let standard = need(&plain).cost.0;
    assert_eq!(on("default"), standard);
    assert_eq!(on("priority"), 2 * standard);
    assert_eq!(on("auto"), 2 * standard);
    // There may be no room in it, and then it is served as everybody is.
    assert_eq!(on("flex"), standard);
}

#[test]
fn every_model_that_may_work_on_a_request_is_reserved_for_at_the_dearest_price() {
    let alone = call("claude-opus-4-8", 8_000, Some(1_000));
    let falling_back = Call {
        others: vec!["claude-fable-5".into()],
        ..alone.clone()
    };
    let fable = call("claude-fable-5", 8_000, Some(1_000));
    assert_eq!(need(&falling_back).cost.0, 2 * need(&fable).cost.0);
    assert!(need(&alone).cost < need(&fable).cost);
    let unknown = Call {
        others: vec!["claude-next".into()],
        ..alone
    };
    let error = PriceTable::builtin().for_call(&unknown, now()).unwrap_err();
    assert_eq!(&*error.0, "claude-next");
}

#[test]
fn without_a_price_tokens_are_bounded_all_the_same() {
    let bound = strict(None, &call("house", 8_000, None));
    let expected = Need {
        cost: NanoUsd(0),
        input: 10_000,
        output: FALLBACK_MAX_OUTPUT,
    };
    assert_eq!(bound, expected);
    let reaching = Call {
        reaches_out: true,
        ..call("house", 8, Some(500_000))
    };
    let bound = strict(None, &reaching);
    assert_eq!((bound.input, bound.output), (FALLBACK_MAX_INPUT, 500_000));
    let first = tranche(None, &reaching, None, 4_096);
    assert_eq!((first.input, first.output), (FALLBACK_MAX_INPUT, 4_096));
}

/// Complaint 7 (BerriAI/litellm pull request 40002): five calls with 300,000 tokens each on $0.45, of which
/// four were admitted for $0.60 because the price of long prompts was not reserved.
#[test]
fn complaint_7_the_price_of_a_long_prompt_is_reserved() {
    let long = call("claude-haiku-5-5", 298_000, Some(1));
    let bound = need(&long);
    assert_eq!(bound.input, 300_000);
    // 300,000 x $0.625 + $2.50 per million; not x $0.125.
    assert_eq!(bound.cost, NanoUsd(187_502_500));
    assert_eq!(450_000_000 / bound.cost.0, 2);
    let first = tranche(
        Some(&price(&long)),
        &Call {
            body_bytes: 600_000,
            ..long.clone()
        },
        None,
        1,
    );
    assert_eq!(first.cost, NanoUsd(187_502_500));
}

#[test]
fn a_tranche_without_experience_holds_half_a_token_per_octet_and_the_first_part_of_the_answer() {
    let stream = call("claude-opus-4-5", 80_000, Some(32_000));
    let first = tranche(Some(&price(&stream)), &stream, None, 4_096);
    // 40,000 x $6.25 + 4,096 x $25
    let expected = Need {
        cost: NanoUsd(352_400_000),
        input: 40_000,
        output: 4_096,
    };
    assert_eq!(first, expected);
    let short = call("claude-opus-4-5", 80_000, Some(100));
    assert_eq!(
        tranche(Some(&price(&short)), &short, None, 4_096).output,
        100
    );
}

#[test]
fn a_tranche_with_experience_holds_what_prompts_cost_before() {
    let stream = call("claude-opus-4-5", 80_000, Some(32_000));
    let price = price(&stream);
    let learned = LearnedTable::default();
    let mut prompt = Usage::default();
    prompt[TokenClass::CacheRead] = 20_000;
    for _ in 0..50 {
        learned.note("bot", "claude-opus-4-5", &price, 80_000, &prompt);
    }
    let first = tranche(
        Some(&price),
        &stream,
        learned.of("bot", "claude-opus-4-5"),
        4_096,
    );
    // 20,000 tokens, and a tenth of the price for each; 15 % more and the rounding of 2⁻²⁰.
    assert!((22_900..=23_100).contains(&first.input), "{first:?}");
    let prompt_cost = first.cost.0 - 4_096 * 25_000;
    assert!(
        (11_450_000..=11_700_000).contains(&prompt_cost),
        "{first:?}"
    );
}

#[test]
fn an_extension_grants_more_of_the_answer_and_never_more_than_the_request_allows() {
    let stream = call("claude-opus-4-5", 8_000, Some(5_000));
    let price = price(&stream);
    let granted = tranche(Some(&price), &stream, None, 4_096);
    let more = extension(Some(&price), &stream, &granted, 4_096);
    let expected = Need {
        cost: NanoUsd(904 * 25_000),
        input: 0,
        output: 904,
    };
    assert_eq!(more, expected);
}

#[test]
fn a_prompt_that_was_told_is_held_at_what_it_cost() {
    let stream = call("claude-opus-4-5", 80_000, Some(32_000));
    let mut told = Usage::default();
    told[TokenClass::Input] = 4;
    told[TokenClass::CacheRead] = 20_000;
    // A stream's beginning reports a token or so of the answer; it is within what is granted.
    told[TokenClass::Output] = 1;
    let held = trued_up(Some(&price(&stream)), &stream, &told, 4_096);
    let expected = Need {
        cost: NanoUsd(20_000 + 10_000_000 + 4_096 * 25_000),
        input: 20_004,
        output: 4_096,
    };
    assert_eq!(held, expected);
}

/// A request, and a usage that is possible for it.
fn exchange() -> impl Strategy<Value = (Call, Usage, Terms)> {
    let model = proptest::sample::select(vec![
        (ModelApi::Anthropic, "claude-haiku-5-5"),
        (ModelApi::Anthropic, "claude-opus-5-5"),
        (ModelApi::OpenAI, "gpt-6.2-sol"),
        (ModelApi::OpenAI, "o4-mini"),
        (ModelApi::OpenAI, "gpt-4o-audio-preview"),
        (ModelApi::Gemini, "gemini-2.5-flash"),
        (ModelApi::Vertex, "claude-sonnet-4-5"),
    ]);
    let words = |words: &'static [Option<&'static str>]| proptest::sample::select(words);
    let asked = (
        words(&[None, Some("auto"), Some("priority"), Some("flex")]),
        words(&[None, Some("fast")]),
        words(&[None, Some("us"), Some("europe-west1")]),
    );
    let parts = proptest::array::uniform7(0..1000_u64);
    let size = (
        0..700_000_u64,
        proptest::option::of(0..200_000_u64),
        1..4_u64,
    );
    (
        model,
        size,
        proptest::bool::ANY,
        asked,
        proptest::bool::ANY,
        parts,
        0..=1000_u64,
        0..=1000_u64,
    )
        .prop_map(
            |(
                (api, model),
                (body, most, answers),
                hour,
                (tier, speed, geo),
                downgraded,
                parts,
                inputs,
                outputs,
            )| {
                let terms = Terms {
                    service_tier: tier.map(Into::into),
                    speed: speed.map(Into::into),
                    geo: geo.map(Into::into),
                    is_only_asked: false,
                };
                let call = Call {
                    api,
                    answers,
                    cache: if hour {
                        CacheUse::Hour
                    } else {
                        CacheUse::Minutes5
                    },
                    terms: terms.clone(),
                    ..call(model, body, most)
                };
                let told = match downgraded {
                    true => Terms {
                        service_tier: Some("default".into()),
                        speed: Some("standard".into()),
                        ..terms
                    },
                    false => terms,
                };
                let bound = need(&call);
                let usage = spread(&call, &bound, parts, inputs, outputs);
                (call, usage, told)
            },
        )
}

/// Some of the tokens that `bound` allows, over the classes that `call` can use.
fn spread(call: &Call, bound: &Need, parts: [u64; 7], inputs: u64, outputs: u64) -> Usage {
    let mut usage = Usage::default();
    let mut inputs = bound.input * inputs / 1000;
    let mut outputs = bound.output * outputs / 1000;
    let classes = classes(call);
    for (class, part) in TokenClass::ALL.into_iter().zip(parts) {
        let left = match class.is_input() {
            true if !classes.contains(&class) => continue,
            true => &mut inputs,
            false => &mut outputs,
        };
        usage[class] = *left * part / 1000;
        *left -= usage[class];
    }
    usage[TokenClass::Input] += inputs;
    usage[TokenClass::Output] += outputs;
    usage
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_that_the_strict_bound_allows_costs_more_than_it((call, usage, told) in exchange()) {
        let bound = need(&call);
        prop_assert!(usage.total_input() <= bound.input && usage.total_output() <= bound.output);
        let price = price(&call);
        let cost = price.cost(&usage, &[], &told).ceil();
        prop_assert!(cost <= bound.cost, "{cost} > {}", bound.cost);
        let most = price.most(&usage, &call.terms).ceil();
        prop_assert!(most <= bound.cost, "{most} > {}", bound.cost);
    }
}
