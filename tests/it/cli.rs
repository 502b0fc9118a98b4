//! What the commands print and exit with: a person or a script has nothing else to go by.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::support::agent::Finished;
use super::support::echo;
use super::support::proxy::{parse_dotenv, tollgate};

const SECRET: &str = "sk-ant-api03-REAL-and-long-enough-to-be-searched-for-0123456789";

/// A directory with a configuration, as a person has one.
struct Desk {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

impl Desk {
    fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            env: BTreeMap::new(),
        }
    }

    /// Two presets and one rule; `more` is added to the `spec` of the configuration.
    fn with(more: &str) -> Self {
        let desk = Self::empty();
        desk.write(
            "tollgate.yaml",
            &format!(
                "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: {{ name: desk }}\nspec:\n  \
                 listen: 127.0.0.1:0\n  admin: {{ listen: 127.0.0.1:1 }}\n  stateDir: state\n  presets: [anthropic, github]\n{more}\
                 ---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{ name: mine }}\nspec:\n  egress:\n    \
                 - hosts: [internal.example.com]\n      http:\n        - methods: [GET]\n          paths: [/status]\n"
            ),
        );
        desk
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Runs a command line, its words apart by blanks.
    async fn run(&self, line: &str) -> Finished {
        self.run_words(&line.split_whitespace().collect::<Vec<_>>())
            .await
    }

    async fn run_words(&self, words: &[&str]) -> Finished {
        let output = tollgate(self.dir.path(), &self.env)
            .args(words)
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), output)
            .await
            .expect("it ends")
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let finished = Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        for text in [&finished.stdout, &finished.stderr] {
            assert!(!text.contains(SECRET), "{words:?} printed a secret: {text}");
            assert!(!text.contains("panicked"), "{words:?}: {text}");
        }
        finished
    }
}

#[tokio::test]
async fn exit_codes_say_what_kind_of_end_it_was() {
    let desk = Desk::with("").env("ANTHROPIC_API_KEY", SECRET);
    let table = [
        (2, ""),
        (2, "no-such-command"),
        (2, "check --no-such-flag"),
        (0, "--version"),
        (0, "help serve"),
        (0, "check"),
        (0, "why https://api.anthropic.com/v1/messages -X POST"),
        (1, "why https://elsewhere.example/"),
        (1, "why https://api.anthropic.com/elsewhere"),
        (1, "why http://127.0.0.1/"),
        (78, "why gopher://api.anthropic.com/"),
        (75, "why --running https://api.anthropic.com/"),
        (78, "check --config not-there.yaml"),
        (0, "creds list"),
        (0, "creds check"),
        (0, "creds check anthropic"),
        (1, "creds check github"),
        (78, "creds check no-such-credential"),
        (1, "healthcheck"),
        (75, "wait-ready --timeout 200ms"),
        (0, "gen presets"),
        (78, "gen presets no-such-preset"),
        (78, "ca show"),
        (0, "ca init"),
        (1, "ca init"),
        (0, "ca init --force"),
        (0, "ca show"),
        (0, "ca bundle"),
        (0, "ca export"),
    ];
    for (code, line) in table {
        let finished = desk.run(line).await;
        assert_eq!(
            finished.code,
            Some(code),
            "tollgate {line}\n{}\n{}",
            finished.stdout,
            finished.stderr
        );
        let said = if code == 0 {
            &finished.stdout
        } else {
            &finished.stderr
        };
        let answered = line.starts_with("why") || line.starts_with("creds check");
        assert!(
            !said.is_empty() || (code == 1 && answered),
            "tollgate {line} said nothing"
        );
    }
}

#[tokio::test]
async fn without_a_configuration_it_says_what_to_write() {
    let desk = Desk::empty();
    let finished = desk.run("check").await;
    assert_eq!(finished.code, Some(78));
    assert_eq!(
        finished.stderr,
        "error: there is no configuration file\n  help: name one with --config, or write ./tollgate.yaml; \
         `tollgate run --preset NAME -- CMD` needs none\n"
    );
    let finished = desk.run("run -- true").await;
    assert_eq!(finished.code, Some(78));
    assert!(
        finished
            .stderr
            .starts_with("error: nothing says where the program may go\n  help: name presets")
    );
}

