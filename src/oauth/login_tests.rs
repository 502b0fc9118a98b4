use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::scripted::{Scripted, answer, asking, settings};
use super::super::transport::TransportError;
use super::*;

fn begun(yaml: &str) -> AuthorizationRequest {
    AuthorizationRequest::new(&settings(yaml)).unwrap()
}

fn query(url: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text)
            .decode_utf8()
            .unwrap()
            .into_owned()
    };
    let (_, query) = url.split_once('?').unwrap();
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[test]
fn the_address_names_the_client_and_only_a_hash_of_the_verifier() {
    let login = begun("client: claude-code");
    assert!(
        login
            .url()
            .starts_with("https://claude.com/cai/oauth/authorize?code=true&client_id=")
    );
    let query = query(login.url());
    assert_eq!(query["response_type"], "code");
    assert_eq!(
        query["redirect_uri"],
        "https://platform.claude.com/oauth/code/callback"
    );
    assert!(query["scope"].contains("user:inference user:sessions:claude_code"));
    assert_eq!(query["state"], *login.state);
    assert_eq!(query["code_challenge_method"], "S256");
    assert_eq!(query["code_challenge"], challenge(&login.verifier));
    assert_eq!((login.state.len(), login.verifier.len()), (43, 43));
    assert!(!login.url().contains(login.verifier.as_str()));
    let other = begun("client: claude-code");
    assert!(other.state != login.state && other.verifier != login.verifier);
    assert!(!format!("{login:?}").contains(login.verifier.as_str()));
}

#[test]
fn the_challenge_is_the_one_of_rfc_7636_appendix_b() {
    assert_eq!(
        challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
}

#[test]
fn an_authorization_endpoint_may_have_a_query_of_its_own() {
    let login = begun(
        "clientId: acme
tokenEndpoint: https://auth.example.com/token
login: { authorizationEndpoint: \"https://auth.example.com/authorize?tenant=1\", redirectUri: \"http://localhost/cb\" }",
    );
    assert!(
        login
            .url()
            .starts_with("https://auth.example.com/authorize?tenant=1&client_id=acme&")
    );
    assert!(!login.url().contains("scope="));
}

#[test]
fn without_an_authorization_endpoint_there_is_no_such_login() {
    let settings = settings("clientId: acme\ntokenEndpoint: https://auth.example.com/token");
    assert_eq!(
        AuthorizationRequest::new(&settings).unwrap_err(),
        LoginError::NoWay
    );
}

#[test]
fn a_code_is_read_however_it_was_pasted() {
    let login = begun("client: codex");
    let state = login.state.to_string();
    let callback = "http://127.0.0.1:1455/auth/callback";
    for pasted in [
        format!("the/code+1#{state}"),
        format!("  the/code+1#{state}\r\n"),
        "the/code+1".to_owned(),
        format!("{callback}?code=the%2Fcode%2B1&scope=a+b&state={state}"),
        format!("{callback}?state={state}&code=the%2Fcode%2B1#fragment"),
        format!("?code=the%2Fcode%2B1&state={state}"),
        format!("code=the%2Fcode%2B1&state={state}"),
        format!("/auth/callback?code=the%2Fcode%2B1&state={state}"),
        format!("{callback}?code=the%2Fcode%2B1"),
    ] {
        let code = login.parse_pasted(&pasted).unwrap();
        assert_eq!(*code.0, "the/code+1", "{pasted}");
        assert_eq!(format!("{code:?}"), "AuthorizationCode(***)");
    }
    let odd = login.parse_pasted(&format!("barcode=7#{state}")).unwrap();
    assert_eq!(*odd.0, "barcode=7");
}

#[test]
fn what_is_no_code_of_this_login_is_refused() {
    let login = begun("client: codex");
    let state = login.state.to_string();
    let other = begun("client: codex").state.to_string();
    use LoginError as E;
    for (pasted, expected) in [
        (String::new(), E::NoCode),
        ("#".to_owned(), E::OtherLogin),
        (format!("#{state}"), E::NoCode),
        ("the code".to_owned(), E::NoCode),
        ("cödé".to_owned(), E::NoCode),
        ("https://example.com/".to_owned(), E::NoCode),
        (format!("https://example.com/?state={state}"), E::NoCode),
        ("code#".to_owned(), E::OtherLogin),
        (format!("code#{other}"), E::OtherLogin),
        (format!("code#{state}x"), E::OtherLogin),
        (format!("code#{}", &state[1..]), E::OtherLogin),
        (format!("?code=x&state={other}"), E::OtherLogin),
        ("?code=x&state=".to_owned(), E::OtherLogin),
        (
            "?error=access_denied&state=x".to_owned(),
            E::Denied("access_denied".to_owned()),
        ),
        (
            "?error=%1b[31m".to_owned(),
            E::Denied("no reason given".to_owned()),
        ),
    ] {
        assert_eq!(
            login.parse_pasted(&pasted).unwrap_err(),
            expected,
            "{pasted}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_is_pasted_gives_a_plain_code_or_none(pasted in "\\PC{0,80}") {
        let login = begun("client: codex");
        if let Ok(code) = login.parse_pasted(&pasted) {
            prop_assert!(!code.0.is_empty() && code.0.bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}

#[tokio::test]
async fn a_code_is_exchanged_as_each_provider_wants_it() {
    let body = r#"{"access_token":"at","refresh_token":"rt","expires_in":60}"#;
    for (yaml, expected) in [
        (
            "client: claude-code",
            r#"{"grant_type":"authorization_code","code":"the-code","redirect_uri":"https://platform.claude.com/oauth/code/callback","code_verifier":"VERIFIER","state":"STATE","client_id":"9d1c250a-e61b-44d9-88ed-5944d1962f5e"}"#,
        ),
        (
            "client: codex",
            "grant_type=authorization_code&code=the-code&redirect_uri=http%3A%2F%2F127.0.0.1%3A1455%2Fauth%2Fcallback&code_verifier=VERIFIER&client_id=app_EMoamEEZ73f0CkXaXp7hrann",
        ),
    ] {
        let transport = Scripted::new([Ok(answer(200, &[], body))]);
        let asking = asking(yaml, transport.clone());
        let login = AuthorizationRequest::new(asking.grant().settings()).unwrap();
        let code = login.parse_pasted("the-code").unwrap();
        let tokens = login.exchange(&asking, &code).await.unwrap();
        assert_eq!(tokens.refresh.unwrap().expose(), b"rt");
        let (url, sent) = transport.sent().remove(0);
        assert_eq!(url, asking.grant().settings().token_endpoint.to_string());
        let expected = expected
            .replace("VERIFIER", &login.verifier)
            .replace("STATE", &login.state);
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn a_code_that_is_not_accepted_gives_no_tokens() {
    let refused = answer(400, &[], r#"{"error":"invalid_grant"}"#);
    let cut = Err(TransportError::Unanswered(
        "the connection was cut".to_owned(),
    ));
    let transport = Scripted::new([Ok(refused), cut]);
    let asking = asking("client: codex", transport);
    let login = AuthorizationRequest::new(asking.grant().settings()).unwrap();
    let code = login.parse_pasted("the-code").unwrap();
    let error = login.exchange(&asking, &code).await.unwrap_err();
    assert!(matches!(
        error,
        LoginError::Endpoint(EndpointError::InvalidGrant(_))
    ));
    let error = login.exchange(&asking, &code).await.unwrap_err();
    assert!(matches!(
        error,
        LoginError::Endpoint(EndpointError::Unanswered(_))
    ));
}
