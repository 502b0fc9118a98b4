//! OAuth sources as people write them: what is accepted, and what is said of the rest.

use crate::config::bundle::Bundle;
use crate::config::error::ConfigError;
use crate::config::load::{load_bundle, load_config};
use crate::config::render::{Coloring, render};

const CREDENTIAL: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: { name: NAME }\n\
     spec:\n  hosts: [api.example.com]\n  placements: [bearer: {}]\n";

/// One credential whose source is `oauth` on line 7, `FIELDS` in flow style.
fn document(name: &str, fields: &str) -> String {
    let head = CREDENTIAL.replace("NAME", name);
    format!("{head}  source: {{ oauth: {{ {fields} }} }}\n")
}

fn load(text: &str) -> Result<Bundle, Vec<ConfigError>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, text).unwrap();
    load_bundle(&[file], &[])
}

/// `code column word` of the one error, and the sentence with its help.
fn only(text: &str) -> (String, String) {
    let errors = load(text).err().unwrap_or_default();
    let shown = render(&errors, Coloring::Plain);
    let [error] = &*errors else {
        panic!("{text}\n{shown}");
    };
    let place = error.place.as_ref().unwrap();
    let line = place
        .file
        .text
        .lines()
        .nth(place.line as usize - 1)
        .unwrap();
    let word: String = line
        .chars()
        .skip(place.column as usize - 1)
        .take(place.length as usize)
        .collect();
    let said = format!(
        "{error} | {}",
        error.help.as_deref().expect("an error has a way out")
    );
    (format!("{} {word}", error.code), said)
}

const ENDPOINT: &str = "tokenEndpoint: \"https://auth.example.com/token\", clientId: tollgate";

#[test]
fn sources_as_providers_want_them_are_accepted() {
    for fields in [
        "client: claude-code".to_owned(),
        "client: codex, seed: { file: { path: auth.json } }".to_owned(),
        "client: claude-code, store: { kubernetesSecret: { name: claude, namespace: agents } }".to_owned(),
        "client: codex, timeout: 5s, store: { kubernetesSecret: { name: s, leaseDuration: 3s, abandonedAfter: 9s } }"
            .to_owned(),
        "client: claude-code, tokenEndpoint: \"https://127.0.0.1:8443/v1/oauth/token\"".to_owned(),
        ENDPOINT.to_owned(),
        format!("{ENDPOINT}, clientSecret: {{ env: {{ name: SECRET }} }}, clientAuthentication: body"),
        format!(
            "{ENDPOINT}, clientSecret: {{ file: {{ path: s }} }}, grant: {{ clientCredentials: {{}} }}, \
             scopes: [\"https://www.googleapis.com/auth/cloud-platform\"], parameters: {{ audience: x }}, \
             store: {{ memory: {{}} }}"
        ),
        "tokenEndpoint: \"https://oauth2.googleapis.com/token\", \
         grant: { jwtBearer: { key: { file: { path: key.json } } } }"
            .to_owned(),
        "grant: { githubApp: { appId: Iv23liExample, installationId: 7, key: { file: { path: k } } } }"
            .to_owned(),
        format!(
            "{ENDPOINT}, refreshBefore: 5m, timeout: 10s, replayLimit: 64MiB, \
             login: {{ redirectUri: \"http://localhost:1455/auth/callback\" }}"
        ),
    ] {
        if let Err(errors) = load(&document("c", &fields)) {
            panic!("{fields}\n{}", render(&errors, Coloring::Plain));
        }
    }
}

