//! `make demo`: the main job on one machine. A strict stand-in for api.anthropic.com, the real `tollgate` binary in
//! front of it, and curl as an agent that holds only a placeholder. Exits with 0 only if every step came out as it must.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::fn_params_excessive_bools,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "../it/support/ca.rs"]
#[allow(dead_code)]
mod ca;
mod checks;
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
#[allow(dead_code)]
mod tollgate;

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use checks::{Checks, fingerprint, search, title};
use needles::Needle;
use origin::{Exchange, Origin};
use reply::Reply;
use stage::Stage;

/// A host that is allowed without a credential, and a cap for one model.
const DOCUMENTS: &str = "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: demo }\n\
                         spec:\n  egress:\n    - hosts: [files.example.org]\n      tls: Intercept\n\
                         ---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: { name: one-cent }\n\
                         spec:\n  match: { models: [claude-haiku-4-5] }\n  limits:\n    \
                         - { unit: usd, max: \"0.01\", window: { calendar: day } }\n";

const ASK: &str = r#"-H "x-api-key: $ANTHROPIC_API_KEY" -H "anthropic-version: 2023-06-01" -H "content-type: application/json" -d '{"model":"claude-demo","max_tokens":16,"messages":[{"role":"user","content":"Hi"}]}'"#;

#[tokio::main]
async fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    let key = random_key();
    let anthropic = provider(&key).await;
    let files = Origin::tls(&["files.example.org"], |_| async {
        reply::text(200, "a file\n")
    })
    .await;
    let mut checks = Checks::default();

    title("1. The stage");
    let stage = Stage::set(
        &[&anthropic, &files],
        "anthropic",
        DOCUMENTS,
        &[("ANTHROPIC_API_KEY", &key)],
    )
    .await;
    println!(
        "  origin    https://api.anthropic.com  stands on {}; it answers the real key only",
        anthropic.addr
    );
    println!(
        "  origin    https://files.example.org  stands on {}; allowed, without a credential",
        files.addr
    );
    println!("  tollgate  {}", stage.tollgate.ready);
    println!(
        "  real key  sha256 {}...  in the environment that Tollgate was started with, nowhere else",
        fingerprint(&key)
    );

    title("2. What the agent holds");
    let held = stage.agent("env | sort").await;
    let placeholder = held
        .lines()
        .find_map(|l| l.strip_prefix("ANTHROPIC_API_KEY="))
        .unwrap_or_default()
        .to_owned();
    for line in held.lines().filter(|l| {
        ["ANTHROPIC", "HTTPS_PROXY", "CURL_CA", "NODE_EXTRA"]
            .iter()
            .any(|n| l.starts_with(n))
    }) {
        println!("  {line}");
    }
    println!(
        "  the placeholder's sha256 is {}...",
        fingerprint(&placeholder)
    );
    checks.that(
        "it looks like a key",
        placeholder.starts_with("sk-ant-api03-") && placeholder.len() == key.len(),
    );
    checks.that("it is another text than the real key", placeholder != key);
    let direct = format!(
        "--noproxy '*' --connect-to api.anthropic.com:443:{} --cacert {}",
        anthropic.addr,
        stage.path("origin-ca.pem").display()
    );
    let direct = stage
        .agent(&format!(
            "curl -sS {direct} {ASK} https://api.anthropic.com/v1/messages -w ' %{{http_code}}'"
        ))
        .await;
    checks.that(
        "sent to the origin without Tollgate it is worth nothing: 401",
        direct.ends_with(" 401"),
    );
    let before = anthropic.requests().len();

    title("3. The agent asks, by two doors");
    let answer = stage
        .show(&format!(
            "curl -sS {ASK} https://api.anthropic.com/v1/messages -w '\\n%{{http_code}}'"
        ))
        .await;
    checks.that(
        "by HTTPS_PROXY: 200, and the model's words",
        answer.ends_with("\n200") && answer.contains("It works."),
    );
    let url = format!("http://{}/anthropic/v1/messages", stage.tollgate.listen);
    let answer = stage
        .show(&format!("curl -sS {ASK} {url} -w '\\n%{{http_code}}'"))
        .await;
    checks.that(
        "by a base URL: 200, and the model's words",
        answer.ends_with("\n200") && answer.contains("It works."),
    );

    title("4. What the origin received");
    let received = anthropic.requests().split_off(before);
    checks.that("two requests", received.len() == 2);
    for request in &received {
        let got = request.header("x-api-key").unwrap_or_default();
        println!(
            "  {} {}  x-api-key: sha256 {}...",
            request.method,
            request.target,
            fingerprint(got)
        );
        checks.that(
            "that is the real key's fingerprint",
            fingerprint(got) == fingerprint(&key),
        );
        checks.that(
            "and not the placeholder's",
            fingerprint(got) != fingerprint(&placeholder) && !request.head_mentions(&placeholder),
        );
    }

    title("5. What is refused, in the agent's own words");
    let seen = (anthropic.requests().len(), files.requests().len());
    let refusals = [
        (
            "a host that no rule names",
            "curl -sSv https://collect.example.net/ 2>&1 | grep -E '^(< HTTP|curl:)'",
            "no rule allows collect.example.net",
        ),
        (
            "the placeholder, sent to another allowed host",
            "curl -sS -H \"x-api-key: $ANTHROPIC_API_KEY\" https://files.example.org/",
            "placeholder of the credential",
        ),
        (
            "a key of somebody else on an allowed host",
            "curl -sS -H 'x-api-key: sk-ant-api03-smuggled' https://api.anthropic.com/v1/models",
            "did not give to this agent",
        ),
        (
            "a path that the policy does not allow",
            "curl -sS https://api.anthropic.com/internal/keys",
            "allows only /v1/**",
        ),
        (
            "the cloud's metadata address",
            "curl -sS http://169.254.169.254/latest/meta-data/",
            "an address is refused",
        ),
    ];
    for (what, command, expected) in refusals {
        println!("  {what}:");
        let text = stage.show(command).await;
        checks.that("refused, with its reason", text.contains(expected));
    }
    checks.that(
        "none of these reached an origin",
        seen == (anthropic.requests().len(), files.requests().len()),
    );
    let allowed = stage.agent("curl -sS https://files.example.org/").await;
    checks.that(
        "the other allowed host answers when nothing is smuggled to it",
        allowed == "a file\n",
    );

    title("6. A cap: one cent a day for this model");
    cap(&stage, &anthropic, &mut checks).await;

    title("7. The access log");
    for record in stage.access_log(11).await {
        let field = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        println!(
            "  {:5} {:4} {}{} {} rule={} credential={} {}",
            field("decision"),
            field("method"),
            field("authority"),
            field("target"),
            record["status"],
            if record["rule"].is_null() {
                "none".to_owned()
            } else {
                field("rule")
            },
            names(&record["credentials"]),
            field("reason"),
        );
    }
    let records = stage.access_log(11).await;
    let with_key = records
        .iter()
        .filter(|r| names(&r["credentials"]) == "anthropic" && r["decision"] == "allow")
        .count();
    checks.that(
        "four exchanges carry the credential's name, none its value",
        with_key == 4,
    );
    let denied = records.iter().filter(|r| r["decision"] == "deny").count();
    checks.that("six are denied", denied == 6);

    title("8. Why?");
    let why = stage
        .operator("why https://api.anthropic.com/internal/keys")
        .await;
    checks.that(
        "`tollgate why` names rule and edit, exit code 1",
        why.ends_with("exit 1") && why.contains("<preset anthropic>"),
    );
    let creds = stage.operator("creds list").await;
    checks.that(
        "`tollgate creds list` says how the key is, not what it is",
        creds.contains("anthropic  ok"),
    );

    title("9. The real key, searched for everywhere");
    let secrets = [Needle::new("the key", &key)];
    let places = stage.everything(&[], &[]).await;
    let control = received
        .iter()
        .map(|r| format!("{:?}", r.headers))
        .collect::<String>();
    checks.that(
        "the search finds it where it must be: in what the origin received",
        search(&control, &secrets) == 1,
    );
    checks.are_free_of(&secrets, &places);

    if keep {
        title("It keeps running; Ctrl-C ends it");
        println!(
            "  . {}        # become the agent",
            stage.path("agent/env.sh").display()
        );
        println!("  curl {ASK} https://api.anthropic.com/v1/messages");
        println!("  {}", stage.command("why https://pypi.org/"));
        println!("  tail -f {}", stage.path("access.log").display());
        tokio::signal::ctrl_c().await.unwrap();
    }
    checks.that("Tollgate ends in good order", stage.tollgate.end().await);
    checks.finish()
}

