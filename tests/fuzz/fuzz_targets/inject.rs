//! Placeholders in every place: the secret stands where the placeholder stood and nowhere else, no placeholder
//! is left behind, and no refusal shows a secret.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use tollgate::config::load::load_bundle;
use tollgate::credential::held::{HeldCredential, Need};
use tollgate::credential::source::Fetched;
use tollgate::inject::placeholder::PlaceholderKey;
use tollgate::inject::set::{Granted, Injectors, Target};
use tollgate::types::agent::Agent;
use tollgate::types::host::Authority;
use tollgate::types::intent::Scheme;
use tollgate::types::secret::Secret;

const SECRET: &str = "S3CRET+of=the-key";
const PLACEHOLDER: &str = "placeholder-main-0001";
const OTHER: &str = "placeholder-other-0002";
const DOCUMENTS: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: { name: main }
spec:
  hosts: [a.com]
  source: { env: { name: X } }
  placeholder: { value: placeholder-main-0001 }
  placements:
    - header: { name: x-api-key }
    - bearer: {}
    - basic: { position: password }
    - query: { name: key }
    - path: { template: '/bot{}/' }
    - cookie: { name: session }
    - body: { pointer: /token }
---
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: { name: other }
spec:
  hosts: [b.com]
  source: { env: { name: Y } }
  placeholder: { value: placeholder-other-0002 }
  placements: [{ bearer: {} }]
";

static INJECTORS: LazyLock<Injectors> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("tollgate-fuzz-inject-{}.yaml", std::process::id()));
    std::fs::write(&file, DOCUMENTS).unwrap();
    let bundle = load_bundle(std::slice::from_ref(&file), &[]).unwrap_or_else(|e| panic!("{e:?}"));
    std::fs::remove_file(file).unwrap();
    let held = ["main", "other"].map(|name| {
        let held = HeldCredential::new(name, "env:X".to_owned(), Need::Required);
        held.report(Ok(Fetched::lasting(Secret::from(SECRET.to_owned()))));
        (name.to_owned(), held)
    });
    Injectors::compile(&bundle, &BTreeMap::from(held), PlaceholderKey::new(&[7; 32]).unwrap()).unwrap()
});

/// Lines: the target, then fields, an empty line, the body.
fn request(text: &[u8]) -> Option<(Parts, &[u8])> {
    let end = text.windows(2).position(|w| w == b"\n\n");
    let (head, body) = end.map_or((text, &b""[..]), |end| (&text[..end], &text[end + 2..]));
    let mut lines = head.split(|b| *b == b'\n');
    let mut request = Request::builder().uri(lines.next()?);
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((request.body(()).ok()?.into_parts().0, body))
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle.as_bytes())
}

fn all(head: &Parts) -> Vec<u8> {
    let mut all = head.uri.to_string().into_bytes();
    for (name, value) in &head.headers {
        all.extend([b"\n", name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
    }
    all
}

fuzz_target!(|data: &[u8]| {
    // Nobody knows the secret beforehand.
    if holds(data, "S3CRET") {
        return;
    }
    let Some((mut head, body)) = request(data) else {
        return;
    };
    // Other forms of targets have become this one before.
    if head.uri.authority().is_some() || !head.uri.path().starts_with('/') {
        return;
    }
    let before = all(&head);
    let agent = Agent::parse("agent").unwrap();
    let authority = Authority::parse("a.com:443", None).unwrap();
    let target = Target { authority: &authority, scheme: Scheme::Https };
    let names: [Arc<str>; 1] = ["main".into()];
    let granted = Granted { applicable: &names, guarding: &names };
    let injected = match INJECTORS.apply(&agent, &target, &granted, &mut head) {
        Ok(injected) => injected,
        Err(error) => {
            let said = format!("{error:?} {} {}", error.message(), error.remedy());
            // A field that has it in its name is told by that name: it is no secret.
            let names_it = head.headers.keys().any(|name| holds(name.as_str().as_bytes(), PLACEHOLDER));
            assert!(!said.contains(SECRET) && (names_it || !said.contains(PLACEHOLDER)), "{said}");
            return;
        }
    };
    let after = all(&head);
    for left in [PLACEHOLDER, OTHER] {
        // In a field's name it is nobody's value.
        let in_values = head.headers.values().any(|value| holds(value.as_bytes(), left));
        let in_target = holds(head.uri.to_string().as_bytes(), left);
        assert!(!in_values && !in_target, "{}", String::from_utf8_lossy(&after));
    }
    let swapped = !injected.credentials.is_empty();
    assert_eq!(swapped, !injected.needles.is_empty());
    if !swapped && injected.stripped.is_empty() {
        assert_eq!(before, after, "nothing went in, and yet it is another request");
    }
    assert!(swapped || !holds(&after, "S3CRET"), "{}", String::from_utf8_lossy(&after));
    let Some(swap) = injected.body else {
        return;
    };
    match swap.apply(body) {
        Ok(None) => {}
        Ok(Some(swapped)) => {
            assert!(!swapped.needles.is_empty());
            let sent: serde_json::Value = serde_json::from_slice(&swapped.bytes).unwrap();
            assert_eq!(sent.pointer("/token").and_then(|t| t.as_str()), Some(SECRET));
        }
        Err(error) => {
            let said = format!("{error:?} {} {}", error.message(), error.remedy());
            assert!(!said.contains(SECRET), "{said}");
        }
    }
});