/// What is written, the code with the text under the caret, and what is said.
#[test]
fn every_mistake_is_told_with_its_place_and_a_way_out() {
    let with = |more: &str| format!("{ENDPOINT}, {more}");
    for (fields, place, said) in [
        // --- words and parts
        ("client: claude-cod".to_owned(), "TG0206 claude-cod", "did you mean `claude-code`?"),
        ("clientId: x".to_owned(), "TG0331 {", "no `tokenEndpoint`) | "),
        ("tokenEndpoint: \"https://a.com/t\"".to_owned(), "TG0331 {", "no `clientId`"),
        (with("grant: { clientCredentials: {} }"), "TG0331 {", "no `clientSecret`"),
        (
            "grant: { githubApp: { appId: \"\", installationId: 7, key: { file: { path: k } } } }".to_owned(),
            "TG0331 {",
            "`appId` is empty",
        ),
        (
            "grant: { jwtBearer: { key: { file: { path: k } } } }".to_owned(),
            "TG0331 {",
            "Google's is",
        ),
        (
            with("login: { authorizationEndpoint: \"https://a.com/authorize\" }"),
            "TG0331 \"https://a.com/authorize\"",
            "no `redirectUri`",
        ),
        (
            "client: codex, grant: { clientCredentials: {} }".to_owned(),
            "TG0337 codex",
            "remove `client`",
        ),
        // --- URLs
        (
            "clientId: x, tokenEndpoint: \"http://a.com/t\"".to_owned(),
            "TG0332 \"http://a.com/t\"",
            "is no https URL | write `https://host/path`",
        ),
        (
            "clientId: x, tokenEndpoint: \"https://me@a.com/t\"".to_owned(),
            "TG0332 \"https://me@a.com/t\"",
            "user name",
        ),
        (
            "clientId: x, tokenEndpoint: auth.example.com".to_owned(),
            "TG0332 auth.example.com",
            "is no https URL",
        ),
        (
            with("login: { deviceAuthorizationEndpoint: \"http://a.com/d\" }"),
            "TG0332 \"http://a.com/d\"",
            "`deviceAuthorizationEndpoint` is no https URL",
        ),
        (
            with("login: { redirectUri: /callback }"),
            "TG0332 {",
            "no redirect URI",
        ),
        (
            "client: codex, agentEndpoints: [\"https://auth.openai.com\"]".to_owned(),
            "TG0332 \"https://auth.openai.com\"",
            "names no path",
        ),
        (
            "client: codex, agentEndpoints: [\"https://a.com/t?x=1\"]".to_owned(),
            "TG0332 \"https://a.com/t?x=1\"",
            "without query",
        ),
        // --- stores
        (
            with("store: { memory: {} }"),
            "TG0333 {",
            "good for one use",
        ),
        (with("store: { file: { path: \"\" } }"), "TG0333 {", "an empty path"),
        (
            with("store: { file: { path: a, keyFile: a } }"),
            "TG0333 {",
            "one file",
        ),
        (
            with("store: { kubernetesSecret: { name: Claude_Login } }"),
            "TG0333 {",
            "`Claude_Login` is not the name of a Secret",
        ),
        (
            with("store: { kubernetesSecret: { name: a, namespace: a.b } }"),
            "TG0333 {",
            "not the name of a namespace",
        ),
        (
            with("store: { kubernetesSecret: { name: a, lease: -a } }"),
            "TG0333 {",
            "not the name of a Lease",
        ),
        (
            with("store: { kubernetesSecret: { name: a, key: a/b } }"),
            "TG0333 {",
            "not the key of a Secret",
        ),
        // --- sources within
        (
            with("seed: { oauth: { client: codex } }"),
            "TG0334 {",
            "`seed` cannot be an OAuth source",
        ),
        (
            with("clientSecret: { oauth: { client: codex } }"),
            "TG0334 {",
            "`clientSecret` cannot be",
        ),
        (
            with("clientSecret: { env: { name: A-B } }"),
            "TG0330 {",
            "not the name of a variable",
        ),
        // --- values
        (with("refreshBefore: 0s"), "TG0335 {", "`refreshBefore` is too short"),
        (with("timeout: 0ms"), "TG0335 {", "`timeout` is too short"),
        (
            with("store: { kubernetesSecret: { name: a, leaseDuration: 1s } }"),
            "TG0335 {",
            "`leaseDuration` is 1s | write 2s to 1m",
        ),
        (
            with("timeout: 10s, store: { kubernetesSecret: { name: a, abandonedAfter: 25s } }"),
            "TG0335 {",
            "`abandonedAfter` is 25s, and a renewal may take 25s",
        ),
        (with("replayLimit: 65MiB"), "TG0335 {", "larger than 64MiB"),
        (
            with("scopes: [\"openid profile\"]"),
            "TG0336 {",
            "an item of its own",
        ),
        (with("login: { scopes: ['a\"b'] }"), "TG0336 {", "section 3.3"),
        (
            with("parameters: { grant_type: x }"),
            "TG0336 {",
            "is written by Tollgate | write `grant`",
        ),
        (
            "tokenEndpoint: \"https://a.com/t\", clientId: \"\"".to_owned(),
            "TG0336 {",
            "`clientId` is empty",
        ),
        (
            "grant: { githubApp: { appId: \"1\", installationId: 7, api: \"https://a.com/?x\", \
             key: { file: { path: k } } } }"
                .to_owned(),
            "TG0332 {",
            "has a query",
        ),
        // --- what has no use
        (
            with("clientAuthentication: basic"),
            "TG0337 {",
            "no `clientSecret` to show",
        ),
        (
            with("clientSecret: { env: { name: A } }, grant: { clientCredentials: {} }, seed: { env: { name: B } }"),
            "TG0337 {",
            "no use for `seed`",
        ),
        (
            "tokenEndpoint: \"https://a.com/t\", grant: { githubApp: { appId: \"1\", installationId: 7, \
             key: { file: { path: k } } } }"
                .to_owned(),
            "TG0337 {",
            "no use for `tokenEndpoint`",
        ),
    ] {
        let (at, sentence) = only(&document("c", &fields));
        assert_eq!(at, place, "{fields}: {sentence}");
        assert!(sentence.contains(said.trim_end_matches(") | ")), "{fields}: {sentence}");
    }
}

