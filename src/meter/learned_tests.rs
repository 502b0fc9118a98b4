use super::*;
use crate::meter::price_table::PriceTable;
use crate::types::model_api::ModelApi;

fn prompt(input: u64, read: u64) -> Usage {
    let mut usage = Usage::default();
    usage[TokenClass::Input] = input;
    usage[TokenClass::CacheRead] = read;
    usage
}

fn price() -> Price {
    let table = PriceTable::builtin();
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    table
        .find(ModelApi::Anthropic, "claude-opus-4-5", now)
        .unwrap()
        .clone()
}

#[test]
fn nothing_is_known_of_an_agent_or_model_that_was_never_seen() {
    let table = LearnedTable::default();
    table.note("a", "m", &price(), 1_000, &prompt(250, 0));
    assert!(table.of("a", "m").is_some());
    assert!(table.of("b", "m").is_none() && table.of("a", "n").is_none());
    // An empty body or an empty count teaches nothing.
    table.note("b", "m", &price(), 0, &prompt(250, 0));
    table.note("b", "m", &price(), 1_000, &prompt(0, 0));
    assert!(table.of("b", "m").is_none());
}

#[test]
fn one_prompt_is_little_experience_and_many_alike_are_much() {
    let table = LearnedTable::default();
    table.note("a", "m", &price(), 1_000, &prompt(200, 0));
    // The mean and two deviations of half of it.
    assert_eq!(table.of("a", "m").unwrap().tokens(1_000), 400);
    for _ in 0..60 {
        table.note("a", "m", &price(), 1_000, &prompt(200, 0));
    }
    let learned = table.of("a", "m").unwrap();
    assert!((230..=233).contains(&learned.tokens(1_000)), "{learned:?}");
}

#[test]
fn tokens_from_a_cache_weigh_as_much_as_they_cost() {
    let table = LearnedTable::default();
    table.note("a", "m", &price(), 1_000, &prompt(20, 200));
    let learned = table.of("a", "m").unwrap();
    assert_eq!((learned.tokens(1_000), learned.weighted(1_000)), (440, 80));
}

#[test]
fn a_change_of_habit_widens_the_estimate_at_once() {
    let table = LearnedTable::default();
    for _ in 0..60 {
        table.note("a", "m", &price(), 1_000, &prompt(20, 200));
    }
    let before = table.of("a", "m").unwrap().weighted(1_000);
    // The cache has gone cold.
    table.note("a", "m", &price(), 1_000, &prompt(220, 0));
    let after = table.of("a", "m").unwrap().weighted(1_000);
    assert!(before < 50 && after > 150, "{before} {after}");
}

#[test]
fn more_pairs_than_there_is_room_for_push_out_others() {
    let table = LearnedTable::default();
    for agent in 0..3 * PAIRS {
        table.note(&agent.to_string(), "m", &price(), 1_000, &prompt(1, 0));
    }
    assert!(table.pairs.len() <= PAIRS);
}
