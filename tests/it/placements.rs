//! Every place a placeholder may stand in, swapped on the wire and nowhere else.

use std::path::PathBuf;

use super::support::agent::Agent;
use super::support::origin::Origin;
use super::support::proxy::{Proxy, proxy};
use super::support::reply;

const HOST: &str = "api.example.com";
const REAL: &str = "real-s3cret/with+odd=chars";
const PLACEHOLDER: &str = "placeholder-of-the-agent-0001";

/// A proxy with one credential in this placement, its origin, and an agent with curl behind it.
struct Stage {
    curl: PathBuf,
    origin: Origin,
    _proxy: Proxy,
    agent: Agent,
}

impl Stage {
    async fn with(curl: PathBuf, credential: &str) -> Self {
        let origin = Origin::tls(&[HOST], |mut exchange| async move {
            exchange.body().await;
            reply::text(200, "reached")
        })
        .await;
        let spec = format!("hosts: [{HOST}]\nplaceholder: {{value: {PLACEHOLDER}}}\n{credential}");
        let proxy = proxy()
            .origin(&origin)
            .policy(&format!("- hosts: [{HOST}]\n  credentials: [secret]"))
            .credential_file("secret", REAL, &spec)
            .start()
            .await;
        let agent = Agent::at(&proxy.door().await);
        Self {
            curl,
            origin,
            _proxy: proxy,
            agent,
        }
    }

    /// The answer's body and status, as `BODY STATUS`.
    async fn ask(&self, target: &str, args: &[&str]) -> String {
        let url = format!("https://{HOST}{target}");
        let mut all = vec!["-sS", "-g", "--path-as-is", "-w", " %{http_code}"];
        all.extend(args);
        all.push(&url);
        self.agent.run(&self.curl, &all).await.ok().to_owned()
    }

    async fn passes(&self, target: &str, args: &[&str]) {
        assert_eq!(self.ask(target, args).await, "reached 200");
    }

    /// Refused with this status and word, and nothing more than before at the origin.
    async fn refuses(&self, target: &str, args: &[&str], status: &str, word: &str) {
        let before = self.origin.requests().len();
        let answer = self.ask(target, args).await;
        assert!(
            answer.ends_with(status) && answer.contains(word),
            "{answer}"
        );
        assert_eq!(self.origin.requests().len(), before);
    }
}

#[tokio::test]
async fn a_query_parameter_is_swapped_and_the_rest_stays_byte_exact() {
    let stage = Stage::with(client!("curl"), "placements: [{query: {name: key}}]").await;
    stage
        .passes(&format!("/a?x=%20+y&key={PLACEHOLDER}&z=%7E"), &[])
        .await;
    let target = &stage.origin.requests()[0].target;
    assert_eq!(
        target,
        "/a?x=%20+y&key=real-s3cret%2Fwith%2Bodd%3Dchars&z=%7E"
    );
    stage
        .refuses(
            "/a?key=somebody-elses-key-123",
            &[],
            "403",
            "did not give to this agent",
        )
        .await;
    stage
        .refuses(
            &format!("/a?other={PLACEHOLDER}"),
            &[],
            "403",
            "placeholder",
        )
        .await;
    stage.passes("/a?x=1", &[]).await;
}

#[tokio::test]
async fn a_cookie_is_swapped_among_others() {
    let stage = Stage::with(client!("curl"), "placements: [{cookie: {name: session}}]").await;
    let cookie = format!("cookie: theme=dark; session={PLACEHOLDER}; lang=en");
    stage.passes("/c", &["-H", &cookie]).await;
    let seen = stage.origin.requests().remove(0);
    assert_eq!(
        seen.header("cookie"),
        Some(format!("theme=dark; session={REAL}; lang=en").as_str())
    );
    let cookie = format!("cookie: tracking={PLACEHOLDER}");
    stage
        .refuses("/c", &["-H", &cookie], "403", "placeholder")
        .await;
}