#[test]
fn a_secret_in_an_oauth_source_is_refused_and_never_shown() {
    for fields in [
        "clientSecret: hunter2",
        "seed: hunter2",
        "seed: { refreshToken: hunter2 }",
        "refreshToken: hunter2",
        "grant: { jwtBearer: { key: hunter2 } }",
        "grant: { jwtBearer: { key: { value: hunter2 } } }",
        "parameters: { client_secret: hunter2 }",
        "login: { parameters: { token: hunter2 } }",
    ] {
        let text = document("c", &format!("{ENDPOINT}, {fields}"));
        let errors = load(&text).unwrap_err();
        let shown = format!("{} {errors:?}", render(&errors, Coloring::Plain));
        assert_eq!(errors[0].code, "TG0210", "{fields}\n{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("{ env: { name: VARIABLE } }"), "{shown}");
    }
}

#[test]
fn two_credentials_cannot_keep_their_grants_in_one_place() {
    let two = |one: &str, other: &str| {
        let of = |name: &str, store: &str| {
            document(name, &format!("client: codex, store: {{ {store} }}"))
        };
        format!("{}---\n{}", of("a", one), of("b", other))
    };
    for (one, other) in [
        ("file: { path: x }", "file: { path: x, keyFile: k }"),
        (
            "kubernetesSecret: { name: s }",
            "kubernetesSecret: { name: s, key: grant.json }",
        ),
    ] {
        let (at, said) = only(&two(one, other));
        assert_eq!(at, "TG0313 {", "{said}");
        assert!(said.contains("`a` and `b`"), "{said}");
    }
    load(&two(
        "kubernetesSecret: { name: s, key: a }",
        "kubernetesSecret: { name: s, key: b }",
    ))
    .unwrap();
}

#[test]
fn secrets_of_the_process_itself_cannot_be_oauth_sources() {
    for (spec, said) in [
        (
            "admin: { token: { oauth: { client: codex } } }",
            "`spec.admin.token`",
        ),
        (
            "placeholders: { key: { oauth: { client: codex } } }",
            "`spec.placeholders.key`",
        ),
        (
            "identity: { agents: [{ name: scan, token: { oauth: { client: codex } } }] }",
            "the token of agent `scan`",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tollgate.yaml");
        let head = "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: { name: t }\nspec: ";
        std::fs::write(&file, format!("{head}{{ {spec} }}\n")).unwrap();
        let errors = load_config(&file).unwrap_err();
        assert_eq!(errors[0].code, "TG0334");
        assert!(errors[0].message.contains(said), "{}", errors[0]);
    }
}
