//! git over smart HTTP: first without a credential, then Basic with the placeholder inside.

use std::path::Path;

use super::support::agent::Agent;
use super::support::github::{self, GitHub, REAL_TOKEN, REPOSITORY};

/// Clones, commits, pushes; `size` is that of the new file.
pub async fn clone_and_push(git: &Path, agent: Agent, github: &GitHub, size: usize) {
    let agent = agent
        .env("GIT_AUTHOR_NAME", "Agent")
        .env("GIT_AUTHOR_EMAIL", "agent@example.com")
        .env("GIT_COMMITTER_NAME", "Agent")
        .env("GIT_COMMITTER_EMAIL", "agent@example.com");
    let token = agent.var("GH_TOKEN").to_owned();
    let url = format!("https://x-access-token:{token}@github.com/{REPOSITORY}.git");
    agent.run(git, &["clone", "-q", &url, "."]).await.ok();
    let readme = std::fs::read_to_string(agent.work().join("README.md")).unwrap();
    assert_eq!(readme, "# Widgets\n");
    std::fs::write(agent.work().join("new.bin"), noise(size)).unwrap();
    agent.run(git, &["add", "."]).await.ok();
    agent.run(git, &["commit", "-q", "-m", "Add"]).await.ok();
    let local = agent.run(git, &["rev-parse", "HEAD"]).await;
    agent.run(git, &["push", "-q", "origin", "main"]).await.ok();
    assert_eq!(github.head_of("main").await, local.ok().trim());
}

/// git asks without a credential first, and the 401 must reach it; after that only the real token counts.
pub fn assert_asked_as_git_does(github: &GitHub) {
    let requests = github.origin.requests();
    assert_eq!(requests[0].header("authorization"), None);
    let path = format!("/{REPOSITORY}.git/info/refs");
    assert_eq!(
        requests[0].target,
        format!("{path}?service=git-upload-pack")
    );
    for request in requests
        .iter()
        .filter(|r| r.header("authorization").is_some())
    {
        let (user, password) = request.basic().unwrap();
        assert_eq!(user, "x-access-token");
        assert_eq!(password, REAL_TOKEN);
    }
    let pushes = github
        .origin
        .requests_for(&format!("/{REPOSITORY}.git/git-receive-pack"));
    assert!(pushes.iter().any(|p| p.basic().is_some() && p.complete));
}

/// Bytes that zlib cannot make smaller (xorshift64).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size.div_ceil(8)).flatten().take(size).collect()
}

#[tokio::test]
async fn git_clones_and_pushes_with_a_placeholder() {
    let git = client!("git");
    let github = github::github().await;
    let proxy = github::in_front_of(&github).start().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("GH_TOKEN").to_owned();
    clone_and_push(&git, agent, &github, 1000).await;
    assert_asked_as_git_does(&github);
    github.origin.assert_no_head_mentions(&placeholder);
}

/// Above `http.postBuffer` (1 MiB) git probes, then sends a body of unknown length.
pub async fn push_more_than_the_buffer(git: &Path, agent: Agent, github: &GitHub, version: &str) {
    let config = format!("[http]\n\tversion = {version}\n");
    std::fs::write(agent.home().join(".gitconfig"), config).unwrap();
    clone_and_push(git, agent, github, 3 << 20).await;
    assert_asked_as_git_does(github);
    let path = format!("/{REPOSITORY}.git/git-receive-pack");
    let pushes = github.origin.requests_for(&path);
    let big = pushes.iter().find(|p| p.body.len() > 3 << 20).unwrap();
    assert_eq!(big.header("content-length"), None, "{:?}", big.headers);
}

#[tokio::test]
async fn git_pushes_more_than_its_buffer() {
    let git = client!("git");
    for version in ["HTTP/1.1", "HTTP/2"] {
        let github = github::github().await;
        let proxy = github::in_front_of(&github).start().await;
        let agent = Agent::at(&proxy.door().await);
        push_more_than_the_buffer(&git, agent, &github, version).await;
    }
}

/// A token of the agent's own, or of another agent, never leaves.
#[tokio::test]
async fn git_with_a_foreign_token_is_refused_before_the_origin_sees_it() {
    let git = client!("git");
    let github = github::github().await;
    let proxy = github::in_front_of(&github).start().await;
    let agent = Agent::at(&proxy.door().await);
    let foreign = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let url = format!("https://x-access-token:{foreign}@github.com/{REPOSITORY}.git");
    let finished = agent.run(&git, &["clone", "-q", &url, "."]).await;
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("403"), "{}", finished.stderr);
    for request in github.origin.requests() {
        assert_eq!(request.header("authorization"), None);
    }
}
