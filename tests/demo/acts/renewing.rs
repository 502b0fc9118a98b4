//! Owns what the agent never notices: tokens are renewed ahead of their end, and once more when the
//! provider ends one early.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::cast::{Cast, HOURS, LOGIN, answered};
use super::super::checks::title;
use super::super::token_server::api::Verdict;
use super::super::tollgate::PATIENCE;

/// Of access tokens, where their end is to be seen.
pub const MOMENT: Duration = Duration::from_secs(6);

/// A question of some hundred kilobytes.
const LONG_QUESTION: &str = r#"{ printf '{"model":"claude-demo","max_tokens":16,"messages":[{"role":"user","content":"'
    head -c 200000 /dev/urandom | base64 -w 0; printf '"}]}'; } >long.json"#;

pub async fn time_passes(cast: &mut Cast) {
    title("5. Time passes");
    println!(
        "  the provider now hands out access tokens that live {} s; the operator fetches one",
        MOMENT.as_secs()
    );
    cast.server.set_lifetime(MOMENT);
    cast.stage.operator(&format!("creds refresh {LOGIN}")).await;
    cast.server.set_lifetime(HOURS);
    let short = cast.server.truth().access_token().to_owned();
    let (fetched, before) = (cast.server.truth().rotations, cast.api.seen().len());
    let begun = Instant::now();
    let mut answers = vec![cast.ask().await];
    while cast.last_seen().token.as_deref() == Some(&*short) && begun.elapsed() < PATIENCE {
        answers.push(cast.ask().await);
    }
    let renewed_after = begun.elapsed();
    println!(
        "  renewed by itself {:.1} s after that; the agent has asked {} times",
        renewed_after.as_secs_f64(),
        answers.len()
    );
    cast.checks.that("ahead of its end", renewed_after < MOMENT);
    cast.checks.that(
        "the agent got 200 each time, with the placeholder it had",
        answers.iter().all(|answer| answered(answer)),
    );
    let mut seen = cast.api.seen().split_off(before);
    let live = seen.iter().all(|request| request.verdict == Verdict::Live);
    seen.dedup_by(|one, other| one.token == other.token);
    seen.iter().for_each(Cast::tell_seen);
    let tokens: Vec<&str> = seen.iter().filter_map(|s| s.token.as_deref()).collect();
    cast.checks.that(
        "the origin saw the one token, then the other, each while it was live",
        live && tokens == [&*short, cast.server.truth().access_token()],
    );
    let listed = cast.stage.operator("creds list").await;
    let [state, end, refresh] = [1, 2, 3].map(|column| cell(&listed, column));
    cast.checks.that(
        "`tollgate creds list` tells its end and its last refresh",
        state == "ok" && end.starts_with("in ") && refresh != "-",
    );
    let truth = cast.server.truth();
    println!(
        "  provider  {} refresh tokens redeemed, {} came twice",
        truth.rotations,
        truth.reuses.len()
    );
    cast.checks.that(
        "each refresh token was redeemed once, and never two at a time",
        truth.rotations == fetched + 1 && truth.reuses.is_empty() && truth.most_at_once == 1,
    );
}

pub async fn the_provider_ends_a_token_early(cast: &mut Cast) {
    title("6. The provider ends the access token early");
    let before = cast.api.seen().len();
    let rotations = cast.server.truth().rotations;
    cast.server
        .revoke_access(cast.server.truth().access_token());
    println!("  provider  the access token is worth nothing from now on, and nobody was told");
    cast.stage.agent(LONG_QUESTION).await;
    let hash = cast.stage.show("sha256sum long.json").await;
    let answer = cast.stage.show("sh ask long.json").await;
    cast.checks
        .that("the agent gets 200, by POST", answered(&answer));
    let seen = cast.api.seen().split_off(before);
    for request in &seen {
        Cast::tell_seen(request);
        println!("            body: sha256 {}", request.body_hash);
    }
    let verdicts: Vec<Verdict> = seen.iter().map(|request| request.verdict).collect();
    cast.checks.that(
        "the origin refused the old token and was asked again with a new one",
        verdicts == [Verdict::Withdrawn, Verdict::Live],
    );
    cast.checks.that(
        "both times with the agent's body, to the last byte",
        seen.iter().all(|r| hash.starts_with(&r.body_hash)),
    );
    cast.checks.that(
        "for that, one renewal",
        cast.server.truth().rotations == rotations + 1,
    );
    let listed = cast.stage.operator("creds list").await;
    cast.checks.that(
        "`tollgate creds list` tells of the 401",
        !["", "never"].contains(&cell(&listed, 4)),
    );
    let metrics = cast.stage.tollgate.answers(&cast.stage.admin_token()).await;
    let counted = format!("tollgate_replays_total{{credential=\"{LOGIN}\",result=\"accepted\"}} 1");
    cast.checks
        .that("the metrics count it", metrics.contains(&counted));
}

pub async fn the_agent_refreshes_on_its_own(cast: &mut Cast) {
    title("7. The agent refreshes on its own, as Claude Code does");
    cast.stage.show("cat refresh").await;
    let calls = cast.calls();
    let first = cast
        .stage
        .show(r#"sh refresh "$CLAUDE_CODE_OAUTH_TOKEN""#)
        .await;
    let told = answer_of(&first);
    let refresh = told["refresh_token"].as_str().unwrap_or_default();
    let again = cast.stage.agent(&format!("sh refresh '{refresh}'")).await;
    cast.checks.that(
        "200, with the placeholder that it has already as the access token",
        first.ends_with("\n200\n") && told["access_token"] == cast.placeholder.as_str(),
    );
    cast.checks.that(
        "a refresh token that is a placeholder, too, and gets the same answer",
        !refresh.is_empty()
            && !cast.server.minted().iter().any(|token| token == refresh)
            && answer_of(&again) == told,
    );
    cast.checks.that(
        "hours until its end, and the scope that Claude Code looks for",
        told["expires_in"].as_u64() > Some(300)
            && told["scope"].to_string().contains("user:inference"),
    );
    cast.checks.that(
        "the provider's token endpoint was not called",
        cast.calls() == calls,
    );
    let answer = cast.show_ask().await;
    cast.checks.that(
        "the agent goes on with what it was given",
        answered(&answer),
    );
}

/// The body of what a script of the agent printed.
fn answer_of(printed: &str) -> Value {
    let body = printed.lines().next().unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}

/// A cell of the login's row in `tollgate creds list`; empty if there is none.
fn cell(listed: &str, column: usize) -> &str {
    let row = listed.lines().find(|line| line.starts_with(LOGIN));
    let cells = row.unwrap_or_default().split("  ").map(str::trim);
    let mut cells = cells.filter(|cell| !cell.is_empty());
    cells.nth(column).unwrap_or_default()
}
