use std::sync::Arc;
use std::time::UNIX_EPOCH;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::super::scripted::{answer, settings};
use super::*;
use crate::credential::held::{HeldCredential, Need};
use crate::credential::source::Fetched;

const NOW: u64 = 784_111_777;
const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn moments(seconds: u64) -> Moments {
    Moments {
        sent: at(seconds),
        answered: at(seconds),
    }
}

fn held(text: &str) -> Arc<HeldCredential> {
    let held = HeldCredential::new("acme: key", "test".to_owned(), Need::Required);
    if !text.is_empty() {
        held.report(Ok(Fetched::lasting(Secret::from(text.to_owned()))));
    }
    held
}

fn grant(yaml: &str) -> Grant {
    Grant::new(settings(yaml))
}

fn request(yaml: &str, refresh: Option<&str>, secrets: &GrantSecrets) -> TokenRequest {
    let refresh = refresh.map(|text| Secret::from(text.to_owned()));
    grant(yaml)
        .request(refresh.as_ref(), secrets, at(NOW))
        .unwrap()
}

fn body(request: &TokenRequest) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

fn form(request: &TokenRequest) -> BTreeMap<String, String> {
    assert_eq!(
        request.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text)
            .decode_utf8()
            .unwrap()
            .into_owned()
    };
    let pairs = body(request).split('&').map(|p| p.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

const ACME: &str = "tokenEndpoint: https://auth.example.com/token\nclientId: acme\n";

#[test]
fn a_refresh_is_asked_for_as_each_provider_wants_it() {
    let none = GrantSecrets::default();
    let ask = |yaml: &str, secrets| request(yaml, Some("rt/1+"), secrets);
    let claude = ask("client: claude-code", &none);
    assert_eq!(claude.url, "https://platform.claude.com/v1/oauth/token");
    assert_eq!(claude.headers["content-type"], "application/json");
    assert_eq!(
        body(&claude),
        r#"{"grant_type":"refresh_token","refresh_token":"rt/1+","scope":"user:profile user:inference user:sessions:claude_code user:mcp_servers user:file_upload","client_id":"9d1c250a-e61b-44d9-88ed-5944d1962f5e"}"#
    );
    assert_eq!(
        body(&ask("client: codex", &none)),
        r#"{"grant_type":"refresh_token","refresh_token":"rt/1+","client_id":"app_EMoamEEZ73f0CkXaXp7hrann"}"#
    );
    let plain = format!("{ACME}scopes: [a, b]\nparameters: {{ audience: https://api }}");
    let plain = ask(&plain, &none);
    assert_eq!(
        body(&plain),
        "grant_type=refresh_token&refresh_token=rt%2F1%2B&scope=a+b&audience=https%3A%2F%2Fapi&client_id=acme"
    );
    assert!(!plain.headers.contains_key("authorization"));
    assert!(!format!("{plain:?}").contains("rt/1"));
}

#[test]
fn a_client_shows_its_secret_in_the_header_or_in_the_body() {
    let secret = GrantSecrets::of(Some(held("s:e/c ret")), None);
    let source = "clientSecret: { env: { name: S } }\n";
    let basic = request(&format!("{ACME}{source}"), Some("rt"), &secret);
    let field = &basic.headers["authorization"];
    assert!(field.is_sensitive());
    let pair = field.to_str().unwrap().strip_prefix("Basic ").unwrap();
    assert_eq!(BASE64_STANDARD.decode(pair).unwrap(), b"acme:s%3Ae%2Fc+ret");
    assert_eq!(body(&basic), "grant_type=refresh_token&refresh_token=rt");
    let in_body =
        format!("{ACME}{source}clientAuthentication: body\ngrant: {{ clientCredentials: {{}} }}");
    let in_body = request(&in_body, None, &secret);
    assert_eq!(
        body(&in_body),
        "grant_type=client_credentials&client_id=acme&client_secret=s%3Ae%2Fc+ret"
    );
    assert!(!in_body.headers.contains_key("authorization"));
}

#[test]
fn what_is_missing_is_named_before_anything_is_sent() {
    let incomplete = |yaml: &str, secrets: GrantSecrets| {
        let error = grant(yaml).request(None, &secrets, at(NOW)).unwrap_err();
        assert!(matches!(error, EndpointError::Incomplete(_)));
        error.to_string()
    };
    let none = GrantSecrets::default;
    assert!(incomplete(ACME, none()).contains("no refresh token"));
    let client = format!(
        "{ACME}clientSecret: {{ env: {{ name: S }} }}\ngrant: {{ clientCredentials: {{}} }}"
    );
    let missing = GrantSecrets::of(Some(held("")), None);
    assert!(incomplete(&client, missing).contains("`acme: key` cannot be used"));
    assert!(incomplete(JWT, none()).contains("no private key"));
    for (key, said) in [
        ("sentinel", "not an RSA private key"),
        (
            "-----BEGIN PRIVATE KEY-----\nsentinel\n-----END PRIVATE KEY-----",
            "not an RSA private key",
        ),
        ("{sentinel", "not the JSON key"),
        (
            r#"{"type":"authorized_user","client_email":"x","private_key":"sentinel"}"#,
            "`service_account`",
        ),
        (
            r#"{"type":"service_account","client_email":"x","private_key":"sentinel"}"#,
            "not an RSA private key",
        ),
    ] {
        let text = incomplete(JWT, GrantSecrets::of(None, Some(held(key))));
        assert!(text.contains(said) && !text.contains("sentinel"), "{text}");
    }
}

const JWT: &str = "tokenEndpoint: https://auth.example.com/token
scopes: [a, b]
grant: { jwtBearer: { key: { env: { name: K } } } }";

/// A new RSA key: PKCS#8, PKCS#1, and the public half.
fn rsa() -> (String, String, Vec<u8>) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let der = der.as_ref();
    // A PKCS#8 key of this size holds the PKCS#1 key from its 27th octet on.
    let (pkcs8, pkcs1) = (pem("PRIVATE KEY", der), pem("RSA PRIVATE KEY", &der[26..]));
    (pkcs8, pkcs1, pair.public_key().as_ref().to_vec())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// Checks a JWT's signature and gives its header and claims.
fn verified(
    jwt: &str,
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
) -> (Value, Value) {
    let (message, signature) = jwt.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(algorithm, public)
        .verify(message.as_bytes(), &signature)
        .unwrap();
    let part = |part: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let (header, claims) = message.split_once('.').unwrap();
    (part(header), part(claims))
}

#[test]
fn an_assertion_is_signed_and_says_who_asks_whom_for_what() {
    let (pkcs8, pkcs1, public) = rsa();
    let google = serde_json::json!({
        "type": "service_account", "client_email": "robot@example.com", "private_key": pkcs8,
        "private_key_id": "key-1", "token_uri": "https://elsewhere.example.com",
    });
    let named = JWT.replace("K } }", "K } }, issuer: robot@example.com, keyId: key-1, subject: me, audience: them, lifetime: 90s");
    for (yaml, key) in [(JWT, google.to_string()), (&named, pkcs8), (&named, pkcs1)] {
        let secrets = GrantSecrets::of(None, Some(held(&key)));
        let form = form(&request(yaml, None, &secrets));
        assert_eq!(
            form["grant_type"],
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        );
        assert!(!form.contains_key("client_id"));
        let (header, claims) = verified(&form["assertion"], &RSA_PKCS1_2048_8192_SHA256, &public);
        assert_eq!(
            (&header["alg"], &header["kid"]),
            (&"RS256".into(), &"key-1".into())
        );
        assert_eq!(claims["iss"], "robot@example.com");
        assert_eq!(claims["scope"], "a b");
        assert!(claims["jti"].as_str().unwrap().len() > 20);
        let (iat, exp) = (
            claims["iat"].as_u64().unwrap(),
            claims["exp"].as_u64().unwrap(),
        );
        if yaml == JWT {
            assert_eq!((iat, exp), (NOW - 60, NOW - 60 + 3600));
            assert_eq!(claims["aud"], "https://auth.example.com/token");
            assert!(claims.get("sub").is_none() && !form.contains_key("scope"));
        } else {
            assert_eq!((iat, exp), (NOW - 45, NOW + 45));
            assert_eq!(
                (&claims["aud"], &claims["sub"]),
                (&"them".into(), &"me".into())
            );
            assert_eq!(form["scope"], "a b");
        }
    }
}

#[test]
fn an_assertion_can_be_signed_with_an_elliptic_curve() {
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
    let key = pem("PRIVATE KEY", der.as_ref());
    let yaml = JWT.replace("K } }", "K } }, issuer: me, algorithm: ES256");
    let secrets = GrantSecrets::of(None, Some(held(&key)));
    let form = form(&request(&yaml, None, &secrets));
    let public = pair.public_key().as_ref();
    let (header, claims) = verified(&form["assertion"], &ECDSA_P256_SHA256_FIXED, public);
    assert_eq!(
        (&header["alg"], &claims["iss"]),
        (&"ES256".into(), &"me".into())
    );
    let secrets = GrantSecrets::of(None, Some(held(&key)));
    let error = grant(JWT).request(None, &secrets, at(NOW)).unwrap_err();
    assert!(error.to_string().contains("not an RSA private key"));
}

const APP: &str = "grant: { githubApp: { appId: Iv23, installationId: 7, key: { env: { name: K } }";

#[test]
fn a_github_app_shows_a_jwt_that_github_accepts() {
    let (_, pkcs1, public) = rsa();
    let secrets = GrantSecrets::of(None, Some(held(&pkcs1)));
    let whole = request(&format!("{APP} }} }}"), None, &secrets);
    assert_eq!(body(&whole), "{}");
    let part = format!("{APP}, repositories: [one], permissions: {{ contents: read }} }} }}");
    let part = request(&part, None, &secrets);
    assert_eq!(
        body(&part),
        r#"{"repositories":["one"],"permissions":{"contents":"read"}}"#
    );
    assert_eq!(
        part.url,
        "https://api.github.com/app/installations/7/access_tokens"
    );
    assert_eq!(part.headers["accept"], "application/vnd.github+json");
    let field = &part.headers["authorization"];
    assert!(field.is_sensitive());
    let jwt = field.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let (header, claims) = verified(jwt, &RSA_PKCS1_2048_8192_SHA256, &public);
    assert_eq!(header["alg"], "RS256");
    let expected = serde_json::json!({ "iss": "Iv23", "iat": NOW - 60, "exp": NOW + 540 });
    assert_eq!(claims, expected);
}

#[test]
fn a_refusal_that_a_wrong_clock_explains_is_asked_again_by_the_endpoints_clock() {
    let (pkcs8, _, public) = rsa();
    let secrets = GrantSecrets::of(None, Some(held(&pkcs8)));
    let yaml = format!("{APP} }} }}");
    let grant = grant(&yaml);
    // This machine is ten minutes ahead.
    let here = NOW + 600;
    let refused = |grant: &Grant, fields: &[(&'static str, &str)]| {
        let response = answer(
            401,
            fields,
            r#"{"message":"'Issued at' claim is in the future"}"#,
        );
        grant.answer(Ok(response), None, moments(here)).unwrap_err()
    };
    let first = refused(&grant, &[DATE]);
    let EndpointError::Later { why, after } = &first else {
        panic!("{first}");
    };
    assert!(why.contains("differ by 600 seconds"), "{why}");
    assert_eq!(*after, Some(Duration::ZERO));
    assert_eq!(grant.clock_offset(), -600);
    let request = grant.request(None, &secrets, at(here)).unwrap();
    let jwt = request.headers["authorization"].to_str().unwrap();
    let (_, claims) = verified(&jwt[7..], &RSA_PKCS1_2048_8192_SHA256, &public);
    assert_eq!(claims["iat"], NOW - 60);
    // Refused by the right clock, or by an endpoint without one: that is no matter of time.
    assert!(matches!(
        refused(&grant, &[DATE]),
        EndpointError::Refused(_)
    ));
    let other = Grant::new(settings(&yaml));
    assert!(matches!(refused(&other, &[]), EndpointError::Refused(_)));
}

#[test]
fn no_login_is_asked_for_where_none_gave_the_grant() {
    let refused = |yaml: &str| {
        let response = answer(400, &[], r#"{"error":"invalid_grant"}"#);
        grant(yaml)
            .answer(Ok(response), None, moments(NOW))
            .unwrap_err()
    };
    assert!(matches!(refused(ACME), EndpointError::InvalidGrant(_)));
    let client = format!("{ACME}grant: {{ clientCredentials: {{}} }}");
    assert!(matches!(refused(&client), EndpointError::Refused(_)));
    assert!(matches!(refused(JWT), EndpointError::Refused(_)));
}

#[test]
fn what_the_transport_says_is_passed_on() {
    let grant = grant(ACME);
    let said = |error| grant.answer(Err(error), None, moments(NOW)).unwrap_err();
    let why = "no route".to_owned();
    assert_eq!(
        said(TransportError::NotSent(why.clone())),
        EndpointError::Unreachable(why.clone())
    );
    assert_eq!(
        said(TransportError::Unanswered(why.clone())),
        EndpointError::Unanswered(why)
    );
    assert_eq!(grant.clock_offset(), 0);
    let response = answer(200, &[DATE], r#"{"access_token":"at","expires_in":60}"#);
    let late = Moments {
        sent: at(NOW - 20),
        answered: at(NOW + 120),
    };
    let tokens = grant.answer(Ok(response), None, late).unwrap();
    assert_eq!(tokens.expires_at, Some(at(NOW + 40)));
    assert_eq!(grant.clock_offset(), -120);
}
