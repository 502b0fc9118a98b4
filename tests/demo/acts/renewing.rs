//! Owns what the agent never notices: tokens are renewed ahead of their end, and once more when the
//! provider ends one early.

use std::time::{Duration, Instant};

use super::super::cast::{Cast, HOURS, LOGIN, answered};
use super::super::checks::{fingerprint, title};
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
    let (fetched, begun) = (cast.server.truth().rotations, Instant::now());
    let mut answers = Vec::new();
    while cast.server.truth().rotations == fetched && begun.elapsed() < PATIENCE {
        answers.push(cast.ask().await);
    }
    let renewed_after = begun.elapsed();
    answers.push(cast.ask().await);
    println!(
        "  renewed by itself {:.1} s after that; the agent asked {} times meanwhile",
        renewed_after.as_secs_f64(),
        answers.len()
    );
    cast.checks.that("ahead of its end", renewed_after < MOMENT);
    cast.checks.that(
        "the agent got 200 each time, with the placeholder it had",
        answers.iter().all(|answer| answered(answer)),
    );
    let last = cast.last_seen();
    println!("  origin    first saw sha256 {}...", fingerprint(&short));
    Cast::tell_seen(&last);
    cast.checks.that(
        "the origin saw the new token, which is another one",
        last.verdict == Verdict::Live && last.token.as_deref() != Some(&*short),
    );
    let listed = cast.stage.operator("creds list").await;
    let row = row(&listed);
    cast.checks.that(
        "`tollgate creds list` tells its end and its last refresh",
        row[1] == "ok" && row[2].starts_with("in ") && row[3] != "-",
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
        row(&listed)[4] != "never",
    );
    let metrics = cast.stage.tollgate.answers(&cast.stage.admin_token()).await;
    let counted = format!("tollgate_replays_total{{credential=\"{LOGIN}\",result=\"accepted\"}} 1");
    cast.checks
        .that("the metrics count it", metrics.contains(&counted));
}

/// The login's row of `tollgate creds list`.
fn row(listed: &str) -> Vec<&str> {
    let row = listed.lines().find(|line| line.starts_with(LOGIN));
    let cells = row.unwrap_or_default().split("  ").map(str::trim);
    cells.filter(|cell| !cell.is_empty()).collect()
}