const MISTAKES: &str = "apiVersion: tollgate.dev/v1alpha1
kind: EgressPolicy
metadata: { name: mine }
spec:
  egress:
    - hosts: [api.example.com]
      metods: [GET]
---
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: { name: key }
spec:
  hosts: [api.example.com]
  source: { literal: sk-ant-api03-REAL-and-long-enough-to-be-searched-for-0123456789 }
  placements: [{ bearer: {} }]
";

#[tokio::test]
async fn an_error_names_place_cause_and_remedy() {
    let desk = Desk::with("  documents: [mistakes.yaml]\n");
    desk.write("mistakes.yaml", MISTAKES);
    let finished = desk.run("check --color never").await;
    assert_eq!(finished.code, Some(78));
    let expected = "error[TG0203]: unknown key `metods` in `spec.egress[0]`
   ╭─[./mistakes.yaml:7:7]
 6 │     - hosts: [api.example.com]
 7 │       metods: [GET]
";
    assert!(finished.stderr.starts_with(expected), "{}", finished.stderr);
    assert!(
        finished
            .stderr
            .contains("\n  help: keys here are preset, hosts, ports,"),
        "{}",
        finished.stderr
    );
    assert!(
        finished
            .stderr
            .contains("error[TG0210]: `spec.source.literal` holds a secret"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("source: { literal: ****"),
        "{}",
        finished.stderr
    );
    assert!(!finished.stderr.contains('\u{1b}'));
    let colored = desk.run("check --color always").await;
    assert!(colored.stderr.contains('\u{1b}'));
}

#[tokio::test]
async fn the_same_errors_as_json() {
    let desk = Desk::with("  documents: [mistakes.yaml]\n");
    desk.write("mistakes.yaml", MISTAKES);
    let finished = desk.run("check -o json").await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""));
    let errors: Value = serde_json::from_str(&finished.stderr).unwrap();
    let first = &errors["errors"][0];
    assert_eq!(first["code"], "TG0203");
    assert_eq!(first["file"], "./mistakes.yaml");
    assert_eq!(
        (first["line"].as_u64(), first["column"].as_u64()),
        (Some(7), Some(7))
    );
    assert!(first["help"].as_str().unwrap().starts_with("keys here are"));
    assert_eq!(errors["errors"][1]["code"], "TG0210");
    let finished = desk.run("check -o json --config not-there.yaml").await;
    let errors: Value = serde_json::from_str(&finished.stderr).unwrap();
    assert_eq!(errors["errors"][0]["code"], "TG0101");
    assert_eq!(errors["errors"][0]["line"], Value::Null);
}

#[tokio::test]
async fn broken_documents_are_refused_with_a_place() {
    let head = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: x}\n";
    let table = [
        ("kind: [", "TG0107"),
        (
            "apiVersion: tollgate.dev/v2\nkind: EgressPolicy\nmetadata: {name: x}\nspec: {egress: []}",
            "TG0201",
        ),
        (
            "apiVersion: tollgate.dev/v1alpha1\nkind: EgresPolicy\nmetadata: {name: x}\nspec: {egress: []}",
            "TG0202",
        ),
        (
            &format!("{head}spec: {{egress: [{{hosts: [a.example.com], tls: Sometimes}}]}}"),
            "TG0206",
        ),
        (
            &format!("{head}spec: {{egress: [{{hosts: [a.example.com], ports: [http]}}]}}"),
            "TG0207",
        ),
        (
            &format!("{head}spec: {{egress: [{{preset: anthropik}}]}}"),
            "TG0301",
        ),
        (
            &format!("{head}spec: {{egress: [{{hosts: [\"*\"]}}]}}"),
            "TG0304",
        ),
        (
            &format!(
                "{head}spec: {{egress: [{{hosts: [a.example.com], credentials: [nobodys]}}]}}"
            ),
            "TG0311",
        ),
    ];
    for (text, code) in table {
        let desk = Desk::with("  documents: [broken.yaml]\n");
        desk.write("broken.yaml", text);
        let finished = desk.run("check -o json").await;
        assert_eq!(finished.code, Some(78), "{text}");
        let errors: Value = serde_json::from_str(&finished.stderr).unwrap();
        let codes: Vec<&str> = errors["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["code"].as_str().unwrap())
            .collect();
        assert_eq!(codes, [code], "{text}\n{}", finished.stderr);
        assert!(
            errors["errors"][0]["line"].is_u64(),
            "{text}\n{}",
            finished.stderr
        );
    }
}

