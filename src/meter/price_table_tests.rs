use super::super::bound::{FALLBACK_MAX_INPUT, FALLBACK_MAX_OUTPUT};
use super::*;
use crate::types::usage::{Terms, Usage};

fn at(day: &str) -> Timestamp {
    format!("{day}T12:00:00Z").parse().unwrap()
}

fn today() -> Timestamp {
    at("2026-11-21")
}

/// The cost in nano-dollars by the built-in table.
fn cost(api: ModelApi, model: &str, counts: &[(TokenClass, u64)]) -> u64 {
    let table = PriceTable::builtin();
    let price = table.find(api, model, today());
    let price = price.unwrap_or_else(|| panic!("no price for {model}"));
    let mut usage = Usage::default();
    for (class, count) in counts {
        usage[*class] = *count;
    }
    price.cost(&usage, &[], &Terms::default()).ceil().0
}

fn errors(text: &str) -> Vec<String> {
    let errors = PriceTable::parse("prices.yaml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

const ONE: &str = r#"
providers:
- provider: openai
  models:
  - model: house
    prices:
    - per_million: {input: "1", output: "2"}
"#;

#[test]
fn a_price_is_found_however_its_model_is_written_there_or_here() {
    let text = ONE
        .replace("openai", "ollama")
        .replace("house", "\"llama3:latest\"");
    let table = PriceTable::parse("prices.yaml", &text).unwrap();
    for name in ["llama3", "llama3:latest", "library/llama3"] {
        assert!(
            table.find(ModelApi::Ollama, name, today()).is_some(),
            "{name}"
        );
    }
    assert!(table.find(ModelApi::Ollama, "llama3:8b", today()).is_none());
    // A budget on a model finds what its other places are filed under.
    let opus = "anthropic.claude-opus-4-5-20251101-v1:0";
    let filed: (Arc<str>, Arc<str>) = (opus.into(), format!("global.{opus}").into());
    assert!(PriceTable::builtin().other_names().contains(&filed));
}

#[test]
fn the_built_in_table_has_nothing_wrong_and_says_where_every_price_comes_from() {
    let table = PriceTable::parse("prices.yaml", BUILTIN).unwrap_or_else(|e| panic!("{e:#?}"));
    let mut names = 0;
    for (api, name, source) in table.sources() {
        let source = source.unwrap_or_else(|| panic!("{api:?} {name} has no source"));
        assert!(source.page.starts_with("https://"), "{name}: {source:?}");
        assert!(source.checked.is_some(), "{name} was never checked");
        let price = table.find(api, name, today()).unwrap();
        assert!(
            price.max_input.is_some() && price.max_output.is_some(),
            "{name}"
        );
        assert!(price.max_input <= Some(FALLBACK_MAX_INPUT), "{name}");
        assert!(price.max_output <= Some(FALLBACK_MAX_OUTPUT), "{name}");
        assert!(price.base.of(TokenClass::Input) > 0, "{name}");
        names += 1;
    }
    assert!(names > 250, "{names}");
    assert_eq!(PriceTable::builtin().sha256(), table.sha256());
}

/// A long prompt, a longer-lived cache or a service tier with prices of its own never makes it cheaper.
#[test]
fn no_built_in_price_falls_where_it_should_rise() {
    let table = PriceTable::builtin();
    for (api, name, _) in table.sources() {
        let price = table.find(api, name, today()).unwrap();
        for rates in price
            .tiers
            .iter()
            .map(|(_, rates)| rates)
            .chain([&price.base])
        {
            let of = |class| rates.of(class);
            assert!(of(TokenClass::CacheRead) <= of(TokenClass::Input), "{name}");
            assert!(
                of(TokenClass::CacheWrite5m) >= of(TokenClass::Input),
                "{name}"
            );
            assert!(
                of(TokenClass::CacheWrite1h) >= of(TokenClass::CacheWrite5m),
                "{name}"
            );
            assert_eq!(price.base.max(rates), *rates, "{name}");
        }
    }
}

#[test]
fn costs_by_the_built_in_table_are_those_worked_out_by_hand() {
    use ModelApi::{Anthropic, Azure, Bedrock, Gemini, OpenAI, Vertex};
    use TokenClass::{AudioInput, CacheRead, CacheWrite1h, CacheWrite5m, Input, Output};
    for (api, model, counts, expected) in [
        // 1,000 x $4 + 500 x $20 per million
        (
            Anthropic,
            "claude-opus-5-5",
            &[(Input, 1000), (Output, 500)][..],
            14_000_000,
        ),
        // 10 x $3 + 20,000 x $0.30 + 300 x $15
        (
            Anthropic,
            "claude-sonnet-4-6",
            &[(Input, 10), (CacheRead, 20_000), (Output, 300)],
            10_530_000,
        ),
        // 100,001 tokens: 1 x $0.50 + 100,000 x $0.05 + 7 x $2.50
        (
            Anthropic,
            "claude-haiku-5-5",
            &[(Input, 1), (CacheRead, 100_000), (Output, 7)],
            5_018_000,
        ),
        // 100,000 tokens: x $0.10
        (
            Anthropic,
            "claude-haiku-5-5",
            &[(Input, 100_000)],
            10_000_000,
        ),
        (
            Anthropic,
            "claude-fable-5-2",
            &[(CacheWrite1h, 1000), (CacheWrite5m, 1000)],
            26_000_000,
        ),
        (
            OpenAI,
            "gpt-4o-2024-11-20",
            &[(Input, 6), (CacheRead, 2000), (Output, 300)],
            5_515_000,
        ),
        (
            OpenAI,
            "gpt-6.1-terra",
            &[(Input, 272_001), (Output, 1)],
            544_009_500,
        ),
        (OpenAI, "text-embedding-3-small", &[(Input, 8)], 160),
        (Azure, "gpt-4o", &[(Output, 1)], 10_000),
        (
            Gemini,
            "gemini-2.5-pro",
            &[(Input, 200_000), (Output, 1)],
            250_010_000,
        ),
        (
            Gemini,
            "gemini-2.5-pro",
            &[(Input, 200_001), (Output, 1)],
            500_017_500,
        ),
        (
            Gemini,
            "gemini-2.5-flash",
            &[(AudioInput, 1000), (Input, 1000)],
            1_300_000,
        ),
        (
            Bedrock,
            "global.anthropic.claude-sonnet-4-6",
            &[(Input, 1000)],
            3_000_000,
        ),
        (
            Bedrock,
            "us.anthropic.claude-sonnet-4-6",
            &[(Input, 1000)],
            3_300_000,
        ),
        (
            Vertex,
            "claude-sonnet-4-5@20250929",
            &[(Output, 1000)],
            15_000_000,
        ),
    ] {
        assert_eq!(cost(api, model, counts), expected, "{model} {counts:?}");
    }
}

#[test]
fn models_are_found_by_exactly_their_names() {
    let table = PriceTable::builtin();
    let found = |api, model| table.find(api, model, today()).is_some();
    assert!(found(ModelApi::Anthropic, "claude-sonnet-4-5"));
    for near in [
        "claude-sonnet-4-5-20990101",
        "claude-sonnet",
        "Claude-Sonnet-4-5",
        "",
        "*",
    ] {
        assert!(!found(ModelApi::Anthropic, near), "{near}");
    }
    // The same name elsewhere is another product.
    assert!(!found(ModelApi::OpenAI, "claude-sonnet-4-5"));
    assert!(!found(ModelApi::Ollama, "llama3"));
    // Azure's deployments are named by their owner.
    assert!(!found(ModelApi::Azure, "our-chat"));
    let arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-6-v1";
    assert!(found(ModelApi::Bedrock, arn));
    assert!(!found(
        ModelApi::Bedrock,
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    ));
}

#[test]
fn a_price_counts_from_its_day_on() {
    let table = PriceTable::builtin();
    let read = |day| {
        let price = table
            .find(ModelApi::Anthropic, "claude-sonnet-5-5", at(day))
            .unwrap();
        price.base.of(TokenClass::CacheRead)
    };
    assert_eq!(
        [read("2020-01-01"), read("2026-10-06"), read("2026-10-07")],
        [200_000, 200_000, 100_000]
    );
}

#[test]
fn a_file_replaces_the_models_that_it_names_and_changes_the_hash() {
    let text = ONE.replace("house", "gpt-4o");
    let table = PriceTable::overridden("prices.yaml", &text).unwrap();
    let input = |model| {
        table
            .find(ModelApi::OpenAI, model, today())
            .unwrap()
            .base
            .of(TokenClass::Input)
    };
    assert_eq!(
        [input("gpt-4o"), input("gpt-4o-mini")],
        [1_000_000, 150_000]
    );
    let builtin = PriceTable::builtin().sha256();
    assert_ne!(table.sha256(), builtin);
    assert_ne!(
        PriceTable::overridden("p", ONE).unwrap().sha256(),
        table.sha256()
    );
}

/// Answers name a dated model where requests name its alias: a price of one's own must reach both.
#[test]
fn a_model_of_a_file_takes_the_place_of_all_names_of_the_built_in_one() {
    let table = PriceTable::overridden("prices.yaml", &ONE.replace("house", "gpt-4o")).unwrap();
    let input = |model| {
        let price = table.find(ModelApi::OpenAI, model, today()).unwrap();
        price.base.of(TokenClass::Input)
    };
    assert_eq!(input("gpt-4o-2024-11-20"), 1_000_000);
    // By an alias alone, only that one.
    let text = ONE.replace("house", "gpt-4o-2024-11-20");
    let table = PriceTable::overridden("prices.yaml", &text).unwrap();
    let price = table.find(ModelApi::OpenAI, "gpt-4o", today()).unwrap();
    assert_eq!(price.base.of(TokenClass::Input), 2_500_000);
}

#[test]
fn an_explicit_zero_is_a_price_and_ollama_may_have_one_for_all_its_models() {
    let text = ONE
        .replace("openai", "ollama")
        .replace("house", "'*'")
        .replace("\"1\"", "\"0\"")
        .replace("\"2\"", "\"0\"");
    let table = PriceTable::overridden("prices.yaml", &text).unwrap();
    let price = table
        .find(ModelApi::Ollama, "llama3.3:70b", today())
        .unwrap();
    let mut usage = Usage::default();
    usage[TokenClass::Input] = 1_000_000;
    assert_eq!(
        price.cost(&usage, &[], &Terms::default()).ceil(),
        NanoUsd(0)
    );
    let said = errors(&ONE.replace("house", "'*'"));
    assert_eq!(said, ["prices.yaml:5:12: `*` is not a model's name"]);
}

#[test]
fn mistakes_in_a_file_are_told_with_their_place() {
    for (from, to, expected) in [
        (
            "output",
            "outptu",
            "7:33: unknown key `outptu` in `providers[0].models[0].prices[0].per_million` (did you mean `output`?)",
        ),
        ("\"2\"", "\"-2\"", "`-2` is not a decimal number"),
        ("\"2\"", "\"0.0000001\"", "has more than 6 decimals"),
        ("\"2\"", "2.5e3", "`2.5e3` is not a decimal number"),
        (
            "openai",
            "opneai",
            "3:13: `opneai` is not possible in `providers[0].provider` (did you mean `openai`?)",
        ),
        (", output: \"2\"", "", "`output` is missing"),
        (
            "house",
            "house\n    aliases: [house]",
            "`house` has two prices",
        ),
        ("house", "gpt-*", "`gpt-*` is not a model's name"),
        (
            "    - per",
            "    - tiers: [{context_over: 9, per_million: {input: \"1\", output: \"1\"}}, {context_over: 9, per_million: {input: \"1\", output: \"1\"}}]\n      per",
            "the tiers of a price are not in order",
        ),
        (
            "    - per",
            "    - per_million: {input: \"1\", output: \"2\"}\n    - per",
            "not in the order of time",
        ),
        (
            "prices:\n    - per_million: {input: \"1\", output: \"2\"}",
            "prices: []",
            "`house` has no price",
        ),
    ] {
        let said = errors(&ONE.replacen(from, to, 1));
        assert!(
            said.iter().any(|error| error.contains(expected)),
            "{expected}: {said:#?}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_says_so_and_without_one_the_built_in_table_counts() {
    let error = load(Some(Path::new("/no/such/prices.yaml"))).unwrap_err();
    assert_eq!(error[0].code, "TG0101");
    assert_eq!(load(None).unwrap().sha256(), PriceTable::builtin().sha256());
}
