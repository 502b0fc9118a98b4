//! Measures one injection: a placeholder in one of twenty fields becomes the secret.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that fails should stop"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::Request;
use http::request::Parts;
use tollgate::config::load::load_bundle;
use tollgate::credential::held::{HeldCredential, Need};
use tollgate::credential::source::Fetched;
use tollgate::inject::placeholder::PlaceholderKey;
use tollgate::inject::set::{Granted, Injectors, Target};
use tollgate::types::agent::Agent;
use tollgate::types::host::Authority;
use tollgate::types::intent::Scheme;
use tollgate::types::secret::Secret;

const DOCUMENT: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: { name: anthropic }
spec:
  hosts: [api.anthropic.com]
  source: { env: { name: ANTHROPIC_API_KEY } }
  placements: [{ header: { name: x-api-key } }, { bearer: {} }]
  placeholder: { shape: 'sk-ant-api03-[A-Za-z0-9_-:93]AA' }
";

fn injectors() -> Injectors {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credential.yaml");
    std::fs::write(&file, DOCUMENT).unwrap();
    let bundle = load_bundle(&[file], &[]).unwrap();
    let held = HeldCredential::new(
        "anthropic",
        "env:ANTHROPIC_API_KEY".to_owned(),
        Need::Required,
    );
    held.report(Ok(Fetched::lasting(Secret::from(format!(
        "sk-ant-api03-{}AA",
        "r".repeat(93)
    )))));
    let held = BTreeMap::from([("anthropic".to_owned(), held)]);
    Injectors::compile(&bundle, &held, PlaceholderKey::random().unwrap()).unwrap()
}

fn head(placeholder: &str) -> Parts {
    let mut request = Request::post("/v1/messages?beta=true").header("x-api-key", placeholder);
    for index in 0..19 {
        request = request.header(
            format!("x-field-{index}"),
            "some value of an ordinary length",
        );
    }
    request.body(()).unwrap().into_parts().0
}

fn inject(criterion: &mut Criterion) {
    let injectors = injectors();
    let agent = Agent::parse("agent").unwrap();
    let authority = Authority::parse("api.anthropic.com:443", None).unwrap();
    let target = Target {
        authority: &authority,
        scheme: Scheme::Https,
    };
    let applicable: [Arc<str>; 1] = ["anthropic".into()];
    let head = head(&injectors.placeholder(&agent, "anthropic").unwrap());
    let mut group = criterion.benchmark_group("inject");
    group.bench_function("swap_header_of_20", |bencher| {
        bencher.iter_batched_ref(
            || head.clone(),
            |head| {
                injectors
                    .apply(
                        &agent,
                        &target,
                        &Granted {
                            applicable: &applicable,
                            guarding: &applicable,
                        },
                        head,
                    )
                    .unwrap()
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("no_credential_applies", |bencher| {
        let mut head = head.clone();
        head.headers.remove("x-api-key");
        bencher.iter_batched_ref(
            || head.clone(),
            |head| {
                injectors
                    .apply(
                        &agent,
                        &target,
                        &Granted {
                            applicable: &[],
                            guarding: &[],
                        },
                        head,
                    )
                    .unwrap()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, inject);
criterion_main!(benches);