#[tokio::test]
async fn a_body_field_is_swapped_and_every_other_byte_stays() {
    let stage = Stage::with(
        client!("curl"),
        "placements: [{body: {pointer: /auth/client_secret, limit: 64KiB}}]",
    )
    .await;
    let json = ["-H", "content-type: application/json", "-d"];
    let body = format!(
        "{{ \"a\" : [1, 2.50],\"auth\":{{\"client_secret\":\"{PLACEHOLDER}\"}}, \"n\":\"{PLACEHOLDER}\" }}"
    );
    stage
        .passes("/token", &[json[0], json[1], json[2], &body])
        .await;
    let seen = stage.origin.requests().remove(0);
    let text = String::from_utf8(seen.body.clone()).unwrap();
    let expected = body.replacen(PLACEHOLDER, REAL, 1);
    assert_eq!(
        text, expected,
        "only the field is a credential; elsewhere it is text"
    );
    assert_eq!(
        seen.header("content-length"),
        Some(expected.len().to_string().as_str())
    );

    let foreign = r#"{"auth":{"client_secret":"my-own-key-123456"}}"#;
    stage
        .refuses(
            "/token",
            &[json[0], json[1], json[2], foreign],
            "403",
            "did not give to this agent",
        )
        .await;
    let doubled =
        format!("{{\"auth\":{{\"client_secret\":\"{PLACEHOLDER}\",\"client_secret\":\"x\"}}}}");
    stage
        .refuses(
            "/token",
            &[json[0], json[1], json[2], &doubled],
            "400",
            "more than once",
        )
        .await;
    let large = format!(
        "{{\"auth\":{{\"client_secret\":\"{PLACEHOLDER}\"}},\"pad\":\"{}\"}}",
        "x".repeat(70_000)
    );
    stage
        .refuses(
            "/token",
            &[json[0], json[1], json[2], &large],
            "413",
            "65536",
        )
        .await;
    let coded = [
        json[0],
        json[1],
        "-H",
        "content-encoding: gzip",
        json[2],
        &body,
    ];
    stage.refuses("/token", &coded, "415", "compressed").await;
}

#[tokio::test]
async fn a_header_format_is_kept_around_the_secret() {
    let stage = Stage::with(
        client!("curl"),
        "placements: [{header: {name: authorization, format: \"token {}\"}}]",
    )
    .await;
    stage
        .passes(
            "/h",
            &["-H", &format!("Authorization: token {PLACEHOLDER}")],
        )
        .await;
    let seen = stage.origin.requests().remove(0);
    assert_eq!(
        seen.header("authorization"),
        Some(format!("token {REAL}").as_str())
    );
    let elsewhere = format!("x-api-key: {PLACEHOLDER}");
    stage
        .refuses("/h", &["-H", &elsewhere], "403", "placeholder")
        .await;
}

#[tokio::test]
async fn set_mode_needs_no_placeholder_and_overrides_what_the_agent_sent() {
    let stage = Stage::with(
        client!("curl"),
        "mode: set\nonForeign: strip\nplacements: [{header: {name: x-api-key}}]",
    )
    .await;
    stage.passes("/s", &[]).await;
    stage
        .passes("/s", &["-H", "x-api-key: my-own-key-123456"])
        .await;
    for seen in stage.origin.requests() {
        assert_eq!(seen.all("x-api-key"), [REAL]);
    }
}

#[tokio::test]
async fn a_foreign_credential_is_stripped_or_passed_where_the_document_says_so() {
    for (on_foreign, expected) in [("strip", None), ("pass", Some("Bearer my-own-key-123456"))] {
        let stage = Stage::with(
            client!("curl"),
            &format!("onForeign: {on_foreign}\nplacements: [{{bearer: {{}}}}]"),
        )
        .await;
        stage
            .passes("/f", &["-H", "authorization: Bearer my-own-key-123456"])
            .await;
        assert_eq!(stage.origin.requests()[0].header("authorization"), expected);
    }
}

/// The way out is the host, not the path: the provider's upload API takes the attacker's key as well.
#[tokio::test]
async fn a_foreign_credential_is_refused_on_every_path_of_a_host_with_a_credential() {
    let curl = client!("curl");
    let origin = Origin::tls(&[HOST], |mut exchange| async move {
        exchange.body().await;
        reply::text(200, "reached")
    })
    .await;
    let rules = format!(
        "- {{hosts: [{HOST}], http: [{{paths: [/v1/**]}}], credentials: [secret]}}\n\
         - {{hosts: [{HOST}], http: [{{paths: [/files/**]}}]}}"
    );
    let spec = format!(
        "hosts: [{HOST}]\nplaceholder: {{value: {PLACEHOLDER}}}\n\
         placements: [{{header: {{name: x-api-key}}}}, {{body: {{pointer: /key}}}}]"
    );
    let proxy = proxy()
        .origin(&origin)
        .policy(&rules)
        .credential_file("secret", REAL, &spec)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let stage = Stage {
        curl,
        origin,
        _proxy: proxy,
        agent,
    };
    let foreign = ["-H", "x-api-key: my-own-key-123456", "-d", "stolen"];
    stage
        .refuses("/v1/x", &foreign, "403", "did not give to this agent")
        .await;
    stage
        .refuses("/files/x", &foreign, "403", "did not give to this agent")
        .await;
    let placeholder = format!("x-api-key: {PLACEHOLDER}");
    stage
        .refuses("/files/x", &["-H", &placeholder], "403", "placeholder")
        .await;
    // A body is read only where a credential may go into it: elsewhere any size passes.
    std::fs::write(stage.agent.work().join("large"), vec![b'x'; 3 << 20]).unwrap();
    stage.passes("/files/x", &["--data-binary", "@large"]).await;
}