#[tokio::test]
async fn check_reports_part_by_part() {
    let desk = Desk::with("").env("ANTHROPIC_API_KEY", SECRET);
    let finished = desk.run("check").await;
    let lines: Vec<&str> = finished.ok().lines().collect();
    assert!(lines.contains(&"√ anthropic: can be used"), "{lines:#?}");
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("‼ github: the variable `GH_TOKEN` is not set")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("‼ there is no authority at ")),
        "{lines:#?}"
    );
    assert!(lines.contains(&"hardening"), "{lines:#?}");
    assert!(
        lines.last().unwrap().starts_with("0 failed, "),
        "{lines:#?}"
    );
    desk.run("ca init").await.ok();
    let quiet = desk.run("-q check").await;
    assert_eq!((quiet.ok(), quiet.stderr.as_str()), ("", ""));
    let short = desk.run("check -o short").await;
    assert!(short.ok().starts_with("0 failed, "), "{short:?}");
    let json: Value = serde_json::from_str(desk.run("check -o json").await.ok()).unwrap();
    let lines = json.as_array().unwrap().iter();
    let (hardening, own): (Vec<_>, Vec<_>) = lines.partition(|line| line["part"] == "hardening");
    assert_eq!(hardening.len(), 6);
    let own = own
        .iter()
        .filter(|line| line["part"] != "limits")
        .map(|line| {
            (
                line["part"].as_str().unwrap(),
                line["state"].as_str().unwrap(),
            )
        });
    let expected = [
        ("policy", "ok"),
        ("ca", "ok"),
        ("credentials", "ok"),
        ("credentials", "warning"),
    ];
    assert_eq!(own.collect::<Vec<_>>(), expected);
}

/// A credential that is not optional and not there: the answer is no.
#[tokio::test]
async fn check_fails_where_serving_could_not_become_ready() {
    let desk = Desk::with("  documents: [more.yaml]\n");
    desk.write(
        "more.yaml",
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: { name: key }\nspec:\n  \
         hosts: [internal.example.com]\n  source: { file: { path: not-there } }\n  placements: [{ bearer: {} }]\n",
    );
    let finished = desk.run("check").await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stdout.contains("× key: "), "{}", finished.stdout);
    let last = finished.stdout.lines().last().unwrap();
    assert!(last.starts_with("1 failed, "), "{}", finished.stdout);
    assert_eq!(desk.run("creds check").await.code, Some(1));
    let quiet = desk.run("-q check").await;
    assert_eq!(quiet.code, Some(1));
    let said: Vec<&str> = quiet.stdout.lines().collect();
    assert!(said[1].starts_with("× key: "), "{said:?}");
    assert!(!quiet.stdout.contains(['√', '‼']), "{said:?}");
}

#[tokio::test]
async fn why_names_rule_line_and_edit() {
    let desk = Desk::with("");
    let finished = desk.run("why https://internal.example.com/admin").await;
    assert_eq!(
        finished.stdout,
        "DENY GET https://internal.example.com/admin for agent\n  \
         tollgate.yaml:15 matches the host but allows only /status\n  fix: add /admin to paths on line 15\n"
    );
    let finished = desk
        .run("why -X POST https://api.anthropic.com/v1/messages")
        .await;
    assert!(
        finished
            .ok()
            .starts_with("ALLOW POST https://api.anthropic.com/v1/messages for agent\n")
    );
    assert!(finished.ok().contains("credentials: anthropic"));
    let finished = desk.run("why -o json https://elsewhere.example/").await;
    let json: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(json["verdict"], "deny");
    assert_eq!(json["reason"], "host_not_allowed");
    assert_eq!(
        json["fix"],
        "add a rule with `hosts: [\"elsewhere.example\"]`"
    );
    let elsewhere = Desk::empty();
    let finished = elsewhere
        .run("why --preset telegram https://api.telegram.org/bot1:x/getMe")
        .await;
    assert!(
        finished.ok().starts_with("ALLOW"),
        "a preset needs no configuration: {}",
        finished.stdout
    );
}

