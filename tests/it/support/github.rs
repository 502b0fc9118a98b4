//! Stands in for api.github.com and github.com: a strict REST corner, and real repositories served
//! by git's own `http-backend`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::origin::{Exchange, Origin};
use super::proxy::{ProxyBuilder, proxy};
use super::reply::{self, Reply};

/// The token that only the proxy may know.
pub const REAL_TOKEN: &str = "ghp_REALk3Zv8XqLw2TnRy7MbPc5HdJf9REAL";
/// The repository that is there from the start, with one commit.
pub const REPOSITORY: &str = "acme/widgets";

pub struct GitHub {
    pub origin: Origin,
    repositories: TempDir,
}

pub async fn github() -> GitHub {
    let repositories = tempfile::tempdir().unwrap();
    let root = repositories.path().to_owned();
    make_repository(&root).await;
    let backend = Arc::new(Backend {
        program: git(&root, &["--exec-path"]).await.join("git-http-backend"),
        root,
    });
    let origin = Origin::tls(&["github.com", "api.github.com"], move |exchange| {
        answer(exchange, backend.clone())
    })
    .await;
    GitHub {
        origin,
        repositories,
    }
}

impl GitHub {
    /// What a branch of the repository points to.
    pub async fn head_of(&self, branch: &str) -> String {
        let repository = self.repositories.path().join(format!("{REPOSITORY}.git"));
        let head = git(&repository, &["rev-parse", branch]).await;
        head.display().to_string()
    }
}

/// A proxy that lets agents reach it with a placeholder.
pub fn in_front_of(github: &GitHub) -> ProxyBuilder {
    proxy()
        .origin(&github.origin)
        .policy(
            "
            - hosts: [github.com, api.github.com]
              credentials: [github]
            ",
        )
        .credential_file(
            "github",
            REAL_TOKEN,
            "
            hosts: [github.com, api.github.com]
            placements:
              - basic: {}
              - header: {name: authorization, format: \"token {}\"}
              - bearer: {}
            placeholder: {shape: \"ghp_[A-Za-z0-9:36]\", env: [GH_TOKEN]}
            ",
        )
}

struct Backend {
    program: PathBuf,
    root: PathBuf,
}

async fn answer(exchange: Exchange, backend: Arc<Backend>) -> Reply {
    let authority = exchange.head.authority.clone();
    match authority.split(':').next() {
        Some("api.github.com") => rest(exchange).await,
        _ => smart_http(exchange, &backend).await,
    }
}

async fn rest(mut exchange: Exchange) -> Reply {
    exchange.body().await;
    let head = &exchange.head;
    let right = [
        format!("token {REAL_TOKEN}"),
        format!("Bearer {REAL_TOKEN}"),
    ];
    if !head
        .header("authorization")
        .is_some_and(|sent| right.iter().any(|r| r == sent))
    {
        let body = json!({"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"});
        return reply::json(401, &body);
    }
    let (owner, name) = REPOSITORY.split_once('/').unwrap();
    let reply = match (head.method.as_str(), head.path()) {
        ("GET", "/user") => reply::json(200, &json!({"login": "octo-agent", "id": 1})),
        ("GET", path) if path == format!("/repos/{REPOSITORY}") => reply::json(
            200,
            &json!({
                "id": 7, "name": name, "full_name": REPOSITORY, "private": true,
                "owner": {"login": owner}, "default_branch": "main",
                "clone_url": format!("https://github.com/{REPOSITORY}.git"),
            }),
        ),
        ("POST", "/graphql") => reply::json(
            200,
            &json!({"data": {
                "viewer": {"login": "octo-agent"},
                "repository": {
                    "id": "R_7", "name": name, "owner": {"login": owner}, "hasIssuesEnabled": true,
                    "description": "", "hasWikiEnabled": false, "viewerPermission": "ADMIN",
                    "defaultBranchRef": {"name": "main"}, "parent": null,
                    "mergeCommitAllowed": true, "rebaseMergeAllowed": true, "squashMergeAllowed": true,
                },
            }}),
        ),
        _ => reply::json(404, &json!({"message": "Not Found"})),
    };
    reply::with(reply, "x-oauth-scopes", "repo, read:org")
}

/// The 401 comes first, as github.com does it for a private repository; the user name is arbitrary.
async fn smart_http(mut exchange: Exchange, backend: &Backend) -> Reply {
    let head = exchange.head.clone();
    if head
        .basic()
        .is_none_or(|(_, password)| password != REAL_TOKEN)
    {
        exchange.body().await;
        let reply = reply::text(
            401,
            "Password authentication is not supported for Git operations.\n",
        );
        return reply::with(reply, "www-authenticate", "Basic realm=\"GitHub\"");
    }
    let mut command = Command::new(&backend.program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", &backend.root)
        .env("GIT_PROJECT_ROOT", &backend.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "octo-agent") // allows receive-pack
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.path())
        .env(
            "QUERY_STRING",
            head.target.split_once('?').map_or("", |(_, q)| q),
        );
    for (variable, field) in [
        ("CONTENT_TYPE", "content-type"),
        ("CONTENT_LENGTH", "content-length"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = head.header(field) {
            command.env(variable, value);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        while let Some(chunk) = exchange.chunk().await {
            if stdin.write_all(&chunk).await.is_err() {
                break; // the backend has heard enough
            }
        }
    };
    let (_, output) = tokio::join!(feed, child.wait_with_output());
    cgi(&output.unwrap().stdout)
}

/// RFC 3875, section 6: header lines, an empty line, the body.
fn cgi(output: &[u8]) -> Reply {
    let end = memchr::memmem::find(output, b"\r\n\r\n").expect("a CGI head");
    let head = std::str::from_utf8(&output[..end]).unwrap();
    let mut reply = reply::status(200);
    *reply.body_mut() = reply::full(Bytes::copy_from_slice(&output[end + 4..]));
    for line in head.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => *reply.status_mut() = value[..3].parse().unwrap(),
            _ => {
                let name: http::HeaderName = name.parse().unwrap();
                reply.headers_mut().append(name, value.parse().unwrap());
            }
        }
    }
    reply
}

async fn make_repository(root: &Path) {
    let seed = root.join("seed");
    let bare = root.join(format!("{REPOSITORY}.git"));
    std::fs::create_dir_all(&seed).unwrap();
    std::fs::write(seed.join("README.md"), "# Widgets\n").unwrap();
    git(&seed, &["init", "-q", "-b", "main"]).await;
    git(&seed, &["add", "."]).await;
    git(&seed, &["commit", "-q", "-m", "Begin"]).await;
    git(
        &seed,
        &["clone", "-q", "--bare", ".", bare.to_str().unwrap()],
    )
    .await;
    git(&bare, &["config", "http.receivepack", "true"]).await;
}

/// Runs git with nothing of the user's; returns the first line it prints.
async fn git(at: &Path, args: &[&str]) -> PathBuf {
    let output = Command::new("git")
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", at)
        .envs([
            ("GIT_AUTHOR_NAME", "Test"),
            ("GIT_AUTHOR_EMAIL", "test@example.com"),
            ("GIT_COMMITTER_NAME", "Test"),
            ("GIT_COMMITTER_EMAIL", "test@example.com"),
        ])
        .current_dir(at)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines().next().unwrap_or_default().into()
}
