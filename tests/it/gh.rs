//! GitHub's own client: `Authorization: token`, and git with gh as its credential helper.

use std::path::Path;

use super::support::agent::Agent;
use super::support::github::{self, GitHub, REAL_TOKEN, REPOSITORY};

pub async fn look_and_clone(gh: &Path, agent: &Agent, github: &GitHub) {
    let user = agent.run(gh, &["api", "user", "--jq", ".login"]).await;
    assert_eq!(user.ok().trim(), "octo-agent");
    let request = github.origin.only("/user");
    let sent = request.header("authorization").unwrap();
    assert_eq!(sent, format!("token {REAL_TOKEN}"));
    agent
        .run(gh, &["repo", "clone", REPOSITORY, "widgets", "--", "-q"])
        .await
        .ok();
    assert!(agent.work().join("widgets/README.md").exists());
    let path = format!("/{REPOSITORY}.git/git-upload-pack");
    let pulls = github.origin.requests_for(&path);
    assert!(!pulls.is_empty());
    for pull in pulls {
        assert_eq!(pull.basic().unwrap().1, REAL_TOKEN);
    }
}

#[tokio::test]
async fn gh_asks_the_api_and_clones_with_a_placeholder() {
    let gh = client!("gh");
    let github = github::github().await;
    let proxy = github::in_front_of(&github).start().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("GH_TOKEN").to_owned();
    look_and_clone(&gh, &agent, &github).await;
    github.origin.assert_no_head_mentions(&placeholder);
}