/// Spends until nothing is left, and shows that this is the end.
async fn cap(stage: &Stage, anthropic: &Origin, checks: &mut Checks) {
    let ask = |model: &str| {
        format!(
            "curl -sSi --suppress-connect-headers -H \"x-api-key: $ANTHROPIC_API_KEY\" -H \"anthropic-version: 2023-06-01\" -H \"content-type: application/json\" \
             -d '{{\"model\":\"{model}\",\"max_tokens\":1000,\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}' \
             https://api.anthropic.com/v1/messages | tr -d '\\r' | sed -n -e '/^HTTP.* [245]/p' -e '/budget/p' -e '/should-retry/p'"
        )
    };
    let reached = anthropic.requests().len();
    let first = stage.show(&ask("claude-haiku-4-5")).await;
    checks.that(
        "the first call fits, and its answer tells where the budget stands",
        first.starts_with("HTTP/2 200") && first.contains("x-tollgate-budget-limit: $0.01"),
    );
    let second = stage.show(&ask("claude-haiku-4-5")).await;
    checks.that(
        "the second might not: 402, with the amounts, and the client is told not to try again",
        second.starts_with("HTTP/2 402")
            && second.contains("Egress budget exhausted: budget one-cent")
            && second.contains("spent $0.00452")
            && second.contains("x-should-retry: false"),
    );
    checks.that(
        "it did not reach the origin",
        anthropic.requests().len() == reached + 1,
    );
    let spend = stage.operator("spend --by model").await;
    checks.that(
        "`tollgate spend` has the one call that was made, to the nano-dollar",
        spend.ends_with("exit 0")
            && spend.contains("claude-haiku-4-5")
            && spend.contains("0.00452"),
    );
    let other = stage.agent(&ask("claude-demo")).await;
    checks.that(
        "another model is not the cap's business",
        other.starts_with("HTTP/2 200"),
    );
}

