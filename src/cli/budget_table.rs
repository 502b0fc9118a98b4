//! Owns how budgets are printed: where they stand, and what was changed about them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::output;
use crate::admin::amend_request::printable;
use crate::admin::budgets::BudgetState;

/// One line for each limit and group of calls.
pub fn table(states: &[BudgetState]) -> String {
    if states.is_empty() {
        return "no budget has a limit".to_owned();
    }
    let header = [
        "BUDGET",
        "FOR",
        "SPENT",
        "MAX",
        "USED",
        "IN FLIGHT",
        "WINDOW",
        "RESETS",
        "AT THIS RATE",
    ];
    let rows: Vec<Vec<String>> = states.iter().map(row).collect();
    output::table(&header, &rows)
}

fn row(state: &BudgetState) -> Vec<String> {
    let amount = |value: &Value| show(&state.unit, value);
    let raised = match state.max == state.configured {
        true => String::new(),
        false => format!(" (raised from {})", amount(&state.configured)),
    };
    let soft = match state.enforcement == "soft" {
        true => ", alerts only",
        false => "",
    };
    vec![
        state.budget.clone(),
        state.scope.as_deref().map_or("-".to_owned(), group),
        amount(&state.spent),
        format!("{}{raised}", amount(&state.max)),
        format!("{} %{}", state.percent, held(state)),
        amount(&state.reserved),
        format!("{}{soft}", state.window),
        state
            .resets
            .as_deref()
            .map_or("never".to_owned(), |at| moment(at, &state.time_zone)),
        state
            .forecast_percent
            .map_or("-".to_owned(), |percent| format!("{percent} % by reset")),
    ]
}

/// What an unclean end left unknown looks like money that is gone; it is worth a word.
fn held(state: &BudgetState) -> String {
    match is_zero(&state.held) {
        true => String::new(),
        false => format!(", {} held", show(&state.unit, &state.held)),
    }
}

fn is_zero(amount: &Value) -> bool {
    match amount {
        Value::String(usd) => usd.bytes().all(|b| matches!(b, b'0' | b'.')),
        other => other.as_u64() == Some(0),
    }
}

/// `2 limits, 1 spent`.
pub fn short(states: &[BudgetState]) -> String {
    let count = |spent: bool| {
        let own = states.iter().filter(|s| is_zero(&s.remaining) == spent);
        own.count()
    };
    format!("{} with room, {} exhausted", count(false), count(true))
}

/// `team-a/scan cap $10 → $15 until 18:00 UTC`.
pub fn raised(answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let unit = text("unit");
    let amount = |field: &str| round(&show(unit, &answer[field]));
    let until = match answer["until"].as_str() {
        Some(at) => format!("until {}", moment(at, text("timeZone"))),
        None => "for good".to_owned(),
    };
    format!(
        "{} cap {} → {} {until}",
        whom(text("scope"), text("budget")),
        amount("old"),
        amount("new"),
    )
}