#[tokio::test]
async fn env_prints_the_same_variables_in_every_format() {
    let desk = Desk::with("");
    let dotenv = parse_dotenv(
        desk.run("env --format dotenv --address 127.0.0.1:4444")
            .await
            .ok(),
    );
    assert_eq!(dotenv["HTTPS_PROXY"], "http://127.0.0.1:4444");
    assert!(dotenv["ANTHROPIC_API_KEY"].starts_with("sk-ant-api03-"));
    assert_eq!(dotenv["GH_TOKEN"], dotenv["GITHUB_TOKEN"]);
    let bundle = desk.dir.path().join("state/trust/bundle.crt");
    assert_eq!(
        Path::new(&dotenv["CURL_CA_BUNDLE"]),
        bundle,
        "an agent's directory is another one"
    );
    let sh = desk.run("env --address 127.0.0.1:4444").await;
    let script = format!("{}\nenv", sh.ok());
    let evaluated = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .env_clear()
        .output()
        .await
        .unwrap();
    let evaluated = String::from_utf8(evaluated.stdout).unwrap();
    let k8s = desk.run("env --format k8s --address 127.0.0.1:4444").await;
    let dockerfile = desk
        .run("env --format dockerfile --address 127.0.0.1:4444")
        .await;
    for (name, value) in &dotenv {
        assert!(
            evaluated.lines().any(|l| l == format!("{name}={value}")),
            "{name} in\n{evaluated}"
        );
        assert!(
            k8s.ok()
                .contains(&format!("- name: {name}\n  value: \"{value}\"\n")),
            "{}",
            k8s.stdout
        );
        assert!(
            dockerfile
                .ok()
                .contains(&format!("ENV {name}=\"{value}\"\n")),
            "{}",
            dockerfile.stdout
        );
    }
    let moved = desk
        .run("env --format dotenv --trust-dir /etc/tollgate/trust")
        .await;
    assert_eq!(
        parse_dotenv(moved.ok())["NODE_EXTRA_CA_CERTS"],
        "/etc/tollgate/trust/ca.crt"
    );
}

#[tokio::test]
async fn env_wants_a_name_where_agents_are_several() {
    let agents = "  identity:\n    agents:\n      - { name: scan, token: { env: { name: SCAN } } }\n      \
                  - { name: fix, token: { env: { name: FIX } } }\n";
    let desk = Desk::with(agents)
        .env("SCAN", "token-of-scan-0001")
        .env("FIX", "token-of-fix-00001");
    let finished = desk.run("env").await;
    assert_eq!(finished.code, Some(78));
    assert!(
        finished.stderr.contains("name one with --agent: scan, fix"),
        "{}",
        finished.stderr
    );
    let scan = parse_dotenv(
        desk.run("env --agent scan --format dotenv --address 127.0.0.1:4444")
            .await
            .ok(),
    );
    let fix = parse_dotenv(
        desk.run("env --agent fix --format dotenv --address 127.0.0.1:4444")
            .await
            .ok(),
    );
    assert_eq!(
        scan["HTTPS_PROXY"],
        "http://scan:token-of-scan-0001@127.0.0.1:4444"
    );
    assert_ne!(
        scan["ANTHROPIC_API_KEY"], fix["ANTHROPIC_API_KEY"],
        "placeholders are each agent's own"
    );
}

