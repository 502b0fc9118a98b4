use super::super::call::CacheUse;
use super::super::endpoint::Operation;
use super::*;
use crate::types::usage::{Fee, Terms};
use TokenClass::{CacheRead, CacheWrite1h, CacheWrite5m, Input, Output};

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn call(model: &str) -> Call {
    Call {
        api: ModelApi::Anthropic,
        operation: Operation::Messages,
        model: model.into(),
        others: Vec::new(),
        max_output: Some(1_000),
        answers: 1,
        stream: true,
        body_bytes: 8_000,
        cache: CacheUse::Minutes5,
        reaches_out: false,
        tools: Vec::new(),
        terms: Terms::default(),
        asks_for_usage: false,
        thinks_unseen: false,
        may_think_unseen: false,
    }
}

fn used(model: Option<&str>, counts: &[(TokenClass, u64)]) -> ModelUse {
    let mut usage = Usage::default();
    for (class, count) in counts {
        usage[*class] = *count;
    }
    ModelUse {
        model: model.map(Into::into),
        usage,
        ..ModelUse::default()
    }
}

/// The bill of a call that was admitted by its strict bound, at the built-in prices.
fn bill(call: &Call, reading: Reading) -> Bill {
    let prices = PriceTable::builtin();
    let price = prices.for_call(call, now()).ok();
    let granted = bound::strict(price.as_deref(), call);
    charges(&prices, price.as_deref(), call, reading, &granted, now())
}

fn exact(call: &Call, one: ModelUse) -> NanoUsd {
    let bill = bill(call, Reading::Exact(vec![one]));
    assert!(!bill.estimated, "{bill:?}");
    bill.total()
}

#[test]
fn a_final_count_is_charged_as_it_is_and_zeros_are_zeros() {
    // Complaint 10 (BerriAI/litellm issue 37992): the provider said zero, and an estimate was billed.
    let call = call("claude-opus-4-5");
    assert_eq!(exact(&call, used(None, &[])), NanoUsd(0));
    let counted = used(None, &[(Input, 10), (Output, 20)]);
    assert_eq!(exact(&call, counted), NanoUsd(550_000));
}

/// Complaint 11 (BerriAI/litellm issue 9812): $0.091311 instead of $0.054399.
#[test]
fn complaint_11_cache_writes_are_charged_once() {
    let counts = [(Input, 3), (CacheWrite5m, 12_304), (Output, 550)];
    let cost = exact(&call("claude-3-7-sonnet-20250219"), used(None, &counts));
    assert_eq!(cost, NanoUsd(54_399_000));
}

/// Complaint 12 (BerriAI/litellm issue 11789): $0.002059 instead of $0.000292.
#[test]
fn complaint_12_cache_reads_of_a_stream_are_charged_at_their_own_price() {
    let counts = [(Input, 4), (CacheRead, 2_455), (Output, 23)];
    let cost = exact(&call("claude-3-5-haiku-20241022"), used(None, &counts));
    assert_eq!(cost, NanoUsd(291_600));
}

/// Complaint 13 (earendil-works/pi issue 5603): writes for an hour at the price of five minutes, $6.25
/// instead of $7.75 for a million of which four tenths live an hour.
#[test]
fn complaint_13_cache_writes_for_an_hour_have_a_price_of_their_own() {
    let counts = [(CacheWrite5m, 600_000), (CacheWrite1h, 400_000)];
    let cost = exact(&call("claude-opus-4-8"), used(None, &counts));
    assert_eq!(cost, NanoUsd(7_750_000_000));
}

