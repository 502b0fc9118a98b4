//! Codex logs in and out behind Tollgate as it does anywhere, and what it keeps of it is placeholders.

use serde_json::Value;

use super::support::agent::Agent;
use super::support::lent::Lent;

#[tokio::test]
async fn codex_logs_in_on_another_device_and_keeps_placeholders() {
    let program = client!("codex");
    let lent = Lent::codex().await;
    let agent = Agent::at(&lent.proxy.door().await);
    let person = async { lent.server.approve(&lent.server.device_polled(1).await) };
    let (finished, ()) = tokio::join!(agent.run(&program, &["login", "--device-auth"]), person);
    finished.ok();
    lent.server.truth().assert_one_clean_grant();
    let kept = std::fs::read(agent.home().join(".codex/auth.json")).unwrap();
    for needle in lent.server.needles() {
        assert!(
            needle.find(&kept).is_none(),
            "{} is in auth.json",
            needle.name
        );
    }
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let placeholder = lent.placeholder("codex-login").await;
    assert_eq!(kept["tokens"]["access_token"], placeholder);
    assert_eq!(kept["tokens"]["account_id"], lent.server.account());

    agent.run(&program, &["logout"]).await.ok();
    let truth = lent.server.truth();
    assert_eq!(truth.revocations, 0);
    truth.assert_one_clean_grant();
}