#[tokio::test]
async fn the_authority_is_made_shown_and_handed_out() {
    let desk = Desk::with("");
    let made = desk.run("ca init").await;
    assert!(
        made.ok()
            .starts_with("CA \"Tollgate CA\" may sign only api.anthropic.com, "),
        "{}",
        made.stdout
    );
    let key = desk.dir.path().join("state/ca.key");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let json: Value = serde_json::from_str(desk.run("ca show -o json").await.ok()).unwrap();
    let permitted = json["permitted"].as_array().unwrap();
    assert!(
        permitted.contains(&"internal.example.com".into()),
        "{permitted:?}"
    );
    let export = desk.run("ca export").await;
    assert_eq!(export.ok().matches("BEGIN CERTIFICATE").count(), 1);
    assert!(!export.ok().contains("PRIVATE KEY"));
    assert!(
        desk.run("ca export --with-private-key")
            .await
            .ok()
            .contains("PRIVATE KEY")
    );
    let bundle = desk.run("ca bundle").await;
    assert!(
        bundle.ok().contains(export.ok().trim()),
        "the bundle holds our own certificate"
    );
    let kept = desk.run("ca init").await;
    assert_eq!(kept.code, Some(1));
    assert!(
        kept.stderr.contains("--force replaces it"),
        "{}",
        kept.stderr
    );
    desk.run("ca init --force").await.ok();
    assert_ne!(desk.run("ca export").await.ok(), export.ok());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = desk.run("ca show").await;
    assert_eq!(refused.code, Some(78));
    assert!(
        refused.stderr.contains("ca.key") && refused.stderr.contains("chmod"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn creds_say_how_they_are_and_never_what() {
    let desk = Desk::with("").env("ANTHROPIC_API_KEY", SECRET);
    let list = desk.run("creds list").await;
    let lines: Vec<&str> = list.ok().lines().collect();
    assert!(lines[0].starts_with("NAME "), "{lines:#?}");
    let cells = |line: &str| {
        line.split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let header = [
        "NAME",
        "STATE",
        "EXPIRES",
        "LAST REFRESH",
        "LAST 401",
        "SOURCE",
        "LAST ERROR",
    ];
    assert_eq!(cells(lines[0]), header);
    let there = cells(lines[1]);
    assert_eq!(there[..3], ["anthropic", "ok", "-"], "{lines:#?}");
    assert!(
        there[3] == "now" || there[3].ends_with("s ago"),
        "{lines:#?}"
    );
    assert_eq!(there[4..], ["never", "env:ANTHROPIC_API_KEY", "-"]);
    assert_eq!(
        cells(lines[2])[..6],
        ["github", "missing", "-", "-", "never", "env:GH_TOKEN"]
    );
    assert_eq!(
        desk.run("creds list -o short").await.ok(),
        "1 ok, 1 missing\n"
    );
    let json: Value = serde_json::from_str(desk.run("creds list -o json").await.ok()).unwrap();
    assert_eq!(json[0]["state"], "ok");
    assert_eq!(json[1]["optional"], true);
    let mut fields: Vec<&str> = json[0]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "expiresAt",
            "fingerprint",
            "lastError",
            "lastRejection",
            "lastRenewal",
            "name",
            "optional",
            "since",
            "source",
            "state",
            "version"
        ]
    );
    desk.write(
        "tollgate.yaml",
        "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: { name: desk }\nspec:\n  stateDir: state\n  \
         ca: { ephemeralDir: trust }\n---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\n\
         metadata: { name: key }\nspec:\n  hosts: [api.example.com]\n  placements: [{ bearer: {} }]\n  \
         source: { exec: { command: [no-such-helper] } }\n",
    );
    let list = desk.run("creds list").await;
    assert!(
        list.ok()
            .contains("the helper `no-such-helper` was not found"),
        "{}",
        list.stdout
    );
    let check = desk.run("check").await;
    assert_eq!(check.code, Some(1));
    assert!(
        check.stdout.contains("√ made at each start"),
        "{}",
        check.stdout
    );
}

#[tokio::test]
async fn a_placeholder_is_printed_alone_or_as_the_file_that_a_client_reads() {
    let desk = Desk::with("").env("ANTHROPIC_API_KEY", SECRET);
    let config = std::fs::read_to_string(desk.dir.path().join("tollgate.yaml")).unwrap();
    desk.write(
        "tollgate.yaml",
        &config.replace(
            "[anthropic, github]",
            "[anthropic, claude-login, codex-login]",
        ),
    );
    let env = parse_dotenv(desk.run("env --format dotenv").await.ok());
    let text = desk.run("creds placeholder anthropic").await;
    assert_eq!(text.ok().trim_end(), env["ANTHROPIC_API_KEY"]);
    let claude = desk
        .run("creds placeholder claude-login --format claude")
        .await;
    let claude: Value = serde_json::from_str(claude.ok()).unwrap();
    assert_eq!(
        claude["claudeAiOauth"]["accessToken"],
        env["CLAUDE_CODE_OAUTH_TOKEN"]
    );
    let codex = desk
        .run("creds placeholder codex-login --format codex --agent agent")
        .await;
    assert!(codex.stderr.contains("account_id"), "{}", codex.stderr);
    let codex: Value = serde_json::from_str(codex.ok()).unwrap();
    let token = codex["tokens"]["access_token"].as_str().unwrap();
    assert!(
        token.starts_with("eyJ") && token.split('.').count() == 3,
        "{token}"
    );
    let unknown = desk.run("creds placeholder nobody").await;
    assert_eq!(unknown.code, Some(78));
    assert!(
        unknown
            .stderr
            .contains("the credentials are: anthropic, claude-login, codex-login"),
        "{}",
        unknown.stderr
    );
    let stranger = desk
        .run("creds placeholder anthropic --agent stranger")
        .await;
    assert_eq!(stranger.code, Some(78));
}

#[tokio::test]
async fn probes_ask_the_running_proxy() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let desk = Desk::empty();
    let admin = proxy.admin;
    let waited = desk
        .run(&format!("wait-ready --admin {admin} --timeout 10s"))
        .await;
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
    assert!(
        waited.stderr.starts_with("ready after "),
        "{}",
        waited.stderr
    );
    for line in ["healthcheck", "healthcheck --ready"] {
        assert_eq!(
            desk.run(&format!("{line} --admin {admin}")).await.code,
            Some(0)
        );
    }
    let config = proxy.config.display();
    let why = desk
        .run(&format!(
            "why --running --config {config} --admin {admin} https://elsewhere.example/"
        ))
        .await;
    assert_eq!(why.code, Some(1));
    assert!(
        why.stdout
            .starts_with("DENY GET https://elsewhere.example/"),
        "{}",
        why.stdout
    );
    let why = desk
        .run(&format!(
            "why --running --config {config} --admin {admin} https://{}/",
            echo::HOST
        ))
        .await;
    assert!(why.ok().starts_with("ALLOW"), "{}", why.stdout);
    let creds = desk
        .run(&format!("creds list --config {config} --admin {admin}"))
        .await;
    assert!(creds.ok().contains("echo  ok"), "{}", creds.stdout);
}

#[tokio::test]
async fn a_port_in_use_is_temporary_and_says_which() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let desk = Desk::with("");
    let config = std::fs::read_to_string(desk.dir.path().join("tollgate.yaml")).unwrap();
    desk.write(
        "tollgate.yaml",
        &config.replace("127.0.0.1:0", &address.to_string()),
    );
    let finished = desk.run("serve").await;
    assert_eq!(finished.code, Some(75));
    assert!(
        finished
            .stderr
            .contains(&format!("cannot listen on {address}")),
        "{}",
        finished.stderr
    );
}