/// Complaint 14 (BerriAI/litellm pull request 39294): a fallback priced at one model, $0.558 instead of
/// $0.859.
#[test]
fn complaint_14_each_attempt_is_charged_at_its_own_model() {
    let asked = Call {
        others: vec!["claude-opus-4-8".into()],
        ..call("claude-fable-5")
    };
    let declined = used(
        Some("claude-fable-5"),
        &[(CacheRead, 560_186), (Output, 299)],
    );
    let answered = used(
        Some("claude-opus-4-8"),
        &[(CacheRead, 560_186), (Output, 135)],
    );
    let bill = bill(&asked, Reading::Exact(vec![declined, answered]));
    let costs: Vec<u64> = bill.charges.iter().map(|charge| charge.cost.0).collect();
    assert_eq!(costs, [575_136_000, 283_468_000]);
    assert_eq!(bill.total(), NanoUsd(858_604_000));
    assert!(!bill.estimated);
}

/// Complaint 16 (BerriAI/litellm issue 24770): a model that is not in the table cost nothing.
#[test]
fn complaint_16_a_model_without_a_price_is_refused_or_charged_but_never_free() {
    let prices = PriceTable::builtin();
    let unknown = call("claude-next");
    assert!(prices.for_call(&unknown, now()).is_err());
    // An operator named one whose price stands in.
    let stands_in = prices.find(ModelApi::Anthropic, "claude-opus-4-5", now());
    let granted = bound::strict(stands_in, &unknown);
    let reading = Reading::Exact(vec![used(Some("claude-next"), &[(Input, 1_000)])]);
    let bill = charges(&prices, stands_in, &unknown, reading, &granted, now());
    assert_eq!((bill.total(), bill.estimated), (NanoUsd(5_000_000), true));
    // One that was asked for by a known name, and answered under an unknown one.
    let reading = Reading::Exact(vec![used(Some("claude-next"), &[(Input, 1_000)])]);
    let bill = self::bill(&call("claude-haiku-4-5"), reading);
    assert_eq!((bill.total(), bill.estimated), (NanoUsd(1_000_000), true));
    assert_eq!(&*bill.charges[0].model, "claude-next");
}

#[test]
fn an_unknown_name_among_several_models_is_charged_at_the_dearest() {
    let asked = Call {
        others: vec!["claude-fable-5".into()],
        ..call("claude-haiku-4-5")
    };
    let reading = Reading::Exact(vec![used(Some("claude-next"), &[(Output, 1_000)])]);
    assert_eq!(bill(&asked, reading).total(), NanoUsd(50_000_000));
}

#[test]
fn bedrock_answers_with_anthropics_name_and_is_charged_at_its_own_price() {
    let asked = Call {
        api: ModelApi::Bedrock,
        ..call("us.anthropic.claude-haiku-4-5-20251001-v1:0")
    };
    let one = used(Some("claude-haiku-4-5-20251001"), &[(Input, 1_000)]);
    assert_eq!(exact(&asked, one), NanoUsd(1_100_000));
}

#[test]
fn the_terms_that_it_was_served_on_decide() {
    let asked = Call {
        terms: Terms {
            speed: Some("fast".into()),
            ..Terms::default()
        },
        ..call("claude-opus-5-5")
    };
    let mut one = used(None, &[(Output, 1_000)]);
    // It was asked for fast, and was served as everybody is; and it searched twice.
    one.fees = vec![(Fee::WebSearch, 2)];
    assert_eq!(exact(&asked, one.clone()), NanoUsd(40_000_000));
    one.terms = asked.terms.clone();
    assert_eq!(exact(&asked, one), NanoUsd(60_000_000));
}

#[test]
fn charges_of_one_request_are_rounded_up_once() {
    let asked = Call {
        api: ModelApi::OpenAI,
        ..call("gpt-5-nano")
    };
    // Half of 5 nano-dollars for a token from the cache.
    let mut one = used(None, &[(CacheRead, 1)]);
    one.terms.service_tier = Some("flex".into());
    let bill = bill(&asked, Reading::Exact(vec![one; 3]));
    let costs: Vec<u64> = bill.charges.iter().map(|charge| charge.cost.0).collect();
    assert_eq!(costs, [3, 2, 3]);
    assert_eq!(bill.total(), NanoUsd(8));
}

