//! Paths: what a rule for `/public/**` lets through is below `/public/` for every server, however it reads
//! escapes, slashes and dots.
#![no_main]

use std::sync::LazyLock;

use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;
use tollgate::config::load::load_bundle;
use tollgate::policy::compile::compile;
use tollgate::policy::engine::Engine;
use tollgate::types::agent::Agent;
use tollgate::types::host::Authority;
use tollgate::types::intent::{EgressIntent, RequestLine, Scheme};

const POLICY: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: EgressPolicy
metadata: { name: p }
spec:
  egress:
    - hosts: [a.com]
      http: [{ paths: [/public/**, '/one/*/end'] }]
    - hosts: [a.com]
      action: Deny
      http: [{ paths: [/public/private/**] }]
";

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("tollgate-fuzz-path-{}.yaml", std::process::id()));
    std::fs::write(&file, POLICY).unwrap();
    let bundle = load_bundle(std::slice::from_ref(&file), &[]).unwrap();
    std::fs::remove_file(file).unwrap();
    compile(&bundle).unwrap()
});

/// The path as a server sees it that decodes `rounds` times, and does or does not do all the rest.
fn seen(path: &str, rounds: usize, turn: impl Fn(u8) -> bool, parameters: impl Fn(&[u8]) -> usize) -> Vec<Vec<u8>> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..rounds {
        bytes = percent_encoding::percent_decode(&bytes).collect();
    }
    let mut stack: Vec<Vec<u8>> = Vec::new();
    for segment in bytes.split(|b| turn(*b)) {
        match &segment[..parameters(segment)] {
            b"" | b"." => {}
            b".." => {
                stack.pop();
            }
            other => stack.push(other.to_vec()),
        }
    }
    stack
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // As it comes in: what is no URI is refused before.
    let Ok(uri) = format!("https://a.com/{text}").parse::<Uri>() else {
        return;
    };
    let agent = Agent::parse("agent").unwrap();
    let authority = Authority::parse("a.com:443", None).unwrap();
    let intent = EgressIntent {
        agent: &agent,
        authority: &authority,
        scheme: Scheme::Https,
        request: Some(RequestLine {
            method: &Method::GET,
            path: uri.path(),
        }),
    };
    let Ok(permit) = ENGINE.authorize(&intent) else {
        return;
    };
    assert_eq!(permit.authority(), &authority);
    let whole = |segment: &[u8]| segment.len();
    let cut = |segment: &[u8]| segment.iter().position(|b| *b == b';').unwrap_or(segment.len());
    for rounds in 1..4 {
        for slashes in [&b"/"[..], b"/\\"] {
            for readings in [
                seen(uri.path(), rounds, |b| slashes.contains(&b), whole),
                seen(uri.path(), rounds, |b| slashes.contains(&b), cut),
            ] {
                let first = readings.first().map(Vec::as_slice);
                assert!(first == Some(b"public") || first == Some(b"one"), "{:?} is {readings:?} to a server", uri.path());
                assert_ne!(readings.get(1).map(Vec::as_slice), Some(&b"private"[..]), "{:?}", uri.path());
            }
        }
    }
});