#[tokio::test]
async fn generated_files_are_whole() {
    let desk = Desk::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = desk.run(&format!("gen completions {shell}")).await;
        assert!(completions.ok().contains("wait-ready"), "{shell}");
    }
    let manual = desk.run("gen man").await;
    for command in [
        "serve",
        "run",
        "check",
        "why",
        "env",
        "ca",
        "creds",
        "spend",
        "budget",
        "wait\\-ready",
        "healthcheck",
        "gen",
    ] {
        assert!(
            manual.ok().contains(&format!("tollgate {command}")) || manual.ok().contains(command),
            "{command}"
        );
    }
    let schema: Value = serde_json::from_str(desk.run("gen schema").await.ok()).unwrap();
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), 4);
    let presets = desk.run("gen presets").await;
    for name in presets.ok().lines() {
        let text = desk.run(&format!("gen presets {name}")).await;
        assert!(text.ok().contains("kind: EgressPolicy"), "{name}");
        // What is printed can be taken as it is.
        let own = Desk::with("");
        own.write("tollgate.yaml", &format!("apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: {{name: d}}\nspec: {{documents: [{name}.yaml], stateDir: state}}\n"));
        own.write(&format!("{name}.yaml"), text.ok());
        assert_eq!(own.run("check").await.code, Some(0), "{name}");
    }
    let unknown = desk.run("gen presets antropic").await;
    assert!(
        unknown
            .stderr
            .contains("help: the presets are: anthropic, "),
        "{}",
        unknown.stderr
    );
}

