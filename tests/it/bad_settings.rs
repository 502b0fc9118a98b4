//! Documents, keys, ports and directories that keep the proxy from starting: where, why, and the way out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tollgate::rt::lock::Lock;

use super::support::agent::Finished;
use super::support::ca::TestCa;
use super::support::echo::{self, PLACEHOLDER};
use super::support::operator::{PATIENCE, finish, until};
use super::support::proxy::{ProxyBuilder, proxy, tollgate};
use super::support::visitor::get;

/// `EX_CONFIG` and `EX_TEMPFAIL` (sysexits.h).
const CONFIG: i32 = 78;
const TEMPORARY: i32 = 75;

/// A budget that makes a start open the ledger.
const CAP: &str = "limits: [{unit: usd, max: \"1.00\", window: total}]";

const SENTINEL: &str = "sk-ant-api03-sentinel5c1d9e";

const POLICY: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p}\nspec:\n  egress:\n";
const CREDENTIAL: &str =
    "apiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: {name: c}\nspec:\n";

/// What is wrong, the rest of a policy, the place (line and column), and what is said.
#[tokio::test]
async fn wrong_documents_are_told_with_their_place_and_a_way_out() {
    let duplicate =
        format!("    - hosts: [a.example.com]\n---\n{POLICY}    - hosts: [b.example.com]\n");
    let uncovered = format!(
        "    - hosts: [a.example.com]\n      credentials: [c]\n---\n{CREDENTIAL}  \
         hosts: [b.example.com]\n  source: {{env: {{name: KEY}}}}\n  placements: [{{bearer: {{}}}}]\n"
    );
    let literal = format!(
        "    - hosts: [a.example.com]\n---\n{CREDENTIAL}  \
         hosts: [a.example.com]\n  source: {{value: {SENTINEL}}}\n  placements: [{{bearer: {{}}}}]\n"
    );
    for (rest, place, said, help) in [
        (
            "    - hosts: [a.example.com\n",
            "6:14",
            "the brackets do not match",
            "close every `[`",
        ),
        (
            "    - hosts: [a.example.com]\n      http: [{metods: [POST]}]\n",
            "7:15",
            "unknown key `metods`",
            "did you mean `methods`?",
        ),
        (
            duplicate.as_str(),
            "10:18",
            "EgressPolicy `p` is defined twice",
            "rename or remove",
        ),
        (
            "    - hosts: [a.example.com]\n      credentials: [nope]\n",
            "7:21",
            "unknown credential `nope`",
            "write an EgressCredential of this name",
        ),
        (
            &uncovered,
            "7:21",
            "credential `c` may not go to `a.example.com`",
            "add `a.example.com`",
        ),
        (
            "    - {hosts: [a.example.com], action: Deny}\n    - {hosts: [a.example.com]}\n",
            "7:7",
            "two rules match the same requests to a.example.com",
            "make one of them narrower",
        ),
        (
            &literal,
            "13:19",
            "holds a secret instead of the place it comes from",
            "{ env: {",
        ),
    ] {
        let finished = served(&format!("{POLICY}{rest}")).await;
        let text = told(&finished, &[said, help]);
        assert!(
            text.contains(&format!("documents.yaml:{place}")),
            "{place}: {text}"
        );
        assert!(
            text.contains("  ·  ") && text.contains('─'),
            "no caret: {text}"
        );
        assert!(!text.contains("sentinel"), "{text}");
        let text = served_json(&format!("{POLICY}{rest}")).await;
        assert!(
            !text.contains("sentinel") && text.starts_with(r#"{"errors":["#),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_wrong_kind_and_a_wrong_version_are_told() {
    let rest = "    - hosts: [a.example.com]\n";
    let kind = POLICY.replace("EgressPolicy", "EgresPolicy");
    told(
        &served(&format!("{kind}{rest}")).await,
        &["unknown kind `EgresPolicy`", "did you mean `EgressPolicy`?"],
    );
    let version = POLICY.replace("v1alpha1", "v1");
    told(
        &served(&format!("{version}{rest}")).await,
        &["v1alpha1", "documents.yaml:1:13"],
    );
}

#[tokio::test]
async fn an_unknown_preset_is_told_with_the_one_that_was_meant() {
    let finished = proxy().setting("presets: [anthropc]").serve_ends().await;
    told(
        &finished,
        &[
            "unknown preset `anthropc`",
            "did you mean `anthropic`?",
            "tollgate.yaml:",
        ],
    );
}

#[tokio::test]
async fn a_budget_that_counts_executions_wants_to_know_them() {
    const BUDGET: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: {name: b}\nspec:\n  \
         limits: [{unit: usd, max: 1, window: execution}]\n";
    let untold = served(BUDGET).await;
    told(
        &untold,
        &[
            "nothing tells one execution from the next",
            "documents.yaml:5:40",
            "execution: { env: POD_UID }",
        ],
    );
    let unset = "identity: {fixed: a, execution: {env: TOLLGATE_TEST_UNSET_EXECUTION}}";
    let finished = proxy().setting(unset).serve_ends().await;
    told(
        &finished,
        &["TOLLGATE_TEST_UNSET_EXECUTION is not set", "metadata.uid"],
    );
    let several =
        "identity: {execution: {env: HOME}, agents: [{name: a, token: {env: {name: HOME}}}]}";
    let finished = proxy().setting(several).serve_ends().await;
    told(&finished, &["both `execution` and `agents`"]);
}

#[tokio::test]
async fn documents_that_are_not_there_or_no_text_are_named() {
    let missing = proxy().documents_at("nowhere.yaml");
    told(
        &missing.serve_ends().await,
        &["nowhere.yaml does not exist", "check the path"],
    );
    let empty = proxy().documents_at("policies");
    fs::create_dir(empty.file("policies")).unwrap();
    told(
        &empty.serve_ends().await,
        &["policies holds no document", "put `*.yaml` files into it"],
    );
    let binary = proxy().documents_at("binary.yaml");
    fs::write(binary.file("binary.yaml"), b"kind: \xff\xfe").unwrap();
    told(
        &binary.serve_ends().await,
        &["binary.yaml is not UTF-8", "binary.yaml:1:7"],
    );
    let locked = proxy().documents_at("locked.yaml").bound_by_file_modes();
    fs::write(locked.file("locked.yaml"), POLICY).unwrap();
    set_mode(&locked.file("locked.yaml"), 0o000);
    told(
        &locked.serve_ends().await,
        &["locked.yaml may not be read by this user", "owner or mode"],
    );
}

#[tokio::test]
async fn serving_without_a_configuration_says_how_to_write_one() {
    let home = tempfile::tempdir().unwrap();
    let mut command = tollgate(home.path(), &[].into());
    command.arg("serve");
    told(
        &finish(command).await,
        &["there is no configuration file", "--config", "tollgate run"],
    );
}

#[tokio::test]
async fn a_port_in_use_is_a_temporary_failure_that_says_what_to_do() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let described = proxy();
    let config = described.write();
    let text = fs::read_to_string(&config).unwrap();
    let taken = format!("listen: {address}");
    fs::write(&config, text.replacen("listen: 127.0.0.1:0", &taken, 1)).unwrap();
    let finished = finish(described.serve(&config)).await;
    assert_eq!(finished.code, Some(TEMPORARY), "{finished:?}");
    let text = &finished.stderr;
    assert!(
        text.contains(&format!("cannot listen on {address}: the port is in use")),
        "{text}"
    );
    assert!(
        text.contains("help: ") && text.contains("spec.listen"),
        "{text}"
    );
}

/// What may be gone the next time ends with 75, and whoever started it starts it again; what only a person can
/// change ends with 78.
#[tokio::test]
async fn a_ledger_in_use_is_a_temporary_failure_and_one_of_another_program_is_not() {
    let described = proxy().document("EgressBudget", "cap", CAP);
    let state = described.file("state");
    fs::create_dir(&state).unwrap();
    let held = Lock::try_file(&state.join("ledger.db.lock")).unwrap();
    let finished = described.serve_ends().await;
    assert_eq!(finished.code, Some(TEMPORARY), "{finished:?}");
    let text = &finished.stderr;
    assert!(text.contains("is in use by another process"), "{text}");
    drop(held);
    fs::write(state.join("ledger.db"), "x".repeat(4096)).unwrap();
    let finished = described.serve_ends().await;
    assert_eq!(finished.code, Some(CONFIG), "{finished:?}");
    told(&finished, &["this file is not a ledger"]);
}

#[tokio::test]
async fn an_audit_log_in_use_is_a_temporary_failure_and_a_wrong_path_is_not() {
    let described = proxy().setting("audit: {onFailure: refuse}");
    let audit = described.file("state/audit");
    fs::create_dir_all(&audit).unwrap();
    let held = Lock::try_file(&audit.join(".audit.jsonl.lock")).unwrap();
    let finished = described.serve_ends().await;
    assert_eq!(finished.code, Some(TEMPORARY), "{finished:?}");
    let text = &finished.stderr;
    assert!(text.contains("another process holds"), "{text}");
    drop(held);
    fs::create_dir(audit.join("audit.jsonl")).unwrap();
    let finished = described.serve_ends().await;
    assert_eq!(finished.code, Some(CONFIG), "{finished:?}");
}

/// A misspelt name is a cap on nobody, and nothing else would say so.
#[tokio::test]
async fn a_check_names_agents_and_models_of_budgets_that_are_none() {
    let limits = "limits: [{unit: usd, max: 1, window: {calendar: day}}]";
    let document = |of: &str| format!("match: {{{of}}}\n{limits}\n");
    let described = proxy()
        .setting("identity: {fixed: marketing/scan}")
        .document(
            "EgressBudget",
            "met",
            &document("agents: [marketing/*], models: [claude-*]"),
        )
        .document(
            "EgressBudget",
            "agent",
            &document("agents: [marketing/scna]"),
        )
        .document("EgressBudget", "model", &document("models: [\"cluade-*\"]"))
        // It may be served by somebody's own machine.
        .document("EgressBudget", "own", &document("models: [llama3.2]"));
    fs::create_dir_all(described.file("state")).unwrap();
    let config = described.write();
    let mut command = tollgate(described.file("").as_path(), &[].into());
    command.args(["check", "--config"]).arg(&config);
    let said = finish(command).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "√ 4 budgets with 4 limits",
        "‼ budget `agent`: no agent of `spec.identity` is called `marketing/scna`",
        "did you mean `marketing/scan`?",
        "‼ budget `model`: no model with a price is called `cluade-*`",
        "did you mean `claude-*`?",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    for well in ["`met`", "`own`"] {
        assert!(!said.stdout.contains(well), "{}", said.stdout);
    }
}

#[tokio::test]
async fn a_check_finds_files_and_keys_of_its_own_that_a_start_could_not_use() {
    let described = proxy()
        .document("EgressBudget", "cap", CAP)
        .setting("audit: {signingKey: {file: {path: key.pem}}}");
    let at = |name: &str| described.file(name);
    fs::create_dir_all(at("state")).unwrap();
    let config = described.write();
    let check = async || {
        let mut command = tollgate(at("").as_path(), &[].into());
        command.args(["check", "--config"]).arg(&config);
        finish(command).await
    };
    fs::write(at("key.pem"), PRIVATE).unwrap();
    fs::set_permissions(at("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let well = check().await;
    for part in [
        "ledger",
        "audit log",
        "access log",
        "admin token",
        "placeholder key",
    ] {
        assert!(!well.stdout.contains(part), "{part}: {}", well.stdout);
    }
    fs::write(at("state/ledger.db"), "x".repeat(4096)).unwrap();
    fs::write(at("state/audit"), "no directory").unwrap();
    fs::write(at("key.pem"), "no key").unwrap();
    fs::create_dir(at("access.log")).unwrap();
    fs::write(at("state/admin.token"), "short").unwrap();
    fs::write(at("state/placeholder.key"), "short").unwrap();
    let wrong = check().await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    for said in [
        "this file is not a ledger",
        "audit.jsonl cannot be written",
        "spec.audit.signingKey",
        "access.log cannot be written",
        "admin.token cannot be used",
        "placeholder.key cannot be used",
    ] {
        assert!(wrong.stdout.contains(said), "{said}: {}", wrong.stdout);
    }
}

/// RFC 8410, section 10.3 has its like.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

/// What is wrong with the authority's files, and what is said.
type CaFlaw = (fn(&Path, &Path), &'static [&'static str]);

const CA_FLAWS: &[CaFlaw] = &[
    (
        |_, key| set_mode(key, 0o644),
        &["readable by others (mode 0644)", "chmod 600 "],
    ),
    (
        |_, key| replace_private(key, &rcgen::KeyPair::generate().unwrap().serialize_pem()),
        &["does not belong to the certificate", "openssl pkey"],
    ),
    (
        |_, key| replace_private(key, "garbage"),
        &["holds no usable unencrypted PEM private key", "backup"],
    ),
    (
        |certificate, _| fs::write(certificate, "garbage").unwrap(),
        &["holds no usable PEM certificate"],
    ),
    (
        |certificate, _| fs::write(certificate, "").unwrap(),
        &["holds no usable PEM certificate"],
    ),
    (
        |_, key| fs::remove_file(key).unwrap(),
        &["its key", "is missing", "restore"],
    ),
    (
        |certificate, _| fs::write(certificate, TestCa::new().pem()).unwrap(),
        &["does not belong to the certificate"],
    ),
];

#[tokio::test]
async fn an_authority_that_cannot_be_used_is_told_and_never_replaced() {
    for (spoil, said) in CA_FLAWS {
        let described = echo_policy();
        let mut command = tollgate(described.file(".").as_path(), &[].into());
        command
            .args(["ca", "init", "--config"])
            .arg(described.write());
        assert_eq!(finish(command).await.code, Some(0));
        let (certificate, key) = (
            described.file("state/ca.crt"),
            described.file("state/ca.key"),
        );
        spoil(&certificate, &key);
        let before = (fs::read(&certificate).ok(), fs::read(&key).ok());
        let text = told(&described.serve_ends().await, said);
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        assert_eq!((fs::read(&certificate).ok(), fs::read(&key).ok()), before);
    }
}

/// Its name constraints come from the policy it was made for.
#[tokio::test]
async fn an_authority_that_may_not_sign_a_new_host_stops_the_start_and_the_reload() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let documents = proxy.file("documents.yaml");
    let wider = fs::read_to_string(&documents).unwrap()
        + "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: more}\nspec:\n  \
           egress: [{hosts: [new.example.org], tls: Intercept}]\n";
    fs::write(&documents, wider).unwrap();
    let warned = async || proxy.readyz().await.json()["warnings"]["policy"].is_string();
    until("the reload is refused", PATIENCE, warned).await;
    let readyz = proxy.readyz().await;
    assert_eq!(readyz.status, 200);
    for said in [
        "may not sign new.example.org",
        "tollgate ca init --force",
        "not used",
    ] {
        assert!(readyz.text.contains(said), "{readyz:?}");
    }
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/still").await.0, 200);
    let mut command = tollgate(&proxy.file("."), &[].into());
    command.arg("serve").arg("--config").arg(&proxy.config);
    told(
        &finish(command).await,
        &["may not sign new.example.org", "tollgate ca init --force"],
    );
    let check = proxy.cli(&["check"]).await;
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check.stdout.contains("× may not sign new.example.org"),
        "{check:?}"
    );
}

#[tokio::test]
async fn directories_that_cannot_be_written_are_named_with_a_way_out() {
    let locked = || {
        let described = echo_policy().bound_by_file_modes();
        fs::create_dir_all(described.file("state/trust")).unwrap();
        described
    };
    let state = locked();
    set_mode(&state.file("state"), 0o500);
    let text = told(
        &state.serve_ends().await,
        &["state", "Permission denied", "stateDir"],
    );
    assert!(text.contains("help: "), "{text}");

    let trust = locked();
    set_mode(&trust.file("state/trust"), 0o500);
    told(
        &trust.serve_ends().await,
        &[
            "the trust files cannot be written to ",
            "mount a writable volume",
        ],
    );

    let ephemeral = echo_policy().setting("ca: {ephemeralDir: /dev/null/trust}");
    told(
        &ephemeral.serve_ends().await,
        &["/dev/null/trust", "ca.ephemeralDir"],
    );

    let log = echo_policy();
    let config = log.write();
    let text = fs::read_to_string(&config).unwrap();
    let file = log.file("access.log").display().to_string();
    fs::write(&config, text.replace(&file, "/dev/null/access.log")).unwrap();
    told(
        &finish(log.serve(&config)).await,
        &[
            "cannot write the access log /dev/null/access.log",
            "accessLog",
        ],
    );
}

#[tokio::test]
async fn keys_and_tokens_that_others_may_read_are_refused() {
    for name in ["placeholder.key", "admin.token"] {
        let described = echo_policy();
        fs::create_dir(described.file("state")).unwrap();
        let file = described.file("state").join(name);
        fs::write(&file, "0123456789abcdef".repeat(4)).unwrap();
        set_mode(&file, 0o644);
        let remedy = format!("chmod 600 {}", file.display());
        let text = told(
            &described.serve_ends().await,
            &[name, "others may read it", &remedy],
        );
        assert!(!text.contains("0123456789abcdef"), "{text}");
        set_mode(&file, 0o600);
        fs::write(&file, "short").unwrap();
        told(
            &described.serve_ends().await,
            &[name, "too short", "remove it"],
        );
    }
}

#[tokio::test]
async fn an_agents_token_that_is_too_short_is_told_by_the_agents_name() {
    let agents = "identity: {agents: [{name: scan, token: {env: {name: SCAN}}}, {name: fix, token: {env: {name: FIX}}}]}";
    let described = echo_policy().setting(agents);
    let short = described
        .env("SCAN", "token-of-scan-0001")
        .env("FIX", "sentinel-short");
    let text = told(
        &short.serve_ends().await,
        &["token of agent `fix`", "shorter than 16", "openssl rand"],
    );
    assert!(
        !text.contains("sentinel") && !text.contains("token-of-scan"),
        "{text}"
    );
    let missing = echo_policy()
        .setting(agents)
        .env("SCAN", "token-of-scan-0001");
    told(
        &missing.serve_ends().await,
        &["`token of agent fix`", "`FIX` is not set"],
    );
    let same = echo_policy().setting(agents);
    let same = same
        .env("SCAN", "token-of-both-0001")
        .env("FIX", "token-of-both-0001");
    let text = told(&same.serve_ends().await, &["`scan`", "`fix`", "same token"]);
    assert!(!text.contains("token-of-both"), "{text}");
}

fn echo_policy() -> ProxyBuilder {
    proxy().policy("- {hosts: [echo.example.com], tls: Intercept}")
}

async fn served(documents: &str) -> Finished {
    let described = described(documents);
    described.serve_ends().await
}

async fn served_json(documents: &str) -> String {
    let described = described(documents);
    let mut command = described.serve(&described.write());
    command.args(["-o", "json"]);
    finish(command).await.stderr
}

fn described(documents: &str) -> ProxyBuilder {
    let described = proxy().documents_at("documents.yaml");
    fs::write(described.file("documents.yaml"), documents).unwrap();
    described
}

/// It ended as a wrong configuration does, and said all this.
#[track_caller]
fn told(finished: &Finished, said: &[&str]) -> String {
    assert_eq!(finished.code, Some(CONFIG), "{finished:?}");
    for said in said {
        assert!(
            finished.stderr.contains(said),
            "{said:?} is not in: {}",
            finished.stderr
        );
    }
    finished.stderr.clone()
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

fn replace_private(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    set_mode(file, 0o600);
}
