//! Where secrets come from, and where they are gone from.

use std::path::Path;
use std::time::{Duration, Instant};

use super::support::agent::Agent;
use super::support::echo::{self, HOST, PLACEHOLDER};

/// A file that is replaced is followed, without a restart and without a refused request between.
#[tokio::test]
async fn a_replaced_file_is_followed() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let mut proxy = echo::in_front_of(&echo).start().await;
    let agent = Agent::at(&proxy.door().await);
    assert_eq!(ask(&curl, &agent, "/before").await, "200");
    proxy.replace_secret("echo", "another-REAL-key-for-the-echo");
    let deadline = Instant::now() + Duration::from_secs(20);
    // The origin knows the old key only: its 401 shows that the new one is in use.
    while ask(&curl, &agent, "/after").await == "200" {
        assert!(Instant::now() < deadline, "the new file is never read");
    }
    let last = echo.origin.requests().pop().unwrap();
    assert_eq!(last.bearer(), Some("another-REAL-key-for-the-echo"));
}

async fn ask(curl: &Path, agent: &Agent, path: &str) -> String {
    let key = format!("authorization: Bearer {PLACEHOLDER}");
    let url = format!("https://{HOST}{path}");
    let args = [
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        &key,
        &url,
    ];
    agent.run(curl, &args).await.ok().to_owned()
}

/// A placeholder belongs to its host: elsewhere it is refused, although the host is allowed.
#[tokio::test]
async fn a_placeholder_does_not_work_on_another_host() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let other = super::support::origin::Origin::tls(&["other.example.org"], |_| async {
        super::support::reply::text(200, "reached")
    })
    .await;
    let proxy = echo::in_front_of(&echo)
        .origin(&other)
        .policy("- {hosts: [other.example.org], tls: Intercept}")
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let key = format!("authorization: Bearer {PLACEHOLDER}");
    let url = "https://other.example.org/";
    let args = [
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        &key,
        url,
    ];
    assert_eq!(agent.run(&curl, &args).await.ok(), "403");
    assert!(other.requests().is_empty());
    let args = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", url];
    assert_eq!(agent.run(&curl, &args).await.ok(), "200");
}

/// The admin port wants its token, and cannot be reached through the proxy.
#[tokio::test]
async fn the_admin_port_is_out_of_an_agents_reach() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let agent = Agent::at(&proxy.door().await);
    let url = format!("http://{}/readyz", proxy.admin);
    let args = [
        "-sS",
        "--noproxy",
        "",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ];
    assert_eq!(
        agent.run(&curl, &args).await.ok(),
        "403",
        "through the proxy"
    );
    assert_eq!(
        Agent::alone().run(&curl, &args).await.ok(),
        "200",
        "directly"
    );
    let url = format!("http://{}/v1/credentials", proxy.admin);
    let args = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url];
    assert_eq!(
        Agent::alone().run(&curl, &args).await.ok(),
        "401",
        "without a token"
    );
}
