//! `make demo-oauth`: a login that Tollgate owns, from its import to the next login. A strict stand-in for
//! platform.claude.com and api.anthropic.com, the real `tollgate` binary in front of them, and curl as an
//! agent that holds only a placeholder. Exits with 0 only if every step came out as it must.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::fn_params_excessive_bools,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

mod acts;
#[path = "../it/support/ca.rs"]
#[allow(dead_code)]
mod ca;
mod cast;
mod checks;
#[path = "../it/support/messages.rs"]
#[allow(dead_code)]
mod messages;
#[path = "../it/support/needles.rs"]
#[allow(dead_code)]
mod needles;
#[path = "../it/support/origin.rs"]
#[allow(dead_code)]
mod origin;
#[path = "../it/support/recorded.rs"]
#[allow(dead_code)]
mod recorded;
#[path = "../it/support/reply.rs"]
#[allow(dead_code)]
mod reply;
#[allow(dead_code)]
mod stage;
#[path = "../it/support/token_server/mod.rs"]
#[allow(dead_code)]
mod token_server;
#[allow(dead_code)]
mod tollgate;

use std::process::ExitCode;

use acts::{crashing, renewing, searching, sharing, taking_over};
use cast::Cast;

#[tokio::main]
async fn main() -> ExitCode {
    let mut cast = Cast::gather().await;
    taking_over::the_stage(&mut cast);
    taking_over::a_person_hands_the_login_over(&mut cast).await;
    taking_over::what_the_agent_holds(&mut cast).await;
    taking_over::the_agent_asks(&mut cast).await;
    renewing::time_passes(&mut cast).await;
    renewing::the_provider_ends_a_token_early(&mut cast).await;
    renewing::the_agent_refreshes_on_its_own(&mut cast).await;
    crashing::killed_before_the_provider_acted(&mut cast).await;
    crashing::killed_before_the_answer_came(&mut cast).await;
    crashing::a_person_logs_in_again(&mut cast).await;
    let others = sharing::three_processes_and_one_login(&mut cast).await;
    searching::every_token_is_searched_for(&mut cast, &others).await;
    cast.bow(others).await
}
