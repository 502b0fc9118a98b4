//! Documents in files, good and bad: what is loaded, and what is said.

use std::fmt::Write;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::bundle::Document;
use crate::config::credential::PlacementSpec;
use crate::config::policy::{EgressPolicySpec, Mode};
use crate::config::render::{Coloring, render};
use crate::config::source::SourceSpec;

const POLICY: &str =
    "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: p }\n";
const CREDENTIAL: &str =
    "apiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: { name: c }\n";
const CONFIG: &str =
    "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: { name: t }\n";

fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn load(text: &str) -> Result<Bundle, Vec<ConfigError>> {
    load_with(text, &[])
}

fn load_with(text: &str, presets: &[&str]) -> Result<Bundle, Vec<ConfigError>> {
    let dir = dir(&[("a.yaml", text)]);
    let presets: Vec<Located<String>> = presets
        .iter()
        .map(|name| Located::unwritten((*name).to_owned()))
        .collect();
    load_bundle(&[dir.path().join("a.yaml")], &presets)
}

/// `code line:column length` of every error.
fn codes(errors: &[ConfigError]) -> Vec<String> {
    let one = |error: &ConfigError| {
        let mut text = error.code.to_owned();
        if let Some(place) = &error.place {
            write!(text, " {}:{} {}", place.line, place.column, place.length).unwrap();
        }
        text
    };
    errors.iter().map(one).collect()
}

fn policy(spec: &str) -> String {
    format!("{POLICY}spec:\n{spec}")
}

fn credential(spec: &str) -> String {
    format!("{CREDENTIAL}spec:\n{spec}")
}

fn rendered(text: &str) -> String {
    let dir = dir(&[("a.yaml", text)]);
    let errors = load_bundle(&[dir.path().join("a.yaml")], &[]).unwrap_err();
    let base = format!("{}/", dir.path().display());
    render(&errors, Coloring::Plain).replace(&base, "")
}

#[test]
fn a_misspelt_key_is_shown_with_its_line_a_guess_and_the_keys_there_are() {
    let text = policy("  egress:\n    - hosts: [a.com]\n      http:\n        - metods: [POST]\n");
    assert_eq!(
        rendered(&text),
        "\
error[TG0203]: unknown key `metods` in `spec.egress[0].http[0]`
   ╭─[a.yaml:8:11]
 7 │       http:
 8 │         - metods: [POST]
   ·           ───┬──
   ·              ╰── did you mean `methods`?
   ╰────
  help: keys here are methods, paths
"
    );
}

#[test]
fn a_secret_in_a_document_is_refused_and_never_shown() {
    let secret = "sk-ant-api03-Zm9vYmFyYmF6cXV4";
    let text = credential(&format!("  hosts: [a.com]\n  source: \"{secret}\"\n"));
    let shown = rendered(&text);
    assert_eq!(
        shown,
        "\
error[TG0210]: `spec.source` holds a secret instead of the place it comes from
   ╭─[a.yaml:6:11]
 5 │   hosts: [a.com]
 6 │   source: *******************************
   ·           ───────────────┬───────────────
   ·                          ╰── secrets are never part of a document
   ╰────
  help: write `{ env: { name: VARIABLE } }`, `{ file: { path: /run/secrets/NAME } }` or `{ exec: { command: [PROGRAM] } }`; if this was a real secret, replace it
"
    );
    for text in [
        credential("  source: { value: hunter2hunter2 }\n"),
        credential("  source:\n    key: hunter2hunter2\n"),
        credential("  source: |\n    hunter2hunter2\n    hunter2hunter2\n"),
        // Broken or misspelt besides: the frame shows the neighbours of a mistake.
        credential("  source: { value: hunter2hunter2 }\n  placments: []\n"),
        credential(&format!("  apiKey: {secret}\n")),
        credential(&format!("  {secret}: x\n")),
        credential(&format!("  source: \"{secret}\n  hosts: [a]\n")),
        credential(&format!("  mode: {secret}\n")),
        policy(&format!("  egress:\n    - hosts: [{secret}]\n      x: 1\n")),
        policy(&format!(
            "  egress:\n    - hosts: [a.com]\n      timeouts: {{idle: {secret}}}\n"
        )),
        format!("{POLICY}kind: {secret}\n"),
        format!("apiVersion: {secret}\nkind: {secret}\n"),
    ] {
        let dir = dir(&[("a.yaml", &text)]);
        let errors = load_bundle(&[dir.path().join("a.yaml")], &[]).unwrap_err();
        let everything = format!("{} {errors:?}", render(&errors, Coloring::Plain));
        for part in ["hunter2", "Zm9vYmFy"] {
            assert!(!everything.contains(part), "{text}\n{everything}");
        }
    }
}

