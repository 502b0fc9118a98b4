use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::budget::set::BudgetSet;
use crate::config::load::load_bundle;

/// The budgets of these documents.
fn budgets(specs: &[(&str, &str)]) -> BudgetSet {
    let documents: Vec<String> = specs
        .iter()
        .map(|(name, spec)| {
            format!("---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: {{name: {name}}}\nspec: {spec}\n")
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("budgets.yaml");
    std::fs::write(&file, documents.concat()).unwrap();
    let bundle = load_bundle(&[file], &[]).unwrap();
    BudgetSet::compile(&bundle).unwrap()
}

fn one(spec: &str) -> Arc<Budget> {
    budgets(&[("cap", spec)]).budgets()[0].clone()
}

const DAY: &str = "{unit: usd, max: \"5\", window: {calendar: day}}";

fn asked(scope: Option<&str>, agent: Option<&str>) -> AmendRequest {
    AmendRequest {
        scope: scope.map(ToOwned::to_owned),
        agent: agent.map(ToOwned::to_owned),
        ..AmendRequest::default()
    }
}

fn known(scopes: &[&str]) -> Vec<Arc<str>> {
    scopes.iter().map(|scope| (*scope).into()).collect()
}

#[test]
fn an_unknown_budget_is_answered_with_the_nearest_one() {
    let spec = format!("{{limits: [{DAY}]}}");
    let set = budgets(&[("scan-daily", &spec), ("review", &spec)]);
    assert_eq!(
        &*find(set.budgets(), "scan-daily").unwrap().name,
        "scan-daily"
    );
    let error = find(set.budgets(), "scan-dayly").unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
    assert!(error.to_string().contains("did you mean `scan-daily`?"));
    let error = find(set.budgets(), "other").unwrap_err();
    assert!(
        error.to_string().contains("tollgate budget show"),
        "{error}"
    );
    let error = find(&[], "other").unwrap_err();
    assert!(error.to_string().contains("there are no budgets"));
}

#[test]
fn the_limit_is_chosen_by_its_unit_and_by_its_window_where_there_are_several() {
    let budget = one(&format!(
        "{{limits: [{DAY}, {{unit: usd, max: \"50\", window: {{calendar: month, tz: Europe/Berlin}}}}, \
         {{unit: tokens, max: 1000, window: {{rolling: 1h}}}}]}}"
    ));
    let chosen = limit(&budget, Measure::Tokens, None).unwrap();
    assert_eq!(window_name(&chosen.window), "rolling 1h");
    let error = limit(&budget, Measure::Usd, None).unwrap_err();
    assert_eq!(error.status(), StatusCode::CONFLICT);
    let text = error.to_string();
    assert!(text.contains("day") && text.contains("month"), "{text}");
    for window in ["month", "month Europe/Berlin"] {
        let chosen = limit(&budget, Measure::Usd, Some(window)).unwrap();
        assert_eq!(chosen.max, 50_000_000_000);
    }
    let error = limit(&budget, Measure::Requests, None).unwrap_err();
    assert!(
        error.to_string().contains("1000 tokens (rolling 1h)"),
        "{error}"
    );
    let error = limit(&budget, Measure::Usd, Some("week")).unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND);
    assert_eq!(in_window(&budget, None).unwrap().len(), 3);
}

#[test]
fn a_budget_of_pace_alone_cannot_be_raised() {
    let budget = one("{rate: {requests: 5/s}}");
    let error = limit(&budget, Measure::Requests, None).unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    assert!(error.to_string().contains("pace"), "{error}");
}

#[test]
fn a_group_is_never_guessed() {
    let budget = one(&format!("{{limits: [{DAY}]}}"));
    let limit = &budget.limits[0];
    let nobody = asked(None, None);
    let error = scope(limit, &nobody, &[]).unwrap_err();
    assert_eq!(error.status(), StatusCode::CONFLICT);
    let only = known(&["agent=scan"]);
    assert_eq!(scope(limit, &nobody, &only), Ok(Some("agent=scan".into())));
    let two = known(&["agent=scan", "agent=fix"]);
    let error = scope(limit, &nobody, &two).unwrap_err().to_string();
    assert!(
        error.contains("agent=fix, agent=scan") && error.contains("--scope all"),
        "{error}"
    );
    assert_eq!(scope(limit, &asked(Some("all"), None), &two), Ok(None));
    let both = asked(Some("all"), Some("scan"));
    assert_eq!(
        scope(limit, &both, &two).unwrap_err().status(),
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn an_agent_can_be_named_before_its_first_call() {
    let budget = one(&format!(
        "{{match: {{agents: [\"team-a/*\"]}}, limits: [{DAY}]}}"
    ));
    let limit = &budget.limits[0];
    let own = scope(limit, &asked(None, Some("team-a/scan")), &[]);
    assert_eq!(own, Ok(Some("agent=team-a/scan".into())));
    let error = scope(limit, &asked(None, Some("team-b/scan")), &[]).unwrap_err();
    assert!(
        error.to_string().contains("is not for the agent"),
        "{error}"
    );
    let error = scope(limit, &asked(Some("agent=team-b/x"), None), &[]).unwrap_err();
    assert!(
        error.to_string().contains("is not for the agent"),
        "{error}"
    );

    let budget = one(&format!("{{match: {{agents: [scan]}}, limits: [{DAY}]}}"));
    let own = scope(&budget.limits[0], &asked(None, None), &[]);
    assert_eq!(own, Ok(Some("agent=scan".into())));
}

#[test]
fn groups_are_written_as_they_are_shown() {
    let budget = one(&format!(
        "{{match: {{groupBy: [model, agent]}}, limits: [{DAY}]}}"
    ));
    let limit = &budget.limits[0];
    let forged = "agent=scan,model=x,agent=fix";
    for good in ["agent=scan,model=claude-opus", forged] {
        let own = scope(limit, &asked(Some(good), None), &[]);
        assert_eq!(own, Ok(Some(good.into())));
    }
    for bad in ["", "scan", "agent=scan", "model=x", "agent=,model=x"] {
        let error = scope(limit, &asked(Some(bad), None), &[]).unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{bad}: {error}");
    }
    let two = known(&[
        "agent=scan,model=a",
        "agent=scan,model=b",
        "agent=fix,model=a",
    ]);
    let fix = scope(limit, &asked(None, Some("fix")), &two);
    assert_eq!(fix, Ok(Some("agent=fix,model=a".into())));
    let error = scope(limit, &asked(None, Some("scan")), &two).unwrap_err();
    assert_eq!(error.status(), StatusCode::CONFLICT);
    let error = scope(limit, &asked(None, Some("new")), &two).unwrap_err();
    assert!(
        error.to_string().contains("agent=NAME,model=NAME"),
        "{error}"
    );
}

#[test]
fn one_pot_has_no_groups() {
    let budget = one(&format!("{{match: {{groupBy: [none]}}, limits: [{DAY}]}}"));
    let limit = &budget.limits[0];
    for fine in [asked(None, None), asked(Some(""), None)] {
        assert_eq!(scope(limit, &fine, &[]), Ok(Some("".into())));
    }
    for wrong in [asked(Some("agent=scan"), None), asked(None, Some("scan"))] {
        let error = scope(limit, &wrong, &[]).unwrap_err();
        assert!(error.to_string().contains("all calls together"), "{error}");
    }
    let budget = one(&format!(
        "{{match: {{groupBy: [namespace]}}, limits: [{DAY}]}}"
    ));
    let error = scope(&budget.limits[0], &asked(None, Some("team-a/scan")), &[]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("namespace=NAME"), "{error}");
}

#[test]
fn every_change_says_who_and_why() {
    let signed = |reason: &str, who: &str| {
        let request = AmendRequest {
            reason: reason.to_owned(),
            who: who.to_owned(),
            ..AmendRequest::default()
        };
        request.signed()
    };
    assert_eq!(signed("release", "alice"), Ok(()));
    for (reason, who, word) in [
        ("", "alice", "`reason` is missing"),
        (" \t", "alice", "`reason` is missing"),
        ("release", "", "`who` is missing"),
        ("two\nlines", "alice", "`reason` is one line"),
        ("release", "\u{1b}[2J", "`who` is one line"),
    ] {
        let error = signed(reason, who).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn windows_have_words() {
    let day = WindowKind::Calendar(Period::Day, TimeZone::get("Europe/Berlin").unwrap());
    assert_eq!(window_name(&day), "day Europe/Berlin");
    for (seconds, word) in [
        (60, "1m"),
        (5400, "1h30m"),
        (86400, "24h"),
        (36 * 3600, "36h"),
        (7 * 86400, "7d"),
    ] {
        let window = WindowKind::Fixed(Duration::from_secs(seconds));
        assert_eq!(window_word(&window), word);
    }
    assert_eq!(printable("a\u{1b}[31m\u{202e}b"), "a\u{fffd}[31m\u{fffd}b");
}

#[test]
fn an_agent_that_nobody_knows_is_answered_with_the_nearest_one() {
    let agents = [Agent::parse("team-a/scan").unwrap()];
    let known = known(&["agent=team-b/fix,model=m"]);
    let check = |agent: Option<&str>, scope: Option<&str>| {
        agent_exists(&asked(scope, agent), &agents, &known).map_err(|error| error.to_string())
    };
    for agent in [None, Some("team-a/scan"), Some("team-b/fix")] {
        assert_eq!(check(agent, None), Ok(()));
    }
    for scope in ["all", "", "model=m", "agent=team-a/scan,model=x"] {
        assert_eq!(check(None, Some(scope)), Ok(()));
    }
    let near = check(Some("team-a/skan"), None).unwrap_err();
    assert!(near.contains("did you mean `team-a/scan`?"), "{near}");
    let far = check(None, Some("agent=nobody")).unwrap_err();
    assert!(
        far.contains("no agent `nobody`") && far.contains("team-a/scan, team-b/fix"),
        "{far}"
    );
}
