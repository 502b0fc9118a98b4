//! Measures what an intercepted connection pays for its certificate: a host seen for the first time, and one seen before.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use tollgate::tls::authority::{CertificateAuthority, Constraints, EPHEMERAL_LIFETIME};
use tollgate::tls::leaf::LeafStore;
use tollgate::types::host::{Host, HostPattern};

fn leaf_minting(criterion: &mut Criterion) {
    let names = ["api.anthropic.com", "*.github.com", "*.example.com"];
    let names = names.map(|name| HostPattern::parse(name).unwrap()).to_vec();
    let constraints = Constraints::Names(names);
    let authority = CertificateAuthority::generate(&constraints, "Bench", EPHEMERAL_LIFETIME);
    let store = LeafStore::new(Arc::new(authority.unwrap()), 1024).unwrap();
    let mut group = criterion.benchmark_group("leaf_minting");

    let mut count = 0;
    group.bench_function("cold_mint", |bencher| {
        bencher.iter_batched_ref(
            || {
                count += 1;
                Host::parse(&format!("h{count}.example.com")).unwrap()
            },
            // Nobody else asks, so the store never waits.
            |host| store.server_config(host).now_or_never().unwrap().unwrap(),
            BatchSize::SmallInput,
        );
    });

    let host = Host::parse("api.anthropic.com").unwrap();
    group.bench_function("cached_hit", |bencher| {
        bencher.iter(|| store.server_config(&host).now_or_never().unwrap().unwrap());
    });
    group.finish();
}

criterion_group!(benches, leaf_minting);
criterion_main!(benches);
