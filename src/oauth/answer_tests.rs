use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::super::scripted::answer;
use super::*;

const NOW: u64 = 784_111_777;
const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn endpoint() -> Endpoint {
    Endpoint::parse("https://auth.example.com/token").unwrap()
}

fn asked_with<'a>(endpoint: &'a Endpoint, refresh: Option<&'a Secret>) -> Asked<'a> {
    Asked {
        endpoint,
        refresh,
        sent: at(NOW),
        expiry_in_token: false,
    }
}

fn read(
    status: u16,
    fields: &[(&'static str, &str)],
    body: &str,
) -> Result<TokenSet, EndpointError> {
    let sent = Secret::from("rt-sentinel".to_owned());
    let endpoint = endpoint();
    token_answer(
        &answer(status, fields, body),
        &asked_with(&endpoint, Some(&sent)),
    )
}

fn ok(body: &str) -> TokenSet {
    read(200, &[], body).unwrap()
}

fn life(body: &str) -> Option<Duration> {
    let ends = ok(body).expires_at?;
    Some(ends.duration_since(at(NOW)).unwrap())
}

#[test]
fn an_answer_of_rfc_6749_is_read() {
    let tokens = ok(
        r#"{"access_token":"at-1","token_type":"bearer","expires_in":3600,"refresh_token":"rt-1","scope":"a b","id_token":"x.y.z","future":{"secret":1}}"#,
    );
    assert_eq!(tokens.access.expose(), b"at-1");
    assert_eq!(tokens.refresh.unwrap().expose(), b"rt-1");
    assert_eq!(tokens.id.unwrap().expose(), b"x.y.z");
    assert_eq!(tokens.expires_at, Some(at(NOW + 3600)));
    assert_eq!(tokens.issued_at, at(NOW));
    assert_eq!(tokens.scopes, ["a", "b"]);
    assert!(tokens.profile.is_empty());
}

#[test]
fn the_refresh_token_stays_when_the_answer_has_none() {
    for part in ["", r#","refresh_token":null"#, r#","refresh_token":"""#] {
        let tokens = ok(&format!(r#"{{"access_token":"at-1"{part}}}"#));
        assert_eq!(tokens.refresh.unwrap().expose(), b"rt-sentinel");
    }
}

#[test]
fn an_expiry_comes_as_number_or_text_and_is_bounded() {
    let hour = Some(Duration::from_secs(3600));
    for (expires_in, expected) in [
        ("3600", hour),
        ("3600.0", hour),
        (r#""3600""#, hour),
        (r#"" 3600 ""#, hour),
        ("1.5", Some(Duration::from_millis(1500))),
        ("null", None),
        (r#""soon""#, None),
        ("{}", None),
        ("1e12", Some(LONGEST_LIFE)),
        ("1e300", Some(LONGEST_LIFE)),
        (r#""inf""#, Some(LONGEST_LIFE)),
    ] {
        let body = format!(r#"{{"access_token":"at-1","expires_in":{expires_in}}}"#);
        assert_eq!(life(&body), expected, "{expires_in}");
    }
    assert_eq!(life(r#"{"access_token":"at-1"}"#), None);
}

#[test]
fn a_token_that_has_ended_when_it_comes_does_not_take_the_refresh_token_with_it() {
    for expires_in in ["0", "-1", "-0.5", r#""0""#, r#""NaN""#] {
        let body = format!(
            r#"{{"access_token":"at-1","refresh_token":"rt-2","expires_in":{expires_in}}}"#
        );
        assert_eq!(life(&body), Some(Duration::ZERO), "{expires_in}");
        let tokens = read(200, &[], &body).unwrap();
        assert_eq!(tokens.refresh.unwrap().expose(), b"rt-2");
    }
}

#[test]
fn whose_tokens_they_are_is_kept_and_nothing_else() {
    let tokens = ok(
        r#"{"access_token":"at-1","account":{"uuid":"u-1","email_address":"a@example.com","api_key":"sentinel"},
            "organization":{"uuid":"o-1","name":"Org"},"session_key":"sentinel"}"#,
    );
    let kept = serde_json::to_string(&tokens.profile).unwrap();
    assert_eq!(
        kept,
        r#"{"account":{"email_address":"a@example.com","uuid":"u-1"},"organization":{"name":"Org","uuid":"o-1"}}"#
    );
    for odd in [
        "null",
        "7",
        r#""text""#,
        r#"{"uuid":7}"#,
        r#"{"uuid":"a\nb"}"#,
    ] {
        let tokens = ok(&format!(r#"{{"access_token":"at-1","account":{odd}}}"#));
        assert!(tokens.profile.is_empty(), "{odd}");
    }
}

fn jwt(claims: &str) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", part(r#"{"alg":"none"}"#), part(claims))
}

#[test]
fn codex_tokens_tell_their_own_end_and_whose_they_are() {
    let access = jwt(&format!(r#"{{"exp":{}}}"#, NOW + 7200 + 300));
    let id = jwt(
        r#"{"email":"a@example.com","https://api.openai.com/auth":{"chatgpt_account_id":"acc-1","chatgpt_plan_type":"pro","secret":"s"}}"#,
    );
    let body = format!(r#"{{"access_token":"{access}","id_token":"{id}","refresh_token":"rt-2"}}"#);
    let endpoint = endpoint();
    let codex = Asked {
        expiry_in_token: true,
        sent: at(NOW - 300),
        ..asked_with(&endpoint, None)
    };
    // This machine is five minutes behind.
    let tokens = token_answer(&answer(200, &[DATE], &body), &codex).unwrap();
    assert_eq!(tokens.expires_at, Some(at(NOW + 7200)));
    assert_eq!(
        serde_json::to_string(&tokens.profile).unwrap(),
        r#"{"account_id":"acc-1","email":"a@example.com","plan_type":"pro"}"#
    );
    let other = asked_with(&endpoint, None);
    let tokens = token_answer(&answer(200, &[DATE], &body), &other).unwrap();
    assert_eq!(tokens.expires_at, None);
    for odd in [
        "opaque",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        &jwt("[]"),
        &jwt(r#"{"exp":"x"}"#),
    ] {
        let body = format!(r#"{{"access_token":"{odd}"}}"#);
        let tokens = token_answer(&answer(200, &[], &body), &codex).unwrap();
        assert_eq!(tokens.expires_at, None, "{odd}");
    }
}

#[test]
fn an_installation_token_ends_by_githubs_clock() {
    let body = r#"{"token":"ghs_1","expires_at":"1994-11-06T09:49:37Z","permissions":{}}"#;
    let endpoint = endpoint();
    let read = |fields, body, sent| {
        let asked = Asked {
            sent,
            ..asked_with(&endpoint, None)
        };
        installation_answer(&answer(201, fields, body), &asked)
    };
    let ahead = at(NOW + 400);
    let tokens = read(&[DATE], body, ahead).unwrap();
    assert_eq!(tokens.access.expose(), b"ghs_1");
    assert_eq!(tokens.expires_at, Some(at(NOW + 400 + 3600)));
    assert!(tokens.refresh.is_none());
    let tokens = read(&[], body, ahead).unwrap();
    assert_eq!(tokens.expires_at, Some(at(NOW + 3600)));
    // Without a date and with a clock that far off, a good token looks expired: that is not used.
    assert!(read(&[], body, at(NOW + 7200)).is_err());
    for odd in ["{}", r#"{"token":"a b"}"#, r#"{"token":"x""#] {
        assert!(matches!(
            read(&[DATE], odd, ahead),
            Err(EndpointError::Unanswered(_))
        ));
    }
    assert_eq!(
        read(&[DATE], r#"{"token":"t","expires_at":"soon"}"#, ahead)
            .unwrap()
            .expires_at,
        None
    );
}

proptest! {
    #[test]
    fn an_answer_that_is_cut_anywhere_gives_no_tokens(cut in 0usize..1000) {
        let body = r#"{"access_token":"at-sentinel","refresh_token":"rt-sentinel-2","expires_in":3600,"scope":"a b","account":{"uuid":"u"}}"#;
        let cut = cut % body.len();
        let error = read(200, &[], &body[..cut]).unwrap_err();
        prop_assert!(matches!(error, EndpointError::Unanswered(_)));
        prop_assert!(!error.to_string().contains("sentinel"));
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_refused(status in 200u16..600, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let endpoint = endpoint();
        let response = TokenResponse {
            body: Zeroizing::new(body),
            ..answer(status, &[], "")
        };
        let sent = Secret::from("rt-sentinel".to_owned());
        let outcome = token_answer(&response, &asked_with(&endpoint, Some(&sent)));
        if let Err(error) = outcome {
            let text = error.to_string();
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", text);
        }
    }

    #[test]
    fn tokens_are_taken_as_they_are_or_not_at_all(access in "[ -~]{1,60}", refresh in "[!-~]{1,60}") {
        let body = serde_json::json!({ "access_token": access, "refresh_token": refresh }).to_string();
        match read(200, &[], &body) {
            Ok(tokens) => {
                prop_assert_eq!(tokens.access.expose(), access.as_bytes());
                let taken = tokens.refresh.unwrap();
                prop_assert_eq!(taken.expose(), refresh.as_bytes());
            }
            Err(_) => prop_assert!(access.contains(' ')),
        }
    }
}