#[test]
fn an_answer_that_broke_off_is_charged_its_prompt_exactly_and_of_the_rest_what_was_seen() {
    let call = call("claude-opus-4-5");
    let seen = used(None, &[(Input, 4_000), (Output, 300)]);
    let bill = bill(&call, Reading::Partial(vec![seen]));
    assert_eq!((bill.total(), bill.estimated), (NanoUsd(27_500_000), true));
    // At most what was granted.
    let seen = used(None, &[(Input, 4_000), (Output, 30_000)]);
    let bill = self::bill(&call, Reading::Partial(vec![seen]));
    assert_eq!(bill.charges[0].usage[Output], 1_000);
    assert_eq!(bill.total(), NanoUsd(45_000_000));
}

#[test]
fn a_prompt_that_was_never_told_is_charged_as_reserved() {
    // The strict bound: 10,000 x $6.25 + 1,000 x $25.
    let call = call("claude-opus-4-5");
    let all = NanoUsd(87_500_000);
    for reading in [
        Reading::Unknown { produced: 0 },
        Reading::Unknown { produced: 5_000 },
        Reading::Partial(vec![]),
        Reading::Exact(vec![]),
        Reading::Partial(vec![used(None, &[])]),
    ] {
        let bill = bill(&call, reading.clone());
        assert_eq!((bill.total(), bill.estimated), (all, true), "{reading:?}");
        assert_eq!(bill.charges[0].usage.total_input(), 10_000);
    }
    let bill = bill(&call, Reading::Unknown { produced: 100 });
    assert_eq!(bill.total(), NanoUsd(65_000_000));
    assert_eq!(bill.charges[0].usage[Output], 100);
}

#[test]
fn nothing_unread_is_free_even_when_the_first_tranche_was_cheap() {
    let call = call("claude-opus-4-5");
    let prices = PriceTable::builtin();
    let price = prices.for_call(&call, now()).unwrap();
    let granted = bound::tranche(Some(&price), &call, None, 1_000);
    let reading = Reading::Unknown { produced: 1 };
    let bill = charges(&prices, Some(&price), &call, reading, &granted, now());
    // 4,000 x $6.25 + 1 x $25
    assert_eq!(bill.total(), NanoUsd(25_025_000));
}

#[test]
fn a_bill_beyond_all_measure_stays_at_the_end_of_the_scale() {
    let everything = TokenClass::ALL.map(|class| (class, u64::MAX));
    let one = used(None, &everything);
    let bill = bill(
        &call("claude-opus-4-5"),
        Reading::Exact(vec![one.clone(), one]),
    );
    assert_eq!(bill.total(), NanoUsd(u64::MAX));
}

/// Whoever leaves early must not pay for the first words of an answer that was produced whole.
#[test]
fn an_answer_left_early_is_charged_whole_where_what_was_seen_does_not_tell_how_much_was_produced() {
    let told = || Reading::Partial(vec![used(None, &[(Input, 500), (Output, 1)])]);
    let seen = || Reading::Unknown { produced: 2 };
    let output = |call: &Call, reading: Reading| {
        let bill = bill(call, reading);
        assert!(bill.estimated);
        bill.charges[0].usage.total_output()
    };
    let stream = call("claude-opus-4-5");
    assert_eq!((output(&stream, told()), output(&stream, seen())), (1, 2));
    let whole = Call {
        stream: false,
        ..stream.clone()
    };
    let thinking = Call {
        thinks_unseen: true,
        may_think_unseen: false,
        ..stream
    };
    let openai = Call {
        api: ModelApi::OpenAI,
        operation: Operation::ChatCompletions,
        ..call("o3")
    };
    for call in [whole, thinking, openai] {
        assert_eq!(output(&call, told()), 1_000, "{call:?}");
        assert_eq!(output(&call, seen()), 1_000, "{call:?}");
    }
    let aloud = Call {
        api: ModelApi::OpenAI,
        operation: Operation::ChatCompletions,
        ..call("gpt-4o")
    };
    assert_eq!(output(&aloud, seen()), 2);
}
