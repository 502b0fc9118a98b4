use super::*;
use crate::budget::limit::{Enforcement, Limit, Selector, Unit, WindowKind};
use std::sync::Arc;

fn shortage() -> Box<Shortage> {
    let limit = Limit {
        budget: "team-a/daily".into(),
        id: "id".into(),
        selector: Selector::default(),
        unit: Unit::Usd,
        max: 5_000_000_000,
        window: WindowKind::Total,
        group_by: Box::default(),
        enforcement: Enforcement::Hard,
        carry_debt: false,
        exhausted_status: None,
        alerts: Box::default(),
        queue: Duration::ZERO,
        waiters: 64,
    };
    Box::new(Shortage {
        balance: Balance {
            limit: Arc::new(limit),
            scope: "agent=ns-a/bot".into(),
            max: 5_000_000_000,
            settled: 4_980_000_000,
            reserved: 0,
            held: 0,
            resets: Some("2026-11-22T00:00:00Z".parse().unwrap()),
        },
        asked: 90_000_000,
    })
}

fn refusal(api: Option<ModelApi>, why: Why) -> BudgetRefusal {
    BudgetRefusal {
        api,
        agent: Agent::parse("ns-a/bot").unwrap(),
        why,
    }
}

fn fields(refusal: &BudgetRefusal) -> HeaderMap {
    let mut headers = HeaderMap::new();
    refusal.mark(&mut headers);
    headers
}

#[test]
fn an_exhausted_budget_is_told_as_each_client_stops_at_it() {
    let anthropic = refusal(Some(ModelApi::Anthropic), Why::Exhausted(shortage()));
    assert_eq!(anthropic.status(), 402);
    let text = anthropic.text();
    assert!(
        text.starts_with(
            "Egress budget exhausted: budget team-a/daily for agent ns-a/bot, limit $5.00, spent $4.98, \
             this request may need $0.09. Resets 2026-11-22T00:00:00Z. Not retryable."
        ),
        "{text}"
    );
    let body = anthropic.body(&text, "1-2");
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "billing_error");
    assert_eq!(body["error"]["message"], text);
    assert_eq!(body["request_id"], "tollgate_1-2");

    let openai = refusal(Some(ModelApi::OpenAI), Why::Exhausted(shortage()));
    assert_eq!(openai.status(), 429);
    let body = openai.body("text", "1-2");
    let expected = json!({"error": {
        "message": "text", "type": "insufficient_quota", "param": null, "code": "insufficient_quota",
    }});
    assert_eq!(body, expected);

    let gemini = refusal(Some(ModelApi::Gemini), Why::Exhausted(shortage()));
    assert_eq!(gemini.status(), 429);
    assert_eq!(
        gemini.body("text", "")["error"]["status"],
        "RESOURCE_EXHAUSTED"
    );

    let bedrock = refusal(Some(ModelApi::Bedrock), Why::Exhausted(shortage()));
    assert_eq!(bedrock.status(), 400);
    assert_eq!(
        fields(&bedrock)["x-amzn-errortype"],
        "ServiceQuotaExceededException"
    );

    for refusal in [anthropic, openai, gemini, bedrock] {
        let fields = fields(&refusal);
        assert_eq!(fields["x-should-retry"], "false");
        assert!(!fields.contains_key("retry-after"));
        assert_eq!(fields["x-tollgate-budget-id"], "team-a/daily");
        assert_eq!(fields["x-tollgate-budget-limit"], "$5.00");
        assert_eq!(fields["x-tollgate-budget-spent"], "$4.98");
        assert_eq!(fields["x-tollgate-budget-remaining"], "$0.02");
        assert_eq!(fields["x-tollgate-budget-reset"], "2026-11-22T00:00:00Z");
    }
}

#[test]
fn what_passes_by_itself_is_told_with_a_time_that_clients_can_obey() {
    let second = Duration::from_secs(1);
    let rate = |after| Why::Rate {
        budget: "b".into(),
        after,
    };
    let wait = |api, why| {
        let refusal = refusal(Some(api), why);
        let fields = fields(&refusal);
        assert!(!fields.contains_key("x-should-retry"));
        let wait = fields["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap();
        (refusal.status().as_u16(), wait)
    };
    for api in [ModelApi::Anthropic, ModelApi::OpenAI, ModelApi::Gemini] {
        assert_eq!(wait(api, Why::Contended(shortage())), (429, 5));
        assert_eq!(wait(api, Why::Unavailable), (503, 5));
        assert_eq!(wait(api, rate(second * 7)), (429, 7));
        assert_eq!(wait(api, rate(Duration::from_millis(10))), (429, 1));
    }
    let contended = refusal(Some(ModelApi::OpenAI), Why::Contended(shortage()));
    let body = contended.body(&contended.text(), "");
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    assert!(contended.text().contains("held by requests in flight"));
}

#[test]
fn no_client_is_told_to_sleep_for_more_than_a_minute() {
    let rate = Why::Rate {
        budget: "b".into(),
        after: Duration::from_secs(3600),
    };
    let fields = fields(&refusal(Some(ModelApi::Anthropic), rate));
    assert_eq!(fields["x-should-retry"], "false");
    assert!(!fields.contains_key("retry-after"));
}

#[test]
fn codex_leaves_its_websocket_at_426_and_a_model_without_price_is_not_found() {
    let budget = || "daily".to_owned();
    let socket = refusal(Some(ModelApi::OpenAI), Why::WebSocket { budget: budget() });
    assert_eq!(socket.status(), 426);
    let unknown = Why::UnknownModel {
        budget: budget(),
        model: "claude-next".into(),
    };
    let unknown = refusal(Some(ModelApi::Anthropic), unknown);
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.body("", "")["error"]["type"], "not_found_error");
    assert!(unknown.text().contains("claude-next"));
}
