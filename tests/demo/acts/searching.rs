//! Owns the end: every token that was ever made is searched for in all that anybody could see.

use super::super::cast::{Cast, LOGIN};
use super::super::checks::{search, title};
use super::super::tollgate::Tollgate;

pub async fn every_token_is_searched_for(cast: &mut Cast, others: &[Tollgate]) {
    title("12. Every token, searched for everywhere");
    let needles = cast.server.needles();
    println!(
        "  {} tokens were made, access and refresh; each is searched for as it is, in base64, in hexadecimal ...",
        cast.server.minted().len()
    );
    let received: String = cast
        .api
        .seen()
        .into_iter()
        .filter_map(|s| s.token)
        .collect();
    cast.checks.that(
        "the search finds them where they must be: in what the origin received",
        search(&received, &needles) > 1,
    );
    let store = cast.store();
    let kept = std::fs::read_to_string(&store).unwrap();
    cast.checks.that(
        &format!(
            "and in state/oauth/{LOGIN}.json, mode 0600, the one file that Tollgate keeps them in"
        ),
        search(&kept, &needles) > 1 && cast.store_mode() == 0o600,
    );
    let places = cast.stage.everything(others, &[store]).await;
    cast.checks.are_free_of(&needles, &places);
}
