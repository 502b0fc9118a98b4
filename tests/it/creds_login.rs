//! Logins from the command line: made elsewhere, with a pasted code, with a code entered elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::support::agent::Finished;
use super::support::desk::{Desk, claude_file, codex_file};
use super::support::operator::{PATIENCE, finish, until};
use super::support::proxy::{Proxy, without_root_rights};
use super::support::reply::full;
use super::support::token_server::api::Verdict;
use super::support::token_server::server::token_server;
use super::support::tunnel;

/// What an agent with this placeholder gets to see of the API.
async fn asks(proxy: &Proxy, host: &str, path: &str, placeholder: &str) -> u16 {
    let mut sender = tunnel::http2(&proxy.bare_door(), host).await;
    let request = Request::get(format!("https://{host}{path}"))
        .header("authorization", format!("Bearer {placeholder}"))
        .body(full(""))
        .unwrap();
    sender
        .send_request(request)
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn a_login_of_claude_code_is_taken_over_and_its_file_stays_as_it_was() {
    let desk = Desk::claude().await;
    let login = desk.server.login();
    let file = desk.write(".credentials.json", &claude_file(&login));
    let (bytes, modified) = (
        std::fs::read(&file).unwrap(),
        std::fs::metadata(&file).unwrap().modified().unwrap(),
    );

    let imported = desk.run(&format!("creds import {}", file.display())).await;
    assert!(
        imported
            .ok()
            .starts_with("claude-login: login taken over into file:")
            && imported.stdout.contains("(generation 1)")
            && imported.stdout.contains("expires in 8h"),
        "{}",
        imported.stdout
    );
    for advice in ["was left as it is", "good for one use", "Do not log out"] {
        assert!(imported.stderr.contains(advice), "{}", imported.stderr);
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    assert_eq!(
        std::fs::metadata(&file).unwrap().modified().unwrap(),
        modified
    );
    let kept = desk.builder.path("state/oauth/claude-login.json");
    assert_eq!(
        std::fs::metadata(kept).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let listed = desk.run("creds list -o json").await.json();
    assert_eq!(listed[0]["state"], "ok", "{listed}");
    let placeholder = desk
        .run("creds placeholder claude-login --format claude")
        .await
        .json();
    let claude = &placeholder["claudeAiOauth"];
    assert_eq!(
        (&claude["subscriptionType"], &claude["rateLimitTier"]),
        (&json!("max"), &json!("tier_4"))
    );
    let placeholder = claude["accessToken"].as_str().unwrap().to_owned();

    let (server, api, proxy) = desk.start().await;
    let status = asks(&proxy, "api.anthropic.com", "/v1/models", &placeholder).await;
    assert_eq!(status, 200);
    let seen = api.seen().pop().unwrap();
    assert_eq!(
        (seen.token, seen.verdict),
        (Some(login.access_token), Verdict::Live)
    );
    server.truth().assert_one_clean_grant();
    assert_eq!(server.truth().refreshes, 0, "what is good is not renewed");
}

#[tokio::test]
async fn a_login_that_is_held_is_not_replaced_unless_that_is_said() {
    let desk = Desk::claude().await;
    let first = desk.write("first.json", &claude_file(&desk.server.login()));
    desk.run(&format!("creds import {}", first.display()))
        .await
        .ok();
    let refreshed = desk.run("creds refresh claude-login").await;
    assert!(
        refreshed
            .ok()
            .starts_with("claude-login: refreshed, expires in 8h"),
        "{}",
        refreshed.stdout
    );
    assert_eq!(desk.server.truth().rotations, 1);

    let again = desk.run(&format!("creds import {}", first.display())).await;
    assert_eq!(again.code, Some(1), "{}", again.stdout);
    assert!(
        again
            .stderr
            .contains("holds a login already (generation 2, renewed ")
            && again.stderr.contains("--replace"),
        "{}",
        again.stderr
    );
    desk.server.truth().assert_one_clean_grant();

    // The running proxy goes on with the login that is put in its place.
    let other = desk.server.login();
    let second = desk.write("second.json", &claude_file(&other));
    let text = desk.run("creds placeholder claude-login").await;
    let placeholder = text.ok().trim().to_owned();
    let (_server, api, proxy) = desk.start().await;
    let second = second.display().to_string();
    let replaced = proxy
        .cli(&["creds", "import", &second, "--replace", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&replaced["generation"], &replaced["name"]),
        (&json!(3), &json!("claude-login"))
    );
    until("the new login is in use", PATIENCE, async || {
        asks(&proxy, "api.anthropic.com", "/v1/models", &placeholder).await;
        api.seen().pop().unwrap().token.as_deref() == Some(&other.access_token)
    })
    .await;
}

#[tokio::test]
async fn what_is_no_login_is_refused_with_what_to_do() {
    let desk = Desk::claude().await;
    let login = desk.server.login();
    let codex = json!({"tokens": {"id_token": "a.b.c", "access_token": "x", "refresh_token": "y"}});
    for (content, said) in [
        (
            json!({"claudeAiOauth": {"accessToken": "", "refreshToken": "", "expiresAt": 0}}),
            "Claude Code has emptied it",
        ),
        (
            json!({"claudeAiOauth": {"accessToken": login.access_token, "refreshToken": ""}}),
            "it holds no refresh token",
        ),
        (
            json!({"claudeAiOauth": {"accessToken": "sk-ant-oat01-PLACEHOLDER", "refreshToken": "placeholder"}}),
            "is a placeholder",
        ),
        (json!({"servers": {}}), "it is none of: Claude Code's"),
        (codex, "no credential is for a login of Codex"),
    ] {
        let file = desk.write("file.json", &content);
        let refused = desk.run(&format!("creds import {}", file.display())).await;
        assert_eq!(refused.code, Some(78), "{content}");
        assert!(
            refused.stderr.contains(said),
            "{content}: {}",
            refused.stderr
        );
    }
    // What Claude Code has made of its file behind Tollgate.
    let text = desk.run("creds placeholder claude-login").await;
    let own = json!({"claudeAiOauth": {"accessToken": text.ok().trim(), "refreshToken": "sk-ant-ort01-x"}});
    let file = desk.write("file.json", &own);
    let refused = desk
        .run(&format!("creds import {} --replace", file.display()))
        .await;
    assert_eq!(refused.code, Some(78), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("holds placeholders of Tollgate"),
        "{}",
        refused.stderr
    );
    let absent = desk.run("creds import nowhere.json").await;
    assert!(
        absent.stderr.contains("nowhere.json cannot be read"),
        "{}",
        absent.stderr
    );
    let file = desk.write("file.json", &claude_file(&login));
    let unknown = desk
        .run(&format!("creds import {} --as nobody", file.display()))
        .await;
    assert!(
        unknown.stderr.contains("the credentials are: claude-login"),
        "{}",
        unknown.stderr
    );
    assert!(!desk.builder.path("state/oauth/claude-login.json").exists());
}

/// A command that is spoken with over pipes.
struct Talk {
    child: Child,
    output: BufReader<tokio::process::ChildStdout>,
    said: String,
}

impl Talk {
    fn begin(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            output,
            said: String::new(),
        }
    }

    /// The first line that holds this.
    async fn hears(&mut self, wanted: &str) -> String {
        let reading = async {
            loop {
                let mut line = String::new();
                let read = self.output.read_line(&mut line).await.unwrap();
                self.said.push_str(&line);
                assert!(read > 0, "no {wanted:?} in {}", self.said);
                if line.contains(wanted) {
                    return line.trim().to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("it says so in time")
    }

    async fn says(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn ends(mut self) -> Finished {
        drop(self.child.stdin.take());
        let rest = async {
            self.output.read_to_string(&mut self.said).await.unwrap();
            self.child.wait_with_output().await.unwrap()
        };
        let output = tokio::time::timeout(PATIENCE, rest).await.expect("it ends");
        Finished {
            code: output.status.code(),
            stdout: self.said,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_person_logs_in_with_the_code_that_claudes_page_shows() {
    let desk = Desk::claude().await;
    let mut talk = Talk::begin(desk.command("creds login claude-login --no-browser"));
    let url = talk.hears("https://claude.com/cai/oauth/authorize?").await;
    let consent = desk.server.authorize(&url);
    // Something else was in the clipboard.
    talk.says("https://claude.com/").await;
    talk.says(&consent.pasted).await;
    let finished = talk.ends().await;
    desk.assert_shows_no_token(&finished);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished
            .stdout
            .contains("claude-login: logged in, kept in file:")
            && finished.stdout.contains("expires in 8h"),
        "{}",
        finished.stdout
    );
    assert!(!finished.stdout.contains(&consent.code) && !finished.stderr.contains(&consent.code));
    let truth = desk.server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(truth.logins, 1);
    let text = desk.run("creds placeholder claude-login").await;
    let placeholder = text.ok().trim().to_owned();
    let (_server, api, proxy) = desk.start().await;
    assert_eq!(
        asks(&proxy, "api.anthropic.com", "/v1/models", &placeholder).await,
        200
    );
    api.assert_no_stale_token();
}

#[tokio::test]
async fn a_login_that_fails_leaves_nothing_behind() {
    let desk = Desk::claude().await;
    for (pasted, said) in [
        (vec![], "this is no code"),
        (vec!["x y", "https://a/", ""], "this is no code"),
        (vec!["code#another-state", "", ""], "this is no code"),
        (
            vec!["https://platform.claude.com/oauth/code/callback?error=access_denied"],
            "refused the login (access_denied)",
        ),
        (vec!["a-code-that-was-never-issued"], "invalid_grant"),
    ] {
        let mut talk = Talk::begin(desk.command("creds login claude-login"));
        talk.hears("https://claude.com/cai/oauth/authorize?").await;
        for line in &pasted {
            talk.says(line).await;
        }
        let finished = talk.ends().await;
        assert_eq!(finished.code, Some(1), "{pasted:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(said),
            "{pasted:?}: {}",
            finished.stderr
        );
    }
    assert!(!desk.builder.path("state/oauth/claude-login.json").exists());
    let listed = desk.run("creds list -o json").await.json();
    assert_eq!(listed[0]["state"], "missing");
    assert!(
        listed[0]["lastError"]
            .as_str()
            .unwrap()
            .contains("tollgate creds login claude-login"),
        "{listed}"
    );
}

#[tokio::test]
async fn codex_logs_in_with_a_code_that_is_entered_on_another_device() {
    let desk = Desk::codex().await;
    let mut talk = Talk::begin(desk.command("creds login codex-login"));
    talk.hears("https://auth.openai.com/codex/device").await;
    let user_code = desk.server.device_polled(1).await;
    desk.server.approve(&user_code);
    let finished = talk.ends().await;
    desk.assert_shows_no_token(&finished);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains(&user_code), "{}", finished.stdout);
    desk.server.truth().assert_one_clean_grant();
    // Codex must name the account, which is no secret.
    let file = desk
        .run("creds placeholder codex-login --format codex")
        .await;
    assert_eq!(file.stderr, "");
    let file = file.json();
    assert_eq!(file["tokens"]["account_id"], desk.server.account());
    let placeholder = file["tokens"]["access_token"].as_str().unwrap().to_owned();
    let (_server, api, proxy) = desk.start().await;
    let status = asks(
        &proxy,
        "chatgpt.com",
        "/backend-api/codex/models",
        &placeholder,
    )
    .await;
    assert_eq!(status, 200);
    api.assert_no_stale_token();
}

#[tokio::test]
async fn a_login_of_codex_is_taken_over_with_its_account() {
    let desk = Desk::codex().await;
    let (login, account) = (desk.server.login(), desk.server.account().to_owned());
    let file = desk.write("auth.json", &codex_file(&login, &account));
    desk.run(&format!("creds import {} --as codex-login", file.display()))
        .await
        .ok();
    let placeholder = desk
        .run("creds placeholder codex-login --format codex")
        .await
        .json();
    assert_eq!(placeholder["tokens"]["account_id"], account.as_str());
    let refreshed = desk.run("creds refresh codex-login").await;
    refreshed.ok();
    desk.server.truth().assert_one_clean_grant();
}

#[tokio::test]
async fn any_provider_with_a_device_endpoint_can_be_logged_in_to() {
    let server = token_server()
        .device(
            "/oauth/device/code",
            Duration::from_secs(600),
            Duration::from_secs(1),
        )
        .start()
        .await;
    let api = server.protected_api(&["api.example.com"]).await;
    let source = format!(
        "hosts: [api.example.com]\nplacements: [{{bearer: {{}}}}]\nsource:\n  oauth:\n    tokenEndpoint: {}\n    \
         clientId: {}\n    login: {{deviceAuthorizationEndpoint: \"https://token.example.com/oauth/device/code\"}}\n",
        server.url(),
        server.client_id()
    );
    let desk = Desk::with(server, api, |builder| {
        builder
            .policy("- {hosts: [api.example.com], credentials: [login]}")
            .document("EgressCredential", "login", &source)
    });
    let refused = Talk::begin(desk.command("creds login login"));
    let user_code = desk.server.device_polled(1).await;
    desk.server.deny(&user_code);
    let finished = refused.ends().await;
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    assert!(
        finished.stderr.contains("access_denied"),
        "{}",
        finished.stderr
    );

    let mut talk = Talk::begin(desk.command("creds login login -o json"));
    talk.hears("verificationUri").await;
    let user_code = desk.server.device_polled(1).await;
    desk.server.approve(&user_code);
    assert_eq!(talk.ends().await.code, Some(0));
    desk.server.truth().assert_one_clean_grant();
}

#[tokio::test]
async fn a_store_that_could_not_keep_a_login_is_found_before_anybody_logs_in() {
    let desk = Desk::claude().await;
    let file = desk.write("login.json", &claude_file(&desk.server.login()));
    let store = desk.builder.path("state/oauth");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o555)).unwrap();
    let place = store.display().to_string();
    for line in [
        format!("creds import {}", file.display()),
        "creds login claude-login".to_owned(),
        "creds refresh claude-login".to_owned(),
    ] {
        let refused = finish(without_root_rights(&desk.command(&line))).await;
        assert_eq!(refused.code, Some(78), "{line}: {}", refused.stdout);
        assert!(
            refused.stderr.contains(&place),
            "{line}: {}",
            refused.stderr
        );
    }
    let checked = finish(without_root_rights(&desk.command("check"))).await;
    let line = checked
        .stdout
        .lines()
        .find(|line| line.contains("claude-login"));
    let line = line.unwrap_or_else(|| panic!("{}", checked.stdout));
    assert!(line.starts_with('‼') && line.contains(&place), "{line}");
    assert_eq!(
        desk.server.truth().refreshes + desk.server.truth().refused,
        0
    );
}

/// The proxy may have redeemed the refresh token when it went away: the command does not do it again.
#[tokio::test]
async fn a_renewal_that_breaks_off_at_the_proxy_is_not_begun_a_second_time() {
    let desk = Desk::claude().await;
    let file = desk.write("login.json", &claude_file(&desk.server.login()));
    desk.run(&format!("creds import {}", file.display()))
        .await
        .ok();
    let token = desk.builder.path("state/admin.token");
    std::fs::write(&token, "0123456789abcdef".repeat(4)).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let dying = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = dying.local_addr().unwrap().to_string();
    let refresh = desk.command_at("creds refresh claude-login", &admin);
    let (finished, ()) = tokio::join!(finish(refresh), async {
        drop(dying.accept().await.unwrap());
    });
    assert_eq!(finished.code, Some(75), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("creds list"),
        "{}",
        finished.stderr
    );
    assert_eq!(desk.server.truth().refreshes, 0);
}
