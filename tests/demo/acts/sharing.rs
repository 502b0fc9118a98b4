//! Owns what several processes do with one login: one of them renews it, all of them use it.

use std::time::Instant;

use super::super::cast::{Cast, HOURS, LOGIN, answered};
use super::super::checks::{fingerprint, title};
use super::super::token_server::truth::Truth;
use super::super::tollgate::{PATIENCE, Tollgate};
use super::renewing::MOMENT;

/// Returns the processes that joined.
pub async fn three_processes_and_one_login(cast: &mut Cast) -> Vec<Tollgate> {
    title("11. Two more processes share the store");
    cast.server.set_lifetime(MOMENT);
    cast.stage.operator(&format!("creds refresh {LOGIN}")).await;
    cast.server.set_lifetime(HOURS);
    let short = cast.server.truth();
    let counted = renewals(cast, &cast.stage.tollgate).await;
    let others = vec![cast.stage.another().await, cast.stage.another().await];
    for other in &others {
        println!("  tollgate  {}", other.ready);
    }
    println!(
        "  the access token lives {} s: for all three it is time at about the same moment",
        MOMENT.as_secs()
    );
    let renewed = |truth: &Truth| truth.rotations > short.rotations;
    cast.server.wait_until("renewed", renewed).await;
    let new = cast.server.truth().access_token().to_owned();
    println!("  provider  handed out sha256 {}...", fingerprint(&new));
    let mut all = true;
    for tollgate in others.iter().chain([&cast.stage.tollgate]) {
        all &= serves(cast, tollgate, &new).await;
    }
    cast.checks.that("all three serve the agent with it", all);
    let truth = cast.server.truth();
    cast.checks.that(
        "one of them renewed it, and only once",
        truth.rotations == short.rotations + 1
            && truth.most_at_once == 1
            && truth.reuses == short.reuses,
    );
    let mut since = vec![renewals(cast, &cast.stage.tollgate).await - counted];
    for other in &others {
        since.push(renewals(cast, other).await);
    }
    println!("  metrics   renewals by each of the three: {since:?}");
    cast.checks.that(
        "their metrics tell the same",
        since.iter().sum::<u64>() == 1,
    );
    cast.checks.that(
        "exactly one login is alive, and nobody broke a rule of the protocol",
        truth.live_grants == 1 && truth.violations.is_empty(),
    );
    cast.checks.that(
        "in all this time no request carried an expired, a revoked or an unknown token",
        cast.stale() == 0,
    );
    others
}

/// Whether a process comes to serve the agent with this token: it looks every second for what others store.
async fn serves(cast: &Cast, tollgate: &Tollgate, token: &str) -> bool {
    let proxy = format!("http://{}", tollgate.listen);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let command = format!("HTTPS_PROXY={proxy} https_proxy={proxy} sh ask");
        let answer = cast.stage.agent(&command).await;
        if answered(&answer) && cast.last_seen().token.as_deref() == Some(token) {
            println!("  agent     by {proxy}: 200");
            return true;
        }
    }
    false
}

/// How often a process says that it renewed the login.
async fn renewals(cast: &Cast, tollgate: &Tollgate) -> u64 {
    let metrics = tollgate.answers(&cast.stage.admin_token()).await;
    let series =
        format!("tollgate_credential_refreshes_total{{credential=\"{LOGIN}\",result=\"ok\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().unwrap())
}