/// `tollgate gen schema | head -1`: the reader's choice, no error and no panic.
#[tokio::test]
async fn a_closed_pipe_is_not_an_error() {
    let desk = Desk::with("");
    for line in [
        "gen completions bash",
        "gen man",
        "gen schema",
        "gen presets github",
        "env",
        "check",
    ] {
        let mut child = tollgate(desk.dir.path(), &desk.env)
            .args(line.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    }
}

#[tokio::test]
async fn run_passes_exit_codes_on() {
    let desk = Desk::empty();
    desk.write("not-a-program", "x");
    let table: [(i32, &[&str]); 5] = [
        (0, &["true"]),
        (7, &["sh", "-c", "exit 7"]),
        (137, &["sh", "-c", "kill -KILL $$"]),
        (126, &["./not-a-program"]),
        (127, &["no-such-program-anywhere"]),
    ];
    for (code, command) in table {
        let words: Vec<&str> = ["run", "--preset", "npm", "--"]
            .iter()
            .chain(command)
            .copied()
            .collect();
        let finished = desk.run_words(&words).await;
        assert_eq!(
            finished.code,
            Some(code),
            "{command:?}\n{}",
            finished.stderr
        );
    }
    let left: Vec<_> = std::fs::read_dir(desk.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["not-a-program"], "nothing is left in the home");
}

#[tokio::test]
async fn run_passes_signals_on() {
    let desk = Desk::empty();
    let script = "trap 'echo got TERM; exit 5' TERM; echo started; while :; do sleep 0.05; done";
    let mut child = tollgate(desk.dir.path(), &desk.env)
        .args(["run", "--preset", "npm", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("started"));
    let pid = child.id().unwrap().to_string();
    tokio::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert_eq!(
        lines.next_line().await.unwrap().as_deref(),
        Some("got TERM")
    );
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(5));
}

/// The secret is taken out under every name it stands under; what is harmless stays.
#[tokio::test]
async fn run_cleans_the_childs_environment() {
    let desk = Desk::empty()
        .env("ANTHROPIC_API_KEY", SECRET)
        .env("BACKUP_OF_IT", &format!("key={SECRET}"))
        .env("HARMLESS", "stays");
    let finished = desk.run("run --preset claude-code -- env").await;
    let child = parse_dotenv(finished.ok());
    assert_eq!(child["HARMLESS"], "stays");
    assert!(!child.contains_key("BACKUP_OF_IT"));
    assert!(child["ANTHROPIC_API_KEY"].starts_with("sk-ant-api03-"));
    assert!(child["HTTPS_PROXY"].starts_with("http://127.0.0.1:"));
    assert!(!child.contains_key("TOLLGATE_SEALED_FD"));
    // A placeholder for a token that nobody has would only mislead the client.
    assert!(!child.contains_key("CLAUDE_CODE_OAUTH_TOKEN"), "{child:#?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(
        finished.stderr.starts_with("tollgate: "),
        "{}",
        finished.stderr
    );
    let quiet = desk.run("run -q --preset claude-code -- true").await;
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    // The proxy's own process shows it no more than the child's does.
    let finished = desk
        .run_words(&[
            "run",
            "--preset",
            "anthropic",
            "--",
            "sh",
            "-c",
            "cat /proc/$PPID/environ || true",
        ])
        .await;
    assert!(finished.code == Some(0) && !finished.stdout.contains(SECRET));
    let printed = desk.run("run --preset anthropic --print-env").await;
    assert!(
        printed
            .ok()
            .contains("export ANTHROPIC_API_KEY='sk-ant-api03-")
    );
}