/// `team-a/scan spent $4.12 → $0 (day UTC)`, a line for each limit.
pub fn was_reset(answer: &Value) -> String {
    let budget = answer["budget"].as_str().unwrap_or_default();
    let limits = answer["limits"].as_array().into_iter().flatten();
    let lines = limits.map(|limit| {
        let text = |field: &str| limit[field].as_str().unwrap_or_default();
        let amount = |field: &str| round(&show(text("unit"), &limit[field]));
        format!(
            "{} spent {} → {} ({})",
            whom(text("scope"), budget),
            amount("old"),
            amount("new"),
            text("window")
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// For whom: an agent by its name, everyone by the budget's.
fn whom(scope: &str, budget: &str) -> String {
    match scope {
        "" => budget.to_owned(),
        "all" => format!("{budget}, each group,"),
        scope => group(scope),
    }
}

/// `agent=team-a/scan` as `team-a/scan`; what is more than an agent stays as it is.
fn group(scope: &str) -> String {
    if scope.is_empty() {
        return "all together".to_owned();
    }
    let agent = scope.strip_prefix("agent=").filter(|a| !a.contains(','));
    printable(agent.unwrap_or(scope))
}

/// `$5.00`, `1200 tokens`.
fn show(unit: &str, amount: &Value) -> String {
    match (unit, amount) {
        ("usd", Value::String(usd)) => format!("${usd}"),
        (unit, amount) => format!("{amount} {unit}"),
    }
}

/// `$10.00` as `$10`.
fn round(amount: &str) -> String {
    amount.strip_suffix(".00").unwrap_or(amount).to_owned()
}

/// `18:00 UTC` for today's, `2026-11-22 00:00 UTC` for others: in the zone of the limit, by its name.
fn moment(at: &str, zone: &str) -> String {
    moment_seen(at, zone, Timestamp::now())
}

fn moment_seen(at: &str, zone: &str, now: Timestamp) -> String {
    let (Ok(at), Ok(place)) = (at.parse::<Timestamp>(), TimeZone::get(zone)) else {
        return at.to_owned();
    };
    let (at, now) = (at.to_zoned(place.clone()), now.to_zoned(place));
    let day = match at.date() == now.date() {
        true => String::new(),
        false => at.strftime("%Y-%m-%d ").to_string(),
    };
    let clock = match at.second() {
        0 => "%H:%M",
        _ => "%H:%M:%S",
    };
    format!("{day}{} {zone}", at.strftime(clock))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state() -> BudgetState {
        serde_json::from_value(json!({
            "budget": "daily", "unit": "usd", "window": "day UTC", "timeZone": "UTC",
            "scope": "agent=marketing/scan", "configured": "10.00", "max": "15.00", "spent": "4.12",
            "reserved": "0.09", "held": "0.00", "remaining": "10.79", "percent": 27, "forecastPercent": 61,
            "since": "2026-11-21T00:00:00Z", "resets": "2020-01-01T00:00:00Z", "enforcement": "hard",
            "alerts": [50, 80], "alertsTold": [],
        }))
        .unwrap()
    }

    #[test]
    fn a_limit_is_one_line() {
        assert_eq!(
            row(&state()),
            [
                "daily",
                "marketing/scan",
                "$4.12",
                "$15.00 (raised from $10.00)",
                "27 %",
                "$0.09",
                "day UTC",
                "2020-01-01 00:00 UTC",
                "61 % by reset"
            ]
        );
        let other = BudgetState {
            unit: "tokens".to_owned(),
            scope: None,
            configured: 10.into(),
            max: 10.into(),
            held: 3.into(),
            resets: None,
            forecast_percent: None,
            enforcement: "soft".to_owned(),
            ..state()
        };
        let row = row(&other);
        assert_eq!(
            (&*row[1], &*row[3], &*row[4]),
            ("-", "10 tokens", "27 %, 3 tokens held")
        );
        assert_eq!(
            (&*row[6], &*row[7], &*row[8]),
            ("day UTC, alerts only", "never", "-")
        );
        let spent = BudgetState {
            remaining: "0.00".into(),
            ..state()
        };
        assert_eq!(short(&[state(), spent]), "1 with room, 1 exhausted");
    }

    #[test]
    fn a_raise_is_told_in_one_line() {
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        let today = now.end_of_day().unwrap().timestamp();
        let answer = json!({
            "budget": "daily", "scope": "agent=marketing/scan", "unit": "usd", "timeZone": "UTC",
            "old": "10.00", "new": "15.00", "until": format!("{today:.0}"),
        });
        assert_eq!(
            raised(&answer),
            "marketing/scan cap $10 → $15 until 23:59:59 UTC"
        );
        let answer = json!({
            "budget": "daily", "scope": "all", "unit": "tokens", "timeZone": "UTC",
            "old": 10, "new": 15, "until": null,
        });
        assert_eq!(
            raised(&answer),
            "daily, each group, cap 10 tokens → 15 tokens for good"
        );
        let answer = json!({ "budget": "daily", "limits": [
            { "scope": "", "unit": "usd", "window": "day UTC", "old": "4.12", "new": "0.00" },
        ]});
        assert_eq!(was_reset(&answer), "daily spent $4.12 → $0 (day UTC)");
    }

    #[test]
    fn moments_are_told_in_the_zone_of_the_limit() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        for (at, zone, told) in [
            ("2026-11-21T18:00:00Z", "UTC", "18:00 UTC"),
            (
                "2026-11-21T17:00:00Z",
                "Europe/Berlin",
                "18:00 Europe/Berlin",
            ),
            (
                "2026-11-21T23:00:00Z",
                "Europe/Berlin",
                "2026-11-22 00:00 Europe/Berlin",
            ),
            ("2026-11-21T23:00:00Z", "UTC", "23:00 UTC"),
        ] {
            assert_eq!(moment_seen(at, zone, now), told);
        }
    }
}
