use std::time::UNIX_EPOCH;

use super::super::answer::{Asked, token_answer};
use super::super::scripted::answer;
use super::*;

fn read(status: u16, fields: &[(&'static str, &str)], body: &str) -> EndpointError {
    let sent = Secret::from("rt-sentinel".to_owned());
    let asked = Asked {
        endpoint: &Endpoint::parse("https://auth.example.com/token").unwrap(),
        refresh: Some(&sent),
        sent: UNIX_EPOCH,
        expiry_in_token: false,
    };
    token_answer(&answer(status, fields, body), &asked).unwrap_err()
}

#[derive(Debug, PartialEq)]
enum Kind {
    Unanswered,
    Failed,
    Later(Option<u64>),
    InvalidGrant,
    Refused,
}

fn kind(error: &EndpointError) -> Kind {
    match error {
        EndpointError::Unanswered(_) => Kind::Unanswered,
        EndpointError::Failed(_) => Kind::Failed,
        EndpointError::Later { after, .. } => Kind::Later(after.map(|after| after.as_secs())),
        EndpointError::InvalidGrant(_) => Kind::InvalidGrant,
        EndpointError::Refused(_) => Kind::Refused,
        EndpointError::Unreachable(_) | EndpointError::Incomplete(_) => unreachable!(),
    }
}

#[test]
fn every_answer_without_tokens_says_what_to_do_next() {
    use Kind::*;
    let after = &[("retry-after", "7")][..];
    for (status, fields, body, expected) in [
        (429, after, "", Later(Some(7))),
        (429, &[][..], r#"{"error":"invalid_grant"}"#, Later(None)),
        (503, after, "busy", Later(Some(7))),
        (408, &[], "", Later(None)),
        (503, &[], "busy", Failed),
        (500, &[], r#"{"error":"server_error"}"#, Failed),
        (500, after, "", Failed),
        (529, &[], "", Failed),
        (502, &[], "<html>", Unanswered),
        (504, &[], "", Unanswered),
        (524, &[], "", Unanswered),
        (200, &[], "", Unanswered),
        (200, &[], r#"{"access_token":"at-1""#, Unanswered),
        (200, &[], r#"{"access_token":7}"#, Unanswered),
        (200, &[], r#"{"access_token":""}"#, Unanswered),
        (200, &[], r#"{"access_token":null}"#, Unanswered),
        (200, &[], r#"{"access_token":"a b"}"#, Unanswered),
        (200, &[], r#"{"access_token":"a\r\nb"}"#, Unanswered),
        (200, &[], r#"{"access_token":"aé"}"#, Unanswered),
        (
            200,
            &[],
            r#"{"access_token":"at","refresh_token":"a\u0000"}"#,
            Unanswered,
        ),
        (200, &[], "{}", Unanswered),
        (204, &[], "", Unanswered),
        (200, &[], "<html>log in</html>", Unanswered),
        (200, &[], "[]", Unanswered),
        (200, &[], r#"{"error":"bad_refresh_token"}"#, InvalidGrant),
        (
            200,
            &[],
            r#"{"ok":false,"error":"invalid_refresh_token"}"#,
            InvalidGrant,
        ),
        (
            200,
            &[],
            r#"{"error":"incorrect_client_credentials"}"#,
            Refused,
        ),
        (
            200,
            &[],
            r#"{"access_token":"at","token_type":"mac"}"#,
            Refused,
        ),
        (
            200,
            &[],
            r#"{"access_token":"at","token_type":"DPoP"}"#,
            Refused,
        ),
        (400, &[], r#"{"error":"invalid_grant"}"#, InvalidGrant),
        (401, &[], r#"{"error":"invalid_grant"}"#, InvalidGrant),
        (
            400,
            &[],
            r#"{"error":{"type":"invalid_grant"}}"#,
            InvalidGrant,
        ),
        (
            400,
            &[],
            r#"{"error":{"code":"refresh_token_expired"}}"#,
            InvalidGrant,
        ),
        (
            401,
            &[],
            r#"{"error":{"code":"refresh_token_reused"}}"#,
            InvalidGrant,
        ),
        (
            400,
            &[],
            r#"{"error":{"code":"refresh_token_invalidated","type":"invalid_request_error"}}"#,
            InvalidGrant,
        ),
        (401, &[], r#"{"code":"refresh_token_reused"}"#, InvalidGrant),
        (
            400,
            &[],
            r#"{"error":"temporarily_unavailable"}"#,
            Later(None),
        ),
        (400, &[], r#"{"error":"invalid_request"}"#, Refused),
        (401, &[], r#"{"error":"invalid_client"}"#, Refused),
        (400, &[], r#"{"error":"unauthorized_client"}"#, Refused),
        (400, &[], r#"{"error":"invalid_scope"}"#, Refused),
        (400, &[], r#"{"error":7}"#, Refused),
        (400, &[], "invalid_grant", Refused),
        (403, &[], "<html>", Refused),
        (404, &[], "", Refused),
        (301, &[("location", "https://b.example.com/t")], "", Refused),
        (302, &[], r#"{"access_token":"at"}"#, Refused),
    ] {
        let error = read(status, fields, body);
        assert_eq!(kind(&error), expected, "{status} {body}: {error}");
        assert!(error.to_string().contains("auth.example.com"), "{error}");
    }
}

#[test]
fn what_people_see_holds_words_and_no_token() {
    let token = "sk-ant-ort01-AAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (body, shown) in [
        (
            r#"{"error":"invalid_grant","error_description":"Refresh token not found or invalid"}"#,
            "answered 400 (invalid_grant): Refresh token not found or invalid".to_owned(),
        ),
        (
            &format!(
                r#"{{"error":"invalid_grant","error_description":"the token {token} is used"}}"#
            ),
            "answered 400 (invalid_grant): the token is used".to_owned(),
        ),
        (
            r#"{"error":"invalid_grant","error_description":"your rt-sentinel. is old\u001b[31m \u0007"}"#,
            "answered 400 (invalid_grant): your is".to_owned(),
        ),
        (
            &format!(r#"{{"error":"{token}","message":"Bad credentials"}}"#),
            "answered 400: Bad credentials".to_owned(),
        ),
        (
            r#"{"error":{"code":"refresh_token_reused","type":"invalid_request_error","message":"Already used."}}"#,
            "answered 400 (refresh_token_reused): Already used.".to_owned(),
        ),
        (
            r#"{"error":"rt_sentinel_x","error_description":7}"#,
            "answered 400 (rt_sentinel_x)".to_owned(),
        ),
        ("rt-sentinel", "answered 400".to_owned()),
    ] {
        let error = read(400, &[], body).to_string();
        assert!(error.ends_with(&shown), "{error}");
        assert!(!error.contains("rt-sentinel") && !error.contains("sk-ant"));
    }
    let long = format!(
        r#"{{"error":"x","error_description":"{}"}}"#,
        "word ".repeat(900)
    );
    let error = read(400, &[], &long).to_string();
    assert!(error.len() < 300, "{}", error.len());
}

#[test]
fn a_redirect_is_named_by_its_host_alone() {
    for (location, shown) in [
        ("https://b.example.com/t?token=sentinel", "b.example.com"),
        (
            "/elsewhere?sentinel",
            "something that is no https:// address",
        ),
        (
            "http://sentinel@b.example.com/",
            "something that is no https:// address",
        ),
    ] {
        let error = read(307, &[("location", location)], "").to_string();
        assert!(
            error.contains(shown) && !error.contains("sentinel"),
            "{error}"
        );
    }
}
