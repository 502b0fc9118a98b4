//! Owns what becomes of the login when Tollgate is killed in the middle of a renewal, and the next login.

use std::time::Duration;

use super::super::cast::{Cast, LOGIN, answered};
use super::super::checks::title;
use super::super::token_server::fault::Stage;

pub async fn killed_before_the_provider_acted(cast: &mut Cast) {
    title("8. kill -9 while the provider has the request and has not acted");
    let before = cast.server.truth();
    kill_in_a_renewal(cast, Stage::Received).await;
    cast.checks.that(
        "the provider has rotated nothing",
        cast.server.truth().rotations == before.rotations,
    );
    cast.stage.restart().await;
    println!("  tollgate  {}", cast.stage.tollgate.ready);
    let answer = cast.show_ask().await;
    let held = cast.stage.agent(r#"printf %s "$CLAUDE_CODE_OAUTH_TOKEN""#);
    cast.checks.that(
        "started again it goes on by itself: 200, with the same placeholder",
        answered(&answer) && cast.placeholder == held.await,
    );
    let truth = cast.server.truth();
    cast.checks.that(
        "the interrupted renewal was asked for again, once; nothing came twice",
        truth.rotations == before.rotations + 1
            && truth.reuses.is_empty()
            && truth.live_grants == 1,
    );
}

pub async fn killed_before_the_answer_came(cast: &mut Cast) {
    title("9. kill -9 after the provider has rotated and before its answer came");
    let before = cast.server.truth();
    kill_in_a_renewal(cast, Stage::Rotated).await;
    cast.checks.that(
        "the provider has rotated: the new refresh token is lost, and nobody can help that",
        cast.server.truth().rotations == before.rotations + 1,
    );
    cast.stage.restart().await;
    let listed = cast.stage.operator("creds list").await;
    cast.checks.that(
        "started again, it says that it needs a login, why, and which command that is",
        listed.contains("needs login")
            && listed.contains("its answer was lost, or the process ended")
            && listed.contains(&format!("tollgate creds login {LOGIN}")),
    );
    let answer = cast.show_ask().await;
    cast.checks.that(
        "so does the agent's answer, a 503",
        answer.ends_with("\n503\n") && answer.contains("it needs a login"),
    );
    let truth = cast.server.truth();
    cast.checks.that(
        "to find out, it asked the provider once with the old refresh token",
        truth.refused == before.refused + 1 && truth.reuses.len() == 1,
    );
    let (calls, seen) = (cast.calls(), cast.api.seen().len());
    for _ in 0..3 {
        cast.ask().await;
    }
    cast.stage.tollgate.kill().await;
    cast.stage.restart().await;
    cast.stage.operator(&format!("creds refresh {LOGIN}")).await;
    // Two looks at the store, and more than the shortest pause after a failure.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = cast.calls();
    println!(
        "  provider  {calls} calls of the token endpoint so far; {after} after three requests, a restart, `creds refresh` and two seconds"
    );
    cast.checks
        .that("no loop: it is not asked again", after == calls);
    cast.checks.that(
        "and no request goes out with the dead token",
        cast.api.seen().len() == seen,
    );
}

pub async fn a_person_logs_in_again(cast: &mut Cast) {
    title("10. A person logs in again");
    let (server, mut page) = (&cast.server, String::new());
    let told = cast
        .stage
        .converse(&format!("creds login {LOGIN}"), |line| {
            if line.trim().starts_with("https://") {
                line.trim().clone_into(&mut page);
            }
            let asked = line.starts_with("Paste here");
            asked.then(|| format!("{}\n", server.authorize(&page).pasted))
        })
        .await;
    cast.checks.that(
        "logged in with a pasted code",
        told.ends_with("exit 0") && told.contains("logged in"),
    );
    let works = cast.ask_until_answered().await;
    cast.show_ask().await;
    cast.checks.that(
        "the running Tollgate works again, the agent's placeholder is the same",
        works,
    );
}

/// Begins a renewal and kills Tollgate where the provider is that far with it.
async fn kill_in_a_renewal(cast: &mut Cast, stage: Stage) {
    let gate = cast.server.gate(stage);
    let mut refresh = cast.stage.begin_refresh(LOGIN);
    gate.arrived(1).await;
    let meanwhile = cast.ask().await;
    cast.checks.that(
        "the agent is served meanwhile, with the token that is still good",
        answered(&meanwhile),
    );
    println!("  operator$ kill -9 {}", cast.stage.tollgate.pid());
    cast.stage.tollgate.kill().await;
    refresh.wait().await.unwrap();
    gate.cut();
}