/// Strict as the real one: one key, in its header, on one path.
async fn provider(key: &str) -> Origin {
    let key = key.to_owned();
    Origin::tls(&["api.anthropic.com"], move |exchange| {
        let key = key.clone();
        async move { answer(exchange, &key).await }
    })
    .await
}

async fn answer(mut exchange: Exchange, key: &str) -> Reply {
    let body = exchange.json().await;
    let error = |code, kind: &str| {
        reply::json(
            code,
            &json!({"type": "error", "error": {"type": kind, "message": kind}}),
        )
    };
    if exchange.head.header("x-api-key") != Some(key) {
        return error(401, "authentication_error");
    }
    if exchange.head.path() != "/v1/messages" || body.is_null() {
        return error(404, "not_found_error");
    }
    let content = json!([{"type": "text", "text": "It works."}]);
    reply::json(
        200,
        &json!({
            "type": "message", "role": "assistant", "model": body["model"], "content": content,
            "usage": {"input_tokens": 20, "output_tokens": 900},
        }),
    )
}

fn names(credentials: &Value) -> String {
    let names: Vec<&str> = credentials
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    }
}

/// A key of the provider's shape, new in every run.
fn random_key() -> String {
    let mut bytes = [0; 72];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    format!("sk-ant-api03-{}AA", &URL_SAFE_NO_PAD.encode(bytes)[..93])
}