#[test]
fn a_name_that_is_taken_is_shown_with_both_places() {
    let one = policy("  egress: []\n");
    let dir = dir(&[("a.yaml", &one), ("b.yaml", &one)]);
    let errors = load_bundle(&[dir.path().to_owned()], &[]).unwrap_err();
    let base = format!("{}/", dir.path().display());
    assert_eq!(
        render(&errors, Coloring::Plain).replace(&base, ""),
        "\
error[TG0209]: EgressPolicy `p` is defined twice
   ╭─[b.yaml:3:19]
 2 │ kind: EgressPolicy
 3 │ metadata: { name: p }
   ·                   ┬
   ·                   ╰── first at a.yaml:3:19
   ╰────
  help: rename or remove one of the two
"
    );
}

#[test]
fn every_mistake_has_its_code_and_place() {
    let rule = |rest: &str| policy(&format!("  egress:\n    - hosts: [a.com]\n{rest}"));
    let full = |rest: &str| {
        credential(&format!(
            "  hosts: [a.com]\n  source: {{ env: {{ name: A }} }}\n{rest}"
        ))
    };
    let bearer = "  placements: [bearer: {}]\n";
    let table: &[(String, &[&str])] = &[
        // --- the file and its YAML
        (String::new(), &["TG0105"]),
        ("# nothing\n---\n...\n".into(), &["TG0105"]),
        (rule("\t  ports: [1]\n"), &["TG0107 7:1 1"]),
        (rule("   ports: [1]\n"), &["TG0107 7:4 1"]),
        (policy("  egress: [\"a\n"), &["TG0107 5:12 1"]),
        (policy("  egress: [a: *b]\n"), &["TG0107 5:15 1"]),
        (policy("  egress: !secret x\n"), &["TG0107 5:19 1"]),
        (rule("      hosts: [b.com]\n"), &["TG0108 7:7 5"]),
        (
            format!("a: {}{}\n", "[".repeat(200), "]".repeat(200)),
            &["TG0109 1:35 1"],
        ),
        // --- the envelope
        ("- a\n".into(), &["TG0205 1:1 1"]),
        ("kind: EgressPolicy\n".into(), &["TG0201 1:1 4"]),
        (POLICY.replace("v1alpha1", "v2"), &["TG0201 1:13 15"]),
        (
            POLICY.replace("EgressPolicy", "EgresPolicy"),
            &["TG0202 2:7 11"],
        ),
        (POLICY.replace("kind", "kin"), &["TG0202 2:1 3"]),
        ("a: 1\n".into(), &["TG0201 1:1 1", "TG0202 1:1 1"]),
        (POLICY.into(), &["TG0204 3:1 8"]),
        (format!("{POLICY}spec:\n"), &["TG0205 4:5 1"]),
        (
            policy("  egress: []\n").replace("name", "nam"),
            &["TG0208 3:1 8", "TG0203 3:13 3"],
        ),
        (
            policy("  egress: []\n").replace(": p", ": P"),
            &["TG0208 3:19 1"],
        ),
        (policy("  egress: []\nstatus: {}\n"), &["TG0203 6:1 6"]),
        // --- the schema
        (policy("  mode: enforce\n"), &["TG0204 5:3 4"]),
        (policy("  mode: Enforce\n  egress: []\n"), &["TG0206 5:9 7"]),
        (rule("      action: deny\n"), &["TG0206 7:15 4"]),
        (rule("      ports: 443\n"), &["TG0205 7:14 3"]),
        (rule("      ports: [http]\n"), &["TG0207 7:15 4"]),
        (rule("      timeouts: { idle: 10 }\n"), &["TG0207 7:25 2"]),
        (
            rule("      http: [{ methods: [[GET]] }]\n"),
            &["TG0205 7:26 1"],
        ),
        (
            full("  optional: yes\n  placements: [bearer: {}]\n"),
            &["TG0207 7:13 3"],
        ),
        (full("  placements: [baerer: {}]\n"), &["TG0206 7:16 6"]),
        (full("  placements: [bearer]\n"), &["TG0205 7:16 6"]),
        (
            full("  placements: [{ bearer: {}, basic: {} }]\n"),
            &["TG0205 7:30 5"],
        ),
        (credential("  source: { env: A }\n"), &["TG0205 5:18 1"]),
        (credential("  source: sesame\n"), &["TG0210 5:11 6"]),
        (
            credential("  source: { token: sesame }\n"),
            &["TG0210 5:20 6"],
        ),
        // --- what it means: policies
        (policy("  egress: [preset: antropic]\n"), &["TG0301 5:20 8"]),
        (rule("      preset: npm\n"), &["TG0302 6:7 5"]),
        (policy("  egress: [ports: [1]]\n"), &["TG0303 5:12 5"]),
        (
            policy("  egress: [hosts: [\"https://a.com\"]]\n"),
            &["TG0304 5:20 15"],
        ),
        (
            policy("  egress: [hosts: [\"*.com\", a.com]]\n"),
            &["TG0304 5:20 7"],
        ),
        (
            rule("      http: [methods: [post, GET]]\n"),
            &["TG0305 7:24 4"],
        ),
        (rule("      http: [paths: [v1, /v1]]\n"), &["TG0306 7:22 2"]),
        (rule("      ports: [0]\n"), &["TG0308 7:15 1"]),
        (
            policy("  egress: [{ hosts: [\"*.a.com\"], route: a }]\n"),
            &["TG0309 5:41 1"],
        ),
        (rule("      route: a/b\n"), &["TG0309 7:14 3"]),
        (
            rule("      tls: Passthrough\n      http: [paths: [/a]]\n"),
            &["TG0310 6:7 5"],
        ),
        (rule("      credentials: [c]\n"), &["TG0311 7:21 1"]),
        (
            format!(
                "{}---\n{}",
                full(bearer),
                policy("  egress: [{ hosts: [b.com], credentials: [c] }]\n")
            ),
            &["TG0312 13:44 1"],
        ),
        // --- what it means: credentials
        (
            credential("  optional: true\n"),
            &["TG0320 1:1 10", "TG0321 1:1 10", "TG0322 1:1 10"],
        ),
        (
            full("  placements: [{ header: { name: a b } }, { header: { name: Host } }]\n"),
            &["TG0323 7:16 1", "TG0323 7:43 1"],
        ),
        (
            full("  placements: [query: { name: a=b }, cookie: { name: \"\" }]\n"),
            &["TG0323 7:16 5", "TG0323 7:38 6"],
        ),
        (
            full("  placements:\n    - header: { name: a, format: token }\n"),
            &["TG0324 8:7 6"],
        ),
        (
            full(
                "  placements:\n    - path: { template: \"bot{}\" }\n    - path: { template: \"/{}{}\" }\n",
            ),
            &["TG0324 8:7 4", "TG0324 9:7 4"],
        ),
        (
            full("  placements: [body: { pointer: a }]\n"),
            &["TG0325 7:16 4"],
        ),
        (
            full(&format!("{bearer}  placeholder: {{ value: short }}\n")),
            &["TG0326 8:25 5"],
        ),
        (
            full(&format!(
                "{bearer}  placeholder: {{ value: long but open }}\n"
            )),
            &["TG0326 8:25 4"],
        ),
        (
            full(&format!(
                "{bearer}  placeholder: {{ value: long-enough, shape: \"[0-9:20]\" }}\n"
            )),
            &["TG0326 8:45 10"],
        ),
        (
            full(&format!(
                "{bearer}  placeholder: {{ shape: \"x[0-9:8]\" }}\n"
            )),
            &["TG0327 8:25 10"],
        ),
        (
            full(&format!("{bearer}  placeholder: {{ env: [\"A;B\"] }}\n")),
            &["TG0328 1:1 10"],
        ),
        (
            credential("  preset: pypi\n  source: { env: { name: A } }\n"),
            &["TG0329 5:11 4", "TG0321 1:1 10", "TG0322 1:1 10"],
        ),
        (
            full(bearer).replace("name: A", "name: A-B"),
            &["TG0330 6:11 1"],
        ),
        (
            full(bearer).replace("env: { name: A }", "exec: { command: [] }"),
            &["TG0330 6:11 1"],
        ),
        (
            full(bearer).replace("env: { name: A }", "file: { path: a, pointer: b }"),
            &["TG0325 6:11 1"],
        ),
    ];
    let mut wrong = String::new();
    for (text, expected) in table {
        let errors = load(text).err().unwrap_or_default();
        if codes(&errors) != *expected {
            let shown = render(&errors, Coloring::Plain);
            writeln!(
                wrong,
                "{text}\n{shown}{:?} wanted {expected:?}\n",
                codes(&errors)
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let dir = dir(&[("latin.yaml", ""), ("large.yaml", &" ".repeat(1 << 21))]);
    fs::write(dir.path().join("latin.yaml"), b"a: 1\nb: \xe9\n").unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    for (name, expected) in [
        ("absent.yaml", "TG0101"),
        ("latin.yaml", "TG0103 2:4 1"),
        ("large.yaml", "TG0104"),
        ("empty", "TG0106"),
    ] {
        let errors = load_bundle(&[dir.path().join(name)], &[]).unwrap_err();
        assert_eq!(codes(&errors), [expected], "{name}");
    }
    let errors = read_text(dir.path()).unwrap_err();
    assert_eq!(errors.code, "TG0102");
    let many = "---\na: 1\n".repeat(600);
    assert!(codes(&load(&many).unwrap_err()).contains(&"TG0104 1:1 1".to_owned()));
}

#[test]
fn a_pair_of_quotes_an_alias_or_a_long_line_cannot_break_the_frame() {
    let text = "a: \"\u{1b}[31m\n\u{202e}b: [\u{7}\n";
    assert!(!rendered(text).contains(['\u{1b}', '\u{7}']));
}

proptest! {
    /// A document is typed by hand: any cut, doubled or strange part must end in an error with a frame.
    #[test]
    fn no_damage_to_a_text_is_too_much(
        preset in 0..presets::names().len(),
        cut in 0..2000usize,
        length in 0..40usize,
        junk in "[ \\t\\n:{}\\[\\]\"'|>&*!%#a-z\u{e9}\u{1f511}-]{0,12}",
    ) {
        let text = presets::source(presets::names()[preset]).unwrap_or("");
        let kept: Vec<char> = text.chars().collect();
        let at = cut.min(kept.len());
        let rest = (at + length).min(kept.len());
        let damaged: String = kept[..at]
            .iter()
            .copied()
            .chain(junk.chars())
            .chain(kept[rest..].iter().copied())
            .collect();
        let found = read("damaged", &damaged, Author::User, Wanted::Resources);
        prop_assert_eq!(found.file.text.chars().count(), damaged.chars().count());
        for error in &found.errors {
            let shown = render(std::slice::from_ref(error), Coloring::Plain);
            prop_assert!(shown.starts_with(&format!("error[{}]: ", error.code)), "{}", shown);
            if let Some(place) = &error.place {
                prop_assert!(place.line as usize <= damaged.lines().count() + 1, "{}", shown);
            }
        }
    }
}

#[test]
fn one_load_shows_every_mistake() {
    let text = policy(
        "  mode: Enforce
  egress:
    - hosts: [a.com]
      metods: [POST]
      action: deny
    - host: [a.com]
      ports: [http]
---
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: { name: c }
spec:
  source: { vault: {} }
  optional: maybe
--- [broken
---
apiVersion: tollgate.dev/v1alpha1
kind: EgressPolicy
metadata: { name: q }
spec: { egress: [{ hosts: [\"*\"], credentials: [c] }] }
",
    );
    let errors = load(&text).unwrap_err();
    let codes = codes(&errors);
    assert_eq!(
        codes,
        [
            "TG0206 5:9 7",
            "TG0203 8:7 6",
            "TG0206 9:15 4",
            "TG0203 10:7 4",
            "TG0207 11:15 4",
            "TG0206 17:13 5",
            "TG0207 18:13 5",
            "TG0107 19:5 1",
            "TG0304 24:28 3",
        ],
        "{}",
        render(&errors, Coloring::Plain)
    );
}

#[test]
fn directories_are_read_in_order_without_what_is_hidden_or_below() {
    let named = |name: &str| policy("  egress: []\n").replace(": p", &format!(": {name}"));
    let dir = dir(&[
        ("b.yml", &named("b")),
        (".hidden.yaml", "{"),
        ("notes.txt", "{"),
    ]);
    // As the kubelet mounts a ConfigMap.
    let data = dir.path().join("..2026_11_21");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.yaml"), named("a")).unwrap();
    std::os::unix::fs::symlink("..2026_11_21", dir.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    fs::create_dir(dir.path().join("below.yaml")).unwrap();
    let again = dir.path().join("b.yml");
    let bundle = load_bundle(&[dir.path().to_owned(), again], &[]).unwrap();
    let names: Vec<&str> = bundle.policies.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_dangling_link_is_not_passed_over() {
    let dir = dir(&[]);
    std::os::unix::fs::symlink("gone", dir.path().join("a.yaml")).unwrap();
    let errors = load_bundle(&[dir.path().to_owned()], &[]).unwrap_err();
    assert_eq!(codes(&errors), ["TG0101"]);
}

#[test]
fn a_config_file_may_hold_the_whole_setup() {
    let text = format!(
        "\u{feff}{CONFIG}spec: {{ presets: [npm], documents: [more], stateDir: state }}\r\n---\r\n{}",
        policy("  egress: [hosts: [a.com]]\n")
    );
    let dir = dir(&[("tollgate.yaml", &text)]);
    let path = dir.path().join("tollgate.yaml");
    let config = load_config(&path).unwrap();
    assert_eq!(config.name, "t");
    assert_eq!(config.dir, dir.path());
    assert_eq!(config.spec.documents[0].value, dir.path().join("more"));
    assert_eq!(config.spec.state_dir, Some(dir.path().join("state")));
    let bundle = load_bundle(&[path], &config.spec.presets).unwrap();
    let names: Vec<(&str, u32)> = bundle.policies.iter().map(|p| (&*p.name, p.line)).collect();
    assert_eq!(names, [("p", 6), ("npm", 3)]);
}

#[test]
fn a_config_that_is_none_says_why() {
    let config = |spec: &str| format!("{CONFIG}spec: {spec}\n");
    let table: &[(String, &[&str])] = &[
        (policy("  egress: []\n"), &["TG0211"]),
        (
            format!(
                "{}---\n{}",
                config("{}"),
                config("{}").replace("name: t", "name: u")
            ),
            &["TG0212 8:19 1"],
        ),
        (
            format!("{}---\n{}", config("{}"), config("{}")),
            &["TG0209 8:19 1"],
        ),
        (config("{ presets: [claude] }"), &["TG0301 4:19 6"]),
        (config("{ lisen: \"127.0.0.1:1\" }"), &["TG0203 4:9 5"]),
        (config("{ listen: here }"), &["TG0207 4:17 4"]),
        (config("{ admin: { token: sesame } }"), &["TG0210 4:25 6"]),
        (
            config("{ identity: { agents: [{ name: a, token: { env: { name: \"\" } } }] } }"),
            &["TG0330 4:38 1"],
        ),
    ];
    for (text, expected) in table {
        let dir = dir(&[("a.yaml", text)]);
        let errors = load_config(&dir.path().join("a.yaml")).unwrap_err();
        assert_eq!(
            codes(&errors),
            *expected,
            "{text}{}",
            render(&errors, Coloring::Plain)
        );
    }
}

fn credential_names(bundle: &Bundle) -> Vec<&str> {
    bundle.credentials.iter().map(|c| &*c.name).collect()
}

#[test]
fn every_preset_loads_alone_and_with_all_others() {
    for name in presets::names() {
        let listed = load_bundle(&[], &[Located::unwritten(name.to_owned())]).unwrap();
        assert_eq!(listed.policies[0].name, name);
        let text = policy(&format!("  egress: [preset: {name}]\n"));
        let named = load(&text).unwrap();
        assert_eq!(
            credential_names(&listed),
            credential_names(&named),
            "{name}"
        );
    }
    let all = load_bundle(
        &[],
        &presets::names()
            .into_iter()
            .chain(["npm"])
            .map(|name| Located::unwritten(name.to_owned()))
            .collect::<Vec<_>>(),
    )
    .unwrap();
    assert_eq!(all.policies.len(), presets::names().len());
    assert_eq!(
        credential_names(&all),
        [
            "anthropic",
            "claude-login",
            "claude-oauth",
            "codex-login",
            "gemini",
            "github",
            "npm",
            "openai",
            "telegram"
        ]
    );
}

#[test]
fn rules_of_a_preset_keep_its_file_and_have_the_policys_mode_and_agents() {
    let text = policy(
        "  mode: report
  agents: { names: [scan] }
  egress:
    - preset: anthropic
    - hosts: [a.com]
",
    );
    let bundle = load(&text).unwrap();
    let [own, preset] = bundle.policies.as_slice() else {
        panic!("two documents");
    };
    assert_eq!((own.builtin, own.spec.egress.len()), (false, 1));
    assert_eq!(preset.file.name, "<preset anthropic>");
    assert!(preset.builtin && preset.name == "p");
    assert_eq!(preset.spec.mode, Mode::Report);
    assert_eq!(*preset.spec.agents.names[0], "scan");
    let rule = &preset.spec.egress[0];
    assert_eq!(*rule.hosts[0], "api.anthropic.com");
    let line = preset
        .file
        .text
        .lines()
        .nth(rule.line as usize - 1)
        .unwrap();
    assert!(line.contains("- hosts: [api.anthropic.com]"), "{line}");
}

#[test]
fn a_users_credential_takes_the_place_of_the_built_in_one() {
    let own = credential(
        "  preset: anthropic\n  source: { file: { path: key } }\n  ports: [8443]\n  placeholder: { env: [MY_KEY] }\n",
    );
    let text = format!(
        "{}---\n{}",
        own.replace(": c ", ": anthropic "),
        policy("  egress: [preset: anthropic]\n")
    );
    let bundle = load(&text).unwrap();
    let [credential] = bundle.credentials.as_slice() else {
        panic!("one credential");
    };
    assert!(!credential.builtin);
    let spec = &credential.spec;
    assert!(
        matches!(&spec.source.as_ref().unwrap().value, SourceSpec::File { path, .. }
        if path.is_absolute() && path.ends_with("key"))
    );
    assert_eq!(*spec.hosts[0], "api.anthropic.com");
    assert_eq!((spec.hosts[0].line, spec.hosts[0].column), (5, 11));
    assert_eq!(
        spec.ports.iter().map(|p| p.value).collect::<Vec<_>>(),
        [8443]
    );
    assert_eq!(spec.placements.len(), 2);
    assert!(!spec.optional);
    let placeholder = spec.placeholder.as_ref().unwrap();
    assert_eq!(placeholder.env, ["MY_KEY"]);
    assert!(
        placeholder
            .shape
            .as_ref()
            .unwrap()
            .starts_with("sk-ant-api03-")
    );
}

#[test]
fn a_login_with_a_store_of_its_own_takes_the_rest_from_the_preset() {
    let own = credential(
        "  preset: claude-login\n  source: { oauth: { client: claude-code, \
         store: { kubernetesSecret: { name: claude } } } }\n",
    );
    for name in ["c", "claude-login"] {
        let text = format!(
            "{}---\n{}",
            own.replace(": c ", &format!(": {name} ")),
            policy(&format!(
                "  egress: [{{ preset: claude-login, credentials: [{name}] }}]\n"
            ))
        );
        let bundle = load(&text).unwrap();
        assert_eq!(credential_names(&bundle), [name]);
        let spec = &bundle.credentials[0].spec;
        let hosts: Vec<&str> = spec.hosts.iter().map(|host| &***host).collect();
        assert!(hosts.contains(&"platform.claude.com"), "{hosts:?}");
        let Some(SourceSpec::Oauth(oauth)) = spec.source.as_ref().map(|source| &source.value)
        else {
            panic!("an OAuth source");
        };
        assert!(oauth.store.is_some() && !spec.optional);
        let used = rule_credentials(&bundle.policies[1]);
        assert_eq!(used.iter().filter(|names| names.contains(&name)).count(), 2);
    }
}

fn rule_credentials(policy: &Document<EgressPolicySpec>) -> Vec<Vec<&str>> {
    policy
        .spec
        .egress
        .iter()
        .map(|rule| rule.credentials.iter().map(|name| &***name).collect())
        .collect()
}

#[test]
fn credentials_beside_a_preset_replace_its_own() {
    let own = credential("  preset: anthropic\n  source: { env: { name: A } }\n");
    let text = format!(
        "{own}---\n{}",
        policy("  egress: [{ preset: claude-code, credentials: [c] }]\n")
    );
    let bundle = load(&text).unwrap();
    assert_eq!(credential_names(&bundle), ["c"]);
    assert!(matches!(
        bundle.credentials[0].spec.placements[1].value,
        PlacementSpec::Bearer {}
    ));
    let rules = rule_credentials(&bundle.policies[1]);
    assert_eq!(rules[0], ["c"]);
    assert!(rules[1..].iter().all(Vec::is_empty));

    let only = policy("  egress: [{ preset: claude-code, credentials: [claude-oauth] }]\n");
    assert_eq!(credential_names(&load(&only).unwrap()), ["claude-oauth"]);

    for (names, expected) in [
        ("[claude-outh]", "TG0311 5:49 11"),
        ("[nobody]", "TG0311 5:49 6"),
    ] {
        let text = policy(&format!(
            "  egress: [{{ preset: claude-code, credentials: {names} }}]\n"
        ));
        assert_eq!(codes(&load(&text).unwrap_err()), [expected]);
    }
    let elsewhere = format!(
        "{}---\n{}",
        own.replace("preset: anthropic", "preset: npm"),
        policy("  egress: [{ preset: claude-code, credentials: [c] }]\n")
    );
    assert_eq!(codes(&load(&elsewhere).unwrap_err()), ["TG0312 12:49 1"]);
}

#[test]
fn a_credential_with_a_built_in_name_must_reach_what_the_preset_reaches() {
    let text = credential(
        "  hosts: [proxy.example.com]\n  source: { env: { name: A } }\n  placements: [bearer: {}]\n",
    )
    .replace(": c ", ": anthropic ");
    let errors = load_with(&text, &["anthropic"]).unwrap_err();
    assert_eq!(codes(&errors), ["TG0312 5:11 17"]);
}

#[test]
fn a_policy_with_a_built_in_name_takes_its_place() {
    let text = policy("  egress: [hosts: [registry.npmjs.org]]\n").replace(": p ", ": npm ");
    let bundle = load_with(&text, &["npm"]).unwrap();
    assert_eq!(bundle.policies.len(), 1);
    assert!(!bundle.policies[0].builtin);
}

#[test]
fn an_unknown_preset_of_the_command_line_has_no_place() {
    let errors = load_bundle(&[], &[Located::unwritten("claude-cod".into())]).unwrap_err();
    assert_eq!(
        render(&errors, Coloring::Plain),
        "\
error[TG0301]: unknown preset `claude-cod`
  did you mean `claude-code`?
  help: presets are anthropic, claude-code, claude-login, openai, codex, codex-login, gemini, github, telegram, npm, pypi
"
    );
}
